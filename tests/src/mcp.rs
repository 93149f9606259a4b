//! Speaks to an MCP server on its standard input and output, as Claude Code does.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

pub struct Server {
    child: Child,
    /// The answer to `initialize`.
    pub initialized: Value,
}

impl Server {
    /// Starts a wrapper and sends `initialize`; the server runs until the handle is dropped.
    pub async fn start(wrapper: &Path, arguments: &[&Path], within: Duration) -> anyhow::Result<Self> {
        let mut child = Command::new(wrapper)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", wrapper.display()))?;
        let request = json!({
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": { "name": "board-tests", "version": "1" }
            }
        });
        let mut input = child.stdin.take().context("standard input is piped")?;
        input.write_all(format!("{request}\n").as_bytes()).await?;
        input.flush().await?;
        child.stdin = Some(input);
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let answer =
            tokio::time::timeout(within, lines.next_line()).await.context("the server doesn't answer")??;
        let Some(answer) = answer else {
            let said = child.wait_with_output().await?;
            bail!("the server ended: {}", String::from_utf8_lossy(&said.stderr));
        };
        let answer: Value = serde_json::from_str(&answer)?;
        if answer["result"]["serverInfo"].is_null() {
            bail!("the server answers something else: {answer}");
        }
        Ok(Self { child, initialized: answer["result"].clone() })
    }

    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}
