use shared::ids::{TokenId, UserId};
use shared::time::Timestamp;

use super::{Role, Token};
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
pub struct Row {
    pub id: TokenId,
    name: String,
    user_email: Option<String>,
    created_by: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl Row {
    pub fn with(self, roles: Vec<Role>) -> Token {
        Token {
            id: self.id,
            name: self.name,
            roles,
            user: self.user_email,
            created_by: self.created_by,
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
            revoked_at: self.revoked_at,
        }
    }
}

pub struct NewRow<'a> {
    pub id: TokenId,
    pub name: &'a str,
    pub hash: Vec<u8>,
    pub user: Option<UserId>,
    pub created_by: String,
    pub now: Timestamp,
    pub expires: Timestamp,
}

/// No row when a token that isn't revoked has the name.
pub async fn insert(tx: &mut Tx, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO api_tokens (id, name, token_hash, user_id, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING",
    )
    .bind(row.id)
    .bind(row.name)
    .bind(&row.hash)
    .bind(row.user)
    .bind(&row.created_by)
    .bind(row.now)
    .bind(row.expires)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn insert_role(tx: &mut Tx, id: TokenId, role: Role) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO api_token_roles (token_id, role) VALUES ($1, $2)")
        .bind(id)
        .bind(role)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn roles(tx: &mut Tx, id: TokenId) -> Result<Vec<Role>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT role FROM api_token_roles WHERE token_id = $1 ORDER BY role")
        .bind(id)
        .fetch_all(conn)
        .await)
}

pub async fn all(tx: &mut Tx) -> Result<Vec<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT api_tokens.id, api_tokens.name, users.email AS user_email, api_tokens.created_by, \
         api_tokens.created_at, api_tokens.expires_at, api_tokens.last_used_at, api_tokens.revoked_at \
         FROM api_tokens LEFT JOIN users ON users.id = api_tokens.user_id ORDER BY api_tokens.id DESC",
    )
    .fetch_all(conn)
    .await)
}

pub async fn by_hash(tx: &mut Tx, hash: &[u8]) -> Result<Option<Row>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT api_tokens.id, api_tokens.name, users.email AS user_email, api_tokens.created_by, \
         api_tokens.created_at, api_tokens.expires_at, api_tokens.last_used_at, \
         coalesce(api_tokens.revoked_at, users.disabled_at) AS revoked_at \
         FROM api_tokens LEFT JOIN users ON users.id = api_tokens.user_id WHERE api_tokens.token_hash = $1",
    )
    .bind(hash)
    .fetch_optional(conn)
    .await)
}

pub async fn revoke(tx: &mut Tx, id: TokenId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// An expired token leaves its name to the next one.
pub async fn give_up_expired(tx: &mut Tx, name: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE api_tokens SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL AND expires_at <= $2",
    )
    .bind(name)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn note_use(tx: &mut Tx, id: TokenId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE api_tokens SET last_used_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}
