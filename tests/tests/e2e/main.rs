//! End to end: a real board, real agents, real databases. No network beyond loopback.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod access;
mod browser;
mod hostile;
mod identity;
mod joining;
mod kills;
mod offboarding;
mod operator;
mod paste;
mod readme;
mod stage;
mod state;
mod thread;
