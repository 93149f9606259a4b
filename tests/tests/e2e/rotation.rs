//! A secret's new version on its way: from the page and from the command line, to devices that are on and off.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::agent::Agent;
use tests::process::output;
use tests::scan;
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage, VALUE, heard};

const FROM_PAGE: &str = "canary-from-the-page-2";
const FROM_STDIN: &str = "canary-from-a-pipe-three-3";

/// The running board looks for what other programs stored at least this often; the rest is for slow machines.
const NOTICED: Duration = Duration::from_secs(5 + 10);

/// Waits until the program behind the wrapper reads a value of this length, and the step that keeps it has run again.
async fn holds(agent: &Agent, value: &str) {
    let expected = value.len().to_string();
    let lengths = async || {
        let kept = std::fs::read_to_string(agent.home().join("key-length")).unwrap();
        let read = output(&mut Command::new(agent.wrapper("show-length"))).await.unwrap_or_default();
        [kept, read].map(|length| length.trim().to_owned())
    };
    let what = format!("the step kept {expected} bytes, the wrapper reads as many");
    heard(&what, lengths, |lengths| lengths.iter().all(|length| *length == expected)).await;
}

/// The client's page, once it says this.
async fn shows(stage: &mut Stage, client: &str, text: &str) -> String {
    let path = format!("/clients/{client}");
    let page = async || stage.consultant.get(&path).await.unwrap();
    heard(&format!("the page says {text:?}"), page, |page| page.contains(text)).await
}

async fn runbook(stage: &mut Stage, device: &str) -> Value {
    stage.consultant.json(&format!("/api/v1/devices/{device}/runbook")).await.unwrap()
}

fn used(runbook: &Value) -> &Value {
    runbook["steps"].as_array().unwrap().iter().find(|step| step["step"] == "use").unwrap()
}

fn said(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

async fn a_rotation(database: Database) {
    let mut stage = Stage::new(database).await;
    let client = stage.client().await;
    let (mut on, mut off) = (stage.agent("on"), stage.agent("off"));
    let device = stage.enroll(&client, &on).await;
    let other = stage.enroll(&client, &off).await;
    for (agent, device) in [(&mut on, &device), (&mut off, &other)] {
        agent.start().unwrap();
        stage.consultant.runbook_done(device, SOON).await.unwrap();
    }
    off.stop().await.unwrap();
    let first = used(&runbook(&mut stage, &device).await)["attempt"].clone();

    // On the page.
    stage.consultant.rotate_secret(&client, FROM_PAGE, "it was in a screenshot").await.unwrap();
    holds(&on, FROM_PAGE).await;
    let again = stage.consultant.runbook_done(&device, SOON).await.unwrap();
    assert_ne!(used(&again)["attempt"], first, "a fresh attempt");
    let page = shows(&mut stage, &client, "not yet: off, last seen").await;
    assert!(page.contains("has version 2") && page.contains("it goes on with version 1"), "{page}");
    assert_eq!(
        std::fs::read_to_string(off.home().join("key-length")).unwrap().trim(),
        VALUE.len().to_string()
    );

    // From the command line; the running board notices by itself.
    let arguments = ["rotate", "--client", "Example Client", "--slot", "tool/OUR_KEY", "--reason", "again"];
    let piped = [arguments.as_slice(), &["--from-stdin", "--json"]].concat();
    let same = stage.board.beside(&piped, &format!("{FROM_PAGE}\n")).await.unwrap();
    assert!(!same.status.success() && said(&same).contains("stored already"), "{}", said(&same));
    let begun = Instant::now();
    let done = stage.board.beside(&piped, &format!("{FROM_STDIN}\n")).await.unwrap();
    assert!(done.status.success(), "{}", said(&done));
    let lines: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((lines[0]["version"].as_u64(), lines[0]["devices"].as_u64()), (Some(3), Some(2)), "{lines}");
    holds(&on, FROM_STDIN).await;
    assert!(begun.elapsed() < NOTICED, "noticed after {:?}", begun.elapsed());

    // The other one was off for both: it gets the newest.
    off.start().unwrap();
    holds(&off, FROM_STDIN).await;
    shows(&mut stage, &client, "Version 3, on 2 of 2 devices").await;

    // All of them, one line each; an empty one leaves its secret.
    let all = ["rotate", "--client", &client, "--all", "--reason", "a laptop was stolen", "--json"];
    let left = stage.board.beside(&all, "\n").await.unwrap();
    assert!(left.status.success() && said(&left).contains("\"left\""), "{}", said(&left));
    let bad = [arguments.as_slice(), &["--from-stdin"]].concat();
    let refused = stage.board.beside(&bad, "NOT THE FORM").await.unwrap();
    assert!(!refused.status.success() && !said(&refused).contains("NOT THE FORM"), "{}", said(&refused));

    on.stop().await.unwrap();
    off.stop().await.unwrap();
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
    let audit = stage.consultant.get("/audit.csv").await.unwrap();
    assert!(audit.contains("it was in a screenshot"), "{audit}");
    stage.board.stop().await.unwrap();
    let vaults = ["off/vault/slot.tool.OUR_KEY", "on/vault/slot.tool.OUR_KEY"].map(Path::new);
    for (value, places) in [(FROM_PAGE, &vaults[..0]), (FROM_STDIN, &vaults[..])] {
        let found = scan::files_with(stage.folder.path(), &[value.as_bytes()]).unwrap();
        assert_eq!(found, places, "{value}");
        assert!(stage.consultant.pages.iter().all(|(_, page)| !page.contains(value)), "{value}");
    }
}

#[tokio::test]
async fn a_value_of_several_lines_is_refused_and_its_rest_is_nobody_elses() {
    let mut stage = Stage::new(Database::Sqlite).await;
    stage.client().await;
    let with = |what: &[&'static str]| {
        [&["rotate", "--client", "Example Client", "--reason", "it leaked"], what].concat()
    };
    let (one, all) = (with(&["--slot", "tool/OUR_KEY"]), with(&["--all"]));
    for arguments in [&one, &all] {
        // With a line end behind the last line, and without.
        for typed in ["canary-first-line\nsecond-line\n", "canary-first-line\nsecond-line"] {
            let (code, shown) = stage.board.at_a_terminal(arguments, &[typed]).await.unwrap();
            assert!(
                code == Some(1) && shown.contains("several lines: tool/OUR_KEY was left as it is"),
                "{shown}"
            );
            assert!(!shown.contains("canary") && !shown.contains("second"), "{shown}");
        }
    }
    let piped = stage.board.beside(&one, "canary-first-line\nsecond-line\n").await.unwrap();
    assert!(!piped.status.success() && said(&piped).contains("has several lines"), "{}", said(&piped));
    // The tail of a line that is too long is no line of its own.
    let long = format!("{}\ncanary-next-line\n", "x".repeat(16 * 1024 + 1));
    let cut = stage.board.beside(&all, &long).await.unwrap();
    assert!(!cut.status.success() && said(&cut).contains("longer than 16384 bytes"), "{}", said(&cut));

    let (code, shown) = stage.board.at_a_terminal(&one, &["canary-typed-value\n"]).await.unwrap();
    assert!(code == Some(0) && shown.contains("✓ version 2"), "nothing was stored before: {shown}");
    assert!(shown.contains("New value of tool/OUR_KEY, not shown: ") && !shown.contains("canary"), "{shown}");
    let (code, shown) = stage.board.at_a_terminal(&all, &["\n"]).await.unwrap();
    assert!(code == Some(0) && shown.contains("– left as it is"), "{shown}");
    stage.board.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_version_reaches_devices_that_are_on_and_later_those_that_were_off_on_sqlite() {
    a_rotation(Database::Sqlite).await;
}

#[tokio::test]
async fn a_new_version_reaches_devices_that_are_on_and_later_those_that_were_off_on_postgres() {
    a_rotation(Database::Postgres).await;
}
