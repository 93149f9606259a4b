//! Which version of a client's secrets is where: what the board stores, what is on its way, what each device holds.

use shared::ids::{ClientId, DeviceId, SlotId};
use shared::protocol::link::HeldSecret;
use shared::time::Timestamp;

use super::{DeliveryState, store};
use crate::db::Tx;

/// A device that says it holds a version this far above the board's own isn't believed: the next version has to be above
/// what devices hold, and after a restore they are ahead by what was stored since the backup. It is relative to the board's,
/// so that a device that lies can't push the next version to where honest ones aren't believed any more.
const MOST_AHEAD: i64 = 1 << 20;

/// The newest delivery of a slot to a device, and what the device holds meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Spread {
    pub device_id: DeviceId,
    pub slot_id: SlotId,
    pub version: i64,
    pub state: DeliveryState,
    /// Why the device refused it.
    pub reason: Option<String>,
    /// The version that the device said it holds.
    pub held: Option<i64>,
}

impl Spread {
    /// Whether the device is done with it.
    pub fn arrived(&self) -> bool {
        self.state == DeliveryState::Receipted
    }

    /// The older version that the device goes on with.
    pub fn in_place(&self) -> Option<i64> {
        self.held.filter(|held| *held < self.version)
    }

    /// A version that this board never stored: it was restored from a backup that is older than the device.
    pub fn ahead(&self) -> Option<i64> {
        self.held.filter(|held| *held > self.version)
    }
}

/// Of each slot and device of a client.
pub async fn spread(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Spread>, sqlx::Error> {
    store::spread(tx, client_id).await
}

/// Keeps what a device says at hello that it holds, and nothing else of it.
pub async fn note_held(
    tx: &mut Tx,
    device_id: DeviceId,
    held: &[HeldSecret],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let known = store::held(tx, device_id).await?;
    let mut said = Vec::new();
    for (slot_id, component, slot, own) in store::our_slots(tx, device_id).await? {
        let version = held
            .iter()
            .filter(|secret| secret.component == component && secret.slot == slot)
            .filter_map(|secret| i64::try_from(secret.version).ok())
            .filter(|version| (1..=own.saturating_add(MOST_AHEAD)).contains(version))
            .max();
        said.extend(version.map(|version| (slot_id, version)));
    }
    for (slot_id, _) in known.iter().filter(|(slot_id, _)| !said.iter().any(|(said, _)| said == slot_id)) {
        store::forget_held(tx, device_id, *slot_id).await?;
    }
    for (slot_id, version) in said.into_iter().filter(|said| !known.contains(said)) {
        store::set_held(tx, device_id, slot_id, version, now).await?;
    }
    Ok(())
}
