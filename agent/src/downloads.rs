//! Files that a manifest declares, in the cache folder before a step names them: fetched over HTTPS, believed by their
//! SHA-256 only, whole or not there.
//!
//! The folder is the agent's own and readable for everybody; each file is looked at again before every step.

mod signature;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Response;
use sha2::{Digest as _, Sha256};
use shared::catalog::{Download, Platform};
use shared::crypto::hex;
use tokio::io::AsyncWriteExt as _;

use crate::outbound::{self, Outbound};
use crate::platform::PlatformError;

pub use signature::{SignatureError, signed_by};

/// Whoever serves the file may send this much and no more, in bytes.
pub const LARGEST: u64 = 4 * 1024 * 1024 * 1024;
/// Release pages send on to where the file lies.
const REDIRECTS: usize = 5;
/// Without a single byte.
const SILENCE: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(3600);

/// Every message ends a step before anything of it ran.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("the manifest's download {0:?} can't be fetched: its name, address or SHA-256 is malformed")]
    Malformed(String),
    #[error(
        "{name} must be signed by the team {team}, which can't be checked here: {error}. Nothing was run"
    )]
    Unsupported { name: String, team: String, error: PlatformError },
    #[error("{name} can't be fetched: {host} {why}. Nothing was run")]
    Fetch { name: String, host: String, why: String },
    #[error("{name} is larger than {largest} bytes and was not fetched. Nothing was run")]
    TooLarge { name: String, largest: u64 },
    #[error(
        "{name} is not the file that the publisher signed for: expected SHA-256 {expected}, got {got}. It was thrown \
         away, and nothing was run"
    )]
    OtherFile { name: String, expected: String, got: String },
    #[error("{name} is not signed as the publisher says: {error}. It was thrown away, and nothing was run")]
    Signature { name: String, error: SignatureError },
    #[error("{name} can't be kept in {folder}: {error}. Nothing was run")]
    Io { name: String, folder: PathBuf, error: io::Error },
}

/// What had to be done for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provided {
    AlreadyThere,
    /// So many bytes.
    Fetched(u64),
}

/// Where files are kept and how they come.
pub struct Downloads<'a> {
    pub outbound: &'a Outbound,
    pub folder: &'a Path,
    pub platform: Platform,
    /// [`LARGEST`], or less in tests.
    pub largest: u64,
}

impl Downloads<'_> {
    /// The file is there and is the right one, or it is an error.
    pub async fn provide(&self, download: &Download) -> Result<Provided, DownloadError> {
        let Download { name, url, sha256, team, .. } = download;
        let host = host_of(url).filter(|_| Download::is_plain_name(name) && Download::is_sha256(sha256));
        let Some(host) = host else { return Err(DownloadError::Malformed(name.clone())) };
        if let Some(team) = team {
            self.can_check(name, team)?;
        }
        let path = self.folder.join(name);
        let there = self.digest(name, path.clone()).await?;
        let provided = if there.as_ref() == Some(sha256) {
            Provided::AlreadyThere
        } else {
            Provided::Fetched(self.fetch(download, &host, &path).await?)
        };
        if let Some(team) = team
            && let Err(error) = signature::check(&path, team).await
        {
            let _ = fs::remove_file(&path);
            return Err(DownloadError::Signature { name: name.clone(), error });
        }
        Ok(provided)
    }

    /// Whether the file is there and has the declared SHA-256. Fetches nothing.
    pub async fn is_there(&self, download: &Download) -> Result<bool, DownloadError> {
        let Download { name, sha256, .. } = download;
        if !Download::is_plain_name(name) || !Download::is_sha256(sha256) {
            return Err(DownloadError::Malformed(name.clone()));
        }
        Ok(self.digest(name, self.folder.join(name)).await?.as_ref() == Some(sha256))
    }

    /// Only macOS knows who signed a package.
    fn can_check(&self, name: &str, team: &str) -> Result<(), DownloadError> {
        match self.platform {
            Platform::Macos => Ok(()),
            Platform::Linux => Err(DownloadError::Unsupported {
                name: name.to_owned(),
                team: team.to_owned(),
                error: PlatformError::Unsupported("checking a package's signature"),
            }),
        }
    }

    /// SHA-256 of the file, if there is one.
    async fn digest(&self, name: &str, path: PathBuf) -> Result<Option<String>, DownloadError> {
        let looked = tokio::task::spawn_blocking(move || digest(&path)).await;
        looked.map_err(io::Error::other).flatten().map_err(|error| self.io(name, error))
    }

    async fn fetch(&self, download: &Download, host: &str, path: &Path) -> Result<u64, DownloadError> {
        let name = &download.name;
        let temporary = Temporary(self.folder.join(format!(".{name}.part")));
        let fetching = self.stream(download, host, &temporary.0);
        let (got, size) = match tokio::time::timeout(WHOLE, fetching).await {
            Ok(fetched) => fetched?,
            Err(_) => {
                let why = format!("was not done after {} minutes", WHOLE.as_secs() / 60);
                return Err(DownloadError::Fetch { name: name.clone(), host: host.to_owned(), why });
            }
        };
        if got != download.sha256 {
            let expected = download.sha256.clone();
            return Err(DownloadError::OtherFile { name: name.clone(), expected, got });
        }
        fs::rename(&temporary.0, path)
            .and_then(|()| File::open(self.folder)?.sync_all())
            .map_err(|error| self.io(name, error))?;
        Ok(size)
    }

    async fn stream(
        &self,
        download: &Download,
        host: &str,
        temporary: &Path,
    ) -> Result<(String, u64), DownloadError> {
        let name = &download.name;
        let broken = |error: reqwest::Error| DownloadError::Fetch {
            name: name.clone(),
            host: host.to_owned(),
            why: outbound::words(error),
        };
        let mut response = self.answer(download, host).await.map_err(broken)?;
        if response.status().as_u16() != 200 {
            let why = format!("answered {}", response.status().as_u16());
            return Err(DownloadError::Fetch { name: name.clone(), host: host.to_owned(), why });
        }
        let too_large = || DownloadError::TooLarge { name: name.clone(), largest: self.largest };
        if response.content_length().is_some_and(|length| length > self.largest) {
            return Err(too_large());
        }
        let mut file = new_file(temporary).map_err(|error| self.io(name, error))?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        loop {
            let chunk = match tokio::time::timeout(SILENCE, response.chunk()).await {
                Ok(chunk) => chunk.map_err(broken)?,
                Err(_) => {
                    let why = format!("sent nothing more for {} seconds", SILENCE.as_secs());
                    return Err(DownloadError::Fetch { name: name.clone(), host: host.to_owned(), why });
                }
            };
            let Some(chunk) = chunk else { break };
            size += chunk.len() as u64;
            if size > self.largest {
                return Err(too_large());
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(|error| self.io(name, error))?;
        }
        let kept = async {
            file.flush().await?;
            file.set_permissions(Permissions::from_mode(0o644)).await?;
            file.sync_all().await
        };
        kept.await.map_err(|error| self.io(name, error))?;
        Ok((hex(&hasher.finalize()), size))
    }

    async fn answer(&self, download: &Download, host: &str) -> reqwest::Result<Response> {
        tracing::info!(name = download.name, host, "fetching a download");
        self.outbound.client(REDIRECTS)?.get(&download.url).send().await
    }

    fn io(&self, name: &str, error: io::Error) -> DownloadError {
        DownloadError::Io { name: name.to_owned(), folder: self.folder.to_owned(), error }
    }
}

/// Gone unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn new_file(path: &Path) -> io::Result<tokio::fs::File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(tokio::fs::File::from_std(file))
}

/// A link is not followed: what it leads to could be changed by somebody else afterwards.
fn digest(path: &Path) -> io::Result<Option<String>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(_) => {}
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(hex(&hasher.finalize()))),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The host, when it is an address over HTTPS.
fn host_of(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok().filter(|url| url.scheme() == "https")?;
    url.host_str().map(str::to_owned)
}
