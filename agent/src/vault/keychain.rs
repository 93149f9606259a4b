//! Items of the System keychain. The version stands before the value, inside the item: one write changes both.

use std::path::Path;

use shared::keychain::{self, Item, Keychain, KeychainError};
use shared::secret::Secret;

use super::{Store, StoreError};
use crate::config::{self, Paths};

/// As Keychain Access shows it.
const SERVICE: &str = "board-agent";

pub struct KeychainStore {
    keychain: Box<dyn Keychain>,
    service: String,
}

impl KeychainStore {
    /// In the keychain of this system.
    pub fn system(paths: &Paths) -> Result<Self, StoreError> {
        Ok(Self::new(keychain::system()?, paths))
    }

    pub fn new(keychain: Box<dyn Keychain>, paths: &Paths) -> Self {
        Self { keychain, service: service(paths.data()) }
    }

    fn item(&self, name: &str) -> Result<Item, StoreError> {
        Ok(Item::new(&self.service, name)?)
    }
}

impl Store for KeychainStore {
    fn get(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        Ok(self.keychain.get(&self.item(name)?)?)
    }

    fn put(&self, name: &str, value: &Secret<Vec<u8>>) -> Result<(), StoreError> {
        Ok(self.keychain.set(&self.item(name)?, value)?)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.keychain.accounts(&self.service)?)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.keychain.delete(&self.item(name)?)?;
        Ok(())
    }
}

/// Two agents with two data folders on one Mac must not share their keys.
fn service(data: &Path) -> String {
    if data == config::default_data(false) {
        SERVICE.to_owned()
    } else {
        format!("{SERVICE} in {}", data.display())
    }
}

impl From<KeychainError> for StoreError {
    fn from(error: KeychainError) -> Self {
        match error {
            KeychainError::Unsupported => Self::Unsupported,
            KeychainError::Name(name) => Self::Name(name),
            other @ (KeychainError::TooLong
            | KeychainError::NotRoot(_)
            | KeychainError::OtherProgram(_)
            | KeychainError::Missing(_)
            | KeychainError::NotDeleted
            | KeychainError::Other(_)) => Self::Keychain(other),
        }
    }
}
