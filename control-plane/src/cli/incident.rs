//! `board incident`: opens the database, beside a board that runs.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use shared::random::Random;
use shared::time::Clock;

use super::table::plain;
use super::{KeyPlace, Place};
use crate::audit::Who;
use crate::incident::{self, Line};
use crate::keys::Outside;
use crate::{board, web};

pub const HELP: &str = "\
Freezes the board: no secret is opened, delivered or copied, and no step is offered, until an operator lifts it on the
console's incident page. A step that runs already on a device goes on. Then it lists the secrets of ours that the board can
read: rotate them (new values are taken while it is frozen, and delivered when it is lifted), and end the old ones at
their providers. When the root key may be known, `board rekey` first: it goes on while the board is frozen. A board that serves disables the keys that it made at OpenRouter
within a minute; all others have to be ended at their providers.

Examples:
  board incident --reason 'the server was broken into'
  board incident --list --json
  board incident --list --csv > rotate.csv";

#[derive(Debug, Args)]
pub struct IncidentArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: KeyPlace,
    /// What happened, for whoever reads the audit log.
    #[arg(long, required_unless_present = "list", conflicts_with = "list")]
    reason: Option<String>,
    /// Only list; change nothing.
    #[arg(long)]
    list: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// For a spreadsheet.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub async fn run(
    args: IncidentArgs,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> anyhow::Result<String> {
    let db = args.place.connect().await?;
    if let Some(reason) = &args.reason {
        let outside = Outside::process(clock);
        let named = args.key.named()?;
        let app = board::open(db.clone(), named, outside, String::new(), None, random).await?;
        incident::begin(&app, Who::cli(), reason)
            .await
            .map_err(|failure| anyhow::anyhow!(failure.public.detail))?;
    }
    let (open, lines) = incident::exposed(&mut db.read().await?).await?;
    db.close().await;
    if args.csv {
        return Ok(String::from_utf8(incident::as_csv(&lines)?)?.trim_end().to_owned());
    }
    if args.json {
        return Ok(serde_json::to_string_pretty(&lines)?);
    }
    let frozen = open.is_some_and(|incident| incident.is_open());
    Ok(as_text(frozen, &lines))
}

fn as_text(frozen: bool, lines: &[Line]) -> String {
    let mut text = match frozen {
        true => "The board is frozen. An operator lifts it on the console's incident page.\n".to_owned(),
        false => "The board is not frozen.\n".to_owned(),
    };
    let left = lines.iter().filter(|line| !line.rotated).count();
    let _ = writeln!(
        text,
        "{} that this board can read, {left} to rotate:",
        web::count(lines.len(), "secret", "secrets")
    );
    for Line { exposed, rotated } in lines {
        let mark = if *rotated { "✓" } else { "–" };
        let devices = match exposed.devices.is_empty() {
            true => "on no device".to_owned(),
            false => format!("on {}", plain(&exposed.devices.join(", "))),
        };
        let ended = match exposed.ended {
            true => "  (the engagement has ended: end it at its provider)",
            false => "",
        };
        let _ = writeln!(
            text,
            "{mark} {}  {}/{}  version {}  {devices}{ended}",
            plain(&exposed.client),
            exposed.component_key,
            exposed.slot_key,
            exposed.version
        );
    }
    text.trim_end().to_owned()
}
