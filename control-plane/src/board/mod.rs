//! The installation itself: made once by `init`, opened by every other command.

pub mod doctor;
mod rekey;
mod store;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use shared::ids::BoardId;
use shared::random::Random;
use shared::secret::Secret;

use crate::access::{self, AccessError, Role};
use crate::app::{App, Parts, ShownCa};
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Db;
use crate::enrollment::ca::{Authority, CaError};
use crate::jobs::Jobs;
use crate::keys::{KeyError, NewVersion, Outside, RootKey, Source};
use crate::links::Links;

pub use rekey::{RekeyError, Rekeyed, rekey};

#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("this database holds a board already; nothing was changed. Start it with `board serve`")]
    Exists,
    #[error("this database holds no board yet: run `board init`")]
    Missing,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Makes the board in an empty, migrated database: its id, root key, authority and first user, in one transaction.
/// Gives the token of the first user's one-time link.
pub async fn init(
    db: &Db,
    source: &Source,
    outside: Outside,
    email: &str,
    random: &dyn Random,
) -> Result<Secret<String>, BoardError> {
    let clock = &*Arc::clone(&outside.clock);
    let board_id = BoardId::new(clock, random);
    let provider = source.open_or_create(&outside, random).map_err(KeyError::from)?;
    let new = NewVersion::make(source, &*provider, board_id, 1, random).await?;
    let mut tx = db.write().await?;
    if store::id(&mut tx).await?.is_some() || !new.store(&mut tx, clock.now()).await? {
        return Err(BoardError::Exists);
    }
    store::insert(&mut tx, board_id, clock.now()).await?;
    let root = RootKey::of(new, board_id, outside);
    Authority::create(&mut tx, &root, board_id, clock, random).await?;
    let roles = [Role::Consultant, Role::Operator];
    let entry = Entry::new(clock.now(), Who::cli(), Action::BoardInitialized)
        .detail("board", board_id)
        .detail("root_key", root.newest().fingerprint());
    audit::append(&mut tx, &entry).await?;
    let token = access::create_user(&mut tx, &root, clock, random, email, &roles).await?;
    tx.commit().await?;
    Ok(token)
}

/// How often a running board looks for versions of the root key that it doesn't know.
const LOOK: Duration = Duration::from_secs(2);

/// Looks for other versions of the root key, for ever: `board rekey` is another process. What a request needs it finds
/// by itself; this keeps a quiet board from holding a key that was retired.
pub async fn watch_root_key(app: App) {
    let mut last = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let looked = match app.db.read().await {
            Ok(mut tx) => app.root.look(&mut tx).await,
            Err(error) => Err(error.into()),
        };
        let said = looked.err().map(|error| error.to_string());
        if let Some(error) = said.as_ref().filter(|_| said != last) {
            tracing::error!("{error}");
        }
        last = said;
    }
}

/// Whether a board was made in this database.
pub async fn exists(db: &Db) -> Result<bool, sqlx::Error> {
    let mut tx = db.read().await?;
    Ok(store::id(&mut tx).await?.is_some())
}

/// Opens the board for serving: the root key has to be the one that it was made with. `also` is a provider that the
/// operator names beside the database's.
pub async fn open(
    db: Db,
    also: Option<Source>,
    outside: Outside,
    agents_url: String,
    proxy: Option<IpAddr>,
    random: Arc<dyn Random>,
) -> Result<App, BoardError> {
    let mut tx = db.read().await?;
    let board_id = store::id(&mut tx).await?.ok_or(BoardError::Missing)?;
    let (clock, outbound) = (Arc::clone(&outside.clock), outside.outbound);
    let root = RootKey::open(&mut tx, also, outside).await?;
    let authority = Authority::load(&mut tx, &root, board_id).await?;
    let shown_ca = RwLock::new(ShownCa { number: authority.number, spki: authority.spki()? });
    drop(tx);
    Ok(App::new(Parts {
        db,
        clock,
        random,
        root,
        board_id,
        shown_ca,
        agents_url,
        proxy,
        console_url: OnceLock::new(),
        audit_watch: audit::Watch::default(),
        jobs: Jobs::default(),
        outbound,
        links: Links::default(),
        backup_retention_days: None,
    }))
}
