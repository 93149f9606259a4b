//! One look at one thing. A probe that fails, takes too long or can't be understood says `unknown`, with what it saw.

use std::io;
use std::time::Duration;

use regex::Regex;
use shared::catalog::{Detect, Platform};
use shared::protocol::inventory::Presence;
use tokio::net::TcpStream;

use super::version;
use crate::steps::Context;
use crate::steps::environment;
use crate::steps::mask::Masks;
use crate::steps::output::Tail;
use crate::steps::run::{self, Ended};
use crate::steps::run_as::RunSpec;
use crate::vault::StoreError;
use crate::wrappers::quote;

const TIMEOUT: Duration = Duration::from_secs(10);
/// What a tool's list may be long.
const MOST: usize = 512 * 1024;
/// What evidence may be long.
const EVIDENCE: usize = 300;
/// The shell's exit code for a program that isn't there.
const NOT_FOUND: i32 = 127;

pub struct Seen {
    pub probe: String,
    pub presence: Presence,
    pub version: Option<String>,
    pub saw: String,
}

/// Looks as the managed user, and asks tools for their lists once.
pub struct Prober<'a> {
    context: &'a Context,
    platform: Platform,
    masks: Masks,
    npm: Option<Said>,
    uv: Option<Said>,
}

/// What a command said.
#[derive(Clone)]
struct Said {
    ended: Result<Ended, String>,
    text: String,
}

impl<'a> Prober<'a> {
    pub fn new(context: &'a Context, platform: Platform) -> Result<Self, StoreError> {
        let masks = Masks::new(&context.vault.values()?);
        Ok(Self { context, platform, masks, npm: None, uv: None })
    }

    pub async fn look(&mut self, component: &str, detect: &Detect) -> Seen {
        match detect {
            Detect::Command { argv, version, min } => {
                self.command(argv, version.as_deref(), min.as_deref()).await
            }
            Detect::NpmGlobal { package, min } => {
                let said = match &self.npm {
                    Some(said) => said.clone(),
                    None => {
                        self.npm.insert(self.said("npm ls -g --json --depth=0 2>/dev/null").await).clone()
                    }
                };
                listed(
                    format!("npm_global {package}"),
                    &said,
                    npm_version(&said.text, package),
                    min.as_deref(),
                )
            }
            Detect::UvTool { package, min } => {
                let said = match &self.uv {
                    Some(said) => said.clone(),
                    None => self.uv.insert(self.said("uv tool list").await).clone(),
                };
                let version =
                    matches!(said.ended, Ok(Ended::Exited(0))).then(|| uv_version(&said.text, package));
                listed(format!("uv_tool {package}"), &said, version, min.as_deref())
            }
            Detect::Tcp { port } => tcp(*port).await,
            Detect::File { path, sha256 } => self.file(path, sha256.as_deref()).await,
            Detect::Secret { slot } => self.secret(component, slot),
            Detect::ClaudeMcp { name } => self.claude_mcp(name).await,
            Detect::App { path, .. } => self.macos_only(format!("app {path}")),
            Detect::PkgReceipt { id, .. } => self.macos_only(format!("pkg_receipt {id}")),
            Detect::Brew { formula, cask, .. } => {
                let what = formula.as_deref().or(cask.as_deref()).unwrap_or("?");
                self.macos_only(format!("brew {what}"))
            }
            Detect::Launchd { label, .. } => self.macos_only(format!("launchd {label}")),
        }
    }

    async fn command(&self, argv: &[String], version: Option<&str>, min: Option<&str>) -> Seen {
        let probe = format!("command {}", argv.join(" "));
        let script = argv.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let said = self.said(&format!("exec {script}")).await;
        match said.ended {
            Ok(Ended::Exited(0)) => {}
            Ok(Ended::Exited(_)) => return said.not_there(probe),
            Ok(Ended::Signalled(_) | Ended::TimedOut | Ended::Stopped) | Err(_) => {
                return said.unknown(probe);
            }
        }
        let Some(pattern) = version else {
            return Seen { probe, presence: Presence::Present, version: None, saw: short(&said.text) };
        };
        let found = Regex::new(pattern)
            .ok()
            .and_then(|pattern| pattern.captures(&said.text)?.get(1).map(|group| group.as_str().to_owned()));
        match found {
            Some(found) => by_version(probe, found, min),
            None => said.unknown(probe),
        }
    }

    async fn file(&self, path: &str, sha256: Option<&str>) -> Seen {
        let probe = format!("file {path}");
        let home = &self.context.identity.managed_user.home;
        let full = match path.strip_prefix("~/") {
            Some(rest) => home.join(rest).display().to_string(),
            None => path.to_owned(),
        };
        let path = quote(&full);
        let script = if sha256.is_some() {
            format!(
                "[ -e {path} ] || exit 3; if command -v sha256sum >/dev/null; then sha256sum < {path}; else shasum -a 256 < {path}; fi"
            )
        } else {
            format!("[ -e {path} ] || exit 3")
        };
        let said = self.said(&script).await;
        match (&said.ended, sha256) {
            (Ok(Ended::Exited(3)), _) => said.absent(probe, "it is not there"),
            (Ok(Ended::Exited(0)), None) => {
                Seen { probe, presence: Presence::Present, version: None, saw: "it is there".to_owned() }
            }
            (Ok(Ended::Exited(0)), Some(expected)) => {
                let found = said.text.split_whitespace().next().unwrap_or_default();
                let same = found.eq_ignore_ascii_case(expected);
                let presence = if same { Presence::Present } else { Presence::Outdated };
                Seen { probe, presence, version: None, saw: format!("SHA-256 {found}") }
            }
            (Ok(_) | Err(_), _) => said.unknown(probe),
        }
    }

    fn secret(&self, component: &str, slot: &str) -> Seen {
        let probe = format!("secret {slot}");
        match self.context.vault.read(component, slot) {
            Ok(Some(held)) => {
                let saw = match held.version {
                    Some(version) => format!("version {version} is held"),
                    None => "it is held".to_owned(),
                };
                Seen { probe, presence: Presence::Present, version: None, saw }
            }
            Ok(None) => {
                Seen { probe, presence: Presence::Absent, version: None, saw: "it is not held".to_owned() }
            }
            Err(error) => Seen { probe, presence: Presence::Unknown, version: None, saw: error.to_string() },
        }
    }

    async fn claude_mcp(&self, name: &str) -> Seen {
        let said = self.said(&format!("claude mcp get {}", quote(name))).await;
        let probe = format!("claude_mcp {name}");
        match said.ended {
            Ok(Ended::Exited(0)) => {
                let status = said.text.lines().find_map(|line| line.trim().strip_prefix("Status:"));
                let saw = short(status.unwrap_or(&said.text).trim());
                Seen { probe, presence: Presence::Present, version: None, saw }
            }
            Ok(Ended::Exited(_)) => said.not_there(probe),
            Ok(Ended::Signalled(_) | Ended::TimedOut | Ended::Stopped) | Err(_) => said.unknown(probe),
        }
    }

    fn macos_only(&self, probe: String) -> Seen {
        let saw = match self.platform {
            Platform::Linux => "not for this platform",
            Platform::Macos => "this agent can't look at it yet",
        };
        Seen { probe, presence: Presence::Unknown, version: None, saw: saw.to_owned() }
    }

    /// Runs a script as the managed user; its output is masked.
    async fn said(&self, script: &str) -> Said {
        let Context { launcher, paths, identity, .. } = self.context;
        let spec =
            RunSpec::for_user(&identity.managed_user, environment::base(identity, paths).into(), script);
        let mut tail = Tail::of(MOST);
        let ended = run::run(launcher, spec, Some(TIMEOUT), &self.masks, Some(&mut tail), None).await;
        Said { ended: ended.map_err(|error| error.to_string()), text: tail.finish() }
    }
}

impl Said {
    fn unknown(&self, probe: String) -> Seen {
        Seen { probe, presence: Presence::Unknown, version: None, saw: self.words() }
    }

    fn not_there(&self, probe: String) -> Seen {
        let saw = match self.ended {
            Ok(Ended::Exited(NOT_FOUND)) => "the program is not there".to_owned(),
            Ok(_) | Err(_) => self.words(),
        };
        Seen { probe, presence: Presence::Absent, version: None, saw }
    }

    fn absent(&self, probe: String, saw: &str) -> Seen {
        Seen { probe, presence: Presence::Absent, version: None, saw: saw.to_owned() }
    }

    fn words(&self) -> String {
        let how = match &self.ended {
            Ok(Ended::Exited(code)) => format!("exit code {code}"),
            Ok(Ended::Signalled(signal)) => format!("ended by signal {signal}"),
            Ok(Ended::TimedOut) => format!("no answer in {} seconds", TIMEOUT.as_secs()),
            Ok(Ended::Stopped) => "the agent was stopped".to_owned(),
            Err(error) => error.clone(),
        };
        if self.text.is_empty() { how } else { format!("{how}: {}", short(&self.text)) }
    }
}

/// A package in a tool's list; `found` is nothing when the list can't be understood.
fn listed(probe: String, said: &Said, found: Option<Option<String>>, min: Option<&str>) -> Seen {
    match (&said.ended, found) {
        (Ok(Ended::Exited(NOT_FOUND)), _) => said.not_there(probe),
        (Ok(Ended::Exited(_)), Some(Some(found))) => by_version(probe, found, min),
        (Ok(Ended::Exited(_)), Some(None)) => said.absent(probe, "it is not in the list"),
        (Ok(_) | Err(_), _) => said.unknown(probe),
    }
}

fn by_version(probe: String, found: String, min: Option<&str>) -> Seen {
    let old = min.is_some_and(|min| version::compare(&found, min).is_lt());
    let presence = if old { Presence::Outdated } else { Presence::Present };
    let saw = match min {
        Some(min) if old => format!("version {found}; at least {min} is wanted"),
        Some(_) | None => format!("version {found}"),
    };
    Seen { probe, presence, version: Some(found), saw }
}

/// Nothing when it is no list; else the version, if the package is in it.
fn npm_version(text: &str, package: &str) -> Option<Option<String>> {
    let json = text.get(text.find('{')?..)?;
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>();
    let list = values.next()?.ok()?;
    if !list.is_object() {
        return None;
    }
    Some(list["dependencies"][package]["version"].as_str().map(str::to_owned))
}

/// Lines like `mcp-server v1.2.3`, each followed by lines `- program`.
fn uv_version(text: &str, package: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, version) = line.split_once(' ')?;
        (name == package).then(|| version.trim().trim_start_matches('v').to_owned())
    })
}

async fn tcp(port: u16) -> Seen {
    let probe = format!("tcp {port}");
    let connected =
        tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(("127.0.0.1", port))).await;
    let (presence, saw) = match connected {
        Ok(Ok(_)) => (Presence::Present, "something listens".to_owned()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (Presence::Absent, "nothing listens".to_owned())
        }
        Ok(Err(error)) => (Presence::Unknown, error.to_string()),
        Err(_) => (Presence::Unknown, "no answer in 2 seconds".to_owned()),
    };
    Seen { probe, presence, version: None, saw }
}

fn short(text: &str) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(EVIDENCE);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npms_list_is_understood() {
        let text = "npm warn something\n{\n\"name\":\"lib\",\"dependencies\":{\"slack-mcp-server\":{\"version\":\"1.3.0\"}}\n}\nnpm error extraneous";
        assert_eq!(npm_version(text, "slack-mcp-server"), Some(Some("1.3.0".to_owned())));
        assert_eq!(npm_version(text, "other"), Some(None));
        assert_eq!(npm_version("{}", "other"), Some(None));
        assert_eq!(npm_version("npm: broken", "other"), None);
    }

    #[test]
    fn uvs_list_is_understood() {
        let text = "ruff v0.6.1\n- ruff\nmcp-x v1.2.3\n- mcp-x";
        assert_eq!(uv_version(text, "mcp-x"), Some("1.2.3".to_owned()));
        assert_eq!(uv_version(text, "mcp"), None);
    }
}
