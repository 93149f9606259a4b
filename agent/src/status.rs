//! What `board-agent status` shows. The daemon writes it to a file, because the journal is locked while it runs.

use rcgen::PublicKeyData as _;
use serde::{Deserialize, Serialize};
use shared::crypto::{Fingerprint, FingerprintParts, hex};
use shared::ids::{ClientId, DeviceId};
use shared::time::Timestamp;

use crate::config::{self, ConfigError, Identity, KnownKey, Paths, load_json, save_json};
use crate::journal::Told;
use crate::tls::{Pin, TlsError};
use crate::vault::DeviceKeys;

/// The part that the daemon finds out while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Of the agent that ran last.
    #[serde(default)]
    pub agent_version: Option<String>,
    /// Heads of the board's audit log that this device was told, oldest first: `board audit verify --witness` compares
    /// them with the log.
    #[serde(default)]
    pub heads: Vec<Told>,
    #[serde(default)]
    pub bundle_serial: u64,
    pub bundle_digest: Option<String>,
    /// Of this enrollment, as joining showed it: who seals something to this device elsewhere compares with it.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// When the link last was up.
    pub last_link: Option<Timestamp>,
    /// Why the certificate is not renewed although it is time.
    #[serde(default)]
    pub renewal: Option<String>,
}

impl Live {
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        Ok(load_json(&paths.status())?.unwrap_or_default())
    }

    /// For the daemon, which writes it anew: a damaged file is as good as none.
    pub fn load_or_begin(paths: &Paths) -> Self {
        Self::load(paths).unwrap_or_else(|error| {
            tracing::warn!(%error, "the status of before can't be read");
            Self::default()
        })
    }

    pub fn save(&self, paths: &Paths) -> Result<(), ConfigError> {
        save_json(&paths.status(), self)
    }
}

/// The fingerprint of this enrollment: the CA is known by its pin.
pub fn fingerprint(identity: &Identity, keys: &DeviceKeys) -> Result<Fingerprint, TlsError> {
    let pin: Pin = identity.pin.parse()?;
    let sealing = keys.sealing.public_key();
    let parts = FingerprintParts {
        ca_spki: &[],
        board_id: identity.board_id,
        client_id: identity.client_id,
        enrollment_id: identity.enrollment_id,
        tls_spki: &keys.tls.subject_public_key_info(),
        sealing_public_key: sealing.as_bytes(),
    };
    Ok(Fingerprint::under_pin(pin.as_bytes(), &parts))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub device_id: DeviceId,
    pub board: String,
    pub client_id: ClientId,
    pub client: String,
    pub certificate_not_after: Timestamp,
    pub dev: bool,
    /// Whose catalogs are believed.
    pub publisher_keys: Vec<KnownKey>,
    /// Whose releases of the agent are believed.
    pub release_keys: Vec<KnownKey>,
    #[serde(flatten)]
    pub live: Live,
}

impl Status {
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        let identity = Identity::load(paths)?;
        Ok(Self {
            device_id: identity.device_id,
            board: identity.board,
            client_id: identity.client_id,
            client: identity.client_name,
            certificate_not_after: identity.not_after,
            dev: identity.dev,
            publisher_keys: config::known_publisher_keys(paths)?,
            release_keys: config::known_release_keys(paths)?,
            live: Live::load(paths)?,
        })
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |f: &mut std::fmt::Formatter<'_>, name: &str, value: &dyn std::fmt::Display| {
            writeln!(f, "{name:<14}{value}")
        };
        line(f, "Device", &self.device_id)?;
        if let Some(fingerprint) = &self.live.fingerprint {
            line(f, "Fingerprint", fingerprint)?;
        }
        line(f, "Board", &self.board)?;
        line(f, "Client", &self.client)?;
        line(f, "Certificate", &format!("until {}", self.certificate_not_after))?;
        if let Some(trouble) = &self.live.renewal {
            line(f, "Renewal", trouble)?;
        }
        match self.live.heads.last() {
            Some(Told { head, at }) => line(
                f,
                "Audit head",
                &format!("epoch {}, entry {}, {}, told {at}", head.epoch, head.seq, hex(&head.hash)),
            )?,
            None => line(f, "Audit head", &"none yet")?,
        }
        match &self.live.bundle_digest {
            Some(digest) => line(f, "Bundle", &format!("serial {}, {digest}", self.live.bundle_serial))?,
            None => line(f, "Bundle", &"none yet")?,
        }
        match self.live.last_link {
            Some(at) => line(f, "Link", &format!("last up {at}")),
            None => line(f, "Link", &"not up yet"),
        }?;
        for (name, keys) in [("Publisher", &self.publisher_keys), ("Releases", &self.release_keys)] {
            for key in keys {
                let from = match (key.packaged, key.succeeded) {
                    (true, _) => "came with the package",
                    (false, true) => "vouched for by a key before it, or by the recovery key",
                    (false, false) => "given when joining",
                };
                line(f, name, &format!("{}, {from}", key.name))?;
            }
        }
        if self.dev {
            line(f, "Store", &"files, for development only")?;
        }
        Ok(())
    }
}
