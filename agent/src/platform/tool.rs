//! A tool of the system: started without anything of ours, and never waited for longer than a few seconds.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
/// What a program that ended may still have in its pipes.
const REST: Duration = Duration::from_millis(500);

/// What it came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub well: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs it to its end, or kills it after `limit`, which is an error.
pub fn run(program: &str, arguments: &[&str], limit: Duration) -> io::Result<Said> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = read(child.stdout.take());
    let stderr = read(child.stderr.take());
    let until = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until {
            // It may have ended by itself this moment.
            let _ = child.kill();
            let _ = child.wait();
            let error = format!("{program} did not answer within {} seconds", limit.as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        thread::sleep(POLL);
    };
    let text = |from: mpsc::Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&from.recv_timeout(REST).unwrap_or_default()).into_owned()
    };
    Ok(Said { well: status.success(), stdout: text(stdout), stderr: text(stderr) })
}

/// Beside it: a full pipe would stop the program.
fn read(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What came before the failure is what it said.
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> io::Result<Said> {
        run("/bin/sh", &["-c", script], limit)
    }

    #[test]
    fn it_says_how_it_went_and_inherits_nothing() {
        let said = sh("env | grep -c CARGO; echo trouble >&2; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!(said, Said { well: false, stdout: "0\n".to_owned(), stderr: "trouble\n".to_owned() });
        let much =
            sh("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done", Duration::from_secs(20));
        assert_eq!(much.unwrap().stdout.len(), 220_000, "more than a pipe holds");
        assert!(run("/no/such/tool", &[], Duration::from_secs(1)).is_err());
    }

    #[test]
    fn what_hangs_is_ended() {
        let began = Instant::now();
        let error = sh("exec sleep 60", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let left_behind = sh("sleep 60 & echo started", Duration::from_secs(10)).unwrap();
        assert!(left_behind.well, "what it left behind holds the pipe, and nobody up");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
