//! A board is backed up while it runs, killed, and put back elsewhere; its device goes on.

use std::time::{Duration, Instant};

use tests::process::program;
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage, VALUE, empty_postgres};

const NEXT: &str = "canary-after-the-restore-5e";

async fn goes_on_after_a_restore(database: Database) {
    let mut stage = Stage::new(database).await;
    let client = stage.client().await;
    let mut agent = stage.agent("reception");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();

    let file = stage.folder.path().join("copies/board.backup");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let out = file.display().to_string();
    let made = stage.board.beside(&["backup", "--out", &out], "").await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let copy = std::fs::read(&file).unwrap();
    assert!(!copy.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()), "a value in the clear");
    // Gone with the restore.
    stage.consultant.create_client("Lost Client", &["tool"], &[]).await.unwrap();
    stage.board.kill().await.unwrap();

    let mut command = Command::new(program("board").unwrap());
    command.args(["restore", &out]);
    let url = match database {
        Database::Sqlite => {
            std::fs::remove_dir_all(stage.board.layout.path("board")).unwrap();
            command.arg("--data").arg(stage.board.layout.path("board"));
            None
        }
        Database::Postgres => {
            let other = tempfile::tempdir().unwrap();
            let empty = empty_postgres(&other).await;
            command.args(["--database", &empty.board, "--owner-url", &empty.owner]);
            Some(empty.board)
        }
    };
    let done = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("epoch 2"), "{done:?}");
    if let Some(url) = url {
        stage.board.move_to(url);
    }
    stage.board.serve("127.0.0.1:0").await.unwrap();
    stage.relay.point(&stage.board.agents_address);
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));

    // Everybody was signed out.
    let link = stage.board.sign_in_link().await.unwrap();
    stage.consultant = tests::consultant::Consultant::welcome(&stage.board.console_url, &link).await.unwrap();
    // The device came back by itself: it takes a new version and runs the step again that reads it.
    stage.consultant.rotate_secret(&client, NEXT, "after the restore").await.unwrap();
    let begun = Instant::now();
    while std::fs::read_to_string(agent.home().join("key-length")).unwrap().trim() != NEXT.len().to_string() {
        assert!(begun.elapsed() < SOON, "the device doesn't go on: {:?}", agent.status().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What it was told before lies in the epoch that ended: no alarm beside the restore itself.
    let page = stage.consultant.get("/audit").await.unwrap();
    assert!(
        page.contains("The board was restored from a backup") && page.contains("1 to acknowledge"),
        "{page}"
    );
}

#[tokio::test]
async fn a_device_goes_on_after_its_board_was_restored() {
    goes_on_after_a_restore(Database::Sqlite).await;
}

#[tokio::test]
async fn a_device_goes_on_after_its_board_was_restored_on_postgresql() {
    goes_on_after_a_restore(Database::Postgres).await;
}
