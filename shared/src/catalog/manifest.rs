use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::{Download, VerifySecret};
use crate::text_enum;

text_enum! {
    /// Whose secret it is. Decided when a slot is born; it can't change.
    pub enum Tag {
        /// Encrypted in our database, opened on the device it is for.
        OurManaged = "our-managed",
        /// Lives in the client's vault; never in our database.
        ClientSupplied = "client-supplied",
    }
}

text_enum! {
    pub enum Platform {
        Macos = "macos",
        Linux = "linux",
    }
}

impl Platform {
    /// The platform that this program was built for, if we know it.
    pub const fn current() -> Option<Self> {
        if cfg!(target_os = "macos") {
            Some(Self::Macos)
        } else if cfg!(target_os = "linux") {
            Some(Self::Linux)
        } else {
            None
        }
    }
}

/// One component's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub key: String,
    pub name: String,
    pub category: String,
    pub summary: String,
    pub platforms: Vec<Platform>,
    #[serde(default)]
    pub depends_on: Vec<String>,
    #[serde(default)]
    pub conflicts_with: Vec<String>,
    #[serde(default, rename = "slot")]
    pub slots: Vec<Slot>,
    #[serde(default, rename = "param")]
    pub params: Vec<Param>,
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    #[serde(default, rename = "download")]
    pub downloads: Vec<Download>,
    #[serde(default, rename = "wrapper")]
    pub wrappers: Vec<Wrapper>,
    #[serde(default, rename = "detect")]
    pub detects: Vec<Detect>,
    #[serde(default)]
    pub verify_secret: BTreeMap<String, VerifySecret>,
}

impl Manifest {
    pub fn slot(&self, key: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key == key)
    }

    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    pub fn wrapper(&self, name: &str) -> Option<&Wrapper> {
        self.wrappers.iter().find(|wrapper| wrapper.name == name)
    }

    /// Keys of the slots that a step reads itself, and of those of the wrappers that its scripts start.
    pub fn slots_read_by<'a>(&'a self, step: &'a Step) -> BTreeSet<&'a str> {
        let scripts = [&step.check, &step.run, &step.verify];
        let starts = |wrapper: &&Wrapper| {
            let call = format!("BOARD_WRAPPERS/{}", wrapper.name);
            scripts.iter().any(|script| script.as_ref().is_some_and(|script| script.contains(&call)))
        };
        let wrapped = self.wrappers.iter().filter(starts).flat_map(|wrapper| wrapper.slots.values());
        wrapped.chain(step.secrets.iter().map(|secret| &secret.slot)).map(String::as_str).collect()
    }
}

/// A secret that the component needs; never anything else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    pub key: String,
    pub name: String,
    pub tag: Tag,
    #[serde(default = "yes")]
    pub required: bool,
    /// Exactly one slot of this group is filled.
    pub one_of: Option<String>,
    /// Client-supplied only: where the client keeps it, `op://{vault}/…`.
    pub hint: Option<String>,
    /// Anchored; checked where the value is entered.
    pub pattern: Option<String>,
    /// Our-managed only: whether the page may offer a copy button.
    #[serde(default = "yes")]
    pub copy: bool,
}

/// An input that isn't secret; shown to support.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    pub key: String,
    pub name: String,
    pub pattern: String,
    #[serde(default)]
    pub required: bool,
}

text_enum! {
    pub enum StepKind {
        /// The agent executes it.
        Auto = "auto",
        /// A consultant does it.
        Manual = "manual",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum As {
    /// The managed user.
    User,
    Root,
    /// A built-in action of the board.
    Board,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Full Disk Access.
    Fda,
    /// The managed user's graphical session.
    Gui,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    #[default]
    Shown,
    /// For commands that print secrets.
    None,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub id: String,
    pub kind: StepKind,
    pub title: String,
    /// Manual steps only: what to do, in a few lines of Markdown.
    pub text: Option<String>,
    /// Manual steps only: done when the device says that these are there.
    #[serde(default)]
    pub slots: Vec<String>,
    #[serde(default, rename = "as")]
    pub run_as: Option<As>,
    /// Default: the component's.
    pub platforms: Option<Vec<Platform>>,
    #[serde(default)]
    pub needs: Vec<Need>,
    #[serde(default)]
    pub when: String,
    /// Like `5m`; see [`parse_duration`].
    pub timeout: Option<String>,
    pub check: Option<String>,
    pub run: Option<String>,
    pub verify: Option<String>,
    pub undo: Option<String>,
    #[serde(default)]
    pub repeatable: bool,
    #[serde(default = "yes")]
    pub cancellable: bool,
    #[serde(default)]
    pub output: Output,
    #[serde(default)]
    pub secrets: Vec<EnvSecret>,
    #[serde(default)]
    pub restart_on_secret: bool,
}

impl Step {
    /// How long one attempt may take. Five minutes when the manifest doesn't say.
    pub fn timeout(&self) -> Duration {
        self.timeout.as_deref().and_then(parse_duration).unwrap_or(Duration::from_secs(300))
    }

    pub fn runs_on(&self, platform: Platform, manifest: &Manifest) -> bool {
        self.platforms.as_ref().unwrap_or(&manifest.platforms).contains(&platform)
    }
}

/// `30s`, `5m` or `2h`; at most a day.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].parse().ok()?;
    let seconds = number.checked_mul(unit).filter(|s| (1..=86_400).contains(s))?;
    Some(Duration::from_secs(seconds))
}

/// How a step sees a secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvSecret {
    pub slot: String,
    /// `env` or `file` (a 0600 file named by `BOARD_SECRET_FILE_KEY`).
    #[serde(rename = "as")]
    pub form: SecretForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretForm {
    Env,
    File,
}

/// A root-owned launcher that starts a command through the broker and holds no value itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapper {
    pub name: String,
    pub command: Vec<String>,
    /// Environment name = slot.
    #[serde(default)]
    pub slots: BTreeMap<String, String>,
    /// Environment name = param.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
}

/// One way to look whether the component is really there.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Detect {
    Command {
        argv: Vec<String>,
        /// A regular expression with one group: the version.
        version: Option<String>,
        min: Option<String>,
    },
    App {
        path: String,
        min: Option<String>,
    },
    PkgReceipt {
        id: String,
        min: Option<String>,
    },
    Brew {
        formula: Option<String>,
        cask: Option<String>,
        min: Option<String>,
    },
    NpmGlobal {
        package: String,
        min: Option<String>,
    },
    UvTool {
        package: String,
        min: Option<String>,
    },
    Launchd {
        label: String,
        domain: String,
        running: Option<bool>,
    },
    Tcp {
        port: u16,
    },
    File {
        path: String,
        sha256: Option<String>,
    },
    Secret {
        slot: String,
    },
    ClaudeMcp {
        name: String,
    },
}

const fn yes() -> bool {
    true
}
