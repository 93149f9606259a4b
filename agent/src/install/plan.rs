//! What is to be done, as a list that can be read before anything happens.

use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only root can change it, nor anything above it.
    Trust {
        path: PathBuf,
    },
    /// The agent's own folder, when it is there already: root's, and no link.
    TrustData {
        path: PathBuf,
    },
    Folder {
        path: PathBuf,
        mode: u32,
    },
    /// A program: 0755.
    Copy {
        from: PathBuf,
        to: PathBuf,
    },
    Write {
        path: PathBuf,
        content: String,
        mode: u32,
    },
    Run {
        program: &'static str,
        arguments: Vec<String>,
        how: How,
    },
    /// A file.
    Remove {
        path: PathBuf,
    },
    /// Removes every other file of the folder.
    KeepOnly {
        folder: PathBuf,
        names: Vec<String>,
    },
    /// A folder, when nothing is in it.
    RemoveEmpty {
        path: PathBuf,
    },
    RemoveTree {
        path: PathBuf,
    },
    /// Keys and secrets of the agent with this data folder.
    ForgetSecrets {
        data: PathBuf,
    },
}

/// What a command's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Must,
    /// It had nothing to do.
    MayFail,
    /// It is too early; for a while it is tried again.
    Retry,
    /// That is what is waited for.
    UntilItFails,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
}

impl Plan {
    pub fn add(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub fn run(&mut self, program: &'static str, arguments: &[&str], how: How) {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.add(Action::Run { program, arguments, how });
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust { path } => write!(f, "check that only root can change {}", path.display()),
            Self::TrustData { path } => {
                write!(f, "check that {} is no link and that only root can change it", path.display())
            }
            Self::Folder { path, mode } => write!(f, "folder {} ({mode:04o})", path.display()),
            Self::Copy { from, to } => write!(f, "copy {} to {} (0755)", from.display(), to.display()),
            Self::Write { path, mode, .. } => write!(f, "write {} ({mode:04o})", path.display()),
            Self::Run { program, arguments, how } => {
                write!(f, "run {program}")?;
                arguments.iter().try_for_each(|argument| write!(f, " {}", shown(argument)))?;
                match how {
                    How::Must => Ok(()),
                    How::MayFail => f.write_str(" (may fail)"),
                    How::Retry => f.write_str(" (tried again for a while)"),
                    How::UntilItFails => f.write_str(" (until it fails)"),
                }
            }
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::KeepOnly { folder, names } => {
                write!(f, "remove what is in {} but {}", folder.display(), names.join(", "))
            }
            Self::RemoveEmpty { path } => write!(f, "remove {} if it is empty", path.display()),
            Self::RemoveTree { path } => write!(f, "remove {} and everything in it", path.display()),
            Self::ForgetSecrets { data } => {
                write!(f, "remove the keys and secrets of the agent in {}", data.display())
            }
        }
    }
}

/// Every action a line; the content of files indented below.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
            if let Action::Write { content, .. } = action {
                content.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
            }
        }
        Ok(())
    }
}

fn shown(argument: &str) -> String {
    if argument.contains(char::is_whitespace) {
        crate::wrappers::quote(argument)
    } else {
        argument.to_owned()
    }
}
