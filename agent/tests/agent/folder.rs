//! Which data folder the program believes: never one that just happens to be there.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use nix::unistd::{Gid, Uid, chown};

use super::support::{AGENT, Board, Device};

const SHORT: [&[&str]; 4] =
    [&["status"], &["inventory"], &["paste", "--list"], &["exec", "--for", "slack", "--", "true"]];

fn call(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(AGENT).args(arguments).current_dir(folder).output().unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_data_folder_in_the_working_folder_counts_only_when_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let device = Device { data: folder.path().join("board-agent-data") };
    device.enroll(&board).await;
    for command in SHORT {
        let said = complaint(&call(folder.path(), command));
        assert!(!said.contains("board-agent-data"), "{command:?}: {said}");
    }
    let said = call(folder.path(), &["status", "--dev"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Whoever isn't root can't make such a folder; then there is nothing to refuse.
#[tokio::test]
async fn root_believes_no_folder_of_somebody_else() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let theirs = |path: &Path| chown(path, Some(Uid::from_raw(4711)), Some(Gid::from_raw(4711))).unwrap();
    let mine = |path: &Path| chown(path, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).unwrap();
    for path in [device.data.clone(), device.data.join("identity.json"), folder.path().to_owned()] {
        theirs(&path);
        for command in [SHORT.as_slice(), &[&["run"]]].concat() {
            let mut all = vec![command[0], "--data", device.data.to_str().unwrap()];
            all.extend(&command[1..]);
            let said = complaint(&call(folder.path(), &all));
            assert!(said.contains("belongs to user 4711, not to root"), "{all:?}: {said}");
        }
        mine(&path);
    }
    assert_eq!(device.call("status", &[]).await.0, Some(0));
}

/// Only root can take another user's part.
#[tokio::test]
async fn another_user_is_sent_away_before_a_word_is_said() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    open(folder.path());
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let _agent = device.run();
    let digest = board.publish(
        1,
        &[("x", "key = \"x\"\nname = \"x\"\ncategory = \"ai\"\nsummary = \"x\"\nplatforms = [\"linux\"]\n")],
    );
    let (mut link, _) = board.welcome(&digest, &["x"]).await;
    link.inventory(|_| true).await;
    assert_eq!(device.call("paste", &["--list"]).await.0, Some(0));
    let program = folder.path().join("board-agent");
    std::fs::copy(AGENT, &program).unwrap();
    open(&program);
    let stranger = Command::new(&program)
        .args(["paste", "--list", "--data"])
        .arg(&device.data)
        .current_dir("/")
        .uid(4711)
        .gid(4711)
        .output()
        .unwrap();
    let said = complaint(&stranger);
    assert!(said.contains("only the managed user of this device may ask"), "{said}");
}
