//! A device: `board-agent` in a folder of its own, with `--dev`.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::board::Layout;
use crate::consultant::JoinCommand;
use crate::process::{Process, output, program};

pub struct Agent {
    pub data: PathBuf,
    log: PathBuf,
    publisher_key: PathBuf,
    /// Releases of the agent are believed by it; without one none is.
    pub release_key: Option<PathBuf>,
    hardware_uuid: String,
    /// What is logged, instead of what the program logs by itself.
    pub log_filter: Option<&'static str>,
    /// The server on this machine that plays every provider, and the PEM file of its authority.
    pub stand_in: Option<(String, PathBuf)>,
    process: Option<Process>,
}

/// A join that waits for approval.
pub struct Joining {
    pub process: Process,
    pub fingerprint: String,
}

impl Agent {
    /// A device named `name` beside the board; its log is `logs/NAME.log`.
    pub fn new(layout: &Layout, name: &str, hardware_uuid: &str) -> Self {
        Self {
            data: layout.path(name),
            log: layout.log(name),
            publisher_key: layout.publisher_key(),
            release_key: None,
            hardware_uuid: hardware_uuid.to_owned(),
            log_filter: None,
            stand_in: None,
            process: None,
        }
    }

    pub fn join_command(&self, join: &JoinCommand) -> anyhow::Result<Command> {
        let mut command = Command::new(program("board-agent")?);
        command.args(["join", "--dev", "--board", &join.board, "--pin", &join.pin, "--code", &join.code]);
        command.arg("--data").arg(&self.data).arg("--publisher-key").arg(&self.publisher_key);
        if let Some(key) = &self.release_key {
            command.arg("--release-key").arg(key);
        }
        command.args(["--hardware-uuid", &self.hardware_uuid]);
        Ok(command)
    }

    /// Asks to join, up to the fingerprint on the screen.
    pub async fn join(&self, join: &JoinCommand) -> anyhow::Result<Joining> {
        let mut process = Process::spawn(&mut self.join_command(join)?, &self.log)?;
        let fingerprint = process.line_after("Fingerprint:", Duration::from_secs(30)).await?;
        Ok(Joining { process, fingerprint })
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(program("board-agent")?);
        command.arg("run").arg("--data").arg(&self.data);
        if let Some(filter) = self.log_filter {
            command.env("BOARD_AGENT_LOG", filter);
        }
        match &self.stand_in {
            Some((address, authority)) => {
                command.env("BOARD_AGENT_STAND_IN", address).env("BOARD_AGENT_STAND_IN_CA", authority);
            }
            // Nobody listens there: made-up credentials aren't sent to real providers.
            None => {
                command.env("BOARD_AGENT_STAND_IN", "127.0.0.1:1");
            }
        }
        // What it left behind by accident would lie beside its data.
        command.current_dir(self.data.parent().context("the data folder lies in another")?);
        self.process = Some(Process::spawn(&mut command, &self.log)?);
        Ok(())
    }

    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the agent is not running")
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the agent is not running")?.kill().await
    }

    /// SIGABRT; says how it ended.
    pub async fn abort(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.take().context("the agent is not running")?.abort().await
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let ended = self.process.take().context("the agent is not running")?.stop().await?;
        anyhow::ensure!(ended.success(), "the agent ended with {ended}");
        Ok(())
    }

    /// Pastes a client's secret on the device, as a person does with `op read … | board-agent paste SLOT`.
    pub async fn paste(&self, slot: &str, value: &str) -> anyhow::Result<()> {
        let mut command = Command::new(program("board-agent")?);
        command.args(["paste", slot]).arg("--data").arg(&self.data).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("standard input is piped")?;
        input.write_all(format!("{value}\n").as_bytes()).await?;
        drop(input);
        let done = child.wait_with_output().await?;
        anyhow::ensure!(
            done.status.success(),
            "paste ended with {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }

    /// What stands in its way: `board-agent doctor --json`, which fails when something does.
    pub async fn doctor(&self) -> anyhow::Result<Value> {
        let mut command = Command::new(program("board-agent")?);
        let text = output(command.args(["doctor", "--json"]).arg("--data").arg(&self.data)).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What the device finds when it is asked: `board-agent inventory --json`.
    pub async fn inventory(&self) -> anyhow::Result<Value> {
        let mut command = Command::new(program("board-agent")?);
        let text = output(command.args(["inventory", "--json"]).arg("--data").arg(&self.data)).await?;
        Ok(serde_json::from_str(&text)?)
    }

    pub async fn status(&self) -> anyhow::Result<Value> {
        let mut command = Command::new(program("board-agent")?);
        let text = output(command.args(["status", "--json"]).arg("--data").arg(&self.data)).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Says yes to one more undo, as somebody at the device; gives what the command said.
    pub async fn allow_undo(&self, step: &str) -> anyhow::Result<String> {
        let mut command = Command::new(program("board-agent")?);
        output(command.args(["allow-undo", step, "--yes"]).arg("--data").arg(&self.data)).await
    }

    pub fn wrapper(&self, name: &str) -> PathBuf {
        self.data.join("wrappers").join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.data.join("home")
    }

    pub fn log(&self) -> &Path {
        &self.log
    }
}
