//! Making a client's key: planned → asked → made → stored. It may end at any of these points and begin again: what there
//! is by the client's name and isn't stored is deleted first, because its value can't be read a second time.

use std::time::Duration;

use shared::crypto::hex;
use shared::ids::ClientId;
use shared::random;

use super::openrouter::{KeyApi, MadeKey};
use super::{COMPONENT, ProviderError, SLOT, key_name, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, AnySlot, OurSlot};
use crate::clients;
use crate::secrets;

/// Nobody else takes over for so long after the last sign of whoever is at it: longer than a few answers may take.
pub(super) fn held(app: &App) -> Duration {
    app.outbound.patience * 9
}
/// Tries after the first.
const AGAIN: usize = 3;

pub(super) fn job() -> Who {
    Who::job("openrouter")
}

/// One replica's hold on one client's key.
pub(super) struct Maker<'a> {
    pub app: &'a App,
    pub client_id: ClientId,
    pub holder: String,
}

impl<'a> Maker<'a> {
    /// Takes it, unless somebody else is at it.
    pub async fn claim(app: &'a App, client_id: ClientId) -> Result<Option<Self>, sqlx::Error> {
        let holder = hex(&random::bytes::<16>(&*app.random));
        let mut tx = app.db.write().await?;
        let now = app.now();
        let taken = store::claim(&mut tx, client_id, &holder, now, now.after(held(app))).await?;
        tx.commit().await?;
        Ok((taken == 1).then_some(Self { app, client_id, holder }))
    }

    /// Makes and stores the key; what passes is tried again.
    pub async fn make(&self, api: &KeyApi) -> Result<(), ProviderError> {
        let slot = self.slot().await?;
        api.tried(AGAIN, || self.once(api, &slot)).await?;
        // An answer that got lost may have been late: its key would come after the look before.
        let mut tx = self.app.db.read().await?;
        let ours = store::key(&mut tx, self.client_id).await?.and_then(|key| key.hash);
        drop(tx);
        if let Err(error) = clean(self.app, api, self.client_id, ours.as_deref(), AGAIN).await {
            tracing::warn!(client_id = %self.client_id, %error, "whether OpenRouter has another key of this client's is not known; the hourly reading looks again");
        }
        Ok(())
    }

    async fn slot(&self) -> Result<OurSlot, ProviderError> {
        let mut tx = self.app.db.read().await?;
        match catalog::slot(&mut tx, COMPONENT, SLOT).await? {
            Some(AnySlot::Ours(slot)) => Ok(slot),
            Some(AnySlot::Theirs(_)) | None => Err(ProviderError::NoSlot),
        }
    }

    async fn once(&self, api: &KeyApi, slot: &OurSlot) -> Result<(), ProviderError> {
        self.hold().await?;
        clean(self.app, api, self.client_id, None, 0).await?;
        let made = self.ask(api).await?;
        match self.keep(slot, &made).await {
            Err(ProviderError::Lost) => {
                orphaned(self.app, self.client_id, &made.data.hash).await?;
                api.tried(AGAIN, || api.delete(&made.data.hash)).await?;
                Err(ProviderError::Lost)
            }
            done => done,
        }
    }

    pub async fn hold(&self) -> Result<(), ProviderError> {
        let mut tx = self.app.db.write().await?;
        let until = self.app.now().after(held(self.app));
        if store::hold(&mut tx, self.client_id, &self.holder, until).await? != 1 {
            return Err(ProviderError::Lost);
        }
        Ok(tx.commit().await?)
    }

    /// Asks for a key. Whatever happens from here on, one may exist.
    pub async fn ask(&self, api: &KeyApi) -> Result<MadeKey, ProviderError> {
        let app = self.app;
        let mut tx = app.db.write().await?;
        let now = app.now();
        store::hold(&mut tx, self.client_id, &self.holder, now.after(held(app))).await?;
        if store::ask(&mut tx, self.client_id, &self.holder, now).await? != 1 {
            return Err(ProviderError::Lost);
        }
        let limit = store::key(&mut tx, self.client_id).await?.ok_or(ProviderError::Lost)?.limit_micros;
        let name = key_name(app, self.client_id);
        let entry = Entry::new(now, job(), Action::ProviderKeyAsked)
            .client(self.client_id)
            .detail("name", &name)
            .detail("limit", super::money(limit));
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        let made = api.make(&name, limit).await?;
        let mut tx = app.db.write().await?;
        let now = app.now();
        if store::made(&mut tx, self.client_id, &self.holder, &made.data.hash, now).await? == 1 {
            let entry = Entry::new(now, job(), Action::ProviderKeyMade)
                .client(self.client_id)
                .detail("hash", &made.data.hash);
            audit::append(&mut tx, &entry).await?;
            tx.commit().await?;
        }
        Ok(made)
    }

    /// Stores the value as the client's slot, and that it is stored, in one transaction.
    pub async fn keep(&self, slot: &OurSlot, made: &MadeKey) -> Result<(), ProviderError> {
        let app = self.app;
        let (mut tx, _) = app.root.write(&app.db).await.map_err(secrets::SecretError::from)?;
        let client = clients::get(&mut tx, self.client_id).await?;
        let now = app.now();
        if store::stored(&mut tx, self.client_id, &self.holder, &made.data.hash, now).await? != 1 {
            return Err(ProviderError::Lost);
        }
        let put = secrets::put_within(app, &mut tx, job(), &client, slot, &made.key).await?;
        store::set_version(&mut tx, self.client_id, put.version).await?;
        put.commit(app, tx).await?;
        Ok(())
    }

    pub async fn fail(&self, error: &ProviderError) -> Result<(), sqlx::Error> {
        let mut tx = self.app.db.write().await?;
        let now = self.app.now();
        store::failed(&mut tx, self.client_id, &self.holder, &error.to_string(), now).await?;
        tx.commit().await
    }
}

/// Deletes what OpenRouter has by the client's name, but for `ours`, whose value is stored.
pub(super) async fn clean(
    app: &App,
    api: &KeyApi,
    client_id: ClientId,
    ours: Option<&str>,
    again: usize,
) -> Result<(), ProviderError> {
    let name = key_name(app, client_id);
    for key in api.tried(again, || api.list()).await? {
        if key.name == name && Some(key.hash.as_str()) != ours {
            orphaned(app, client_id, &key.hash).await?;
            api.tried(again, || api.delete(&key.hash)).await?;
        }
    }
    Ok(())
}

/// Says in the log that a key whose value nobody has is about to be deleted.
pub(super) async fn orphaned(app: &App, client_id: ClientId, hash: &str) -> Result<(), ProviderError> {
    let mut tx = app.db.write().await?;
    let entry = Entry::new(app.now(), job(), Action::ProviderKeyOrphaned)
        .client(client_id)
        .reason("made, but its value is not stored: deleted")
        .detail("hash", hash);
    audit::append(&mut tx, &entry).await?;
    Ok(tx.commit().await?)
}
