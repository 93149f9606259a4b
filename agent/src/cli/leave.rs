//! `board-agent leave`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use agent::config::Identity;
use agent::leave;
use agent::platform;
use anyhow::bail;
use clap::Args;
use nix::unistd::Uid;
use shared::protocol::wipe::WipedSlot;
use shared::random::SystemRandom;
use shared::time::SystemClock;

use super::{Data, say};

pub const HELP: &str = "Examples:\n  sudo board-agent leave\n  sudo board-agent leave --pasted --yes\n  \
    sudo board-agent leave --offline\n\n\
    The board is told, the secrets that it put here are removed, and it gets a signed receipt. Then this device's keys and \
    state go. Joining again needs a new join code.";

#[derive(Args)]
pub struct Leave {
    /// Also remove what the client pasted on this device
    #[arg(long)]
    pasted: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Leave without the board: it is not told, and a consultant has to revoke the device there
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    data: Data,
}

pub fn leave(options: &Leave) -> anyhow::Result<ExitCode> {
    platform::forbid_inspection()?;
    let paths = options.data.paths()?;
    let identity = Identity::load(&paths)?;
    if !Uid::effective().is_root() && !identity.dev {
        bail!("this removes what root put there and needs root: run it with sudo. Nothing was changed");
    }
    if !options.yes && !confirmed(&identity.client_name)? {
        say("Nothing was changed.");
        return Ok(ExitCode::FAILURE);
    }
    let mut removed = Vec::new();
    if !options.offline {
        removed = leave::tell_the_board(&paths, options.pasted)?.removed;
    }
    let done = leave::remove(&paths, options.pasted, &SystemClock, &SystemRandom)?;
    removed.extend(done.removed);
    say(&format!("This device has left the board of {}.", identity.client_name));
    say(&format!("Removed: this device's keys and state, and secrets: {}", names(&removed)));
    if options.offline {
        say("The board doesn't know: a consultant has to revoke this device on its page.");
    } else {
        say("The board has this device's signed receipt.");
    }
    if !done.left.is_empty() {
        say(&format!("Left, because the client pasted it: {}", names(&done.left)));
    }
    say("Left in any case: the software that steps installed, the agent itself and its logs.");
    Ok(ExitCode::SUCCESS)
}

fn names(slots: &[WipedSlot]) -> String {
    let names: Vec<_> = slots.iter().map(|one| format!("{}/{}", one.component, one.slot)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn confirmed(client: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nobody can be asked here: say --yes. Nothing was changed");
    }
    let mut out = io::stdout().lock();
    write!(out, "Remove {client}'s secrets and this device's keys? Type yes to go on: ")?;
    out.flush()?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    Ok(typed.trim() == "yes")
}
