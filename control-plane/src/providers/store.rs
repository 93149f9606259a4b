use shared::ids::ClientId;
use shared::time::Timestamp;

use super::{ClientKey, KeyState};
use crate::db::Tx;
use crate::on;

pub async fn key(tx: &mut Tx, client_id: ClientId) -> Result<Option<ClientKey>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT client_id, state, limit_micros, hash, version, disabled, trouble, changed_at, usage_micros, expires_at, read_at \
         FROM provider_keys WHERE client_id = $1",
    )
    .bind(client_id)
    .fetch_optional(conn)
    .await)
}

pub async fn keys(tx: &mut Tx) -> Result<Vec<ClientKey>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT client_id, state, limit_micros, hash, version, disabled, trouble, changed_at, usage_micros, expires_at, read_at \
         FROM provider_keys ORDER BY client_id",
    )
    .fetch_all(conn)
    .await)
}

/// Clients whose key is to be made and that nobody is at.
pub async fn unfinished(tx: &mut Tx, now: Timestamp) -> Result<Vec<ClientId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT client_id FROM provider_keys WHERE state IN ('planned', 'asked', 'made') \
         AND (held_until IS NULL OR held_until <= $1) ORDER BY changed_at",
    )
    .bind(now)
    .fetch_all(conn)
    .await)
}

/// Clients with a key that works or is being made, and should not: those whose engagement ended, or `everybody`.
pub async fn to_end(tx: &mut Tx, everybody: bool) -> Result<Vec<ClientId>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT provider_keys.client_id FROM provider_keys JOIN clients ON clients.id = provider_keys.client_id \
         WHERE ((provider_keys.state = 'stored' AND NOT provider_keys.disabled) \
         OR provider_keys.state IN ('planned', 'asked', 'made')) AND ($1 OR clients.engagement <> 'active') \
         ORDER BY provider_keys.changed_at",
    )
    .bind(everybody)
    .fetch_all(conn)
    .await)
}

/// Keeps the limit; a client without a row gets one.
pub async fn set_limit(
    tx: &mut Tx,
    client_id: ClientId,
    limit_micros: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO provider_keys (client_id, state, limit_micros, changed_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (client_id) DO UPDATE SET limit_micros = $3, changed_at = $4",
    )
    .bind(client_id)
    .bind(KeyState::Idle)
    .bind(limit_micros)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// A key is to be made, unless there is one or somebody is at it.
pub async fn plan(
    tx: &mut Tx,
    client_id: ClientId,
    default_limit_micros: i64,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO provider_keys (client_id, state, limit_micros, changed_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (client_id) DO UPDATE SET state = $2, trouble = NULL, changed_at = $4 \
         WHERE provider_keys.state IN ('idle', 'failed', 'deleted')",
    )
    .bind(client_id)
    .bind(KeyState::Planned)
    .bind(default_limit_micros)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Takes an unfinished key that nobody is at.
pub async fn claim(
    tx: &mut Tx,
    client_id: ClientId,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET holder = $2, held_until = $4 WHERE client_id = $1 \
         AND state IN ('planned', 'asked', 'made') AND (held_until IS NULL OR held_until <= $3)",
    )
    .bind(client_id)
    .bind(holder)
    .bind(now)
    .bind(until)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// No row when somebody else took it, or it was called off.
pub async fn hold(
    tx: &mut Tx,
    client_id: ClientId,
    holder: &str,
    until: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET held_until = $3 WHERE client_id = $1 AND holder = $2 \
         AND state IN ('planned', 'asked', 'made')",
    )
    .bind(client_id)
    .bind(holder)
    .bind(until)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Forgets the handle of a key whose value was lost: it is to be asked for again.
pub async fn ask(tx: &mut Tx, client_id: ClientId, holder: &str, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET state = 'asked', hash = NULL, changed_at = $3 WHERE client_id = $1 AND holder = $2 \
         AND state IN ('planned', 'asked', 'made')",
    )
    .bind(client_id)
    .bind(holder)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn made(
    tx: &mut Tx,
    client_id: ClientId,
    holder: &str,
    hash: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET state = 'made', hash = $3, changed_at = $4 WHERE client_id = $1 AND holder = $2 \
         AND state = 'asked'",
    )
    .bind(client_id)
    .bind(holder)
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// With the value in the same transaction.
pub async fn stored(
    tx: &mut Tx,
    client_id: ClientId,
    holder: &str,
    hash: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET state = 'stored', holder = NULL, held_until = NULL, trouble = NULL, changed_at = $4, \
         disabled = $5, usage_micros = 0, expires_at = NULL, read_at = $4 \
         WHERE client_id = $1 AND holder = $2 AND hash = $3 AND state = 'made'",
    )
    .bind(client_id)
    .bind(holder)
    .bind(hash)
    .bind(now)
    .bind(false)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Which version of the client's slot the key is. With [`stored`].
pub async fn set_version(tx: &mut Tx, client_id: ClientId, version: u64) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE provider_keys SET version = $2 WHERE client_id = $1")
        .bind(client_id)
        .bind(i64::try_from(version).unwrap_or(i64::MAX))
        .execute(conn)
        .await
        .map(|_| ()))
}

/// Whoever was at it can't go on.
pub async fn failed(
    tx: &mut Tx,
    client_id: ClientId,
    holder: &str,
    trouble: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET state = 'failed', holder = NULL, held_until = NULL, trouble = $3, changed_at = $4 \
         WHERE client_id = $1 AND holder = $2 AND state IN ('planned', 'asked', 'made')",
    )
    .bind(client_id)
    .bind(holder)
    .bind(trouble)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// What isn't there yet shall not come: whoever is at it loses it.
pub async fn call_off(
    tx: &mut Tx,
    client_id: ClientId,
    trouble: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET state = 'failed', holder = NULL, held_until = NULL, trouble = $2, changed_at = $3 \
         WHERE client_id = $1 AND state IN ('planned', 'asked', 'made')",
    )
    .bind(client_id)
    .bind(trouble)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn set_disabled(
    tx: &mut Tx,
    client_id: ClientId,
    hash: &str,
    disabled: bool,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET disabled = $3, changed_at = $4 WHERE client_id = $1 AND hash = $2 AND state = 'stored'",
    )
    .bind(client_id)
    .bind(hash)
    .bind(disabled)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn deleted(
    tx: &mut Tx,
    client_id: ClientId,
    hash: &str,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET state = 'deleted', hash = NULL, trouble = NULL, changed_at = $3 \
         WHERE client_id = $1 AND hash = $2 AND state = 'stored'",
    )
    .bind(client_id)
    .bind(hash)
    .bind(now)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// What was read of a key.
pub struct Numbers {
    pub usage_micros: Option<i64>,
    pub limit_micros: Option<i64>,
    pub expires_at: Option<Timestamp>,
    pub disabled: bool,
}

pub async fn set_numbers(
    tx: &mut Tx,
    client_id: ClientId,
    hash: &str,
    numbers: &Numbers,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET usage_micros = $3, limit_micros = coalesce($4, limit_micros), expires_at = $5, \
         disabled = $6, read_at = $7, trouble = NULL WHERE client_id = $1 AND hash = $2 AND state = 'stored'",
    )
    .bind(client_id)
    .bind(hash)
    .bind(numbers.usage_micros)
    .bind(numbers.limit_micros)
    .bind(numbers.expires_at)
    .bind(numbers.disabled)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// What is wrong with a key that a reading should have found.
pub async fn set_trouble(
    tx: &mut Tx,
    client_id: ClientId,
    hash: &str,
    trouble: &str,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE provider_keys SET trouble = $3 WHERE client_id = $1 AND hash = $2 AND state = 'stored'",
    )
    .bind(client_id)
    .bind(hash)
    .bind(trouble)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Takes the reading that is due; no row when none is, or another replica took it.
pub async fn take_reading(
    tx: &mut Tx,
    provider: &str,
    now: Timestamp,
    next: Timestamp,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO provider_reads (provider, due_at) VALUES ($1, $3) \
         ON CONFLICT (provider) DO UPDATE SET due_at = $3 WHERE provider_reads.due_at <= $2",
    )
    .bind(provider)
    .bind(now)
    .bind(next)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn set_reading_trouble(
    tx: &mut Tx,
    provider: &str,
    trouble: Option<&str>,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE provider_reads SET trouble = $2 WHERE provider = $1")
        .bind(provider)
        .bind(trouble)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn reading_trouble(tx: &mut Tx, provider: &str) -> Result<Option<String>, sqlx::Error> {
    let row: Option<Option<String>> = on!(tx, conn => sqlx::query_scalar("SELECT trouble FROM provider_reads WHERE provider = $1")
            .bind(provider)
            .fetch_optional(conn)
            .await)?;
    Ok(row.flatten())
}
