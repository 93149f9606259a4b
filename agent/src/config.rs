//! Where everything lies under the data folder, and the identity that joining left there.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::catalog::{Platform, PublisherKey};
use shared::crypto::base64;
use shared::ids::{BoardId, ClientId, DeviceId, EnrollmentId};
use shared::protocol::link::Scope;
use shared::signing::{BadKey, KeyringError, PublicKey};
use shared::time::Timestamp;

use crate::files;
use crate::tls::{Pin, Pins, TlsError};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} can't be understood: {error}")]
    Content { path: PathBuf, error: serde_json::Error },
    #[error("{path} is not a public key: {error}")]
    PublisherKey { path: PathBuf, error: BadKey },
    #[error(
        "{path} holds a private key, which belongs on no device: name the publisher's public key, the file that ends in \
         .pub. If the file lay where others could read it, make a new key"
    )]
    PrivateKey { path: PathBuf },
    #[error("{0}. Install the package that brings the right keys, or join again with them")]
    Keyring(#[from] KeyringError),
    #[error("this device has not joined a board: {path} is missing. Use `board-agent join` first")]
    NotJoined { path: PathBuf },
    #[error("there is no user {0} on this machine")]
    NoUser(String),
}

/// The data folder. Everything that the agent keeps is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    data: PathBuf,
}

impl Paths {
    pub fn new(data: PathBuf) -> Self {
        Self { data }
    }

    /// An absolute path: wrappers name it, and they are called from anywhere.
    pub fn resolve(data: &Path) -> Result<Self, ConfigError> {
        std::path::absolute(data)
            .map(Self::new)
            .map_err(|error| ConfigError::File { path: data.to_owned(), error })
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn identity(&self) -> PathBuf {
        self.data.join("identity.json")
    }

    /// A join that has not ended yet.
    pub fn join(&self) -> PathBuf {
        self.data.join("join.json")
    }

    pub fn scope(&self) -> PathBuf {
        self.data.join("scope.json")
    }

    pub fn status(&self) -> PathBuf {
        self.data.join("status.json")
    }

    /// What providers said about the secrets here.
    pub fn slot_checks(&self) -> PathBuf {
        self.data.join("slot-checks.json")
    }

    pub fn journal(&self) -> PathBuf {
        self.data.join("journal.redb")
    }

    pub fn socket(&self) -> PathBuf {
        self.data.join("broker.sock")
    }

    /// The word of somebody at the device that a step may be undone.
    pub fn undo_allowed(&self) -> PathBuf {
        self.data.join("undo-allowed.json")
    }

    pub fn publisher_keys(&self) -> PathBuf {
        Trusted::Publisher.folder(self)
    }

    /// Those that the package brought: it replaces them all.
    pub fn packaged_publisher_keys(&self) -> PathBuf {
        Trusted::Publisher.packaged(self)
    }

    /// Statements of succession that were believed, in their order.
    pub fn successions(&self) -> PathBuf {
        self.data.join("successions.json")
    }

    /// A new program that is on trial, and those that failed.
    pub fn release(&self) -> PathBuf {
        self.data.join("release.json")
    }

    pub fn bundles(&self) -> PathBuf {
        self.data.join("bundles")
    }

    pub fn vault(&self) -> PathBuf {
        self.data.join("vault")
    }

    pub fn wrappers(&self) -> PathBuf {
        self.data.join("wrappers")
    }

    pub fn cache(&self) -> PathBuf {
        self.data.join("cache")
    }

    /// One folder for each attempt that needs secrets as files.
    pub fn attempts(&self) -> PathBuf {
        self.data.join("attempts")
    }

    /// An empty file for each attempt that its processes hold open, where they are known by that.
    pub fn marks(&self) -> PathBuf {
        self.data.join("marks")
    }

    /// The managed user's home in development.
    pub fn dev_home(&self) -> PathBuf {
        self.data.join("home")
    }

    pub fn dev_tmp(&self) -> PathBuf {
        self.data.join("tmp")
    }

    /// Makes the folders. The managed user may walk through the data folder, not list it.
    pub fn create(&self) -> Result<(), ConfigError> {
        // Only a folder that we make gets our permissions: `--data /tmp` must not change /tmp.
        files::new_folder(&self.data, 0o711)
            .map_err(|error| ConfigError::File { path: self.data.clone(), error })?;
        let all = [
            (self.bundles(), 0o700),
            (Trusted::Publisher.folder(self), 0o700),
            (Trusted::Release.folder(self), 0o700),
            (Trusted::Recovery.folder(self), 0o700),
            (self.attempts(), 0o711),
            (self.marks(), 0o700),
            (self.wrappers(), 0o755),
            (self.cache(), 0o755),
        ];
        all.into_iter().try_for_each(|(path, mode)| {
            files::folder(&path, mode).map_err(|error| ConfigError::File { path, error })
        })
    }
}

/// Where the data folder is when nobody names one.
pub fn default_data(dev: bool) -> PathBuf {
    if dev {
        return PathBuf::from("./board-agent-data");
    }
    data_of(Platform::current().unwrap_or(Platform::Linux))
}

/// The data folder of the agent that is a service.
pub fn data_of(platform: Platform) -> PathBuf {
    PathBuf::from(match platform {
        Platform::Macos => "/Library/Application Support/Board Agent",
        Platform::Linux => "/var/lib/board-agent",
    })
}

/// The account that the software on this device is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl ManagedUser {
    /// Looks the account up; without a name it is whoever runs this program.
    pub fn find(name: Option<&str>) -> Result<Self, ConfigError> {
        use nix::unistd::{Uid, User};
        let found = match name {
            Some(name) => User::from_name(name),
            None => User::from_uid(Uid::current()),
        };
        let user = found
            .ok()
            .flatten()
            .ok_or_else(|| ConfigError::NoUser(name.unwrap_or("with this process's id").to_owned()))?;
        Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir })
    }
}

/// Who this device is to its board. Nothing in here is secret; the keys are in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub board: String,
    /// SHA-256 of the CA's SPKI, in hex.
    pub pin: String,
    /// The authority that the board goes over to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ca: Option<NextCa>,
    pub board_id: BoardId,
    pub client_id: ClientId,
    pub client_name: String,
    pub enrollment_id: EnrollmentId,
    pub device_id: DeviceId,
    /// DER.
    #[serde(with = "base64")]
    pub certificate: Vec<u8>,
    pub not_after: Timestamp,
    pub managed_user: ManagedUser,
    pub dev: bool,
    /// Given by `--hardware-uuid`; without it the machine is asked each time.
    pub hardware_uuid: Option<String>,
    /// Development only: where `node` was found when joining.
    #[serde(default)]
    pub extra_path: Vec<PathBuf>,
}

/// A certificate authority that the pinned one vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextCa {
    /// DER.
    #[serde(with = "base64")]
    pub certificate: Vec<u8>,
    /// When the proof was made, in seconds since 1970: what is older than that is not taken in its place.
    pub made_at: i64,
}

impl Identity {
    /// Every authority that the board may show.
    pub fn pins(&self) -> Result<Pins, TlsError> {
        let next = self.next_ca.as_ref().and_then(|next| Pin::of(&next.certificate));
        Ok(Pins::new(self.pin.parse()?, next))
    }

    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        let path = paths.identity();
        load_json(&path)?.ok_or(ConfigError::NotJoined { path })
    }

    pub fn save(&self, paths: &Paths) -> Result<(), ConfigError> {
        save_json(&paths.identity(), self)
    }
}

/// The scope that the board told last, for starting without the board.
pub fn load_scope(paths: &Paths) -> Result<Scope, ConfigError> {
    Ok(load_json(&paths.scope())?.unwrap_or_else(no_scope))
}

/// Before the board has told any.
pub fn no_scope() -> Scope {
    Scope { bundle_digest: None, components: Vec::new(), params: [].into(), look_at: Vec::new() }
}

pub fn save_scope(paths: &Paths, scope: &Scope) -> Result<(), ConfigError> {
    save_json(&paths.scope(), scope)
}

/// What the keys of a folder are believed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    Publisher,
    Release,
    /// Its word on the other two.
    Recovery,
}

impl Trusted {
    pub const ALL: [Self; 3] = [Self::Publisher, Self::Release, Self::Recovery];

    pub fn folder(self, paths: &Paths) -> PathBuf {
        paths.data.join(match self {
            Self::Publisher => "publisher-keys",
            Self::Release => "release-keys",
            Self::Recovery => "recovery-keys",
        })
    }

    /// Those that the package brought: it replaces them all.
    pub fn packaged(self, paths: &Paths) -> PathBuf {
        self.folder(paths).join("package")
    }
}

/// A key of this device, and how it came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownKey {
    pub name: String,
    /// With the package, which may withdraw it; the others were given when joining.
    pub packaged: bool,
    /// By a statement that a key before it signed, or the recovery key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub succeeded: bool,
}

/// The publisher keys that are believed: those that came with the package, those that were given when joining, and what
/// statements of succession made of them. A board can't add one.
pub fn load_publisher_keys(paths: &Paths) -> Result<Vec<PublisherKey>, ConfigError> {
    Ok(crate::keyring::load(paths)?.ring.publishers())
}

/// The same, to be shown.
pub fn known_publisher_keys(paths: &Paths) -> Result<Vec<KnownKey>, ConfigError> {
    let believed = load_publisher_keys(paths)?;
    known(paths, Trusted::Publisher, believed.iter().map(|key| *key.public()).collect())
}

/// The keys that releases of the agent are believed by, to be shown.
pub fn known_release_keys(paths: &Paths) -> Result<Vec<KnownKey>, ConfigError> {
    let believed = crate::keyring::load(paths)?.ring.releases();
    known(paths, Trusted::Release, believed.iter().map(|key| *key.public()).collect())
}

fn known(paths: &Paths, what: Trusted, mut believed: Vec<PublicKey>) -> Result<Vec<KnownKey>, ConfigError> {
    let mut known = Vec::new();
    let mut seen = Vec::new();
    for (folder, packaged) in [(what.packaged(paths), true), (what.folder(paths), false)] {
        for key in keys_in(&folder)?.into_iter().filter(|key| believed.contains(key)) {
            known.push(KnownKey { name: key.name(), packaged, succeeded: false });
            seen.push(key);
        }
    }
    believed.retain(|key| !seen.contains(key));
    known.extend(believed.iter().map(|key| KnownKey { name: key.name(), packaged: false, succeeded: true }));
    Ok(known)
}

/// The keys of a kind that lie in files: with the package, then as they were given when joining.
pub fn keys_of(paths: &Paths, what: Trusted) -> Result<Vec<PublicKey>, ConfigError> {
    let mut keys = keys_in(&what.packaged(paths))?;
    for key in keys_in(&what.folder(paths))? {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

fn keys_in(folder: &Path) -> Result<Vec<PublicKey>, ConfigError> {
    let file_error = |error| ConfigError::File { path: folder.to_owned(), error };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file_error)?,
    };
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry.map_err(file_error)?.path();
        if path.extension().is_some_and(|ending| ending == "pem") {
            keys.push(read_public_key(&path)?.1);
        }
    }
    Ok(keys)
}

/// The key of a PEM file, and its text.
pub fn read_public_key(path: &Path) -> Result<(String, PublicKey), ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    if text.contains("PRIVATE KEY") {
        return Err(ConfigError::PrivateKey { path: path.to_owned() });
    }
    let key = PublicKey::from_pem(&text)
        .map_err(|error| ConfigError::PublisherKey { path: path.to_owned(), error })?;
    Ok((text, key))
}

/// The same of a publisher's.
pub fn read_publisher_key(path: &Path) -> Result<(String, PublisherKey), ConfigError> {
    read_public_key(path).map(|(text, key)| (text, key.into()))
}

pub fn add_publisher_key(paths: &Paths, file: &Path) -> Result<(), ConfigError> {
    add_key(paths, Trusted::Publisher, file)
}

pub fn add_key(paths: &Paths, what: Trusted, file: &Path) -> Result<(), ConfigError> {
    let (text, key) = read_public_key(file)?;
    let path = what.folder(paths).join(format!("{}.pem", key.name()));
    files::write_atomic(&path, text.as_bytes(), 0o600).map_err(|error| ConfigError::File { path, error })
}

pub fn load_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConfigError> {
    files::read_if_there(path)
        .map_err(|error| ConfigError::File { path: path.to_owned(), error })?
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|error| ConfigError::Content { path: path.to_owned(), error })
}

pub fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ConfigError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| ConfigError::Content { path: path.to_owned(), error })?;
    files::write_atomic(path, &bytes, 0o600)
        .map_err(|error| ConfigError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_was_there_keeps_its_permissions_and_ours_get_them() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        assert_eq!(mode(folder.path()), 0o1777);
        assert_eq!(mode(&paths.bundles()), 0o700);
        assert_eq!(mode(&paths.wrappers()), 0o755);
        let paths = Paths::new(folder.path().join("data"));
        paths.create().unwrap();
        assert_eq!(mode(paths.data()), 0o711);
    }

    #[test]
    fn a_file_with_a_private_key_is_no_publisher_key_whatever_else_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("data"));
        paths.create().unwrap();
        let (private, public) =
            shared::catalog::generate_publisher_key(&shared::random::SystemRandom).unwrap();
        let file = folder.path().join("publisher.pem");
        std::fs::write(&file, format!("{public}{}", private.expose())).unwrap();
        let refused = add_publisher_key(&paths, &file);
        assert!(matches!(refused, Err(ConfigError::PrivateKey { .. })));
        assert!(load_publisher_keys(&paths).unwrap().is_empty());
        std::fs::write(&file, &public).unwrap();
        add_publisher_key(&paths, &file).unwrap();
        let [known] = known_publisher_keys(&paths).unwrap().try_into().unwrap();
        assert!(!known.packaged);
    }

    #[test]
    fn without_joining_there_is_no_identity() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Identity::load(&Paths::new(folder.path().to_owned()));
        assert!(matches!(refused, Err(ConfigError::NotJoined { .. })));
    }
}
