//! End to end: a real board, real agents, real databases. No network beyond loopback.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod access;
mod authority;
mod backup;
mod browser;
mod canary;
mod commands;
mod device;
mod entries;
mod hostile;
mod identity;
mod joining;
mod kills;
mod offboarding;
mod operator;
mod paste;
mod plan;
mod providers;
mod readme;
mod release;
mod rotation;
mod secrets;
mod stage;
mod state;
mod thread;
mod undo;
