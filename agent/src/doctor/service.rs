//! The agent as a service: whether it is there, whether it runs, and whether it is this program.

use std::path::Path;

use shared::catalog::Platform;

use super::{Finding, Patient};
use crate::config::{ConfigError, Identity};
use crate::install::{self, PROGRAM};
use crate::journal::{Journal, JournalError};
use crate::status::Live;

const CHECK: &str = "service";

pub(super) fn look(
    patient: &mut Patient<'_>,
    identity: Option<&Identity>,
    live: &Result<Live, ConfigError>,
) -> Vec<Finding> {
    let Some(platform) = Platform::current() else {
        return vec![Finding::problem(CHECK, "this operating system is not supported", "Use a Mac.")];
    };
    let runs = runs(patient);
    if identity.is_some_and(|identity| identity.dev) {
        return vec![match runs {
            true => Finding::ok(CHECK, "joined with --dev; the agent runs"),
            false => Finding::warning(
                CHECK,
                "joined with --dev; no agent runs",
                format!("Start it: `board-agent run --dev --data {}`.", patient.paths.data().display()),
            ),
        }];
    }
    let mut findings = vec![installed(patient, platform, runs, identity.is_some())];
    if identity.is_some()
        && let Ok(Live { agent_version: Some(version), .. }) = live
        && runs
        && version != env!("CARGO_PKG_VERSION")
    {
        findings.push(Finding::warning(
            "version",
            format!("version {version} runs, this is {}", env!("CARGO_PKG_VERSION")),
            "Run `sudo board-agent install` with the newer one: it starts the service anew.",
        ));
    }
    findings
}

/// Only a running agent holds the journal.
fn runs(patient: &Patient<'_>) -> bool {
    let path = patient.paths.journal();
    path.exists() && matches!(Journal::open(&path), Err(JournalError::InUse(_)))
}

fn installed(patient: &mut Patient<'_>, platform: Platform, runs: bool, joined: bool) -> Finding {
    let advice = "`sudo board-agent install` makes the agent a service, or mends it.";
    let file = install::service_file(platform);
    if !file.exists() {
        let saw = format!("it is not installed: there is no {}", file.display());
        return match runs {
            true => {
                Finding::warning(CHECK, format!("{saw}; an agent runs that somebody started by hand"), advice)
            }
            // Before joining that may well come later.
            false if !joined => Finding::warning(CHECK, saw, advice),
            false => Finding::problem(CHECK, saw, advice),
        };
    }
    if let Err(error) = install::check_trust(Path::new(PROGRAM)) {
        return Finding::problem(CHECK, error.to_string(), advice);
    }
    let (program, arguments) = install::is_running(platform);
    match patient.system.run(program, &arguments) {
        Ok(Ok(())) if runs => Finding::ok(CHECK, format!("{} runs", install::LABEL)),
        Ok(Ok(())) => Finding::warning(
            CHECK,
            "the service is loaded, and no agent holds this data folder",
            "It may be starting, or waiting for this device to join; if it stays so, its log says why.",
        ),
        Ok(Err(said)) => Finding::problem(CHECK, format!("it is installed and does not run: {said}"), advice),
        Err(error) => Finding::problem(CHECK, format!("{program} can't be asked: {error}"), advice),
    }
}
