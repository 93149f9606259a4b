//! Once an hour: what each key used this month, its limit, its end. One list for all of them; whoever moves the row of
//! the reading does it.

use std::collections::HashMap;
use std::time::Duration;

use shared::ids::ClientId;

use super::make::{job, orphaned};
use super::store::Numbers;
use super::{ApiError, COMPONENT, ClientKey, KeyState, ProviderError, api, prefix, store};
use crate::app::App;
use crate::freeze;
use crate::jobs::Wake;
use crate::secrets::{self, BoardSecret};

const EVERY: Duration = Duration::from_secs(3600);
/// Tries after the first.
const AGAIN: usize = 3;

/// Reads if it is time, there is a management key, and there is something to read.
pub(super) async fn due(app: &App) -> Result<(), ProviderError> {
    let mut tx = app.db.read().await?;
    let keys = store::keys(&mut tx).await?;
    let managed = secrets::stored_board(&mut tx, BoardSecret::OpenRouterManagement).await?.is_some();
    let frozen = freeze::is_on(&mut tx).await?;
    drop(tx);
    if frozen || !managed || keys.iter().all(|key| key.state == KeyState::Idle) {
        return Ok(());
    }
    let mut tx = app.db.write().await?;
    let now = app.now();
    let taken = store::take_reading(&mut tx, COMPONENT, now, now.after(EVERY)).await?;
    tx.commit().await?;
    if taken != 1 {
        return Ok(());
    }
    let done = read(app).await;
    let trouble = match &done {
        Err(error @ (ProviderError::Api(_) | ProviderError::NoManagementKey)) => Some(error.to_string()),
        Ok(()) | Err(_) => None,
    };
    let mut tx = app.db.write().await?;
    store::set_reading_trouble(&mut tx, COMPONENT, trouble.as_deref()).await?;
    tx.commit().await?;
    done
}

async fn read(app: &App) -> Result<(), ProviderError> {
    let api = api(app, job(), "the numbers of clients' keys are read").await?;
    // After the list a key could be made that it doesn't hold yet: such a one is not judged by it.
    let mut tx = app.db.read().await?;
    let known: HashMap<ClientId, ClientKey> =
        store::keys(&mut tx).await?.into_iter().map(|key| (key.client_id, key)).collect();
    drop(tx);
    let listed = api.tried(AGAIN, || api.list()).await?;
    let prefix = prefix(app);
    let mut seen = Vec::new();
    for found in &listed {
        let client_id = found.name.strip_prefix(&prefix).and_then(|id| id.parse::<ClientId>().ok());
        let Some(key) = client_id.and_then(|id| known.get(&id)) else { continue };
        if key.hash.as_ref() == Some(&found.hash) && key.state == KeyState::Stored {
            seen.push(key.client_id);
            let numbers = Numbers {
                usage_micros: found.usage_micros(),
                limit_micros: found.limit_micros().filter(|limit| *limit > 0),
                expires_at: found.expires_at(),
                disabled: found.disabled,
            };
            let mut tx = app.db.write().await?;
            store::set_numbers(&mut tx, key.client_id, &found.hash, &numbers, app.now()).await?;
            tx.commit().await?;
            app.jobs.wake(Wake::Client(key.client_id));
        } else if is_orphan(app, key.client_id, &found.hash).await? {
            orphaned(app, key.client_id, &found.hash).await?;
            api.tried(AGAIN, || api.delete(&found.hash)).await?;
        }
    }
    for key in known.values().filter(|key| key.state == KeyState::Stored && !seen.contains(&key.client_id)) {
        let mut tx = app.db.write().await?;
        let hash = key.hash.as_deref().unwrap_or_default();
        store::set_trouble(&mut tx, key.client_id, hash, &ApiError::Gone.to_string()).await?;
        tx.commit().await?;
        app.jobs.wake(Wake::Client(key.client_id));
    }
    Ok(())
}

/// Whether it is a key whose value nobody has. While one is being made nobody can say.
async fn is_orphan(app: &App, client_id: ClientId, hash: &str) -> Result<bool, sqlx::Error> {
    let mut tx = app.db.read().await?;
    let Some(key) = store::key(&mut tx, client_id).await? else { return Ok(false) };
    Ok(match key.state {
        KeyState::Stored => key.hash.as_deref() != Some(hash),
        KeyState::Failed | KeyState::Deleted | KeyState::Idle => true,
        KeyState::Planned | KeyState::Asked | KeyState::Made => false,
    })
}
