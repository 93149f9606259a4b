//! Whatever changes something leaves its entry: every command of the board's that writes is run, and a device goes through
//! every route of the agents' port.
//!
//! A command that is added needs its place in [`WRITES`] or [`READS`], a route of the agents its line in [`AGENTS`]. The forms
//! of the console are sent by `control-plane/src/tests/actions.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;
use tests::process::{output, program};
use tests::rules::repository;
use tokio::process::Command;

use crate::commands::leaves;
use crate::device::{DAY_US, identity, starts_and_renews};
use crate::stage::{Database, Stage, catalog, until};

/// What each command that writes leaves, in an order that has each find what it needs. `init`, `catalog import` and both
/// halves of `ca rotate` have their own steps in the test.
const WRITES: &[(&str, &str)] = &[
    ("init", "board.initialized"),
    ("user add", "user.added"),
    ("user link", "link.made"),
    ("user require-passkeys", "passkeys.required"),
    ("rotate", "secret.stored"),
    ("backup", "backup.made"),
    ("incident", "incident.begun"),
    ("purge", "client.purged"),
    ("restore", "board.restored"),
    ("audit acknowledge", "alarm.acknowledged"),
    ("provider openrouter set-key", "board-secret.stored"),
    ("rekey", "rekey.started"),
    ("provider openrouter remove-key", "board-secret.removed"),
    ("ca rotate", "ca.rotation-begun"),
    ("token create", "token.made"),
    ("token revoke", "token.revoked"),
    ("catalog import", "catalog.imported"),
    ("catalog relay", "succession.imported"),
    ("release import", "release.imported"),
    ("release stage", "release.staged"),
];

/// What only reads, writes files alone, brings tables up to date, or asks a board that writes the entry itself.
const READS: &[&str] = &[
    "audit export",
    "audit verify",
    "ca status",
    "catalog check",
    "catalog keygen",
    "catalog sign",
    "catalog succeed",
    "doctor",
    "migrate",
    "paste",
    "provider openrouter status",
    "release keygen",
    "release list",
    "release sign",
    "serve",
    "state",
    "token list",
    "user list",
];

/// What posting to the agents' port leaves; `None` for what only asks.
const AGENTS: &[(&str, Option<&str>)] = &[
    ("/enroll/join", Some("join.asked")),
    ("/enroll/status", None),
    ("/enroll/prove", Some("device.enrolled")),
    ("/renew/challenge", None),
    ("/renew", Some("certificate.renewed")),
];

/// What `catalog relay` and `release import` bring: made by the commands that only write files.
async fn signed_elsewhere(stage: &Stage) -> [String; 4] {
    let path = |name: &str| stage.board.layout.path(&format!("keys/{name}")).display().to_string();
    let [publisher, next, release] = ["publisher.pem", "next.pem", "release.pem"].map(path);
    let [statement, signed, program] = ["succession.json", "release.json", "a-program"].map(path);
    std::fs::write(&program, "a program").unwrap();
    let next_public = format!("{next}.pub");
    for words in [
        &["catalog", "keygen", &next] as &[&str],
        &[
            "catalog",
            "succeed",
            "--key",
            &publisher,
            "--serial",
            "1",
            "--adds",
            &next_public,
            "--out",
            &statement,
        ],
        &["release", "keygen", &release],
        &[
            "release",
            "sign",
            &program,
            "--key",
            &release,
            "--version",
            "9.0.0",
            "--platform",
            "linux",
            "--arch",
            "x86_64",
            "--out",
            &signed,
        ],
    ] {
        output(Command::new(program_of_board()).args(words)).await.unwrap();
    }
    [statement, signed, program, format!("{release}.pub")]
}

fn program_of_board() -> PathBuf {
    program("board").unwrap()
}

/// The actions in the log, oldest first.
async fn log(stage: &Stage) -> Vec<String> {
    let done = stage.board.beside(&["audit", "export"], "").await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let action = |line: &str| {
        let stored: Value = serde_json::from_str(line).unwrap();
        let entry: Value = serde_json::from_str(stored["canonical"].as_str().unwrap()).unwrap();
        entry["action"].as_str().unwrap().to_owned()
    };
    text.lines().map(action).collect()
}

/// Runs a command that writes, and expects its entry behind all that were there.
async fn leaves_entry(stage: &Stage, command: &str, more: &[&str], input: &str, action: &str) {
    let before = log(stage).await.len();
    let words: Vec<&str> = command.split_whitespace().chain(more.iter().copied()).collect();
    let done = stage.board.beside(&words, input).await.unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    let after = log(stage).await.split_off(before);
    assert!(after.iter().any(|entry| entry == action), "`board {command}` leaves no {action}: {after:?}");
}

#[tokio::test]
async fn every_command_that_writes_leaves_its_entry() {
    let listed: BTreeSet<&str> = WRITES.iter().map(|(name, _)| *name).chain(READS.iter().copied()).collect();
    let found = leaves("board");
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, listed, "a command needs its place in WRITES or READS of this file");

    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let made = log(&stage).await;
    let copy = stage.board.layout.path("copies/board.backup").display().to_string();
    std::fs::create_dir_all(stage.board.layout.path("copies")).unwrap();
    let mut begun;
    let [statement, signed, file, release_key] = signed_elsewhere(&stage).await;
    let publisher = stage.board.layout.publisher_key().display().to_string();
    let another = format!("file:{}", stage.board.layout.path("keys/another.key").display());
    for (command, action) in WRITES {
        let (more, input): (&[&str], &str) = match *command {
            "init" => {
                assert_eq!(made.first().map(String::as_str), Some(*action));
                continue;
            }
            "catalog import" => {
                let before = log(&stage).await.len();
                stage.board.publish(&catalog(), 2).await.unwrap();
                assert_eq!(log(&stage).await.split_off(before), [*action]);
                continue;
            }
            "user add" => (&["colleague@example.com", "--roles", "support"], ""),
            "user link" => (&["colleague@example.com"], ""),
            "user require-passkeys" => (&["on"], ""),
            "rotate" => (
                &[
                    "--client",
                    "Example Client",
                    "--slot",
                    "tool/OUR_KEY",
                    "--reason",
                    "a test",
                    "--from-stdin",
                ],
                "canary-of-a-command",
            ),
            "provider openrouter set-key" => (&[], "sk-or-v1-canary-of-a-command-0123456789"),
            "rekey" => (&["--to", &another], ""),
            "backup" => (&["--out", &copy], ""),
            "incident" => (&["--reason", "a test"], ""),
            "purge" => {
                let engagement = format!("/clients/{client}/engagement");
                stage.consultant.post(&format!("{engagement}/days"), &[("days", "0")]).await.unwrap();
                stage.consultant.post_as_myself(&format!("{engagement}/end"), &[]).await.unwrap();
                stage.board.stop().await.unwrap();
                (&[], "")
            }
            // It drops entries, too.
            "restore" => {
                let done = stage.board.beside(&["restore", &copy, "--replace"], "").await.unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                assert_eq!(log(&stage).await.last().map(String::as_str), Some(*action));
                continue;
            }
            "audit acknowledge" => {
                begun = log(&stage).await.len().to_string();
                (&[&begun, "--reason", "a test"], "")
            }
            "catalog relay" => {
                let before = log(&stage).await.len();
                stage.board.relay(statement.as_ref(), publisher.as_ref()).await.unwrap();
                assert_eq!(log(&stage).await.split_off(before), [*action]);
                continue;
            }
            "release import" => (&[&signed, "--program", &file, "--release-key", &release_key], ""),
            "release stage" => (&["9.0.0", "10"], ""),
            "token create" => (&["--name", "a program", "--roles", "support", "--days", "1"], ""),
            "token revoke" => (&["a program"], ""),
            _ => (&[], ""),
        };
        leaves_entry(&stage, command, more, input, action).await;
        if *command == "ca rotate" {
            leaves_entry(&stage, command, &["--finish"], "", "ca.rotation-finished").await;
        }
    }
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
}

#[tokio::test]
async fn every_route_of_the_agents_that_changes_something_leaves_its_entry() {
    let router = std::fs::read_to_string(repository().join("control-plane/src/router.rs")).unwrap();
    let route = Regex::new(r#"\.route\("(/[^"]+)", post\("#).unwrap();
    let found: BTreeSet<&str> =
        route.captures_iter(&router).map(|found| found.get(1).unwrap().as_str()).collect();
    let listed: BTreeSet<&str> = AGENTS.iter().map(|(path, _)| *path).collect();
    assert_eq!(found, listed, "a route of the agents needs its line in AGENTS of this file");

    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let before = log(&stage).await.len();
    let mut agent = stage.agent("mac");
    stage.enroll(&client, &agent).await;
    // A certificate of the authority before is exchanged as soon as the device asks.
    leaves_entry(&stage, "ca rotate", &[], "", "ca.rotation-begun").await;
    let early = identity(&agent)["not_after"].as_i64().unwrap() - 5 * DAY_US;
    agent.start().unwrap();
    until("the device keeps the new authority", async || {
        log(&stage).await.iter().any(|entry| entry == "ca.acknowledged")
    })
    .await;
    agent.stop().await.unwrap();
    starts_and_renews(&mut agent, early).await;
    agent.stop().await.unwrap();
    let after = log(&stage).await.split_off(before);
    for (path, action) in AGENTS {
        let Some(action) = action else { continue };
        assert!(after.iter().any(|entry| entry == action), "{path} leaves no {action}: {after:?}");
    }
}
