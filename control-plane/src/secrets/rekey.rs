//! Moving stored secrets to another version of the root key: the same value and version, no delivery. `board rekey` has
//! committed its `rekey.started` before it calls any of this.
//!
//! It goes on while the board is frozen: an operator whose root key may be in other hands moves to a new one first, so that
//! the new values of the rotation are never under the old one. No value leaves the function that opens it.

use shared::crypto::{hex, sha256};
use shared::random::Random;
use shared::time::Timestamp;

use super::{BoardSecret, Place, SecretError, board, envelope, open_sealed, store};
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::keys::{Purpose, RootKey, RootVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    Moved,
    /// It is under the newest version already, or its value was replaced meanwhile.
    Nothing,
}

/// Where secrets lie that are not under this version of the root key. What was purged isn't among them: it opens under
/// none.
pub async fn unmoved(tx: &mut Tx, version: u32) -> Result<Vec<Place>, sqlx::Error> {
    let rows = store::not_under(tx, version).await?;
    Ok(rows
        .into_iter()
        .map(|(client_id, slot_id, version)| Place {
            client_id,
            slot_id,
            version: u64::try_from(version).unwrap_or(0),
        })
        .collect())
}

/// The client and the slot, as whoever has to rotate it names them. A client's name is free text, so it is quoted.
pub async fn name_of(tx: &mut Tx, place: Place) -> Result<String, sqlx::Error> {
    Ok(match store::names(tx, place).await? {
        Some((client, component, slot)) => format!("{client:?} {component}/{slot}"),
        None => format!("client {}, slot {}", place.client_id, place.slot_id),
    })
}

/// Encrypts one secret under `newest`. The transaction must end right after it.
pub async fn move_to(
    tx: &mut Tx,
    root: &RootKey,
    newest: &RootVersion,
    place: Place,
    now: Timestamp,
    random: &dyn Random,
) -> Result<Moved, SecretError> {
    let Some(sealed) = store::envelope(tx, place).await? else { return Ok(Moved::Nothing) };
    let from = envelope::root_version(&sealed)?;
    if from == newest.version {
        return Ok(Moved::Nothing);
    }
    let (salt, value) = open_sealed(root, tx, place, &sealed).await?;
    let key = newest.client_key(&salt, place.client_id);
    let again = envelope::seal(&key, newest.version, place, value.expose(), random)?;
    if store::exchange(tx, place, &sealed, &again).await? != 1 {
        return Ok(Moved::Nothing);
    }
    let entry = Entry::new(now, Who::cli(), Action::SecretRekeyed)
        .client(place.client_id)
        .slot(place.slot_id)
        .detail("version", place.version)
        .detail("from", from)
        .detail("to", newest.version)
        .detail("envelope_sha256", hex(&sha256(&again)));
    audit::append(tx, &entry).await?;
    Ok(Moved::Moved)
}

/// The board's own secrets that are not under this version of the root key.
pub async fn unmoved_board(tx: &mut Tx, version: u32) -> Result<Vec<BoardSecret>, SecretError> {
    let mut left = Vec::new();
    for which in BoardSecret::ALL {
        let sealed = store::board_row(tx, which.as_str()).await?.and_then(|row| row.encrypted_value);
        // One that is no envelope can't be moved, and so isn't under any version.
        if sealed.is_some_and(|sealed| envelope::root_version(&sealed) != Ok(version)) {
            left.push(*which);
        }
    }
    Ok(left)
}

/// Encrypts one of the board's own secrets under `newest`. The transaction must end right after it.
pub async fn move_board_to(
    tx: &mut Tx,
    root: &RootKey,
    newest: &RootVersion,
    which: BoardSecret,
    now: Timestamp,
    random: &dyn Random,
) -> Result<Moved, SecretError> {
    let Some((version, sealed)) = board::sealed(tx, which).await? else { return Ok(Moved::Nothing) };
    let from = envelope::root_version(&sealed)?;
    if from == newest.version {
        return Ok(Moved::Nothing);
    }
    let value = board::open_sealed(root, tx, which, version, &sealed).await?;
    let place = (which.as_str(), version);
    let again =
        envelope::seal_board(&newest.derive(Purpose::Board), newest.version, place, value.expose(), random)?;
    if store::exchange_board(tx, which.as_str(), &sealed, &again).await? != 1 {
        return Ok(Moved::Nothing);
    }
    let entry = Entry::new(now, Who::cli(), Action::BoardSecretRekeyed)
        .detail("name", which)
        .detail("version", version)
        .detail("from", from)
        .detail("to", newest.version)
        .detail("envelope_sha256", hex(&sha256(&again)));
    audit::append(tx, &entry).await?;
    Ok(Moved::Moved)
}
