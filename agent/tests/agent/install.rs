//! `board-agent install` and `uninstall` below a folder: the real program, and nothing of the running system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::support::AGENT;

const PROGRAM: &str = "opt/board-agent/bin/board-agent";
const DATA: &str = "var/lib/board-agent";

fn agent(program: &Path, arguments: &[&str], root: Option<&Path>) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(root) = root {
        command.arg("--root").arg(root);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Every file and folder below it with its mode.
fn tree(root: &Path) -> BTreeMap<PathBuf, u32> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            found.insert(path.strip_prefix(root).unwrap().to_owned(), metadata.permissions().mode() & 0o7777);
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn installing_twice_is_installing_once_and_uninstalling_leaves_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let first = said(&agent(Path::new(AGENT), &["install"], Some(&root)));
    assert!(first.contains("done: write /etc/systemd/system/board-agent.service"), "{first}");
    assert!(first.contains("skipped: run /usr/bin/systemctl daemon-reload"), "{first}");
    let installed = tree(&root);
    assert_eq!(installed[Path::new(PROGRAM)], 0o755);
    assert_eq!(installed[Path::new("etc/systemd/system/board-agent.service")], 0o644);
    assert_eq!(installed[Path::new(DATA)], 0o711);
    assert_eq!(installed[&Path::new(DATA).join("publisher-keys")], 0o700);
    assert_eq!(fs::read(root.join(PROGRAM)).unwrap(), fs::read(AGENT).unwrap());

    let again = said(&agent(Path::new(AGENT), &["install"], Some(&root)));
    assert!(!again.contains("done:"), "there was nothing to do: {again}");
    assert_eq!(tree(&root), installed);

    fs::write(root.join(PROGRAM), "an older one").unwrap();
    let update = said(&agent(Path::new(AGENT), &["install"], Some(&root)));
    assert!(update.contains("done: copy "), "{update}");
    assert_eq!(fs::read(root.join(PROGRAM)).unwrap(), fs::read(AGENT).unwrap());

    let secret = root.join(DATA).join("identity.json");
    fs::write(&secret, "{}").unwrap();
    let gone = said(&agent(Path::new(AGENT), &["uninstall"], Some(&root)));
    assert!(gone.contains("/var/lib/board-agent (identity, journal)"), "it says what it left: {gone}");
    assert!(secret.is_file() && !root.join("opt/board-agent").exists());
    assert!(!root.join("etc/systemd/system/board-agent.service").exists());
    said(&agent(Path::new(AGENT), &["uninstall"], Some(&root)));

    let purged = said(&agent(Path::new(AGENT), &["uninstall", "--purge"], Some(&root)));
    assert!(!purged.contains("(identity, journal)"), "{purged}");
    let files: Vec<_> = tree(&root).into_keys().filter(|path| root.join(path).is_file()).collect();
    assert!(files.is_empty() && !root.join(DATA).exists(), "{files:?}");
}

#[test]
fn a_dry_run_shows_the_unit_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let plan = said(&agent(Path::new(AGENT), &["install", "--dry-run"], Some(&root)));
    assert!(plan.contains("    ExecStart=/opt/board-agent/bin/board-agent run --wait-for-join"), "{plan}");
    let plan = said(&agent(Path::new(AGENT), &["uninstall", "--purge", "--dry-run"], Some(&root)));
    assert!(plan.contains("remove /var/lib/board-agent and everything in it"), "{plan}");
    assert!(!root.exists());
}

#[test]
fn a_program_that_others_could_exchange_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("board-agent");
    fs::copy(AGENT, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    // A dry run asks the same question, and this test can never install anything.
    let refused = agent(&program, &["install", "--dry-run"], None);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("would not be installed") && why.contains("root"), "{why}");
}

#[test]
fn a_key_that_is_none_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let key = folder.path().join("publisher.pem");
    fs::write(&key, "no key").unwrap();
    let refused =
        agent(Path::new(AGENT), &["install", "--publisher-key", key.to_str().unwrap()], Some(&root));
    assert_eq!(refused.status.code(), Some(1));
    assert!(!root.exists());
}

#[test]
fn a_service_waits_for_its_device_to_join_and_logs_into_files() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let mut service = Command::new(AGENT)
        .args(["run", "--wait-for-join", "--data"])
        .arg(folder.path().join("data"))
        .arg("--log-folder")
        .arg(&logs)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let log = logs.join("agent.log");
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("has not joined a board yet")) {
        assert!(Instant::now() < until && service.try_wait().unwrap().is_none(), "it waits and says so");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = nix::unistd::Pid::from_raw(service.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(service.wait().unwrap().success(), "it stops when it is told to");
}
