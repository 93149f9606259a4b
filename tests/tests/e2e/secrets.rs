//! Rules of keys and audit that need the real programs, and the list of all of them.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Uid;
use tests::board::Layout;
use tests::process::{Process, output, program};
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

#[test]
fn every_rule_has_a_test() {
    let rules = rules().unwrap();
    let empty: Vec<&String> =
        rules.iter().filter(|rule| rule.tests.is_empty()).map(|rule| &rule.text).collect();
    assert!(empty.is_empty(), "these rules of tests/rules.toml need a test that breaks them: {empty:#?}");
}

/// What another process of the same user finds when it opens these files of a process: 0, or the error's number.
async fn looked_at(process: u32) -> BTreeMap<String, i32> {
    let script = "
import json, sys
found = {}
for name in ['mem', 'maps', 'environ']:
    try:
        open(f'/proc/{sys.argv[1]}/{name}', 'rb').read(0)
        found[name] = 0
    except OSError as error:
        found[name] = error.errno
print(json.dumps(found))
";
    let mut look = Command::new("python3");
    look.args(["-c", script, &process.to_string()]).current_dir("/").uid(NOBODY).gid(NOBODY);
    serde_json::from_str(&output(&mut look).await.unwrap()).unwrap()
}

/// The user `nobody`, who has no rights but those of every user over their own processes.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn neither_program_can_be_read_by_its_own_user_or_leaves_a_core_file() {
    assert!(
        Uid::effective().is_root(),
        "this test needs root: it starts programs as nobody and looks as nobody"
    );
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for own in ["board", "keys"] {
        chown(layout.path(own), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let as_nobody = |name: &str| {
        let copy = layout.path(name).with_extension("program");
        if !copy.exists() {
            std::fs::copy(program(name).unwrap(), &copy).unwrap();
            std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new(copy);
        command.current_dir("/").uid(NOBODY).gid(NOBODY);
        command
    };
    let key = format!("file:{}", layout.path("keys/root.key").display());
    let of_board = |command: &str| {
        let mut run = as_nobody("board");
        run.args([command, "--root-key", &key, "--data"]).arg(layout.path("board"));
        run
    };
    output(of_board("init").args(["--email", "x@example.com"])).await.unwrap();
    let mut serve = of_board("serve");
    serve.args(["--console", "127.0.0.1:0", "--agents", "127.0.0.1:0"]);
    let mut run = as_nobody("board-agent");
    run.args(["run", "--dev", "--wait-for-join", "--data"]).arg(layout.path("keys/agent"));
    let mut sleep = Command::new("sleep");
    sleep.arg("600").current_dir("/").uid(NOBODY).gid(NOBODY);

    let other = Process::spawn(&mut sleep, &layout.log("sleep")).unwrap();
    let open = looked_at(other.id().unwrap()).await;
    assert!(open["maps"] == 0 && open["environ"] == 0, "a user reads what its own programs hold: {open:?}");
    let eacces = Errno::EACCES as i32;
    for (name, command) in [("board", &mut serve), ("board-agent", &mut run)] {
        let process = Process::spawn(command, &layout.log(name)).unwrap();
        let begun = Instant::now();
        loop {
            let found = looked_at(process.id().unwrap()).await;
            if found.values().all(|error| *error == eacces) {
                break;
            }
            let log = std::fs::read_to_string(layout.log(name)).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(10), "{name} can be read: {found:?}; {log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let limit = core_limit(&process);
        assert_eq!(limit.split_whitespace().filter(|word| *word == "0").count(), 2, "no core file: {limit}");
        process.kill().await.unwrap();
    }
    other.kill().await.unwrap();
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
