use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Gid, Uid};

use super::{Awake, Machine, Mark, Met, PlatformError};

/// The environment can be read by its owner and root.
pub const MARKED_BY_FILE: bool = false;

pub fn machine() -> Result<Machine, PlatformError> {
    let host_name = nix::unistd::gethostname()
        .map_err(|errno| PlatformError::Unknown { what: "the host name", error: errno.into() })?
        .to_string_lossy()
        .into_owned();
    Ok(Machine {
        hardware_uuid: hardware_uuid()?,
        serial: line("/sys/class/dmi/id/product_serial").unwrap_or_default(),
        model: line("/sys/class/dmi/id/product_name").unwrap_or_default(),
        os_version: os_version().unwrap_or_default(),
        host_name,
    })
}

pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(stream, PeerCredentials).map_err(io::Error::from)?.uid())
}

pub fn boot_session() -> Result<String, PlatformError> {
    line("/proc/sys/kernel/random/boot_id")
        .map_err(|error| PlatformError::Unknown { what: "the boot session", error })
}

pub fn become_user(name: &str, uid: u32, gid: u32) -> Result<(), PlatformError> {
    let failed = |error: io::Error| PlatformError::Unknown { what: "how to become the managed user", error };
    let gid = Gid::from_raw(gid);
    let c_name = CString::new(name).map_err(|error| failed(error.into()))?;
    nix::unistd::initgroups(&c_name, gid).map_err(|errno| failed(errno.into()))?;
    nix::unistd::setgid(gid).map_err(|errno| failed(errno.into()))?;
    nix::unistd::setuid(Uid::from_raw(uid)).map_err(|errno| failed(errno.into()))
}

pub fn forbid_tracing() -> Result<(), PlatformError> {
    nix::sys::prctl::set_dumpable(false)
        .map_err(|errno| PlatformError::Unknown { what: "the dumpable flag", error: errno.into() })
}

/// By the mark in their environment: it survives whatever sessions and groups the scripts made.
pub fn processes_of_attempt(mark: &Mark) -> Result<Vec<i32>, PlatformError> {
    let mark = format!("{}={}", crate::steps::run_as::ATTEMPT, mark.attempt());
    let entries = fs::read_dir("/proc")
        .map_err(|error| PlatformError::Unknown { what: "the list of processes", error })?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.split(|b| *b == 0).any(|v| v == mark.as_bytes()))
        })
        .collect())
}

pub fn stay_awake() -> Result<Awake, PlatformError> {
    Err(PlatformError::Unsupported("keeping the machine awake"))
}

pub fn check_team(_program: &Path, _team: &str) -> Result<(), PlatformError> {
    Err(PlatformError::Unsupported("checking who signed a program"))
}

pub fn full_disk_access() -> Met {
    Met::Unknown("Full Disk Access is a permission of macOS".to_owned())
}

pub fn session_of(_user: &str, _uid: u32) -> Met {
    Met::Unknown("the user's graphical session can be found out on macOS only".to_owned())
}

pub fn in_session(_uid: u32, _program: &Path) -> Result<Vec<OsString>, PlatformError> {
    Err(PlatformError::Unsupported("starting a program in a user's graphical session"))
}

/// The firmware's UUID where we may read it, else the installation's own id.
fn hardware_uuid() -> Result<String, PlatformError> {
    if let Ok(uuid) = line("/sys/class/dmi/id/product_uuid") {
        return Ok(uuid.to_lowercase());
    }
    line("/etc/machine-id")
        .or_else(|_| line("/var/lib/dbus/machine-id"))
        .map_err(|error| PlatformError::Unknown { what: "the hardware UUID (use --hardware-uuid)", error })
}

fn os_version() -> io::Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_default())
}

fn line(path: &str) -> io::Result<String> {
    let text = fs::read_to_string(path)?.trim().to_owned();
    if text.is_empty() { Err(io::Error::new(io::ErrorKind::InvalidData, "empty")) } else { Ok(text) }
}
