//! `board purge`: what is due now, without a running board.

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use shared::ids::ClientId;
use shared::time::Clock;

use super::{Output, Place};
use crate::audit::Who;
use crate::db::{ConnectError, Db};
use crate::offboarding::{self, Rewritten};

pub const HELP: &str = "Examples:\n  board purge --dry-run\n  \
    board purge --database postgres://board@db/board --owner-url postgres://board_owner@db/board\n\n\
    Exit codes: 0 nothing is left to do, 1 trouble, 4 the rows are gone and the database's files still have to be rewritten";

/// The rows are erased and the files not yet.
const UNWRITTEN: u8 = 4;

#[derive(Debug, Args)]
pub struct PurgeArgs {
    #[command(flatten)]
    place: Place,
    /// Only this client.
    #[arg(long, value_name = "ID")]
    client: Option<ClientId>,
    /// postgres://OWNER@HOST/NAME: the same database as the role that owns its tables, which alone may rewrite them.
    #[arg(long, env = "BOARD_OWNER_URL", hide_env_values = true)]
    owner_url: Option<String>,
    /// Show what is due and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Said {
    dry_run: bool,
    clients: Vec<ClientLine>,
    /// "nothing", "done", "busy", "not-owner"; none for a dry run.
    rewritten: Option<&'static str>,
}

#[derive(Serialize)]
struct ClientLine {
    client_id: ClientId,
    name: String,
    /// Secrets that were deleted; none for a dry run.
    secrets: Option<u64>,
}

pub async fn run(args: PurgeArgs, clock: &dyn Clock) -> anyhow::Result<Output> {
    let db = args.place.connect().await?;
    db.prepare().await?;
    let now = clock.now();
    let failed = |failure: crate::error::Failure| match failure.internal {
        Some(internal) => internal.context(failure.public.detail),
        None => anyhow::anyhow!("{}", failure.public.detail),
    };
    if args.dry_run {
        let due = offboarding::due(&db, now, args.client).await.map_err(failed)?;
        let line = |(client_id, name)| ClientLine { client_id, name, secrets: None };
        let clients = due.into_iter().map(line).collect();
        return say(&args, Said { dry_run: true, clients, rewritten: None });
    }
    let owner = match &args.owner_url {
        None => db.clone(),
        Some(url) if matches!(db, Db::Postgres(_)) && url.starts_with("postgres") => {
            Db::connect(url).await.context("the address in --owner-url")?
        }
        Some(_) => bail!(ConnectError::NoRoles),
    };
    let who = Who::cli();
    let purged = offboarding::purge_due(&db, &who, now, args.client).await.map_err(failed)?;
    let rewritten = offboarding::rewrite(&db, &owner, &who, now).await.map_err(failed)?;
    let line = |purged: offboarding::Purged| ClientLine {
        client_id: purged.client_id,
        name: purged.name,
        secrets: Some(purged.secrets),
    };
    let clients = purged.into_iter().map(line).collect();
    let word = match rewritten {
        Rewritten::Nothing => "nothing",
        Rewritten::Done => "done",
        Rewritten::Busy => "busy",
        Rewritten::NotOwner => "not-owner",
    };
    say(&args, Said { dry_run: false, clients, rewritten: Some(word) })
}

fn say(args: &PurgeArgs, said: Said) -> anyhow::Result<Output> {
    let exit = if matches!(said.rewritten, Some("busy" | "not-owner")) { UNWRITTEN } else { 0 };
    if args.json {
        return Ok(Output { text: serde_json::to_string_pretty(&said)?, exit });
    }
    let mut lines = Vec::new();
    for client in &said.clients {
        lines.push(match client.secrets {
            Some(secrets) => {
                format!("Purged: {} ({}), secrets deleted: {secrets}", client.name, client.client_id)
            }
            None => format!("Due: {} ({})", client.name, client.client_id),
        });
    }
    if said.clients.is_empty() {
        lines.push("No purge is due.".to_owned());
    }
    lines.extend(match said.rewritten {
        None | Some("nothing") => None,
        Some("done") => Some(
            "The database's files were rewritten. PostgreSQL's own log (WAL) and backups hold what was erased until \
             their retention ends."
                .to_owned(),
        ),
        Some("busy") => Some(
            "The database was read all the while, so its files still hold what was erased. Run the same again.".to_owned(),
        ),
        Some(_) => Some(
            "The tables belong to another role, and only it may rewrite them: their files still hold what was erased. \
             Run the same with --owner-url."
                .to_owned(),
        ),
    });
    Ok(Output { text: lines.join("\n"), exit })
}
