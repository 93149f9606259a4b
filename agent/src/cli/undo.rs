//! `board-agent allow-undo`: the word of somebody at the device that one step may be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use agent::bundles::Shelf;
use agent::config;
use agent::undos::{ALLOWED_FOR, Allowed};
use anyhow::{Context as _, bail};
use clap::Args;
use shared::time::{Clock as _, SystemClock};

use super::data::Data;
use super::say;

pub const HELP: &str = "Example:\n  sudo board-agent allow-undo slack/install\n\n\
    The board may undo one step an hour by itself, when a consultant asks for it on the page. For another one within the \
    hour somebody at the device says yes here first; it holds for one undo of that step and 15 minutes. The consultant then \
    asks again on the page.\n\n\
    Exit codes: 0 it may be undone, 1 it may not";

#[derive(Args)]
pub struct AllowUndo {
    /// Which step: the runbook's page names it when the device refuses
    #[arg(value_name = "COMPONENT/STEP")]
    step: String,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    data: Data,
}

pub fn allow_undo(options: &AllowUndo) -> anyhow::Result<ExitCode> {
    let paths = options.data.paths()?;
    let (component, step) =
        options.step.split_once('/').context("name the step as COMPONENT/STEP, like slack/install")?;
    let scope = config::load_scope(&paths)?;
    let digest =
        scope.bundle_digest.context("the agent has no catalog yet: it must reach its board first")?;
    let shelf = Shelf::new(&paths, config::load_publisher_keys(&paths)?);
    let catalog = shelf.stored(&digest)?.context("the catalog of this device's scope is not here yet")?;
    let manifest = catalog.manifests.get(component);
    let Some((manifest, written)) = manifest.and_then(|manifest| Some((manifest, manifest.step(step)?)))
    else {
        bail!("the catalog has no step {component}/{step}; the runbook's page names the steps");
    };
    let Some(script) = &written.undo else {
        bail!("the catalog has no way to undo {component}/{step}");
    };
    say(&format!("{}: {}", manifest.name, written.title));
    say(&format!("To undo it, this runs:\n\n    {}\n", script.trim_end().replace('\n', "\n    ")));
    if !options.yes && !agreed(&options.step)? {
        say("Nothing was allowed.");
        return Ok(ExitCode::FAILURE);
    }
    let (component, step) = (component.to_owned(), step.to_owned());
    Allowed { component, step, at: SystemClock.now() }.save(&paths)?;
    say(&format!(
        "{} may be undone once within {} minutes. Ask for it on the runbook's page.",
        options.step,
        ALLOWED_FOR.as_secs() / 60
    ));
    Ok(ExitCode::SUCCESS)
}

fn agreed(step: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nobody can be asked: there is no terminal. Nothing was allowed; with --yes nobody is asked");
    }
    let mut terminal = io::stdout();
    write!(terminal, "May {step} be undone on this device, once? [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
