//! The audit log: append-only by triggers in both databases, chained by hashes (`design/security.md` section 10).
//!
//! A writer appends as the last thing in its transaction: [`append`] takes the turn by moving `audit_head`. Nothing is
//! decrypted before its entry is committed.

mod chain;
mod entry;
mod export;
mod filter;
mod heads;
mod mark;
mod store;
#[cfg(test)]
mod tests;
pub mod views;
mod watch;
pub mod web;
mod witness;

use shared::ids::{ClientId, SlotId};
use shared::time::Timestamp;

pub use chain::{Break, Link, Standing, Walk};
pub use entry::{Action, Actor, Entry, Who};
pub use export::{Exported, Format, export, read_export};
pub use filter::{Filter, FilterError, Moment};
pub use heads::{
    Alarm, AlarmKind, Witness, acknowledge, acknowledge_up_to, alarms, begin_epoch, compare, count_alarms,
    head, standing,
};
pub use mark::{Checked, keep_checked};
pub use witness::{Compared, Told, WitnessError, compare_heads, read_witness};

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
    let hash = chain::entry_hash(number(epoch), number(seq), &previous, &canonical);
    store::insert(tx, store::NewRow { epoch, seq, previous, hash: hash.to_vec(), canonical, entry }).await?;
    Ok(number(seq))
}

/// SHA-256 of the envelope that the latest write of this secret put into the log.
pub async fn latest_envelope(
    tx: &mut Tx,
    client_id: ClientId,
    slot_id: SlotId,
) -> Result<Option<String>, sqlx::Error> {
    let writes = [Action::SecretStored, Action::SecretRekeyed];
    let canonical = store::latest_for_slot(tx, client_id, slot_id, writes).await?;
    Ok(canonical
        .and_then(|text| serde_json::from_str::<Entry>(&text).ok())
        .and_then(|entry| entry.detail.get("envelope_sha256").cloned()))
}

/// The same for a secret of the board itself.
pub async fn latest_board_envelope(tx: &mut Tx, name: &str) -> Result<Option<String>, sqlx::Error> {
    let writes = [Action::BoardSecretStored, Action::BoardSecretRekeyed];
    let written = store::latest_for_board(tx, writes).await?;
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

/// The last entry of an action, and how many there are of it.
#[derive(Clone, Debug)]
pub struct Latest {
    pub times: u64,
    pub entry: Entry,
}

/// What the log has of one action in a client's affairs: of each slot and device the last entry, oldest first.
pub async fn latest_of(tx: &mut Tx, client_id: ClientId, action: Action) -> Result<Vec<Latest>, sqlx::Error> {
    let rows = store::latest_of(tx, client_id, action).await?;
    let read = |(canonical, times): (String, i64)| {
        let entry = serde_json::from_str(&canonical).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Latest { times: number(times), entry })
    };
    rows.into_iter().map(read).collect()
}

/// Entries below `before` (all when `None`) that fit the filter, newest first.
pub async fn page(tx: &mut Tx, before: Option<u64>, limit: u32) -> Result<Vec<Stored>, sqlx::Error> {
    filtered(tx, before, limit, &Filter::default()).await
}

/// The same, of those that a filter wants.
pub async fn filtered(
    tx: &mut Tx,
    before: Option<u64>,
    limit: u32,
    filter: &Filter,
) -> Result<Vec<Stored>, sqlx::Error> {
    let bounds = filter.bounds(tx).await?;
    let before = before.and_then(|seq| i64::try_from(seq).ok()).unwrap_or(i64::MAX);
    let rows = store::before(tx, before, i64::from(limit), filter, bounds).await?;
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
    let mut walk = Walk::default();
    Ok(match walk_all(tx, &mut walk).await? {
        None => Verdict::Holds { entries: walk.last.seq },
        Some(Break { seq, why }) => Verdict::Broken { seq, why },
    })
}

/// Walks the whole chain of the database; gives where it breaks.
pub async fn walk_all(tx: &mut Tx, walk: &mut Walk) -> Result<Option<Break>, sqlx::Error> {
    loop {
        let last = i64::try_from(walk.last.seq).unwrap_or(i64::MAX);
        let rows = store::after(tx, last, 500).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            if let Err(broken) = walk.step_row(row) {
                return Ok(Some(broken));
            }
        }
    }
    let missing = number(store::head_seq(tx).await?) != walk.last.seq;
    let why = "entries are missing at the end";
    Ok(missing.then_some(Break { seq: walk.last.seq + 1, why }))
}

impl Walk {
    fn step_row(&mut self, row: store::Row) -> Result<(), Break> {
        let parsed = serde_json::from_str::<Entry>(&row.canonical);
        let elsewhere = parsed.is_ok_and(|entry| !row.repeats(&entry));
        let seq = number(row.seq);
        self.step(row.into())?;
        if elsewhere {
            return Err(Break { seq, why: "its columns say something else than the entry" });
        }
        Ok(())
    }
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
