//! The harness: a real board and real agents as processes, and a consultant who uses the console over HTTP. The demo and
//! the end-to-end suites are built from it.
//!
//! Everything listens on loopback with ports that the system chooses, and lives in one folder that the caller names.
//! Processes are ended when their handle is dropped.

pub mod agent;
pub mod board;
pub mod consultant;
pub mod demo;
pub mod mcp;
pub mod process;
pub mod relay;
pub mod rules;
pub mod scan;
