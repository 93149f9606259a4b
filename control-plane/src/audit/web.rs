use axum::extract::{Query, State};
use serde::Deserialize;

use super::views::{AuditPage, AuditRow};
use super::{Stored, Verdict, verify};
use crate::access::Visitor;
use crate::app::App;
use crate::pages::{Page, page};
use crate::web::{Moment, Section};

/// A page of these stays well under the 80 KiB that a page may weigh.
const ROWS: u32 = 50;

#[derive(Deserialize)]
pub struct AuditQuery {
    before: Option<u64>,
}

pub async fn audit_page(State(app): State<App>, visitor: Visitor, Query(query): Query<AuditQuery>) -> Page {
    let mut tx = app.db.read().await?;
    let stored = super::page(&mut tx, query.before, ROWS).await?;
    let verdict = verify(&mut tx).await?;
    let holds = matches!(verdict, Verdict::Holds { .. });
    let verified = match verdict {
        Verdict::Holds { entries } => {
            format!("The chain holds: all {entries} entries were checked for this page.")
        }
        Verdict::Broken { seq, why } => {
            format!(
                "The chain is broken at entry {seq}: {why}. Somebody changed the database behind the board."
            )
        }
    };
    let older = stored.last().filter(|last| last.seq > 1).map(|last| format!("/audit?before={}", last.seq));
    page(&AuditPage {
        shell: visitor.shell(Section::Audit),
        entries: stored.into_iter().map(|stored| row(stored, &visitor)).collect(),
        older,
        holds,
        verified,
    })
}

fn row(Stored { seq, entry }: Stored, visitor: &Visitor) -> AuditRow {
    let about = entry
        .detail
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "receipt" | "envelope_sha256"))
        .map(|(key, value)| format!("{key} {value}"))
        .collect::<Vec<_>>()
        .join(", ");
    AuditRow {
        seq,
        at: Moment { at: entry.at, now: visitor.now },
        who: format!("{} {}", entry.who.kind, entry.who.id),
        action: entry.action.to_string(),
        about,
        reason: entry.reason,
        address: entry.who.address,
    }
}
