//! The other end of the broker's socket: what `board-agent exec` and `paste` ask with.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Answer, LONGEST_REQUEST, Request};
use crate::config::Paths;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the agent does not answer at {path}: {error}. Is `board-agent run` running?")]
    NotRunning { path: PathBuf, error: io::Error },
    #[error("the agent's answer can't be understood")]
    Answer,
}

pub fn ask(paths: &Paths, request: &Request) -> Result<Answer, AskError> {
    let path = paths.socket();
    let not_running = |error| AskError::NotRunning { path: path.clone(), error };
    let mut stream = UnixStream::connect(&path).map_err(not_running)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(not_running)?;
    // Room from the start for a value: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_REQUEST));
    serde_json::to_writer(&mut *bytes, request).map_err(|_| AskError::Answer)?;
    bytes.push(b'\n');
    stream.write_all(&bytes).map_err(not_running)?;
    let mut line = Zeroizing::new(String::with_capacity(128 * 1024));
    BufReader::new(stream).read_line(&mut line).map_err(not_running)?;
    serde_json::from_str(&line).map_err(|_| AskError::Answer)
}
