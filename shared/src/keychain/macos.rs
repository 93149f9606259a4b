//! The System keychain. It is opened from `/var/db/SystemKey` at boot; the data-protection keychain is not for daemons.
//!
//! An item that this program adds names this program in its access control: with a signature its designated
//! requirement, so that a newer build with the same signature still reads it; without one, this very build.

use security_framework::base::Error;
use security_framework::item::{ItemClass, ItemSearchOptions, Limit, Reference, SearchResult};
use security_framework::os::macos::keychain::SecKeychain;

use super::{Item, Keychain, KeychainError};
use crate::secret::Secret;

const PATH: &str = "/Library/Keychains/System.keychain";
/// As [`ItemSearchOptions`] names the account in an item's attributes (`kSecAttrAccount`).
const ACCOUNT: &str = "acct";

pub struct SystemKeychain {
    keychain: SecKeychain,
}

impl SystemKeychain {
    pub fn open() -> Result<Self, KeychainError> {
        // A daemon has nobody to answer a dialog: it is to fail instead. The guard would allow dialogs again when it
        // is dropped, and this holds for the whole process.
        std::mem::forget(SecKeychain::disable_user_interaction().map_err(failed)?);
        let keychain = SecKeychain::open(PATH).map_err(failed)?;
        Ok(Self { keychain })
    }
}

impl Keychain for SystemKeychain {
    fn get(&self, item: &Item) -> Result<Option<Secret<Vec<u8>>>, KeychainError> {
        match self.keychain.find_generic_password(item.service(), item.account()) {
            Ok((value, _)) => Ok(Some(Secret::new(value.to_vec()))),
            Err(error) => absent(error).map(|()| None),
        }
    }

    fn set(&self, item: &Item, value: &Secret<Vec<u8>>) -> Result<(), KeychainError> {
        u32::try_from(value.expose().len()).map_err(|_| KeychainError::TooLong)?;
        // The crate's own "set" takes every failure for "not there".
        match self.keychain.find_generic_password(item.service(), item.account()) {
            Ok((_, mut found)) => found.set_password(value.expose()).map_err(failed),
            Err(error) => {
                absent(error)?;
                self.keychain
                    .add_generic_password(item.service(), item.account(), value.expose())
                    .map_err(failed)
            }
        }
    }

    /// Found without its value: an item that another build made can be taken away, though not read.
    fn delete(&self, item: &Item) -> Result<bool, KeychainError> {
        let found = ItemSearchOptions::new()
            .keychains(std::slice::from_ref(&self.keychain))
            .class(ItemClass::generic_password())
            .service(item.service())
            .account(item.account())
            .load_refs(true)
            .limit(1)
            .search();
        let found = match found {
            Ok(found) => found,
            Err(error) => return absent(error).map(|()| false),
        };
        for result in found {
            if let SearchResult::Ref(Reference::KeychainItem(item)) = result {
                item.delete();
            }
        }
        // `delete` tells of no failure.
        match self.accounts(item.service())?.iter().any(|account| account == item.account()) {
            false => Ok(true),
            true => Err(KeychainError::NotDeleted),
        }
    }

    fn accounts(&self, service: &str) -> Result<Vec<String>, KeychainError> {
        let found = ItemSearchOptions::new()
            .keychains(std::slice::from_ref(&self.keychain))
            .class(ItemClass::generic_password())
            .service(service)
            .load_attributes(true)
            .limit(Limit::All)
            .search();
        let found = match found {
            Ok(found) => found,
            Err(error) => return absent(error).map(|()| Vec::new()),
        };
        let mut accounts: Vec<String> =
            found.iter().filter_map(|result| result.simplify_dict()?.remove(ACCOUNT)).collect();
        accounts.sort();
        Ok(accounts)
    }
}

fn failed(error: Error) -> KeychainError {
    KeychainError::from_status(error.code()).unwrap_or(KeychainError::Other(error.code()))
}

fn absent(error: Error) -> Result<(), KeychainError> {
    KeychainError::from_status(error.code()).map_or(Ok(()), Err)
}
