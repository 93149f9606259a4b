//! A board in this process, and the real agent as a child process.

mod board;
mod device;
mod link;

pub use board::{Board, within};
pub use device::{AGENT, Device, Running};
pub use link::Link;
