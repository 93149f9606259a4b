//! Removing what the board put on this device. Done again after a kill it comes to the same.

use std::io;

use shared::protocol::wipe::{Wipe, WipedSlot};

use crate::config::Paths;
use crate::journal::WipeBegun;
use crate::vault::{StoreError, Vault};

/// Slots that went, and those that stay.
pub struct Named {
    pub removed: Vec<WipedSlot>,
    pub left: Vec<WipedSlot>,
}

/// What a wipe is to remove and to leave, before it does. A damaged entry serves nobody and may have been ours: it goes.
pub fn plan(vault: &Vault, wipe: &Wipe) -> Result<WipeBegun, StoreError> {
    let slots = vault.slots()?;
    let held = vault.readable()?;
    let is_pasted = |slot: &(String, String)| {
        held.iter().any(|held| (&held.component, &held.slot) == (&slot.0, &slot.1) && held.version.is_none())
    };
    let (removed, left): (Vec<_>, Vec<_>) =
        slots.into_iter().partition(|slot| wipe.pasted || !is_pasted(slot));
    let named = |list: Vec<(String, String)>| {
        let mut list: Vec<_> =
            list.into_iter().map(|(component, slot)| WipedSlot { component, slot }).collect();
        list.sort();
        list
    };
    Ok(WipeBegun { wipe: wipe.clone(), removed: named(removed), left: named(left), receipt: None })
}

pub fn perform(vault: &Vault, paths: &Paths, begun: &WipeBegun) -> Result<(), StoreError> {
    for WipedSlot { component, slot } in &begun.removed {
        vault.remove(component, slot)?;
    }
    Ok(wrappers(paths)?)
}

/// The ways to the secrets.
fn wrappers(paths: &Paths) -> io::Result<()> {
    let entries = match std::fs::read_dir(paths.wrappers()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::ids::{ReportId, WipeId};
    use shared::protocol::link::{Report, ReportBody};
    use shared::random::SystemRandom;
    use shared::secret::Secret;
    use shared::time::{Clock as _, SystemClock};

    use super::*;
    use crate::journal::Journal;
    use crate::vault;

    fn named(component: &str, slot: &str) -> WipedSlot {
        WipedSlot { component: component.into(), slot: slot.into() }
    }

    #[test]
    fn ours_go_and_the_clients_own_stay_unless_they_are_meant_too() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        std::fs::write(paths.wrappers().join("tool"), "x").unwrap();
        let vault = vault::open(&paths, true).unwrap();
        let value = Secret::new(b"canary".to_vec());
        vault.write("tool", "OURS", 3, &value).unwrap();
        vault.write_pasted("slack", "THEIRS", &value).unwrap();
        let mut wipe = Wipe { wipe_id: WipeId::new(&SystemClock, &SystemRandom), pasted: false };
        let begun = plan(&vault, &wipe).unwrap();
        for _ in 0..2 {
            perform(&vault, &paths, &begun).unwrap();
        }
        assert_eq!(
            (begun.removed, begun.left),
            (vec![named("tool", "OURS")], vec![named("slack", "THEIRS")])
        );
        assert_eq!(vault.held().unwrap().len(), 1);
        assert!(!paths.wrappers().join("tool").exists());
        wipe.pasted = true;
        let begun = plan(&vault, &wipe).unwrap();
        perform(&vault, &paths, &begun).unwrap();
        assert_eq!((begun.removed, begun.left), (vec![named("slack", "THEIRS")], Vec::new()));
        assert!(vault.held().unwrap().is_empty());
    }

    #[test]
    fn what_was_to_be_removed_survives_a_kill_and_so_does_the_receipt() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.redb");
        let wipe = Wipe { wipe_id: WipeId::new(&SystemClock, &SystemRandom), pasted: false };
        let begun = WipeBegun { wipe, removed: vec![named("tool", "OURS")], left: Vec::new(), receipt: None };
        let journal = Journal::open(&file).unwrap();
        assert_eq!(journal.wipe().unwrap(), None);
        journal.begin_wipe(&begun).unwrap();
        drop(journal);
        let journal = Journal::open(&file).unwrap();
        assert_eq!(journal.wipe().unwrap(), Some(begun.clone()));
        let id = ReportId::new(&SystemClock, &SystemRandom);
        let receipt = Report { id, at: SystemClock.now(), body: ReportBody::Unknown };
        journal.wiped(&receipt).unwrap();
        drop(journal);
        let journal = Journal::open(&file).unwrap();
        assert_eq!(journal.wipe().unwrap(), Some(WipeBegun { receipt: Some(receipt), ..begun }));
        assert!(journal.is_waiting(id).unwrap());
        journal.acknowledged(&[id]).unwrap();
        assert!(!journal.is_waiting(id).unwrap());
    }
}
