//! The secrets that this device holds. Only the daemon (and `join`) opens it; programs ask the broker.
//!
//! A store is a place for named byte strings. To add one, implement [`Store`] and choose it in [`open`]; a store that
//! isn't there yet is an error, never a success.

mod file;
mod keychain;

use std::io;

use rcgen::KeyPair;
use shared::crypto::{SealingKey, hex};
use shared::keychain::KeychainError;
use shared::random::{self, Random};
use shared::secret::Secret;

use crate::config::Paths;

pub use file::FileStore;
pub use keychain::KeychainStore;

const TLS_KEY: &str = "key.tls";
const SEALING_KEY: &str = "key.sealing";
const SLOT_PREFIX: &str = "slot.";
const TRIAL_PREFIX: &str = "trial.";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "there is no store for secrets on this system: it has no System keychain; for development use --dev"
    )]
    Unsupported,
    #[error("{0}")]
    Keychain(#[source] KeychainError),
    #[error("the store of secrets failed: {0}")]
    Io(#[from] io::Error),
    #[error("the store gave back something else than what was written into it")]
    ReadBack,
    #[error("{0} can't be the name of a secret")]
    Name(String),
    #[error("the entry {0} of the store is damaged")]
    Damaged(String),
    #[error("version {held} is held already; version {got} is older")]
    Older { held: u64, got: u64 },
}

impl StoreError {
    /// Whether trying the same again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Io(_) | Self::ReadBack => true,
            Self::Keychain(error) => error.is_passing(),
            Self::Unsupported | Self::Name(_) | Self::Damaged(_) | Self::Older { .. } => false,
        }
    }
}

/// A place for named byte strings that nobody else can read.
pub trait Store: Send + Sync {
    fn get(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError>;
    /// Durable when it returns.
    fn put(&self, name: &str, value: &Secret<Vec<u8>>) -> Result<(), StoreError>;
    fn names(&self) -> Result<Vec<String>, StoreError>;
    /// Good as well when there is none.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// The store of this system: the System keychain, in development a folder of files.
pub fn open(paths: &Paths, dev: bool) -> Result<Vault, StoreError> {
    Ok(Vault::new(if dev {
        Box::new(FileStore::open(paths.vault())?)
    } else {
        Box::new(KeychainStore::system(paths)?)
    }))
}

pub struct Vault {
    store: Box<dyn Store>,
}

/// Both of the device's keys.
pub struct DeviceKeys {
    pub tls: KeyPair,
    pub sealing: SealingKey,
}

/// What is stored in place of a version when a person pasted the value.
const PASTED: u64 = 0;

/// One slot's value.
pub struct Held {
    /// Of a delivered secret; a pasted one has none.
    pub version: Option<u64>,
    pub value: Secret<Vec<u8>>,
}

/// A slot that has a value here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSlot {
    pub component: String,
    pub slot: String,
    pub version: Option<u64>,
}

impl Vault {
    pub fn new(store: Box<dyn Store>) -> Self {
        Self { store }
    }

    /// The keys of this device, if it has both.
    pub fn keys(&self) -> Result<Option<DeviceKeys>, StoreError> {
        let (Some(tls), Some(sealing)) = (self.store.get(TLS_KEY)?, self.store.get(SEALING_KEY)?) else {
            return Ok(None);
        };
        let tls = KeyPair::try_from(tls.expose().as_slice())
            .map_err(|_| StoreError::Damaged(TLS_KEY.to_owned()))?;
        let sealing = Secret::new(
            <[u8; 32]>::try_from(sealing.expose().as_slice())
                .map_err(|_| StoreError::Damaged(SEALING_KEY.to_owned()))?,
        );
        Ok(Some(DeviceKeys { tls, sealing: SealingKey::from_bytes(*sealing.expose()) }))
    }

    pub fn set_keys(&self, keys: &DeviceKeys) -> Result<(), StoreError> {
        self.put(TLS_KEY, &Secret::new(keys.tls.serialize_der()))?;
        self.put(SEALING_KEY, &Secret::new(keys.sealing.to_bytes().expose().to_vec()))
    }

    pub fn read(&self, component: &str, slot: &str) -> Result<Option<Held>, StoreError> {
        let name = entry_name(component, slot)?;
        let Some(entry) = self.store.get(&name)? else { return Ok(None) };
        let (version, value) = entry.expose().split_first_chunk::<8>().ok_or(StoreError::Damaged(name))?;
        let version = Some(u64::from_be_bytes(*version)).filter(|version| *version != PASTED);
        Ok(Some(Held { version, value: Secret::new(value.to_vec()) }))
    }

    /// Writes what a person pasted, and reads it back. It takes the place of what was pasted before.
    pub fn write_pasted(
        &self,
        component: &str,
        slot: &str,
        value: &Secret<Vec<u8>>,
    ) -> Result<(), StoreError> {
        self.write(component, slot, PASTED, value)
    }

    /// Writes and reads back. Never goes back to an older version.
    pub fn write(
        &self,
        component: &str,
        slot: &str,
        version: u64,
        value: &Secret<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let held = self.read(component, slot)?.and_then(|held| held.version);
        if let Some(held) = held.filter(|held| version < *held) {
            return Err(StoreError::Older { held, got: version });
        }
        let mut entry = Vec::with_capacity(8 + value.expose().len());
        entry.extend_from_slice(&version.to_be_bytes());
        entry.extend_from_slice(value.expose());
        self.put(&entry_name(component, slot)?, &Secret::new(entry))
    }

    pub fn held(&self) -> Result<Vec<HeldSlot>, StoreError> {
        let mut held = Vec::new();
        for (component, slot) in self.slots()? {
            if let Some(found) = self.read(&component, &slot)? {
                held.push(HeldSlot { component, slot, version: found.version });
            }
        }
        Ok(held)
    }

    /// Component and slot of every entry.
    pub fn slots(&self) -> Result<Vec<(String, String)>, StoreError> {
        let names = self.store.names()?;
        let slots = names.iter().filter_map(|name| name.strip_prefix(SLOT_PREFIX)?.split_once('.'));
        Ok(slots.map(|(component, slot)| (component.to_owned(), slot.to_owned())).collect())
    }

    /// The same without what can't be read: one damaged entry must not keep the agent from its work. Writing over such an
    /// entry is refused, so that nothing goes back to an older version.
    pub fn readable(&self) -> Result<Vec<HeldSlot>, StoreError> {
        let mut held = Vec::new();
        self.each(|component, slot, found| held.push(HeldSlot { component, slot, version: found.version }))?;
        Ok(held)
    }

    fn each(&self, mut take: impl FnMut(String, String, Held)) -> Result<(), StoreError> {
        for (component, slot) in self.slots()? {
            match self.read(&component, &slot) {
                Ok(Some(found)) => take(component, slot, found),
                Ok(None) => {}
                Err(error) => tracing::error!(component, slot, %error, "a secret can't be read"),
            }
        }
        Ok(())
    }

    /// Every value of every slot that can be read, for masking.
    pub fn values(&self) -> Result<Vec<Secret<Vec<u8>>>, StoreError> {
        let mut values = Vec::new();
        self.each(|_, _, found| values.push(found.value))?;
        Ok(values)
    }

    /// Writes an item, reads it back and deletes it: whether the store works at all.
    pub fn try_out(&self, random: &dyn Random) -> Result<(), StoreError> {
        let name = format!("{TRIAL_PREFIX}{}", hex(&random::bytes::<8>(random)));
        let value = Secret::new(random::bytes::<32>(random).to_vec());
        let written = self.put(&name, &value);
        self.store.remove(&name)?;
        written?;
        match self.store.get(&name)? {
            None => Ok(()),
            Some(_) => Err(StoreError::ReadBack),
        }
    }

    /// Takes away what a trial left that was killed.
    pub fn sweep_trials(&self) -> Result<(), StoreError> {
        let left = self.store.names()?.into_iter().filter(|name| name.starts_with(TRIAL_PREFIX));
        left.into_iter().try_for_each(|name| self.store.remove(&name))
    }

    /// Takes one slot's value away; good as well when there is none.
    pub fn remove(&self, component: &str, slot: &str) -> Result<(), StoreError> {
        self.store.remove(&entry_name(component, slot)?)
    }

    /// Takes the device's keys away: what was sealed to them can't be opened any more.
    pub fn remove_keys(&self) -> Result<(), StoreError> {
        self.store.remove(SEALING_KEY)?;
        self.store.remove(TLS_KEY)
    }

    /// Takes everything away, keys and secrets: they belong to an enrollment that is over.
    pub fn clear(&self) -> Result<(), StoreError> {
        // One that can't be removed keeps none of the others.
        let failed: Vec<_> =
            self.store.names()?.iter().filter_map(|name| self.store.remove(name).err()).collect();
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    fn put(&self, name: &str, value: &Secret<Vec<u8>>) -> Result<(), StoreError> {
        self.store.put(name, value)?;
        match self.store.get(name)? {
            Some(read) if read.expose() == value.expose() => Ok(()),
            Some(_) | None => Err(StoreError::ReadBack),
        }
    }
}

/// Component and slot keys are made of letters, digits and `_` (`design/manifest.md`); anything else could be a path.
fn entry_name(component: &str, slot: &str) -> Result<String, StoreError> {
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= 80 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if plain(component) && plain(slot) {
        Ok(format!("{SLOT_PREFIX}{component}.{slot}"))
    } else {
        Err(StoreError::Name(format!("{component}/{slot}")))
    }
}

#[cfg(test)]
mod tests;
