//! The purge itself: rows first, in one transaction with the audit entry; then the database's files. Both can be
//! interrupted anywhere and are done again until they are through.

use std::time::Duration;

use shared::ids::{BoardId, ClientId};
use shared::time::Timestamp;
use tokio::sync::watch;

use super::store;
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::clients;
use crate::clients::engagement::{self, EngagementState};
use crate::db::{Db, Rewrite};
use crate::enrollment;
use crate::error::Failure;
use crate::jobs::Wake;
use crate::secrets;

/// Tables that hold what a purge erases: whatever holds a ciphertext or a key of one client. A test compares them with the
/// schema.
pub(super) const TABLES: &[&str] = &["client_credentials", "clients"];
const LEASE: &str = "purge";
const LEASE_TTL: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    pub client_id: ClientId,
    pub name: String,
    /// Secrets that were deleted.
    pub secrets: u64,
}

/// What rewriting the database's files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// No purge waits for it.
    Nothing,
    Done,
    Busy,
    /// On PostgreSQL, where the tables belong to another role: `board purge --owner-url` does it.
    NotOwner,
}

/// Clients whose purge is due, the earliest first.
pub async fn due(
    db: &Db,
    now: Timestamp,
    only: Option<ClientId>,
) -> Result<Vec<(ClientId, String)>, Failure> {
    let mut tx = db.read().await?;
    let mut found = Vec::new();
    for id in engagement::in_state(&mut tx, EngagementState::Ending).await? {
        let is_due = engagement::engagement(&mut tx, id).await?.purge_due_at.is_some_and(|due| due <= now);
        if is_due && only.is_none_or(|only| only == id) {
            found.push((id, clients::get(&mut tx, id).await?.name));
        }
    }
    Ok(found)
}

/// Purges what is due now, each client in a transaction of its own.
pub async fn purge_due(
    db: &Db,
    who: &Who,
    now: Timestamp,
    only: Option<ClientId>,
) -> Result<Vec<Purged>, Failure> {
    let mut purged = Vec::new();
    for (client_id, name) in due(db, now, only).await? {
        let mut tx = db.write().await?;
        if engagement::purge(&mut tx, client_id, now).await? != 1 {
            continue;
        }
        let secrets = secrets::purge(&mut tx, client_id).await?;
        let mut entries = enrollment::give_up(&mut tx, who, client_id, now).await?;
        entries.push(
            Entry::new(now, who.clone(), Action::ClientPurged).client(client_id).detail("secrets", secrets),
        );
        for entry in &entries {
            audit::append(&mut tx, entry).await?;
        }
        tx.commit().await?;
        purged.push(Purged { client_id, name, secrets });
    }
    Ok(purged)
}

/// Rewrites the database's files when a purge waits for it. `owner` is the same database as the role that owns the
/// tables.
pub async fn rewrite(db: &Db, owner: &Db, who: &Who, now: Timestamp) -> Result<Rewritten, Failure> {
    let mut tx = db.read().await?;
    let waiting = engagement::unwritten(&mut tx).await?;
    drop(tx);
    if waiting.is_empty() {
        return Ok(Rewritten::Nothing);
    }
    match owner.rewrite(TABLES).await? {
        Rewrite::Busy => return Ok(Rewritten::Busy),
        Rewrite::NotOwner => return Ok(Rewritten::NotOwner),
        Rewrite::Done => {}
    }
    let mut tx = db.write().await?;
    let mut entries = Vec::new();
    for (id, purged) in waiting {
        if engagement::rewritten(&mut tx, id, purged, now).await? == 1 {
            entries.push(Entry::new(now, who.clone(), Action::PurgeRewritten).client(id));
        }
    }
    for entry in &entries {
        audit::append(&mut tx, entry).await?;
    }
    tx.commit().await?;
    Ok(Rewritten::Done)
}

/// One round of the periodic job; another replica may have its lease.
pub(super) async fn round(app: &App, holder: &str) -> Result<(), Failure> {
    let now = app.now();
    let mut tx = app.db.write().await?;
    let mine = store::lease(&mut tx, LEASE, holder, now, now.after(LEASE_TTL)).await? == 1;
    tx.commit().await?;
    if !mine {
        return Ok(());
    }
    let who = Who::job("purge");
    for purged in purge_due(&app.db, &who, now, None).await? {
        tracing::info!(client_id = %purged.client_id, secrets = purged.secrets, "a client was purged");
        app.jobs.wake(Wake::Client(purged.client_id));
    }
    match rewrite(&app.db, &app.db, &who, now).await? {
        Rewritten::Nothing | Rewritten::Done => {}
        Rewritten::Busy => {
            tracing::info!("the database is in use all the while; its files are rewritten later")
        }
        Rewritten::NotOwner => tracing::warn!(
            "a purge waits for the tables to be rewritten, which the board's role may not do: run `board purge --owner-url postgres://OWNER@HOST/NAME`"
        ),
    }
    Ok(())
}

/// Purges what is due, every minute, until `stop` says so.
pub async fn job(app: App, mut stop: watch::Receiver<bool>) {
    let holder = BoardId::new(&*app.clock, &*app.random).to_string();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(failure) = round(&app, &holder).await {
            tracing::error!(kind = failure.public.kind, error = ?failure.internal, "a purge failed; it is tried again");
        }
    }
}
