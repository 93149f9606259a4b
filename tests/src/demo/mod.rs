//! The demo: a board and a device as real processes. By hand, its terminal plays the Mac; `--unattended` plays the
//! consultant too, and ends with a report.

mod by_hand;
mod report;
mod unattended;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::agent::Agent;
use crate::board::{Board, Layout};
use crate::relay::Relay;

pub use by_hand::by_hand;
pub use unattended::unattended;

/// A board and a Mac, with a relay between them that counts bytes.
pub struct Stage {
    pub board: Board,
    pub agent: Agent,
    pub relay: Relay,
}

/// Builds board and agent with the profile that the demo itself was built with.
pub async fn build() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = workspace();
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "-p", "control-plane", "-p", "agent"])
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .await
        .context("cargo can't be started")?;
    if !built.success() {
        bail!("board and agent don't build");
    }
    Ok(())
}

/// An empty folder for the demo: the one that was named, or the next free `target/demo/N`.
pub fn fresh_folder(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let folder = match named {
        Some(folder) => folder,
        None => {
            let base = workspace().join("target/demo");
            (1..10_000)
                .map(|number| base.join(number.to_string()))
                .find(|folder| !folder.exists())
                .context("target/demo is full: remove it")?
        }
    };
    if folder.exists() && std::fs::read_dir(&folder)?.next().is_some() {
        bail!("{} is not empty: the demo wants a fresh folder", folder.display());
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Makes a board with the catalog of this repository and a publisher key of its own, and serves it.
pub async fn set_stage(folder: &Path) -> anyhow::Result<Stage> {
    let layout = Layout::create(folder)?;
    let relay = Relay::start().await?;
    let mut board = Board::init(layout.clone(), &workspace().join("control-plane/catalog"), None).await?;
    board.announce(format!("https://{}", relay.address));
    board.serve("127.0.0.1:0").await?;
    relay.point(&board.agents_address);
    let agent = Agent::new(&layout, "agent", "DEADBEEF-0000-4000-8000-0000000000D1");
    Ok(Stage { board, agent, relay })
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

#[expect(clippy::print_stdout, reason = "the demo's terminal")]
pub(crate) fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}
