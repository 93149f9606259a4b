//! The link: one WebSocket per device, JSON text frames, opened by the agent at `GET /link`.
//!
//! The board pushes, the agent reports. A report carries an id; the agent keeps it until the board acknowledges it,
//! and acknowledged means committed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::inventory::{ComponentReport, SlotReport};
use super::plan::{PlanEnded, PlanRequest, PlannedStep};
use super::steps::{AttemptEnded, Offer, OutputChunk};
use super::wipe::{Leave, Wipe, WipeReceipt};
use crate::crypto::{ByteString, base64};
use crate::ids::{AttemptId, BoardId, ClientId, DeliveryId, DeviceId, PlanId, ReportId};
use crate::signing::{Arch, SignedRelease, SignedSuccession};
use crate::text_enum;
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// The first frame of every link.
    Hello(Hello),
    Report(Report),
    /// What became of a `Paste`.
    Pasted(Pasted),
    /// A person on the device wants it to leave. The board answers with a `Wipe`.
    Leave(Leave),
    /// A frame that the agent can't act on, and why.
    Refused(Refused),
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromBoard {
    /// The answer to `Hello`.
    Welcome(Welcome),
    Offer(Offer),
    Plan(PlanRequest),
    Deliver(Deliver),
    /// A client's own secret, which a consultant sealed to the device. An agent that doesn't know it refuses an
    /// [`UNKNOWN_FRAME`].
    Paste(Paste),
    /// These reports are committed.
    Ack {
        reports: Vec<ReportId>,
    },
    /// The catalog or the scope changed.
    Scope(Scope),
    /// The device's enrollment ends. The answer is a report, `Wiped`.
    Wipe(Wipe),
    /// The board goes over to a new certificate authority.
    Ca(NewCa),
    /// The audit log went on; the agent keeps this beside the heads that it was told before.
    Head(Head),
    /// Statements of succession that the device doesn't hold yet, in their order: before the bundles that new keys signed.
    Keys {
        successions: Vec<SignedSuccession>,
    },
    /// The device's turn to take this release of the agent. Its program is at `GET /release/DIGEST`.
    Release(SignedRelease),
    #[serde(other)]
    Unknown,
}

/// A point of the audit log, as agents keep it to notice a rewritten database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub epoch: u64,
    pub seq: u64,
    #[serde(with = "base64")]
    pub hash: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub agent_version: String,
    pub hardware_uuid: String,
    /// Changes with every boot of the machine.
    pub boot_session: String,
    pub clock: Timestamp,
    #[serde(default)]
    pub audit_head: Option<Head>,
    /// The highest bundle serial that the agent has seen; 0 for none.
    #[serde(default)]
    pub bundle_serial: u64,
    #[serde(default)]
    pub secrets: Vec<HeldSecret>,
    /// Attempts in the agent's journal that have not ended.
    #[serde(default)]
    pub attempts: Vec<AttemptId>,
    /// Plans under way. `None` is an agent that doesn't know plans: it is not asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plans: Option<Vec<PlanId>>,
    /// `None` is an agent that knows neither successions of keys nor releases: it is told of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

/// What the agent says of its own program, and of the keys that it believes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `None` when no release fits it: its processor is none that we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Digests of the statements of succession that it holds.
    #[serde(default)]
    pub successions: Vec<String>,
    /// Digests of the releases that it refused or went back from: they are not offered again.
    #[serde(default)]
    pub failed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSecret {
    pub component: String,
    pub slot: String,
    pub version: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub time: Timestamp,
    pub client_id: ClientId,
    pub device_id: DeviceId,
    pub audit_head: Head,
    pub scope: Scope,
}

/// Which components the device is to have, and in which bundle their manifests are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `None` while no catalog was imported.
    #[serde(default)]
    pub bundle_digest: Option<String>,
    #[serde(default)]
    pub components: Vec<String>,
    /// Inputs that aren't secret, by component: the device needs them where no offer brings them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, BTreeMap<String, String>>,
    /// Components that left the scope and may still be there: looked at like the others, and nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub look_at: Vec<String>,
}

/// A new certificate authority, and the old one's word for it ([`crate::crypto::verify_succession`]); all in DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCa {
    #[serde(with = "base64")]
    pub certificate: Vec<u8>,
    /// The authority that the device pins.
    #[serde(with = "base64")]
    pub issuer: Vec<u8>,
    /// The new authority's key, certified by the old one.
    #[serde(with = "base64")]
    pub proof: Vec<u8>,
}

/// One version of one of our secrets, sealed to the device's X25519 key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliver {
    pub delivery_id: DeliveryId,
    pub bundle_digest: String,
    pub component: String,
    pub slot: String,
    pub version: u64,
    pub expires: Timestamp,
    #[serde(with = "base64")]
    pub sealed: Vec<u8>,
}

/// A value for a client-supplied slot on its way from a consultant's computer: passed on while both are there, kept by
/// nobody. The agent takes the slot's tag and pattern from its own scope's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paste {
    /// Made by whoever sealed it; good for one try.
    pub delivery_id: DeliveryId,
    pub component: String,
    pub slot: String,
    pub expires: Timestamp,
    #[serde(with = "base64")]
    pub sealed: Vec<u8>,
}

/// The device's word on a `Paste`, said once: the slot's report says what it holds, also to a board that missed this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pasted {
    pub delivery_id: DeliveryId,
    /// Why nothing was changed, for a person; without it the value is in the device's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Something that happened on the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: ReportId,
    pub at: Timestamp,
    pub body: ReportBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReportBody {
    AttemptStarted {
        attempt_id: AttemptId,
    },
    Output(OutputChunk),
    AttemptEnded(AttemptEnded),
    OfferRefused {
        attempt_id: AttemptId,
        reason: String,
        /// It may go well another time: nothing was decided about the step.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        passing: bool,
    },
    PlanStep(PlannedStep),
    PlanEnded(PlanEnded),
    Receipt(Receipt),
    DeliveryRefused {
        delivery_id: DeliveryId,
        reason: String,
        /// It may go well another time: the same delivery can be sent again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        passing: bool,
    },
    Inventory {
        components: Vec<ComponentReport>,
        slots: Vec<SlotReport>,
    },
    /// What a `Wipe` came to.
    Wiped(WipeReceipt),
    /// The device keeps this authority's pin beside the one that it had: SHA-256 of its SubjectPublicKeyInfo.
    CaPinned {
        #[serde(with = "base64")]
        pin: Vec<u8>,
    },
    /// A person pasted another value over the one that this slot had. Nothing of either is said.
    Replaced {
        component: String,
        slot: String,
    },
    /// What became of a release of the agent.
    Release(ReleaseReport),
    #[serde(other)]
    Unknown,
}

text_enum! {
    pub enum ReleaseOutcome {
        /// The board answered the new program's hello.
        Installed = "installed",
        /// Nothing was changed.
        Refused = "refused",
        /// The new program did not come up; the old one runs again.
        WentBack = "went-back",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    pub digest: String,
    pub outcome: ReleaseOutcome,
    /// For a person; empty when all went well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The device has the secret: written and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub delivery_id: DeliveryId,
    pub component: String,
    pub slot: String,
    pub version: u64,
    pub time: Timestamp,
    /// ECDSA P-256 by the device's TLS key over [`Receipt::signed_bytes`], DER.
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

impl Receipt {
    /// What the signature covers: the receipt, the board it is for and the device it comes from.
    pub fn signed_bytes(&self, board_id: BoardId, device_id: DeviceId) -> Vec<u8> {
        ByteString::labelled("board/receipt/v1")
            .fixed(board_id.as_bytes())
            .fixed(device_id.as_bytes())
            .fixed(self.delivery_id.as_bytes())
            .part(self.component.as_bytes())
            .part(self.slot.as_bytes())
            .u64(self.version)
            .fixed(&self.time.to_be_bytes())
            .finish()
    }
}

/// [`Refused::what`] of a frame whose kind the agent doesn't know.
pub const UNKNOWN_FRAME: &str = "unknown frame";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was refused: `unknown frame`, `bundle`, …
    pub what: String,
    pub reason: String,
}
