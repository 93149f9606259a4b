//! `board-agent doctor`: each thing that can stand in the way, put there, and named.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::config::Paths;
use agent::doctor::{self, Finding, Patient, Report, State};
use agent::install::{How, InstallError, System};
use shared::random::SystemRandom;
use shared::time::{Clock, ManualClock, SystemClock, Timestamp};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::support::{Board, Device, within};

const DAY: Duration = Duration::from_secs(86_400);

/// A system that has no service manager.
struct Bare;

impl System for Bare {
    fn is_root(&self) -> bool {
        false
    }

    fn run(&mut self, _program: &str, _arguments: &[String]) -> io::Result<Result<(), String>> {
        Ok(Err("inactive".to_owned()))
    }

    fn forget_secrets(&mut self, _paths: &Paths) -> Result<(), InstallError> {
        panic!("a look forgets nothing")
    }

    fn patience(&self, _how: How) -> (Duration, Duration) {
        panic!("a look waits for nothing")
    }
}

async fn look(data: &Path, board: Option<&str>, pin: Option<&str>, clock: Arc<dyn Clock>) -> Report {
    let mut system = Bare;
    let mut patient = Patient {
        paths: Paths::resolve(data).unwrap(),
        board: board.map(str::to_owned),
        pin: pin.map(str::to_owned),
        clock,
        random: Arc::new(SystemRandom),
        system: &mut system,
    };
    within(doctor::examine(&mut patient)).await
}

/// At a board that is not joined yet.
async fn way(board: &str, pin: Option<&str>, clock: Arc<dyn Clock>) -> Report {
    let nowhere = tempfile::tempdir().unwrap();
    look(nowhere.path(), Some(board), pin, clock).await
}

fn the<'a>(report: &'a Report, check: &str) -> &'a Finding {
    let mut found = report.findings.iter().filter(|finding| finding.check == check);
    let first = found.next().unwrap_or_else(|| panic!("nothing about {check}: {report}"));
    assert!(found.next().is_none(), "{check} twice: {report}");
    first
}

/// The state, and that what was seen and what to do are said.
fn says(report: &Report, check: &str, state: State, saw: &str) {
    let finding = the(report, check);
    assert_eq!(finding.state, state, "{report}");
    assert!(finding.saw.contains(saw), "{saw:?} is not in: {report}");
    assert_eq!(finding.advice.is_none(), state == State::Ok, "{report}");
}

fn silent(report: &Report, check: &str) {
    assert!(report.findings.iter().all(|finding| finding.check != check), "{check}: {report}");
}

#[tokio::test]
async fn the_way_to_a_board_before_joining() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let port = board.address.rsplit(':').next().unwrap();
    let named = format!("https://localhost:{port}");

    let report = way(&named, Some(&board.pin), Arc::new(SystemClock)).await;
    says(&report, "joined", State::Ok, "not yet");
    says(&report, "name", State::Ok, "localhost is ");
    says(&report, "port", State::Ok, "answers");
    says(&report, "pin", State::Ok, "");
    says(&report, "clock", State::Ok, "");
    let report = way(&board.address, None, Arc::new(SystemClock)).await;
    says(&report, "pin", State::Warning, &board.pin);

    // A proxy that opens TLS shows a certificate of its own making.
    let elsewhere = tempfile::tempdir().unwrap();
    let proxy = Board::start(elsewhere.path()).await;
    let report = way(&proxy.address, Some(&board.pin), Arc::new(SystemClock)).await;
    says(&report, "pin", State::Problem, "signed by CN=rcgen self signed cert");
    silent(&report, "clock");

    let report = way("https://board.invalid:8443", Some(&board.pin), Arc::new(SystemClock)).await;
    says(&report, "name", State::Problem, "board.invalid can't be found");
    silent(&report, "port");
    let report = way("http://board.example.com", Some(&board.pin), Arc::new(SystemClock)).await;
    says(&report, "address", State::Problem, "http://board.example.com");
    let report = way(&board.address, Some("9f2c"), Arc::new(SystemClock)).await;
    says(&report, "pin", State::Problem, "64 hexadecimal digits");
}

#[tokio::test]
async fn a_port_that_is_closed_and_one_where_somebody_else_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // The listener goes with this.
    });
    let pin = "0".repeat(64);
    let report = way(&address, Some(&pin), Arc::new(SystemClock)).await;
    says(&report, "TLS", State::Problem, "not as a board does");
    silent(&report, "pin");

    within(answering).await.unwrap();
    let report = way(&address, Some(&pin), Arc::new(SystemClock)).await;
    says(&report, "port", State::Problem, "refused");
    silent(&report, "TLS");
}

#[tokio::test]
async fn a_clock_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let now = SystemClock.now();
    for (at, state, saw) in [
        (now.before(Duration::from_secs(300)), State::Warning, "minutes behind the board's"),
        (now.after(Duration::from_secs(300)), State::Warning, "minutes ahead of the board's"),
        (Timestamp::from_micros(0), State::Problem, "certificate begins on"),
    ] {
        let report = way(&board.address, Some(&board.pin), Arc::new(ManualClock::at(at))).await;
        says(&report, "clock", state, saw);
    }
}

#[tokio::test]
async fn a_device_that_has_not_joined_is_told_how() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::new(folder.path());
    let (code, said, _) = device.call("doctor", &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("problem  joined "), "{said}");
    let (code, said, _) = device.call("doctor", &["--json"]).await;
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["findings"][0]["state"], "problem");
}

#[tokio::test]
async fn a_healthy_device_has_no_problem_and_each_thing_that_breaks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(3, &[]);
    let mut agent = device.run();
    let (_link, _) = board.welcome(&digest, &[]).await;
    let fetched = device.data.join("bundles").join(format!("{digest}.json"));
    within(async {
        while !fetched.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let (code, said, trouble) = device.call("doctor", &[]).await;
    assert_eq!(code, Some(0), "{said}{trouble}");
    for line in ["ok       secrets ", "ok       catalog         serial 3", "the agent runs", "no problems"] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    assert!(!said.contains("localhost"), "{said}");
    agent.terminate();
    agent.end().await;

    let healthy = |clock| look(&device.data, None, None, clock);
    let at = |at| Arc::new(ManualClock::at(at)) as Arc<dyn Clock>;
    let report = healthy(Arc::new(SystemClock)).await;
    assert_eq!(report.count(State::Problem), 0, "{report}");
    says(&report, "service", State::Warning, "no agent runs");
    says(&report, "journal", State::Ok, "0 attempts");
    says(&report, "link", State::Ok, "came up last");

    let report = healthy(at(SystemClock.now().after(8 * DAY))).await;
    says(&report, "certificate", State::Problem, "it ended on");
    says(&report, "catalog", State::Warning, "was good until");

    let vault = device.data.join("vault");
    let aside = device.data.join("vault.aside");
    std::fs::rename(&vault, &aside).unwrap();
    std::fs::write(&vault, "no folder").unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "secrets", State::Problem, "");
    std::fs::remove_file(&vault).unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "secrets", State::Problem, "keys are not in it");
    std::fs::remove_dir(&vault).unwrap();
    std::fs::rename(&aside, &vault).unwrap();

    let keys = device.data.join("publisher-keys");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o777)).unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "folders", State::Problem, "can be written by others");
    std::fs::remove_dir_all(&keys).unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "publisher", State::Problem, "no publisher's key");

    let journal = device.data.join("journal.redb");
    std::fs::write(&journal, "nonsense").unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "journal", State::Problem, "");

    let identity = device.data.join("identity.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    let mut changed: serde_json::Value = serde_json::from_str(&text).unwrap();
    changed["managed_user"]["name"] = "nobody-by-this-name".into();
    std::fs::write(&identity, changed.to_string()).unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "managed user", State::Problem, "there is no account");
    std::fs::write(&identity, "{").unwrap();
    says(&healthy(Arc::new(SystemClock)).await, "joined", State::Problem, "can't be understood");
}

#[tokio::test]
async fn the_trial_of_the_store_leaves_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(device.data.join("vault"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    let report = look(&device.data, None, None, Arc::new(SystemClock)).await;
    says(&report, "secrets", State::Ok, "written, read back and deleted");
    assert_eq!(names(), before);

    // One that was killed is swept when the agent starts.
    std::fs::write(device.data.join("vault/trial.00"), "left").unwrap();
    let mut agent = device.run();
    within(async {
        while names() != before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    agent.kill().await;
}
