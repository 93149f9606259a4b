//! `board-agent doctor`.

use std::process::ExitCode;
use std::sync::Arc;

use agent::doctor::{self, Patient, State};
use agent::install::RealSystem;
use agent::platform;
use clap::Args;
use shared::random::SystemRandom;
use shared::time::SystemClock;

use super::{Data, runtime, say};

pub const HELP: &str = "Examples:\n  sudo board-agent doctor\n  \
    board-agent doctor --board https://board.example.com:8443 --pin 9f2c…\n\n\
    It changes nothing: one item of the store of secrets is written, read back and deleted.\n\n\
    Exit codes: 0 nothing stands in the way (warnings may be there), 1 something does";

#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    data: Data,
    /// Look at the way to this board instead of the one that this device joined
    #[arg(long, value_name = "URL")]
    board: Option<String>,
    /// SHA-256 of that board's CA key, 64 hexadecimal digits
    #[arg(long, value_name = "HEX64", requires = "board")]
    pin: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn doctor(options: &Doctor) -> anyhow::Result<ExitCode> {
    platform::forbid_inspection()?;
    let mut system = RealSystem;
    let mut patient = Patient {
        paths: options.data.paths()?,
        board: options.board.clone(),
        pin: options.pin.clone(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        system: &mut system,
    };
    let report = runtime(1)?.block_on(doctor::examine(&mut patient));
    if options.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        say(report.to_string().trim_end());
    }
    Ok(if report.count(State::Problem) > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
