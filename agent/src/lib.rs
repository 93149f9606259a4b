//! The agent: what runs on the client's Mac.
//!
//! | Room | What is in it |
//! |---|---|
//! | `config` | where everything lies under the data folder; the saved identity |
//! | `enroll`, `renew` | joining: keys, fingerprint, certificate; and a new certificate in time |
//! | `tls`, `http`, `link` | the ways to the board; all of them pin its CA |
//! | `authority` | which certificate authorities are the board's: the pinned one, and whom it vouches for |
//! | `engine` | what to do about a frame: pure rules, no I/O |
//! | `daemon` | performs what the engine decides |
//! | `journal` | what must survive a kill: reports, attempts, receipts |
//! | `keyring` | the keys that are believed, and their succession |
//! | `bundles` | signed bundles, verified before anything in them is believed |
//! | `release` | this program's successor: verified, put in its place, on trial, and back again |
//! | `steps` | running a script as the managed user; output and masking |
//! | `vault`, `slots`, `broker`, `exec`, `paste`, `wrappers` | secrets, how programs get them, how people enter them |
//! | `wipe`, `leave` | removing what the board put here; `board-agent leave` |
//! | `verify` | asking providers whether a credential works |
//! | `downloads`, `outbound` | files that steps need; requests to anybody but the board |
//! | `inventory` | looking at what is really installed |
//! | `doctor` | what stands in the way of all that |
//! | `status`, `files` | what `board-agent status` shows; files written whole or not at all |
//! | `install`, `logs` | the agent as a service of the system; its log as files |
//! | `trust` | what root runs and reads must be root's |
//! | `platform` | what differs between macOS and Linux |

/// The only place in the program where its version stands.
static PROGRAM: &str = concat!("board-agent/", env!("CARGO_PKG_VERSION"));

/// This program's version: three numbers.
pub fn version() -> &'static str {
    PROGRAM.split_once('/').map_or(PROGRAM, |(_, version)| version)
}

pub mod authority;
pub mod broker;
pub mod bundles;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod downloads;
pub mod engine;
pub mod enroll;
pub mod exec;
pub mod files;
pub mod http;
pub mod install;
pub mod inventory;
pub mod journal;
pub mod keyring;
pub mod leave;
pub mod link;
pub mod logs;
pub mod outbound;
pub mod paste;
pub mod platform;
pub mod release;
pub mod renew;
pub mod slots;
pub mod status;
pub mod steps;
pub mod tls;
pub mod trust;
pub mod undos;
pub mod vault;
pub mod verify;
pub mod wipe;
pub mod wrappers;
