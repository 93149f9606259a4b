//! Pause and plan with a real board and a real agent: what is so already and what would run, and nothing runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Database, SOON, Stage, VALUE, heard, until};

/// The runbook, as soon as it fits.
async fn runbook(stage: &mut Stage, device: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/devices/{device}/runbook");
    heard(what, async || stage.consultant.json(&path).await.unwrap(), fits).await
}

fn is_planned(runbook: &Value) -> bool {
    runbook["plan"]["state"] == "done"
}

fn is_on(runbook: &Value) -> bool {
    runbook["on"] == true
}

async fn send(stage: &mut Stage, device: &str, what: &str, form: &[(&str, &str)]) {
    let answer = stage.consultant.post(&format!("/devices/{device}/runbook/{what}"), form).await.unwrap();
    assert_eq!(answer.status.as_u16(), 303, "{what}: {}", answer.text);
}

fn answers(runbook: &Value) -> Vec<(String, Value)> {
    let steps = runbook["plan"]["steps"].as_array().unwrap();
    let answer = |step: &Value| (step["step"].as_str().unwrap().to_owned(), step["answer"].clone());
    steps.iter().map(answer).collect()
}

async fn plan_look_resume(database: Database) {
    let mut stage = Stage::new(database).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    // Step 2 is so already, and step 4 is held up until the runbook is paused.
    let home = agent.home();
    std::fs::create_dir_all(&home).unwrap();
    for file in ["done-2", "hold"] {
        std::fs::write(home.join(file), "").unwrap();
    }
    agent.start().unwrap();
    let runs = |runbook: &Value, state: &str| {
        let steps = runbook["steps"].as_array().unwrap();
        steps.iter().any(|step| step["step"] == "step_4" && step["attempt_state"] == state)
    };
    runbook(&mut stage, &device, "step 4 runs", |runbook| runs(runbook, "running")).await;
    send(&mut stage, &device, "pause", &[("reason", "To look first")]).await;
    std::fs::remove_file(home.join("hold")).unwrap();
    let before = runbook(&mut stage, &device, "step 4 ends", |runbook| runs(runbook, "succeeded")).await;
    assert_eq!(before["paused"]["reason"], "To look first");
    let overview = stage.consultant.get(&format!("/clients/{client}")).await.unwrap();
    assert!(overview.contains("paused, "), "{overview}");
    let effects =
        || -> String { std::fs::read_to_string(home.join("effects")).unwrap().split_whitespace().collect() };
    assert_eq!(effects(), "134");

    send(&mut stage, &device, "plan", &[]).await;
    let planned = runbook(&mut stage, &device, "the plan is there", is_planned).await;
    let expected: Vec<_> = (1..=8)
        .map(|number| (format!("step_{number}"), json!(if number <= 4 { "already-so" } else { "would-run" })))
        .chain([("use".to_owned(), json!("no-check"))])
        .collect();
    assert_eq!(answers(&planned), expected);
    assert_eq!(effects(), "134", "a plan runs nothing");
    let page = stage.consultant.get(&format!("/devices/{device}/runbook")).await.unwrap();
    assert!(page.contains("would run") && page.contains("already so"), "{page}");
    assert!(!page.contains(VALUE));

    // The pause survives the board, and holds the next step.
    stage.board.kill().await.unwrap();
    let address = stage.board.agents_address.clone();
    stage.board.serve(&address).await.unwrap();
    runbook(&mut stage, &device, "the device is on", is_on).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(effects(), "134", "nothing is offered");
    send(&mut stage, &device, "resume", &[]).await;
    let done = stage.consultant.runbook_done(&device, SOON).await.unwrap();
    assert_eq!(done["paused"], Value::Null);
    assert_eq!(effects(), "1345678", "each once, in order, and what was so is not run");

    // Drift: what was done is not so any more, and no step runs because of it.
    std::fs::remove_file(home.join("done-4")).unwrap();
    send(&mut stage, &device, "plan", &[]).await;
    let planned = runbook(&mut stage, &device, "the next plan is there", |runbook| {
        is_planned(runbook) && runbook["plan"]["asked_at"] != planned["plan"]["asked_at"]
    })
    .await;
    assert!(answers(&planned).contains(&("step_4".to_owned(), json!("would-run"))), "{planned:#}");
    let page = stage.consultant.get(&format!("/devices/{device}/runbook")).await.unwrap();
    assert!(page.contains("not so any more"), "{page}");
    assert!(!home.join("done-4").exists());
    agent.stop().await.unwrap();
    stage.board.stop().await.unwrap();
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
}

#[tokio::test]
async fn pause_plan_look_resume_on_sqlite() {
    plan_look_resume(Database::Sqlite).await;
}

#[tokio::test]
async fn pause_plan_look_resume_on_postgresql() {
    plan_look_resume(Database::Postgres).await;
}

#[tokio::test]
async fn a_plan_that_a_killed_agent_had_said_nothing_of_is_made_when_it_is_back() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.consultant.create_client("Example Client", &["ponders"], &[]).await.unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    std::fs::create_dir_all(agent.home()).unwrap();
    std::fs::write(agent.home().join("quick"), "").unwrap();
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let looks = agent.home().join("looks");
    std::fs::remove_file(&looks).unwrap();
    std::fs::remove_file(agent.home().join("quick")).unwrap();
    send(&mut stage, &device, "plan", &[]).await;
    until("the check starts", async || looks.exists()).await;
    agent.kill().await.unwrap();
    let off = runbook(&mut stage, &device, "the device is off", |runbook| runbook["on"] == false).await;
    assert_eq!(off["plan"]["state"], "sent", "{off:#}");
    let refused = stage.consultant.post(&format!("/devices/{device}/runbook/plan"), &[]).await.unwrap();
    assert_eq!(refused.status.as_u16(), 409);
    assert!(refused.text.contains("The device is off"), "{}", refused.text);
    std::fs::write(agent.home().join("quick"), "").unwrap();
    agent.start().unwrap();
    let planned = runbook(&mut stage, &device, "the plan is made", is_planned).await;
    assert_eq!(planned["plan"]["asked_at"], off["plan"]["asked_at"], "nobody had to ask again");
    assert_eq!(answers(&planned), [("ponder".to_owned(), json!("already-so"))]);
    agent.stop().await.unwrap();
}
