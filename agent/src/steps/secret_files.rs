//! Secrets as files, for tools that insist: 0600, in a 0700 folder of the attempt, deleted with it.
//!
//! The folder is the agent's own until everything is in it: in a folder of somebody else root would follow whatever they
//! put there. It is given away last and once, and nothing in it is touched again but to delete it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::unistd::Uid;
use shared::crypto::hex;
use shared::random::{self, Random};
use shared::secret::Secret;

use crate::config::{ManagedUser, Paths};

pub struct Folder {
    path: PathBuf,
    user: ManagedUser,
    made: bool,
}

impl Folder {
    /// Nothing is made until something is added. Nobody can guess its name.
    pub fn new(paths: &Paths, user: &ManagedUser, random: &dyn Random) -> Self {
        let name = hex(&random::bytes::<16>(random));
        Self { path: paths.attempts().join(name), user: user.clone(), made: false }
    }

    pub fn add(&mut self, slot: &str, value: &Secret<Vec<u8>>) -> io::Result<PathBuf> {
        if slot.contains(['/', '.']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the key of a slot"));
        }
        if !self.made {
            DirBuilder::new().mode(0o700).create(&self.path)?;
            self.made = true;
        }
        let path = self.path.join(slot);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(value.expose())?;
        self.give(&file)?;
        Ok(path)
    }

    /// Gives it to the user whose script reads it. Nothing can be added after.
    pub fn hand_over(&self) -> io::Result<()> {
        if !self.made {
            return Ok(());
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        self.give(&OpenOptions::new().read(true).custom_flags(flags.bits()).open(&self.path)?)
    }

    fn give(&self, file: &File) -> io::Result<()> {
        if Uid::effective().as_raw() == self.user.uid {
            return Ok(());
        }
        fchown(file, Some(self.user.uid), Some(self.user.gid))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::error!(path = %self.path.display(), %error, "the folder of an attempt's secrets can't be removed");
        }
    }
}

/// Removes what a killed agent left behind. What can't be removed is tried again at the next start: an agent that doesn't
/// start would be worse.
pub fn sweep(paths: &Paths) {
    let folder = paths.attempts();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(path = %folder.display(), %error, "what earlier attempts left can't be looked for");
            }
            return;
        }
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::error!(
                path = %path.display(), %error,
                "the secrets of an earlier attempt can't be removed: remove this folder by hand"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use shared::random::SystemRandom;

    use super::*;

    /// Somebody else where the tests run as root, else whoever runs them.
    fn user() -> ManagedUser {
        let me = ManagedUser::find(None).unwrap();
        if me.uid == 0 { ManagedUser { uid: 4711, gid: 4712, ..me } } else { me }
    }

    fn value() -> Secret<Vec<u8>> {
        Secret::new(b"value".to_vec())
    }

    #[test]
    fn the_folder_is_the_agents_until_everything_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        let user = user();
        let mut secrets = Folder::new(&paths, &user, &SystemRandom);
        let files = ["A", "B"].map(|slot| secrets.add(slot, &value()).unwrap());
        let place = files[0].parent().unwrap();
        let about = |path: &std::path::Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.uid(), metadata.mode() & 0o7777)
        };
        assert_eq!(about(place), (Uid::effective().as_raw(), 0o700), "nobody else can put a link into it");
        secrets.hand_over().unwrap();
        assert_eq!(about(place), (user.uid, 0o700));
        for file in &files {
            assert_eq!(about(file), (user.uid, 0o600));
            assert_eq!(fs::metadata(file).unwrap().gid(), user.gid);
            assert_eq!(fs::read(file).unwrap(), b"value");
        }
        let place = place.to_owned();
        drop(secrets);
        assert!(!place.exists());
    }

    #[test]
    fn what_is_there_already_is_never_written_to() {
        struct Same;
        impl Random for Same {
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(7);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "old").unwrap();
        let mut first = Folder::new(&paths, &user(), &Same);
        let file = first.add("A", &value()).unwrap();
        std::os::unix::fs::symlink(&elsewhere, file.with_file_name("B")).unwrap();
        assert!(first.add("A", &value()).is_err());
        assert!(first.add("B", &value()).is_err());
        assert!(
            Folder::new(&paths, &user(), &Same).add("C", &value()).is_err(),
            "a folder is made, never taken"
        );
        assert_eq!(fs::read(&elsewhere).unwrap(), b"old");
        assert_eq!(fs::metadata(&elsewhere).unwrap().uid(), Uid::effective().as_raw());
    }

    #[test]
    fn what_a_killed_agent_left_is_swept_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        sweep(&paths);
        paths.create().unwrap();
        let left = paths.attempts().join("old");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("TOKEN"), "x").unwrap();
        fs::write(paths.attempts().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(folder.path(), paths.attempts().join("link")).unwrap();
        sweep(&paths);
        assert_eq!(fs::read_dir(paths.attempts()).unwrap().count(), 0);
        assert!(paths.bundles().is_dir(), "a link is removed, not what it leads to");
        fs::remove_dir(paths.attempts()).unwrap();
        fs::write(paths.attempts(), "no folder").unwrap();
        // It says so in the log, and the agent starts.
        sweep(&paths);
    }
}
