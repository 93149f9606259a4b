//! The command line: what each command takes, and which function does it.

mod ask;
mod audit;
mod backup;
mod ca;
mod doctor;
mod entered;
mod incident;
mod paste;
mod provider;
mod purge;
mod rekey;
mod release;
mod rotate;
mod serve;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use shared::random::{Random, SystemRandom};
use shared::time::{Clock, SystemClock};

use crate::access::Role;
use crate::board;
use crate::catalog::cli as catalog;
use crate::db::{ConnectError, Db, without_password};
use crate::keys::{Outside, RootKey, Source};

pub use ask::Unasked;
pub use audit::Broken;
pub use paste::Unproven;
pub use rekey::exit_code;

/// Sets up and watches Macs at clients' offices.
#[derive(Debug, Parser)]
#[command(name = "board", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a board: data folder, root key, certificate authority, first user.
    #[command(after_help = "Example: board init --email you@example.com")]
    Init {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        key: KeyPlace,
        /// The first user, who becomes operator and consultant.
        #[arg(long)]
        email: String,
        /// Where the console will be reached, for the sign-in link.
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        console_url: String,
    },
    /// Run the board.
    #[command(
        after_help = "Example: board serve --agents 0.0.0.0:8443 --agents-url https://board.example.com:8443"
    )]
    Serve(ServeArgs),
    /// Name what stands between you and a board that works, and what to do about it.
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Bring the database to this board's version. On PostgreSQL the tables belong to a role of their own, and the board's
    /// role (the user of --database) gets what it needs, no more: it can only append to the audit log.
    #[command(
        after_help = "Example: board migrate --database postgres://board@db/board --owner-url postgres://board_owner@db/board"
    )]
    Migrate {
        #[command(flatten)]
        place: Place,
        /// postgres://OWNER@HOST/NAME: the same database as the role that owns its tables.
        #[arg(long, env = "BOARD_OWNER_URL", hide_env_values = true)]
        owner_url: Option<String>,
    },
    /// Erase the secrets of clients whose engagement ended and whose purge is due. A board that runs does it by itself.
    #[command(after_help = purge::HELP)]
    Purge(purge::PurgeArgs),
    /// Move to a new root key, beside a board that runs: every stored secret is encrypted again under it.
    #[command(after_help = rekey::HELP)]
    Rekey(rekey::RekeyArgs),
    /// Copy the database while the board runs, or check a copy.
    #[command(after_help = backup::BACKUP_HELP)]
    Backup(backup::BackupArgs),
    /// Put a backup back. The board must not run.
    #[command(after_help = backup::RESTORE_HELP)]
    Restore(backup::RestoreArgs),
    /// When somebody else may have had the board: freeze it, and list what it could read.
    #[command(after_help = incident::HELP)]
    Incident(incident::IncidentArgs),
    /// Users of the console.
    #[command(subcommand)]
    User(users::Command),
    /// What is installed where and what differs from the scope, asked of a board over HTTP.
    #[command(after_help = state::HELP)]
    State(state::StateArgs),
    /// Seal a client's secret on this computer and send it to a device that is on. The board passes it on and can't open it.
    #[command(after_help = paste::HELP)]
    Paste(paste::PasteArgs),
    /// Give secrets of ours new values. The running board delivers them within seconds.
    #[command(after_help = rotate::HELP)]
    Rotate(rotate::RotateArgs),
    /// The certificate authority that agents pin.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Tokens with which programs read the JSON API.
    #[command(subcommand)]
    Token(tokens::Command),
    /// The board's own keys at providers.
    #[command(subcommand)]
    Provider(provider::Command),
    /// Check, sign and import the catalog.
    Catalog {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: catalog::Command,
    },
    /// Sign, import and stage releases of the agent.
    #[command(subcommand)]
    Release(release::Command),
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::Command),
}

#[derive(Debug, Args)]
struct Place {
    /// The data folder.
    #[arg(long, env = "BOARD_DATA", default_value = "board-data")]
    data: PathBuf,
    /// sqlite:PATH or postgres://USER@HOST/NAME; by default board.db in the data folder.
    #[arg(long, env = "BOARD_DATABASE", hide_env_values = true)]
    database: Option<String>,
}

#[derive(Debug, Args)]
struct KeyPlace {
    /// The root-key provider: file:PATH, keychain:NAME on a Mac, awskms:KEY[?region=…&endpoint=…], or vault:MOUNT/KEY. For
    /// `init`; by default a file outside the data folder, so that a backup never holds both. Every other command finds it
    /// in the database, and needs this only for a key file that was moved.
    #[arg(long, env = "BOARD_ROOT_KEY")]
    root_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: KeyPlace,
    /// Address of the console: loopback, for a browser here or a proxy that speaks TLS.
    #[arg(long, env = "BOARD_CONSOLE", default_value = "127.0.0.1:8080")]
    console: SocketAddr,
    /// Address of the proxy that speaks TLS before the console. It is believed about the browser's address and the host
    /// that it asked for, and the session cookie is sent over TLS only.
    #[arg(long, env = "BOARD_PROXY")]
    proxy: Option<IpAddr>,
    /// How browsers reach the console, such as https://board.example.com: passkeys belong to that name, and no IP address will
    /// do. Without a proxy it is http://localhost with the console's port.
    #[arg(long, env = "BOARD_CONSOLE_URL")]
    console_url: Option<Url>,
    /// Address of the agents' port.
    #[arg(long, env = "BOARD_AGENTS", default_value = "0.0.0.0:8443")]
    agents: SocketAddr,
    /// How agents reach it, for the join command; by default the address itself.
    #[arg(long, env = "BOARD_AGENTS_URL")]
    agents_url: Option<String>,
    /// Connections that one address may have on the agents' port beside its links; raise it when a load balancer hides
    /// the agents' addresses.
    #[arg(long, env = "BOARD_AGENTS_PER_ADDRESS", default_value_t = crate::link::PER_ADDRESS)]
    agents_per_address: usize,
    /// For tests: a loopback address that plays every provider, in plain HTTP.
    #[arg(long, hide = true)]
    providers_stand_in: Option<SocketAddr>,
    /// How many days you keep backups: the client's page says when the last one ends that holds purged secrets.
    #[arg(long, env = "BOARD_BACKUP_RETENTION_DAYS", value_name = "DAYS")]
    backup_retention_days: Option<u32>,
}

impl Place {
    fn url(&self) -> String {
        self.database.clone().unwrap_or_else(|| format!("sqlite:{}", self.data.join("board.db").display()))
    }

    async fn connect(&self) -> anyhow::Result<Db> {
        let url = self.url();
        if let Some(path) = url.strip_prefix("sqlite:")
            && !Path::new(path).exists()
        {
            bail!("there is no board at {path}: run `board init`, or name the right folder with --data");
        }
        Ok(Db::connect(&url).await?)
    }
}

impl KeyPlace {
    /// The provider that was named.
    fn named(&self) -> anyhow::Result<Option<Source>> {
        Ok(self.root_key.as_deref().map(str::parse).transpose()?)
    }

    /// The provider of a board to be made.
    fn source(&self) -> anyhow::Result<Source> {
        match self.named()? {
            Some(source) => Ok(source),
            None => {
                let home = std::env::var_os("HOME")
                    .context("HOME is not set: name the root key with --root-key file:PATH")?;
                Ok(Source::File(PathBuf::from(home).join(".board/root.key")))
            }
        }
    }

    /// The root key of a board that was made.
    async fn open(&self, db: &Db, clock: &Arc<dyn Clock>) -> anyhow::Result<RootKey> {
        let mut tx = db.read().await?;
        Ok(RootKey::open(&mut tx, self.named()?, Outside::process(Arc::clone(clock))).await?)
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    /// For standard output.
    pub text: String,
    pub exit: u8,
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self { text, exit: 0 }
    }
}

pub async fn run(cli: Cli) -> anyhow::Result<Output> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let text = match cli.command {
        Command::State(args) => return state::run(args).await,
        Command::Paste(args) => return paste::run(args, &*clock, &*random).await,
        Command::Audit(command) => return audit::run(command).await,
        Command::Rotate(args) => return rotate::run(args, clock, random).await,
        Command::Doctor(args) => return doctor::run(args, clock).await,
        Command::Init { place, key, email, console_url } => {
            init(&place, &key, &email, &console_url, clock, &*random).await
        }
        Command::Rekey(args) => rekey::run(args, clock, &*random).await,
        Command::Backup(args) => backup::backup(args, clock).await,
        Command::Restore(args) => backup::restore(args, clock).await,
        Command::Incident(args) => incident::run(args, clock, random).await,
        Command::Serve(args) => serve::serve(args, clock, random).await,
        Command::Ca(command) => ca::run(command, clock, random).await,
        Command::Migrate { place, owner_url } => migrate(&place, owner_url.as_deref()).await,
        Command::Purge(args) => return purge::run(args, &*clock).await,
        Command::User(command) => users::run(command, &clock, &*random).await,
        Command::Token(command) => tokens::run(command, &clock, &*random).await,
        Command::Provider(command) => provider::run(command, clock, &*random).await,
        Command::Release(command) => release::run(command, &*clock, &*random).await,
        Command::Catalog { place, command } => match command {
            catalog::Command::Check { folder } => catalog::check_folder(&folder),
            catalog::Command::Keygen { key, recovery } => catalog::keygen(&key, recovery, &*random),
            catalog::Command::Succeed { key, purpose, serial, adds, retires, out } => {
                let said = catalog::SucceedArgs {
                    key: &key,
                    purpose,
                    serial,
                    adds: adds.as_deref(),
                    retires: &retires,
                };
                catalog::succeed(&said, &out)
            }
            catalog::Command::Relay { file, signed_by } => {
                let db = place.connect().await?;
                catalog::relay_file(&db, &file, &signed_by, &*clock).await
            }
            catalog::Command::Sign { folder, key, serial, out } => {
                catalog::sign_folder(&folder, &key, serial, &out, &*clock)
            }
            catalog::Command::Import { file, publisher_key } => {
                let db = place.connect().await?;
                catalog::import_file(&db, &file, &publisher_key, &*clock, &*random).await
            }
        },
    };
    text.map(Output::from)
}

/// A role on the command line.
fn role(text: &str) -> Result<Role, String> {
    text.trim().parse().map_err(|_| {
        let known: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("the roles are {}", known.join(", "))
    })
}

async fn migrate(place: &Place, owner_url: Option<&str>) -> anyhow::Result<String> {
    let board = place.connect().await?;
    let Some(owner_url) = owner_url else {
        board.prepare().await?;
        return Ok("The database is at this board's version.".into());
    };
    if !owner_url.starts_with("postgres") {
        return Err(ConnectError::NoRoles.into());
    }
    let owner = Db::connect(owner_url).await.context("the address in --owner-url")?;
    let role = owner.migrate_for(&board).await?;
    Ok(format!("The database is at this board's version, and the role {role} has what the board needs."))
}

async fn init(
    place: &Place,
    key: &KeyPlace,
    email: &str,
    console_url: &str,
    clock: Arc<dyn Clock>,
    random: &dyn Random,
) -> anyhow::Result<String> {
    if !email.contains('@') || email.len() > 254 {
        bail!("{email:?} is not an email address: give the first user's with --email");
    }
    std::fs::create_dir_all(&place.data)
        .with_context(|| format!("the data folder {} can't be made", place.data.display()))?;
    let db = Db::connect(&place.url()).await?;
    db.prepare().await?;
    if board::exists(&db).await? {
        return Err(board::BoardError::Exists.into());
    }
    let source = key.source()?;
    let token = board::init(&db, &source, Outside::process(clock), email, random).await?;
    db.close().await;
    let mut text = format!(
        "A board was made.\nDatabase: {}\nRoot key: {source}{}\nSign in (once, within a day): {console_url}/welcome/{}",
        without_password(&place.url()),
        if source.is_remote() { "" } else { " (keep a copy somewhere safe, never beside a backup)" },
        token.expose()
    );
    let inside = match (source.path().map(Path::canonicalize), place.data.canonicalize()) {
        (Some(Ok(path)), Ok(data)) => path.starts_with(data),
        _ => false,
    };
    if inside {
        text.push_str("\nWarning: the root key lies in the data folder, so a backup of the folder holds both. Move it and name it with --root-key.");
    }
    Ok(text)
}
