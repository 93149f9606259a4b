use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::ids::{ClientId, DeviceId, SlotId};
use shared::text_enum;
use shared::time::Timestamp;

text_enum! {
    pub enum Actor {
        User = "user",
        Device = "device",
        Cli = "cli",
        /// A program with an API token.
        Token = "token",
        Job = "job",
    }
}

text_enum! {
    pub enum Action {
        BoardInitialized = "board.initialized",
        LinkMade = "link.made",
        PasswordSet = "password.set",
        SignedIn = "signed-in",
        SignInRefused = "sign-in.refused",
        SignedOut = "signed-out",
        SteppedUp = "stepped-up",
        StepUpRefused = "step-up.refused",
        PasskeyRegistered = "passkey.registered",
        PasskeyRemoved = "passkey.removed",
        /// Its counter went back: there may be a copy of it.
        PasskeyCloned = "passkey.cloned",
        PasskeysRequired = "passkeys.required",
        UserAdded = "user.added",
        RolesChanged = "user.roles-changed",
        UserDisabled = "user.disabled",
        UserEnabled = "user.enabled",
        TokenMade = "token.made",
        TokenRevoked = "token.revoked",
        ClientCreated = "client.created",
        ScopeChanged = "scope.changed",
        CatalogImported = "catalog.imported",
        SuccessionImported = "succession.imported",
        ReleaseImported = "release.imported",
        ReleaseStaged = "release.staged",
        /// A device's word on a release of the agent.
        ReleaseReported = "release.reported",
        SecretStored = "secret.stored",
        /// The same value and version under another root key.
        SecretRekeyed = "secret.rekeyed",
        RekeyStarted = "rekey.started",
        RekeyEnded = "rekey.ended",
        SecretCopied = "secret.copied",
        /// Whether copying a client's secrets needs a second person.
        SecondPersonChanged = "client.second-person-changed",
        ApprovalAsked = "approval.asked",
        ApprovalGiven = "approval.given",
        ApprovalDeclined = "approval.declined",
        SecretDecrypted = "secret.decrypted",
        BoardSecretStored = "board-secret.stored",
        /// The same value and version under another root key.
        BoardSecretRekeyed = "board-secret.rekeyed",
        BoardSecretRemoved = "board-secret.removed",
        BoardSecretDecrypted = "board-secret.decrypted",
        ProviderKeyAsked = "provider-key.asked",
        ProviderKeyMade = "provider-key.made",
        /// Made by the board, but its value was lost on the way.
        ProviderKeyOrphaned = "provider-key.orphaned",
        ProviderKeyChanged = "provider-key.changed",
        ProviderKeyDeleted = "provider-key.deleted",
        JoinCodeMade = "join-code.made",
        JoinAsked = "join.asked",
        EnrollmentApproved = "enrollment.approved",
        EnrollmentMismatch = "enrollment.mismatch",
        EnrollmentRejected = "enrollment.rejected",
        DeviceEnrolled = "device.enrolled",
        DeviceRefused = "device.refused",
        DeviceRevoked = "device.revoked",
        DeviceQuarantined = "device.quarantined",
        DeviceReleased = "device.released",
        CaRotationBegun = "ca.rotation-begun",
        CaAcknowledged = "ca.acknowledged",
        CaRotationFinished = "ca.rotation-finished",
        CertificateRenewed = "certificate.renewed",
        RenewalAsked = "renewal.asked",
        RenewalConfirmed = "renewal.confirmed",
        RunbookComposed = "runbook.composed",
        RunbookPaused = "runbook.paused",
        RunbookResumed = "runbook.resumed",
        PlanAsked = "plan.asked",
        StepOffered = "step.offered",
        StepEnded = "step.ended",
        StepRetried = "step.retried",
        StepSkipped = "step.skipped",
        StepUndoAsked = "step.undo-asked",
        StepUndoDropped = "step.undo-dropped",
        StepMarked = "step.marked",
        StepConfirmed = "step.confirmed",
        StepReopened = "step.reopened",
        ReportRefused = "report.refused",
        HeadMismatch = "head.mismatch",
        AlarmAcknowledged = "alarm.acknowledged",
        /// The board is frozen from here.
        IncidentBegun = "incident.begun",
        IncidentLifted = "incident.lifted",
        BackupMade = "backup.made",
        /// The first entry of a new epoch.
        BoardRestored = "board.restored",
        /// Never kept: the health page's trial, which is taken back.
        LogTried = "log.tried",
        EngagementEnded = "engagement.ended",
        EngagementReactivated = "engagement.reactivated",
        PurgeDaysChanged = "purge.days-changed",
        PurgeHeld = "purge.held",
        PurgeReleased = "purge.released",
        ClientPurged = "client.purged",
        /// The database's files were rewritten after it.
        PurgeRewritten = "purge.rewritten",
        DeviceLeaving = "device.leaving",
        /// The device's signed receipt of its wipe.
        DeviceWiped = "device.wiped",
        BrowserPasteChanged = "client.browser-paste-changed",
        /// A client's own secret, sealed elsewhere, is passed on to its device.
        PasteRelayed = "paste.relayed",
        /// The device's word on it.
        PasteAnswered = "paste.answered",
        DeliveryReceipt = "delivery.receipt",
        DeliveryRefused = "delivery.refused",
    }
}

/// Who did it, and from which address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub kind: Actor,
    pub id: String,
    pub address: String,
}

impl Who {
    pub fn user(email: &str, address: &str) -> Self {
        Self { kind: Actor::User, id: email.to_owned(), address: address.to_owned() }
    }

    pub fn device(id: impl ToString, address: &str) -> Self {
        Self { kind: Actor::Device, id: id.to_string(), address: address.to_owned() }
    }

    pub fn cli() -> Self {
        Self { kind: Actor::Cli, id: "board".into(), address: String::new() }
    }

    pub fn token(name: &str, address: &str) -> Self {
        Self { kind: Actor::Token, id: name.to_owned(), address: address.to_owned() }
    }

    pub fn job(name: &str) -> Self {
        Self { kind: Actor::Job, id: name.to_owned(), address: String::new() }
    }
}

/// One entry. Its canonical form is compact JSON in the order of these fields; never reorder them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Timestamp,
    pub who: Who,
    pub action: Action,
    pub client: Option<ClientId>,
    pub slot: Option<SlotId>,
    pub device: Option<DeviceId>,
    pub reason: String,
    pub detail: BTreeMap<String, String>,
}

impl Entry {
    #[must_use]
    pub fn client(mut self, id: ClientId) -> Self {
        self.client = Some(id);
        self
    }

    #[must_use]
    pub fn slot(mut self, id: SlotId) -> Self {
        self.slot = Some(id);
        self
    }

    #[must_use]
    pub fn device(mut self, id: DeviceId) -> Self {
        self.device = Some(id);
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.reason);
        self
    }

    #[must_use]
    pub fn detail(mut self, key: &str, value: impl ToString) -> Self {
        self.detail.insert(key.to_owned(), value.to_string());
        self
    }
}
