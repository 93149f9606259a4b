//! Unattended: the consultant is played through the public HTTP interface, and the device is asked at the end.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use data_encoding::BASE64;
use serde_json::Value;

use super::report::{Check, Report, StepFigures};
use super::{Stage, say};
use crate::consultant::{Consultant, list};
use crate::mcp;
use crate::scan;

/// Part of every value that the demo enters or pastes; unmistakable, and in no slot's pattern by itself.
const CANARY: &str = "canary7f3b9d51canary7f3b9d51";
/// What the consultant ticks; Node.js, uv and Claude Code come along.
const COMPONENTS: &[&str] = &["claude_auth", "openrouter", "mcp_skill_pack", "hubspot"];
/// Servers behind wrappers: wrapper name, and whether it takes the home folder as an argument.
const SERVERS: &[(&str, bool)] = &[("skills", true), ("hubspot", false)];
/// npm may be slow; a step has its own limit in the manifest.
const RUNBOOK_LIMIT: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(60);

/// Runs the whole job and writes `report.json`. `Ok(false)` when it ran and the device doesn't have what it should.
pub async fn unattended(mut stage: Stage) -> anyhow::Result<bool> {
    let started = Instant::now();
    let mut consultant = Consultant::welcome(&stage.board.console_url, &stage.board.welcome).await?;
    say("consultant: signed in by the one-time link");
    let choice = ("choice-claude_auth-auth", "ANTHROPIC_API_KEY");
    let client = consultant.create_client("Example Client", COMPONENTS, &[choice]).await?;
    consultant.enter_secrets(&client, our_value).await?;
    say("consultant: went through the wizard, entered our secrets");
    let join = consultant.join_command(&client).await?;
    let mut joining = stage.agent.join(&join).await?;
    say(format!("mac: shows the fingerprint {}", joining.fingerprint));
    let enrollment = consultant.pending(SOON).await?;
    let device = consultant.approve_device(&enrollment, &joining.fingerprint).await?;
    let joined = joining.process.wait(SOON).await?;
    ensure!(
        joined.success(),
        "the agent's join ended with {joined}; its log: {}",
        stage.agent.log().display()
    );
    say("consultant: typed it and approved; the Mac is enrolled");
    stage.agent.start()?;
    consultant.waits_for_you(&device, "app", RUNBOOK_LIMIT).await?;
    stage.agent.paste("hubspot/PRIVATE_APP_ACCESS_TOKEN", &format!("pat-na1-{CANARY}")).await?;
    say("consultant: pasted the client's HubSpot token on the Mac; the board never saw it");
    let runbook = consultant.runbook_done(&device, RUNBOOK_LIMIT).await?;
    say("mac: the runbook is done");
    let state = consultant.all_present(&client, SOON).await?;
    let inventory = stage.agent.inventory().await?;

    let mut checks = vec![on_the_device(&inventory, &state), known_to_the_board(&state)];
    for (wrapper, with_home) in SERVERS {
        checks.push(server_answers(&stage, wrapper, *with_home).await);
    }
    for path in ["/audit", "/enrollments", "/clients"] {
        consultant.get(path).await?;
    }
    for path in [
        format!("/clients/{client}"),
        format!("/clients/{client}/secrets"),
        format!("/devices/{device}/runbook"),
    ] {
        consultant.get(&path).await?;
    }
    checks.push(not_in_pages(&consultant));
    let board_memory_kib = stage.board.process()?.memory_kib();
    let agent_memory_kib = stage.agent.process()?.memory_kib();
    stage.agent.stop().await?;
    let folder = stage.board.layout.root.clone();
    checks.push(only_in_the_store(&stage)?);
    checks.push(audit_holds(&stage).await);
    stage.board.stop().await?;

    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        seconds: started.elapsed().as_secs_f64(),
        steps: figures(&runbook),
        board_memory_kib,
        agent_memory_kib,
        bytes_to_board: stage.relay.to_board.load(Ordering::Relaxed),
        bytes_to_agent: stage.relay.to_agent.load(Ordering::Relaxed),
        checks,
        inventory,
    };
    std::fs::write(folder.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    say(report.text());
    say(format!("Report: {}", folder.join("report.json").display()));
    Ok(report.ok)
}

fn check(name: &str, ok: bool, saw: impl Into<String>) -> Check {
    Check { name: name.to_owned(), ok, saw: saw.into() }
}

/// A value in the form that the slot's manifest wants.
fn our_value(slot: &str) -> String {
    match slot {
        "ANTHROPIC_API_KEY" => format!("sk-ant-api03-{CANARY}"),
        "OPENROUTER_API_KEY" => format!("sk-or-{CANARY}"),
        _ => CANARY.to_owned(),
    }
}

/// The device's own word decides, not what the board believes.
fn on_the_device(inventory: &Value, state: &Value) -> Check {
    let (components, slots) = (list(inventory, "components"), list(inventory, "slots"));
    let wanted = list(&state["devices"][0], "wanted");
    let present =
        |key: &&Value| components.iter().any(|one| one["component"] == **key && one["presence"] == "present");
    let missing: Vec<String> = wanted.iter().filter(|key| !present(key)).map(Value::to_string).collect();
    let held = ["present", "unverifiable"];
    let filled = slots.iter().filter(|slot| held.contains(&text(slot, "state"))).count();
    let versions: Vec<String> = components
        .iter()
        .map(|one| format!("{} {}", text(one, "component"), one["version"].as_str().unwrap_or("present")))
        .collect();
    let ok = missing.is_empty() && !wanted.is_empty() && filled == 4;
    let saw =
        if missing.is_empty() { versions.join(", ") } else { format!("missing: {}", missing.join(", ")) };
    check("asked by `board-agent inventory`", ok, format!("{saw}; {filled} slots filled"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn known_to_the_board(state: &Value) -> Check {
    let device = &state["devices"][0];
    let (known, wanted) = (list(device, "components").len(), list(device, "wanted").len());
    check("support can ask what is there", wanted > 0 && known >= wanted, format!("{known} components known"))
}

/// The wrapper gets the value through the broker; the server answers, and only its processes have it.
async fn server_answers(stage: &Stage, wrapper: &str, with_home: bool) -> Check {
    let asked = async {
        let path = stage.agent.wrapper(wrapper);
        let home = stage.agent.home();
        let arguments: Vec<&Path> = if with_home { vec![&home] } else { Vec::new() };
        let server = mcp::Server::start(&path, &arguments, SOON).await?;
        let id = server.id().context("the server runs")?;
        let (command_lines, environments) = scan::processes_with(CANARY.as_bytes())?;
        ensure!(command_lines.is_empty(), "command lines show the secret: {command_lines:?}");
        ensure!(environments.contains(&id), "the server's environment has the secret");
        let below = |candidate: &u32| is_below(*candidate, id);
        ensure!(
            environments.iter().all(below),
            "other processes have it in their environment: {environments:?}"
        );
        let name = text(&server.initialized["serverInfo"], "name").to_owned();
        Ok::<_, anyhow::Error>(format!(
            "{name} answered; the secret is in its environment and in no command line"
        ))
    };
    let asked = asked.await;
    let name = format!("MCP initialize through the wrapper {wrapper}");
    check(&name, asked.is_ok(), asked.unwrap_or_else(|error| format!("{error:#}")))
}

/// Whether a process is `ancestor` or was started below it.
fn is_below(mut id: u32, ancestor: u32) -> bool {
    for _ in 0..64 {
        if id == ancestor {
            return true;
        }
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        match parent {
            Some(parent) if parent > 1 => id = parent,
            _ => return false,
        }
    }
    false
}

fn not_in_pages(consultant: &Consultant) -> Check {
    let shown: Vec<&str> = consultant
        .pages
        .iter()
        .filter(|(_, text)| text.contains(CANARY))
        .map(|(path, _)| path.as_str())
        .collect();
    let saw = if shown.is_empty() {
        format!("{} pages searched", consultant.pages.len())
    } else {
        shown.join(", ")
    };
    check("no page shows the secret", shown.is_empty(), saw)
}

/// Searches every file for the value, plain and in base64; first it has to find a planted one.
fn only_in_the_store(stage: &Stage) -> anyhow::Result<Check> {
    let root = &stage.board.layout.root;
    let base64 = base64_forms(CANARY.as_bytes());
    let needles: Vec<&[u8]> =
        std::iter::once(CANARY.as_bytes()).chain(base64.iter().map(|form| form.as_bytes())).collect();
    let planted = root.join("logs/planted");
    std::fs::write(&planted, format!("xx{CANARY}xx"))?;
    let with_plant = scan::files_with(root, &needles)?;
    std::fs::remove_file(&planted)?;
    ensure!(with_plant.iter().any(|path| path.ends_with("planted")), "the search finds a planted value");
    let found = scan::files_with(root, &needles)?;
    let ok = !found.is_empty() && found.iter().all(|path| path.starts_with("agent/vault"));
    let files: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    Ok(check("the secret lies in the clear only in the device's store", ok, files.join(", ")))
}

/// What a value looks like inside base64, at each of the three offsets, without the characters that its neighbours
/// decide.
fn base64_forms(value: &[u8]) -> Vec<String> {
    (0..3)
        .map(|offset| {
            let padded: Vec<u8> = std::iter::repeat_n(0, offset).chain(value.iter().copied()).collect();
            let whole = &padded[..padded.len() / 3 * 3];
            BASE64.encode(whole)[if offset == 0 { 0 } else { 4 }..].to_owned()
        })
        .collect()
}

async fn audit_holds(stage: &Stage) -> Check {
    match stage.board.verify_audit().await {
        Ok(text) => check("`board audit verify`", text.contains("\"holds\":true"), text.trim()),
        Err(error) => check("`board audit verify`", false, format!("{error:#}")),
    }
}

fn figures(runbook: &Value) -> Vec<StepFigures> {
    list(runbook, "steps")
        .iter()
        .map(|step| StepFigures {
            step: format!(
                "{}/{}",
                step["component"].as_str().unwrap_or_default(),
                step["step"].as_str().unwrap_or_default()
            ),
            outcome: step["attempt_state"].as_str().or(step["state"].as_str()).unwrap_or_default().to_owned(),
            milliseconds: step["duration_ms"].as_u64(),
            push_to_run_milliseconds: step["push_to_run_ms"].as_u64(),
        })
        .collect()
}
