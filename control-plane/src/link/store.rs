use shared::ids::{DeviceId, ReportId};
use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

/// Notes a report; false when it was applied before.
pub async fn first_time(
    tx: &mut Tx,
    report_id: ReportId,
    device_id: DeviceId,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let rows = on!(tx, conn => sqlx::query(
        "INSERT INTO device_reports (report_id, device_id, applied_at) VALUES ($1, $2, $3) \
         ON CONFLICT (device_id, report_id) DO NOTHING",
    )
    .bind(report_id)
    .bind(device_id)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}
