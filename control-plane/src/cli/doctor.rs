//! `board doctor`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use shared::catalog::PublisherKey;
use shared::time::Clock;

use super::{Cli, Output, ServeArgs};
use crate::board::doctor::{self, Finding, Patient, State};
use crate::db::without_password;
use crate::keys::Outside;

pub const HELP: &str = "\
Give it what `board serve` is started with, in options or in the environment: it looks at what a board started so would
meet, whether one runs or not. It changes nothing: an entry is put into the audit log and taken back, the root key is
unwrapped as at every start, and no secret is opened.

Examples:
  board doctor
  board doctor --agents-url https://board.example.com:8443 --console-url https://board.example.com
  board doctor --json | jq '.findings[] | select(.state != \"ok\")'

Exit codes:
  0  Nothing stands in the way. Warnings may be there.
  1  Something does.";

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// How browsers reach the console: asked over TLS, as they do.
    #[arg(long, value_name = "URL")]
    console_url: Option<String>,
    /// Public key of the publisher, to look at the catalog's signature again.
    #[arg(long, value_name = "PATH")]
    publisher_key: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub async fn run(args: DoctorArgs, clock: Arc<dyn Clock>) -> anyhow::Result<Output> {
    let set = |name: &str| std::env::var(name).ok();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let configured = configured(&args.serve, set, names);
    let publisher = match &args.publisher_key {
        Some(path) => {
            let pem =
                std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
            Some(PublisherKey::from_pem(&pem)?)
        }
        None => None,
    };
    let ServeArgs { place, key, console, proxy, agents, agents_url, agents_per_address: _, .. } = args.serve;
    let patient = Patient {
        database: place.url(),
        root_key: key.named()?,
        data: place.data,
        console,
        proxy,
        agents,
        agents_url,
        console_url: args.console_url,
        publisher,
        outside: Outside::process(clock),
    };
    let mut report = doctor::examine(&patient).await;
    report.findings.splice(..0, configured);
    let exit = u8::from(report.count(State::Problem) > 0);
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.to_string().trim_end().to_owned(),
    };
    Ok(Output { text, exit })
}

/// Each setting and where it is from; and variables that no option reads, by their names alone.
fn configured(
    args: &ServeArgs,
    set: impl Fn(&str) -> Option<String>,
    names: impl Iterator<Item = String>,
) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let text = |value: Option<String>| value.unwrap_or_default();
    let settings = [
        ("data", "BOARD_DATA", args.place.data.display().to_string(), "board-data"),
        ("database", "BOARD_DATABASE", text(args.place.database.clone()), ""),
        ("root key", "BOARD_ROOT_KEY", text(args.key.root_key.clone()), ""),
        ("console", "BOARD_CONSOLE", args.console.to_string(), "127.0.0.1:8080"),
        ("proxy", "BOARD_PROXY", text(args.proxy.map(|proxy| proxy.to_string())), ""),
        ("agents", "BOARD_AGENTS", args.agents.to_string(), "0.0.0.0:8443"),
        ("agents' address", "BOARD_AGENTS_URL", text(args.agents_url.clone()), ""),
    ];
    let told = settings.iter().filter(|(_, _, value, _)| !value.is_empty()).map(
        |(name, variable, value, default)| {
            let from = match set(variable) {
                Some(set) if set == *value => *variable,
                _ if value == default => "default",
                _ => "option",
            };
            format!("{name} {} ({from})", without_password(value))
        },
    );
    let mut findings = vec![Finding::ok(CHECK, told.collect::<Vec<_>>().join(", "))];
    let known = variables(&Cli::command());
    let unknown: BTreeSet<String> =
        names.filter(|name| name.starts_with("BOARD_") && !known.contains(name)).collect();
    if !unknown.is_empty() {
        let unknown = unknown.into_iter().collect::<Vec<_>>().join(", ");
        findings.push(Finding::warning(
            CHECK,
            format!("no option reads {unknown}"),
            "Look at the spelling: `board serve --help` names the variables.",
        ));
    }
    findings
}

/// What this program reads of the environment: the options' variables, and those that are for no option.
fn variables(command: &Command) -> BTreeSet<String> {
    let mut known: BTreeSet<String> =
        ["BOARD_LOG", "BOARD_TOKEN", "BOARD_KNOWN_DEVICES"].map(str::to_owned).into();
    let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    known.extend(own.map(str::to_owned));
    known.extend(command.get_subcommands().flat_map(variables));
    known
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Command as Parsed;
    use super::{Cli, DoctorArgs, State, configured};

    fn parsed(more: &[&str]) -> DoctorArgs {
        let all = [&["board", "doctor"], more].concat();
        let Parsed::Doctor(args) = Cli::try_parse_from(all).unwrap().command else {
            panic!("another command")
        };
        args
    }

    #[test]
    fn each_setting_says_where_it_is_from_and_no_password_is_shown() {
        let url = "postgres://board:canary-pw@db/board";
        let args = parsed(&[
            "--database",
            url,
            "--agents",
            "127.0.0.1:9443",
            "--console",
            "127.0.0.1:8080",
            "--data",
            "board-data",
        ]);
        let set = |name: &str| (name == "BOARD_DATABASE").then(|| url.to_owned());
        let names = ["BOARD_DATABASE", "BOARD_DATABSE", "BOARD_TOKEN", "HOME"].map(str::to_owned);
        let findings = configured(&args.serve, set, names.into_iter());
        let [sources, typo] = &findings[..] else { panic!("{findings:?}") };
        for part in [
            "data board-data (default)",
            "database postgres://…@db/board (BOARD_DATABASE)",
            "console 127.0.0.1:8080 (default)",
            "agents 127.0.0.1:9443 (option)",
        ] {
            assert!(sources.saw.contains(part), "{part}: {}", sources.saw);
        }
        assert_eq!((typo.state, typo.saw.as_str()), (State::Warning, "no option reads BOARD_DATABSE"));
        assert!(!format!("{findings:?}").contains("canary"));
        let set = |_: &str| None;
        assert_eq!(configured(&args.serve, set, std::iter::empty()).len(), 1);
    }
}
