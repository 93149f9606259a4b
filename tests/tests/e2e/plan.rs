//! Pause and plan with a real board and a real agent: what is so already and what would run, and nothing runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::consultant::Consultant;

use crate::stage::{Database, SOON, Stage, VALUE};

/// The runbook, as soon as it fits.
async fn until(consultant: &mut Consultant, device: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/devices/{device}/runbook");
    let began = Instant::now();
    loop {
        let runbook = consultant.json(&path).await.unwrap();
        if fits(&runbook) {
            return runbook;
        }
        assert!(began.elapsed() < SOON, "{runbook:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
    // The runbook is composed when the device first connects; it is paused before a step has run.
    std::fs::create_dir_all(agent.home()).unwrap();
    std::fs::write(agent.home().join("done-2"), "").unwrap();
    agent.start().unwrap();
    until(&mut stage.consultant, &device, |runbook| !runbook["steps"].as_array().unwrap().is_empty()).await;
    send(&mut stage, &device, "pause", &[("reason", "To look first")]).await;
    let idle = |runbook: &Value| {
        let busy = ["offered", "running"].map(|state| json!(state));
        runbook["steps"].as_array().unwrap().iter().all(|step| !busy.contains(&step["attempt_state"]))
    };
    let before = until(&mut stage.consultant, &device, idle).await;
    assert_eq!(before["paused"]["reason"], "To look first");
    let overview = stage.consultant.get(&format!("/clients/{client}")).await.unwrap();
    assert!(overview.contains("paused, "), "{overview}");
    let effects = || std::fs::read_to_string(agent.home().join("effects")).unwrap_or_default();
    let (ran, home) = (effects(), agent.home());
    assert!(!home.join("done-8").exists(), "the pause came before the last steps");

    send(&mut stage, &device, "plan", &[]).await;
    let planned = until(&mut stage.consultant, &device, |runbook| runbook["plan"]["state"] == "done").await;
    for (step, answer) in answers(&planned) {
        let so = step.strip_prefix("step_").map(|number| home.join(format!("done-{number}")).exists());
        let expected = match so {
            Some(true) => "already-so",
            Some(false) => "would-run",
            None => "no-check",
        };
        assert_eq!(answer, expected, "{step}: {planned:#}");
    }
    let all = answers(&planned);
    assert!(all.contains(&("step_2".to_owned(), json!("already-so"))), "{planned:#}");
    assert!(all.contains(&("step_8".to_owned(), json!("would-run"))), "{planned:#}");
    assert_eq!(effects(), ran, "a plan runs nothing");
    let page = stage.consultant.get(&format!("/devices/{device}/runbook")).await.unwrap();
    assert!(page.contains("would run") && page.contains("already so"), "{page}");
    assert!(!page.contains(VALUE));

    // The pause survives the board, and holds the next step.
    stage.board.kill().await.unwrap();
    let address = stage.board.agents_address.clone();
    stage.board.serve(&address).await.unwrap();
    until(&mut stage.consultant, &device, |runbook| runbook["on"] == true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(effects(), ran, "nothing is offered");
    send(&mut stage, &device, "resume", &[]).await;
    let done = stage.consultant.runbook_done(&device, SOON).await.unwrap();
    assert_eq!(done["paused"], Value::Null);
    let ran: String = effects().split_whitespace().collect();
    let expected = if ran.contains('2') { "12345678" } else { "1345678" };
    assert_eq!(ran, expected, "each once, in order");

    // Drift: what was done is not so any more, and no step runs because of it.
    std::fs::remove_file(home.join("done-4")).unwrap();
    send(&mut stage, &device, "plan", &[]).await;
    let planned = until(&mut stage.consultant, &device, |runbook| {
        runbook["plan"]["state"] == "done" && runbook["plan"]["asked_at"] != planned["plan"]["asked_at"]
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
async fn an_agent_that_is_killed_in_a_plan_has_not_answered_it_and_answers_the_next() {
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
    let began = Instant::now();
    while !looks.exists() {
        assert!(began.elapsed() < SOON, "the check doesn't start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.kill().await.unwrap();
    let runbook = until(&mut stage.consultant, &device, |runbook| runbook["on"] == false).await;
    assert_eq!(runbook["plan"]["state"], "sent", "{runbook:#}");
    let off = stage.consultant.post(&format!("/devices/{device}/runbook/plan"), &[]).await.unwrap();
    assert_eq!(off.status.as_u16(), 409);
    assert!(off.text.contains("The device is off"), "{}", off.text);
    std::fs::write(agent.home().join("quick"), "").unwrap();
    agent.start().unwrap();
    let runbook =
        until(&mut stage.consultant, &device, |runbook| runbook["plan"]["state"] == "unanswered").await;
    assert_eq!(runbook["plan"]["reason"], "the agent started again in the middle of it");
    let page = stage.consultant.get(&format!("/devices/{device}/runbook")).await.unwrap();
    assert!(page.contains("Not answered"), "{page}");
    until(&mut stage.consultant, &device, |runbook| runbook["on"] == true).await;
    send(&mut stage, &device, "plan", &[]).await;
    let runbook = until(&mut stage.consultant, &device, |runbook| runbook["plan"]["state"] == "done").await;
    assert_eq!(answers(&runbook), [("ponder".to_owned(), json!("already-so"))]);
    agent.stop().await.unwrap();
}
