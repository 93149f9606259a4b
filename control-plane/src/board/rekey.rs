//! `board rekey`: a new root key, and everything that leans on the old one moved to it (`design/security.md` sections 3
//! and 10), beside a board that runs.
//!
//! 1. A new version of the root key is made, wrapped by its provider and stored; from there on two versions are living.
//! 2. Every secret moves in a transaction of its own, with the audit entry of its new hash.
//! 3. In one transaction: the old version is retired, if nothing is left under it; the authority's key is wrapped under
//!    the new one; the HMAC keys of tokens are kept ([`keys::keep`]).
//!
//! Killed anywhere, it goes on from there when it is called again. One at a time, by a lease. To move something else that
//! is encrypted under the root key: into [`Run::pass`] when it is many rows, into [`Run::finish`] when it is one.

use std::sync::Arc;
use std::time::Duration;

use shared::ids::BoardId;
use shared::random::{self, Random};
use shared::time::Timestamp;

use super::store;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::{Db, Tx};
use crate::enrollment::ca::{self, CaError};
use crate::keys::{self, KeyError, NewVersion, Outside, RootKey, RootVersion, Source};
use crate::secrets::{self, Moved, Place, SecretError};

/// Renewed with every row. Who was killed is believed dead after this long.
const LEASE: Duration = Duration::from_secs(2);
/// Of how many rows that can't be moved the names are said.
const NAMED: usize = 20;
/// Rows between two lines in the log.
const TOLD: u64 = 500;

#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    #[error("this database holds no board yet: run `board init`")]
    Missing,
    #[error(
        "another `board rekey` is at work on this database. Nothing was changed by this one. If the other was killed, run this again in {} seconds",
        LEASE.as_secs()
    )]
    Busy,
    #[error(
        "another `board rekey` took over, because this one said nothing for {} seconds. What moved stays moved, and the other goes on from there; if that one was killed, run this again in as many seconds",
        LEASE.as_secs()
    )]
    Overtaken,
    #[error(
        "a rekey to {0} was begun and is not finished: finish it first with `board rekey --to {0}`. Nothing was changed"
    )]
    Unfinished(String),
    #[error(
        "{count} secrets can't be opened under the old root key, so they didn't move, and the old root key stays: {}. Everything else moved. Rotate them (on the client's page, or with `board rotate`), then run the same command again",
        .named.join("; ")
    )]
    Unmovable { count: usize, named: Vec<String> },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What a rekey came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rekeyed {
    /// The root key is wrapped by this provider already, and nothing is left under another.
    Nothing { version: u32, fingerprint: String },
    Done {
        /// The retired version, and its provider.
        old: u32,
        old_provider: String,
        new: u32,
        fingerprint: String,
        /// Secrets that this call moved.
        moved: u64,
    },
}

/// Moves the board to a new root key, wrapped by `to`, or goes on with what was begun. `fresh` makes another root key
/// although it is wrapped by `to` already.
pub async fn rekey(
    db: &Db,
    also: Option<Source>,
    to: &Source,
    fresh: bool,
    outside: &Outside,
    random: &dyn Random,
) -> Result<Rekeyed, RekeyError> {
    let mut tx = db.read().await?;
    let board_id = store::id(&mut tx).await?.ok_or(RekeyError::Missing)?;
    let living = keys::living(&mut tx).await?;
    let version = keys::next_version(&mut tx).await?;
    drop(tx);
    let (new, old) = match living.as_slice() {
        [] => return Err(KeyError::NotInitialized.into()),
        [only] if only.provider == to.to_string() && !fresh => {
            return Ok(Rekeyed::Nothing { version: only.version, fingerprint: only.fingerprint.clone() });
        }
        [only] => {
            let provider = to.open_or_create(outside, random).map_err(KeyError::from)?;
            (Some(NewVersion::make(to, &*provider, board_id, version, random).await?), only.clone())
        }
        [newest, ..] if newest.provider != to.to_string() => {
            return Err(RekeyError::Unfinished(newest.provider.clone()));
        }
        [_, older @ ..] => (None, older.last().cloned().ok_or(KeyError::NotInitialized)?),
    };
    // Providers are asked before the lease, which is short: they may be slow.
    let mut tx = db.read().await?;
    let root = RootKey::open(&mut tx, also, outside.clone()).await?;
    if keys::living(&mut tx).await? != living {
        return Err(RekeyError::Busy);
    }
    drop(tx);
    let mut run = Run {
        db,
        board_id,
        root,
        outside,
        random,
        holder: random::bytes(random),
        old: old.version,
        moved: 0,
    };
    let started = run.start(new, &living).await;
    let done = match started {
        Ok(newest) => run.all(&newest).await.map(|()| newest),
        Err(RekeyError::Busy) => return Err(RekeyError::Busy),
        Err(error) => Err(error),
    };
    run.release().await;
    let newest = done?;
    Ok(Rekeyed::Done {
        old: old.version,
        old_provider: old.provider,
        new: newest.version,
        fingerprint: newest.fingerprint(),
        moved: run.moved,
    })
}

struct Run<'a> {
    db: &'a Db,
    board_id: BoardId,
    root: RootKey,
    outside: &'a Outside,
    random: &'a dyn Random,
    holder: [u8; 16],
    old: u32,
    moved: u64,
}

impl Run<'_> {
    fn now(&self) -> Timestamp {
        self.outside.clock.now()
    }

    /// Takes the lease, stores the new version and says in the log what is about to happen, all in one.
    async fn start(
        &self,
        new: Option<NewVersion>,
        seen: &[keys::Listed],
    ) -> Result<Arc<RootVersion>, RekeyError> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        if store::take_lease(&mut tx, &self.holder, now, now.after(LEASE)).await? != 1
            || keys::living(&mut tx).await? != seen
        {
            return Err(RekeyError::Busy);
        }
        let again = new.is_none();
        if let Some(new) = new {
            if !new.store(&mut tx, now).await? {
                return Err(RekeyError::Busy);
            }
            self.root.add(new);
        }
        let newest = self.root.newest();
        let rows = secrets::unmoved(&mut tx, newest.version).await?.len();
        let provider = keys::living(&mut tx).await?.into_iter().next().map(|listed| listed.provider);
        let entry = Entry::new(now, Who::cli(), Action::RekeyStarted)
            .detail("from", self.old)
            .detail("to", newest.version)
            .detail("fingerprint", newest.fingerprint())
            .detail("provider", provider.unwrap_or_default())
            .detail("rows", rows)
            .detail("again", again);
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        Ok(newest)
    }

    async fn all(&mut self, newest: &RootVersion) -> Result<(), RekeyError> {
        loop {
            let (moved, unmovable) = self.pass(newest).await?;
            if moved == 0 && !unmovable.is_empty() {
                let count = unmovable.len();
                return Err(RekeyError::Unmovable {
                    count,
                    named: unmovable.into_iter().take(NAMED).collect(),
                });
            }
            if unmovable.is_empty() && self.finish(newest).await? {
                return Ok(());
            }
        }
    }

    /// Once over everything that is not under the newest version. A board that runs may write more under the old one
    /// meanwhile.
    async fn pass(&mut self, newest: &RootVersion) -> Result<(u64, Vec<String>), RekeyError> {
        let mut tx = self.db.read().await?;
        let places = secrets::unmoved(&mut tx, newest.version).await?;
        drop(tx);
        let (before, mut unmovable) = (self.moved, Vec::new());
        for place in places {
            match self.one(newest, place).await {
                Ok(Moved::Moved) => self.moved += 1,
                Ok(Moved::Nothing) => {}
                // Purged since the list was made: nothing opens it any more, under no key.
                Err(RekeyError::Secret(SecretError::Purged)) => {}
                Err(RekeyError::Secret(error @ (SecretError::NotLatest(_) | SecretError::Envelope(_)))) => {
                    let name = secrets::name_of(&mut self.db.read().await?, place).await?;
                    unmovable.push(format!("{name}: {error}"));
                }
                Err(error) => return Err(error),
            }
            if self.moved > before && self.moved.is_multiple_of(TOLD) {
                tracing::info!("{} secrets moved", self.moved);
            }
        }
        Ok((self.moved - before, unmovable))
    }

    async fn one(&self, newest: &RootVersion, place: Place) -> Result<Moved, RekeyError> {
        let now = self.now();
        let mut tx = self.held(now).await?;
        let moved = secrets::move_to(&mut tx, &self.root, newest, place, now, self.random).await?;
        tx.commit().await?;
        Ok(moved)
    }

    /// False when something is still under the old version.
    async fn finish(&self, newest: &RootVersion) -> Result<bool, RekeyError> {
        let now = self.now();
        let mut tx = self.held(now).await?;
        let old = self.root.at(&mut tx, self.old).await?;
        keys::retire(&mut tx, self.old, now).await?;
        if !secrets::unmoved(&mut tx, newest.version).await?.is_empty() {
            return Ok(false);
        }
        let authorities = ca::rewrap(&mut tx, &old, newest, self.board_id, self.random).await?;
        keys::keep(&mut tx, self.board_id, &old, newest, now, self.random).await?;
        store::end_lease(&mut tx, &self.holder).await?;
        let entry = Entry::new(now, Who::cli(), Action::RekeyEnded)
            .detail("from", self.old)
            .detail("to", newest.version)
            .detail("rows", self.moved)
            .detail("authorities", authorities);
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// A transaction that may write only while the lease is ours.
    async fn held(&self, now: Timestamp) -> Result<Tx, RekeyError> {
        let mut tx = self.db.write().await?;
        if store::renew_lease(&mut tx, &self.holder, now.after(LEASE)).await? != 1 {
            return Err(RekeyError::Overtaken);
        }
        Ok(tx)
    }

    /// So that the next call need not wait. When it fails, the lease ends by itself.
    async fn release(&self) {
        let released = async {
            let mut tx = self.db.write().await?;
            store::end_lease(&mut tx, &self.holder).await?;
            tx.commit().await
        };
        if let Err(error) = released.await {
            tracing::warn!("the lease of this rekey stays for {} seconds: {error}", LEASE.as_secs());
        }
    }
}
