//! Which answers to show. A filter lives in the address, so that a link can be sent.

use std::collections::HashMap;
use std::time::Duration;

use shared::time::Timestamp;

use super::Answer;
use crate::error::Failure;
use crate::inventory::Drift;

/// Longest text in a filter, in characters.
const MAX_TEXT: usize = 200;

/// Every condition has to hold; an empty filter shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Words, each of which is part of the client's, the component's or the device's name, or of the version.
    pub q: String,
    /// A client's id, or part of its name.
    pub client: String,
    /// A component's key or name.
    pub component: String,
    /// How the version begins.
    pub version: String,
    pub drift: Option<Shows>,
    pub age: Option<Age>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Whatever the device has otherwise than the scope wants it.
    Differs,
    /// Unknown, or never reported.
    Open,
    Only(Drift),
}

/// How fresh the answer is, or whether its device is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    TwoHours,
    Day,
    Week,
    On,
    Off,
}

impl Shows {
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Differs, Self::Open].into_iter().chain(Drift::ALL.iter().copied().map(Self::Only))
    }

    /// As the address has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Differs => "differs",
            Self::Open => "open",
            Self::Only(drift) => drift.as_str(),
        }
    }

    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Differs => "differs from the scope",
            Self::Open => "unknown or never reported",
            Self::Only(drift) => drift.word(),
        }
    }

    fn wants(self, drift: Drift) -> bool {
        match self {
            Self::Differs => drift.differs(),
            Self::Open => drift.is_open(),
            Self::Only(only) => only == drift,
        }
    }
}

impl Age {
    pub const ALL: [Self; 5] = [Self::TwoHours, Self::Day, Self::Week, Self::On, Self::Off];

    /// As the address has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TwoHours => "2h",
            Self::Day => "1d",
            Self::Week => "7d",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TwoHours => "answer older than 2 hours",
            Self::Day => "answer older than a day",
            Self::Week => "answer older than a week",
            Self::On => "device is on",
            Self::Off => "device is off",
        }
    }

    fn wants(self, answer: &Answer<'_>, now: Timestamp) -> bool {
        let hours = match self {
            Self::On => return answer.on,
            Self::Off => return answer.device.is_some() && !answer.on,
            Self::TwoHours => 2,
            Self::Day => 24,
            Self::Week => 7 * 24,
        };
        answer.finding.is_older_than(Duration::from_secs(hours * 3600), now)
    }
}

impl Filter {
    /// Reads the query of an address. What it doesn't know is left aside; a value that it doesn't know is refused.
    pub fn read(query: &HashMap<String, String>) -> Result<Self, Failure> {
        let text = |key: &str| {
            query.get(key).map_or_else(String::new, |text| text.trim().chars().take(MAX_TEXT).collect())
        };
        let drift = match text("drift").as_str() {
            "" => None,
            typed => Some(Shows::all().find(|shows| shows.as_str() == typed).ok_or_else(|| {
                unknown("drift", Shows::all().map(Shows::as_str).collect::<Vec<_>>().join(", "))
            })?),
        };
        let age = match text("age").as_str() {
            "" => None,
            typed => Some(
                Age::ALL
                    .into_iter()
                    .find(|age| age.as_str() == typed)
                    .ok_or_else(|| unknown("age", Age::ALL.map(Age::as_str).join(", ")))?,
            ),
        };
        Ok(Self {
            q: text("q"),
            client: text("client"),
            component: text("component"),
            version: text("version"),
            drift,
            age,
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the query of an address: "" or "?…".
    pub fn query(&self) -> String {
        let pairs = [
            ("q", self.q.as_str()),
            ("client", self.client.as_str()),
            ("component", self.component.as_str()),
            ("version", self.version.as_str()),
            ("drift", self.drift.map_or("", Shows::as_str)),
            ("age", self.age.map_or("", Age::as_str)),
        ];
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
        let query = query.finish();
        if query.is_empty() { query } else { format!("?{query}") }
    }

    pub fn wants(&self, answer: &Answer<'_>, now: Timestamp) -> bool {
        self.is_about(answer)
            && self.drift.is_none_or(|shows| shows.wants(answer.finding.drift))
            && self.age.is_none_or(|age| age.wants(answer, now))
    }

    /// Whether all but drift and age fit.
    pub fn is_about(&self, answer: &Answer<'_>) -> bool {
        let version = answer.finding.version.as_deref().unwrap_or_default();
        let device = answer.device.map_or("", |device| device.name.as_str());
        let key = answer.finding.component.as_str();
        let client = self.client.is_empty()
            || contains(&answer.client.name, &self.client)
            || answer.client.id.to_string() == self.client;
        let component = self.component.is_empty()
            || key == self.component
            || answer.name.to_lowercase() == self.component.to_lowercase();
        client
            && component
            && version.starts_with(&self.version)
            && self.q.split_whitespace().all(|word| {
                [&answer.client.name, answer.name, key, device, version]
                    .iter()
                    .any(|text| contains(text, word))
            })
    }
}

fn unknown(field: &str, known: String) -> Failure {
    let detail = format!("This board doesn't know this value of {field}. It knows: {known}.");
    Failure::invalid("filter", "The filter has an unknown value", detail)
}

/// Whether `part` is in `text`, whatever the case.
fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}
