//! The thread through the whole job, on both databases.

use tests::process::output;
use tests::scan;
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage, VALUE};

async fn the_whole_thread(database: Database) {
    let mut stage = Stage::new(database).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let state = stage.consultant.all_present(&client, SOON).await.unwrap();
    assert_eq!(state["devices"][0]["slots"][0]["state"], "present", "{state:#}");

    let effects = std::fs::read_to_string(agent.home().join("effects")).unwrap();
    assert_eq!(effects.split_whitespace().collect::<String>(), "12345678", "each once and in order");
    let length = std::fs::read_to_string(agent.home().join("key-length")).unwrap();
    assert_eq!(length.trim(), VALUE.len().to_string());
    let through_wrapper = output(&mut Command::new(agent.wrapper("show-length"))).await.unwrap();
    assert_eq!(through_wrapper.trim(), VALUE.len().to_string());

    let runbook = stage.consultant.json(&format!("/api/v1/devices/{device}/runbook")).await.unwrap();
    let used = runbook["steps"].as_array().unwrap().iter().find(|step| step["step"] == "use").unwrap();
    let attempt = used["attempt"].as_str().unwrap();
    let shown = stage.consultant.get(&format!("/devices/{device}/output/{attempt}")).await.unwrap();
    assert!(shown.contains("the key is") && !shown.contains(VALUE), "masked on the device: {shown}");

    let inventory = agent.inventory().await.unwrap();
    assert_eq!(inventory["components"].as_array().unwrap().len(), 2, "{inventory:#}");
    let status = agent.status().await.unwrap();
    assert!(status["heads"][0]["seq"].as_u64().unwrap() > 0, "{status:#}");

    let doctor = agent.doctor().await.unwrap();
    let checks = doctor["findings"].as_array().unwrap();
    assert!(checks.iter().any(|f| f["check"] == "clock" && f["state"] == "ok"), "{doctor:#}");

    agent.stop().await.unwrap();
    stage.board.stop().await.unwrap();
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
    let found = scan::files_with(stage.folder.path(), &[VALUE.as_bytes()]).unwrap();
    assert_eq!(found, [std::path::Path::new("mac/vault/slot.tool.OUR_KEY")]);
    assert!(stage.consultant.pages.iter().all(|(_, text)| !text.contains(VALUE)));
}

#[tokio::test]
async fn from_the_form_to_the_installed_state_on_sqlite() {
    the_whole_thread(Database::Sqlite).await;
}

#[tokio::test]
async fn from_the_form_to_the_installed_state_on_postgresql() {
    the_whole_thread(Database::Postgres).await;
}

#[tokio::test]
async fn a_device_that_was_off_gets_what_it_missed_and_support_is_answered_meanwhile() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    stage.consultant.all_present(&client, SOON).await.unwrap();
    agent.stop().await.unwrap();
    stage.consultant.rotate_secret(&client, "another-value-entirely", "a year is over").await.unwrap();
    let state = stage.consultant.json(&format!("/api/v1/clients/{client}/state")).await.unwrap();
    assert_eq!(
        state["devices"][0]["components"].as_array().unwrap().len(),
        2,
        "answered with the device off"
    );
    agent.start().unwrap();
    let path = format!("/api/v1/devices/{device}/runbook");
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let runbook = stage.consultant.json(&path).await.unwrap();
        let delivery = &runbook["deliveries"][0];
        if delivery["version"] == 2 && delivery["state"] == "receipted" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{runbook:#}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let length = output(&mut Command::new(agent.wrapper("show-length"))).await.unwrap();
    assert_eq!(length.trim(), "another-value-entirely".len().to_string());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_device_is_cut_off_at_once() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let path = format!("/api/v1/devices/{device}/runbook");
    assert_eq!(stage.consultant.json(&path).await.unwrap()["on"], true);
    let revoked =
        stage.consultant.post(&format!("/devices/{device}/revoke"), &[("reason", "It was stolen")]).await;
    assert_eq!(revoked.unwrap().status.as_u16(), 303);
    let started = std::time::Instant::now();
    while stage.consultant.json(&path).await.unwrap()["on"] == true {
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "its link is closed at once");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(stage.consultant.json(&path).await.unwrap()["on"], false, "it doesn't come back");
    let log = std::fs::read_to_string(agent.log()).unwrap();
    assert!(log.contains("revoked"), "the device says why: {log}");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_component_that_comes_into_scope_is_installed_on_a_mac_that_is_on() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.consultant.create_client("Example Client", &["ground"], &[]).await.unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let wider = [("component", "ground"), ("component", "tool")];
    let shown = stage.consultant.change_scope(&client, &wider).await.unwrap();
    assert!(
        shown.contains("1 step for the agent") && shown.contains("The agent begins as soon as you confirm"),
        "{shown}"
    );
    stage.consultant.enter_secrets(&client, |_| VALUE.to_owned()).await.unwrap();
    let started = std::time::Instant::now();
    loop {
        let runbook = stage.consultant.runbook_done(&device, SOON).await.unwrap();
        if runbook["steps"].as_array().unwrap().len() == 9 {
            break;
        }
        assert!(started.elapsed() < SOON, "the runbook follows the scope: {runbook:#}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let length = std::fs::read_to_string(agent.home().join("key-length")).unwrap();
    assert_eq!(length.trim(), VALUE.len().to_string());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_component_that_left_the_scope_is_looked_at_until_it_is_gone() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage
        .consultant
        .create_client("Example Client", &["either"], &[("choice-either-sign", "OUR_SIGN")])
        .await
        .unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let shown = stage.consultant.change_scope(&client, &[("component", "ground")]).await.unwrap();
    assert!(shown.contains("1 component stays on the device") && shown.contains("seen installed"), "{shown}");
    let path = format!("/api/v1/clients/{client}/state");
    let started = std::time::Instant::now();
    let drift = async |stage: &mut Stage, wanted: Option<&str>| {
        loop {
            let state = stage.consultant.json(&path).await.unwrap();
            let components = state["devices"][0]["components"].as_array().unwrap();
            let either = components.iter().find(|one| one["component"] == "either").unwrap();
            if either["drift"].as_str() == wanted {
                return;
            }
            assert!(started.elapsed() < SOON, "{wanted:?}: {state:#}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    drift(&mut stage, Some("unwanted")).await;
    std::fs::remove_file(agent.home().join("either")).unwrap();
    // The device looks again when it comes back.
    agent.stop().await.unwrap();
    agent.start().unwrap();
    drift(&mut stage, None).await;
    agent.stop().await.unwrap();
}
