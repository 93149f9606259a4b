use shared::ids::UserId;
use shared::time::Timestamp;

use super::{Listed, Role};
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct Row {
    pub id: UserId,
    email: String,
    created_at: Timestamp,
    has_password: bool,
    has_passkey: bool,
    disabled_at: Option<Timestamp>,
}

impl Row {
    pub fn with(self, roles: Vec<Role>) -> Listed {
        Listed {
            id: self.id,
            email: self.email,
            roles,
            created_at: self.created_at,
            has_password: self.has_password,
            has_passkey: self.has_passkey,
            disabled_at: self.disabled_at,
        }
    }
}

pub async fn all(tx: &mut Tx) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, email, created_at, password_hash IS NOT NULL AS has_password, \
         EXISTS (SELECT 1 FROM passkeys WHERE passkeys.user_id = users.id) AS has_passkey, disabled_at \
         FROM users ORDER BY lower(email)",
    )
    .fetch_all(conn)
    .await)
}

pub async fn get(tx: &mut Tx, id: UserId) -> Result<Option<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, email, created_at, password_hash IS NOT NULL AS has_password, \
         EXISTS (SELECT 1 FROM passkeys WHERE passkeys.user_id = users.id) AS has_passkey, disabled_at \
         FROM users WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await)
}

/// Makes whoever else changes operators wait until this transaction ends, so that two can't each remove the other.
pub async fn hold_operators(tx: &mut Tx) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE users SET disabled_at = disabled_at \
         WHERE id IN (SELECT user_id FROM user_roles WHERE role = 'operator')",
    )
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Operators who can sign in.
pub async fn count_operators(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM users JOIN user_roles ON user_roles.user_id = users.id \
         WHERE user_roles.role = 'operator' AND users.disabled_at IS NULL AND (users.password_hash IS NOT NULL \
         OR EXISTS (SELECT 1 FROM passkeys WHERE passkeys.user_id = users.id))",
    )
    .fetch_one(conn)
    .await)
}

pub async fn delete_roles(tx: &mut Tx, id: UserId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM user_roles WHERE user_id = $1").bind(id).execute(conn).await.map(|_| ()))
}

pub async fn disable(tx: &mut Tx, id: UserId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE users SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn enable(tx: &mut Tx, id: UserId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE users SET disabled_at = NULL WHERE id = $1 AND disabled_at IS NOT NULL")
        .bind(id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}
