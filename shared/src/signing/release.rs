//! A release of the agent: what the release key vouches for, one for each platform and architecture. The board hands the
//! program on and can't make one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BadKey, key_for, sign_bytes};
use crate::catalog::Platform;
use crate::crypto::{base64, hex, sha256};
use crate::secret::Secret;
use crate::text_enum;

const LABEL: &[u8] = b"board/release/v1";

/// The largest program that is taken, in bytes.
pub const LARGEST_PROGRAM: u64 = 256 * 1024 * 1024;

text_enum! {
    /// What a program was compiled for.
    pub enum Arch {
        Aarch64 = "aarch64",
        X86_64 = "x86_64",
    }
}

impl Arch {
    /// What this program was built for, if we know it.
    pub const fn current() -> Option<Self> {
        if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else {
            None
        }
    }
}

key_for! {
    /// A key that releases of the agent are verified with. It verifies no bundle.
    ReleaseKey, BadKey, BadKey
}

/// Three numbers, `1.2.3`; the order is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64, u64, u64);

impl FromStr for Version {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let number = |part: &str| {
            let plain = !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && (part == "0" || !part.starts_with('0'));
            plain.then(|| part.parse().ok()).flatten()
        };
        let mut parts = text.split('.').map(number);
        match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Self(major, minor, patch)),
            _ => Err(ReleaseError::Version(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The payload: everything that a signature covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub version: String,
    pub platform: Platform,
    pub arch: Arch,
    /// Of the program, in bytes.
    pub size: u64,
    /// Of the program, in hex.
    pub sha256: String,
    /// Apple's id of the team whose Developer ID signed the program; on macOS only, and there always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

/// A release as it travels: the exact bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRelease {
    #[serde(with = "base64")]
    pub payload: Vec<u8>,
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error(transparent)]
    Key(#[from] BadKey),
    #[error(
        "the release's signature does not fit any release key that we trust: it was changed, or somebody else signed it"
    )]
    Signature,
    #[error("the release is signed, but its content can't be read: {0}")]
    Payload(#[from] serde_json::Error),
    #[error("{0:?} is not a version: three numbers, like 1.2.3")]
    Version(String),
    #[error("the release's SHA-256 is not 64 hexadecimal digits in lower case")]
    Digest,
    #[error("the program has {0} bytes; from 1 to {LARGEST_PROGRAM} are taken")]
    Size(u64),
    #[error("a release for macOS names the signing team: ten capitals and digits")]
    Team,
    #[error("a signing team can be checked on macOS only; a release for Linux names none")]
    TeamElsewhere,
}

impl Release {
    pub fn version(&self) -> Result<Version, ReleaseError> {
        self.version.parse()
    }

    /// Whether every field is what it has to be.
    pub fn check(&self) -> Result<(), ReleaseError> {
        self.version()?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_hex) {
            return Err(ReleaseError::Digest);
        }
        if !(1..=LARGEST_PROGRAM).contains(&self.size) {
            return Err(ReleaseError::Size(self.size));
        }
        let is_team = |team: &String| {
            team.len() == 10 && team.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        };
        match (self.platform, &self.team) {
            (Platform::Macos, Some(team)) if is_team(team) => Ok(()),
            (Platform::Macos, _) => Err(ReleaseError::Team),
            (Platform::Linux, None) => Ok(()),
            (Platform::Linux, Some(_)) => Err(ReleaseError::TeamElsewhere),
        }
    }
}

impl SignedRelease {
    /// SHA-256 of the payload, in hex: what both sides name it by.
    pub fn digest(&self) -> String {
        hex(&sha256(&self.payload))
    }

    /// The content, if one of `keys` signed it and every field is what it has to be.
    pub fn verify(&self, keys: &[ReleaseKey]) -> Result<Release, ReleaseError> {
        if !keys.iter().any(|key| key.public().verifies(LABEL, &self.payload, &self.signature)) {
            return Err(ReleaseError::Signature);
        }
        let release: Release = serde_json::from_slice(&self.payload)?;
        release.check()?;
        Ok(release)
    }
}

/// Signs a release with the private release key in PKCS#8 PEM.
pub fn sign_release(release: &Release, private_pem: &Secret<String>) -> Result<SignedRelease, ReleaseError> {
    release.check()?;
    let payload = serde_json::to_vec(release)?;
    let signature = sign_bytes(LABEL, &payload, private_pem)?;
    Ok(SignedRelease { payload, signature })
}
