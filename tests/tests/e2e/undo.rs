//! What was set up is taken back, once an hour, and once more when somebody at the device says so.

use serde_json::Value;

use crate::stage::{Database, SOON, Stage, heard};

struct Undoing {
    stage: Stage,
    device: String,
}

impl Undoing {
    async fn step(&mut self, name: &str) -> Value {
        let path = format!("/api/v1/devices/{}/runbook", self.device);
        let runbook: Value = self.stage.consultant.json(&path).await.unwrap();
        let steps = runbook["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == name).unwrap().clone()
    }

    async fn send(&mut self, name: &str, what: &str, form: &[(&str, &str)]) {
        let id = self.step(name).await["id"].as_str().unwrap().to_owned();
        let path = format!("/devices/{}/runbook/steps/{id}/{what}", self.device);
        let answer = self.stage.consultant.post(&path, form).await.unwrap();
        assert_eq!(answer.status.as_u16(), 303, "{what}: {}", answer.text);
    }

    /// Waits until another attempt of the step ended so.
    async fn ended(&mut self, name: &str, before: &Value, attempt: &str) -> Value {
        let fits = |step: &Value| step["attempt"] != before["attempt"] && step["attempt_state"] == attempt;
        heard(&format!("{name} ends {attempt}"), async || self.step(name).await, fits).await
    }
}

#[tokio::test]
async fn one_undo_an_hour_is_the_boards_and_the_next_wants_somebody_at_the_device() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.consultant.create_client("Example Client", &["undoes"], &[]).await.unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let (first, second) = (agent.home().join("first"), agent.home().join("second"));
    assert!(first.exists() && second.exists());
    let mut undoing = Undoing { stage, device };
    let why = [("reason", "The engagement is smaller now")];

    let before = undoing.step("second").await;
    undoing.send("second", "undo", &why).await;
    let undone = undoing.ended("second", &before, "succeeded").await;
    assert_eq!(undone["state"], "skipped");
    assert!(!second.exists() && first.exists());

    let before = undoing.step("first").await;
    undoing.send("first", "undo", &why).await;
    let refused = undoing.ended("first", &before, "refused").await;
    assert_eq!(refused["state"], "succeeded", "nothing was changed");
    assert!(first.exists());
    let page = undoing.stage.consultant.get(&format!("/devices/{}/runbook", undoing.device)).await.unwrap();
    assert!(page.contains("sudo board-agent allow-undo undoes/first"), "{page}");

    let wrong = agent.allow_undo("undoes/third").await.unwrap_err();
    assert!(wrong.to_string().contains("no step undoes/third"), "{wrong:#}");
    let said = agent.allow_undo("undoes/first").await.unwrap();
    assert!(said.contains("rm \"$HOME/first\""), "whoever allows it sees what runs: {said}");
    // The right outlives a kill of the agent.
    agent.kill().await.unwrap();
    agent.start().unwrap();
    undoing.send("first", "undo", &why).await;
    let undone = undoing.ended("first", &refused, "succeeded").await;
    assert_eq!(undone["state"], "skipped");
    assert!(!first.exists());
    let output = format!("/devices/{}/output/{}", undoing.device, undone["attempt"].as_str().unwrap());
    assert!(undoing.stage.consultant.get(&output).await.unwrap().contains("taking back the first"));

    undoing.send("first", "retry", &[]).await;
    let again = undoing.ended("first", &undone, "succeeded").await;
    assert_eq!(again["state"], "succeeded");
    assert!(first.exists());
    undoing.send("first", "undo", &why).await;
    undoing.ended("first", &again, "refused").await;
    assert!(first.exists(), "the word at the device was for one");
    agent.stop().await.unwrap();
}
