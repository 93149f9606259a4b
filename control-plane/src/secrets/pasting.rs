//! A client's own secret, sealed to the device on a consultant's computer or in their browser: passed on to the device's
//! open link, in memory, and kept nowhere. The board can't open it. What the audit log gets is who, which slot, which
//! device, and the device's word.

use std::time::Duration;

use shared::crypto::SEALED_EXTRA;
use shared::ids::DeviceId;
use shared::protocol::link::Paste;
use shared::secret::MAX_LEN;

use super::{api::Recipient, store};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::catalog::{self, AnySlot, TheirSlot};
use crate::clients;
use crate::db::Tx;
use crate::enrollment::{Device, DeviceState, get_device};
use crate::error::Failure;
use crate::freeze;
use crate::links::NotRelayed;

/// How long a device may take for its word.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Of a device's reason, in characters.
const MAX_REASON: usize = 500;

/// Where the value was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a program of the consultant's own, which compared the device's fingerprint.
    CommandLine,
    /// By this board's own script, which whoever uses it trusts.
    Browser,
}

#[derive(Debug, thiserror::Error)]
pub enum PasteError {
    #[error("This client's scope has no slot {0}. Nothing was sent to the device.")]
    NoSlot(String),
    #[error(
        "{0} is our-managed: enter it on the client's secrets page, and the device gets it delivered. Nothing was sent."
    )]
    Ours(String),
    #[error("What was sealed is larger than a value may be (16 KiB). Nothing was sent to the device.")]
    TooLarge,
    #[error("This device is not enrolled, so nothing can be sealed to it.")]
    NotEnrolled,
    #[error(
        "Pasting in the browser is switched off for this client. Nothing was sent. Paste it on the Mac, or with `board paste`."
    )]
    BrowserOff,
    #[error(
        "The device is off, and a sealed value is kept nowhere: nothing was sent. Paste it again when the device is on."
    )]
    Off,
    #[error("Several pastes for this device are under way. Nothing was sent. Try again in a minute.")]
    Busy,
    #[error(
        "The device's link ended before it answered. It may have the value or not: see what the runbook says of the slot, and paste it again if it isn't there."
    )]
    Cut,
    #[error(
        "The device didn't answer within {} seconds. It may have the value or not: see what the runbook says of the slot, and paste it again if it isn't there.",
        PATIENCE.as_secs()
    )]
    NoAnswer,
    #[error("The device refused it: {0}.")]
    Refused(String),
    #[error("{}", .0.public.detail)]
    Failure(Box<Failure>),
}

impl From<sqlx::Error> for PasteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failure(Box::new(error.into()))
    }
}

impl From<AuditError> for PasteError {
    fn from(error: AuditError) -> Self {
        Self::Failure(Box::new(error.into()))
    }
}

impl From<Failure> for PasteError {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

impl From<PasteError> for Failure {
    fn from(error: PasteError) -> Self {
        let text = error.to_string();
        let title = "Not pasted";
        match error {
            PasteError::NoSlot(_) => Self::new(404, "no-slot", title, text),
            PasteError::Ours(_) => Self::invalid("our-managed", title, text),
            PasteError::TooLarge => Self::new(413, "too-large", title, text),
            PasteError::NotEnrolled => Self::conflict("not-enrolled", title, text),
            PasteError::BrowserOff => Self::conflict("browser-paste-off", title, text),
            PasteError::Off => Self::conflict("device-off", title, text),
            PasteError::Busy => Self::conflict("busy", title, text),
            PasteError::Refused(_) => Self::invalid("device-refused", title, text),
            PasteError::Cut => Self::new(504, "link-ended", "No answer", text),
            PasteError::NoAnswer => Self::new(504, "no-answer", "No answer", text),
            PasteError::Failure(failure) => *failure,
        }
    }
}

/// Passes a sealed value on to its device and waits for the device's word. Who asked is in the audit log before.
pub async fn relay(
    app: &App,
    who: Who,
    way: Way,
    device_id: DeviceId,
    paste: Paste,
) -> Result<(), PasteError> {
    if paste.sealed.len() > MAX_LEN + SEALED_EXTRA {
        return Err(PasteError::TooLarge);
    }
    let mut tx = app.db.write().await?;
    let client_id = get_device(&mut tx, device_id).await?.client_id;
    clients::engagement::ensure_active(&mut tx, client_id).await?;
    let device = enrolled(&mut tx, device_id).await?;
    if way == Way::Browser && !clients::browser_paste(&mut tx, device.client_id).await? {
        return Err(PasteError::BrowserOff);
    }
    // The board's own script may be another one's. Who seals on their own computer doesn't trust it.
    if way == Way::Browser && freeze::is_on(&mut tx).await? {
        return Err(freeze::refused().into());
    }
    let slot = their_slot(&mut tx, &device, &paste).await?;
    if app.links.since(device_id).is_none() {
        return Err(PasteError::Off);
    }
    let delivery_id = paste.delivery_id;
    let entry = |action, who| {
        Entry::new(app.now(), who, action)
            .client(device.client_id)
            .slot(slot.id)
            .device(device_id)
            .detail("slot", format!("{}/{}", slot.component_key, slot.slot_key))
            .detail("paste", delivery_id)
    };
    let asked = entry(Action::PasteRelayed, who.clone()).detail(
        "sealed",
        match way {
            Way::CommandLine => "on a consultant's computer",
            Way::Browser => "in the browser",
        },
    );
    audit::append(&mut tx, &asked).await?;
    tx.commit().await?;

    let ended = match app.links.relay(device_id, paste) {
        Err(NotRelayed::Off) => Err(PasteError::Off),
        Err(NotRelayed::Busy) => Err(PasteError::Busy),
        Ok(word) => match tokio::time::timeout(PATIENCE, word).await {
            Err(_) => Err(PasteError::NoAnswer),
            Ok(Err(_)) => Err(PasteError::Cut),
            Ok(Ok(Err(reason))) => Err(PasteError::Refused(shortened(&reason))),
            Ok(Ok(Ok(()))) => Ok(()),
        },
    };
    let (by, said) = match &ended {
        Ok(()) => (Who::device(device_id, ""), "present".to_owned()),
        Err(error @ PasteError::Refused(_)) => (Who::device(device_id, ""), error.to_string()),
        Err(error) => (Who::job("paste"), error.to_string()),
    };
    let mut tx = app.db.write().await?;
    let answered = entry(Action::PasteAnswered, by).reason(&said);
    audit::append(&mut tx, &answered).await?;
    tx.commit().await?;
    tracing::info!(%device_id, %delivery_id, present = ended.is_ok(), "a sealed paste was passed on");
    ended
}

async fn enrolled(tx: &mut Tx, id: DeviceId) -> Result<Device, PasteError> {
    let device = get_device(tx, id).await?;
    clients::engagement::check_active(tx, device.client_id).await?;
    if device.state != DeviceState::Enrolled {
        return Err(PasteError::NotEnrolled);
    }
    Ok(device)
}

async fn their_slot(tx: &mut Tx, device: &Device, paste: &Paste) -> Result<TheirSlot, PasteError> {
    let keys = (paste.component.as_str(), paste.slot.as_str());
    let found = clients::slots(tx, device.client_id).await?.into_iter().find(|slot| slot.keys() == keys);
    match found {
        Some(AnySlot::Theirs(slot)) => Ok(slot),
        Some(AnySlot::Ours(slot)) => {
            Err(PasteError::Ours(format!("{}/{}", slot.component_key, slot.slot_key)))
        }
        None => Err(PasteError::NoSlot(shortened(&format!("{}/{}", paste.component, paste.slot)))),
    }
}

/// A device's words, or a sender's: as long as fits a sentence, and without what a terminal would obey.
fn shortened(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect::<String>();
    plain.trim_end_matches('.').to_owned()
}

/// What whoever seals needs to know of a device.
pub async fn recipient(app: &App, device_id: DeviceId) -> Result<Recipient, PasteError> {
    let mut tx = app.db.read().await?;
    let device = enrolled(&mut tx, device_id).await?;
    let identity = store::identity(&mut tx, device_id).await?.ok_or(PasteError::NotEnrolled)?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    let mut slots = Vec::new();
    for slot in clients::slots(&mut tx, device.client_id).await? {
        let AnySlot::Theirs(slot) = slot else { continue };
        let manifest = catalog.as_ref().and_then(|catalog| catalog.manifests.get(&slot.component_key));
        if manifest.is_some_and(|manifest| manifest.platforms.contains(&device.platform)) {
            slots.push(super::api::SlotJson {
                component: slot.component_key,
                slot: slot.slot_key,
                name: slot.name,
            });
        }
    }
    Ok(Recipient {
        board_id: app.board_id,
        ca_spki: app.ca().spki,
        client_id: device.client_id,
        device_id,
        name: device.name,
        enrollment_id: identity.id,
        tls_spki: identity.tls_spki,
        sealing_public_key: identity.sealing_public_key,
        on: app.links.since(device_id).is_some(),
        time: app.now(),
        slots,
    })
}

/// The X25519 key of an enrolled device.
pub async fn sealing_key(tx: &mut Tx, device_id: DeviceId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    store::sealing_key(tx, device_id).await
}
