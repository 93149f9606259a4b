//! What differs between the operating systems, behind one face. What a system can't do is an error, never a guess.

#[cfg(any(target_os = "macos", test))]
mod apple;
mod awake;
#[cfg(any(target_os = "macos", test))]
mod family;
mod mark;
#[cfg(target_os = "linux")]
#[path = "platform/linux.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "platform/macos.rs"]
mod system;
#[cfg(any(target_os = "macos", test))]
mod tool;

use shared::catalog::{Need, Platform};

use crate::config::ManagedUser;

pub use awake::Awake;
pub use mark::{Mark, bear};

#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("{0} is not supported on this system")]
    Unsupported(&'static str),
    #[error("{what} can't be found out: {error}")]
    Unknown { what: &'static str, error: std::io::Error },
}

/// What the machine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub hardware_uuid: String,
    pub serial: String,
    pub model: String,
    pub os_version: String,
    pub host_name: String,
}

pub fn machine() -> Result<Machine, PlatformError> {
    system::machine()
}

/// The user who listens at the other end.
pub fn peer_uid(stream: &std::os::unix::net::UnixStream) -> std::io::Result<u32> {
    system::peer_uid(stream)
}

/// A text that changes with every boot.
pub fn boot_session() -> Result<String, PlatformError> {
    system::boot_session()
}

/// Gives up this process's groups and user for the named ones, for good.
pub fn become_user(name: &str, uid: u32, gid: u32) -> Result<(), PlatformError> {
    system::become_user(name, uid, gid)
}

/// No core files and no tracing of a process that holds secrets.
pub fn forbid_inspection() -> Result<(), PlatformError> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .map_err(|errno| PlatformError::Unknown { what: "the limit for core files", error: errno.into() })?;
    system::forbid_tracing()
}

/// Descriptors for links, steps and the programs that ask the broker: launchd gives a daemon 256.
const FILES: u64 = 4096;

/// As many as are wanted, or as many as the system allows.
pub fn allow_files() -> Result<(), PlatformError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let allowed = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft.max(FILES.min(hard)), hard));
    allowed.map_err(|errno| PlatformError::Unknown { what: "the limit for open files", error: errno.into() })
}

/// Whether this program is signed by a Developer ID of this team, and unchanged since.
pub fn check_team(program: &std::path::Path, team: &str) -> Result<(), PlatformError> {
    system::check_team(program, team)
}

/// Keeps the machine from sleeping until the answer is dropped.
pub fn stay_awake() -> Result<Awake, PlatformError> {
    system::stay_awake()
}

/// Whether something that a step needs is there at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    Yes,
    /// For a person: what is missing and where to click.
    No(String),
    Unknown(String),
}

pub fn met(need: Need, user: &ManagedUser) -> Met {
    match need {
        Need::Fda => system::full_disk_access(),
        Need::Gui => system::session_of(&user.name, user.uid),
    }
}

/// How `program` is started in the session of a user who is logged in at the screen: the first word is what runs.
pub fn in_session(uid: u32, program: &std::path::Path) -> Result<Vec<std::ffi::OsString>, PlatformError> {
    system::in_session(uid, program)
}

/// The fixed search path of scripts, and the folders of `extra` behind it.
pub fn search_path(platform: Platform, home: &std::path::Path, extra: &[std::path::PathBuf]) -> String {
    let mut path = match platform {
        Platform::Linux => format!(
            "{}/.npm-global/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            home.display()
        ),
        Platform::Macos => {
            "/opt/homebrew/opt/node@24/bin:/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned()
        }
    };
    for folder in extra {
        let folder = folder.display().to_string();
        if !path.split(':').any(|known| known == folder) {
            path.push(':');
            path.push_str(&folder);
        }
    }
    path
}
