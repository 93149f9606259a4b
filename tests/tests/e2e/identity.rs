//! A device's identity over time: renewal with and without a valid certificate, an old copy, another Mac's hardware.

use std::time::Duration;

use serde_json::Value;
use tests::agent::Agent;
use tests::process::output;
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage};

const DAY_US: i64 = 24 * 3600 * 1_000_000;

fn identity(agent: &Agent) -> Value {
    serde_json::from_str(&std::fs::read_to_string(agent.data.join("identity.json")).unwrap()).unwrap()
}

fn write(agent: &Agent, identity: &Value) {
    std::fs::write(agent.data.join("identity.json"), serde_json::to_vec(identity).unwrap()).unwrap();
}

/// Waits until this is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = tokio::time::Instant::now();
    while !so().await {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn last_link(agent: &Agent) -> i64 {
    agent.status().await.unwrap()["last_link"].as_i64().unwrap_or(0)
}

/// Agent and board believe that the certificate ends then; the agent starts, renews, and its link comes up with the new
/// one.
async fn renews(stage: &Stage, agent: &mut Agent, not_after: i64) {
    let mut early = identity(agent);
    let before = early["certificate"].clone();
    early["not_after"] = not_after.into();
    write(agent, &early);
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
db.execute('UPDATE enrollments SET certificate_not_after = ?', (int(sys.argv[2]),))
db.commit()
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(stage.board.layout.path("board/board.db")).arg(not_after.to_string());
    output(&mut python).await.unwrap();
    agent.start().unwrap();
    until("it renews", async || identity(agent)["certificate"] != before).await;
    let renewed = identity(agent);
    assert!(renewed["not_after"].as_i64().unwrap() > not_after + 5 * DAY_US);
    // It is on disk before it is shown for the first time.
    let written = std::fs::metadata(agent.data.join("identity.json")).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    until("the link comes up with it", async || u128::try_from(last_link(agent).await).unwrap() > written)
        .await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_late_and_an_old_copy_is_an_alarm() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    let copy = identity(&agent);
    let issued = copy["not_after"].as_i64().unwrap();

    renews(&stage, &mut agent, issued - 5 * DAY_US).await;
    renews(&stage, &mut agent, issued - 8 * DAY_US).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    agent.stop().await.unwrap();
    let audit = stage.consultant.get("/audit").await.unwrap();
    assert_eq!(audit.matches("certificate.renewed").count(), 2, "{audit}");
    assert!(!audit.contains("device.refused"));

    write(&agent, &copy);
    agent.start().unwrap();
    until("the copy is refused", async || {
        stage.consultant.get("/audit").await.unwrap().contains("device.refused")
    })
    .await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn another_macs_hardware_is_quarantined_until_a_consultant_decides() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    let mut moved = identity(&agent);
    moved["hardware_uuid"] = "UUID-OF-ANOTHER".into();
    write(&agent, &moved);
    agent.start().unwrap();
    until("it is quarantined", async || {
        stage.consultant.get("/enrollments").await.unwrap().contains("Quarantined")
    })
    .await;
    let runbook = stage.consultant.json(&format!("/api/v1/devices/{device}/runbook")).await.unwrap();
    let began = |step: &Value| step["state"] != "ready" && step["state"] != "blocked";
    assert!(!runbook["steps"].as_array().is_some_and(|steps| steps.iter().any(began)), "{runbook:#}");

    let path = format!("/devices/{device}/quarantine");
    let form = [("release", "other"), ("hardware_uuid", "UUID-OF-ANOTHER")];
    let answer = stage.consultant.post(&path, &form).await.unwrap();
    assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    assert!(!stage.consultant.get("/enrollments").await.unwrap().contains("Quarantined"));
    agent.stop().await.unwrap();
}
