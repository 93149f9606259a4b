//! The installation itself: made once by `init`, opened by every other command.

mod store;

use std::net::IpAddr;
use std::sync::Arc;

use shared::crypto::sha256;
use shared::ids::BoardId;
use shared::random::Random;
use shared::secret::Secret;
use shared::time::Clock;

use crate::access::{self, AccessError, Role};
use crate::app::{App, Parts};
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Db;
use crate::enrollment::ca::{Authority, CaError};
use crate::jobs::Jobs;
use crate::keys::{KeyError, Provider, RootKey};
use crate::links::Links;

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
    provider: &Provider,
    email: &str,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Secret<String>, BoardError> {
    let mut tx = db.write().await?;
    if store::id(&mut tx).await?.is_some() {
        return Err(BoardError::Exists);
    }
    let board_id = BoardId::new(clock, random);
    store::insert(&mut tx, board_id, clock.now()).await?;
    let root = RootKey::create(&mut tx, provider, clock, random).await?;
    Authority::create(&mut tx, &root, board_id, clock, random).await?;
    let roles = [Role::Consultant, Role::Operator];
    let entry = Entry::new(clock.now(), Who::cli(), Action::BoardInitialized)
        .detail("board", board_id)
        .detail("root_key", root.fingerprint());
    audit::append(&mut tx, &entry).await?;
    let token = access::create_user(&mut tx, &root, clock, random, email, &roles).await?;
    tx.commit().await?;
    Ok(token)
}

/// Whether a board was made in this database.
pub async fn exists(db: &Db) -> Result<bool, sqlx::Error> {
    let mut tx = db.read().await?;
    Ok(store::id(&mut tx).await?.is_some())
}

/// Opens the board for serving: the root key has to be the one that it was made with.
pub async fn open(
    db: Db,
    provider: &Provider,
    agents_url: String,
    proxy: Option<IpAddr>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<App, BoardError> {
    let mut tx = db.read().await?;
    let board_id = store::id(&mut tx).await?.ok_or(BoardError::Missing)?;
    let root = RootKey::unwrap(&mut tx, provider).await?;
    let ca_spki = Authority::load(&mut tx, &root, board_id).await?.spki()?;
    drop(tx);
    Ok(App::new(Parts {
        db,
        clock,
        random,
        root,
        board_id,
        ca_pin: sha256(&ca_spki),
        ca_spki,
        agents_url,
        proxy,
        audit_watch: audit::Watch::default(),
        jobs: Jobs::default(),
        links: Links::default(),
        backup_retention_days: None,
    }))
}
