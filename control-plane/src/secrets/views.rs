//! A client's secrets. A value goes into this page and never comes out of it; a client-supplied slot has no input at all.

use askama::Template;
use shared::time::Timestamp;

use crate::clients::views::ClientRef;
use crate::enrollment::Device;
use crate::secrets::{DeliveryState, Spread};
use crate::web::{FieldError, Moment, RowState, Shell};

/// POST /clients/ID/secrets with the fields of `ours` that hold nothing yet.
#[derive(Template)]
#[template(path = "secrets/secrets.html")]
pub struct SecretsPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub ours: Vec<OurSlot>,
    pub theirs: Vec<TheirSlot>,
    /// What is stored and may be copied.
    pub copies: Vec<CopyForm>,
    pub errors: Vec<FieldError>,
    /// What was saved, as a sentence.
    pub saved: Option<String>,
}

impl SecretsPage {
    fn empty(&self) -> impl Iterator<Item = &OurSlot> {
        self.ours.iter().filter(|slot| slot.stored.is_none())
    }

    fn any_stored(&self) -> bool {
        self.ours.iter().any(|slot| slot.stored.is_some())
    }
}

/// An our-managed slot. Its stored value is known by version and time only.
pub struct OurSlot {
    /// Name of the form field.
    pub field: String,
    pub component: String,
    pub name: String,
    pub key: String,
    pub stored: Option<(u64, Moment)>,
    /// The page that stores a new value.
    pub rotate: String,
}

/// POST to `action` with `secret`, `reason` and, while the session isn't fresh, `step_up_password`.
#[derive(Template)]
#[template(path = "secrets/rotate.html")]
pub struct RotatePage {
    pub shell: Shell,
    pub client: ClientRef,
    pub action: String,
    pub component: String,
    pub name: String,
    pub key: String,
    pub version: u64,
    pub at: Moment,
    /// Each device, and how it stands to the stored version.
    pub devices: Vec<SpreadLine>,
    /// What runs again on each device that has the new version.
    pub restarts: Vec<RunsAgain>,
    /// What was typed.
    pub reason: String,
    pub errors: Vec<FieldError>,
    pub ask_password: bool,
}

/// Steps, by title, that run again on a device when it has another value of a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct RunsAgain {
    pub device: String,
    pub titles: Vec<String>,
    /// Not before the runbook is resumed.
    pub is_paused: bool,
}

/// How one device stands to the stored version of a secret.
pub struct SpreadLine {
    pub device: String,
    pub state: RowState,
    pub words: String,
}

impl SpreadLine {
    /// `spread` is the newest delivery to this device, if there is one.
    pub fn of(device: &Device, spread: Option<&Spread>, on: bool, now: Timestamp) -> Self {
        let seen = match device.last_seen_at {
            Some(at) => format!("not yet: off, last seen {}", Moment { at, now }.words()),
            None => "not yet: never seen".to_owned(),
        };
        let (state, mut words) = match spread {
            Some(spread) if spread.ahead().is_some() => (
                RowState::NeedsYou,
                "holds a newer version than the board stores: the board was restored from a backup. Rotate it, so that \
                 both have the same"
                    .to_owned(),
            ),
            Some(spread) => match spread.state {
                DeliveryState::Receipted => (RowState::Done, format!("has version {}", spread.version)),
                DeliveryState::Refused => {
                    let why = spread.reason.as_deref().unwrap_or("it gave no reason");
                    (RowState::Failed, format!("refused version {}: {why}", spread.version))
                }
                DeliveryState::Superseded => {
                    (RowState::Waiting, "doesn’t get it while it is out of scope".to_owned())
                }
                DeliveryState::Pending | DeliveryState::Sent if on => {
                    (RowState::Running, format!("gets version {}", spread.version))
                }
                DeliveryState::Pending | DeliveryState::Sent => (RowState::Waiting, seen),
            },
            None if on => (RowState::Running, "gets it".to_owned()),
            None => (RowState::Waiting, seen),
        };
        if let Some(older) = spread.filter(|spread| !spread.arrived()).and_then(Spread::in_place) {
            words.push_str(&format!("; it goes on with version {older}"));
        }
        Self { device: device.name.clone(), state, words }
    }
}

/// A client-supplied slot: where it lives, and nothing to type.
pub struct TheirSlot {
    pub component: String,
    pub name: String,
    pub key: String,
    pub hint: String,
}

/// Copies a stored value into the clipboard, by script only: POST to `action` with `reason` and, while the session isn't
/// fresh, `step_up_password`. The page itself never has the value.
pub struct CopyForm {
    /// Part of the elements' ids, unique in the page and the same in every rendering.
    pub id: String,
    pub action: String,
    pub name: String,
    /// The slot's key, where it can be an environment variable.
    pub variable: Option<String>,
    pub ask_password: bool,
    /// It asks for a second person instead: POST to `action` with `reason`, without a script.
    pub second_person: bool,
}
