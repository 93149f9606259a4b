//! What root runs and reads must be root's, from the top of the file system down: whoever can rename a folder above it
//! can put another one in its place. Access control lists are not looked at.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::config::{Paths, Trusted};

pub const ROOT: u32 = 0;
const OTHERS_MAY_WRITE: u32 = 0o022;
/// In such a folder only its owner may take away what somebody put there.
const STICKY: u32 = 0o1000;
/// As many as Linux follows.
const LINKS: usize = 40;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{path} can't be looked at: {error}")]
    Look { path: PathBuf, error: io::Error },
    #[error("{path} belongs to user {uid}, not to root: its owner could exchange {what}")]
    Owner { path: PathBuf, uid: u32, what: Kind },
    #[error("{path} can be written by others than its owner (mode {mode:04o}): they could exchange {what}")]
    Writable { path: PathBuf, mode: u32, what: Kind },
    #[error(
        "{path} is a symbolic link, and the agent's own folders and files are none: somebody else may have put it \
         there. Look at where it leads, then remove it"
    )]
    Link { path: PathBuf },
}

/// What is looked at, and so what a person can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Program,
    /// A folder that the agent keeps its things in, or one of the things.
    Data,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Program => {
                "what root runs. Put the program where only root can write, for instance with `sudo install -d \
                 /opt/board-agent/bin` and `sudo install -m 755 board-agent /opt/board-agent/bin`, and run it from there"
            }
            Self::Data => {
                "what root believes. Name a folder with --data that only root can change, or run this as the user whom \
                 it belongs to; if this is the agent's own folder, find out who changed it before you give it back to \
                 root"
            }
        })
    }
}

/// The path with its links resolved, if it, everything above it up to `top` and every link on the way belongs to `owner`
/// alone.
pub fn check(path: &Path, owner: u32, top: &Path) -> Result<PathBuf, TrustError> {
    let top = top.canonicalize().map_err(|error| TrustError::Look { path: top.to_owned(), error })?;
    walk(path, |part, metadata, _| judge(part, metadata, owner, &top, Kind::Program, false))
}

/// The same for a folder or file that the agent keeps its things in: it may be missing, which is no fault, but not a
/// link. Above it a folder like `/tmp` is good enough: nobody else can take away there what is `owner`'s.
pub fn check_data(path: &Path, owner: u32, top: &Path) -> Result<(), TrustError> {
    let top = top.canonicalize().map_err(|error| TrustError::Look { path: top.to_owned(), error })?;
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(TrustError::Link { path: path.to_owned() });
    }
    let walked = walk(path, |part, metadata, last| judge(part, metadata, owner, &top, Kind::Data, !last));
    match walked {
        Err(TrustError::Look { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Everything of a data folder that an agent which is root believes.
pub fn check_folder(paths: &Paths, owner: u32, top: &Path) -> Result<(), TrustError> {
    [
        paths.data().to_owned(),
        paths.identity(),
        paths.join(),
        paths.scope(),
        paths.undo_allowed(),
        paths.journal(),
        Trusted::Publisher.folder(paths),
        Trusted::Release.folder(paths),
        Trusted::Recovery.folder(paths),
        paths.successions(),
        paths.release(),
        paths.bundles(),
        paths.vault(),
        paths.wrappers(),
        paths.cache(),
        paths.attempts(),
        paths.marks(),
    ]
    .iter()
    .try_for_each(|path| check_data(path, owner, top))
}

fn judge(
    part: &Path,
    metadata: &Metadata,
    owner: u32,
    top: &Path,
    what: Kind,
    sticky_will_do: bool,
) -> Result<(), TrustError> {
    if !part.starts_with(top) {
        return Ok(());
    }
    if metadata.uid() != owner {
        return Err(TrustError::Owner { path: part.to_owned(), uid: metadata.uid(), what });
    }
    let mode = metadata.mode() & 0o7777;
    // A link's own mode means nothing.
    let open = !metadata.is_symlink() && mode & OTHERS_MAY_WRITE != 0;
    if open && !(sticky_will_do && mode & STICKY != 0) {
        return Err(TrustError::Writable { path: part.to_owned(), mode, what });
    }
    Ok(())
}

/// Follows the path from the top of the file system, one name and one link after the other, and looks at each; the last
/// argument of `look` says whether nothing comes behind it.
fn walk(
    path: &Path,
    mut look: impl FnMut(&Path, &Metadata, bool) -> Result<(), TrustError>,
) -> Result<PathBuf, TrustError> {
    let failed = |error, path: &Path| TrustError::Look { path: path.to_owned(), error };
    let path = std::path::absolute(path).map_err(|error| failed(error, path))?;
    let mut real = PathBuf::from("/");
    let metadata = real.symlink_metadata().map_err(|error| failed(error, &real))?;
    let mut rest = names(&path);
    look(&real, &metadata, rest.is_empty())?;
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            real.pop();
            continue;
        }
        let part = real.join(name);
        let metadata = part.symlink_metadata().map_err(|error| failed(error, &part))?;
        look(&part, &metadata, rest.is_empty() && !metadata.is_symlink())?;
        if !metadata.is_symlink() {
            real = part;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(failed(io::Error::other("too many links"), &part));
        }
        let target = part.read_link().map_err(|error| failed(error, &part))?;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        rest.extend(names(&target));
    }
    Ok(real)
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn me() -> u32 {
        nix::unistd::Uid::effective().as_raw()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `top/opt/bin/board-agent`, nothing of it open to others.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("opt/bin");
        fs::create_dir_all(&bin).unwrap();
        let program = bin.join("board-agent");
        fs::write(&program, "").unwrap();
        for path in [folder.path(), &folder.path().join("opt"), &bin, &program] {
            mode(path, 0o755);
        }
        (folder, program)
    }

    #[test]
    fn it_looks_at_the_file_at_every_folder_above_it_and_through_links() {
        let (folder, program) = tree();
        let top = folder.path();
        let bin = top.join("opt/bin");
        let link = top.join("link");
        symlink(&bin, &link).unwrap();
        let through = link.join("board-agent");
        assert_eq!(check(&through, me(), top).unwrap(), program.canonicalize().unwrap());
        assert!(matches!(check(&program, me() + 1, top), Err(TrustError::Owner { .. })));
        for (path, open) in [(program.clone(), 0o775), (bin.clone(), 0o777), (top.join("opt"), 0o1777)] {
            mode(&path, open);
            for way in [&program, &through] {
                let refused = check(way, me(), top);
                assert!(
                    matches!(&refused, Err(TrustError::Writable { path: told, .. }) if told.ends_with(path.strip_prefix(top).unwrap())),
                    "{} with {open:o}: {refused:?}",
                    path.display()
                );
            }
            mode(&path, 0o755);
        }
        assert!(matches!(check(&top.join("none"), me(), top), Err(TrustError::Look { .. })));
    }

    #[test]
    fn a_link_on_the_way_is_looked_at_where_it_lies() {
        let (folder, program) = tree();
        let top = folder.path();
        let theirs = top.join("theirs");
        fs::create_dir(&theirs).unwrap();
        symlink(program.parent().unwrap(), theirs.join("second")).unwrap();
        symlink("theirs/second", top.join("first")).unwrap();
        let way = top.join("first/board-agent");
        mode(&theirs, 0o755);
        check(&way, me(), top).unwrap();
        mode(&theirs, 0o777);
        let refused = check(&way, me(), top);
        assert!(
            matches!(&refused, Err(TrustError::Writable { path, .. }) if path.ends_with("theirs")),
            "{refused:?}"
        );
        symlink("round", top.join("round")).unwrap();
        assert!(matches!(check(&top.join("round"), me(), top), Err(TrustError::Look { .. })));
    }

    #[test]
    fn data_may_lie_in_a_folder_like_tmp_but_not_be_one_nor_a_link_nor_anybody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        let (tmp, data) = (top.join("tmp"), top.join("tmp/data"));
        fs::create_dir(&tmp).unwrap();
        mode(top, 0o755);
        mode(&tmp, 0o1777);
        check_data(&data, me(), top).unwrap();
        fs::create_dir(&data).unwrap();
        mode(&data, 0o711);
        let paths = Paths::new(data.clone());
        paths.create().unwrap();
        fs::write(paths.identity(), "{}").unwrap();
        mode(&paths.identity(), 0o600);
        check_folder(&paths, me(), top).unwrap();

        assert!(matches!(check_folder(&paths, me() + 1, top), Err(TrustError::Owner { .. })));
        for (path, open) in [
            (tmp.clone(), 0o777),
            (data.clone(), 0o1777),
            (paths.identity(), 0o660),
            (paths.bundles(), 0o777),
        ] {
            let before = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            mode(&path, open);
            let refused = check_folder(&paths, me(), top);
            assert!(
                matches!(&refused, Err(TrustError::Writable { path: told, .. }) if *told == path),
                "{}: {refused:?}",
                path.display()
            );
            mode(&path, before);
        }
        for path in [paths.bundles(), paths.identity()] {
            let aside = top.join("aside");
            fs::rename(&path, &aside).unwrap();
            symlink(&aside, &path).unwrap();
            let refused = check_folder(&paths, me(), top);
            assert!(matches!(&refused, Err(TrustError::Link { .. })), "{}: {refused:?}", path.display());
            fs::remove_file(&path).unwrap();
            fs::rename(&aside, &path).unwrap();
        }
        check_folder(&paths, me(), top).unwrap();
    }
}
