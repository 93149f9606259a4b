//! `board-agent exec`: asks the broker, sets the environment, becomes the command.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::broker::{self, Answer, Ask, AskError, Request};
use crate::config::Paths;

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Refused(String),
    #[error("there is no command to run")]
    NoCommand,
    #[error("{command} can't be started: {error}")]
    Start { command: String, error: io::Error },
}

/// Comes back only when it fails. `target` is `COMPONENT` or `COMPONENT/WRAPPER`.
pub fn exec(paths: &Paths, target: &str, command: &[OsString]) -> ExecError {
    match prepare(paths, target, command) {
        Ok(mut prepared) => ExecError::Start {
            command: prepared.get_program().to_string_lossy().into_owned(),
            error: prepared.exec(),
        },
        Err(error) => error,
    }
}

fn prepare(paths: &Paths, target: &str, command: &[OsString]) -> Result<Command, ExecError> {
    let (program, arguments) = command.split_first().ok_or(ExecError::NoCommand)?;
    let (component, wrapper) = match target.split_once('/') {
        Some((component, wrapper)) => (component, Some(wrapper.to_owned())),
        None => (target, None),
    };
    let request = Request::Environment(Ask { component: component.to_owned(), wrapper });
    let (user, values) = match broker::ask(paths, &request)? {
        Answer::Environment { user, values } => (user, values),
        Answer::Missing { reason } => return Err(ExecError::Missing(reason)),
        Answer::Refused { reason } | Answer::BadValue { reason } => return Err(ExecError::Refused(reason)),
        Answer::Slots(_) | Answer::Pasted | Answer::Wiped(_) | Answer::Done => {
            return Err(AskError::Answer.into());
        }
    };
    let mut prepared = Command::new(program);
    prepared.args(arguments).envs(&user).envs(values.expose());
    if let Some(path) = merged_path(&user, std::env::var_os("PATH")) {
        prepared.env("PATH", path);
    }
    Ok(prepared)
}

/// The managed user's own search path first, then what the caller has besides: Claude Code is often started with little.
fn merged_path(user: &BTreeMap<String, String>, caller: Option<OsString>) -> Option<OsString> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(user.get("PATH")?).collect();
    if let Some(caller) = caller {
        for folder in std::env::split_paths(&caller) {
            if folder.is_absolute() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    std::env::join_paths(folders).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_managed_users_path_comes_first_and_nothing_is_lost() {
        let user = BTreeMap::from([("PATH".to_owned(), "/a:/b".to_owned())]);
        assert_eq!(merged_path(&user, None), Some("/a:/b".into()));
        assert_eq!(merged_path(&user, Some("/b:/c:relative".into())), Some("/a:/b:/c".into()));
    }

    #[test]
    fn without_a_daemon_it_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = exec(&Paths::new(folder.path().to_owned()), "slack", &["true".into()]);
        assert!(matches!(error, ExecError::Ask(AskError::NotRunning { .. })));
    }
}
