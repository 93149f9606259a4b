//! `board user …`: opens the database, for the first user and for whoever locked themselves out.

use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;
use shared::ids::UserId;
use shared::random::Random;
use shared::time::{Clock, Timestamp};

use super::{KeyPlace, Place, role};
use crate::access::users::{self, Listed};
use crate::access::{self, Role, passkeys, tokens};
use crate::audit::Who;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a user, and make the one-time link by which they sign in.
    #[command(after_help = "Example: board user add colleague@example.com --roles consultant,support")]
    Add {
        email: String,
        /// What they may do, separated by commas: consultant, operator, support.
        #[arg(long, required = true, value_delimiter = ',', value_parser = role)]
        roles: Vec<Role>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        key: KeyPlace,
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        console_url: String,
    },
    /// Make a one-time sign-in link for a user, good for a day.
    #[command(after_help = "Example: board user link you@example.com")]
    Link {
        email: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        key: KeyPlace,
        #[arg(long, default_value = "http://127.0.0.1:8080")]
        console_url: String,
    },
    /// Require passkeys, or let passwords in again: the way back for whoever locked everybody out.
    #[command(after_help = "Example: board user require-passkeys off")]
    RequirePasskeys {
        #[arg(value_parser = ["on", "off"])]
        state: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the users and their roles.
    #[command(after_help = "Example: board user list --json")]
    List {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(command: Command, clock: &Arc<dyn Clock>, random: &dyn Random) -> anyhow::Result<String> {
    let (place, key, console_url, email, roles) = match command {
        Command::List { place, json } => return listed(&place, json).await,
        Command::RequirePasskeys { state, place } => return require(&place, state == "on", &**clock).await,
        Command::Link { email, place, key, console_url } => (place, key, console_url, email, None),
        Command::Add { email, roles, place, key, console_url } => {
            (place, key, console_url, email, Some(roles))
        }
    };
    let db = place.connect().await?;
    let root = key.open(&db, clock).await?;
    let clock = &**clock;
    let mut tx = db.write().await?;
    let token = match roles {
        Some(roles) => users::add(&mut tx, &root, clock, random, Who::cli(), &email, &roles).await?,
        None => access::new_link(&mut tx, &root, clock, random, &email).await?,
    };
    tx.commit().await?;
    Ok(format!("Sign in (once, within a day): {console_url}/welcome/{}", token.expose()))
}

async fn require(place: &Place, on: bool, clock: &dyn Clock) -> anyhow::Result<String> {
    let db = place.connect().await?;
    let mut tx = db.write().await?;
    passkeys::require(&mut tx, Who::cli(), None, on, clock.now()).await?;
    tx.commit().await?;
    Ok(match on {
        true => "A password alone lets nobody in any more. Who has no passkey needs a one-time link (`board user link`).",
        false => "Passwords let people in again.",
    }
    .into())
}

#[derive(Serialize)]
struct UserJson<'a> {
    id: UserId,
    email: &'a str,
    roles: &'a [Role],
    has_password: bool,
    has_passkey: bool,
    created_at: String,
    disabled_at: Option<String>,
}

async fn listed(place: &Place, json: bool) -> anyhow::Result<String> {
    let mut tx = place.connect().await?.read().await?;
    let found = users::list(&mut tx).await?;
    if json {
        let list: Vec<_> = found
            .iter()
            .map(|user| UserJson {
                id: user.id,
                email: &user.email,
                roles: &user.roles,
                has_password: user.has_password,
                has_passkey: user.has_passkey,
                created_at: user.created_at.rfc3339(),
                disabled_at: user.disabled_at.map(Timestamp::rfc3339),
            })
            .collect();
        return Ok(serde_json::to_string_pretty(&list)?);
    }
    Ok(found.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn line(user: &Listed) -> String {
    let state = match (user.disabled_at.is_some(), user.has_been_here()) {
        (true, _) => "disabled",
        (false, true) => "can sign in",
        (false, false) => "invited",
    };
    format!("{}  {}  {state}", user.email, tokens::words(&user.roles))
}
