//! What travels between agent and board on the agents' port.
//!
//! Frames tolerate the future: unknown fields are ignored, an unknown kind arrives as `Unknown`, so that the receiver
//! can refuse it by name. Every frame is frozen as a file in `testdata/wire/v1`; a change that breaks one of them
//! breaks agents in the field.

pub mod enroll;
pub mod inventory;
pub mod link;
pub mod plan;
pub mod steps;
pub mod wipe;

/// One frame of the link, and one body of a request, in bytes.
pub const MAX_FRAME: usize = 1024 * 1024;

/// WebSocket subprotocol of the link.
pub const LINK_SUBPROTOCOL: &str = "board.link.v1";

/// Header of a signed request: base64 of the DER-encoded ECDSA signature over the exact body bytes.
pub const SIGNATURE_HEADER: &str = "board-signature";

/// The name in the listener's certificate. Agents know the board by its pinned CA, whatever address they dial.
pub const LISTENER_NAME: &str = "agents.board.internal";
