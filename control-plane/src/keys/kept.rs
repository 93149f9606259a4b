//! What stays of a retired root key: its HMAC keys for tokens and join codes, sealed under a living version, until the
//! last token that was hashed with them has ended. The database has only the hashes, so they can't be moved; without
//! this, `board rekey` would sign everybody out and end every API token.
//!
//! They open nothing: a token is 256 random bits, and a join code ends within the hour.

use std::sync::Arc;
use std::time::Duration;

use shared::crypto::ByteString;
use shared::ids::BoardId;
use shared::random::Random;
use shared::secret::Secret;
use shared::time::Timestamp;

use super::{Key, KeyError, Purpose, RootVersion, number, store};
use crate::aead;
use crate::db::Tx;

/// API tokens live longest (365 days), and a board that runs may make one a little after the key was retired.
pub const TOKENS_LIVE: Duration = Duration::from_secs(366 * 24 * 3600);
/// Join codes end after an hour.
const CODES_LIVE: Duration = Duration::from_secs(2 * 3600);

const SEALED: &str = "board/kept-key/v1";
const KEPT: [(Purpose, Duration); 2] = [(Purpose::Token, TOKENS_LIVE), (Purpose::JoinCode, CODES_LIVE)];

#[derive(Debug)]
pub struct KeptKey {
    pub purpose: Purpose,
    pub key: Key,
}

/// The kept keys that haven't ended.
pub(super) async fn open(
    tx: &mut Tx,
    board_id: BoardId,
    living: &[Arc<RootVersion>],
    now: Timestamp,
) -> Result<Vec<Arc<KeptKey>>, KeyError> {
    let mut found = Vec::new();
    for row in store::kept(tx, now).await? {
        let under = living.iter().find(|root| i64::from(root.version) == row.sealed_under);
        let purpose = KEPT.iter().map(|(purpose, _)| *purpose).find(|purpose| purpose.label() == row.purpose);
        let (Some(under), Some(purpose)) = (under, purpose) else { continue };
        let aad = aad(board_id, number(row.root_version), purpose);
        if let Some(key) =
            aead::open(&sealing_key(under), &aad, &row.sealed).ok().and_then(|key| thirty_two(&key))
        {
            found.push(Arc::new(KeptKey { purpose, key }));
        } else {
            tracing::error!(
                "the {} key of version {} of the root key doesn't open: tokens of then are refused",
                row.purpose,
                row.root_version
            );
        }
    }
    Ok(found)
}

/// Seals the HMAC keys of `old`, and those that were sealed under it, under `newest`. Ended ones are deleted.
pub async fn keep(
    tx: &mut Tx,
    board_id: BoardId,
    old: &RootVersion,
    newest: &RootVersion,
    now: Timestamp,
    random: &dyn Random,
) -> Result<(), KeyError> {
    store::delete_ended(tx, now).await?;
    let seal = |version: u32, purpose: Purpose, key: &Key| {
        aead::seal(&sealing_key(newest), &aad(board_id, version, purpose), key.expose(), random)
            .map_err(|_| KeyError::NoVersion(version))
    };
    for row in store::kept(tx, now).await? {
        if row.sealed_under != i64::from(old.version) {
            continue;
        }
        let Some((purpose, _)) = KEPT.iter().find(|(purpose, _)| purpose.label() == row.purpose) else {
            continue;
        };
        let version = number(row.root_version);
        let opened = aead::open(&sealing_key(old), &aad(board_id, version, *purpose), &row.sealed);
        let key = opened.ok().and_then(|key| thirty_two(&key)).ok_or(KeyError::NoVersion(version))?;
        let sealed = seal(version, *purpose, &key)?;
        store::reseal_kept(tx, row.root_version, &row.purpose, newest.version, &sealed).await?;
    }
    for (purpose, lives) in KEPT {
        let sealed = seal(old.version, purpose, &old.derive(purpose))?;
        let row = store::KeptRow {
            root_version: i64::from(old.version),
            purpose: purpose.label().to_owned(),
            sealed_under: i64::from(newest.version),
            sealed,
        };
        store::insert_kept(tx, &row, now.after(lives)).await?;
    }
    Ok(())
}

fn sealing_key(root: &RootVersion) -> Key {
    root.expand(&[], SEALED.as_bytes())
}

fn aad(board_id: BoardId, version: u32, purpose: Purpose) -> Vec<u8> {
    ByteString::labelled(SEALED)
        .fixed(board_id.as_bytes())
        .u32(version)
        .part(purpose.label().as_bytes())
        .finish()
}

fn thirty_two(bytes: &Secret<Vec<u8>>) -> Option<Key> {
    bytes.expose().as_slice().try_into().map(Secret::new).ok()
}
