//! Releases of the agent: kept with their program, handed on to as many devices as an operator says, and what became of them.
//!
//! The board can't make one. Devices believe the release key that came with their package.

mod store;
#[cfg(test)]
mod tests;
mod views;
pub mod web;

use shared::catalog::Platform;
use shared::crypto::{ByteString, hex, sha256};
use shared::ids::DeviceId;
use shared::protocol::link::{Program, ReleaseOutcome, ReleaseReport};
use shared::signing::{Arch, Release, ReleaseError, ReleaseKey, SignedRelease, Version};
use shared::time::Timestamp;

use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::enrollment::Device;

pub use store::{DeviceProgram, Staged};

/// A piece of a program in the database, in bytes.
const PIECE: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ReleasesError {
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(
        "the program has {got} bytes with SHA-256 {sha256}; the release is for {size} bytes with SHA-256 {wanted}"
    )]
    OtherProgram { got: u64, sha256: String, size: u64, wanted: String },
    #[error(
        "version {version} for {platform} on {arch} is here already. Sign it again with a higher version"
    )]
    There { version: String, platform: Platform, arch: Arch },
    #[error("there is no release {0} here: `board release list` shows them")]
    Unknown(String),
    #[error("a percentage is a whole number from 0 to 100")]
    Percent,
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Brings a release and its program in. It is offered to nobody yet.
pub async fn import(
    tx: &mut Tx,
    signed: &SignedRelease,
    program: &[u8],
    key: &ReleaseKey,
    now: Timestamp,
) -> Result<Release, ReleasesError> {
    let release = signed.verify(std::slice::from_ref(key))?;
    let (got, sum) = (program.len() as u64, hex(&sha256(program)));
    if got != release.size || sum != release.sha256 {
        let (size, wanted) = (release.size, release.sha256);
        return Err(ReleasesError::OtherProgram { got, sha256: sum, size, wanted });
    }
    if store::find(tx, &release.version, release.platform, release.arch).await?.is_some() {
        let Release { version, platform, arch, .. } = release;
        return Err(ReleasesError::There { version, platform, arch });
    }
    let digest = signed.digest();
    store::insert(tx, &digest, &release, signed, now).await?;
    for (seq, bytes) in program.chunks(PIECE).enumerate() {
        store::insert_piece(tx, &digest, i64::try_from(seq).unwrap_or(i64::MAX), bytes).await?;
    }
    let entry = Entry::new(now, Who::cli(), Action::ReleaseImported)
        .detail("digest", &digest)
        .detail("version", &release.version)
        .detail("platform", release.platform)
        .detail("arch", release.arch)
        .detail("sha256", &release.sha256)
        .detail("release_key", key.name());
    audit::append(tx, &entry).await?;
    Ok(release)
}

/// Offers a version to so many percent of the devices that it is for, on every platform that it was imported for.
pub async fn stage(tx: &mut Tx, version: &str, percent: u8, now: Timestamp) -> Result<(), ReleasesError> {
    if percent > 100 {
        return Err(ReleasesError::Percent);
    }
    if store::stage(tx, version, percent).await? == 0 {
        return Err(ReleasesError::Unknown(version.chars().take(40).collect()));
    }
    let entry = Entry::new(now, Who::cli(), Action::ReleaseStaged)
        .detail("version", version)
        .detail("percent", percent);
    audit::append(tx, &entry).await?;
    Ok(())
}

/// Whether a device is among the first so many percent of a release. The same for ever for this device and this release; for
/// another release others come first.
pub fn is_in_stage(digest: &str, device_id: DeviceId, percent: i64) -> bool {
    let bytes = ByteString::labelled("board/release-stage/v1")
        .part(digest.as_bytes())
        .fixed(device_id.as_bytes())
        .finish();
    let [first, second, third, fourth, ..] = sha256(&bytes);
    let place = u32::from_be_bytes([first, second, third, fourth]) % 10_000;
    i64::from(place) < percent * 100
}

/// What a device said of its program when it came.
pub async fn said(
    tx: &mut Tx,
    device_id: DeviceId,
    version: &str,
    program: Option<&Program>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let version: String = version.chars().filter(|c| *c != '\0').take(40).collect();
    store::said(tx, device_id, &version, program.and_then(|program| program.arch), now).await
}

/// The release that a device is to take: the newest that it is in the stage of, above what it runs.
pub async fn due(
    tx: &mut Tx,
    device: &Device,
    version: &str,
    program: &Program,
) -> Result<Option<SignedRelease>, sqlx::Error> {
    let (Some(arch), Ok(running)) = (program.arch, version.parse::<Version>()) else { return Ok(None) };
    let staged = store::staged(tx, device.platform, arch).await?;
    let wanted = staged
        .into_iter()
        .filter(|one| {
            is_in_stage(&one.digest, device.id, one.percent) && !program.failed.contains(&one.digest)
        })
        .filter_map(|one| Some((one.version.parse::<Version>().ok()?, one.digest)))
        .filter(|(version, _)| *version > running)
        .max();
    match wanted {
        Some((_, digest)) => store::signed(tx, &digest).await,
        None => Ok(None),
    }
}

/// A device's word on a release; gives the entry for the audit log when it is news. `Err`: no such release was ever here.
pub async fn apply_report(
    tx: &mut Tx,
    device: &Device,
    report: &ReleaseReport,
    address: &str,
    now: Timestamp,
) -> Result<Option<Entry>, ReleasesError> {
    let Some(version) = store::version_of(tx, &report.digest).await? else {
        return Err(ReleasesError::Unknown(report.digest.chars().take(64).collect()));
    };
    let ReleaseReport { digest, outcome, reason } = report;
    if store::outcome(tx, device.id, digest).await?.as_ref() == Some(&(*outcome, reason.clone())) {
        return Ok(None);
    }
    store::note_outcome(tx, device.id, digest, *outcome, reason, now).await?;
    let entry = Entry::new(now, Who::device(device.id, address), Action::ReleaseReported)
        .client(device.client_id)
        .device(device.id)
        .reason(reason)
        .detail("outcome", outcome)
        .detail("version", version);
    Ok(Some(entry))
}

/// How many bytes the program of a release has.
pub async fn size(tx: &mut Tx, digest: &str) -> Result<Option<u64>, sqlx::Error> {
    Ok(store::size(tx, digest).await?.and_then(|size| u64::try_from(size).ok()))
}

/// A piece of its program; nothing behind the last.
pub async fn piece(tx: &mut Tx, digest: &str, seq: i64) -> Result<Option<Vec<u8>>, sqlx::Error> {
    store::piece(tx, digest, seq).await
}

/// Every release with how far it is, the newest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<Staged>, sqlx::Error> {
    let mut all = store::all(tx).await?;
    all.sort_by_key(|one| std::cmp::Reverse((one.version.parse::<Version>().ok(), one.arch, one.platform)));
    Ok(all)
}

pub fn word(outcome: ReleaseOutcome) -> &'static str {
    match outcome {
        ReleaseOutcome::Installed => "installed",
        ReleaseOutcome::Refused => "refused",
        ReleaseOutcome::WentBack => "went back",
    }
}
