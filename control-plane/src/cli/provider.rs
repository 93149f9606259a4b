//! `board provider …`: the board's own keys at providers. Opens the database, like `board token`.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use shared::random::Random;
use shared::secret::Secret;
use shared::time::Clock;

use super::{KeyPlace, Place, entered};
use crate::audit::Who;
use crate::secrets::{BoardSecret, put_board, remove_board, stored_board};

const WHICH: BoardSecret = BoardSecret::OpenRouterManagement;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// OpenRouter: with a management key the board makes one key for each client.
    #[command(subcommand)]
    Openrouter(OpenRouter),
}

#[derive(Debug, Subcommand)]
pub enum OpenRouter {
    /// Store the management key, from a pipe or typed without being shown.
    #[command(
        after_help = "Example: op read op://Board/OpenRouter/management-key | board provider openrouter set-key"
    )]
    SetKey {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        key: KeyPlace,
    },
    /// Remove the management key. Clients' keys go on working.
    #[command(after_help = "Example: board provider openrouter remove-key")]
    RemoveKey {
        #[command(flatten)]
        place: Place,
    },
    /// Say whether there is a management key, never the key.
    #[command(after_help = "Example: board provider openrouter status --json")]
    Status {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(command: Command, clock: Arc<dyn Clock>, random: &dyn Random) -> anyhow::Result<String> {
    let Command::Openrouter(command) = command;
    match command {
        OpenRouter::SetKey { place, key } => {
            let db = place.connect().await?;
            let root = key.open(&db, &clock).await?;
            let value = enter()?;
            let version = put_board(&db, &root, (&*clock, random), Who::cli(), WHICH, &value)
                .await
                .context("nothing was stored; a management key begins with sk-or-")?;
            Ok(format!(
                "The management key is stored as version {version}. The board makes each client's key with it from now on."
            ))
        }
        OpenRouter::RemoveKey { place } => {
            let db = place.connect().await?;
            Ok(match remove_board(&db, &*clock, Who::cli(), WHICH).await? {
                true => "The management key was removed. If somebody else may have it, revoke it at openrouter.ai/settings/management-keys, too.".into(),
                false => "There is no management key; nothing was changed.".into(),
            })
        }
        OpenRouter::Status { place, json } => {
            let mut tx = place.connect().await?.read().await?;
            let stored = stored_board(&mut tx, WHICH).await?;
            Ok(match (stored, json) {
                (stored, true) => serde_json::json!({
                    "management_key": stored.is_some(),
                    "version": stored.map(|stored| stored.version),
                    "changed_at": stored.map(|stored| stored.changed_at.rfc3339()),
                })
                .to_string(),
                (Some(stored), false) => {
                    format!(
                        "There is a management key: version {}, stored {}.",
                        stored.version,
                        stored.changed_at.rfc3339()
                    )
                }
                (None, false) => {
                    "There is no management key: `board provider openrouter set-key` stores one.".into()
                }
            })
        }
    }
}

fn enter() -> anyhow::Result<Secret<String>> {
    let instead = "nothing was stored; a management key is one line";
    entered::as_text(&entered::only_line("OpenRouter's management key, not shown: ", instead)?)
}
