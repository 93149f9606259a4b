//! A release of this program: judged by its signature, fetched, put in the old program's place when nothing is under way, and
//! on trial until the board answers its hello. What doesn't come up is taken back by itself.
//!
//! Nothing of a program may be executed before its size, its SHA-256 and, on macOS, its signing team were looked at.

mod place;
mod prepare;
mod record;
#[cfg(test)]
mod tests;
mod trial;

use shared::catalog::Platform;
use shared::signing::{Arch, Release, ReleaseError, ReleaseKey, SignedRelease, Version};

pub use place::{Place, PlaceError};
pub use prepare::{NotReady, Ready, Source, preflight, receive};
pub use record::{Failed, Record, Trial};
pub use trial::{Begun, ENDS, OnTrial, PATIENCE, begin};

/// What a release has to fit.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    pub version: &'a str,
    pub platform: Platform,
    pub arch: Option<Arch>,
}

/// Why nothing was changed, for a person.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("release {got} is not newer than {own}, which runs here: an older program is never taken")]
    NotNewer { got: Version, own: Version },
    #[error("the release is for {got}, and this is {own}")]
    Elsewhere { got: String, own: String },
    #[error("release {0} did not come up here before")]
    Failed(Version),
}

/// Whether this device takes a release.
pub fn judge(
    signed: &SignedRelease,
    keys: &[ReleaseKey],
    own: Own<'_>,
    failed: &[Failed],
) -> Result<Release, Refused> {
    let release = signed.verify(keys)?;
    let version = release.version()?;
    if release.platform != own.platform || Some(release.arch) != own.arch {
        let arch = own.arch.map_or("another processor", Arch::as_str);
        return Err(Refused::Elsewhere {
            got: format!("{} on {}", release.platform, release.arch),
            own: format!("{} on {arch}", own.platform),
        });
    }
    let running: Version = own.version.parse()?;
    if version <= running {
        return Err(Refused::NotNewer { got: version, own: running });
    }
    if failed.iter().any(|one| one.digest == signed.digest()) {
        return Err(Refused::Failed(version));
    }
    Ok(release)
}
