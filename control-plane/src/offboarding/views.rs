//! The client page's part "The end of the engagement".

use std::time::Duration;

use askama::Template;
use askama::filters::HtmlSafe;

use crate::access::{Role, Visitor};
use crate::app::App;
use crate::clients::Client;
use crate::clients::engagement::{self, Engagement, EngagementState};
use crate::db::{Db, Tx};
use crate::enrollment::{self, Asked, Device, DeviceState};
use crate::error::Failure;
use crate::web::{Moment, RowState};

/// The forms: beside the live part, because a form that is being filled is never replaced.
#[derive(Template)]
#[template(path = "offboarding/_forms.html")]
pub struct EndForms {
    pub href: String,
    pub client: String,
    pub state: EngagementState,
    pub days: i64,
    /// Devices that would be wiped.
    pub devices: usize,
}

/// How it stands.
#[derive(Template)]
#[template(path = "offboarding/_end.html")]
pub struct EndView {
    pub state: EngagementState,
    pub days: i64,
    pub ended: Option<(Moment, String)>,
    pub due: Option<Moment>,
    pub hold_reason: Option<String>,
    pub purged: Option<Moment>,
    /// The database's files may still hold what was erased.
    pub unwritten: bool,
    pub postgres: bool,
    /// When the last backup ends that holds it.
    pub backups_until: Option<Moment>,
    pub wipes: Vec<WipeRow>,
}

pub struct WipeRow {
    pub device: String,
    pub href: String,
    pub state: RowState,
    pub word: &'static str,
    pub sentence: String,
    pub asked: Moment,
    pub asked_by: String,
}

impl HtmlSafe for EndView {}
impl HtmlSafe for EndForms {}

/// Nothing for who may not end it.
pub async fn forms(tx: &mut Tx, client: &Client, visitor: &Visitor) -> Result<Option<EndForms>, Failure> {
    if !visitor.can(Role::Consultant) {
        return Ok(None);
    }
    let found = engagement::engagement(tx, client.id).await?;
    let devices = enrollment::devices_of(tx, client.id).await?;
    let living = |device: &&Device| matches!(device.state, DeviceState::Enrolled | DeviceState::Quarantined);
    Ok(Some(EndForms {
        href: format!("/clients/{}/engagement", client.id),
        client: client.name.clone(),
        state: found.state,
        days: found.purge_after_days,
        devices: devices.iter().filter(living).count(),
    }))
}

pub async fn view(app: &App, tx: &mut Tx, client: &Client, visitor: &Visitor) -> Result<EndView, Failure> {
    let Engagement {
        state,
        purge_after_days,
        ended_at,
        ended_by,
        purge_due_at,
        hold_reason,
        purged_at,
        rewritten_at,
    } = engagement::engagement(tx, client.id).await?;
    let moment = |at| Moment { at, now: visitor.now };
    let devices = enrollment::devices_of(tx, client.id).await?;
    let mut wipes = Vec::new();
    for asked in enrollment::wipes_of(tx, client.id).await? {
        let device = devices.iter().find(|device| device.id == asked.device_id);
        wipes.extend(device.and_then(|device| row(&asked, device, visitor)));
    }
    let keep = app.backup_retention_days.map(|days| Duration::from_secs(24 * 3600) * days);
    Ok(EndView {
        state,
        days: purge_after_days,
        ended: ended_at.map(|at| (moment(at), ended_by.unwrap_or_default())),
        due: purge_due_at.map(moment),
        hold_reason,
        purged: purged_at.map(moment),
        unwritten: purged_at.is_some() && rewritten_at.is_none(),
        postgres: matches!(app.db, Db::Postgres(_)),
        backups_until: purged_at.zip(keep).map(|(at, keep)| moment(at.after(keep))),
        wipes,
    })
}

/// None for a device that joined again since.
fn row(asked: &Asked, device: &Device, visitor: &Visitor) -> Option<WipeRow> {
    let (state, word, sentence) = match (device.state, asked.receipt()) {
        (DeviceState::Leaving, _) => (
            RowState::Waiting,
            "wipe not confirmed",
            "It is wiped as soon as it is on and reaches the board.".to_owned(),
        ),
        (DeviceState::Revoked, Some(receipt)) => {
            let left: Vec<_> =
                receipt.left.iter().map(|one| format!("{}/{}", one.component, one.slot)).collect();
            let left = match left.is_empty() {
                true => String::new(),
                false => format!(" Left, because the client pasted it: {}.", left.join(", ")),
            };
            let number = crate::web::count(receipt.removed.len() as u64, "secret", "secrets");
            (RowState::Done, "wiped", format!("It removed {number} and signed a receipt.{left}"))
        }
        (DeviceState::Revoked, None) => (
            RowState::Failed,
            "wipe never confirmed",
            "Its certificate is refused. What it holds has to be rotated at the provider.".to_owned(),
        ),
        (DeviceState::Approved | DeviceState::Enrolled | DeviceState::Quarantined, _) => return None,
    };
    Some(WipeRow {
        device: device.name.clone(),
        href: format!("/devices/{}/runbook", device.id),
        state,
        word,
        sentence,
        asked: Moment { at: asked.asked_at, now: visitor.now },
        asked_by: if asked.asked_by == device.id.to_string() {
            "the device".to_owned()
        } else {
            asked.asked_by.clone()
        },
    })
}
