//! `cargo demo`: a board and a Mac on this machine, in a folder of their own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tests::demo::{build, by_hand, fresh_folder, set_stage, unattended};

/// Starts a board and a device and goes through the whole job.
#[derive(Debug, Parser)]
#[command(after_help = "Example: cargo demo -- --unattended --data /tmp/demo")]
struct Arguments {
    /// Play the consultant too; end with a report, exit 0 only if the device has what the scope wants.
    #[arg(long)]
    unattended: bool,
    /// A fresh folder for everything; by default the next free one below target/demo.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the demo's terminal")]
            {
                eprintln!("demo: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    build().await?;
    let folder = fresh_folder(arguments.data)?;
    let stage = set_stage(&folder).await?;
    if arguments.unattended {
        return unattended(stage).await;
    }
    by_hand(stage).await?;
    Ok(true)
}
