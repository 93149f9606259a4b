//! `board-agent run-as`: the child that gives up the agent's rights and becomes the script.
//!
//! The daemon starts it as its own executable and sends one [`RunSpec`] through stdin, secrets included: nothing of it
//! is in argv or in a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::ManagedUser;
use crate::platform::{self, Mark, PlatformError};
use crate::steps::environment::Environment;

/// The variable that says which attempt a process belongs to.
pub const ATTEMPT: &str = "BOARD_ATTEMPT";

/// No Debug: the environment may hold secrets.
#[derive(Serialize, Deserialize)]
pub struct RunSpec {
    user: String,
    uid: u32,
    gid: u32,
    env: Environment,
    cwd: PathBuf,
    script: String,
    /// Held open by everything that this becomes and starts.
    mark: Option<PathBuf>,
    /// It is started in the user's graphical session.
    #[serde(skip)]
    in_session: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RunAsError {
    #[error("the agent's request to run something can't be understood")]
    Spec,
    #[error("only root can become another user")]
    NotRoot,
    #[error(transparent)]
    User(#[from] PlatformError),
    #[error("the script can't be started: {0}")]
    Start(#[from] io::Error),
}

impl RunSpec {
    pub fn for_user(user: &ManagedUser, env: Environment, script: &str) -> Self {
        Self {
            user: user.name.clone(),
            uid: user.uid,
            gid: user.gid,
            env,
            cwd: user.home.clone(),
            script: script.to_owned(),
            mark: None,
            in_session: false,
        }
    }

    pub fn marked(mut self, mark: &Mark) -> Self {
        self.mark = mark.file().map(PathBuf::from);
        self
    }

    /// For scripts that show windows or use the user's own keychain.
    pub fn in_session(mut self) -> Self {
        self.in_session = true;
        self
    }

    /// Whose session it is started in. Who is that user already is in it.
    pub fn session(&self) -> Option<u32> {
        (self.in_session && Uid::effective().as_raw() != self.uid).then_some(self.uid)
    }

    pub fn attempt(&self) -> Option<&str> {
        self.env.expose().get(ATTEMPT).map(String::as_str)
    }

    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, RunAsError> {
        // Room for everything from the start: a growing buffer would leave copies behind.
        let size: usize =
            self.env.expose().iter().map(|(name, value)| name.len() + value.len() * 6 + 8).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(size + self.script.len() * 6 + 1024));
        serde_json::to_writer(&mut *bytes, self).map_err(|_| RunAsError::Spec)?;
        Ok(bytes)
    }
}

/// Reads the spec from stdin and becomes it. Comes back only when that fails.
pub fn become_spec() -> RunAsError {
    match prepare() {
        Ok(mut command) => command.exec().into(),
        Err(error) => error,
    }
}

fn prepare() -> Result<Command, RunAsError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256 * 1024));
    io::stdin().read_to_end(&mut bytes)?;
    let spec: RunSpec = serde_json::from_slice(&bytes).map_err(|_| RunAsError::Spec)?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
    // A session of its own: the whole group can be ended, and it has no terminal to ask anything on.
    nix::unistd::setsid().map_err(io::Error::from)?;
    if let Some(mark) = &spec.mark {
        platform::bear(mark)?;
    }
    if Uid::effective().as_raw() != spec.uid {
        if !Uid::effective().is_root() {
            return Err(RunAsError::NotRoot);
        }
        platform::become_user(&spec.user, spec.uid, spec.gid)?;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-eu", "-c", &spec.script]).env_clear().envs(spec.env.expose()).current_dir(&spec.cwd);
    Ok(command)
}
