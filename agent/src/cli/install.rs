//! `board-agent install` and `uninstall`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::install::{self, Action, Done, Outcome, Plan, RealSystem};
use anyhow::Context as _;
use clap::Args;
use shared::catalog::Platform;

use super::say;

pub const INSTALL_HELP: &str = "Example:\n  sudo ./board-agent install --publisher-key publisher.pem\n  \
    board-agent install --dry-run\n\n\
    It can be run again, also to update: the program that runs this is copied to its place and the service is started \
    anew.";
pub const UNINSTALL_HELP: &str = "Example:\n  sudo board-agent uninstall\n  sudo board-agent uninstall --purge\n\n\
    What it leaves is said at its end. It changes nothing on the board: revoke the device there.";

#[derive(Args)]
pub struct Install {
    /// A publisher's public key (PEM); may be given more than once. Only catalogs signed by one of them are believed
    #[arg(long = "publisher-key", value_name = "FILE")]
    publisher_keys: Vec<PathBuf>,
    /// A public key that releases of the agent are signed with (PEM); may be given more than once
    #[arg(long = "release-key", value_name = "FILE")]
    release_keys: Vec<PathBuf>,
    /// The public recovery key (PEM): its word on the other keys is believed
    #[arg(long = "recovery-key", value_name = "FILE")]
    recovery_keys: Vec<PathBuf>,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Args)]
pub struct Uninstall {
    /// Remove the device's identity, its keys, its secrets and its logs as well: they can't be brought back
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    manner: Manner,
}

#[derive(Args)]
struct Manner {
    /// Show what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// For tests: files go below this folder, and nothing of the running system is touched
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

pub fn install(options: &Install) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .context("where this program lies can't be found out")?;
    let plan = install::install(&install::Install {
        platform: platform()?,
        program: program.clone(),
        publisher_keys: options.publisher_keys.clone(),
        release_keys: options.release_keys.clone(),
        recovery_keys: options.recovery_keys.clone(),
    })?;
    if options.manner.dry_run {
        say(plan.to_string().trim_end());
        if options.manner.root.is_none() {
            install::check_trust(&program).context("this program would not be installed")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    perform(&plan, options.manner.root.as_deref())?;
    say(
        "Installed. The agent runs, and waits until this device joins: `sudo board-agent join` with what the \
         client's page shows.",
    );
    Ok(ExitCode::SUCCESS)
}

pub fn uninstall(options: &Uninstall) -> anyhow::Result<ExitCode> {
    let platform = platform()?;
    let plan = install::uninstall(platform, options.purge);
    if options.manner.dry_run {
        say(plan.to_string().trim_end());
    } else {
        perform(&plan, options.manner.root.as_deref())?;
        say("Uninstalled.");
    }
    if !options.purge {
        say("Left, until `board-agent uninstall --purge`:");
        install::left(platform).iter().for_each(|what| say(&format!("    {what}")));
    }
    say("Left in any case: the software that steps installed.");
    Ok(ExitCode::SUCCESS)
}

fn platform() -> anyhow::Result<Platform> {
    Platform::current().context("this operating system is not supported")
}

fn perform(plan: &Plan, root: Option<&Path>) -> anyhow::Result<()> {
    let mut tell = |done: &Done| {
        let outcome = match done.outcome {
            Outcome::Changed => "done",
            Outcome::Same if matches!(done.action, Action::Trust { .. } | Action::TrustData { .. }) => "good",
            Outcome::Same => "nothing to do",
            Outcome::Skipped => "skipped",
        };
        say(&format!("{outcome}: {}", done.action));
    };
    Ok(install::perform(plan, root, &mut RealSystem, &mut tell)?)
}
