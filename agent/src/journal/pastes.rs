//! Sealed pastes that were opened: each is good once.

use redb::{ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};
use serde::{Deserialize, Serialize};
use shared::ids::DeliveryId;
use shared::time::Timestamp;

use super::{Journal, JournalError, KEPT, PASTES};

/// A sealed paste that was opened. Nothing of the value, sealed or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasteNote {
    pub at: Timestamp,
    pub component: String,
    pub slot: String,
}

impl Journal {
    /// Notes a paste before anything of it is written; false when this one came before. Of those that are forgotten
    /// the youngest is older than all that are remembered, so what is older still counts as known.
    pub fn first_paste(&self, id: DeliveryId, note: &PasteNote) -> Result<bool, JournalError> {
        let bytes = serde_json::to_vec(note)?;
        let transaction = self.database.begin_write()?;
        let first = {
            let mut table = transaction.open_table(PASTES)?;
            let id = *id.as_bytes();
            let full = table.len()? >= KEPT;
            let too_old = full && table.first()?.is_some_and(|(oldest, _)| id < oldest.value());
            let first = !too_old && table.get(id)?.is_none();
            if first {
                table.insert(id, bytes.as_slice())?;
                while table.len()? > KEPT {
                    table.pop_first()?;
                }
            }
            first
        };
        transaction.commit()?;
        Ok(first)
    }

    pub fn pastes(&self) -> Result<Vec<PasteNote>, JournalError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(PASTES)?;
        table.iter()?.map(|entry| Ok(serde_json::from_slice(entry?.1.value())?)).collect()
    }
}
