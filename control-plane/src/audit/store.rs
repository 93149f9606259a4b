use shared::ids::{ClientId, DeviceId, SlotId};
use shared::time::Timestamp;

use super::chain::Link;
use super::filter::Bounds;
use super::heads::Alarm;
use super::{Action, Entry, Filter, number};
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
    actor: Option<String>,
}

impl Row {
    /// Whether the columns for searching say what the entry says.
    pub fn repeats(&self, entry: &Entry) -> bool {
        self.at == entry.at
            && self.action == entry.action
            && self.client_id == entry.client
            && self.slot_id == entry.slot
            && self.device_id == entry.device
            && self.actor.as_deref() == Some(entry.who.id.as_str())
    }
}

impl From<Row> for Link {
    fn from(row: Row) -> Self {
        Self {
            seq: number(row.seq),
            epoch: number(row.epoch),
            previous: row.previous,
            hash: row.hash,
            canonical: row.canonical,
        }
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

/// The next entry is the first of a new epoch.
pub async fn begin_epoch(tx: &mut Tx) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE audit_head SET epoch = epoch + 1 WHERE singleton = 1")
        .execute(conn)
        .await
        .map(|_| ()))
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
        "INSERT INTO audit_log (seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id, actor) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
    .bind(&row.entry.who.id)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn newest(tx: &mut Tx) -> Result<Option<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id, actor \
         FROM audit_log ORDER BY seq DESC LIMIT 1",
    )
    .fetch_optional(conn)
    .await)
}

pub async fn head_seq(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT seq FROM audit_head WHERE singleton = 1").fetch_one(conn).await)
}

/// Newest first, below `before`. A condition that is `None` holds for every entry.
pub async fn before(
    tx: &mut Tx,
    before: i64,
    limit: i64,
    filter: &Filter,
    bounds: Bounds,
) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id, actor \
         FROM audit_log WHERE seq < $1 AND seq >= $2 AND seq < $3 \
         AND (client_id = $4 OR $4 IS NULL) AND (device_id = $5 OR $5 IS NULL) \
         AND (actor = $6 OR $6 IS NULL) AND (action = $7 OR $7 IS NULL) \
         ORDER BY seq DESC LIMIT $8",
    )
    .bind(before)
    .bind(bounds.from)
    .bind(bounds.to)
    .bind(filter.client)
    .bind(filter.device)
    .bind(filter.actor.as_deref())
    .bind(filter.action)
    .bind(limit)
    .fetch_all(conn)
    .await)
}

/// Sequence number of the first entry that was made at `at` or later.
pub async fn first_since(tx: &mut Tx, at: Timestamp) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT min(seq) FROM audit_log WHERE at >= $1").bind(at).fetch_one(conn).await)
}

/// Sequence number of the last entry that was made before `at`.
pub async fn last_until(tx: &mut Tx, at: Timestamp) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT max(seq) FROM audit_log WHERE at < $1").bind(at).fetch_one(conn).await)
}

pub async fn place(tx: &mut Tx, seq: i64) -> Result<Option<(i64, Vec<u8>)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT epoch, hash FROM audit_log WHERE seq = $1")
        .bind(seq)
        .fetch_optional(conn)
        .await)
}

/// Last entry of this epoch or an earlier one; 0 when there is none.
pub async fn end_of_epoch(tx: &mut Tx, epoch: i64) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM audit_log WHERE epoch <= $1")
        .bind(epoch)
        .fetch_one(conn)
        .await)
}

/// Whether this witness has an alarm that stands, or said the same before.
pub async fn is_alarmed(
    tx: &mut Tx,
    device: Option<DeviceId>,
    epoch: i64,
    seq: i64,
    hash: &[u8],
) -> Result<bool, sqlx::Error> {
    let alarms: i64 = on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM audit_alarms \
         WHERE (device_id = $1 OR (device_id IS NULL AND $1 IS NULL)) \
         AND kind = 'head' AND (acknowledged_at IS NULL OR (epoch = $2 AND seq = $3 AND hash = $4))",
    )
    .bind(device)
    .bind(epoch)
    .bind(seq)
    .bind(hash)
    .fetch_one(conn)
    .await)?;
    Ok(alarms > 0)
}

pub async fn insert_alarm(tx: &mut Tx, alarm: &Alarm, hash: &[u8]) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO audit_alarms (entry, device_id, epoch, seq, hash, why, raised_at, kind) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(alarm.entry)
    .bind(alarm.device_id)
    .bind(alarm.epoch)
    .bind(alarm.seq)
    .bind(hash)
    .bind(&alarm.why)
    .bind(alarm.raised_at)
    .bind(alarm.kind)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn alarms(tx: &mut Tx, most: i64) -> Result<Vec<Alarm>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT entry, device_id, epoch, seq, why, raised_at, kind FROM audit_alarms \
         WHERE acknowledged_at IS NULL ORDER BY entry LIMIT $1",
    )
    .bind(most)
    .fetch_all(conn)
    .await)
}

/// How many alarms stand, and the entry of the last.
pub async fn count_alarms(tx: &mut Tx) -> Result<(i64, Option<i64>), sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT count(*), max(entry) FROM audit_alarms WHERE acknowledged_at IS NULL")
        .fetch_one(conn)
        .await)
}

pub async fn any_alarm(tx: &mut Tx) -> Result<bool, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM audit_alarms WHERE acknowledged_at IS NULL)")
        .fetch_one(conn)
        .await)
}

pub async fn acknowledge(tx: &mut Tx, entry: i64, by: &str, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE audit_alarms SET acknowledged_at = $1, acknowledged_by = $2 \
         WHERE entry = $3 AND acknowledged_at IS NULL",
    )
    .bind(now)
    .bind(by)
    .bind(entry)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Those up to an entry; gives their number.
pub async fn acknowledge_up_to(
    tx: &mut Tx,
    entry: i64,
    by: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE audit_alarms SET acknowledged_at = $1, acknowledged_by = $2 \
         WHERE entry <= $3 AND acknowledged_at IS NULL",
    )
    .bind(now)
    .bind(by)
    .bind(entry)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn after(tx: &mut Tx, seq: i64, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id, actor \
         FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2",
    )
    .bind(seq)
    .bind(limit)
    .fetch_all(conn)
    .await)
}

/// Oldest first, from `from` to below `to`, of those that a filter wants.
pub async fn between(
    tx: &mut Tx,
    from: i64,
    to: i64,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT seq, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id, actor \
         FROM audit_log WHERE seq >= $1 AND seq < $2 \
         AND (client_id = $3 OR $3 IS NULL) AND (device_id = $4 OR $4 IS NULL) \
         AND (actor = $5 OR $5 IS NULL) AND (action = $6 OR $6 IS NULL) \
         ORDER BY seq LIMIT $7",
    )
    .bind(from)
    .bind(to)
    .bind(filter.client)
    .bind(filter.device)
    .bind(filter.actor.as_deref())
    .bind(filter.action)
    .bind(limit)
    .fetch_all(conn)
    .await)
}

/// Entries of two actions about secrets of the board itself, newest first. There are as many as an operator stored keys, and
/// as many again for each root key.
pub async fn latest_for_board(tx: &mut Tx, [first, second]: [Action; 2]) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT canonical FROM audit_log WHERE client_id IS NULL AND slot_id IS NULL AND action IN ($1, $2) \
         ORDER BY seq DESC",
    )
    .bind(first)
    .bind(second)
    .fetch_all(conn)
    .await)
}

pub async fn latest_for_slot(
    tx: &mut Tx,
    client_id: ClientId,
    slot_id: SlotId,
    [first, second]: [Action; 2],
) -> Result<Option<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT canonical FROM audit_log WHERE client_id = $1 AND slot_id = $2 AND action IN ($3, $4) \
         ORDER BY seq DESC LIMIT 1",
    )
    .bind(client_id)
    .bind(slot_id)
    .bind(first)
    .bind(second)
    .fetch_optional(conn)
    .await)
}

/// The last entry of each slot and device, and how many there are, oldest first.
pub async fn latest_of(
    tx: &mut Tx,
    client_id: ClientId,
    action: Action,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT audit_log.canonical, last.times FROM audit_log JOIN \
         (SELECT max(seq) AS seq, count(*) AS times FROM audit_log WHERE client_id = $1 AND action = $2 \
         GROUP BY slot_id, device_id) AS last ON last.seq = audit_log.seq ORDER BY audit_log.seq",
    )
    .bind(client_id)
    .bind(action)
    .fetch_all(conn)
    .await)
}
