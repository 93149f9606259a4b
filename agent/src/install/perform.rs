//! Carries a plan out. Below a prefix only files are written: nothing of the running system is touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::launchd::EXIT;
use super::plan::{Action, How, Plan};
use crate::config::{ConfigError, Identity, Paths};
use crate::files;
use crate::trust::{self, TrustError};
use crate::vault::{self, StoreError};

/// How long a service may take to start before that counts as a failure.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to stop: as long as the system gives it, and a little more.
const STOPPING: Duration = Duration::from_secs(EXIT as u64 + 10);
const BETWEEN: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("this changes the system and needs root: run it with sudo. `--dry-run` shows what it would do")]
    NotRoot,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{action}: {error}")]
    File { action: String, error: io::Error },
    #[error(
        "{action} failed: {said}. Run the same command again when that is mended; what was done stays and does no harm"
    )]
    Command { action: String, said: String },
    #[error(
        "{action}: it is still so after {} seconds. The agent may be letting a step finish that must not be killed; \
         run the same command again later",
        STOPPING.as_secs()
    )]
    Patience { action: String },
    #[error("the keys and secrets are not removed: {0}")]
    Secrets(#[from] StoreError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What a plan needs of the system beside files.
pub trait System {
    fn is_root(&self) -> bool;
    /// Whether it went well, and what it said if not.
    fn run(&mut self, program: &str, arguments: &[String]) -> io::Result<Result<(), String>>;
    fn forget_secrets(&mut self, paths: &Paths) -> Result<(), InstallError>;
    /// How long is waited for what takes a while, and between two tries.
    fn patience(&self, how: How) -> (Duration, Duration);
}

pub struct RealSystem;

impl System for RealSystem {
    fn is_root(&self) -> bool {
        nix::unistd::Uid::effective().is_root()
    }

    fn run(&mut self, program: &str, arguments: &[String]) -> io::Result<Result<(), String>> {
        // With sudo the caller's environment comes along.
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir("/")
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(Err(if said.is_empty() { output.status.to_string() } else { said }))
    }

    fn forget_secrets(&mut self, paths: &Paths) -> Result<(), InstallError> {
        let dev = match Identity::load(paths) {
            Ok(identity) => identity.dev,
            Err(ConfigError::NotJoined { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        match vault::open(paths, dev) {
            Ok(vault) => Ok(vault.clear()?),
            // Then there is none either that could hold something.
            Err(StoreError::Unsupported) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn patience(&self, how: How) -> (Duration, Duration) {
        match how {
            How::UntilItFails => (STOPPING, BETWEEN),
            How::Must | How::MayFail | How::Retry => (PATIENCE, BETWEEN),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Changed,
    /// It was so already.
    Same,
    /// Only the running system has it, and this goes below a prefix.
    Skipped,
}

pub struct Done {
    pub action: Action,
    pub outcome: Outcome,
}

/// Performs the actions in order and tells of each; the first that fails ends it.
pub fn perform(
    plan: &Plan,
    prefix: Option<&Path>,
    system: &mut dyn System,
    tell: &mut dyn FnMut(&Done),
) -> Result<(), InstallError> {
    if prefix.is_none() && !system.is_root() {
        return Err(InstallError::NotRoot);
    }
    for action in &plan.actions {
        let outcome = one(action, prefix, system)?;
        tell(&Done { action: action.clone(), outcome });
    }
    Ok(())
}

fn one(action: &Action, prefix: Option<&Path>, system: &mut dyn System) -> Result<Outcome, InstallError> {
    let place = |path: &Path| match prefix {
        Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    };
    let file = |result: io::Result<Outcome>| {
        result.map_err(|error| InstallError::File { action: action.to_string(), error })
    };
    match action {
        Action::Trust { .. }
        | Action::TrustData { .. }
        | Action::Run { .. }
        | Action::ForgetSecrets { .. }
            if prefix.is_some() =>
        {
            Ok(Outcome::Skipped)
        }
        Action::Trust { path } => {
            super::check_trust(path)?;
            Ok(Outcome::Same)
        }
        Action::TrustData { path } => {
            trust::check_data(path, trust::ROOT, Path::new("/"))?;
            Ok(Outcome::Same)
        }
        Action::Folder { path, mode } => file(make_folder(&place(path), *mode)),
        Action::Copy { from, to } => {
            file(fs::read(from).and_then(|program| write(&place(to), &program, 0o755)))
        }
        Action::Write { path, content, mode } => file(write(&place(path), content.as_bytes(), *mode)),
        Action::Run { program, arguments, how } => command(action, program, arguments, *how, system),
        Action::Remove { path } => file(gone(fs::remove_file(place(path)))),
        Action::KeepOnly { folder, names } => file(keep_only(&place(folder), names)),
        Action::RemoveEmpty { path } => file(remove_empty(&place(path))),
        Action::RemoveTree { path } => file(gone(fs::remove_dir_all(place(path)))),
        Action::ForgetSecrets { data } => {
            system.forget_secrets(&Paths::new(data.clone()))?;
            Ok(Outcome::Changed)
        }
    }
}

fn command(
    action: &Action,
    program: &str,
    arguments: &[String],
    how: How,
    system: &mut dyn System,
) -> Result<Outcome, InstallError> {
    let (patience, between) = system.patience(how);
    let until = Instant::now() + patience;
    loop {
        let result = system
            .run(program, arguments)
            .map_err(|error| InstallError::File { action: action.to_string(), error })?;
        let said = match (result, how) {
            (Ok(()), How::Must | How::MayFail | How::Retry) => return Ok(Outcome::Changed),
            (Err(_), How::MayFail | How::UntilItFails) => return Ok(Outcome::Same),
            (Err(said), How::Must) => {
                return Err(InstallError::Command { action: action.to_string(), said });
            }
            (Err(said), How::Retry) => Some(said),
            (Ok(()), How::UntilItFails) => None,
        };
        if Instant::now() >= until {
            let action = action.to_string();
            return Err(match said {
                Some(said) => InstallError::Command { action, said },
                None => InstallError::Patience { action },
            });
        }
        thread::sleep(between);
    }
}

fn make_folder(path: &Path, mode: u32) -> io::Result<Outcome> {
    use std::os::unix::fs::PermissionsExt as _;
    let before =
        fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|m| m.permissions().mode() & 0o7777);
    if before == Some(mode) {
        return Ok(Outcome::Same);
    }
    if let Some(above) = path.parent() {
        // What is missing above it is nobody's secret; 0755 whatever the caller's umask is.
        let missing: Vec<PathBuf> =
            above.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        missing.iter().rev().try_for_each(|folder| files::folder(folder, 0o755))?;
    }
    files::folder(path, mode)?;
    Ok(Outcome::Changed)
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<Outcome> {
    use std::os::unix::fs::PermissionsExt as _;
    let same_mode =
        path.symlink_metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o7777 == mode);
    if same_mode && files::read_if_there(path)?.as_deref() == Some(content) {
        return Ok(Outcome::Same);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        make_folder(folder, 0o755)?;
    }
    files::write_atomic(path, content, mode)?;
    Ok(Outcome::Changed)
}

fn gone(removed: io::Result<()>) -> io::Result<Outcome> {
    match removed {
        Ok(()) => Ok(Outcome::Changed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::Same),
        Err(error) => Err(error),
    }
}

fn keep_only(folder: &Path, names: &[String]) -> io::Result<Outcome> {
    let mut outcome = Outcome::Same;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| names.iter().any(|kept| kept == name)) {
            fs::remove_file(entry.path())?;
            outcome = Outcome::Changed;
        }
    }
    Ok(outcome)
}

fn remove_empty(path: &Path) -> io::Result<Outcome> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(Outcome::Same),
        other => gone(other),
    }
}
