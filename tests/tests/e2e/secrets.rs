//! Rules of keys and audit that need the real programs, and the list of all of them.

use std::time::Duration;

use tests::process::{Process, program};
use tests::rules::{exists, rules};
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage};

#[test]
fn every_test_that_a_rule_names_is_there() {
    let rules = rules().unwrap();
    assert!(rules.len() > 80, "{}", rules.len());
    let wrong: Vec<&String> =
        rules.iter().flat_map(|rule| &rule.tests).filter(|test| !exists(test).unwrap()).collect();
    assert!(wrong.is_empty(), "tests/rules.toml names tests that are not there: {wrong:#?}");
}

fn core_limit(process: &Process) -> String {
    let path = format!("/proc/{}/limits", process.id().unwrap());
    let limits = std::fs::read_to_string(path).unwrap();
    limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned()
}

async fn verify(stage: &Stage, witness: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program("board").unwrap());
    let data = stage.board.layout.path("board");
    command.args(["audit", "verify", "--witness", witness, "--data"]).arg(data);
    let done = command.output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.code(), said)
}

#[tokio::test]
async fn a_database_that_was_put_back_is_found_out_by_the_device() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    for process in [stage.board.process().unwrap(), agent.process().unwrap()] {
        let limit = core_limit(process);
        assert_eq!(limit.split_whitespace().filter(|word| *word == "0").count(), 2, "no core file: {limit}");
    }
    agent.stop().await.unwrap();
    let address = stage.board.agents_address.clone();
    stage.board.stop().await.unwrap();
    let database = stage.board.layout.path("board/board.db");
    let older = stage.board.layout.path("older.db");
    std::fs::copy(&database, &older).unwrap();

    stage.board.serve(&address).await.unwrap();
    stage.consultant.create_client("Forgotten Client", &["tool"], &[]).await.unwrap();
    agent.start().unwrap();
    let created = agent.status().await.unwrap()["heads"].as_array().unwrap().len();
    let told = async {
        while agent.status().await.unwrap()["heads"].as_array().unwrap().len() == created {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.expect("the device is told the head");
    agent.stop().await.unwrap();
    stage.board.stop().await.unwrap();
    let witness = stage.board.layout.path("mac.json").display().to_string();
    std::fs::write(&witness, agent.status().await.unwrap().to_string()).unwrap();
    let (code, said) = verify(&stage, &witness).await;
    assert!(code == Some(0) && said.contains("heads fit"), "{code:?} {said}");

    std::fs::copy(&older, &database).unwrap();
    let (code, said) = verify(&stage, &witness).await;
    assert!(code == Some(4) && said.contains(&device) && said.contains("the log ends before it"), "{said}");
    stage.board.serve(&address).await.unwrap();
    agent.start().unwrap();
    let alarm = async {
        while !stage.consultant.get("/audit").await.unwrap().contains("an older one was put back") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, alarm).await.expect("the audit page shows the alarm");
    assert!(stage.consultant.get("/health").await.unwrap().starts_with("degraded"));
    agent.stop().await.unwrap();
}
