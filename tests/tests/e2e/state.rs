//! `board state`: support's answer on the command line, with the device on and off, and its exit codes.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tests::process::program;
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage, VALUE};

async fn board_state(board: &str, token: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("board").unwrap());
    command.args(["state", "--board", board]).args(arguments).env_remove("BOARD_TOKEN");
    if let Some(token) = token {
        command.env("BOARD_TOKEN", token);
    }
    command.output().await.unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn support_asks_from_the_command_line_with_the_device_on_and_off() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let token = stage.board.make_token("support", "support").await.unwrap();
    let url = stage.board.console_url.clone();
    let ask = async |arguments: &[&str]| board_state(&url, Some(&token), arguments).await;
    let json = async |arguments: &[&str]| -> Value {
        let output = ask(&[&["--json"], arguments].concat()).await;
        assert!(output.status.success(), "{:?}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let state = json(&[]).await;
    assert_eq!(state["answers"][0]["drift"], "never-reported", "{state:#}");

    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    stage.consultant.all_present(&client, SOON).await.unwrap();
    let state = json(&["--client", &client]).await;
    let answers = state["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 2, "{state:#}");
    assert!(answers.iter().all(|one| one["on"] == true && one["device_id"] == device.as_str()), "{state:#}");
    assert_eq!(json(&["--component", "tool"]).await["answers"].as_array().unwrap().len(), 1);
    assert_eq!(json(&["--search", "nowhere"]).await["answers"].as_array().unwrap().len(), 0);

    agent.stop().await.unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    let off = loop {
        let state = json(&["--client", "example", "--component", "tool"]).await;
        if state["answers"][0]["on"] == false {
            break state;
        }
        assert!(tokio::time::Instant::now() < deadline, "{state:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(off["answers"][0]["presence"], "present", "answered with the device off: {off:#}");

    stage.consultant.rotate_secret(&client, "another-value-entirely", "a year is over").await.unwrap();
    let output = ask(&["--drift", "differs", "--exit-code"]).await;
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("! slot outdated: OUR_KEY") && table.contains("(off)"), "{table}");
    assert!(!table.contains(VALUE) && !table.contains("another-value-entirely"), "{table}");
    assert_eq!(ask(&[]).await.status.code(), Some(0), "without --exit-code an answer is a success");
}

#[tokio::test]
async fn whoever_can_not_ask_is_told_why_and_what_to_do() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let token = stage.board.make_token("support", "support").await.unwrap();
    let url = stage.board.console_url.clone();
    let file = stage.folder.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let from_file = board_state(&url, None, &["--token-file", file.to_str().unwrap()]).await;
    assert!(from_file.status.success(), "{:?}", said(&from_file));

    let wrong = format!("board_{}", "A".repeat(43));
    for (token, expected) in [(None, "there is no token"), (Some(wrong.as_str()), "refuses the token")] {
        let (code, text) = said(&board_state(&url, token, &[]).await);
        assert!(code == Some(2) && text.contains(expected), "{code:?} {text}");
        assert!(text.contains("board token create") && !text.contains(&wrong), "{text}");
    }
    let (code, text) = said(&board_state("http://board.example.com", Some(&token), &[]).await);
    assert!(code == Some(2) && text.contains("was not sent") && !text.contains(&token), "{code:?} {text}");
    let tls = url.replace("http://", "https://");
    let (code, text) = said(&board_state(&tls, Some(&token), &[]).await);
    assert!(code == Some(2) && text.contains("can't be reached"), "{code:?} {text}");
    stage.board.stop().await.unwrap();
    let (code, text) = said(&board_state(&url, Some(&token), &[]).await);
    assert!(
        code == Some(2) && text.contains("can't be reached") && !text.contains(&token),
        "{code:?} {text}"
    );
}
