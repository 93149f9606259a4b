//! The board's program.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use control_plane::cli::{Broken, Cli, Unasked, Unproven, exit_code, run};
use control_plane::db::Cause;
use nix::sys::resource::{Resource, setrlimit};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if let Err(error) = forbid_inspection() {
        return fail(&error);
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(log_filter()).init();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(run(cli)) {
        Ok(said) => {
            print(&said.text);
            ExitCode::from(said.exit)
        }
        Err(error) if error.is::<Broken>() => {
            fail(&error);
            ExitCode::from(3)
        }
        Err(error) if error.is::<Unasked>() => {
            fail(&error);
            ExitCode::from(2)
        }
        Err(error) if error.is::<Unproven>() => {
            fail(&error);
            ExitCode::from(4)
        }
        Err(error) => {
            let code = error.downcast_ref().map(exit_code);
            let failed = fail(&error);
            code.map_or(failed, ExitCode::from)
        }
    }
}

fn log_filter() -> EnvFilter {
    const PLAIN: &str = "info,sqlx=warn";
    let asked = EnvFilter::try_from_env("BOARD_LOG").unwrap_or_else(|_| EnvFilter::new(PLAIN));
    // At trace it writes whole frames: what is sealed is for no log either.
    match "tungstenite=warn".parse() {
        Ok(without_frames) => asked.add_directive(without_frames),
        Err(_) => EnvFilter::new(PLAIN),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "a command's error is for the person who ran it")]
    {
        eprintln!("board: {error:#}");
        if let Some(words) = Cause::words_behind(error) {
            eprintln!("{words}");
        }
    }
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn print(text: &str) {
    if !text.is_empty() {
        println!("{text}");
    }
}

/// Keys and opened secrets must not end in a core file, and no other process of the user may read this one's memory.
fn forbid_inspection() -> anyhow::Result<()> {
    const MEANS: &str =
        "keys and secrets in this program's memory would be open to others, so it doesn't start";
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .with_context(|| format!("core files can't be forbidden; {MEANS}"))?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false).with_context(|| format!("tracing can't be forbidden; {MEANS}"))?;
    Ok(())
}
