use axum::extract::State;
use shared::protocol::link::ReleaseOutcome;

use super::views::{DeviceRow, ReleaseRow, ReleasesPage};
use super::{DeviceProgram, Staged, list, store, word};
use crate::access::Visitor;
use crate::app::App;
use crate::clients::views::ClientRef;
use crate::pages::{Page, page};
use crate::web::{Moment, RowState, Section};

/// Devices on the page.
const MOST: i64 = 500;

pub async fn releases_page(State(app): State<App>, visitor: Visitor) -> Page {
    let mut tx = app.db.read().await?;
    let releases = list(&mut tx).await?;
    let mut devices = store::programs(&mut tx, MOST + 1).await?;
    drop(tx);
    let shown = usize::try_from(MOST).unwrap_or(usize::MAX);
    let cut = devices.len() > shown;
    devices.truncate(shown);
    page(&ReleasesPage {
        releases: releases.into_iter().map(|one| release_row(&visitor, one)).collect(),
        devices: devices.into_iter().map(|one| device_row(&visitor, one)).collect(),
        shell: visitor.shell(Section::Enrollments),
        cut,
    })
}

fn release_row(visitor: &Visitor, release: Staged) -> ReleaseRow {
    ReleaseRow {
        for_what: format!("{} on {}", release.platform, release.arch),
        version: release.version,
        percent: release.percent,
        installed: release.installed,
        refused: release.refused,
        went_back: release.went_back,
        imported: Moment { at: release.imported_at, now: visitor.now },
    }
}

fn device_row(visitor: &Visitor, one: DeviceProgram) -> DeviceRow {
    let state = match one.outcome {
        Some(ReleaseOutcome::WentBack | ReleaseOutcome::Refused) => RowState::Failed,
        Some(ReleaseOutcome::Installed) => RowState::Done,
        None => RowState::Off,
    };
    let release = one.release_version.unwrap_or_default();
    DeviceRow {
        href: format!("/devices/{}/runbook", one.device_id),
        name: one.device,
        client: ClientRef { href: format!("/clients/{}", one.client_id), name: one.client },
        version: one.version,
        said: Moment { at: one.said_at, now: visitor.now },
        state,
        word: one.outcome.map(|outcome| format!("{release} {}", word(outcome))),
        reason: one.reason.filter(|reason| !reason.is_empty()),
    }
}
