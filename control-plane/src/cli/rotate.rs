//! `board rotate`: new values for secrets of ours, beside the running board. It opens the database itself; the board finds
//! the new deliveries at its next look, which is within five seconds.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use shared::random::Random;
use shared::secret::Secret;
use shared::time::Clock;

use super::table::plain;
use super::{KeyPlace, Output, Place, entered};
use crate::app::App;
use crate::audit::Who;
use crate::catalog::{AnySlot, OurSlot};
use crate::clients::{self, Client};
use crate::db::Cause;
use crate::free_text;
use crate::keys::Outside;
use crate::secrets::{self, RotateError, SecretError, StoredSecret};
use crate::{board, web};

pub const HELP: &str = "Examples:\n  board rotate --client 'Example Client' --slot openrouter/OPENROUTER_API_KEY --reason 'a year is over'\n  \
    op read op://Ours/OpenRouter/key | board rotate --client 'Example Client' --slot openrouter/OPENROUTER_API_KEY --from-stdin --reason leaked\n  \
    board rotate --client 'Example Client' --all --reason 'a laptop was stolen'\n\n\
    The value is one line, and at a terminal it is not shown; --from-stdin takes several lines, and drops one line end behind \
    them. With --all an empty answer leaves a secret as it is, and the first failure ends the walk: what was rotated before it \
    stays so.\n\n\
    Exit codes: 0 every value that was entered is stored, 1 one is not; each line says which and why.";

#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: KeyPlace,
    /// The client's id or its whole name.
    #[arg(long)]
    client: String,
    /// COMPONENT/SLOT
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    slot: Option<String>,
    /// Ask for a new value of each secret of ours that is stored for the client.
    #[arg(long)]
    all: bool,
    /// Read the value from standard input to its end.
    #[arg(long, conflicts_with = "all")]
    from_stdin: bool,
    /// Why, for whoever reads the audit log.
    #[arg(long)]
    reason: String,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What became of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Done {
    Rotated,
    /// Nothing was entered.
    Left,
    /// The value that was stored already.
    SameValue,
    /// The value doesn't have the form that the slot wants.
    Refused,
    /// Something else stood in the way. Nothing is asked for after it.
    Failed,
    NotAsked,
}

#[derive(Debug, Serialize)]
struct Line {
    slot: String,
    result: Done,
    version: u64,
    /// Devices that are to get it.
    devices: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub async fn run(args: RotateArgs, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> anyhow::Result<Output> {
    free_text::reason(&args.reason)
        .map_err(|failure| anyhow::anyhow!("--reason: {}", failure.public.detail))?;
    let db = args.place.connect().await?;
    db.prepare().await?;
    let app =
        board::open(db, args.key.named()?, Outside::process(clock), String::new(), None, random).await?;
    let (client, slots) = found(&app, &args.client).await?;
    let lines = match &args.slot {
        Some(name) => vec![one(&app, &client, &slots, name, &args).await?],
        None => all(&app, &client, &slots, &args.reason, entered::line).await?,
    };
    app.db.close().await;
    let text = if args.json { serde_json::to_string_pretty(&lines)? } else { as_text(&lines) };
    let done = |line: &Line| matches!(line.result, Done::Rotated | Done::Left);
    Ok(Output { text, exit: u8::from(!lines.iter().all(done)) })
}

type Slots = Vec<(OurSlot, Option<StoredSecret>)>;

/// The client that is meant, and its slots of ours.
async fn found(app: &App, wanted: &str) -> anyhow::Result<(Client, Slots)> {
    let mut tx = app.db.read().await?;
    let mut fitting: Vec<Client> = clients::list(&mut tx).await?;
    fitting.retain(|client| client.id.to_string() == wanted || client.name == wanted);
    if fitting.len() > 1 {
        let ids: Vec<String> = fitting.iter().map(|client| client.id.to_string()).collect();
        bail!("{} clients are called {wanted:?}: name one by its id ({})", ids.len(), ids.join(", "));
    }
    let client = fitting.pop().with_context(|| {
        format!("there is no client {wanted:?}: give its whole name, or the id in its page's address")
    })?;
    let stored = secrets::stored(&mut tx, client.id).await?;
    let slots = clients::slots(&mut tx, client.id)
        .await
        .map_err(|failure| anyhow::anyhow!(failure.public.detail))?
        .into_iter()
        .filter_map(|slot| match slot {
            AnySlot::Ours(slot) => {
                let known = stored.iter().find(|secret| secret.slot_id == slot.id).copied();
                Some((slot, known))
            }
            AnySlot::Theirs(_) => None,
        })
        .collect();
    Ok((client, slots))
}

async fn one(
    app: &App,
    client: &Client,
    slots: &Slots,
    name: &str,
    args: &RotateArgs,
) -> anyhow::Result<Line> {
    let slot = slots.iter().map(|(slot, _)| slot).find(|slot| key(slot) == name);
    let Some(slot) = slot else {
        let known: Vec<String> = slots.iter().map(|(slot, _)| key(slot)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("{} has no secret of ours {name:?}. It has: {known}", plain(&client.name));
    };
    let value = match args.from_stdin {
        true => entered::piped()?,
        false => entered::only_line(&format!("New value of {name}, not shown: "), &of_several(name))?,
    };
    let line = rotate(app, client, slot, &entered::as_text(&value)?, &args.reason).await?;
    match (line.result, line.why) {
        (Done::Rotated, _) => Ok(Line { why: None, ..line }),
        (Done::Left, _) => bail!("no value was entered: nothing was changed"),
        (Done::SameValue | Done::Refused | Done::Failed | Done::NotAsked, why) => {
            bail!("{name}: {}", why.unwrap_or_default())
        }
    }
}

/// Walks through what is stored; `enter` asks for each value. What was rotated before a failure stays so, and is said.
async fn all(
    app: &App,
    client: &Client,
    slots: &Slots,
    reason: &str,
    enter: impl Fn(&str, &str) -> anyhow::Result<Secret<Vec<u8>>>,
) -> anyhow::Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for (slot, known) in slots {
        let Some(known) = known else { continue };
        let name = key(slot);
        let version = u64::try_from(known.version).unwrap_or(0);
        let line = |result, why| Line { slot: name.clone(), result, version, devices: 0, why };
        if lines.last().is_some_and(|last| matches!(last.result, Done::Failed | Done::NotAsked)) {
            lines.push(line(Done::NotAsked, None));
            continue;
        }
        let prompt = format!("New value of {name} (version {version}), not shown; empty leaves it: ");
        let done = match enter(&prompt, &of_several(&name)).and_then(|value| entered::as_text(&value)) {
            Ok(value) if value.expose().is_empty() => Ok(line(Done::Left, None)),
            Ok(value) => rotate(app, client, slot, &value, reason).await,
            Err(error) => Err(error),
        };
        lines.push(done.unwrap_or_else(|error| {
            let remedy = Cause::words_behind(&error).map(|words| format!(". {words}")).unwrap_or_default();
            line(Done::Failed, Some(format!("{error:#}{remedy}")))
        }));
    }
    if lines.is_empty() {
        bail!("nothing is stored for {}, so there is nothing to rotate", plain(&client.name));
    }
    Ok(lines)
}

/// What to do about a value of several lines.
fn of_several(name: &str) -> String {
    format!(
        "{name} was left as it is. Give such a value from a file: board rotate … --slot {name} --from-stdin < FILE"
    )
}

async fn rotate(
    app: &App,
    client: &Client,
    slot: &OurSlot,
    value: &Secret<String>,
    reason: &str,
) -> anyhow::Result<Line> {
    let line = |result, version, devices, why| Line { slot: key(slot), result, version, devices, why };
    if value.expose().is_empty() {
        return Ok(line(Done::Left, 0, 0, None));
    }
    match secrets::rotate(app, Who::cli(), client.id, slot.id, value, reason).await {
        Ok(rotated) => Ok(line(Done::Rotated, rotated.version, rotated.devices, None)),
        Err(error @ RotateError::Same) => Ok(line(Done::SameValue, 0, 0, Some(error.to_string()))),
        Err(error @ RotateError::Secret(SecretError::Form | SecretError::TooLong | SecretError::Empty)) => {
            Ok(line(Done::Refused, 0, 0, Some(error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

fn key(slot: &OurSlot) -> String {
    format!("{}/{}", slot.component_key, slot.slot_key)
}

fn as_text(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.slot.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let result = match line.result {
            Done::Rotated => format!(
                "✓ version {}, on its way to {}",
                line.version,
                web::count(line.devices, "device", "devices")
            ),
            Done::Left => "– left as it is".to_owned(),
            Done::SameValue | Done::Refused | Done::Failed => {
                format!("✗ {}", line.why.as_deref().unwrap_or_default())
            }
            Done::NotAsked => "– not asked for any more, left as it is".to_owned(),
        };
        let _ = writeln!(text, "{:width$}  {result}", line.slot);
    }
    if lines.iter().any(|line| line.result == Done::Rotated) {
        text.push_str("\nThe client's page shows which devices have it. End the old values at their providers after that.");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
