//! `board-agent install` and `uninstall`: the agent as a service of the system.
//!
//! What is to be done is a [`Plan`], a list of actions that can be shown instead of performed; it is made here for any
//! platform and tested everywhere. [`perform`](perform::perform) carries it out, below a prefix if need be; what isn't a
//! file goes through [`System`].
//!
//! To add a file: an [`Action`] in [`install`], its removal in [`uninstall`], a line in the tests. Both can be run
//! again: the result is the same, and the service is loaded anew.

mod launchd;
mod perform;
mod plan;
mod systemd;

use std::path::{Path, PathBuf};

use shared::catalog::Platform;

use crate::config::{self, ConfigError, Paths, Trusted};
use crate::release::Place;
use crate::trust;

pub use crate::trust::TrustError;
pub use perform::{Done, InstallError, Outcome, RealSystem, System, perform};
pub use plan::{Action, How, Plan};

/// What the service is called by launchd and systemd, and its package by the installer.
pub const LABEL: &str = "board-agent";
/// Where the program lies: root owns it from the top, which isn't so below `/usr/local` on every Mac.
pub const PROGRAM: &str = "/opt/board-agent/bin/board-agent";
const PATHS_D: &str = "/etc/paths.d/board-agent";

/// Where the agent logs when it is a service; on Linux the journal takes its stderr.
pub fn log_folder(platform: Platform) -> Option<PathBuf> {
    match platform {
        Platform::Macos => Some(PathBuf::from("/Library/Logs/Board Agent")),
        Platform::Linux => None,
    }
}

pub struct Install {
    pub platform: Platform,
    /// The program to install: this one.
    pub program: PathBuf,
    /// Keys of publishers whose catalogs are to be believed.
    pub publisher_keys: Vec<PathBuf>,
    /// Keys that releases of the agent are to be believed by.
    pub release_keys: Vec<PathBuf>,
    /// Keys whose word on the others is to be believed.
    pub recovery_keys: Vec<PathBuf>,
}

/// Whether root can run this program without somebody else deciding what it is.
pub fn check_trust(program: &Path) -> Result<(), TrustError> {
    trust::check(program, trust::ROOT, Path::new("/")).map(drop)
}

/// What installing does.
pub fn install(options: &Install) -> Result<Plan, ConfigError> {
    let program = PathBuf::from(PROGRAM);
    let paths = Paths::new(config::data_of(options.platform));
    let mut plan = Plan::default();
    if options.program != program {
        plan.add(Action::Trust { path: options.program.clone() });
    }
    for folder in program.ancestors().skip(1).take(2).collect::<Vec<_>>().into_iter().rev() {
        plan.add(Action::Folder { path: folder.to_owned(), mode: 0o755 });
        plan.add(Action::Trust { path: folder.to_owned() });
    }
    if options.program != program {
        plan.add(Action::Copy { from: options.program.clone(), to: program.clone() });
    }
    plan.add(Action::Trust { path: program });
    own_folder(&mut plan, paths.data().to_owned(), 0o711);
    for (what, files) in [
        (Trusted::Publisher, &options.publisher_keys),
        (Trusted::Release, &options.release_keys),
        (Trusted::Recovery, &options.recovery_keys),
    ] {
        keys(&mut plan, &paths, what, files)?;
    }
    match options.platform {
        Platform::Macos => launchd_service(&mut plan, &paths),
        Platform::Linux => systemd_service(&mut plan, &paths),
    }
    Ok(plan)
}

fn keys(plan: &mut Plan, paths: &Paths, what: Trusted, files: &[PathBuf]) -> Result<(), ConfigError> {
    own_folder(plan, what.folder(paths), 0o700);
    let theirs = what.packaged(paths);
    own_folder(plan, theirs.clone(), 0o700);
    let mut names = Vec::new();
    for file in files {
        let (text, key) = config::read_public_key(file)?;
        let name = format!("{}.pem", key.name());
        plan.add(Action::Write { path: theirs.join(&name), content: text, mode: 0o600 });
        names.push(name);
    }
    // Without any this is an update by hand, which withdraws none.
    if !names.is_empty() {
        plan.add(Action::KeepOnly { folder: theirs, names });
    }
    Ok(())
}

/// One that is there may have been put there by somebody else: it is looked at before its permissions are changed.
fn own_folder(plan: &mut Plan, path: PathBuf, mode: u32) {
    plan.add(Action::TrustData { path: path.clone() });
    plan.add(Action::Folder { path, mode });
}

fn launchd_service(plan: &mut Plan, paths: &Paths) {
    let logs = log_folder(Platform::Macos).unwrap_or_else(|| paths.data().join("logs"));
    let file = launchd::path();
    own_folder(plan, logs.clone(), 0o750);
    plan.add(Action::Write {
        path: PATHS_D.into(),
        content: format!("{}\n", folder_of(PROGRAM)),
        mode: 0o644,
    });
    plan.add(Action::Write {
        path: file.clone(),
        content: launchd::property_list(paths.data(), &logs),
        mode: 0o644,
    });
    plan.run(launchd::LAUNCHCTL, &["bootout", &launchd::target()], How::MayFail);
    // A step that must not be killed may be finishing; a service that is still stopping can't be started.
    plan.run(launchd::LAUNCHCTL, &["print", &launchd::target()], How::UntilItFails);
    plan.run(launchd::LAUNCHCTL, &["enable", &launchd::target()], How::Must);
    plan.run(launchd::LAUNCHCTL, &["bootstrap", "system", &file.display().to_string()], How::Retry);
    plan.run(launchd::LAUNCHCTL, &["print", &launchd::target()], How::Must);
}

fn systemd_service(plan: &mut Plan, paths: &Paths) {
    plan.add(Action::Write { path: systemd::path(), content: systemd::unit(paths.data()), mode: 0o644 });
    plan.run(systemd::SYSTEMCTL, &["daemon-reload"], How::Must);
    plan.run(systemd::SYSTEMCTL, &["enable", systemd::UNIT], How::Must);
    plan.run(systemd::SYSTEMCTL, &["restart", systemd::UNIT], How::Must);
    plan.run(systemd::SYSTEMCTL, &["is-active", systemd::UNIT], How::Retry);
}

/// The file that tells the system about the service.
pub fn service_file(platform: Platform) -> PathBuf {
    match platform {
        Platform::Macos => launchd::path(),
        Platform::Linux => systemd::path(),
    }
}

/// The command that succeeds while the system holds the service up.
pub fn is_running(platform: Platform) -> (&'static str, Vec<String>) {
    match platform {
        Platform::Macos => (launchd::LAUNCHCTL, vec!["print".to_owned(), launchd::target()]),
        Platform::Linux => (systemd::SYSTEMCTL, vec!["is-active".to_owned(), systemd::UNIT.to_owned()]),
    }
}

/// What uninstalling does. With `purge` the device's identity, its keys and its secrets go, too.
pub fn uninstall(platform: Platform, purge: bool) -> Plan {
    let data = config::data_of(platform);
    let mut plan = Plan::default();
    match platform {
        Platform::Macos => {
            plan.run(launchd::LAUNCHCTL, &["bootout", &launchd::target()], How::MayFail);
            plan.run(launchd::LAUNCHCTL, &["print", &launchd::target()], How::UntilItFails);
            plan.add(Action::Remove { path: launchd::path() });
            plan.add(Action::Remove { path: PATHS_D.into() });
        }
        Platform::Linux => {
            plan.run(systemd::SYSTEMCTL, &["disable", "--now", systemd::UNIT], How::MayFail);
            plan.add(Action::Remove { path: systemd::path() });
            plan.run(systemd::SYSTEMCTL, &["daemon-reload"], How::Must);
        }
    }
    if purge {
        // First: the keychain's items are found by what lies in the data folder.
        plan.add(Action::ForgetSecrets { data: data.clone() });
        plan.add(Action::RemoveTree { path: data });
        if let Some(path) = log_folder(platform) {
            plan.add(Action::RemoveTree { path });
        }
    }
    let program = Path::new(PROGRAM);
    plan.add(Action::Remove { path: program.to_owned() });
    let place = Place::at(program.to_owned());
    plan.add(Action::Remove { path: place.previous() });
    plan.add(Action::Remove { path: place.fresh() });
    for folder in program.ancestors().skip(1).take(2) {
        plan.add(Action::RemoveEmpty { path: folder.to_owned() });
    }
    plan
}

/// What uninstalling without `purge` leaves, for a person to know.
pub fn left(platform: Platform) -> Vec<String> {
    let mut left = vec![format!("{} (identity, journal)", config::data_of(platform).display())];
    if platform == Platform::Macos {
        left.push("the items of board-agent in the System keychain (keys, secrets)".to_owned());
    }
    left.extend(log_folder(platform).map(|folder| format!("{} (logs)", folder.display())));
    left
}

fn folder_of(path: &str) -> String {
    Path::new(path).parent().unwrap_or(Path::new("/")).display().to_string()
}

#[cfg(test)]
mod tests;
