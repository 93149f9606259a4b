//! The agent's own program and the keys that it believes: successions, and releases that go forward and back.
//!
//! A supervisor in the test is launchd's stand-in: it starts the program again whenever it ends. Another version is a copy of
//! the program with the digits of its version changed in place; a broken one is such a copy that can't open its journal.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::agent::Agent;
use tests::process::{output, program};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::stage::{Database, SOON, Stage, VALUE, catalog, heard, until};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The number that the workspace's version doesn't have, written with as many digits.
fn higher() -> String {
    let (rest, last) = VERSION.rsplit_once('.').unwrap();
    let next = last.parse::<u32>().unwrap() + 1;
    let version = format!("{rest}.{next}");
    assert_eq!(version.len(), VERSION.len(), "the version is changed in place");
    version
}

/// A copy of a program with one text in it changed.
fn patched(from: &Path, to: &Path, what: &str, with: &str) {
    assert_eq!(what.len(), with.len());
    let mut bytes = std::fs::read(from).unwrap();
    let what = regex::bytes::Regex::new(&regex::escape(what)).unwrap();
    let places: Vec<usize> = what.find_iter(&bytes).map(|found| found.start()).collect();
    assert!(!places.is_empty(), "{what} stands in the program");
    for place in places {
        bytes[place..place + with.len()].copy_from_slice(with.as_bytes());
    }
    std::fs::write(to, bytes).unwrap();
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Starts the program again whenever it ends, as launchd does with `KeepAlive`.
struct Supervisor {
    stop: watch::Sender<bool>,
    runs: JoinHandle<u32>,
}

impl Supervisor {
    fn start(program: PathBuf, agent: &Agent) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (data, log) = (agent.data.clone(), agent.log().to_owned());
        let runs = tokio::spawn(async move {
            let mut starts = 0;
            while !*stopped.borrow() && starts < 50 {
                let log = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
                let mut command = Command::new(&program);
                command.args(["run", "--data"]).arg(&data).env("BOARD_AGENT_STAND_IN", "127.0.0.1:1");
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
                let mut child = command.spawn().unwrap();
                starts += 1;
                tokio::select! {
                    _ = child.wait() => tokio::time::sleep(Duration::from_millis(200)).await,
                    _ = stopped.changed() => child.kill().await.unwrap(),
                }
            }
            starts
        });
        Self { stop, runs }
    }

    async fn stop(self) -> u32 {
        self.stop.send_replace(true);
        tokio::time::timeout(SOON, self.runs).await.unwrap().unwrap()
    }
}

/// Where only root can change anything: what root runs has to lie in such a folder.
fn folder_of_roots() -> TempDir {
    let folder = tempfile::Builder::new().prefix("board-agent-").tempdir_in("/opt").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// The program as it is delivered: without what only a debugger reads.
async fn installed(to: &Path) {
    output(Command::new("strip").arg("-o").arg(to).arg(program("board-agent").unwrap())).await.unwrap();
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755)).unwrap();
}

async fn board(arguments: &[&str]) -> String {
    output(Command::new(program("board").unwrap()).args(arguments)).await.unwrap()
}

async fn beside(stage: &Stage, arguments: &[&str]) {
    let done = stage.board.beside(arguments, "").await.unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Signs a program and brings it to the board, for everybody.
async fn publish(stage: &Stage, key: &Path, program: &Path, version: &str) {
    let signed = program.with_extension("json");
    let arch = std::env::consts::ARCH;
    board(&[
        "release",
        "sign",
        text(program),
        "--key",
        text(key),
        "--version",
        version,
        "--platform",
        "linux",
        "--arch",
        arch,
        "--out",
        text(&signed),
    ])
    .await;
    let public = format!("{}.pub", key.display());
    beside(
        stage,
        &["release", "import", text(&signed), "--program", text(program), "--release-key", &public],
    )
    .await;
    beside(stage, &["release", "stage", version, "100"]).await;
}

async fn listed(stage: &Stage, version: &str) -> Value {
    let done = stage.board.beside(&["release", "list", "--json"], "").await.unwrap();
    let all: Value = serde_json::from_slice(&done.stdout).unwrap();
    all.as_array().unwrap().iter().find(|one| one["version"] == version).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_release_goes_forward_and_a_broken_one_goes_back_and_the_page_says_so() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let key = stage.board.layout.path("keys/release.pem");
    board(&["release", "keygen", text(&key)]).await;
    agent.release_key = Some(PathBuf::from(format!("{}.pub", key.display())));
    let device = stage.enroll(&client, &agent).await;

    let folder = folder_of_roots();
    let runs = folder.path().join("board-agent");
    installed(&runs).await;
    let (new, broken) = (stage.folder.path().join("new"), stage.folder.path().join("broken"));
    let next = higher();
    let own = |version: &str| format!("board-agent/{version}");
    patched(&runs, &new, &own(VERSION), &own(&next));

    let supervisor = Supervisor::start(runs.clone(), &agent);
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    publish(&stage, &key, &new, &next).await;
    until("the new program proves itself", async || listed(&stage, &next).await["installed"] == 1).await;
    assert!(std::fs::read(&runs).unwrap() == std::fs::read(&new).unwrap());
    let page = stage.consultant.get("/releases").await.unwrap();
    assert!(page.contains(&format!("{next} installed")), "{page}");
    until("status names the program that runs", async || {
        agent.status().await.unwrap()["agent_version"] == next.as_str()
    })
    .await;

    // It says its version and ends when it is to run.
    let (rest, last) = next.rsplit_once('.').unwrap();
    let worse = format!("{rest}.{}", last.parse::<u32>().unwrap() + 1);
    let half = stage.folder.path().join("half");
    patched(&new, &half, &own(&next), &own(&worse));
    patched(&half, &broken, "journal.redb", "/nowhere/it.");
    publish(&stage, &key, &broken, &worse).await;
    let failed =
        heard("the broken one goes back", async || listed(&stage, &worse).await, |one| one["went_back"] == 1)
            .await;
    assert_eq!(failed["installed"], 0);
    assert!(std::fs::read(&runs).unwrap() == std::fs::read(&new).unwrap(), "the one before is back");
    let page = stage.consultant.get("/releases").await.unwrap();
    assert!(page.contains(&format!("{worse} went back")) && page.contains("started 3 times"), "{page}");
    let log = stage.consultant.get("/audit").await.unwrap();
    assert!(log.contains("release.reported"), "{log}");

    let starts = supervisor.stop().await;
    // The first, the new one, three of the broken one, one that puts back, and the new one again.
    assert_eq!(starts, 7, "it is not tried again");
}

#[tokio::test]
async fn what_the_publisher_signed_is_no_release() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let key = stage.board.layout.path("keys/release.pem");
    board(&["release", "keygen", text(&key)]).await;
    agent.release_key = Some(PathBuf::from(format!("{}.pub", key.display())));
    stage.enroll(&client, &agent).await;
    let folder = folder_of_roots();
    let runs = folder.path().join("board-agent");
    installed(&runs).await;
    let new = stage.folder.path().join("new");
    let next = higher();
    patched(&runs, &new, &format!("board-agent/{VERSION}"), &format!("board-agent/{next}"));
    let supervisor = Supervisor::start(runs.clone(), &agent);
    // The board takes it: it is told that this is the key. The device knows better.
    publish(&stage, &stage.board.layout.path("keys/publisher.pem"), &new, &next).await;
    until("the device refuses it", async || listed(&stage, &next).await["refused"] == 1).await;
    let page = stage.consultant.get("/releases").await.unwrap();
    assert!(page.contains("does not fit any release key"), "{page}");
    assert_eq!(supervisor.stop().await, 1);
    assert!(std::fs::read(&runs).unwrap() != std::fs::read(&new).unwrap(), "nothing was changed");
}

#[tokio::test]
async fn a_new_publisher_key_is_believed_when_the_old_one_says_so_and_the_old_one_no_more() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();

    let keys = |name: &str| stage.board.layout.path(&format!("keys/{name}"));
    let (old, new, statement) = (keys("publisher.pem"), keys("next.pem"), keys("succession.json"));
    let (old_public, new_public) = (keys("publisher.pem.pub"), keys("next.pem.pub"));
    let said = board(&["catalog", "keygen", text(&new)]).await;
    let name = said.split([' ', ':']).nth(2).unwrap().to_owned();
    board(&[
        "catalog",
        "succeed",
        "--key",
        text(&old),
        "--serial",
        "1",
        "--adds",
        text(&new_public),
        "--retires",
        text(&old_public),
        "--out",
        text(&statement),
    ])
    .await;
    stage.board.relay(&statement, &old_public).await.unwrap();
    let names = async |agent: &Agent| {
        let status = agent.status().await.unwrap();
        let keys = status["publisher_keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("the device believes the new key alone", async || names(&agent).await == [name.as_str()]).await;
    until("the old bundle is not believed", async || {
        std::fs::read_to_string(agent.log()).unwrap().contains("does not fit any publisher key")
    })
    .await;

    let bundle = keys("bundle-2.json");
    let folder = catalog();
    board(&["catalog", "sign", text(&folder), "--key", text(&new), "--serial", "2", "--out", text(&bundle)])
        .await;
    stage.board.import(&bundle, &new_public).await.unwrap();
    agent.stop().await.unwrap();
    agent.start().unwrap();
    assert_eq!(names(&agent).await, [name], "after a restart too");
    agent.stop().await.unwrap();

    // One that joins with the old key is told of the new one before the bundle that only that one signed.
    let second = stage.consultant.create_client("Another Client", &["tool"], &[]).await.unwrap();
    stage.consultant.enter_secrets(&second, |_| VALUE.to_owned()).await.unwrap();
    let mut late = stage.agent("late");
    let device = stage.enroll(&second, &late).await;
    late.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    late.stop().await.unwrap();
}
