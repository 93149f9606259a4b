use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

/// Takes or keeps a lease; no row when another replica has it.
pub async fn lease(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO leases (name, holder, until) VALUES ($1, $2, $4) ON CONFLICT (name) DO UPDATE \
         SET holder = $2, until = $4 WHERE leases.holder = $2 OR leases.until <= $3",
    )
    .bind(name)
    .bind(holder)
    .bind(now)
    .bind(until)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}
