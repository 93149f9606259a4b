//! The other end of the broker's socket: what `board-agent exec` and `paste` ask with.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Uid;
use zeroize::Zeroizing;

use super::{Answer, LONGEST_REQUEST, Request};
use crate::config::Paths;
use crate::{platform, trust};

/// Longer than the broker's own, which says why.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the agent does not answer at {path}: {error}. Is `board-agent run` running?")]
    NotRunning { path: PathBuf, error: io::Error },
    #[error(
        "{path} is not the agent's: a program of user {uid} listens there. Nothing was sent. Find out which one, and name \
         the agent's own folder with --data"
    )]
    Stranger { path: PathBuf, uid: u32 },
    #[error("the agent's answer can't be understood")]
    Answer,
}

/// Whose answers are believed: root's, and in development those of an agent that the caller runs.
fn is_ours(uid: u32) -> bool {
    uid == trust::ROOT || uid == Uid::effective().as_raw()
}

pub fn ask(paths: &Paths, request: &Request) -> Result<Answer, AskError> {
    ask_if(is_ours, paths, request)
}

fn ask_if(is_ours: impl Fn(u32) -> bool, paths: &Paths, request: &Request) -> Result<Answer, AskError> {
    let path = paths.socket();
    let not_running = |error| AskError::NotRunning { path: path.clone(), error };
    let mut stream = UnixStream::connect(&path).map_err(not_running)?;
    let uid = platform::peer_uid(&stream).map_err(not_running)?;
    if !is_ours(uid) {
        return Err(AskError::Stranger { path: path.clone(), uid });
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(not_running)?;
    // Room from the start for a value: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_REQUEST));
    serde_json::to_writer(&mut *bytes, request).map_err(|_| AskError::Answer)?;
    bytes.push(b'\n');
    match stream.write_all(&bytes) {
        // It said no before it had heard everything.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.map_err(not_running)?,
    }
    let mut line = Zeroizing::new(String::with_capacity(128 * 1024));
    BufReader::new(stream).read_line(&mut line).map_err(not_running)?;
    serde_json::from_str(&line).map_err(|_| AskError::Answer)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nothing_is_sent_to_a_stranger_who_listens() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        let listener = UnixListener::bind(paths.socket()).unwrap();
        let me = Uid::effective().as_raw();
        assert!(is_ours(me) && is_ours(0) && !is_ours(me + 1));

        let refused = ask_if(|uid| uid != me, &paths, &Request::Slots);
        assert!(matches!(refused, Err(AskError::Stranger { uid, .. }) if uid == me));
        let mut heard = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut heard).unwrap();
        assert!(heard.is_empty(), "{heard:?}");

        let asking = std::thread::spawn(move || ask(&paths, &Request::Slots).is_ok());
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "\"slots\"\n");
        (&stream).write_all(b"{\"slots\":[]}\n").unwrap();
        assert!(asking.join().unwrap());
    }
}
