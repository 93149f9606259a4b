//! Joining, and what goes wrong with it, as the person at the Mac sees it.

use std::process::Output;

use tests::agent::Agent;
use tests::consultant::JoinCommand;

use crate::stage::{Database, SOON, Stage};

async fn refused(agent: &Agent, join: &JoinCommand) -> (i32, String) {
    let Output { status, stderr, stdout } = agent.join_command(join).unwrap().output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap(), said)
}

#[tokio::test]
async fn wrong_used_and_foreign_codes_and_pins_say_what_to_do() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let good = stage.consultant.join_command(&client).await.unwrap();
    let (code, said) =
        refused(&stage.agent("a"), &JoinCommand { code: "22222222".into(), ..good.clone() }).await;
    assert!(code == 1 && said.contains("Make a new one"), "{code} {said}");
    let (code, said) =
        refused(&stage.agent("b"), &JoinCommand { pin: "ab".repeat(32), ..good.clone() }).await;
    assert!(code == 1 && said.contains("pin"), "{code} {said}");
    let nowhere = JoinCommand { board: "https://127.0.0.1:1".into(), ..good.clone() };
    let mut unreachable = stage.agent("c").join_command(&nowhere).unwrap();
    let tried =
        tokio::time::timeout(SOON, unreachable.output()).await.expect("it doesn't wait for ever").unwrap();
    assert!(!tried.status.success() && !tried.stderr.is_empty());

    let first = stage.agent("d");
    let joining = first.join(&good).await.unwrap();
    let (code, said) = refused(&stage.agent("e"), &good).await;
    assert!(code == 1 && said.contains("used"), "{code} {said}");
    // The same device asks again: it gets the same answer, and the same fingerprint.
    drop(joining.process);
    let again = first.join(&good).await.unwrap();
    assert_eq!(again.fingerprint, joining.fingerprint);
}

#[tokio::test]
async fn a_wrong_fingerprint_leaves_it_pending_and_a_rejection_is_printed() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let join = stage.consultant.join_command(&client).await.unwrap();
    let agent = stage.agent("mac");
    let mut joining = agent.join(&join).await.unwrap();
    let enrollment = stage.consultant.pending(SOON).await.unwrap();
    let page = stage.consultant.get("/enrollments").await.unwrap();
    for group in joining.fingerprint.split(' ') {
        assert!(!page.contains(group), "the page never shows the fingerprint");
    }
    let answer = stage.consultant.approve(&enrollment, "AAAA AAAA AAAA AAAA").await.unwrap();
    assert_eq!(answer.status.as_u16(), 409);
    assert!(answer.text.contains("another device"), "{}", answer.text);
    let short = stage.consultant.approve(&enrollment, &joining.fingerprint[..9]).await.unwrap();
    assert_eq!(short.status.as_u16(), 422);
    assert_eq!(stage.consultant.pending(SOON).await.unwrap(), enrollment);
    let path = format!("/enrollments/{enrollment}/reject");
    let empty = stage.consultant.post(&path, &[("reason", "")]).await.unwrap();
    assert_eq!(empty.status.as_u16(), 422);
    stage.consultant.post(&path, &[("reason", "This is not the office’s Mac 🙂")]).await.unwrap();
    let mut said = String::new();
    while let Some(line) = joining.process.line().await.unwrap() {
        said += &line;
    }
    let ended = joining.process.wait(SOON).await.unwrap();
    assert_eq!(ended.code(), Some(3), "{said}");
    let log = std::fs::read_to_string(agent.log()).unwrap();
    assert!(format!("{said}{log}").contains("not the office’s Mac 🙂"), "{said}{log}");
}
