//! A crowd at the agents' port, a locked database and the two roles of PostgreSQL, with the programs as they are shipped.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tests::process::program;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage, empty_postgres};

/// Every address of 127.0.0.0/8 is this machine on Linux: the agents come from 127.0.0.1.
async fn from_elsewhere(board: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let board: SocketAddr = board.parse().unwrap();
    tokio::time::timeout(SOON, socket.connect(board)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_thousand_idle_connections_cost_little_and_keep_nobody_out() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    let before = stage.board.process().unwrap().memory_kib().unwrap();
    let address = stage.board.agents_address.clone();
    let mut crowd = Vec::new();
    for _ in 0..1000 {
        let mut one = from_elsewhere(&address).await;
        // Half a TLS record, and then nothing.
        let _ = one.write_all(&[22, 3, 1, 1, 0]).await;
        crowd.push(one);
    }
    // The agent links, runs its steps and reports meanwhile.
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let after = stage.board.process().unwrap().memory_kib().unwrap();
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
    let mut refused = 0;
    for one in &mut crowd {
        let mut first = [0; 1];
        let answered = tokio::time::timeout(Duration::from_secs(20), one.read(&mut first)).await.unwrap();
        // A fatal alert, or closed at once.
        assert!(answered.map_or(true, |length| length == 0 || first[0] == 21));
        refused += 1;
    }
    assert_eq!(refused, 1000, "the board ended all of them");
    let log = std::fs::read_to_string(stage.board.layout.log("board")).unwrap();
    let told: Vec<_> = log.lines().filter(|line| line.contains("too many connections")).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    agent.stop().await.unwrap();
    stage.board.stop().await.unwrap();
}

async fn board(arguments: &[&str]) -> (bool, String) {
    let done = Command::new(program("board").unwrap()).args(arguments).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.success(), said)
}

#[tokio::test]
async fn a_command_says_that_the_database_is_locked() {
    let mut stage = Stage::new(Database::Sqlite).await;
    stage.board.stop().await.unwrap();
    let path = |relative: &str| stage.board.layout.path(relative).display().to_string();
    let script = "import sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  db.execute('BEGIN IMMEDIATE')\n\
                  print('locked', flush=True)\n\
                  sys.stdin.read()";
    let mut other = Command::new("python3")
        .args(["-c", script, &path("board/board.db")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut said).await.unwrap();
    assert_eq!(said.trim(), "locked");
    let (data, key) = (path("board"), format!("file:{}", path("keys/root.key")));
    let link = ["user", "link", "consultant@example.com", "--data", &data, "--root-key", &key];
    let (ok, said) = board(&link).await;
    assert!(!ok && said.contains("holds the lock") && said.contains("Try again"), "{said}");
    drop(other.stdin.take());
    other.wait().await.unwrap();
    let (ok, said) = board(&link).await;
    assert!(ok && said.contains("/welcome/"), "{said}");
}

#[tokio::test]
async fn the_boards_role_is_told_to_let_the_owner_migrate_and_no_password_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let empty = empty_postgres(&folder).await;
    let place = |relative: &str| folder.path().join(relative).display().to_string();
    let (data, key) = (place("board"), format!("file:{}", place("root.key")));
    let init = ["init", "--email", "x@example.com", "--data", &data, "--root-key", &key];
    let init = [&init[..], &["--database", &empty.board]].concat();
    let mut all = String::new();
    let (ok, said) = board(&init).await;
    assert!(!ok && said.contains("board migrate --owner-url"), "{said}");
    all.push_str(&said);
    let migrate = |owner: &str| {
        let arguments = ["migrate", "--database", &empty.board, "--owner-url", owner];
        arguments.map(ToOwned::to_owned)
    };
    for (owner, word) in [
        (empty.board.as_str(), "a role of its own"),
        ("sqlite:board.db", "SQLite has no roles"),
        (&empty.owner.replace("board_test_owner:", "nobody_at_all:"), "--owner-url"),
        ("postgres://board_test_owner:for-tests-only@127.0.0.1:x/nowhere", "--owner-url"),
        ("postgres://board_test_owner:for-tests-only@127.0.0.1:1/nowhere", "doesn't answer"),
    ] {
        let arguments = migrate(owner);
        let (ok, said) = board(&arguments.each_ref().map(String::as_str)).await;
        assert!(!ok && said.contains(word), "{word}: {said}");
        all.push_str(&said);
    }
    for _ in 0..2 {
        let arguments = migrate(&empty.owner);
        let (ok, said) = board(&arguments.each_ref().map(String::as_str)).await;
        assert!(ok && said.contains("the role board_test has what the board needs"), "{said}");
        all.push_str(&said);
    }
    let (ok, said) = board(&init).await;
    assert!(ok, "{said}");
    all.push_str(&said);
    let (ok, said) = board(&["audit", "verify", "--database", &empty.board]).await;
    assert!(ok && said.contains("The chain holds: 2 entries"), "{said}");
    assert!(!all.contains("for-tests-only"), "{all}");
}
