//! The audit log: append-only by triggers in both databases, chained by hashes (`design/security.md` section 10).
//!
//! A writer appends as the last thing in its transaction: [`append`] takes the turn by moving `audit_head`. Nothing is
//! decrypted before its entry is committed.

mod entry;
mod store;
#[cfg(test)]
mod tests;
pub mod views;
mod watch;
pub mod web;

use shared::crypto::{ByteString, sha256};
use shared::ids::{ClientId, SlotId};
use shared::protocol::link::Head;
use shared::time::Timestamp;

pub use entry::{Action, Actor, Entry, Who};

pub use watch::Watch;

use crate::db::{Cause, Tx};

/// Title of every answer that is refused because its entry can't be written.
pub const UNWRITTEN: &str = "The audit log can't be written";

/// The same in full, for an answer and the health page.
pub fn unwritten(cause: Cause) -> String {
    format!(
        "{} So nothing was done: the board does nothing that it can't record in the audit log. {}",
        cause.what(),
        cause.remedy()
    )
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log can't be written, so nothing was done: {0}")]
    Write(#[from] sqlx::Error),
    #[error("the audit log can't be written: an entry could not be put into JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl AuditError {
    pub fn cause(&self) -> Cause {
        match self {
            Self::Write(error) => Cause::of(error),
            Self::Json(_) => Cause::Other,
        }
    }
}

/// Appends an entry and gives its sequence number. The transaction must end right after it.
pub async fn append(tx: &mut Tx, entry: &Entry) -> Result<u64, AuditError> {
    let canonical = serde_json::to_string(entry)?;
    let (epoch, seq) = store::take_turn(tx).await?;
    let previous = match store::hash_at(tx, seq - 1).await? {
        Some(hash) => hash,
        None => vec![0; 32],
    };
    let hash = entry_hash(number(epoch), number(seq), &previous, &canonical);
    store::insert(tx, store::NewRow { epoch, seq, previous, hash: hash.to_vec(), canonical, entry }).await?;
    Ok(number(seq))
}

/// The newest entry's place and hash; what agents remember.
pub async fn head(tx: &mut Tx) -> Result<Head, sqlx::Error> {
    let row = store::newest(tx).await?;
    Ok(row.map_or(Head { epoch: 1, seq: 0, hash: vec![0; 32] }, |row| Head {
        epoch: number(row.epoch),
        seq: number(row.seq),
        hash: row.hash,
    }))
}

/// Whether this board's log holds an entry at the head's place with the head's hash.
pub async fn knows(tx: &mut Tx, head: &Head) -> Result<bool, sqlx::Error> {
    let Ok(seq) = i64::try_from(head.seq) else { return Ok(false) };
    Ok(seq == 0 || store::hash_at(tx, seq).await?.as_ref() == Some(&head.hash))
}

/// SHA-256 of the envelope that the latest write of this secret put into the log.
pub async fn latest_envelope(
    tx: &mut Tx,
    client_id: ClientId,
    slot_id: SlotId,
) -> Result<Option<String>, sqlx::Error> {
    let canonical = store::latest_for_slot(tx, client_id, slot_id, Action::SecretStored).await?;
    Ok(canonical
        .and_then(|text| serde_json::from_str::<Entry>(&text).ok())
        .and_then(|entry| entry.detail.get("envelope_sha256").cloned()))
}

/// The same for a secret of the board itself.
pub async fn latest_board_envelope(tx: &mut Tx, name: &str) -> Result<Option<String>, sqlx::Error> {
    let written = store::latest_for_board(tx, Action::BoardSecretStored).await?;
    Ok(written
        .iter()
        .filter_map(|text| serde_json::from_str::<Entry>(text).ok())
        .find(|entry| entry.detail.get("name").is_some_and(|of| of == name))
        .and_then(|entry| entry.detail.get("envelope_sha256").cloned()))
}

/// A stored entry, for pages and exports.
#[derive(Clone, Debug)]
pub struct Stored {
    pub seq: u64,
    pub entry: Entry,
}

/// Entries below `before` (all when `None`), newest first.
pub async fn page(tx: &mut Tx, before: Option<u64>, limit: u32) -> Result<Vec<Stored>, sqlx::Error> {
    let before = before.and_then(|seq| i64::try_from(seq).ok()).unwrap_or(i64::MAX);
    let rows = store::before(tx, before, i64::from(limit)).await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let entry = serde_json::from_str(&row.canonical).ok()?;
            Some(Stored { seq: number(row.seq), entry })
        })
        .collect())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every entry up to this one fits the one before it.
    Holds {
        entries: u64,
    },
    Broken {
        seq: u64,
        why: &'static str,
    },
}

/// Walks the whole chain, in batches.
pub async fn verify(tx: &mut Tx) -> Result<Verdict, sqlx::Error> {
    let mut previous = vec![0; 32];
    let mut last: i64 = 0;
    loop {
        let rows = store::after(tx, last, 500).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let why = if row.seq != last + 1 {
                Some("an entry is missing before it")
            } else if row.previous != previous {
                Some("it doesn't point at the entry before it")
            } else if row.hash
                != entry_hash(number(row.epoch), number(row.seq), &row.previous, &row.canonical)
            {
                Some("its content doesn't fit its hash")
            } else if serde_json::from_str::<Entry>(&row.canonical).is_ok_and(|entry| !row.repeats(&entry)) {
                Some("its columns say something else than the entry")
            } else {
                None
            };
            if let Some(why) = why {
                return Ok(Verdict::Broken { seq: number(row.seq), why });
            }
            last = row.seq;
            previous = row.hash;
        }
    }
    if store::head_seq(tx).await? != last {
        return Ok(Verdict::Broken { seq: number(last) + 1, why: "entries are missing at the end" });
    }
    Ok(Verdict::Holds { entries: number(last) })
}

fn entry_hash(epoch: u64, seq: u64, previous: &[u8], canonical: &str) -> [u8; 32] {
    let bytes = ByteString::labelled("board/audit/v1")
        .u64(epoch)
        .u64(seq)
        .part(previous)
        .part(canonical.as_bytes())
        .finish();
    sha256(&bytes)
}

fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

impl Entry {
    /// An entry with nothing but who, what and when; the rest is set by name.
    pub fn new(at: Timestamp, who: Who, action: Action) -> Self {
        Self {
            at,
            who,
            action,
            client: None,
            slot: None,
            device: None,
            reason: String::new(),
            detail: std::collections::BTreeMap::new(),
        }
    }
}
