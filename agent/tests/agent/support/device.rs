//! A device: a data folder, and the real agent in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Board, Outside, within};

pub const AGENT: &str = env!("CARGO_BIN_EXE_board-agent");

/// A data folder, and the agent in it.
pub struct Device {
    pub data: PathBuf,
}

impl Device {
    pub fn new(folder: &Path) -> Self {
        Self { data: folder.join("the agent's data") }
    }

    pub fn join(&self, board: &Board, code: &str) -> Running {
        let mut command = Command::new(AGENT);
        command.args(["join", "--board", &board.address, "--pin", &board.pin, "--code", code, "--dev"]);
        command.args(["--hardware-uuid", "test-hardware", "--publisher-key"]).arg(&board.publisher_key);
        Running::start(command.arg("--data").arg(&self.data))
    }

    pub async fn enroll(&self, board: &Board) {
        let mut joining = self.join(board, "ABCD2345");
        while !joining.line().await.starts_with("Fingerprint: ") {}
        board.approve();
        assert_eq!(joining.end().await, Some(0));
    }

    pub fn run(&self) -> Running {
        Running::start(Command::new(AGENT).args(["run", "--data"]).arg(&self.data))
    }

    /// The same, with its log in a file.
    pub fn run_logging(&self, log: &Path) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        Running::start(Command::new(AGENT).args(["run", "--data"]).arg(&self.data).stderr(log))
    }

    /// The same, with a server of the test in place of the Internet, and everything in its log.
    pub fn run_outside(&self, log: &Path, outside: &Outside) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(AGENT);
        command.args(["run", "--data"]).arg(&self.data).stderr(log);
        command.env("BOARD_AGENT_STAND_IN", outside.address.to_string());
        command.env("BOARD_AGENT_STAND_IN_CA", &outside.ca);
        command.env("BOARD_AGENT_LOG", "trace");
        Running::start(&mut command)
    }

    /// Runs a short command to its end: exit code, stdout, stderr.
    pub async fn call(&self, command: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut call = Command::new(AGENT);
        call.arg(command).arg("--data").arg(&self.data).args(arguments);
        let output = within(call.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// The same, with something to read; without it stdin is empty.
    pub async fn pipe(
        &self,
        command: &str,
        arguments: &[&str],
        stdin: &[u8],
    ) -> (Option<i32>, String, String) {
        let mut call = Command::new(AGENT);
        call.arg(command).arg("--data").arg(&self.data).args(arguments);
        call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = call.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // It may have said no before it read anything.
        let _ = pipe.write_all(stdin).await;
        drop(pipe);
        let output = within(child.wait_with_output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub async fn line(&mut self) -> String {
        within(self.lines.next_line()).await.unwrap().expect("it ended")
    }

    pub async fn end(&mut self) -> Option<i32> {
        within(self.child.wait()).await.unwrap().code()
    }

    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    }
}
