//! End to end: a real board, real agents, real databases. No network beyond loopback.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod access;
mod authority;
mod backup;
mod browser;
mod hostile;
mod identity;
mod joining;
mod kills;
mod operator;
mod paste;
mod plan;
mod providers;
mod readme;
mod rotation;
mod secrets;
mod stage;
mod state;
mod thread;
