//! What must survive a kill. Only the daemon opens it; one transaction and one sync a call.
//!
//! Reports wait here, in order, until the board acknowledges them. Attempts remember their last report and
//! deliveries their receipt, so that the same offer or delivery again gets the same answer; a passing refusal and a
//! refused delivery are no such answer. Everything in it is bounded.

mod heads;
mod pastes;
mod wipe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::ids::{AttemptId, DeliveryId, ReportId};
use shared::protocol::link::{Report, ReportBody};
use shared::protocol::steps::Offer;
use shared::time::Timestamp;

use crate::undos::Begun;

pub use heads::Told;
pub use pastes::PasteNote;
pub use wipe::WipeBegun;

type Id = [u8; 16];

const REPORTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("reports");
const REPORT_PLACES: TableDefinition<'_, Id, u64> = TableDefinition::new("report_places");
const ATTEMPTS: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("attempts");
const DELIVERIES: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("deliveries");
const PASTES: TableDefinition<'_, Id, &[u8]> = TableDefinition::new("pastes");
const READINGS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("readings");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const CACHE: usize = 1024 * 1024;
/// A file larger than this is made smaller at the next start.
const LARGE: u64 = 32 * 1024 * 1024;
/// How many attempts, deliveries, pastes and readings are remembered.
const KEPT: u64 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(
        "another board-agent runs with this data folder already ({0} is in use). Stop it first, or use another --data"
    )]
    InUse(PathBuf),
    #[error("the journal was not closed; the agent mends it when it starts")]
    Unclean,
    #[error("the journal failed: {0}")]
    Redb(Box<redb::Error>),
    #[error("the journal can't be opened: {0}")]
    Io(#[from] std::io::Error),
    #[error("an entry of the journal can't be understood: {0}")]
    Entry(#[from] serde_json::Error),
}

macro_rules! redb_errors {
    ($($name:ident)+) => {$(
        impl From<redb::$name> for JournalError {
            fn from(error: redb::$name) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        }
    )+};
}
redb_errors! { DatabaseError TransactionError TableError StorageError CommitError CompactionError }

/// One attempt, as the journal remembers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub offer: Offer,
    pub at: Timestamp,
    /// Number of the next chunk of output.
    pub next_chunk: u64,
    /// `None` while it runs; then the report that ended it, or refused the offer for good.
    pub last: Option<Report>,
}

/// A program asked the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    pub at: Timestamp,
    pub uid: u32,
    pub component: String,
    pub wrapper: String,
    pub slots: Vec<String>,
}

/// The newest bundle that was accepted: older ones are measured by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub serial: u64,
    pub min_serial: u64,
    pub revoked_steps: Vec<String>,
}

/// Non-secret inputs by component, as offers brought them: wrappers need them too.
pub type Params = BTreeMap<String, BTreeMap<String, String>>;

pub struct Journal {
    database: Database,
}

/// The attempts in a journal that nobody has open, without writing into it.
pub fn peek(path: &Path) -> Result<Vec<Attempt>, JournalError> {
    let database = Database::builder()
        .set_cache_size(CACHE)
        .open_read_only(path)
        .map_err(|error| opening(error, path))?;
    attempts(&database.begin_read()?)
}

fn opening(error: redb::DatabaseError, path: &Path) -> JournalError {
    if matches!(error, redb::DatabaseError::DatabaseAlreadyOpen) {
        JournalError::InUse(path.to_owned())
    } else if matches!(error, redb::DatabaseError::RepairAborted) {
        JournalError::Unclean
    } else {
        error.into()
    }
}

fn attempts(transaction: &ReadTransaction) -> Result<Vec<Attempt>, JournalError> {
    let table = transaction.open_table(ATTEMPTS)?;
    table.iter()?.map(|entry| Ok(serde_json::from_slice(entry?.1.value())?)).collect()
}

impl Journal {
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file = {
            use std::os::unix::fs::OpenOptionsExt as _;
            std::fs::OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
        };
        drop(file?);
        let mut database =
            Database::builder().set_cache_size(CACHE).create(path).map_err(|error| opening(error, path))?;
        let transaction = database.begin_write()?;
        transaction.open_table(REPORTS)?;
        transaction.open_table(REPORT_PLACES)?;
        transaction.open_table(ATTEMPTS)?;
        transaction.open_table(DELIVERIES)?;
        transaction.open_table(PASTES)?;
        transaction.open_table(READINGS)?;
        transaction.open_table(META)?;
        transaction.commit()?;
        if std::fs::metadata(path)?.len() > LARGE {
            database.compact()?;
        }
        Ok(Self { database })
    }

    /// An attempt and the first report about it, before anything of it happens. An id that is known stays as it is.
    pub fn offered(&self, attempt: &Attempt, report: &Report) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(attempt)?;
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ATTEMPTS)?;
            let id = *attempt.offer.attempt_id.as_bytes();
            if table.get(id)?.is_none() {
                table.insert(id, bytes.as_slice())?;
            }
            while table.len()? > KEPT {
                table.pop_first()?;
            }
        }
        record(&transaction, std::slice::from_ref(report))?;
        transaction.commit()?;
        Ok(())
    }

    /// Keeps reports until they are acknowledged, and whatever they change, in one commit.
    pub fn record(&self, reports: &[Report]) -> Result<(), JournalError> {
        if reports.is_empty() {
            return Ok(());
        }
        let transaction = self.database.begin_write()?;
        record(&transaction, reports)?;
        transaction.commit()?;
        Ok(())
    }

    /// The reports behind place `after`, oldest first.
    pub fn waiting(&self, after: Option<u64>, most: usize) -> Result<Vec<(u64, Report)>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(REPORTS)?;
        let start = after.map_or(0, |place| place + 1);
        let mut found = Vec::new();
        for entry in table.range(start..)?.take(most) {
            let (place, bytes) = entry?;
            found.push((place.value(), serde_json::from_slice(bytes.value())?));
        }
        Ok(found)
    }

    /// The board has committed these.
    pub fn acknowledged(&self, reports: &[ReportId]) -> Result<(), JournalError> {
        let transaction = self.database.begin_write()?;
        {
            let mut queue = transaction.open_table(REPORTS)?;
            let mut places = transaction.open_table(REPORT_PLACES)?;
            for id in reports {
                let place = places.remove(*id.as_bytes())?.map(|place| place.value());
                if let Some(place) = place {
                    queue.remove(place)?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    pub fn attempts(&self) -> Result<Vec<Attempt>, JournalError> {
        attempts(&self.database.begin_read()?)
    }

    pub fn attempt(&self, id: AttemptId) -> Result<Option<Attempt>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(ATTEMPTS)?;
        read(&table, *id.as_bytes())
    }

    pub fn receipt(&self, id: DeliveryId) -> Result<Option<Report>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(DELIVERIES)?;
        let report: Option<Report> = read(&table, *id.as_bytes())?;
        Ok(report.filter(|report| matches!(report.body, ReportBody::Receipt(_))))
    }

    /// Ids of deliveries that have a receipt. Earlier agents kept refusals beside them.
    pub fn receipts(&self) -> Result<Vec<DeliveryId>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(DELIVERIES)?;
        let mut ids = Vec::new();
        for entry in table.iter()? {
            let report: Report = serde_json::from_slice(entry?.1.value())?;
            if let ReportBody::Receipt(receipt) = report.body {
                ids.push(receipt.delivery_id);
            }
        }
        Ok(ids)
    }

    pub fn read_by(&self, reading: &Reading) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(reading)?;
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(READINGS)?;
            let next = table.last()?.map_or(0, |(place, _)| place.value() + 1);
            table.insert(next, bytes.as_slice())?;
            while table.len()? > KEPT {
                table.pop_first()?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    pub fn readings(&self) -> Result<Vec<Reading>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(READINGS)?;
        table.iter()?.map(|entry| Ok(serde_json::from_slice(entry?.1.value())?)).collect()
    }

    pub fn seen(&self) -> Result<Seen, JournalError> {
        Ok(self.meta("seen")?.unwrap_or_default())
    }

    pub fn set_seen(&self, seen: &Seen) -> Result<(), JournalError> {
        self.set_meta("seen", seen)
    }

    /// The heads of the board's audit log that this device was told, oldest first.
    pub fn heads(&self) -> Result<Vec<Told>, JournalError> {
        Ok(self.meta("heads")?.unwrap_or_default())
    }

    /// Keeps one more head and gives all that are kept. One that differs from an older one stands beside it.
    pub fn told(&self, told: Told) -> Result<Vec<Told>, JournalError> {
        let mut heads = self.heads()?;
        if heads.last().is_some_and(|last| last.head == told.head) {
            return Ok(heads);
        }
        heads.push(told);
        heads::thin(&mut heads);
        self.set_meta("heads", &heads)?;
        Ok(heads)
    }

    pub fn undos(&self) -> Result<Begun, JournalError> {
        Ok(self.meta("undos")?.unwrap_or_default())
    }

    /// One more undo begins; written before the attempt is, so that a kill between the two can't make it free.
    pub fn undo_begins(&self, now: Timestamp) -> Result<(), JournalError> {
        self.set_meta("undos", &self.undos()?.and(now))
    }

    pub fn params(&self) -> Result<Params, JournalError> {
        Ok(self.meta("params")?.unwrap_or_default())
    }

    pub fn set_params(&self, params: &Params) -> Result<(), JournalError> {
        self.set_meta("params", params)
    }

    fn meta<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(META)?;
        Ok(table.get(name)?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
    }

    fn set_meta(&self, name: &str, value: &impl Serialize) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(value)?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(META)?.insert(name, bytes.as_slice())?;
        transaction.commit()?;
        Ok(())
    }
}

type Entries<'t> = redb::Table<'t, Id, &'static [u8]>;
type Queue<'t> = redb::Table<'t, u64, &'static [u8]>;
type Places<'t> = redb::Table<'t, Id, u64>;

fn record(transaction: &redb::WriteTransaction, reports: &[Report]) -> Result<(), JournalError> {
    let mut queue = transaction.open_table(REPORTS)?;
    let mut places = transaction.open_table(REPORT_PLACES)?;
    let mut attempts = transaction.open_table(ATTEMPTS)?;
    let mut deliveries = transaction.open_table(DELIVERIES)?;
    let mut next = queue.last()?.map_or(0, |(place, _)| place.value() + 1);
    let last_place = places_end(transaction)?;
    next = next.max(last_place);
    for report in reports {
        let id = *report.id.as_bytes();
        if places.get(id)?.is_none() {
            let bytes = serde_json::to_vec(report)?;
            if matches!(report.body, ReportBody::Inventory { .. }) {
                forget_older_inventory(&mut queue, &mut places)?;
            }
            queue.insert(next, bytes.as_slice())?;
            places.insert(id, next)?;
            next += 1;
        }
        match &report.body {
            ReportBody::Output(chunk) => {
                change(&mut attempts, *chunk.attempt_id.as_bytes(), |attempt: &mut Attempt| {
                    attempt.next_chunk = attempt.next_chunk.max(chunk.seq + 1);
                })?;
            }
            ReportBody::AttemptEnded(ended) => {
                change(&mut attempts, *ended.attempt_id.as_bytes(), |attempt: &mut Attempt| {
                    attempt.last = Some(report.clone());
                })?;
            }
            ReportBody::OfferRefused { attempt_id, passing: false, .. } => {
                change(&mut attempts, *attempt_id.as_bytes(), |attempt: &mut Attempt| {
                    attempt.last = Some(report.clone());
                })?;
            }
            ReportBody::Receipt(receipt) => {
                let bytes = serde_json::to_vec(report)?;
                deliveries.insert(*receipt.delivery_id.as_bytes(), bytes.as_slice())?;
            }
            ReportBody::OfferRefused { passing: true, .. }
            | ReportBody::DeliveryRefused { .. }
            | ReportBody::AttemptStarted { .. }
            | ReportBody::PlanStep(_)
            | ReportBody::PlanEnded(_)
            | ReportBody::Inventory { .. }
            | ReportBody::Wiped(_)
            | ReportBody::CaPinned { .. }
            | ReportBody::Replaced { .. }
            | ReportBody::Release(_)
            | ReportBody::Unknown => {}
        }
    }
    set_places_end(transaction, next)?;
    while deliveries.len()? > KEPT {
        deliveries.pop_first()?;
    }
    Ok(())
}

fn read<T: DeserializeOwned>(
    table: &redb::ReadOnlyTable<Id, &'static [u8]>,
    id: Id,
) -> Result<Option<T>, JournalError> {
    Ok(table.get(id)?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
}

fn change<T: DeserializeOwned + Serialize>(
    table: &mut Entries<'_>,
    id: Id,
    how: impl FnOnce(&mut T),
) -> Result<(), JournalError> {
    let Some(mut entry) =
        table.get(id)?.map(|bytes| serde_json::from_slice::<T>(bytes.value())).transpose()?
    else {
        return Ok(());
    };
    how(&mut entry);
    table.insert(id, serde_json::to_vec(&entry)?.as_slice())?;
    Ok(())
}

/// Only the newest picture of the device matters to a board that has been away.
fn forget_older_inventory(queue: &mut Queue<'_>, places: &mut Places<'_>) -> Result<(), JournalError> {
    let mut old = Vec::new();
    for entry in queue.iter()? {
        let (place, bytes) = entry?;
        let report: Report = serde_json::from_slice(bytes.value())?;
        if matches!(report.body, ReportBody::Inventory { .. }) {
            old.push((place.value(), report.id));
        }
    }
    for (place, id) in old {
        queue.remove(place)?;
        places.remove(*id.as_bytes())?;
    }
    Ok(())
}

/// Places are never used twice, also when the queue was emptied: a sender's position stays true.
fn places_end(transaction: &redb::WriteTransaction) -> Result<u64, JournalError> {
    let table = transaction.open_table(META)?;
    let end = table.get("places_end")?.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?;
    Ok(end.unwrap_or(0))
}

fn set_places_end(transaction: &redb::WriteTransaction, end: u64) -> Result<(), JournalError> {
    transaction.open_table(META)?.insert("places_end", serde_json::to_vec(&end)?.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests;
