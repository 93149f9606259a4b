use shared::ids::{LinkId, SessionId, UserId};
use shared::time::Timestamp;

use super::Role;
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct UserRow {
    pub id: UserId,
    pub email: String,
    pub password_hash: Option<String>,
    pub disabled_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
pub struct SessionRow {
    /// The user's.
    pub id: UserId,
    pub email: String,
    pub fresh_at: Option<Timestamp>,
}

pub async fn insert_user(tx: &mut Tx, id: UserId, email: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO users (id, email, created_at) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(email)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn insert_role(tx: &mut Tx, user_id: UserId, role: Role) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO user_roles (user_id, role) VALUES ($1, $2)")
        .bind(user_id)
        .bind(role)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn roles(tx: &mut Tx, user_id: UserId) -> Result<Vec<Role>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT role FROM user_roles WHERE user_id = $1 ORDER BY role")
        .bind(user_id)
        .fetch_all(conn)
        .await)
}

pub async fn user_by_email(tx: &mut Tx, email: &str) -> Result<Option<UserRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT id, email, password_hash, disabled_at FROM users WHERE lower(email) = lower($1)")
        .bind(email)
        .fetch_optional(conn)
        .await)
}

pub async fn set_password(tx: &mut Tx, user_id: UserId, hash: &str) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE users SET password_hash = $2 WHERE id = $1")
        .bind(user_id)
        .bind(hash)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn insert_link(
    tx: &mut Tx,
    id: LinkId,
    user_id: UserId,
    hash: &[u8],
    now: Timestamp,
    expires: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO sign_in_links (id, user_id, token_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(user_id)
    .bind(hash)
    .bind(now)
    .bind(expires)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Makes whoever disables this user, or takes roles from them, wait until this transaction ends; false when they are
/// disabled. Whatever opens the board to a user begins with it.
pub async fn hold(tx: &mut Tx, id: UserId) -> Result<bool, sqlx::Error> {
    let rows = on!(tx, conn => sqlx::query(
        "UPDATE users SET disabled_at = disabled_at WHERE id = $1 AND disabled_at IS NULL",
    )
    .bind(id)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// The user of a link that is neither used nor over.
pub async fn open_link(
    tx: &mut Tx,
    hash: &[u8],
    now: Timestamp,
) -> Result<Option<(UserId, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT users.id, users.email FROM sign_in_links JOIN users ON users.id = sign_in_links.user_id \
         WHERE sign_in_links.token_hash = $1 AND sign_in_links.used_at IS NULL \
         AND sign_in_links.expires_at > $2 AND users.disabled_at IS NULL",
    )
    .bind(hash)
    .bind(now)
    .fetch_optional(conn)
    .await)
}

pub async fn use_link(tx: &mut Tx, hash: &[u8], now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE sign_in_links SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL")
        .bind(hash)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn insert_session(
    tx: &mut Tx,
    id: SessionId,
    user_id: UserId,
    hash: &[u8],
    now: Timestamp,
    expires: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO sessions (id, user_id, token_hash, created_at, expires_at, fresh_at) \
         VALUES ($1, $2, $3, $4, $5, $4)",
    )
    .bind(id)
    .bind(user_id)
    .bind(hash)
    .bind(now)
    .bind(expires)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn has_session(tx: &mut Tx, hash: &[u8]) -> Result<bool, sqlx::Error> {
    let count: i64 = on!(tx, conn => sqlx::query_scalar("SELECT count(*) FROM sessions WHERE token_hash = $1")
        .bind(hash)
        .fetch_one(conn)
        .await)?;
    Ok(count > 0)
}

pub async fn session(tx: &mut Tx, hash: &[u8], now: Timestamp) -> Result<Option<SessionRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT users.id, users.email, sessions.fresh_at FROM sessions JOIN users ON users.id = sessions.user_id \
         WHERE sessions.token_hash = $1 AND sessions.expires_at > $2 AND users.disabled_at IS NULL",
    )
    .bind(hash)
    .bind(now)
    .fetch_optional(conn)
    .await)
}

pub async fn refresh_session(tx: &mut Tx, hash: &[u8], now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE sessions SET fresh_at = $2 WHERE token_hash = $1 AND expires_at > $2")
        .bind(hash)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn delete_session(tx: &mut Tx, hash: &[u8]) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM sessions WHERE token_hash = $1").bind(hash).execute(conn).await.map(|_| ()))
}

/// Failures since a moment: of this source, and of all.
pub async fn count_failures(
    tx: &mut Tx,
    bucket: &str,
    source: &str,
    since: Timestamp,
) -> Result<(i64, i64), sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT count(CASE WHEN source = $2 THEN 1 END), count(*) FROM failures WHERE bucket = $1 AND at > $3",
    )
    .bind(bucket)
    .bind(source)
    .bind(since)
    .fetch_one(conn)
    .await)
}

pub async fn insert_failure(
    tx: &mut Tx,
    bucket: &str,
    source: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO failures (bucket, source, at) VALUES ($1, $2, $3)")
        .bind(bucket)
        .bind(source)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn forgive_failures(tx: &mut Tx, bucket: &str, source: &str) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM failures WHERE bucket = $1 AND source = $2")
        .bind(bucket)
        .bind(source)
        .execute(conn)
        .await
        .map(|_| ()))
}

/// Ends a user's sessions and other one-time links: whoever held one before is out.
pub async fn end_access(tx: &mut Tx, user_id: UserId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(user_id).execute(conn).await.map(|_| ()))?;
    on!(tx, conn => sqlx::query("UPDATE sign_in_links SET used_at = $2 WHERE user_id = $1 AND used_at IS NULL")
        .bind(user_id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn forget_failures(tx: &mut Tx, bucket: &str, before: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM failures WHERE bucket = $1 AND at < $2")
        .bind(bucket)
        .bind(before)
        .execute(conn)
        .await
        .map(|_| ()))
}
