use shared::ids::{ClientId, DeviceId, SlotId};
use shared::time::Timestamp;

use super::{Action, Entry};
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct Row {
    pub seq: i64,
    pub epoch: i64,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
    pub canonical: String,
    at: Timestamp,
    action: Action,
    client_id: Option<ClientId>,
    slot_id: Option<SlotId>,
    device_id: Option<DeviceId>,
}

impl Row {
    /// Whether the columns for searching say what the entry says.
    pub fn repeats(&self, entry: &Entry) -> bool {
        self.at == entry.at
            && self.action == entry.action
            && self.client_id == entry.client
            && self.slot_id == entry.slot
            && self.device_id == entry.device
    }
}

pub struct NewRow<'a> {
    pub epoch: i64,
    pub seq: i64,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
    pub canonical: String,
    pub entry: &'a Entry,
}

/// Moves the head, so that writers come one after another; gives (epoch, seq) of the entry to write.
pub async fn take_turn(tx: &mut Tx) -> Result<(i64, i64), sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "UPDATE audit_head SET seq = seq + 1 WHERE singleton = 1 RETURNING epoch, seq",
    )
    .fetch_one(conn)
    .await)
}

/// Writes the head as it is: proof that it can be written, without an entry.
pub async fn touch_head(tx: &mut Tx) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE audit_head SET seq = seq WHERE singleton = 1").execute(conn).await.map(|_| ()))
}

pub async fn hash_at(tx: &mut Tx, seq: i64) -> Result<Option<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT hash FROM audit_log WHERE seq = $1")
        .bind(seq)
        .fetch_optional(conn)
        .await)
}

pub async fn insert(tx: &mut Tx, row: NewRow<'_>) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO audit_log (seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(row.seq)
    .bind(row.epoch)
    .bind(&row.previous)
    .bind(&row.hash)
    .bind(&row.canonical)
    .bind(row.entry.at)
    .bind(row.entry.action)
    .bind(row.entry.client)
    .bind(row.entry.slot)
    .bind(row.entry.device)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn newest(tx: &mut Tx) -> Result<Option<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id \
         FROM audit_log ORDER BY seq DESC LIMIT 1",
    )
    .fetch_optional(conn)
    .await)
}

pub async fn head_seq(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT seq FROM audit_head WHERE singleton = 1").fetch_one(conn).await)
}

pub async fn before(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id \
         FROM audit_log WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
    )
    .bind(seq)
    .bind(limit)
    .fetch_all(conn)
    .await)
}

pub async fn after(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id \
         FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2",
    )
    .bind(seq)
    .bind(limit)
    .fetch_all(conn)
    .await)
}

/// Entries of an action about a secret of the board itself, newest first. There are as many as an operator stored keys.
pub async fn latest_for_board(tx: &mut Tx, action: Action) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT canonical FROM audit_log WHERE client_id IS NULL AND slot_id IS NULL AND action = $1 ORDER BY seq DESC",
    )
    .bind(action)
    .fetch_all(conn)
    .await)
}

pub async fn latest_for_slot(
    tx: &mut Tx,
    client_id: ClientId,
    slot_id: SlotId,
    action: Action,
) -> Result<Option<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT canonical FROM audit_log WHERE client_id = $1 AND slot_id = $2 AND action = $3 \
         ORDER BY seq DESC LIMIT 1",
    )
    .bind(client_id)
    .bind(slot_id)
    .bind(action)
    .fetch_optional(conn)
    .await)
}
