//! A board in this process, and the real agent as a child process.

mod board;
mod device;
mod link;
mod outside;

pub use board::{Board, within};
pub use device::{AGENT, Device, Running};
pub use link::Link;
pub use outside::{Asked, Outside, Reply};
