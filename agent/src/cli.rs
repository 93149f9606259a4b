mod data;
mod doctor;
mod install;
mod inventory;
mod leave;
mod paste;
mod undo;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use agent::daemon;
use agent::enroll::{self, JoinError, JoinOptions, Progress};
use agent::exec::{self, ExecError};

use agent::logs::RotatingLog;
use agent::outbound::StandIn;
use agent::platform;
use agent::release::{self, Begun};
use agent::status::Status;
use agent::steps::run::Launcher;
use agent::steps::run_as;
use agent::trust;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use data::Data;
use nix::unistd::Uid;
use shared::random::SystemRandom;
use shared::time::SystemClock;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

const REJECTED: u8 = 3;
const EXPIRED: u8 = 4;
const MISSING_SECRET: u8 = 5;
/// What a shell says of a program that can't be started.
const NOT_STARTED: u8 = 126;

/// The agent on a client's machine: joins it to a board, and does what the board's signed catalog says.
#[derive(Parser)]
#[command(name = "board-agent", version = agent::version(), max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a board: the page with the join code shows the whole command
    #[command(after_help = "Example:\n  board-agent join --board https://board.example.com:8443 \
        --pin 9f2c… --code ABCD2345 --publisher-key publisher.pem\n\n\
        Exit codes: 0 enrolled, 1 trouble, 3 rejected, 4 expired")]
    Join(Join),
    /// Run the agent: hold the link to the board, run steps, serve secrets
    #[command(after_help = "Example:\n  board-agent run --dev")]
    Run(Run),
    /// Show which device this is, its fingerprint, its certificate and trouble with renewing it, whose keys it believes, and
    /// the audit log's head that the board told last: for root
    #[command(after_help = "Examples:\n  sudo board-agent status\n  sudo board-agent status --json")]
    Status(Show),
    /// Look at what is really installed, now: for root
    #[command(after_help = "Example:\n  sudo board-agent inventory --json")]
    Inventory(Show),
    /// Find what stands between this device and its board
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::Doctor),
    /// Run a command with a component's secrets in its environment
    #[command(
        after_help = "Example:\n  board-agent exec --for slack -- slack-mcp-server --transport stdio\n\n\
        Exit codes: 1 trouble, 5 a secret is not on this device yet; else the command's own"
    )]
    Exec(Exec),
    /// Enter a secret that the client supplies: it goes into this device's store and nowhere else
    #[command(after_help = paste::HELP)]
    Paste(paste::Paste),
    /// Leave the board: its secrets and this device's keys are removed. For root
    #[command(after_help = leave::HELP)]
    Leave(leave::Leave),
    /// Let the board undo one more step within the hour: for root
    #[command(after_help = undo::HELP)]
    AllowUndo(undo::AllowUndo),
    /// Make the agent a service of this system, which starts with it: for root
    #[command(after_help = install::INSTALL_HELP)]
    Install(install::Install),
    /// Stop the service and take its files away: for root
    #[command(after_help = install::UNINSTALL_HELP)]
    Uninstall(install::Uninstall),
    /// Become a user and run a script that stdin describes
    #[command(hide = true)]
    RunAs,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    data: Data,
    /// Wait until this device has joined a board instead of ending
    #[arg(long)]
    wait_for_join: bool,
    /// Log into files in this folder, five of 5 MiB, instead of stderr
    #[arg(long, value_name = "DIR")]
    log_folder: Option<PathBuf>,
    /// For tests and the demo: the server on this machine that plays every provider, for an agent that joined with --dev
    #[arg(long, env = "BOARD_AGENT_STAND_IN", value_name = "127.0.0.1:PORT", hide = true)]
    stand_in: Option<SocketAddr>,
    /// PEM of the authority that its certificates are signed with; without one nobody is believed
    #[arg(long, env = "BOARD_AGENT_STAND_IN_CA", value_name = "FILE", hide = true)]
    stand_in_ca: Option<PathBuf>,
}

#[derive(Args)]
struct Show {
    #[command(flatten)]
    data: Data,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Join {
    /// Address of the board's agents' port
    #[arg(long, value_name = "URL")]
    board: String,
    /// SHA-256 of the board's CA key, 64 hexadecimal digits
    #[arg(long, value_name = "HEX64")]
    pin: String,
    /// The join code from the page
    #[arg(long)]
    code: String,
    #[command(flatten)]
    data: Data,
    /// The publisher's public key (PEM): only catalogs signed by it are believed
    #[arg(long, value_name = "FILE")]
    publisher_key: Option<PathBuf>,
    /// The public key that releases of the agent are signed with (PEM)
    #[arg(long, value_name = "FILE")]
    release_key: Option<PathBuf>,
    /// The public recovery key (PEM): its word on the other two is believed
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
    /// The account that the software is for [default: whoever runs this; with sudo, whoever called it]
    #[arg(long, value_name = "NAME")]
    managed_user: Option<String>,
    /// Say that this machine is another one: for tests with several agents on one machine
    #[arg(long, value_name = "UUID")]
    hardware_uuid: Option<String>,
}

#[derive(Args)]
struct Exec {
    /// Whose secrets
    #[arg(long = "for", value_name = "COMPONENT[/WRAPPER]")]
    target: String,
    #[command(flatten)]
    data: Data,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Join(join) => self::join(&join),
        Command::Run(run) => daemon(&run),
        Command::Status(show) => status(&show),
        Command::Inventory(show) => inventory::inventory(&show),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Exec(exec) => self::exec(&exec),
        Command::Paste(paste) => paste::paste(&paste),
        Command::Leave(options) => leave::leave(&options),
        Command::AllowUndo(options) => undo::allow_undo(&options),
        Command::Install(options) => install::install(&options),
        Command::Uninstall(options) => install::uninstall(&options),
        Command::RunAs => {
            complain(&run_as::become_spec());
            return ExitCode::from(NOT_STARTED);
        }
    };
    result.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn join(join: &Join) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    platform::forbid_inspection()?;
    let paths = join.data.paths()?;
    let options = JoinOptions {
        board: join.board.clone(),
        pin: join.pin.clone(),
        code: join.code.clone(),
        publisher_key: join.publisher_key.clone(),
        release_key: join.release_key.clone(),
        recovery_key: join.recovery_key.clone(),
        dev: join.data.dev,
        managed_user: join.managed_user.clone().or_else(|| sudo_user(join.data.dev)),
        hardware_uuid: join.hardware_uuid.clone(),
    };
    let mut progress = |progress: Progress| match progress {
        Progress::Waiting { client, fingerprint, until } => {
            say(&format!("Client: {client}"));
            say(&format!("Fingerprint: {fingerprint}"));
            say(&format!(
                "Type this fingerprint into the board's page to approve this device (until {until}). Waiting."
            ));
        }
        Progress::Approved => say("Approved."),
        Progress::Trouble(error) => complain(&format!("{error}; trying again")),
    };
    let joined =
        runtime(1)?.block_on(enroll::join(&paths, &options, &SystemClock, &SystemRandom, &mut progress));
    match joined {
        Ok(device_id) => {
            say(&format!("Enrolled as device {device_id}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            complain(&error);
            Ok(exit_code(&error))
        }
    }
}

/// In development whoever runs this is the managed user.
fn sudo_user(dev: bool) -> Option<String> {
    if dev { None } else { std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()) }
}

fn exit_code(error: &JoinError) -> ExitCode {
    if matches!(error, JoinError::Rejected(_)) {
        ExitCode::from(REJECTED)
    } else if matches!(error, JoinError::Expired) {
        ExitCode::from(EXPIRED)
    } else {
        ExitCode::FAILURE
    }
}

fn daemon(run: &Run) -> anyhow::Result<ExitCode> {
    match &run.log_folder {
        Some(folder) => log_to_files(folder)?,
        None => log_to_stderr(),
    }
    platform::forbid_inspection()?;
    if let Err(error) = platform::allow_files() {
        tracing::warn!(%error, "the agent goes on with fewer open files");
    }
    let stand_in =
        run.stand_in.map(|address| StandIn::new(address, run.stand_in_ca.as_deref())).transpose()?;
    let paths = run.data.paths()?;
    let on_trial = match release::begin(&paths, agent::version()) {
        Ok(Begun::Usual) => None,
        Ok(Begun::OnTrial(on_trial)) => Some(on_trial),
        // The system starts the old program.
        Ok(Begun::WentBack(_)) => return Ok(ExitCode::FAILURE),
        Err(error) => {
            tracing::error!(%error, "what is known of a new program can't be read");
            None
        }
    };
    if let Some(on_trial) = &on_trial {
        on_trial.watch(Arc::new(SystemClock), || std::process::exit(1));
    }
    let options = daemon::Options {
        paths,
        stand_in,
        on_trial,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        launcher: Launcher::this_program()?,
    };
    let wait_for_join = run.wait_for_join;
    // The loop has this thread; one more is enough for what runs beside it.
    runtime(1)?.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // The daemon may have ended by itself.
            let _ = stop.send(true);
            std::future::pending::<()>().await;
        });
        if wait_for_join && !daemon::joined(&options.paths, stopped.clone()).await? {
            return Ok(ExitCode::SUCCESS);
        }
        daemon::run(options, stopped).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn status(show: &Show) -> anyhow::Result<ExitCode> {
    let status = Status::load(&show.data.paths()?)?;
    if show.json {
        say(&serde_json::to_string_pretty(&status)?);
    } else {
        say(status.to_string().trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(exec: &Exec) -> anyhow::Result<ExitCode> {
    let error = exec::exec(&exec.data.paths()?, &exec.target, &exec.command);
    complain(&error);
    Ok(match error {
        ExecError::Missing(_) => ExitCode::from(MISSING_SECRET),
        ExecError::Start { .. } => ExitCode::from(NOT_STARTED),
        ExecError::Ask(_) | ExecError::Refused(_) | ExecError::NoCommand => ExitCode::FAILURE,
    })
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

fn log_to_files(folder: &Path) -> anyhow::Result<()> {
    if Uid::effective().is_root() {
        trust::check_data(folder, trust::ROOT, "/".as_ref())?;
    }
    let log = RotatingLog::open(folder)
        .with_context(|| format!("no log can be written in {}", folder.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(log_filter())
        .with_ansi(false)
        .with_writer(Mutex::new(log))
        .init();
    Ok(())
}

fn log_filter() -> EnvFilter {
    let asked = EnvFilter::try_from_env("BOARD_AGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // At trace it writes whole frames: what is sealed is for no log either.
    match "tungstenite=warn".parse() {
        Ok(without_frames) => asked.add_directive(without_frames),
        Err(_) => EnvFilter::new("info"),
    }
}

/// A line for whoever called, at once: other programs read it as it comes.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody reads it any more: there is nobody to tell, either.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn complain(error: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "board-agent: {error}");
}
