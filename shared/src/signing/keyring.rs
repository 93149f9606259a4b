//! The keys that an agent believes: those that came with its package or at joining, and what statements of succession made of
//! them. Without I/O: the same keys and the same statements give the same list, so that statements are verified again each
//! time they are read from disk.
//!
//! A retired key is never believed again, so an old statement can't bring it back, whoever repeats it. Serials keep the order
//! beside that. The recovery key has a count of its own, and its word begins the ordinary keys' count anew: who stole a key
//! can't end the count with the highest number there is.

use super::{PublicKey, Purpose, RecoveryKey, ReleaseKey, SignedSuccession, Succession, SuccessionError};
use crate::catalog::PublisherKey;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("key {0} was named for two purposes; each purpose has keys of its own")]
    TwoPurposes(String),
}

#[derive(Clone, Debug, Default)]
pub struct Keyring {
    publisher: List,
    release: List,
    recovery: Vec<PublicKey>,
    retired: Vec<PublicKey>,
}

#[derive(Clone, Debug, Default)]
struct List {
    keys: Vec<PublicKey>,
    /// Serial of the last statement, by an ordinary key or, when it came later, by the recovery key.
    serial: u64,
    /// Of the last one by the recovery key.
    recovery_serial: u64,
}

impl Keyring {
    pub fn new(
        publisher: &[PublisherKey],
        release: &[ReleaseKey],
        recovery: &[RecoveryKey],
    ) -> Result<Self, KeyringError> {
        let publisher: Vec<_> = publisher.iter().map(|key| *key.public()).collect();
        let release: Vec<_> = release.iter().map(|key| *key.public()).collect();
        let recovery: Vec<_> = recovery.iter().map(|key| *key.public()).collect();
        let twice = publisher
            .iter()
            .find(|key| release.contains(key) || recovery.contains(key))
            .or_else(|| release.iter().find(|key| recovery.contains(key)));
        if let Some(key) = twice {
            return Err(KeyringError::TwoPurposes(key.name()));
        }
        let list = |keys| List { keys, ..List::default() };
        Ok(Self { publisher: list(publisher), release: list(release), recovery, retired: Vec::new() })
    }

    /// Believes a statement, or says why not and stays as it was.
    pub fn accept(&mut self, signed: &SignedSuccession) -> Result<Succession, SuccessionError> {
        let by_recovery = self.recovery.iter().any(|key| signed.is_signed_by(key));
        let by = |list: &List| list.keys.iter().any(|key| signed.is_signed_by(key));
        if !by_recovery && !by(&self.publisher) && !by(&self.release) {
            return Err(SuccessionError::Signature);
        }
        let said = signed.read()?;
        let (list, other) = match said.purpose {
            Purpose::Publisher => (&self.publisher, &self.release),
            Purpose::Release => (&self.release, &self.publisher),
        };
        // A key that is believed for the other purpose has no word on this one.
        if !by_recovery && !by(list) {
            return Err(SuccessionError::Signature);
        }
        let seen = if by_recovery { list.recovery_serial } else { list.serial };
        if said.serial <= seen {
            return Err(SuccessionError::Older { got: said.serial, seen });
        }
        let elsewhere = |key: &&PublicKey| other.keys.contains(key) || self.recovery.contains(key);
        if let Some(key) = said.adds.iter().chain(&said.retires).find(elsewhere) {
            return Err(SuccessionError::OtherPurpose(key.name()));
        }
        if let Some(key) = said.adds.filter(|key| self.retired.contains(key)) {
            return Err(SuccessionError::Retired(key.name()));
        }
        let mut keys: Vec<_> = list.keys.iter().copied().filter(|key| !said.retires.contains(key)).collect();
        keys.extend(said.adds.filter(|added| !keys.contains(added)));
        if keys.is_empty() {
            return Err(SuccessionError::LeavesNone);
        }
        let recovery_serial = if by_recovery { said.serial } else { list.recovery_serial };
        let changed = List { keys, serial: said.serial, recovery_serial };
        match said.purpose {
            Purpose::Publisher => self.publisher = changed,
            Purpose::Release => self.release = changed,
        }
        for key in &said.retires {
            if !self.retired.contains(key) {
                self.retired.push(*key);
            }
        }
        Ok(said)
    }

    pub fn publishers(&self) -> Vec<PublisherKey> {
        self.publisher.keys.iter().copied().map(PublisherKey::from).collect()
    }

    pub fn releases(&self) -> Vec<ReleaseKey> {
        self.release.keys.iter().copied().map(ReleaseKey::from).collect()
    }

    pub fn is_retired(&self, key: &PublicKey) -> bool {
        self.retired.contains(key)
    }
}
