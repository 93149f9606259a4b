//! Starts a script through `run-as`, carries its output away, and ends the whole group when it takes too long.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::mask::{Masker, Masks};
use super::output::{Decoder, Sink};
use super::run_as::{ATTEMPT, RunAsError, RunSpec};
use crate::platform::{self, PlatformError};

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long output is awaited from what a script left running behind it.
const LINGER: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(200);
const READ: usize = 16 * 1024;

/// The program whose `run-as` starts scripts: this one.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
}

impl Launcher {
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    pub fn this_program() -> io::Result<Self> {
        std::env::current_exe().map(Self::new)
    }

    pub fn program(&self) -> &std::path::Path {
        &self.program
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    /// The agent stops.
    Stopped,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the script can't be started: {0}")]
    Start(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] PlatformError),
    #[error(transparent)]
    Spec(#[from] RunAsError),
}

/// Runs it to its end. Without a timeout it is let finish, however long that takes.
pub async fn run(
    launcher: &Launcher,
    spec: RunSpec,
    timeout: Option<Duration>,
    masks: &Masks,
    mut sink: Option<&mut dyn Sink>,
    mut stop: Option<watch::Receiver<bool>>,
) -> Result<Ended, RunError> {
    // The mark of its attempt from the first moment: what outlives a killed agent is found by it.
    let mark = spec.attempt().map(|attempt| (ATTEMPT, attempt.to_owned()));
    let words = match spec.session() {
        Some(uid) => platform::in_session(uid, &launcher.program)?,
        None => vec![launcher.program.clone().into_os_string()],
    };
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("nothing to start"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg("run-as")
        .env_clear()
        .envs(mark)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let group = Pid::from_raw(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0));
    let (texts, mut from_script) = mpsc::channel(16);
    let readers = [
        child.stdout.take().map(|out| tokio::spawn(carry(out, masks.masker(), texts.clone()))),
        child.stderr.take().map(|out| tokio::spawn(carry(out, masks.masker(), texts.clone()))),
    ];
    drop(texts);
    send_spec(&mut child, spec).await?;

    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut tick = tokio::time::interval(TICK);
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break Some(status?),
            text = from_script.recv(), if open => match text {
                Some(text) => give(&mut sink, &text).await,
                None => open = false,
            },
            _ = tick.tick() => if let Some(sink) = &mut sink { sink.flush().await },
            () = until(deadline) => break None,
            () = stopped(&mut stop) => break None,
        }
    };
    let ended = match status {
        Some(status) => ended_by(status),
        None => {
            end_group(&mut child, group).await;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                Ended::TimedOut
            } else {
                Ended::Stopped
            }
        }
    };
    let linger = Instant::now() + LINGER;
    while let Ok(Some(text)) = tokio::time::timeout_at(linger, from_script.recv()).await {
        give(&mut sink, &text).await;
    }
    readers.into_iter().flatten().for_each(|reader| reader.abort());
    if let Some(sink) = &mut sink {
        sink.flush().await;
    }
    Ok(ended)
}

/// TERM, 5 s, KILL: to the whole group. What has no group yet is the child alone.
async fn end_group(child: &mut Child, group: Pid) {
    if group.as_raw() <= 0 {
        return;
    }
    if killpg(group, Signal::SIGTERM) == Err(Errno::ESRCH) {
        let _ = kill(group, Signal::SIGKILL);
    }
    let until = Instant::now() + GRACE;
    while Instant::now() < until && group_lives(child, group) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait().await;
}

fn group_lives(child: &mut Child, group: Pid) -> bool {
    // Reaped first: a zombie would count as a member.
    let _ = child.try_wait();
    killpg(group, None).is_ok()
}

async fn send_spec(child: &mut Child, spec: RunSpec) -> Result<(), RunError> {
    let bytes = spec.to_bytes()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(&bytes).await {
            // The child has ended already; its exit code says more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    Ok(())
}

async fn carry(mut from: impl AsyncRead + Unpin, mut masker: Masker, to: mpsc::Sender<String>) {
    let mut buffer = vec![0; READ];
    let mut decoder = Decoder::default();
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let text = if read == 0 {
            let mut text = decoder.push(&masker.finish());
            text.push_str(&decoder.finish());
            text
        } else {
            decoder.push(&masker.push(&buffer[..read]))
        };
        if (!text.is_empty() && to.send(text).await.is_err()) || read == 0 {
            return;
        }
    }
}

async fn give(sink: &mut Option<&mut dyn Sink>, text: &str) {
    if let Some(sink) = sink {
        sink.push(text).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn stopped(stop: &mut Option<watch::Receiver<bool>>) {
    if let Some(stop) = stop
        && stop.wait_for(|stop| *stop).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn ended_by(status: ExitStatus) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, Some(signal)) => Ended::Signalled(signal),
        (None, None) => Ended::Exited(-1),
    }
}
