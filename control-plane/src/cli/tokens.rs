//! `board token …`: opens the database, like `board user link`.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use shared::ids::TokenId;
use shared::random::Random;
use shared::time::{Clock, Timestamp};

use super::{KeyPlace, Place, role};
use crate::access::Role;
use crate::access::tokens::{self, NewToken, Token, TokenState, make_token, revoke_token};
use crate::audit::Who;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token and print it, once.
    #[command(after_help = "Example: board token create --name monitoring --roles support --days 90")]
    Create {
        /// What uses it. No two living tokens have the same name.
        #[arg(long)]
        name: String,
        /// What it may do, separated by commas: support (reads), consultant, operator.
        #[arg(long, required = true, value_delimiter = ',', value_parser = role)]
        roles: Vec<Role>,
        /// It ends after so many days, at most 365.
        #[arg(long)]
        days: u32,
        /// The user it is for: it ends when they are disabled, and may no more than they.
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        key: KeyPlace,
    },
    /// List the tokens: what they may do, when they end, when they were last used. Never their text.
    #[command(after_help = "Example: board token list --json")]
    List {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// End a token at once, by its name or id.
    #[command(after_help = "Example: board token revoke monitoring")]
    Revoke {
        token: String,
        #[command(flatten)]
        place: Place,
    },
}

pub async fn run(command: Command, clock: &Arc<dyn Clock>, random: &dyn Random) -> anyhow::Result<String> {
    match command {
        Command::Create { name, roles, days, user, place, key } => {
            let db = place.connect().await?;
            let root = key.open(&db, clock).await?;
            let mut tx = db.write().await?;
            let new = NewToken { name, roles, days, user };
            let text = make_token(&mut tx, &root, &**clock, random, Who::cli(), &new).await?;
            tx.commit().await?;
            Ok(format!(
                "Token (shown once; send it as `Authorization: Bearer …` to /api/v1): {}",
                text.expose()
            ))
        }
        Command::List { place, json } => {
            let mut tx = place.connect().await?.read().await?;
            let found = tokens::tokens(&mut tx).await?;
            if json { as_json(&found, clock.now()) } else { Ok(as_text(&found, clock.now())) }
        }
        Command::Revoke { token, place } => {
            let db = place.connect().await?;
            let mut tx = db.write().await?;
            revoke_token(&mut tx, &**clock, Who::cli(), &token).await?;
            tx.commit().await?;
            Ok(format!("The token {token} was revoked. Programs that send it are refused from now on."))
        }
    }
}

#[derive(Serialize)]
struct TokenJson<'a> {
    id: TokenId,
    name: &'a str,
    roles: &'a [Role],
    state: &'static str,
    user: Option<&'a str>,
    created_by: &'a str,
    created_at: String,
    expires_at: String,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

fn as_json(found: &[Token], now: Timestamp) -> anyhow::Result<String> {
    let list: Vec<_> = found
        .iter()
        .map(|token| TokenJson {
            id: token.id,
            name: &token.name,
            roles: &token.roles,
            state: word(token.state(now)),
            user: token.user.as_deref(),
            created_by: &token.created_by,
            created_at: token.created_at.rfc3339(),
            expires_at: token.expires_at.rfc3339(),
            last_used_at: token.last_used_at.map(Timestamp::rfc3339),
            revoked_at: token.revoked_at.map(Timestamp::rfc3339),
        })
        .collect();
    serde_json::to_string_pretty(&list).context("the list can't be put into JSON")
}

fn as_text(found: &[Token], now: Timestamp) -> String {
    if found.is_empty() {
        return "There is no token yet. Make one with `board token create`.".to_owned();
    }
    let mut text = String::new();
    for token in found {
        let used = token.last_used_at.map_or("never".to_owned(), Timestamp::rfc3339);
        let _ = writeln!(
            text,
            "{}  {}  {}  {}  ends {}  last used {used}",
            token.id,
            token.name,
            tokens::words(&token.roles),
            word(token.state(now)),
            token.expires_at.rfc3339(),
        );
    }
    text.trim_end().to_owned()
}

fn word(state: TokenState) -> &'static str {
    match state {
        TokenState::Living => "living",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    }
}
