//! The audit log as a page.

use askama::Template;

use super::{Action, Filter};
use crate::web::{Moment, Shell};

#[derive(Template)]
#[template(path = "audit/audit.html")]
pub struct AuditPage {
    pub shell: Shell,
    pub filter: Filter,
    pub actions: Vec<Choice>,
    /// The first of those that stand.
    pub alarms: Vec<AlarmRow>,
    /// How many stand.
    pub standing: u64,
    /// The entry of the last, where there are several.
    pub last: Option<i64>,
    pub can_acknowledge: bool,
    pub entries: Vec<AuditRow>,
    /// Address of the first page, from a later one.
    pub newest: Option<String>,
    /// Address of the next page back in time.
    pub older: Option<String>,
    /// Addresses of the exports.
    pub csv: String,
    pub jsonl: String,
    /// Whether the chain holds.
    pub holds: bool,
    /// How far the chain was checked, as a sentence, and when.
    pub verified: String,
    pub checked: Moment,
}

impl AuditPage {
    fn since(&self) -> String {
        self.filter.since.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn until(&self) -> String {
        self.filter.until.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

pub struct Choice {
    pub action: Action,
    pub chosen: bool,
}

impl Choice {
    pub fn of(action: Action, chosen: Option<Action>) -> Self {
        Self { action, chosen: chosen == Some(action) }
    }
}

/// A head that the log doesn't hold.
pub struct AlarmRow {
    /// The entry that raised it.
    pub entry: i64,
    pub said: String,
    pub at: Moment,
    /// Where it is acknowledged.
    pub action: String,
}

pub struct AuditRow {
    pub seq: u64,
    pub at: Moment,
    pub who: String,
    /// Addresses of the same page with entries of this one only.
    pub by: String,
    pub client: Option<String>,
    pub device: Option<String>,
    pub action: String,
    pub about: String,
    pub reason: String,
    pub address: String,
}
