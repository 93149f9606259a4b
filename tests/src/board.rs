//! A board: made by `board init` with a publisher key of its own, a signed catalog imported, and served.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::process::{Process, at_a_terminal, output, program};

/// The first user.
pub const EMAIL: &str = "consultant@example.com";

/// The folders of one installation.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn create(root: &Path) -> anyhow::Result<Self> {
        for folder in ["board", "keys", "logs"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root: root.canonicalize()? })
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub fn publisher_key(&self) -> PathBuf {
        self.path("keys/publisher.pem.pub")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(format!("{name}.log"))
    }
}

pub struct Board {
    pub layout: Layout,
    /// PostgreSQL, or the default: `board/board.db`.
    database: Option<String>,
    /// Where agents are told to connect, when something stands between.
    agents_url: Option<String>,
    /// What is logged, instead of what the program logs by itself.
    pub log_filter: Option<&'static str>,
    /// The first user's one-time link, as a path.
    pub welcome: String,
    /// What its commands find in their environment beside ours.
    environment: Vec<(String, String)>,
    process: Option<Process>,
    pub console_url: String,
    pub agents_address: String,
}

impl Board {
    /// Makes a board with the catalog in `catalog`; it isn't served yet.
    pub async fn init(layout: Layout, catalog: &Path, database: Option<String>) -> anyhow::Result<Self> {
        let mut board = Self {
            layout,
            database,
            agents_url: None,
            log_filter: None,
            welcome: String::new(),
            environment: Vec::new(),
            process: None,
            console_url: String::new(),
            agents_address: String::new(),
        };
        let said =
            output(board.command("init")?.args(["--email", EMAIL, "--console-url", ""]).args(board.key()))
                .await?;
        board.welcome = link_in(&said).context("init prints a sign-in link")?;
        board.publish(catalog, 1).await?;
        Ok(board)
    }

    /// Gives its commands more environment: how its root-key providers are reached.
    pub fn reach(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Its address, when it is PostgreSQL.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// It lives in another PostgreSQL database from here.
    pub fn move_to(&mut self, database: String) {
        self.database = Some(database);
    }

    /// `board rekey --to URI`, to be run or killed.
    pub fn rekey(&self, to: &str) -> anyhow::Result<Command> {
        let mut command = self.command("rekey")?;
        command.args(["--to", to]);
        Ok(command)
    }

    /// Makes a one-time link for the first user, as a path.
    pub async fn sign_in_link(&self) -> anyhow::Result<String> {
        let mut command = Command::new(program("board")?);
        command.args(["user", "link", EMAIL, "--console-url", ""]).args(self.place()).args(self.key());
        let said = output(&mut command).await?;
        link_in(&said).context("`board user link` prints a sign-in link")
    }

    /// Signs a catalog folder with this installation's publisher key and imports it.
    pub async fn publish(&self, catalog: &Path, serial: u64) -> anyhow::Result<()> {
        let key = self.layout.path("keys/publisher.pem");
        if !key.exists() {
            output(Command::new(program("board")?).args(["catalog", "keygen"]).arg(&key)).await?;
        }
        let bundle = self.layout.path(&format!("keys/bundle-{serial}.json"));
        let mut sign = Command::new(program("board")?);
        sign.args(["catalog", "sign"]).arg(catalog).arg("--key").arg(&key);
        output(sign.args(["--serial", &serial.to_string()]).arg("--out").arg(&bundle)).await?;
        self.import(&bundle, &self.layout.publisher_key()).await
    }

    /// Imports a bundle under this publisher's public key.
    pub async fn import(&self, bundle: &Path, publisher_key: &Path) -> anyhow::Result<()> {
        let mut import = self.command("catalog")?;
        import.arg("import").arg(bundle).arg("--publisher-key").arg(publisher_key);
        output(&mut import).await?;
        Ok(())
    }

    /// Gives devices a statement of succession.
    pub async fn relay(&self, statement: &Path, signed_by: &Path) -> anyhow::Result<()> {
        let mut relay = self.command("catalog")?;
        relay.arg("relay").arg(statement).arg("--signed-by").arg(signed_by);
        output(&mut relay).await?;
        Ok(())
    }

    /// Names the address that agents are told, instead of the listener's own.
    pub fn announce(&mut self, agents_url: String) {
        self.agents_url = Some(agents_url);
    }

    /// Serves on the given agents' address (`127.0.0.1:0` for a free one).
    pub async fn serve(&mut self, agents: &str) -> anyhow::Result<()> {
        let console =
            self.console_url.strip_prefix("http://").map_or("127.0.0.1:0".to_owned(), ToOwned::to_owned);
        let mut command = self.command("serve")?;
        command.args(["--console", &console, "--agents", agents]).args(self.key());
        if let Some(url) = &self.agents_url {
            command.args(["--agents-url", url]);
        }
        if let Some(filter) = self.log_filter {
            command.env("BOARD_LOG", filter);
        }
        // What it left behind by accident would lie beside its data.
        command.current_dir(&self.layout.root);
        let mut process = Process::spawn(&mut command, &self.layout.log("board"))?;
        let within = Duration::from_secs(30);
        self.console_url = process.line_after("Console:", within).await?;
        self.agents_address = process.line_after("Listening for agents:", within).await?;
        self.process = Some(process);
        Ok(())
    }

    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the board is not served")
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the board is not served")?.kill().await
    }

    /// SIGABRT; says how it ended.
    pub async fn abort(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.take().context("the board is not served")?.abort().await
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let ended = self.process.take().context("the board is not served")?.stop().await?;
        anyhow::ensure!(ended.success(), "the board ended with {ended}");
        Ok(())
    }

    pub async fn verify_audit(&self) -> anyhow::Result<String> {
        let mut command = self.command("audit")?;
        output(command.arg("verify").args(self.place()).arg("--json")).await
    }

    /// Makes an API token on the command line, as an operator does beside the running board.
    pub async fn make_token(&self, name: &str, roles: &str) -> anyhow::Result<String> {
        let mut command = self.bare()?;
        command.args(["token", "create", "--name", name, "--roles", roles, "--days", "1"]);
        let said = output(command.args(self.place()).args(self.key())).await?;
        Ok(said.split_whitespace().next_back().unwrap_or_default().to_owned())
    }

    /// Ends it again.
    pub async fn revoke_token(&self, name: &str) -> anyhow::Result<String> {
        let mut command = Command::new(program("board")?);
        output(command.args(["token", "revoke", name]).args(self.place())).await
    }

    /// A command of the board's beside the running one, with `input` on its standard input.
    pub async fn beside(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(program("board")?);
        let [_, key] = self.key();
        command.args(arguments).args(self.place()).env("BOARD_ROOT_KEY", key).kill_on_drop(true);
        if let Some(filter) = self.log_filter {
            command.env("BOARD_LOG", filter);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut pipe = child.stdin.take().context("standard input is piped")?;
        // It may refuse before it has read all.
        let _ = pipe.write_all(input.as_bytes()).await;
        drop(pipe);
        Ok(child.wait_with_output().await?)
    }

    /// The same at a terminal of its own, where a person types one answer to each question that shows nothing.
    pub async fn at_a_terminal(
        &self,
        arguments: &[&str],
        typed: &[&str],
    ) -> anyhow::Result<(Option<i32>, String)> {
        let (board, place, [_, key]) = (program("board")?, self.place(), self.key());
        let board = board.to_str().context("the program's path is text")?;
        let command = [&[board], arguments, &place.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        at_a_terminal(&command, &[("BOARD_ROOT_KEY", &key)], typed, Duration::from_secs(60)).await
    }

    /// `board NAME`, with where this board lives when the command takes it before its own arguments.
    pub fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = self.bare()?;
        command.arg(name);
        if name != "audit" {
            command.args(self.place());
        }
        Ok(command)
    }

    fn bare(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(program("board")?);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn place(&self) -> Vec<String> {
        let mut place = vec!["--data".to_owned(), self.layout.path("board").display().to_string()];
        if let Some(database) = &self.database {
            place.extend(["--database".to_owned(), database.clone()]);
        }
        place
    }

    fn key(&self) -> [String; 2] {
        ["--root-key".to_owned(), format!("file:{}", self.layout.path("keys/root.key").display())]
    }
}

fn link_in(said: &str) -> Option<String> {
    let link = said.split_whitespace().find(|word| word.contains("/welcome/"))?;
    Some(link.to_owned())
}
