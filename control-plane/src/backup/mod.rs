//! Backups of the whole database, made while the board runs, and putting one back (`design/security.md` sections 4, 10
//! and 11). A backup is two files: the copy, and beside it a manifest that says what it is. Neither holds the root key.

mod contents;
mod postgres;
mod restore;
mod store;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::crypto::hex;
use shared::ids::BoardId;
use shared::time::{Clock, Timestamp};

use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::{ConnectError, Db, Tx, copying};
use crate::error::Failure;
use crate::keys::{self, KeyError, Outside, RootKey, Source};
use contents::Contents;
pub use postgres::Missing;
pub use restore::{Place, Restored, restore};

const FORMAT: &str = "board-backup/v1";

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0} is there already, and a backup overwrites nothing: name another file")]
    Exists(PathBuf),
    #[error("{path} can't be used: {error}. No backup was made there")]
    File { path: PathBuf, error: io::Error },
    #[error(
        "the root key's file {key} lies in the folder that the backup would go to: who takes the folder has both. Name another folder; nothing was written"
    )]
    Together { key: PathBuf },
    #[error("this database holds no board yet, so there is nothing to back up: run `board init`")]
    NoBoard,
    #[error("{0} is no manifest of a backup: it has to lie beside the backup, as `board backup` wrote it")]
    Manifest(PathBuf),
    #[error(
        "{file} is not what its manifest says: {what}. It was cut, changed, or mixed with another. Take another backup"
    )]
    Differs { file: PathBuf, what: &'static str },
    #[error(
        "the audit chain in {file} is broken at entry {seq}: {why}. The backup was changed, or it was made of a database that was"
    )]
    Chain { file: PathBuf, seq: u64, why: &'static str },
    #[error(
        "the backup was made by a newer board (migration {0} is not known to this one): restore it with that board"
    )]
    Newer(i64),
    #[error("the root key doesn't open this backup. It was made with {expected}. {error}")]
    RootKey { expected: String, error: Box<KeyError> },
    #[error("{0}")]
    Missing(#[from] Missing),
    #[error("{program} failed: {said}")]
    Program { program: &'static str, said: String },
    #[error(
        "this backup is of {made}, and --database is {wanted}: restore it into the kind of database that it was made of"
    )]
    OtherKind { made: Kind, wanted: Kind },
    #[error(
        "there is a database at {0} already: with --replace it is moved aside (never deleted); nothing was changed"
    )]
    Occupied(String),
    #[error("another program has {0} open, a running board perhaps: stop it first; nothing was changed")]
    InUse(String),
    #[error("a purge that is due can't be done: {0}")]
    Purge(String),
    #[error("{error}. What was there before lies in {aside}")]
    Halfway { aside: String, error: Box<Self> },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<Failure> for BackupError {
    fn from(failure: Failure) -> Self {
        Self::Purge(match failure.internal {
            Some(internal) => format!("{} ({internal:#})", failure.public.detail),
            None => failure.public.detail,
        })
    }
}

/// Which database a backup is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

impl Kind {
    fn of_url(url: &str) -> Self {
        if url.starts_with("sqlite:") { Self::Sqlite } else { Self::Postgres }
    }

    fn of(db: &Db) -> Self {
        match db {
            Db::Sqlite(_) => Self::Sqlite,
            Db::Postgres(_) => Self::Postgres,
        }
    }
}

/// What lies beside a backup. Everything but the digest and the time is read from the copy itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub database: Kind,
    pub board_id: BoardId,
    /// Number of the newest migration.
    pub schema_version: i64,
    /// The living versions of the root key, the newest first.
    pub root_keys: Vec<RootKeyNamed>,
    pub audit_head: HeadNamed,
    pub made_at: Timestamp,
    /// In bytes.
    pub size: u64,
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootKeyNamed {
    pub version: u32,
    pub fingerprint: String,
    pub provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadNamed {
    pub epoch: u64,
    pub seq: u64,
    pub hash: String,
}

/// Where the manifest of a backup lies.
pub fn manifest_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Makes a backup of a database, which others may use meanwhile. `url` is its address.
pub async fn make(db: &Db, url: &str, out: &Path, clock: &dyn Clock) -> Result<Manifest, BackupError> {
    let manifest_path = manifest_of(out);
    if manifest_path.exists() {
        return Err(BackupError::Exists(manifest_path));
    }
    let mut tx = db.read().await?;
    let root_keys = keys::living(&mut tx).await?;
    if root_keys.is_empty() {
        return Err(BackupError::NoBoard);
    }
    apart(out, root_keys.iter().map(|key| key.provider.as_str()))?;
    let made_at = clock.now();
    let file = create(out)?;
    let made = copied(db, &mut tx, url, out, file, made_at).await;
    drop(tx);
    let manifest = match made {
        Ok(manifest) => manifest,
        Err(error) => {
            // It was made by this call, and is no backup.
            let _ = std::fs::remove_file(out);
            return Err(error);
        }
    };
    let recorded = async {
        write_manifest(&manifest_path, &manifest)?;
        let mut tx = db.write().await?;
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let entry = Entry::new(clock.now(), Who::cli(), Action::BackupMade)
            .detail("file", name)
            .detail("sha256", &manifest.sha256)
            .detail("up_to", manifest.audit_head.seq);
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        Ok(())
    };
    if let Err(error) = recorded.await {
        let _ = std::fs::remove_file(out);
        let _ = std::fs::remove_file(&manifest_path);
        return Err(error);
    }
    Ok(manifest)
}

/// `tx` is the moment that PostgreSQL's copy is of.
async fn copied(
    db: &Db,
    tx: &mut Tx,
    url: &str,
    out: &Path,
    file: File,
    made_at: Timestamp,
) -> Result<Manifest, BackupError> {
    match copying::snapshot(tx).await? {
        Some(snapshot) => postgres::dump(url, &snapshot, &file)?,
        None => db.copy_into(out).await?,
    }
    let failed = |error| BackupError::File { path: out.to_owned(), error };
    File::open(out).and_then(|file| file.sync_all()).map_err(failed)?;
    let kind = Kind::of(db);
    let contents = Contents::read(out, kind).await?;
    let (size, sha256) = digest(out)?;
    Ok(Manifest {
        format: FORMAT.to_owned(),
        database: kind,
        board_id: contents.board_id,
        schema_version: contents.schema_version,
        root_keys: contents.named(),
        audit_head: contents.head(),
        made_at,
        size,
        sha256,
    })
}

/// Refuses a folder that has the root key's file in it.
fn apart<'a>(out: &Path, providers: impl Iterator<Item = &'a str>) -> Result<(), BackupError> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    for provider in providers {
        let Ok(source) = provider.parse::<Source>() else { continue };
        let key = source.path().and_then(|path| path.canonicalize().ok());
        if let Some(key) = key.filter(|key| key.parent() == Some(folder.as_path())) {
            return Err(BackupError::Together { key });
        }
    }
    Ok(())
}

/// A new file that only this user reads.
fn create(path: &Path) -> Result<File, BackupError> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return BackupError::Exists(path.to_owned());
        }
        BackupError::File { path: path.to_owned(), error }
    })
}

fn write_manifest(path: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let failed = |error| BackupError::File { path: path.to_owned(), error };
    let mut file = create(path)?;
    let text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(error.into()))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)
}

/// Size in bytes and SHA-256.
fn digest(path: &Path) -> Result<(u64, String), BackupError> {
    let failed = |error| BackupError::File { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut part = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut part).map_err(failed)?;
        if read == 0 {
            return Ok((size, hex(&hash.finalize())));
        }
        hash.update(&part[..read]);
        size += u64::try_from(read).unwrap_or(0);
    }
}

/// Checks a backup without a board: digest, audit chain, and that the root key opens it. `also` is a provider that the
/// operator names beside the backup's own.
pub async fn verify(file: &Path, also: Option<&Source>, outside: Outside) -> Result<Manifest, BackupError> {
    let path = manifest_of(file);
    let text = std::fs::read(&path).map_err(|error| BackupError::File { path: path.clone(), error })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .ok()
        .filter(|manifest: &Manifest| manifest.format == FORMAT)
        .ok_or(BackupError::Manifest(path))?;
    let differs = |what| BackupError::Differs { file: file.to_owned(), what };
    if digest(file)? != (manifest.size, manifest.sha256.clone()) {
        return Err(differs("its SHA-256 is another one"));
    }
    if manifest.schema_version > copying::newest_schema() {
        return Err(BackupError::Newer(manifest.schema_version));
    }
    let contents = Contents::read(file, manifest.database).await?;
    if contents.board_id != manifest.board_id
        || contents.named() != manifest.root_keys
        || contents.head() != manifest.audit_head
    {
        return Err(differs("it is of another board or of another moment"));
    }
    RootKey::opens(contents.board_id, &contents.root_keys, also, outside).await.map_err(|error| {
        let expected = manifest
            .root_keys
            .iter()
            .map(|key| format!("version {} (fingerprint {}, {})", key.version, key.fingerprint, key.provider))
            .collect::<Vec<_>>()
            .join(" and ");
        BackupError::RootKey { expected, error: Box::new(error) }
    })?;
    Ok(manifest)
}
