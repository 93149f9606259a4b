//! Who signed a package, as `pkgutil --check-signature` says it. Reading its words is the same on every system, so that
//! it is tested on every system.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Root's, on the sealed system volume.
const PKGUTIL: &str = "/usr/sbin/pkgutil";
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("pkgutil could not be asked: {0}")]
    Ask(String),
    #[error("pkgutil says {0:?}")]
    Status(String),
    #[error("it is signed by {got}, and must be signed by the team {expected}")]
    OtherTeam { expected: String, got: String },
    #[error("what pkgutil says can't be understood")]
    NotUnderstood,
}

/// Asks macOS.
pub async fn check(package: &Path, team: &str) -> Result<(), SignatureError> {
    let asking = Command::new(PKGUTIL)
        .arg("--check-signature")
        .arg(package)
        .env_clear()
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(output) => output.map_err(|error| SignatureError::Ask(error.to_string()))?,
        Err(_) => {
            return Err(SignatureError::Ask(format!("no answer in {} seconds", TIMEOUT.as_secs())));
        }
    };
    signed_by(&String::from_utf8_lossy(&output.stdout), output.status.success(), team)
}

/// Whether these words mean that the package is signed for distribution by this team: a Developer ID Installer
/// certificate that Apple issued comes first in the chain, and the team's id ends its name.
pub fn signed_by(said: &str, succeeded: bool, team: &str) -> Result<(), SignatureError> {
    // The first line names the package, whatever it is called.
    let mut lines = said.lines().skip(1).map(str::trim);
    let status = lines.find_map(|line| line.strip_prefix("Status: ")).ok_or(SignatureError::NotUnderstood)?;
    if !succeeded || status != "signed by a developer certificate issued by Apple for distribution" {
        return Err(SignatureError::Status(status.chars().take(200).collect()));
    }
    let first = lines
        .skip_while(|line| *line != "Certificate Chain:")
        .nth(1)
        .and_then(|line| line.strip_prefix("1. Developer ID Installer: "))
        .ok_or(SignatureError::NotUnderstood)?;
    let got = first
        .strip_suffix(')')
        .and_then(|name| name.rsplit_once(" ("))
        .map(|(_, id)| id)
        .ok_or(SignatureError::NotUnderstood)?;
    if got == team {
        return Ok(());
    }
    Err(SignatureError::OtherTeam { expected: team.to_owned(), got: first.chars().take(200).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of what macOS prints, with a made-up publisher.
    const SIGNED: &str = "Package \"Example.pkg\":\n   \
        Status: signed by a developer certificate issued by Apple for distribution\n   \
        Notarization: trusted by the Apple notary service\n   \
        Signed with a trusted timestamp on: 2026-01-15 14:33:23 +0000\n   \
        Certificate Chain:\n    \
        1. Developer ID Installer: Example (Tools) Inc. (ABCDE12345)\n       \
        Expires: 2031-02-01 22:12:15 +0000\n       \
        SHA256 Fingerprint:\n           \
        AB CD EF 01 23 45 67 89 AB CD EF 01 23 45 67 89 AB CD EF 01 23 45 \n           \
        67 89 AB CD EF 01 23 45 67 89\n       \
        ------------------------------------------------------------------------\n    \
        2. Developer ID Certification Authority\n       \
        Expires: 2031-09-17 00:00:00 +0000\n    \
        3. Apple Root CA\n";

    #[test]
    fn the_team_of_the_first_certificate_decides() {
        assert_eq!(signed_by(SIGNED, true, "ABCDE12345"), Ok(()));
        let other = signed_by(SIGNED, true, "ZZZZZ12345").unwrap_err().to_string();
        assert!(
            other.contains("Example (Tools) Inc. (ABCDE12345)") && other.contains("ZZZZZ12345"),
            "{other}"
        );
        let status = |said: &str, succeeded| match signed_by(said, succeeded, "ABCDE12345") {
            Err(SignatureError::Status(status)) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status("Package \"x.pkg\":\n   Status: no signature\n", false), "no signature");
        status(SIGNED, false);
        for weaker in [
            "signed by untrusted certificate",
            "signed by a certificate that has since expired",
            "signed by a developer certificate issued by Apple (Development)",
            "signed by a certificate trusted by macOS",
            "revoked signature",
        ] {
            let said =
                SIGNED.replace("signed by a developer certificate issued by Apple for distribution", weaker);
            assert_eq!(status(&said, true), weaker);
        }
    }

    #[test]
    fn what_can_not_be_understood_is_no_signature() {
        for (from, to) in [
            ("Developer ID Installer: ", "Apple Development: "),
            ("    1. Developer", "    2. Developer"),
            ("Certificate Chain:", "Chain:"),
            (" (ABCDE12345)", ""),
            ("(ABCDE12345)", "(ABCDE12345) and more"),
            ("   Status: ", "   State: "),
        ] {
            let said = SIGNED.replace(from, to);
            assert_ne!(said, SIGNED);
            assert_eq!(signed_by(&said, true, "ABCDE12345"), Err(SignatureError::NotUnderstood), "{to}");
        }
        assert_eq!(signed_by("", true, "ABCDE12345"), Err(SignatureError::NotUnderstood));
        let named = format!("Package \"Status: x\":\n{}", &SIGNED[SIGNED.find('\n').unwrap() + 1..]);
        assert_eq!(signed_by(&named, true, "ABCDE12345"), Ok(()), "a package's name says nothing");
    }
}
