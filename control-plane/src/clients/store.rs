use std::collections::BTreeMap;

use shared::ids::{ClientId, UserId};
use shared::time::Timestamp;

use super::{Client, Package, Scope};
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

async fn insert_component(tx: &mut Tx, id: ClientId, key: &str, now: Timestamp) -> Result<(), sqlx::Error> {
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

/// Changes nothing, and keeps the client's row until the transaction ends.
pub async fn touch(tx: &mut Tx, id: ClientId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE clients SET name = name WHERE id = $1")
        .bind(id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

/// Puts the scope in the place of the one before; components that stay keep the time when they were added.
pub async fn replace_scope(
    tx: &mut Tx,
    id: ClientId,
    scope: &Scope,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for old in components(tx, id).await?.iter().filter(|old| !scope.components.contains(*old)) {
        on!(tx, conn => sqlx::query("DELETE FROM client_components WHERE client_id = $1 AND component_key = $2")
            .bind(id)
            .bind(old)
            .execute(conn)
            .await
            .map(|_| ()))?;
    }
    for component in &scope.components {
        insert_component(tx, id, component, now).await?;
    }
    on!(tx, conn => sqlx::query("DELETE FROM client_choices WHERE client_id = $1").bind(id).execute(conn).await.map(|_| ()))?;
    for ((component, group), slot) in &scope.choices {
        on!(tx, conn => sqlx::query(
            "INSERT INTO client_choices (client_id, component_key, group_key, slot_key) VALUES ($1, $2, $3, $4)",
        )
        .bind(id)
        .bind(component)
        .bind(group)
        .bind(slot)
        .execute(conn)
        .await
        .map(|_| ()))?;
    }
    on!(tx, conn => sqlx::query("DELETE FROM client_params WHERE client_id = $1").bind(id).execute(conn).await.map(|_| ()))?;
    for ((component, param), value) in &scope.params {
        on!(tx, conn => sqlx::query(
            "INSERT INTO client_params (client_id, component_key, param_key, value) VALUES ($1, $2, $3, $4)",
        )
        .bind(id)
        .bind(component)
        .bind(param)
        .bind(value)
        .execute(conn)
        .await
        .map(|_| ()))?;
    }
    Ok(())
}

pub async fn choices(tx: &mut Tx, id: ClientId) -> Result<BTreeMap<(String, String), String>, sqlx::Error> {
    let rows: Vec<(String, String, String)> = on!(tx, conn => sqlx::query_as(
        "SELECT component_key, group_key, slot_key FROM client_choices WHERE client_id = $1",
    )
    .bind(id)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(|(component, group, slot)| ((component, group), slot)).collect())
}

pub async fn params(tx: &mut Tx, id: ClientId) -> Result<BTreeMap<(String, String), String>, sqlx::Error> {
    let rows: Vec<(String, String, String)> = on!(tx, conn => sqlx::query_as(
        "SELECT component_key, param_key, value FROM client_params WHERE client_id = $1",
    )
    .bind(id)
    .fetch_all(conn)
    .await)?;
    Ok(rows.into_iter().map(|(component, param, value)| ((component, param), value)).collect())
}

pub async fn package(tx: &mut Tx, id: ClientId) -> Result<Package, sqlx::Error> {
    let rows: Vec<(String, String)> = on!(tx, conn => sqlx::query_as("SELECT kind, package_key FROM client_packages WHERE client_id = $1")
            .bind(id)
            .fetch_all(conn)
            .await)?;
    let mut package = Package::default();
    for (kind, key) in rows {
        if kind == "tier" {
            package.tier = Some(key);
        } else {
            package.addons.insert(key);
        }
    }
    Ok(package)
}

pub async fn replace_package(tx: &mut Tx, id: ClientId, package: &Package) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("DELETE FROM client_packages WHERE client_id = $1").bind(id).execute(conn).await.map(|_| ()))?;
    let tier = package.tier.iter().map(|key| ("tier", key));
    for (kind, key) in tier.chain(package.addons.iter().map(|key| ("addon", key))) {
        on!(tx, conn => sqlx::query(
            "INSERT INTO client_packages (client_id, package_key, kind) VALUES ($1, $2, $3)",
        )
        .bind(id)
        .bind(key)
        .bind(kind)
        .execute(conn)
        .await
        .map(|_| ()))?;
    }
    Ok(())
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

pub async fn browser_paste(tx: &mut Tx, id: ClientId) -> Result<Option<bool>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT browser_paste FROM clients WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await)
}

/// No row when it was so already.
pub async fn set_browser_paste(tx: &mut Tx, id: ClientId, allowed: bool) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE clients SET browser_paste = $2 WHERE id = $1 AND browser_paste <> $2")
        .bind(id)
        .bind(allowed)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn second_person(tx: &mut Tx, id: ClientId) -> Result<Option<bool>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT second_person FROM clients WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await)
}

/// No row when it was so already.
pub async fn set_second_person(tx: &mut Tx, id: ClientId, wanted: bool) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE clients SET second_person = $2 WHERE id = $1 AND second_person <> $2")
        .bind(id)
        .bind(wanted)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
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
