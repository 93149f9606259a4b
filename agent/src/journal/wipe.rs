//! The wipe that ends this enrollment: that it began, and its receipt.

use redb::ReadableDatabase as _;
use serde::{Deserialize, Serialize};
use shared::ids::ReportId;
use shared::protocol::link::Report;
use shared::protocol::wipe::{Wipe, WipedSlot};

use super::{Journal, JournalError, META, REPORT_PLACES, record};

const NAME: &str = "wipe";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WipeBegun {
    pub wipe: Wipe,
    /// What is to be removed, also when some of it is gone already.
    pub removed: Vec<WipedSlot>,
    pub left: Vec<WipedSlot>,
    /// The report with the signed receipt, once everything is removed.
    pub receipt: Option<Report>,
}

impl Journal {
    pub fn wipe(&self) -> Result<Option<WipeBegun>, JournalError> {
        self.meta(NAME)
    }

    /// Before anything is removed.
    pub fn begin_wipe(&self, begun: &WipeBegun) -> Result<(), JournalError> {
        self.set_meta(NAME, begun)
    }

    /// Whether the board hasn't committed this report yet.
    pub fn is_waiting(&self, id: ReportId) -> Result<bool, JournalError> {
        let transaction = self.database.begin_read()?;
        Ok(transaction.open_table(REPORT_PLACES)?.get(*id.as_bytes())?.is_some())
    }

    /// Everything is removed: the receipt is kept, and reported until the board acknowledges it.
    pub fn wiped(&self, report: &Report) -> Result<(), JournalError> {
        let Some(begun) = self.wipe()? else { return Ok(()) };
        let bytes = serde_json::to_vec(&WipeBegun { receipt: Some(report.clone()), ..begun })?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(META)?.insert(NAME, bytes.as_slice())?;
        record(&transaction, std::slice::from_ref(report))?;
        transaction.commit()?;
        Ok(())
    }
}
