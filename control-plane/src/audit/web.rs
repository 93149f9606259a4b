use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::Form;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::export::ExportError;
use super::views::{AlarmRow, AuditPage, AuditRow, Choice};
use super::{Action, Alarm, AlarmKind, Break, Checked, Exported, Filter, FilterError, Format, Stored};
use crate::access::{Role, Visitor};
use crate::app::App;
use crate::error::Failure;
use crate::free_text;
use crate::pages::{Page, page};
use crate::web::{Moment, Section};

/// A page of these stays well under the 80 KiB that a page may weigh.
const ROWS: u32 = 30;
/// A view checks the chain on by this many entries at most; the job does the rest.
const CHECKED_BY_A_VIEW: u64 = 500;
/// Parts of an export that wait for a slow reader.
const WAITING: usize = 2;

type Words = Query<HashMap<String, String>>;

impl From<FilterError> for Failure {
    fn from(error: FilterError) -> Self {
        Self::invalid("filter", "The filter has an unknown value", format!("{error}."))
    }
}

pub async fn audit_page(State(app): State<App>, visitor: Visitor, Query(query): Words) -> Page {
    let filter = Filter::read(&query)?;
    let before = query.get("before").and_then(|before| before.parse().ok());
    let checked = app.audit_watch.walk_on(&app.db, visitor.now, CHECKED_BY_A_VIEW).await?;
    let mut tx = app.db.read().await?;
    let mut stored = super::filtered(&mut tx, before, ROWS + 1, &filter).await?;
    let alarms = super::alarms(&mut tx).await?;
    let (standing, last) = super::count_alarms(&mut tx).await?;
    drop(tx);
    app.audit_watch.set_alarmed(!alarms.is_empty());
    let more = stored.len() > ROWS as usize;
    stored.truncate(ROWS as usize);
    let older = stored.last().filter(|_| more);
    let older = older.map(|last| format!("/audit{}", filter.query(&[("before", last.seq.to_string())])));
    page(&AuditPage {
        shell: visitor.shell(Section::Audit),
        holds: checked.broken.is_none(),
        verified: sentence(&checked),
        checked: Moment { at: checked.at, now: visitor.now },
        alarms: alarms.into_iter().map(|alarm| alarm_row(alarm, &visitor)).collect(),
        standing,
        last: last.filter(|_| standing > 1),
        can_acknowledge: visitor.can(Role::Operator),
        entries: stored.into_iter().map(|stored| row(stored, &visitor)).collect(),
        newest: before.map(|_| format!("/audit{}", filter.query(&[]))),
        older,
        actions: Action::ALL.iter().map(|action| Choice::of(*action, filter.action)).collect(),
        csv: format!("/audit.csv{}", filter.query(&[])),
        jsonl: format!("/audit.jsonl{}", filter.time_only().query(&[])),
        filter,
    })
}

fn sentence(checked: &Checked) -> String {
    let Checked { up_to, of, broken, .. } = checked;
    match broken {
        Some(Break { seq, why }) => format!(
            "The chain is broken at entry {seq}: {why}. Somebody changed the database behind the board. Compare it with a backup and with what devices were told: board audit verify --witness."
        ),
        None if up_to < of => {
            format!("The chain holds up to entry {up_to} of {of}; the rest is checked within a minute.")
        }
        None => format!("The chain holds: verified up to entry {up_to}, the last."),
    }
}

fn row(Stored { seq, entry }: Stored, visitor: &Visitor) -> AuditRow {
    let about = entry
        .detail
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "receipt" | "envelope_sha256"))
        .map(|(key, value)| format!("{key} {value}"))
        .collect::<Vec<_>>()
        .join(", ");
    let only = |filter: Filter| format!("/audit{}", filter.query(&[]));
    AuditRow {
        seq,
        at: Moment { at: entry.at, now: visitor.now },
        by: only(Filter { actor: Some(entry.who.id.clone()), ..Filter::default() }),
        client: entry.client.map(|id| only(Filter { client: Some(id), ..Filter::default() })),
        device: entry.device.map(|id| only(Filter { device: Some(id), ..Filter::default() })),
        who: format!("{} {}", entry.who.kind, entry.who.id),
        action: entry.action.to_string(),
        about,
        reason: entry.reason,
        address: entry.who.address,
    }
}

fn alarm_row(alarm: Alarm, visitor: &Visitor) -> AlarmRow {
    let whom = match alarm.device_id {
        Some(device) => format!("The device {device} was told of entry {}", alarm.seq),
        None => format!("The board itself had seen entry {}", alarm.seq),
    };
    let said = match alarm.kind {
        AlarmKind::Head => format!(
            "{whom} of epoch {}, and {}. The database was rewritten behind the board, or an older one was put back.",
            alarm.epoch, alarm.why
        ),
        AlarmKind::Restore => alarm.why.clone(),
    };
    AlarmRow {
        entry: alarm.entry,
        said,
        at: Moment { at: alarm.raised_at, now: visitor.now },
        action: format!("/audit/alarms/{}", alarm.entry),
    }
}

#[derive(Deserialize)]
pub struct Acknowledgement {
    reason: String,
    /// From the button that ends those before it, too.
    all: Option<String>,
}

pub async fn acknowledge_form(
    State(app): State<App>,
    Path(entry): Path<u64>,
    visitor: Visitor,
    Form(form): Form<Acknowledgement>,
) -> Page {
    let reason = free_text::reason(&form.reason)?;
    let mut tx = app.db.write().await?;
    let ended = match form.all {
        Some(_) => super::acknowledge_up_to(&mut tx, entry, visitor.who(), reason, app.now()).await?,
        None => super::acknowledge(&mut tx, entry, visitor.who(), reason, app.now()).await?,
    };
    if !ended {
        return Err(Failure::not_found("alarm").into());
    }
    tx.commit().await?;
    Ok(Redirect::to("/audit").into_response())
}

pub async fn audit_csv(State(app): State<App>, Query(query): Words) -> Page {
    file(&app, Format::Csv, Filter::read(&query)?).await
}

/// Without gaps, so that it can be verified: only its time can be chosen.
pub async fn audit_jsonl(State(app): State<App>, Query(query): Words) -> Page {
    file(&app, Format::Jsonl, Filter::read(&query)?.time_only()).await
}

/// As a file to keep, streamed: the log may be larger than memory.
async fn file(app: &App, format: Format, filter: Filter) -> Page {
    let export = super::export(&app.db, format, filter).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(send(export, sender));
    let (content, extension) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::Jsonl => ("application/x-ndjson", "jsonl"),
    };
    let day = app.now().to_datetime().date();
    let name = format!("attachment; filename=\"audit-{day}.{extension}\"");
    let headers = [(header::CONTENT_TYPE, content.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response() as Response)
}

/// A part that fails cuts the answer off, so that nobody takes half a log for the whole.
async fn send(mut export: Exported, sender: mpsc::Sender<Result<Bytes, ExportError>>) {
    loop {
        let part = match export.next().await {
            Ok(Some(part)) => Ok(part.into()),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "an export of the audit log ended before its end");
                Err(error)
            }
        };
        let failed = part.is_err();
        if sender.send(part).await.is_err() || failed {
            return;
        }
    }
}
