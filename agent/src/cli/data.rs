//! Which data folder a command works with.

use std::path::PathBuf;

use agent::config::{self, Paths};
use agent::trust;
use clap::Args;
use nix::unistd::Uid;

#[derive(Args)]
pub struct Data {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// For development and tests: secrets in files, everything below the data folder, which is ./board-agent-data unless
    /// --data names another
    #[arg(long)]
    pub dev: bool,
}

impl Data {
    /// The folder named, else the system's. The working folder counts only when somebody says so: it may be anybody's.
    pub fn paths(&self) -> anyhow::Result<Paths> {
        let folder = self.data.clone().unwrap_or_else(|| config::default_data(self.dev));
        let paths = Paths::resolve(&folder)?;
        if Uid::effective().is_root() {
            trust::check_folder(&paths, trust::ROOT, "/".as_ref())?;
        }
        Ok(paths)
    }
}
