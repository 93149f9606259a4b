//! Small troubles of the device: they are said, and the agent goes on with its work.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use shared::crypto::base64;
use shared::protocol::inventory::SlotState;
use shared::protocol::link::ReportBody;

use super::support::{Board, Device};

const MANIFEST: &str = r#"
key = "x"
name = "x"
category = "ai"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "GOOD"
name = "x"
tag = "client-supplied"
[[slot]]
key = "BROKEN"
name = "x"
tag = "client-supplied"
"#;

#[tokio::test]
async fn files_that_can_not_be_written_and_a_secret_that_can_not_be_read_end_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("x", MANIFEST)]);
    // A file can't take the place of a folder, whoever writes it.
    for file in ["status.json", "slot-checks.json", "scope.json"] {
        std::fs::create_dir_all(device.data.join(file).join("in the way")).unwrap();
    }
    let broken = device.data.join("vault/slot.x.BROKEN");
    std::fs::write(&broken, b"\0\0\0\0\0\0\0\0value").unwrap();
    std::fs::set_permissions(&broken, PermissionsExt::from_mode(0o644)).unwrap();

    let log = folder.path().join("agent.log");
    let mut agent = device.run_logging(&log);
    let (mut link, _) = board.welcome(&digest, &["x"]).await;
    link.inventory(|_| true).await;
    assert_eq!(device.pipe("paste", &["GOOD"], b"value").await.0, Some(0));
    link.inventory(|body| {
        let ReportBody::Inventory { slots, .. } = body else { return false };
        let slot = |key: &str| slots.iter().find(|report| report.slot == key).unwrap();
        let said = slot("BROKEN").check.as_ref().map_or("", |check| check.said.as_str());
        slot("GOOD").state == SlotState::Present
            && slot("BROKEN").state == SlotState::Unreadable
            && said.contains("can be read by others")
    })
    .await;
    drop(link);
    let (_link, _) = board.welcome(&digest, &["x"]).await;
    agent.terminate();
    assert_eq!(agent.end().await, Some(0), "{}", std::fs::read_to_string(log).unwrap());
}

/// As on a Mac whose clock is wrong: it takes its certificate for a good one, and the board doesn't.
#[tokio::test]
async fn a_certificate_that_only_the_board_knows_to_have_ended_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let ended = board.state.lock().unwrap().issue(Duration::from_secs(60));
    let path = device.data.join("identity.json");
    let mut identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    identity["certificate"] = base64::encode(&ended.certificate).into();
    std::fs::write(&path, identity.to_string()).unwrap();
    let _agent = device.run_logging(&folder.path().join("agent.log"));
    board.link().await;
    assert_eq!(board.state.lock().unwrap().renewed_with_certificate, [false]);
}
