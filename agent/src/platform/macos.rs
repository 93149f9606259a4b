//! macOS. Thin on purpose, for it is compiled here and never run: one call each; what the tools print is understood in
//! `apple` and `family`, which are tested everywhere.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid};

use super::awake::Awake;
use super::tool::{self, Said};
use super::{Machine, Mark, Met, PlatformError, apple, family};

/// Apple's programs hide their environment, from root too.
pub const MARKED_BY_FILE: bool = true;

/// For one of the system's tools: a file system that hangs must not hang the agent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Only a program with Full Disk Access may open it, root or not.
const TCC_DATABASE: &str = "/Library/Application Support/com.apple.TCC/TCC.db";

pub fn machine() -> Result<Machine, PlatformError> {
    let host_name = nix::unistd::gethostname()
        .map_err(|errno| PlatformError::Unknown { what: "the host name", error: errno.into() })?
        .to_string_lossy()
        .into_owned();
    let ioreg = said("the hardware UUID", "/usr/sbin/ioreg", &["-rd1", "-c", "IOPlatformExpertDevice"])?;
    let sw_vers = said("the version of macOS", "/usr/bin/sw_vers", &[])?;
    apple::machine(&ioreg, &sw_vers, host_name).ok_or_else(|| PlatformError::Unknown {
        what: "the hardware UUID",
        error: io::Error::new(io::ErrorKind::InvalidData, "ioreg shows no IOPlatformUUID"),
    })
}

pub fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream).map_err(io::Error::from)?.0.as_raw())
}

pub fn boot_session() -> Result<String, PlatformError> {
    let what = "the boot session";
    let text = said(what, "/usr/sbin/sysctl", &["-n", "kern.bootsessionuuid"])?.trim().to_lowercase();
    if text.is_empty() {
        let error = io::Error::new(io::ErrorKind::InvalidData, "kern.bootsessionuuid is empty");
        return Err(PlatformError::Unknown { what, error });
    }
    Ok(text)
}

pub fn become_user(name: &str, uid: u32, gid: u32) -> Result<(), PlatformError> {
    let failed = |error: io::Error| PlatformError::Unknown { what: "how to become the managed user", error };
    let name = CString::new(name).map_err(|error| failed(error.into()))?;
    let base_group = libc::c_int::try_from(gid).map_err(|error| failed(io::Error::other(error)))?;
    init_groups(&name, base_group).map_err(|errno| failed(errno.into()))?;
    nix::unistd::setgid(Gid::from_raw(gid)).map_err(|errno| failed(errno.into()))?;
    nix::unistd::setuid(Uid::from_raw(uid)).map_err(|errno| failed(errno.into()))
}

#[expect(unsafe_code, reason = "nix has neither setgroups nor initgroups on Apple's systems")]
fn init_groups(name: &CString, base_group: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the name is a string that ends with a NUL and lives through the call.
    Errno::result(unsafe { libc::initgroups(name.as_ptr(), base_group) }).map(drop)
}

pub fn check_team(program: &Path, team: &str) -> Result<(), PlatformError> {
    let what = "who signed the program";
    let failed = |error: io::Error| PlatformError::Unknown { what, error };
    let path = program.to_str().ok_or_else(|| failed(io::Error::other("its path is not text")))?;
    let wanted = apple::developer_id_of(team)
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidInput, "the team's id is malformed")))?;
    let asked = ["--verify", "--strict", "--all-architectures", "-R", &wanted, path];
    let said = tool::run("/usr/bin/codesign", &asked, Duration::from_secs(60)).map_err(failed)?;
    if said.well {
        return Ok(());
    }
    let words: String = said.stderr.trim().chars().take(300).collect();
    Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, words)))
}

#[expect(unsafe_code, reason = "nix has no PT_DENY_ATTACH")]
pub fn forbid_tracing() -> Result<(), PlatformError> {
    // SAFETY: this request looks at none of the other arguments.
    Errno::result(unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) })
        .map(drop)
        .map_err(|errno| PlatformError::Unknown { what: "how to forbid tracing", error: errno.into() })
}

/// `-S2` is the shortest time that lsof itself gives the kernel. Its `-b`, which would never block, can't look for a file
/// by name.
pub fn processes_of_attempt(mark: &Mark) -> Result<Vec<i32>, PlatformError> {
    let Some(file) = mark.file().and_then(|file| file.to_str()) else { return Ok(Vec::new()) };
    let what = "the list of processes";
    let said = output(what, "/usr/sbin/lsof", &["-w", "-S2", "-t", "--", file])?;
    let marked = family::parse_lsof(&said)
        .map_err(|complaint| PlatformError::Unknown { what, error: io::Error::other(complaint) })?;
    if marked.is_empty() {
        return Ok(Vec::new());
    }
    let processes = family::parse_ps(&self::said(what, "/bin/ps", &["-axo", "pid=,ppid=,pgid="])?);
    Ok(family::family(&marked, &processes))
}

/// `-i` no idle sleep, `-s` no sleep on mains power, `-w` not longer than this process lives.
pub fn stay_awake() -> Result<Awake, PlatformError> {
    let pid = std::process::id().to_string();
    Awake::hold(Command::new("/usr/bin/caffeinate").args(["-i", "-s", "-w", &pid]))
        .map_err(|error| PlatformError::Unknown { what: "how to keep this Mac awake", error })
}

pub fn full_disk_access() -> Met {
    match File::open(TCC_DATABASE) {
        Ok(_) => Met::Yes,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Met::No(format!(
            "this step needs Full Disk Access for the agent: System Settings, Privacy & Security, Full Disk Access, +, {}",
            std::env::current_exe().unwrap_or_default().display()
        )),
        Err(error) => Met::Unknown(format!("whether the agent has Full Disk Access: {error}")),
    }
}

pub fn session_of(user: &str, uid: u32) -> Met {
    match output("the user's session", "/bin/launchctl", &["print", &format!("gui/{uid}")]) {
        Ok(said) if said.well => Met::Yes,
        Ok(_) => Met::No(format!(
            "this step needs the session of {user}: log in as {user} at the screen or through Screen Sharing"
        )),
        Err(error) => Met::Unknown(error.to_string()),
    }
}

pub fn in_session(uid: u32, program: &Path) -> Result<Vec<OsString>, PlatformError> {
    Ok(apple::in_session(uid, program))
}

/// What a tool printed, when it went well.
fn said(what: &'static str, program: &str, arguments: &[&str]) -> Result<String, PlatformError> {
    let said = output(what, program, arguments)?;
    if said.well {
        return Ok(said.stdout);
    }
    let error = io::Error::other(format!("{program} failed: {}", said.stderr.trim()));
    Err(PlatformError::Unknown { what, error })
}

fn output(what: &'static str, program: &str, arguments: &[&str]) -> Result<Said, PlatformError> {
    tool::run(program, arguments, PATIENCE).map_err(|error| PlatformError::Unknown { what, error })
}
