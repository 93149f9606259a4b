//! The end of a device's enrollment: the board asks it to remove what the board put there, and the device answers with a
//! signed receipt. Asked again, it gives the same receipt.

use serde::{Deserialize, Serialize};

use crate::crypto::{ByteString, base64};
use crate::ids::{BoardId, DeviceId, WipeId};
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wipe {
    pub wipe_id: WipeId,
    /// Also what the client pasted there, which the board never had.
    #[serde(default)]
    pub pasted: bool,
}

/// `board-agent leave` on the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Also what the client pasted.
    #[serde(default)]
    pub pasted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WipedSlot {
    pub component: String,
    pub slot: String,
}

/// The secrets are gone from the device's store, but for those in `left`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeReceipt {
    pub wipe_id: WipeId,
    pub removed: Vec<WipedSlot>,
    /// What the client pasted and keeps.
    #[serde(default)]
    pub left: Vec<WipedSlot>,
    pub time: Timestamp,
    /// ECDSA P-256 by the device's TLS key over [`WipeReceipt::signed_bytes`], DER.
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

impl WipeReceipt {
    /// What the signature covers: `"board/wiped/v1" ‖ board_id ‖ device_id ‖ wipe_id ‖ removed ‖ left ‖ time`. A list is
    /// its length as u64, then component and slot of each entry.
    pub fn signed_bytes(&self, board_id: BoardId, device_id: DeviceId) -> Vec<u8> {
        let mut bytes = ByteString::labelled("board/wiped/v1")
            .fixed(board_id.as_bytes())
            .fixed(device_id.as_bytes())
            .fixed(self.wipe_id.as_bytes());
        for list in [&self.removed, &self.left] {
            bytes = bytes.u64(list.len() as u64);
            for WipedSlot { component, slot } in list {
                bytes = bytes.part(component.as_bytes()).part(slot.as_bytes());
            }
        }
        bytes.fixed(&self.time.to_be_bytes()).finish()
    }
}
