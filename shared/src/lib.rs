//! What the board and the agent have in common: the words they exchange and the bytes they sign, seal and compare.
//!
//! Nothing here talks to a network, a database or a file; `keychain` and `terminal` alone talk to the system. A type lands here when
//! both programs need it to mean the same; everything else belongs to one of them.

pub mod catalog;
pub mod crypto;
pub mod doctor;
pub mod ids;
pub mod keychain;
pub mod problem;
pub mod protocol;
pub mod random;
pub mod secret;
pub mod signing;
pub mod terminal;
pub mod text_enum;
pub mod time;

#[cfg(feature = "sqlx")]
#[doc(hidden)]
pub use sqlx;

#[cfg(test)]
mod tests;
