//! Reports: each is applied once, in one transaction with the note that it was; acknowledged means committed.

use std::time::Duration;

use shared::catalog::Manifest;
use shared::protocol::inventory::{ComponentReport, SlotReport, SlotState};
use shared::protocol::link::{Receipt, Report, ReportBody};
use shared::protocol::steps::MAX_CHUNK;
use shared::protocol::wipe::WipedSlot;
use shared::time::Timestamp;

use super::store;
use crate::access::Throttle;
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, Catalog};
use crate::db::Tx;
use crate::enrollment::rotation::{self, AcknowledgeError};
use crate::enrollment::{self, Device, Standing, WipedError};
use crate::error::Failure;
use crate::inventory;
use crate::releases::{self, ReleasesError};
use crate::runbook::{self, ApplyError};
use crate::secrets::{self, ReceiptError, SecretError};

/// What applying a report can come to.
enum Refusal {
    /// It will never fit: noted and acknowledged, so that the device doesn't send it for ever.
    Never(String),
    /// The board can't write now; the device keeps the report.
    Later(Failure),
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Database(error) => Self::Later(error.into()),
            ApplyError::Audit(error) => Self::Later(error.into()),
            ApplyError::Failure(failure) => Self::Later(*failure),
            ApplyError::UnknownAttempt
            | ApplyError::UnknownPlan
            | ApplyError::UnknownOutcome
            | ApplyError::TooMuchOutput => Self::Never(error.to_string()),
        }
    }
}

impl From<ReceiptError> for Refusal {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::Secret(SecretError::Database(error)) => Self::Later(error.into()),
            ReceiptError::Secret(SecretError::Audit(error)) => Self::Later(error.into()),
            other @ (ReceiptError::Unknown
            | ReceiptError::Mismatch
            | ReceiptError::Signature
            | ReceiptError::Secret(_)) => Self::Never(other.to_string()),
        }
    }
}

impl From<WipedError> for Refusal {
    fn from(error: WipedError) -> Self {
        match error {
            WipedError::Database(error) => Self::Later(error.into()),
            WipedError::Audit(error) => Self::Later(error.into()),
            WipedError::Unknown | WipedError::Signature => Self::Never(error.to_string()),
        }
    }
}

impl From<AcknowledgeError> for Refusal {
    fn from(error: AcknowledgeError) -> Self {
        match error {
            AcknowledgeError::Unknown => Self::Never(error.to_string()),
            AcknowledgeError::Database(error) => Self::Later(error.into()),
        }
    }
}

impl From<ReleasesError> for Refusal {
    fn from(error: ReleasesError) -> Self {
        match error {
            ReleasesError::Database(error) => Self::Later(error.into()),
            ReleasesError::Audit(error) => Self::Later(error.into()),
            ReleasesError::Release(_)
            | ReleasesError::OtherProgram { .. }
            | ReleasesError::There { .. }
            | ReleasesError::Unknown(_)
            | ReleasesError::Percent => Self::Never(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Later(error.into())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Later(failure)
    }
}

/// Longest text of a report that isn't output, in characters.
const MAX_TEXT: usize = 4000;
/// Most components, slots or probes in one report.
const MAX_ENTRIES: usize = 1000;
/// Most fields of a provider's answer for one slot.
const MAX_RECORDED: usize = 50;

/// Refused reports of one device that the audit log takes in an hour; the board's own log has them all.
const REFUSED: Throttle = Throttle {
    bucket: "report-refused",
    per_source: 20,
    in_total: i64::MAX,
    window: Duration::from_secs(3600),
};

/// Where a report came from.
pub struct Origin<'a> {
    pub device: &'a Device,
    /// Serial of the certificate that the link was opened with.
    pub serial: &'a [u8],
    pub address: &'a str,
}

pub async fn apply(app: &App, origin: &Origin<'_>, report: &Report) -> Result<(), Failure> {
    let Origin { device, serial, address } = origin;
    let mut tx = app.db.write().await?;
    let standing = enrollment::standing(&mut tx, device.id, serial).await?;
    if !matches!(standing, Standing::Enrolled | Standing::Leaving) {
        return Err(Failure::forbidden("this device is not enrolled any more, or under another identity"));
    }
    if !store::first_time(&mut tx, report.id, device.id, app.now()).await? {
        return Ok(());
    }
    // What else a leaving device has to say stands before its receipt in its journal: taken, and of no effect.
    // A pin it has to keep, or it couldn't come back for its wipe once the board shows its next authority.
    let about_its_end = matches!(
        report.body,
        ReportBody::Wiped(_) | ReportBody::Inventory { .. } | ReportBody::CaPinned { .. }
    );
    if standing == Standing::Leaving && !about_its_end {
        return Ok(tx.commit().await?);
    }
    let applied = match check(&report.body) {
        Ok(()) => body(app, &mut tx, device, report, address).await,
        Err(reason) => Err(Refusal::Never(reason.to_owned())),
    };
    match applied {
        Ok(()) => Ok(tx.commit().await?),
        Err(Refusal::Later(failure)) => Err(failure),
        Err(Refusal::Never(reason)) => {
            drop(tx);
            tracing::warn!(device_id = %device.id, report_id = %report.id, reason, "a report was refused");
            let mut tx = app.db.write().await?;
            store::first_time(&mut tx, report.id, device.id, app.now()).await?;
            // Output and probes never write the audit log: a device could fill it.
            if matches!(report.body, ReportBody::Output(_) | ReportBody::Inventory { .. }) {
                return Ok(tx.commit().await?);
            }
            let source = device.id.to_string();
            if !REFUSED.allows(&mut tx, &source, app.now()).await? {
                return Ok(tx.commit().await?);
            }
            REFUSED.record(&mut tx, &source, app.now()).await?;
            let entry = Entry::new(app.now(), Who::device(device.id, address), Action::ReportRefused)
                .client(device.client_id)
                .device(device.id)
                .reason(&reason)
                .detail("report", report.id);
            audit::append(&mut tx, &entry).await?;
            Ok(tx.commit().await?)
        }
    }
}

/// A device is believed about itself, within bounds.
fn check(body: &ReportBody) -> Result<(), &'static str> {
    let text = |text: &str| {
        if text.chars().count() > MAX_TEXT {
            Err("a text is longer than 4000 characters")
        } else if text.contains('\0') {
            Err("a text holds a NUL character")
        } else {
            Ok(())
        }
    };
    match body {
        ReportBody::AttemptStarted { .. } | ReportBody::Unknown => Ok(()),
        ReportBody::Output(chunk) if chunk.text.len() > MAX_CHUNK => Err("a chunk of output is too large"),
        ReportBody::Output(_) => Ok(()),
        ReportBody::CaPinned { pin } if pin.len() != 32 => Err("a pin is not 32 bytes"),
        ReportBody::CaPinned { .. } => Ok(()),
        ReportBody::AttemptEnded(ended) => text(&ended.found),
        ReportBody::PlanStep(planned) => {
            text(&planned.component).and_then(|()| text(&planned.step)).and_then(|()| text(&planned.found))
        }
        ReportBody::PlanEnded(ended) => text(ended.stopped.as_deref().unwrap_or_default()),
        ReportBody::OfferRefused { reason, .. } | ReportBody::DeliveryRefused { reason, .. } => text(reason),
        ReportBody::Receipt(Receipt { component, slot, .. }) | ReportBody::Replaced { component, slot } => {
            text(component).and_then(|()| text(slot))
        }
        ReportBody::Wiped(receipt) => {
            if receipt.removed.len() > MAX_ENTRIES || receipt.left.len() > MAX_ENTRIES {
                return Err("a receipt of a wipe has too many entries");
            }
            let mut slots = receipt.removed.iter().chain(&receipt.left);
            slots.try_for_each(|one| text(&one.component).and_then(|()| text(&one.slot)))
        }
        ReportBody::Release(report) => text(&report.digest).and_then(|()| text(&report.reason)),
        ReportBody::Inventory { components, slots } => {
            if components.len() > MAX_ENTRIES || slots.len() > MAX_ENTRIES {
                return Err("an inventory has too many entries");
            }
            for one in components {
                text(&one.component)?;
                text(one.version.as_deref().unwrap_or_default())?;
                if one.evidence.len() > MAX_ENTRIES {
                    return Err("a component has too many probes");
                }
                one.evidence.iter().try_for_each(|seen| text(&seen.probe).and_then(|()| text(&seen.saw)))?;
            }
            for one in slots {
                text(&one.component).and_then(|()| text(&one.slot))?;
                let Some(check) = &one.check else { continue };
                text(&check.said)?;
                if check.recorded.len() > MAX_RECORDED {
                    return Err("a slot has too many recorded fields");
                }
                let mut fields = check.recorded.iter();
                fields.try_for_each(|(name, value)| text(name).and_then(|()| text(value)))?;
            }
            Ok(())
        }
    }
}

async fn body(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    report: &Report,
    address: &str,
) -> Result<(), Refusal> {
    match &report.body {
        ReportBody::AttemptStarted { attempt_id } => {
            runbook::apply_started(app, tx, device.id, *attempt_id).await?;
        }
        ReportBody::Output(chunk) => runbook::apply_output(tx, device.id, chunk).await?,
        ReportBody::AttemptEnded(ended) => runbook::apply_ended(app, tx, device, ended).await?,
        // The offer stays; the link makes it again.
        ReportBody::OfferRefused { passing: true, .. }
        | ReportBody::DeliveryRefused { passing: true, .. } => {}
        ReportBody::OfferRefused { attempt_id, reason, passing: false } => {
            runbook::apply_offer_refused(app, tx, device, *attempt_id, reason).await?;
        }
        ReportBody::PlanStep(planned) => runbook::plan::apply_step(app, tx, device, planned).await?,
        ReportBody::PlanEnded(ended) => runbook::plan::apply_plan_ended(app, tx, device, ended).await?,
        ReportBody::Receipt(receipt) => {
            let received =
                secrets::apply_receipt(tx, app.board_id, device.id, receipt, address, app.now()).await?;
            let mut again = Vec::new();
            if received.as_ref().is_some_and(|received| received.is_new) {
                let Receipt { version, component, slot, .. } = receipt;
                let reason = format!("version {version} of {component}/{slot}");
                again = runbook::restart(tx, device.id, (component, slot), &reason).await?;
            }
            runbook::wake_waiting(app, tx, device.id).await?;
            if let Some(mut entry) = received.map(|received| received.entry) {
                if !again.is_empty() {
                    entry = entry.detail("runs_again", again.join(" "));
                }
                audit::append(tx, &entry).await.map_err(|error| Refusal::Later(error.into()))?;
            }
        }
        ReportBody::DeliveryRefused { delivery_id, reason, passing: false } => {
            secrets::apply_refusal(tx, device.id, *delivery_id, reason, address, app.now()).await?;
        }
        ReportBody::Inventory { components, slots } => {
            let known = Known::of(tx, device).await?;
            let (components, slots) = (known.components(components), known.slots(slots));
            let refused = inventory::apply(tx, device.id, &components, &slots, app.now()).await?;
            if !enrollment::is_enrolled(tx, device.id).await? {
                return Ok(());
            }
            let reopened = runbook::reopen_refused(app, tx, device, &refused).await?;
            let confirmed = runbook::confirm_manual(app, tx, device).await?;
            for entry in reopened.iter().chain(&confirmed) {
                audit::append(tx, entry).await.map_err(|error| Refusal::Later(error.into()))?;
            }
        }
        ReportBody::Replaced { component, slot } => {
            let reason = format!("another value of {component}/{slot}, pasted");
            runbook::restart(tx, device.id, (component, slot), &reason).await?;
        }
        ReportBody::CaPinned { pin } => {
            let entry = rotation::acknowledge(tx, device, pin, address, app.now()).await?;
            if let Some(entry) = entry {
                audit::append(tx, &entry).await.map_err(|error| Refusal::Later(error.into()))?;
            }
        }
        ReportBody::Wiped(receipt) => {
            let emptied: Vec<SlotReport> =
                receipt.removed.iter().map(|slot| emptied(slot, app.now())).collect();
            let emptied = Known::of(tx, device).await?.slots(&emptied);
            inventory::apply(tx, device.id, &[], &emptied, app.now()).await?;
            enrollment::apply_wiped(tx, app.board_id, device, receipt, address, app.now()).await?;
        }
        ReportBody::Release(report) => {
            let entry = releases::apply_report(tx, device, report, address, app.now()).await?;
            if let Some(entry) = entry {
                audit::append(tx, &entry).await.map_err(|error| Refusal::Later(error.into()))?;
            }
        }
        ReportBody::Unknown => return Err(Refusal::Never("its kind is not known to this board".into())),
    }
    Ok(())
}

fn emptied(slot: &WipedSlot, now: Timestamp) -> SlotReport {
    SlotReport {
        component: slot.component.clone(),
        slot: slot.slot.clone(),
        state: SlotState::Empty,
        version: None,
        observed_at: now,
        check: None,
    }
}

/// What a device may say something about: the components, and their slots, of the catalog and of the bundle that its
/// runbook was composed from. Anything else is left aside, or made-up names would fill the database and support's page.
struct Known(Vec<Catalog>);

impl Known {
    async fn of(tx: &mut Tx, device: &Device) -> Result<Self, Failure> {
        let mut known: Vec<Catalog> = catalog::current(tx).await?.into_iter().collect();
        if let Some(runbook) = runbook::of_device(tx, device.id).await?
            && known.iter().all(|catalog| catalog.digest != runbook.bundle_digest)
        {
            known.extend(catalog::by_digest(tx, &runbook.bundle_digest).await?);
        }
        Ok(Self(known))
    }

    fn manifests<'a>(&'a self, component: &'a str) -> impl Iterator<Item = &'a Manifest> {
        self.0.iter().filter_map(move |catalog| catalog.manifests.get(component))
    }

    fn components(&self, said: &[ComponentReport]) -> Vec<ComponentReport> {
        let is_known = |one: &&ComponentReport| self.manifests(&one.component).next().is_some();
        said.iter().filter(is_known).cloned().collect()
    }

    fn slots(&self, said: &[SlotReport]) -> Vec<SlotReport> {
        let has_it = |one: &SlotReport| {
            self.manifests(&one.component).any(|manifest| manifest.slot(&one.slot).is_some())
        };
        said.iter().filter(|one| has_it(one)).cloned().collect()
    }
}
