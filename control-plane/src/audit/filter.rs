//! Which entries to show or to export. A filter lives in the address, so that a link can be sent.

use std::collections::HashMap;
use std::time::Duration;

use shared::ids::{ClientId, DeviceId};
use shared::time::Timestamp;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

use super::{Action, store};
use crate::db::Tx;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longest text in a filter, in characters: an email address has at most 254.
const MAX_TEXT: usize = 254;

/// Every condition has to hold; an empty filter shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub client: Option<ClientId>,
    pub device: Option<DeviceId>,
    /// Who did it: an email address, a device's id, a token's name, a job's name.
    pub actor: Option<String>,
    pub action: Option<Action>,
    /// As it was typed: a day or a moment.
    pub since: Option<Moment>,
    /// The same; a day is meant whole.
    pub until: Option<Moment>,
}

/// A day (`2026-11-25`, UTC) or a moment (RFC 3339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    typed: String,
    at: Timestamp,
    is_day: bool,
}

/// Sequence numbers from (included) and to (excluded).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub from: i64,
    pub to: i64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field} can't be {typed:?}: {wanted}")]
pub struct FilterError {
    field: &'static str,
    typed: String,
    wanted: &'static str,
}

impl std::str::FromStr for Moment {
    type Err = &'static str;

    fn from_str(typed: &str) -> Result<Self, &'static str> {
        let day = time::macros::format_description!("[year]-[month]-[day]");
        let made = |at: OffsetDateTime, is_day| Self {
            typed: typed.to_owned(),
            at: Timestamp::from_datetime(at),
            is_day,
        };
        if let Ok(date) = Date::parse(typed, day) {
            return Ok(made(date.midnight().assume_utc(), true));
        }
        OffsetDateTime::parse(typed, &Rfc3339)
            .map(|at| made(at, false))
            .map_err(|_| "give a day like 2026-11-25 (UTC), or a moment like 2026-11-25T09:30:00Z")
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.typed)
    }
}

impl Filter {
    /// Reads the query of an address. What it doesn't know is left aside; a value that it doesn't know is refused.
    pub fn read(query: &HashMap<String, String>) -> Result<Self, FilterError> {
        Ok(Self {
            client: value(query, "client", "give a client's id")?,
            device: value(query, "device", "give a device's id")?,
            actor: text(query, "actor"),
            action: value(query, "action", "it is no action that this board records")?,
            since: moment(query, "since")?,
            until: moment(query, "until")?,
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same time, without the other conditions: what an export that can be verified has to be.
    #[must_use]
    pub fn time_only(&self) -> Self {
        Self { since: self.since.clone(), until: self.until.clone(), ..Self::default() }
    }

    /// As the query of an address, with `more` behind it: "" or "?…".
    pub fn query(&self, more: &[(&str, String)]) -> String {
        let text = |value: Option<String>| value.unwrap_or_default();
        let pairs = [
            ("client", text(self.client.map(|id| id.to_string()))),
            ("device", text(self.device.map(|id| id.to_string()))),
            ("actor", text(self.actor.clone())),
            ("action", text(self.action.map(|action| action.to_string()))),
            ("since", text(self.since.as_ref().map(ToString::to_string))),
            ("until", text(self.until.as_ref().map(ToString::to_string))),
        ];
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs.iter().chain(more).filter(|(_, value)| !value.is_empty()));
        let query = query.finish();
        if query.is_empty() { query } else { format!("?{query}") }
    }

    /// The part of the log that its times mean. Without a gap: entries are in order of writing, so one whose time is a
    /// moment outside may be among them.
    pub async fn bounds(&self, tx: &mut Tx) -> Result<Bounds, sqlx::Error> {
        let from = match &self.since {
            Some(since) => store::first_since(tx, since.at).await?.unwrap_or(i64::MAX),
            None => 0,
        };
        let to = match &self.until {
            Some(until) => {
                let end = if until.is_day { until.at.after(DAY) } else { until.at };
                store::last_until(tx, end).await?.map_or(0, |seq| seq.saturating_add(1))
            }
            None => i64::MAX,
        };
        Ok(Bounds { from, to })
    }
}

fn text(query: &HashMap<String, String>, field: &str) -> Option<String> {
    let text: String = query.get(field)?.trim().chars().take(MAX_TEXT).filter(|c| *c != '\0').collect();
    (!text.is_empty()).then_some(text)
}

fn value<T: std::str::FromStr>(
    query: &HashMap<String, String>,
    field: &'static str,
    wanted: &'static str,
) -> Result<Option<T>, FilterError> {
    let Some(typed) = text(query, field) else { return Ok(None) };
    typed.parse().map(Some).map_err(|_| FilterError { field, typed, wanted })
}

fn moment(query: &HashMap<String, String>, field: &'static str) -> Result<Option<Moment>, FilterError> {
    let Some(typed) = text(query, field) else { return Ok(None) };
    typed.parse().map(Some).map_err(|wanted| FilterError { field, typed, wanted })
}
