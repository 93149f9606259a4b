//! The environment that every script and every probe of ours has: fixed, nothing inherited.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use shared::catalog::Platform;
use zeroize::Zeroize as _;

use crate::config::{Identity, ManagedUser, Paths};
use crate::platform;

/// An environment that may hold secrets: wiped when it is dropped. No Debug.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    pub fn insert(&mut self, name: String, value: String) {
        if let Some(mut old) = self.0.insert(name, value) {
            old.zeroize();
        }
    }

    /// The variables themselves. Every call is a place to look at in a review.
    pub fn expose(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl From<BTreeMap<String, String>> for Environment {
    fn from(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.0.values_mut().for_each(|value| value.zeroize());
    }
}

/// Without secrets and parameters: those belong to one step.
pub fn base(identity: &Identity, paths: &Paths) -> BTreeMap<String, String> {
    let mut environment = of_user(identity, paths);
    environment.insert("BOARD_WRAPPERS".to_owned(), text(&paths.wrappers()));
    environment.insert("BOARD_CACHE".to_owned(), text(&paths.cache()));
    environment
}

/// Root runs nothing from a folder that others can write to.
pub fn of_root(paths: &Paths) -> BTreeMap<String, String> {
    let root = root();
    BTreeMap::from(
        [
            ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin".to_owned()),
            ("HOME", text(&root.home)),
            ("USER", root.name.clone()),
            ("LOGNAME", root.name.clone()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TMPDIR", "/tmp".to_owned()),
            ("BOARD_WRAPPERS", text(&paths.wrappers())),
            ("BOARD_CACHE", text(&paths.cache())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

pub fn root() -> ManagedUser {
    let home = match Platform::current() {
        Some(Platform::Macos) => "/var/root",
        Some(Platform::Linux) | None => "/root",
    };
    ManagedUser { name: "root".to_owned(), uid: 0, gid: 0, home: home.into() }
}

/// What programs of the managed user need to find each other; `exec` sets it, too.
pub fn of_user(identity: &Identity, paths: &Paths) -> BTreeMap<String, String> {
    let user = &identity.managed_user;
    let platform = Platform::current().unwrap_or(Platform::Linux);
    let mut environment = BTreeMap::from(
        [
            ("PATH", platform::search_path(platform, &user.home, &identity.extra_path)),
            ("HOME", text(&user.home)),
            ("USER", user.name.clone()),
            ("LOGNAME", user.name.clone()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TMPDIR", if identity.dev { text(&paths.dev_tmp()) } else { "/tmp".to_owned() }),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if identity.dev {
        let npm = [
            ("NPM_CONFIG_PREFIX", text(&user.home.join(".npm-global"))),
            ("NPM_CONFIG_CACHE", text(&user.home.join(".npm"))),
            ("NPM_CONFIG_USERCONFIG", text(&user.home.join(".npmrc"))),
            ("NPM_CONFIG_UPDATE_NOTIFIER", "false".to_owned()),
            ("NPM_CONFIG_FUND", "false".to_owned()),
        ];
        environment.extend(npm.map(|(name, value)| (name.to_owned(), value)));
        if let Some(file) = npm_settings_of_the_machine(identity) {
            environment.insert("NPM_CONFIG_GLOBALCONFIG".to_owned(), text(&file));
        }
    }
    environment
}

/// npm looks for the machine's settings below its prefix. Ours is another prefix; a registry or an authority that this
/// machine's npm needs must keep applying.
fn npm_settings_of_the_machine(identity: &Identity) -> Option<PathBuf> {
    identity
        .extra_path
        .iter()
        .filter_map(|folder| folder.parent())
        .map(|prefix| prefix.join("etc/npmrc"))
        .find(|file| file.is_file())
}

/// In development the managed user's home is ours to make. What is there already is left as it is: in a home root would
/// follow its owner's links.
pub fn make_dev_home(identity: &Identity, paths: &Paths) -> io::Result<()> {
    if !identity.dev {
        return Ok(());
    }
    let (home, user) = (&identity.managed_user.home, &identity.managed_user);
    // npm refuses a prefix whose `lib` is missing.
    for folder in [home.clone(), home.join(".npm-global"), home.join(".npm-global/lib"), paths.dev_tmp()] {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Ok(()) if Uid::effective().as_raw() == user.uid => {}
            Ok(()) => lchown(&folder, Some(user.uid), Some(user.gid))?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
