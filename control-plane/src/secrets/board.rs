//! Secrets of the board itself, such as the key with which it makes keys at a provider: `BSE1` envelopes under the board
//! key. They are put and used; nothing gives one out.

use shared::crypto::{hex, sha256};
use shared::random::Random;
use shared::secret::{MAX_LEN, Secret};
use shared::text_enum;
use shared::time::{Clock, Timestamp};

use super::{SecretError, envelope, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::{Db, Tx};
use crate::freeze;
use crate::keys::{Purpose, RootKey};

text_enum! {
    pub enum BoardSecret {
        /// With it the board makes, reads and ends clients' keys at OpenRouter. It can't ask a model anything.
        OpenRouterManagement = "openrouter-management-key",
    }
}

impl BoardSecret {
    /// What OpenRouter's keys begin with.
    const OPENROUTER: &str = "sk-or-";

    fn fits(self, value: &str) -> bool {
        match self {
            Self::OpenRouterManagement => value.strip_prefix(Self::OPENROUTER).is_some_and(|rest| {
                (20..=200).contains(&rest.len())
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            }),
        }
    }
}

/// What is known of it without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBoardSecret {
    pub version: i64,
    pub changed_at: Timestamp,
}

/// Stores a value; its version is one above the last, also when that was removed.
pub async fn put_board(
    db: &Db,
    root: &RootKey,
    (clock, random): (&dyn Clock, &dyn Random),
    who: Who,
    which: BoardSecret,
    value: &Secret<String>,
) -> Result<u64, SecretError> {
    if value.expose().is_empty() {
        return Err(SecretError::Empty);
    }
    if value.expose().len() > MAX_LEN {
        return Err(SecretError::TooLong);
    }
    if !which.fits(value.expose()) {
        return Err(SecretError::Form);
    }
    let (mut tx, root) = root.write(db).await?;
    let last = store::board_row(&mut tx, which.as_str()).await?.map_or(0, |row| row.version);
    let version = last + 1;
    let place = (which.as_str(), u64::try_from(version).unwrap_or(0));
    let key = root.derive(Purpose::Board);
    let sealed = envelope::seal_board(&key, root.version, place, value.expose().as_bytes(), random)?;
    let now = clock.now();
    if store::upsert_board(&mut tx, which.as_str(), version, &sealed, now).await? != 1 {
        return Err(SecretError::Raced);
    }
    let entry = Entry::new(now, who, Action::BoardSecretStored)
        .detail("name", which)
        .detail("version", version)
        .detail("envelope_sha256", hex(&sha256(&sealed)));
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(place.1)
}

/// Removes the value. Says whether there was one.
pub async fn remove_board(
    db: &Db,
    clock: &dyn Clock,
    who: Who,
    which: BoardSecret,
) -> Result<bool, SecretError> {
    let mut tx = db.write().await?;
    let now = clock.now();
    if store::remove_board(&mut tx, which.as_str(), now).await? != 1 {
        return Ok(false);
    }
    let entry = Entry::new(now, who, Action::BoardSecretRemoved).detail("name", which);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(true)
}

pub async fn stored_board(tx: &mut Tx, which: BoardSecret) -> Result<Option<StoredBoardSecret>, sqlx::Error> {
    let row = store::board_row(tx, which.as_str()).await?.filter(|row| row.encrypted_value.is_some());
    Ok(row.map(|row| StoredBoardSecret { version: row.version, changed_at: row.changed_at }))
}

/// Opens it for the board's own use; the entry of that is committed before. None when there is none. Not while the board is
/// frozen.
pub async fn open_board(
    app: &App,
    who: Who,
    which: BoardSecret,
    reason: &str,
) -> Result<Option<Secret<String>>, SecretError> {
    if freeze::is_on(&mut app.db.read().await?).await? {
        return Err(SecretError::Frozen);
    }
    open_board_to_end(app, who, which, reason).await
}

/// The same, frozen or not: an incident is when keys at a provider have to be ended.
pub async fn open_board_to_end(
    app: &App,
    who: Who,
    which: BoardSecret,
    reason: &str,
) -> Result<Option<Secret<String>>, SecretError> {
    let mut tx = app.db.write().await?;
    let Some(known) = stored_board(&mut tx, which).await? else { return Ok(None) };
    let entry = Entry::new(app.now(), who, Action::BoardSecretDecrypted)
        .reason(reason)
        .detail("name", which)
        .detail("version", known.version);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;

    let mut tx = app.db.read().await?;
    let Some((version, sealed)) = sealed(&mut tx, which).await? else { return Ok(None) };
    let value = open_sealed(&app.root, &mut tx, which, version, &sealed).await?;
    String::from_utf8(value.expose().clone())
        .map(|text| Some(Secret::new(text)))
        .map_err(|_| SecretError::NotLatest("it isn't text"))
}

/// Its version and envelope.
pub(super) async fn sealed(tx: &mut Tx, which: BoardSecret) -> Result<Option<(u64, Vec<u8>)>, sqlx::Error> {
    let row = store::board_row(tx, which.as_str()).await?;
    Ok(row.and_then(|row| Some((u64::try_from(row.version).unwrap_or(0), row.encrypted_value?))))
}

/// The caller has committed the audit entry for it already.
pub(super) async fn open_sealed(
    root: &RootKey,
    tx: &mut Tx,
    which: BoardSecret,
    version: u64,
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, SecretError> {
    let written = audit::latest_board_envelope(tx, which.as_str()).await?;
    if written.as_deref() != Some(hex(&sha256(sealed)).as_str()) {
        return Err(SecretError::NotLatest("the audit log holds another hash for it"));
    }
    let root = root.at(tx, envelope::root_version(sealed)?).await?;
    Ok(envelope::open_board(&root.derive(Purpose::Board), (which.as_str(), version), sealed)?)
}
