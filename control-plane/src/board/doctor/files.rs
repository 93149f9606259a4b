//! What lies on this machine's disk: the data folder, the database's file, and the room beside it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use super::{Finding, Patient};

const FILES: &str = "files";
const DISK: &str = "disk";
const MIB: u128 = 1024 * 1024;
/// Below this the database soon can't be written, and with it the audit log.
const TOO_FULL: u128 = 200 * MIB;
const RATHER_FULL: u128 = 2048 * MIB;
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Nothing of it on PostgreSQL: the server has its own disk.
pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let Some(file) = patient.file().and_then(|file| std::path::absolute(file).ok()) else {
        return Vec::new();
    };
    let Some(folder) = file.ancestors().skip(1).find(|folder| folder.is_dir()) else { return Vec::new() };
    let mut findings = Vec::new();
    if file.exists() {
        findings.push(owned(&file, folder));
    }
    findings.push(disk(folder));
    findings
}

fn owned(file: &Path, folder: &Path) -> Finding {
    for path in [file, folder] {
        if let Some(mode) = others_write(path) {
            return Finding::problem(
                FILES,
                format!("others may write {} (mode {mode:04o})", path.display()),
                format!(
                    "`chmod go-w {}`: whoever can write there can change the board's database.",
                    path.display()
                ),
            );
        }
    }
    let me = Uid::effective();
    match std::fs::metadata(file) {
        Ok(found) if found.uid() != me.as_raw() && !me.is_root() => Finding::warning(
            FILES,
            format!("{} belongs to the user {}, and this is {me}", file.display(), found.uid()),
            "Run the board and its commands as one user, who owns the data folder.",
        ),
        Ok(_) => Finding::ok(FILES, format!("only their owner may write {}", file.display())),
        Err(error) => {
            Finding::problem(FILES, format!("{}: {error}", file.display()), "Run this as the board's user.")
        }
    }
}

/// The mode, when others than the owner may put another file there or write this one.
pub(super) fn others_write(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & OTHERS_WRITE != 0 && mode & STICKY == 0).then_some(mode)
}

fn disk(folder: &Path) -> Finding {
    let free = match statvfs(folder) {
        Ok(found) => u128::from(found.blocks_available()) * u128::from(found.fragment_size()),
        Err(error) => {
            return Finding::warning(
                DISK,
                format!("{}: {error}", folder.display()),
                "Look at the disk by other means.",
            );
        }
    };
    room(free, folder)
}

pub(super) fn room(free: u128, folder: &Path) -> Finding {
    let saw = format!("{} MiB free at {}", free / MIB, folder.display());
    if free < TOO_FULL {
        Finding::problem(DISK, saw, "Make room: a board that can't write its audit log does nothing.")
    } else if free < RATHER_FULL {
        Finding::warning(DISK, saw, "Make room before it is short.")
    } else {
        Finding::ok(DISK, saw)
    }
}
