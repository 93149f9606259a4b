//! A keychain in memory: what stands on [`Keychain`] is tested with it where there is no Mac.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Item, Keychain, KeychainError};
use crate::secret::Secret;

/// Clones are the same keychain.
#[derive(Clone, Default)]
pub struct MemoryKeychain {
    items: Arc<Mutex<BTreeMap<Item, Secret<Vec<u8>>>>>,
}

impl MemoryKeychain {
    fn items(&self) -> MutexGuard<'_, BTreeMap<Item, Secret<Vec<u8>>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keychain for MemoryKeychain {
    fn get(&self, item: &Item) -> Result<Option<Secret<Vec<u8>>>, KeychainError> {
        Ok(self.items().get(item).cloned())
    }

    fn set(&self, item: &Item, value: &Secret<Vec<u8>>) -> Result<(), KeychainError> {
        self.items().insert(item.clone(), value.clone());
        Ok(())
    }

    fn delete(&self, item: &Item) -> Result<bool, KeychainError> {
        Ok(self.items().remove(item).is_some())
    }

    fn accounts(&self, service: &str) -> Result<Vec<String>, KeychainError> {
        let items = self.items();
        Ok(items
            .keys()
            .filter(|item| item.service() == service)
            .map(|item| item.account().to_owned())
            .collect())
    }
}
