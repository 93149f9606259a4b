//! The agents' port: TLS 1.3, a client certificate asked for but not insisted on, and one WebSocket per device.
//!
//! The board pushes, the agent reports. Everything pushed is a row first; after any cut both sides compare what they
//! hold and go on.

pub mod api;
mod doors;
mod hello;
mod listener;
mod pastes;
mod reports;
mod session;
mod store;
#[cfg(test)]
mod tests;

pub use listener::{ListenerError, PER_ADDRESS, serve};
