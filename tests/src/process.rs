//! Child processes that end with their handle.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A program of this workspace, beside the running one; `cargo demo` and `tests/run` build it first.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build -p control-plane -p agent`"))
}

/// A running child whose standard output is read line by line; standard error goes to a log file.
pub struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{:?} can't be started", command.as_std().get_program()))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.lines.next_line().await?)
    }

    /// The rest of the first line that begins with `start`.
    pub async fn line_after(&mut self, start: &str, within: Duration) -> anyhow::Result<String> {
        let search = async {
            let mut seen = String::new();
            while let Some(line) = self.line().await? {
                if let Some(rest) = line.trim_start().strip_prefix(start) {
                    return Ok(rest.trim().to_owned());
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            bail!("the program ended without a line that begins with {start:?}; it said:\n{seen}")
        };
        tokio::time::timeout(within, search).await.with_context(|| format!("no line {start:?} in time"))?
    }

    pub async fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let drain = async {
            while self.lines.next_line().await?.is_some() {}
            Ok::<_, anyhow::Error>(self.child.wait().await?)
        };
        tokio::time::timeout(within, drain).await.context("the program did not end in time")?
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.id().context("the process has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(id)?), signal)?)
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGABRT, which leaves a core file where one is allowed, and waits until it is gone.
    pub async fn abort(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGABRT)?;
        self.wait(Duration::from_secs(30)).await
    }

    /// SIGTERM, and waits until it ended by itself.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(Duration::from_secs(15)).await
    }

    /// Resident memory in KiB (`VmRSS`, Linux).
    pub fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }
}

/// Runs a command at a terminal of its own, which `script` gives it, and types one answer each time it asks for something
/// that is not shown. Gives its exit code, and all that the screen showed.
pub async fn at_a_terminal(
    command: &[&str],
    environment: &[(&str, &str)],
    typed: &[&str],
    within: Duration,
) -> anyhow::Result<(Option<i32>, String)> {
    let quoted = command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    let line = quoted.collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).envs(environment.iter().copied()).kill_on_drop(true);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut keyboard = child.stdin.take().context("the keyboard is piped")?;
    let mut screen = child.stdout.take().context("the screen is piped")?;
    let mut shown = Vec::new();
    let session = async {
        for answer in typed {
            let asked = shown.len();
            while !(shown.ends_with(b": ") && String::from_utf8_lossy(&shown[asked..]).contains("not shown"))
            {
                shown.push(screen.read_u8().await?);
            }
            keyboard.write_all(answer.as_bytes()).await?;
            keyboard.flush().await?;
        }
        screen.read_to_end(&mut shown).await?;
        Ok::<_, anyhow::Error>(child.wait().await?)
    };
    let ended = tokio::time::timeout(within, session).await;
    let shown = String::from_utf8(shown)?;
    match ended {
        Ok(Ok(status)) => Ok((status.code(), shown)),
        Ok(Err(error)) => Err(error.context(format!("the screen shows {shown:?}"))),
        Err(_) => bail!("no end in time; the screen shows {shown:?}"),
    }
}

/// Runs a command to its end and gives its standard output; a failure carries what it said.
pub async fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.stdin(Stdio::null()).output().await?;
    if !done.status.success() {
        bail!(
            "{:?} ended with {}: {}{}",
            command.as_std().get_program(),
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8(done.stdout)?)
}
