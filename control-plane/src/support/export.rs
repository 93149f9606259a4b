//! The answers as files: JSON with everything, CSV for a spreadsheet.

use serde::{Deserialize, Serialize};
use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::Presence;
use shared::time::Timestamp;

use super::{Answer, Filter, Known};
use crate::app::App;
use crate::error::Failure;
use crate::inventory::Drift;
use crate::web::inert;

/// What `GET /api/v1/state` answers, and what `board state` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateJson {
    /// RFC 3339, as all times here.
    pub made_at: String,
    /// How many of the answers differ from the scope.
    pub differ: usize,
    pub answers: Vec<AnswerJson>,
    /// There are more clients: ask again with `after=` this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ClientId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerJson {
    pub client_id: ClientId,
    pub client: String,
    /// `null` while no device has joined.
    pub device_id: Option<DeviceId>,
    pub device: Option<String>,
    pub on: bool,
    pub last_seen_at: Option<String>,
    /// The component's key.
    pub component: String,
    pub component_name: String,
    pub drift: Drift,
    pub presence: Option<Presence>,
    pub version: Option<String>,
    pub observed_at: Option<String>,
    pub age_seconds: Option<u64>,
    /// Required slots that aren't right.
    pub slots: Vec<SlotJson>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotJson {
    pub slot: String,
    pub drift: Drift,
}

impl AnswerJson {
    fn new(answer: &Answer<'_>, now: Timestamp) -> Self {
        let Answer { client, device, on, finding, name } = answer;
        Self {
            client_id: client.id,
            client: client.name.clone(),
            device_id: device.map(|device| device.id),
            device: device.map(|device| device.name.clone()),
            on: *on,
            last_seen_at: device.and_then(|device| device.last_seen_at).map(Timestamp::rfc3339),
            component: finding.component.clone(),
            component_name: (*name).to_owned(),
            drift: finding.drift,
            presence: finding.presence,
            version: finding.version.clone(),
            observed_at: finding.observed_at.map(Timestamp::rfc3339),
            age_seconds: finding.age(now).map(|age| age.as_secs()),
            slots: finding
                .slots
                .iter()
                .map(|slot| SlotJson { slot: slot.slot.clone(), drift: slot.drift })
                .collect(),
        }
    }
}

impl Known {
    pub fn json(&self, app: &App, filter: &Filter) -> StateJson {
        let answers: Vec<AnswerJson> =
            self.selected(app, filter).iter().map(|answer| AnswerJson::new(answer, self.now)).collect();
        StateJson {
            made_at: self.now.rfc3339(),
            differ: answers.iter().filter(|answer| answer.drift.differs()).count(),
            answers,
            next: None,
        }
    }
}

const HEADER: [&str; 14] = [
    "client",
    "client_id",
    "device",
    "device_id",
    "on",
    "last_seen_at",
    "component",
    "component_name",
    "drift",
    "presence",
    "version",
    "observed_at",
    "age_seconds",
    "slots",
];

impl StateJson {
    /// RFC 4180, with a header.
    pub fn csv(&self) -> Result<Vec<u8>, Failure> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(HEADER).map_err(Failure::internal)?;
        for answer in &self.answers {
            let slots: Vec<String> =
                answer.slots.iter().map(|slot| format!("{} {}", slot.slot, slot.drift.word())).collect();
            let text = |text: &Option<String>| inert(text.as_deref().unwrap_or_default());
            writer
                .write_record([
                    inert(&answer.client),
                    answer.client_id.to_string(),
                    text(&answer.device),
                    answer.device_id.map_or_else(String::new, |id| id.to_string()),
                    answer.on.to_string(),
                    text(&answer.last_seen_at),
                    inert(&answer.component),
                    inert(&answer.component_name),
                    answer.drift.to_string(),
                    answer.presence.map_or_else(String::new, |presence| presence.to_string()),
                    text(&answer.version),
                    text(&answer.observed_at),
                    answer.age_seconds.map_or_else(String::new, |age| age.to_string()),
                    inert(&slots.join("; ")),
                ])
                .map_err(Failure::internal)?;
        }
        writer.into_inner().map_err(|error| Failure::internal(error.into_error()))
    }
}
