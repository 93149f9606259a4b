//! The audit log as a page.

use askama::Template;

use crate::web::{Moment, Shell};

#[derive(Template)]
#[template(path = "audit/audit.html")]
pub struct AuditPage {
    pub shell: Shell,
    pub entries: Vec<AuditRow>,
    /// Address of the next page back in time.
    pub older: Option<String>,
    /// Whether the chain holds.
    pub holds: bool,
    /// How far the chain was checked, as a sentence.
    pub verified: String,
}

pub struct AuditRow {
    pub seq: u64,
    pub at: Moment,
    pub who: String,
    pub action: String,
    pub about: String,
    pub reason: String,
    pub address: String,
}
