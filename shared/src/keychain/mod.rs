//! Small secrets in the system's keychain, through its API.
//!
//! | Module | What is in it |
//! |---|---|
//! | `macos` | the System keychain of a Mac; compiled there only, one call each |
//! | `memory` | the same in memory, for tests on any system |
//!
//! `security -w` is forbidden here: it shows the value in the list of processes. A system without a keychain is
//! [`KeychainError::Unsupported`], never a success. To add a system: a module that implements [`Keychain`], chosen in
//! [`system`].

#[cfg(target_os = "macos")]
mod macos;
pub mod memory;
mod status;

use std::fmt;

use crate::secret::Secret;

pub use status::KeychainError;

/// The longest service or account, in bytes.
const NAME_MAX: usize = 255;

/// Which item: the program that it belongs to, and its name there. Neither is secret; both are shown by Keychain Access.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    service: String,
    account: String,
}

impl Item {
    /// Printable text only: the API takes lengths, but what shows items to people would stop at a NUL.
    pub fn new(service: &str, account: &str) -> Result<Self, KeychainError> {
        for name in [service, account] {
            if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
                return Err(KeychainError::Name(name.escape_default().to_string()));
            }
        }
        Ok(Self { service: service.to_owned(), account: account.to_owned() })
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    pub fn account(&self) -> &str {
        &self.account
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.account, self.service)
    }
}

/// A place for generic passwords that only the program which made an item can read without asking a person.
pub trait Keychain: Send + Sync {
    fn get(&self, item: &Item) -> Result<Option<Secret<Vec<u8>>>, KeychainError>;
    /// Adds the item, or gives the one that is there another value.
    fn set(&self, item: &Item, value: &Secret<Vec<u8>>) -> Result<(), KeychainError>;
    /// Whether it was there.
    fn delete(&self, item: &Item) -> Result<bool, KeychainError>;
    /// The accounts of a service, sorted. Reads no value.
    fn accounts(&self, service: &str) -> Result<Vec<String>, KeychainError>;
}

/// The keychain that a daemon can use: it is open from boot, without anybody being logged in.
#[cfg(target_os = "macos")]
pub fn system() -> Result<Box<dyn Keychain>, KeychainError> {
    Ok(Box::new(macos::SystemKeychain::open()?))
}

/// The keychain that a daemon can use: it is open from boot, without anybody being logged in.
#[cfg(not(target_os = "macos"))]
pub fn system() -> Result<Box<dyn Keychain>, KeychainError> {
    Err(KeychainError::Unsupported)
}

#[cfg(test)]
mod tests;
