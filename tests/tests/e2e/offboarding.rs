//! The end of an engagement: devices that are on, off and killed are wiped and say so; a device leaves by itself.

use std::time::Duration;

use serde_json::Value;
use tests::agent::Agent;
use tests::process::{output, program};
use tests::scan;
use tokio::process::Command;

use crate::device::identity;
use crate::stage::{Database, SOON, Stage, VALUE};

struct Scene {
    stage: Stage,
    client: String,
    agent: Agent,
}

impl Scene {
    /// A device with our secret in its store.
    async fn new(database: Database) -> Self {
        let mut stage = Stage::new(database).await;
        let client = stage.client().await;
        let mut agent = stage.agent("mac");
        let device = stage.enroll(&client, &agent).await;
        agent.start().unwrap();
        stage.consultant.runbook_done(&device, SOON).await.unwrap();
        stage.consultant.all_present(&client, SOON).await.unwrap();
        let scene = Self { stage, client, agent };
        assert_eq!(scene.holds(), 1, "the scan finds it before");
        scene
    }

    async fn end(&mut self) {
        let path = format!("/clients/{}/engagement/end", self.client);
        let answer = self.stage.consultant.post_as_myself(&path, &[]).await.unwrap();
        assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
    }

    /// Files of the device that hold our secret.
    fn holds(&self) -> usize {
        scan::files_with(&self.agent.data, &[VALUE.as_bytes()]).unwrap().len()
    }

    async fn state(&mut self) -> Value {
        let path = format!("/api/v1/clients/{}/state", self.client);
        self.stage.consultant.json(&path).await.unwrap()["devices"][0].clone()
    }

    async fn until(&mut self, wanted: &str) -> Value {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let state = self.state().await;
            if state["state"] == wanted {
                return state;
            }
            assert!(tokio::time::Instant::now() < deadline, "not {wanted} in time: {state:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn page(&mut self) -> String {
        self.stage.consultant.get(&format!("/clients/{}", self.client)).await.unwrap()
    }

    async fn is_wiped(&mut self) {
        let state = self.until("revoked").await;
        let ours = state["slots"].as_array().unwrap().iter().find(|slot| slot["slot"] == "OUR_KEY");
        assert!(ours.is_none_or(|slot| slot["state"] == "empty"), "{state:#}");
        assert_eq!(self.holds(), 0);
        assert!(!self.agent.wrapper("show-length").exists());
        let page = self.page().await;
        assert!(page.contains("wiped") && page.contains("signed a receipt"), "{page}");
        let log = self.stage.consultant.get("/audit.csv").await.unwrap();
        assert_eq!(log.matches("device.wiped").count(), 1, "{log}");
    }
}

async fn a_device_that_is_on_is_wiped_at_once(database: Database) {
    let mut scene = Scene::new(database).await;
    scene.end().await;
    scene.is_wiped().await;
    scene.agent.stop().await.unwrap();
    scene.stage.board.stop().await.unwrap();
    assert!(scene.stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
}

#[tokio::test]
async fn a_device_that_is_on_is_wiped_at_once_on_sqlite() {
    a_device_that_is_on_is_wiped_at_once(Database::Sqlite).await;
}

#[tokio::test]
async fn a_device_that_is_on_is_wiped_at_once_on_postgresql() {
    a_device_that_is_on_is_wiped_at_once(Database::Postgres).await;
}

#[tokio::test]
async fn a_device_that_was_off_or_killed_is_wiped_when_it_comes_back() {
    let mut scene = Scene::new(Database::Sqlite).await;
    scene.agent.kill().await.unwrap();
    scene.end().await;
    scene.until("leaving").await;
    assert!(scene.page().await.contains("wipe not confirmed"));
    assert_eq!(scene.holds(), 1);
    scene.agent.start().unwrap();
    // Killed somewhere in the middle, again and again.
    for wait in [60, 120, 240] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        scene.agent.kill().await.unwrap();
        scene.agent.start().unwrap();
    }
    scene.is_wiped().await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_leaving_device_learns_of_the_next_authority_before_its_wipe() {
    let mut scene = Scene::new(Database::Sqlite).await;
    scene.agent.stop().await.unwrap();
    let begun = scene.stage.board.beside(&["ca", "rotate"], "").await.unwrap();
    assert!(begun.status.success(), "{begun:?}");
    scene.end().await;
    scene.agent.start().unwrap();
    scene.is_wiped().await;
    let log = scene.stage.consultant.get("/audit.csv").await.unwrap();
    assert!(log.contains("ca.acknowledged"), "{log}");
    assert!(identity(&scene.agent)["next_ca"].is_object());
    scene.agent.stop().await.unwrap();
}

async fn leave(agent: &Agent, options: &[&str]) -> String {
    let mut command = Command::new(program("board-agent").unwrap());
    output(command.arg("leave").args(options).arg("--data").arg(&agent.data)).await.unwrap()
}

#[tokio::test]
async fn a_device_leaves_by_itself_and_the_board_has_its_receipt() {
    let mut scene = Scene::new(Database::Sqlite).await;
    let said = leave(&scene.agent, &["--yes"]).await;
    assert!(
        said.contains("signed receipt") && said.contains("tool/OUR_KEY") && !said.contains(VALUE),
        "{said}"
    );
    scene.is_wiped().await;
    let log = scene.stage.consultant.get("/audit.csv").await.unwrap();
    assert!(log.contains("asked by the device"), "{log}");
    assert!(
        !scene.agent.data.join("identity.json").exists() && !scene.agent.data.join("vault/key.tls").exists()
    );
    assert!(scene.agent.status().await.is_err(), "it has not joined");
}

#[tokio::test]
async fn a_device_leaves_without_the_board_and_says_that_it_does_not_know() {
    let mut scene = Scene::new(Database::Sqlite).await;
    scene.stage.board.stop().await.unwrap();
    let said = leave(&scene.agent, &["--offline", "--yes"]).await;
    assert!(said.contains("The board doesn't know") && said.contains("tool/OUR_KEY"), "{said}");
    assert_eq!(scene.holds(), 0);
    assert!(!scene.agent.data.join("identity.json").exists());
}

#[tokio::test]
async fn the_command_line_purges_what_is_due_and_says_what_is_left_to_do() {
    for database in [Database::Sqlite, Database::Postgres] {
        let mut stage = Stage::new(database).await;
        let client = stage.client().await;
        let days = format!("/clients/{client}/engagement/days");
        assert_eq!(stage.consultant.post(&days, &[("days", "0")]).await.unwrap().status.as_u16(), 303);
        // The job of a running board would come first.
        let end = format!("/clients/{client}/engagement/end");
        let answer = stage.consultant.post_as_myself(&end, &[]).await.unwrap();
        assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
        stage.board.stop().await.unwrap();
        let purge = |options: &'static [&'static str]| {
            let mut command = stage.board.command("purge").unwrap();
            command.args(options);
            async move {
                let done = command.output().await.unwrap();
                (done.status.code(), serde_json::from_slice::<Value>(&done.stdout).unwrap())
            }
        };
        let (code, due) = purge(&["--dry-run", "--json"]).await;
        assert_eq!((code, due["clients"].as_array().unwrap().len()), (Some(0), 1), "{due:#}");
        let (code, done) = purge(&["--json"]).await;
        let (exit, rewritten) = match database {
            Database::Sqlite => (0, "done"),
            Database::Postgres => (4, "not-owner"),
        };
        assert_eq!((code, done["rewritten"].as_str()), (Some(exit), Some(rewritten)), "{done:#}");
        assert_eq!(done["clients"][0]["secrets"], 1, "{done:#}");
        let (_, again) = purge(&["--json"]).await;
        assert!(again["clients"].as_array().unwrap().is_empty(), "{again:#}");
    }
}
