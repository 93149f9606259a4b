use shared::ids::{ApprovalId, ClientId, SlotId, UserId};
use shared::time::Timestamp;

use super::{Approval, ApprovalState, Subject};
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
struct Row {
    id: ApprovalId,
    client_id: ClientId,
    slot_id: Option<SlotId>,
    reason: String,
    state: ApprovalState,
    asked_by: UserId,
    asker: String,
    decider: Option<String>,
    asked_at: Timestamp,
    expires_at: Timestamp,
    decided_at: Option<Timestamp>,
    used_at: Option<Timestamp>,
}

impl Row {
    fn at(self, now: Timestamp) -> Approval {
        let open = matches!(self.state, ApprovalState::Waiting | ApprovalState::Approved);
        let state = if open && self.expires_at <= now { ApprovalState::Expired } else { self.state };
        Approval {
            id: self.id,
            client_id: self.client_id,
            subject: self.slot_id.map_or(Subject::SwitchOff, Subject::Copy),
            reason: self.reason,
            state,
            asked_by: self.asked_by,
            asker: self.asker,
            decider: self.decider,
            asked_at: self.asked_at,
            expires_at: self.expires_at,
            decided_at: self.decided_at,
            used_at: self.used_at,
        }
    }
}

/// Closes what this user asked for and is past its end, so that they may ask again.
pub async fn expire(tx: &mut Tx, by: UserId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE approvals SET state = 'expired' \
         WHERE asked_by = $1 AND state IN ('waiting', 'approved') AND expires_at <= $2",
    )
    .bind(by)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub struct New<'a> {
    pub id: ApprovalId,
    pub client_id: ClientId,
    pub slot_id: Option<SlotId>,
    pub reason: &'a str,
    pub by: UserId,
}

/// No row when this user asked for the same already and it isn't over.
pub async fn insert(
    tx: &mut Tx,
    new: &New<'_>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO approvals (id, client_id, slot_id, reason, state, asked_by, asked_at, expires_at) \
         VALUES ($1, $2, $3, $4, 'waiting', $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(new.id)
    .bind(new.client_id)
    .bind(new.slot_id)
    .bind(new.reason)
    .bind(new.by)
    .bind(now)
    .bind(expires_at)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// No row when it isn't waiting any more, is over, or is the decider's own.
pub async fn decide(
    tx: &mut Tx,
    id: ApprovalId,
    by: UserId,
    state: ApprovalState,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE approvals SET state = $3, decided_by = $2, decided_at = $4 \
         WHERE id = $1 AND state = 'waiting' AND asked_by <> $2 AND expires_at > $4",
    )
    .bind(id)
    .bind(by)
    .bind(state)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// No row when it was used already, is over, or is somebody else's.
pub async fn use_up(tx: &mut Tx, id: ApprovalId, by: UserId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE approvals SET state = 'used', used_at = $3 \
         WHERE id = $1 AND state = 'approved' AND asked_by = $2 AND expires_at > $3",
    )
    .bind(id)
    .bind(by)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn get(tx: &mut Tx, id: ApprovalId, now: Timestamp) -> Result<Option<Approval>, sqlx::Error> {
    let row: Option<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT approvals.id, client_id, slot_id, reason, state, asked_by, asker.email AS asker, \
         decider.email AS decider, asked_at, expires_at, decided_at, used_at FROM approvals \
         JOIN users AS asker ON asker.id = approvals.asked_by \
         LEFT JOIN users AS decider ON decider.id = approvals.decided_by WHERE approvals.id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await)?;
    Ok(row.map(|row| row.at(now)))
}

pub async fn to_decide(tx: &mut Tx, by: UserId, now: Timestamp) -> Result<Vec<Approval>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT approvals.id, client_id, slot_id, reason, state, asked_by, asker.email AS asker, \
         decider.email AS decider, asked_at, expires_at, decided_at, used_at FROM approvals \
         JOIN users AS asker ON asker.id = approvals.asked_by \
         LEFT JOIN users AS decider ON decider.id = approvals.decided_by \
         WHERE state = 'waiting' AND expires_at > $2 AND asked_by <> $1 ORDER BY asked_at, approvals.id",
    )
    .bind(by)
    .bind(now)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(|row| row.at(now)).collect())
}

pub async fn count(tx: &mut Tx, by: UserId, now: Timestamp) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM approvals WHERE state = 'waiting' AND expires_at > $2 AND asked_by <> $1",
    )
    .bind(by)
    .bind(now)
    .fetch_one(conn)
    .await)
}

pub async fn asked(
    tx: &mut Tx,
    by: UserId,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<Approval>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT approvals.id, client_id, slot_id, reason, state, asked_by, asker.email AS asker, \
         decider.email AS decider, asked_at, expires_at, decided_at, used_at FROM approvals \
         JOIN users AS asker ON asker.id = approvals.asked_by \
         LEFT JOIN users AS decider ON decider.id = approvals.decided_by \
         WHERE asked_by = $1 AND asked_at > $2 ORDER BY asked_at DESC, approvals.id DESC LIMIT 20",
    )
    .bind(by)
    .bind(since)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(|row| row.at(now)).collect())
}
