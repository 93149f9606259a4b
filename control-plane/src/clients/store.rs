use shared::ids::{ClientId, UserId};
use shared::time::Timestamp;

use super::Client;
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
struct Row {
    id: ClientId,
    name: String,
    vault_name: String,
    notes: String,
    salt: Option<Vec<u8>>,
    created_at: Timestamp,
}

impl From<Row> for Client {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            vault_name: row.vault_name,
            notes: row.notes,
            created_at: row.created_at,
            salt: row.salt.and_then(|salt| salt.try_into().ok()),
        }
    }
}

pub async fn insert(tx: &mut Tx, client: &Client, by: UserId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO clients (id, name, vault_name, notes, salt, created_by, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(client.id)
    .bind(&client.name)
    .bind(&client.vault_name)
    .bind(&client.notes)
    .bind(client.salt.as_ref().map(<[u8; 32]>::as_slice))
    .bind(by)
    .bind(client.created_at)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn insert_component(
    tx: &mut Tx,
    id: ClientId,
    key: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO client_components (client_id, component_key, added_at) VALUES ($1, $2, $3) \
         ON CONFLICT (client_id, component_key) DO NOTHING",
    )
    .bind(id)
    .bind(key)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn get(tx: &mut Tx, id: ClientId) -> Result<Option<Client>, sqlx::Error> {
    let row: Option<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT id, name, vault_name, notes, salt, created_at FROM clients WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await)?;
    Ok(row.map(Client::from))
}

pub async fn list(tx: &mut Tx) -> Result<Vec<Client>, sqlx::Error> {
    let rows: Vec<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT id, name, vault_name, notes, salt, created_at FROM clients ORDER BY lower(name), id",
    )
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(Client::from).collect())
}

pub async fn components(tx: &mut Tx, id: ClientId) -> Result<Vec<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT component_key FROM client_components WHERE client_id = $1 ORDER BY component_key",
    )
    .bind(id)
    .fetch_all(conn)
    .await)
}
