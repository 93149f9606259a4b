//! Counted failures: after too many from one source, or from everybody together, the next try has to wait. The count is
//! in the database, so that replicas share it and a restart doesn't forget it.

use std::time::Duration;

use shared::time::Timestamp;

use super::store;
use crate::db::Tx;

#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    pub bucket: &'static str,
    pub per_source: i64,
    pub in_total: i64,
    pub window: Duration,
}

impl Throttle {
    pub async fn allows(&self, tx: &mut Tx, source: &str, now: Timestamp) -> Result<bool, sqlx::Error> {
        let (mine, all) = store::count_failures(tx, self.bucket, source, now.before(self.window)).await?;
        Ok(mine < self.per_source && all < self.in_total)
    }

    /// It went well: what was counted against the source is forgotten.
    pub async fn forgive(&self, tx: &mut Tx, source: &str) -> Result<(), sqlx::Error> {
        store::forgive_failures(tx, self.bucket, source).await
    }

    pub async fn record(&self, tx: &mut Tx, source: &str, now: Timestamp) -> Result<(), sqlx::Error> {
        store::forget_failures(tx, self.bucket, now.before(self.window)).await?;
        store::insert_failure(tx, self.bucket, source, now).await
    }
}
