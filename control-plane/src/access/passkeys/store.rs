use shared::ids::{ChallengeId, PasskeyId, UserId};
use shared::time::Timestamp;

use super::Purpose;
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct Row {
    pub id: PasskeyId,
    pub user_id: UserId,
    pub name: String,
    pub passkey: String,
    pub version: i64,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
}

/// A user's, oldest first.
pub async fn of_user(tx: &mut Tx, user_id: UserId) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, user_id, name, passkey, version, created_at, last_used_at FROM passkeys \
         WHERE user_id = $1 ORDER BY id",
    )
    .bind(user_id)
    .fetch_all(conn)
    .await)
}

pub async fn by_credential(tx: &mut Tx, credential_id: &[u8]) -> Result<Option<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, user_id, name, passkey, version, created_at, last_used_at FROM passkeys \
         WHERE credential_id = $1",
    )
    .bind(credential_id)
    .fetch_optional(conn)
    .await)
}

pub async fn insert(
    tx: &mut Tx,
    (id, user_id): (PasskeyId, UserId),
    credential_id: &[u8],
    name: &str,
    passkey: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO passkeys (id, user_id, credential_id, name, passkey, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id)
    .bind(user_id)
    .bind(credential_id)
    .bind(name)
    .bind(passkey)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Keeps the counter and backup state that an answer brought, unless another answer came meanwhile.
pub async fn used(tx: &mut Tx, row: &Row, passkey: &str, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE passkeys SET passkey = $3, version = version + 1, last_used_at = $4 WHERE id = $1 AND version = $2",
    )
    .bind(row.id)
    .bind(row.version)
    .bind(passkey)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn delete(tx: &mut Tx, id: PasskeyId, user_id: UserId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM passkeys WHERE id = $1 AND user_id = $2")
        .bind(id)
        .bind(user_id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn insert_challenge(
    tx: &mut Tx,
    id: ChallengeId,
    purpose: Purpose,
    binding: &[u8],
    state: &str,
    expires: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO passkey_challenges (id, purpose, binding, state, expires_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(purpose)
    .bind(binding)
    .bind(state)
    .bind(expires)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Takes a challenge out, so that nobody can answer it again. Gives its state while it is good.
pub async fn take_challenge(
    tx: &mut Tx,
    id: ChallengeId,
    purpose: Purpose,
    binding: &[u8],
    now: Timestamp,
) -> Result<Option<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "DELETE FROM passkey_challenges WHERE id = $1 AND purpose = $2 AND binding = $3 AND expires_at > $4 \
         RETURNING state",
    )
    .bind(id)
    .bind(purpose)
    .bind(binding)
    .bind(now)
    .fetch_optional(conn)
    .await)
}

pub async fn forget_challenges(tx: &mut Tx, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM passkey_challenges WHERE expires_at <= $1")
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn are_required(tx: &mut Tx) -> Result<bool, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT require_passkeys FROM sign_in_rules WHERE id = 1")
        .fetch_one(conn)
        .await)
}

pub async fn require(tx: &mut Tx, on: bool) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE sign_in_rules SET require_passkeys = $1 WHERE id = 1 AND require_passkeys <> $1",
    )
    .bind(on)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}
