//! The devices whose fingerprint somebody compared on this computer: a text file, one line a device, like SSH's
//! known_hosts. `DEVICE FINGERPRINT SINCE`; lines that begin with # are a person's.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use shared::crypto::{Fingerprint, normalize_fingerprint};
use shared::ids::DeviceId;
use shared::time::Timestamp;

pub struct KnownDevices(PathBuf);

/// What was compared, and on which line it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub fingerprint: String,
    pub line: usize,
}

impl KnownDevices {
    /// The file that was named, or `board/known_devices` in the user's configuration folder.
    pub fn at(named: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = named {
            return Ok(Self(path));
        }
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
        let config =
            config.context("HOME is not set: name the file of known devices with --known-devices PATH")?;
        Ok(Self(config.join("board/known_devices")))
    }

    pub fn path(&self) -> String {
        self.0.display().to_string()
    }

    pub fn find(&self, device: DeviceId) -> anyhow::Result<Option<Known>> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| self.unreadable()),
        };
        let mode = fs::metadata(&self.0).with_context(|| self.unreadable())?.permissions().mode();
        if mode & 0o022 != 0 {
            bail!(
                "others may write to {}, so what it says proves nothing. Look at its lines, then: chmod 600 {}",
                self.path(),
                self.path()
            );
        }
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
            let mut words = line.split_whitespace();
            let (Some(id), fingerprint) = (words.next(), words.next()) else { continue };
            if id.parse::<DeviceId>().ok() != Some(device) {
                continue;
            }
            let fingerprint = fingerprint.map(normalize_fingerprint).unwrap_or_default();
            return Ok(Some(Known { fingerprint, line: at + 1 }));
        }
        Ok(None)
    }

    pub fn remember(
        &self,
        device: DeviceId,
        fingerprint: &Fingerprint,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.0.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.0)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            // A person who wrote the last line may have left it without an end.
            let end = if text.last().is_none_or(|byte| *byte == b'\n') { "" } else { "\n" };
            let shown = fingerprint.to_string().replace(' ', "-");
            file.write_all(format!("{end}{device} {shown} {}\n", now.rfc3339()).as_bytes())
        };
        write().with_context(|| {
            format!("{} can't be written, so the device can't be remembered. Nothing was sent", self.path())
        })
    }

    fn unreadable(&self) -> String {
        format!("{} can't be read, so nothing is known of devices. Nothing was sent", self.path())
    }
}
