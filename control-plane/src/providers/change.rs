//! What people do to a client's key: its limit, off and on, the end of it, another one. The entry of it is committed
//! before OpenRouter is asked; the row follows what OpenRouter did.

use shared::ids::ClientId;

use super::make::clean;
use super::{ClientKey, DEFAULT_LIMIT_MICROS, KeyState, ProviderError, api, api_to_end, key, money, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::clients;
use crate::jobs::Wake;

/// Tries after the first, while somebody waits for a page.
const AGAIN: usize = 1;

/// Changes what the client may spend in a month; before there is a key, what it will be made with.
pub async fn set_limit(
    app: &App,
    who: Who,
    client_id: ClientId,
    limit_micros: i64,
) -> Result<(), ProviderError> {
    let mut tx = app.db.write().await?;
    clients::get(&mut tx, client_id).await?;
    let known = key(&mut tx, client_id).await?;
    let hash = known.filter(|key| key.state == KeyState::Stored).and_then(|key| key.hash);
    let entry = Entry::new(app.now(), who.clone(), Action::ProviderKeyChanged)
        .client(client_id)
        .detail("limit", money(limit_micros));
    if let Some(hash) = hash {
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        let api = api(app, who, "a client's limit is changed").await?;
        api.tried(AGAIN, || api.set_limit(&hash, limit_micros)).await?;
        let mut tx = app.db.write().await?;
        store::set_limit(&mut tx, client_id, limit_micros, app.now()).await?;
        tx.commit().await?;
    } else {
        store::set_limit(&mut tx, client_id, limit_micros, app.now()).await?;
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
    }
    app.jobs.wake(Wake::Client(client_id));
    Ok(())
}

/// Switches the key off or on at OpenRouter.
pub async fn set_disabled(
    app: &App,
    who: Who,
    client_id: ClientId,
    disabled: bool,
) -> Result<(), ProviderError> {
    let word = if disabled { "off" } else { "on" };
    let hash = announced(app, &who, client_id, Action::ProviderKeyChanged, word).await?;
    let why = "a client's key is switched";
    let api = if disabled { api_to_end(app, who, why).await? } else { api(app, who, why).await? };
    api.tried(AGAIN, || api.set_disabled(&hash, disabled)).await?;
    let mut tx = app.db.write().await?;
    store::set_disabled(&mut tx, client_id, &hash, disabled, app.now()).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Client(client_id));
    Ok(())
}

/// Ends the key at OpenRouter. What is stored of it opens nothing any more.
pub async fn delete(app: &App, who: Who, client_id: ClientId) -> Result<(), ProviderError> {
    let hash = announced(app, &who, client_id, Action::ProviderKeyDeleted, "deleted").await?;
    let api = api_to_end(app, who, "a client's key is deleted").await?;
    api.tried(AGAIN, || api.delete(&hash)).await?;
    let mut tx = app.db.write().await?;
    store::deleted(&mut tx, client_id, &hash, app.now()).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Client(client_id));
    Ok(())
}

/// Another key, after the last one was deleted or couldn't be made; it becomes the slot's next version.
pub async fn make_again(app: &App, who: Who, client_id: ClientId) -> Result<(), ProviderError> {
    let mut tx = app.db.write().await?;
    clients::get(&mut tx, client_id).await?;
    if key(&mut tx, client_id).await?.is_none_or(|key| key.state == KeyState::Idle) {
        return Err(ProviderError::NoKey);
    }
    if store::plan(&mut tx, client_id, DEFAULT_LIMIT_MICROS, app.now()).await? != 1 {
        return Err(ProviderError::Lost);
    }
    let entry =
        Entry::new(app.now(), who, Action::ProviderKeyChanged).client(client_id).reason("another one");
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Client(client_id));
    Ok(())
}

/// For the end of an engagement: no key of this client's works from now on, and none that is being made will come.
/// Says whether there was one. The same again changes nothing.
pub async fn disable_for(app: &App, who: Who, client_id: ClientId) -> Result<bool, ProviderError> {
    let mut tx = app.db.write().await?;
    let called_off =
        store::call_off(&mut tx, client_id, "Called off: the client's keys were disabled.", app.now())
            .await?;
    let known: Option<ClientKey> = key(&mut tx, client_id).await?;
    tx.commit().await?;
    if called_off == 1 {
        let api = api_to_end(app, who.clone(), "a client's keys are disabled").await?;
        clean(app, &api, client_id, None, AGAIN).await?;
    }
    match known {
        Some(key) if key.state == KeyState::Stored && !key.disabled => {
            set_disabled(app, who, client_id, true).await?;
            Ok(true)
        }
        Some(key) => Ok(key.state == KeyState::Stored),
        None => Ok(false),
    }
}

/// The handle of the client's key, once the log says what is about to happen to it.
async fn announced(
    app: &App,
    who: &Who,
    client_id: ClientId,
    action: Action,
    reason: &str,
) -> Result<String, ProviderError> {
    let mut tx = app.db.write().await?;
    clients::get(&mut tx, client_id).await?;
    let known = key(&mut tx, client_id).await?.filter(|key| key.state == KeyState::Stored);
    let hash = known.and_then(|key| key.hash).ok_or(ProviderError::NoKey)?;
    let entry =
        Entry::new(app.now(), who.clone(), action).client(client_id).reason(reason).detail("hash", &hash);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(hash)
}
