use shared::ids::BoardId;
use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

pub async fn id(tx: &mut Tx) -> Result<Option<BoardId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT id FROM board WHERE singleton = 1").fetch_optional(conn).await)
}

pub async fn insert(tx: &mut Tx, id: BoardId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO board (singleton, id, created_at) VALUES (1, $1, $2)")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}
