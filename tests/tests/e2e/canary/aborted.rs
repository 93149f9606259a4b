//! Both programs are aborted where a core file would be written, and leave none.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::Signal;
use tests::process::Process;

use super::job::Job;

/// For this process and those that it starts: as large as they like. They have to forbid it themselves.
pub fn allow_core_files() {
    setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).expect("root may raise its limits");
}

pub async fn both(job: &mut Job) {
    for process in [job.board.process().unwrap(), job.agent.process().unwrap()] {
        assert_eq!(limit(process), ["0", "0"], "the program sets its limit to nothing");
    }
    for (name, ended) in [("agent", job.agent.abort().await), ("board", job.board.abort().await)] {
        let ended = ended.unwrap();
        assert_eq!(ended.signal(), Some(Signal::SIGABRT as i32), "{name}: {ended}");
        assert!(!ended.core_dumped(), "the {name} left a core file");
    }
    assert_eq!(core_files(job.folder.path()), [""; 0], "where both programs ran");
}

/// The soft and the hard limit of a core file's size.
fn limit(process: &Process) -> [String; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id().unwrap())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let mut words = line.split_whitespace().map(ToOwned::to_owned);
    [words.next().unwrap(), words.next().unwrap()]
}

pub fn core_files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("core")).collect()
}
