//! `board ca …`: from one certificate authority to the next, beside the running board, which looks for it every few seconds.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;
use shared::ids::DeviceId;
use shared::random::Random;
use shared::time::{Clock, Timestamp};

use super::table::plain;
use super::{KeyPlace, Place};
use crate::audit::Who;
use crate::board;
use crate::enrollment::rotation::{self, Status};
use crate::keys::Outside;
use crate::web::{Moment, count};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Go over to a new certificate authority, which the old one certifies. Devices are told over their links and keep
    /// both pins. When all have said so, --finish lets the agents' port show the new one and retires the old.
    #[command(after_help = "Example: board ca rotate; board ca status; board ca rotate --finish")]
    Rotate {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        key: KeyPlace,
        /// End the rotation: agents meet the new authority from now on.
        #[arg(long)]
        finish: bool,
        /// End it although devices have not said that they keep the new pin: they have to join again.
        #[arg(long, requires = "finish")]
        force: bool,
    },
    /// Say which authority agents meet, and during a rotation how each device stands to the new one.
    #[command(after_help = "Example: board ca status --json")]
    Status {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(command: Command, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> anyhow::Result<String> {
    let (place, key, finish, force) = match command {
        Command::Status { place, json } => {
            let (now, db) = (clock.now(), place.connect().await?);
            db.prepare().await?;
            let status = rotation::status(&mut db.read().await?, now).await?;
            return if json { as_json(&status) } else { Ok(as_text(&status, now)) };
        }
        Command::Rotate { place, key, finish, force } => (place, key, finish, force),
    };
    let db = place.connect().await?;
    db.prepare().await?;
    let app = board::open(db, key.named()?, Outside::process(clock), String::new(), None, random).await?;
    let text = if finish {
        let stranded = rotation::finish(&app, Who::cli(), force).await?;
        let mut text =
            "The agents' port shows the new certificate authority within seconds; the old one is retired. \
                        Join commands that were made before don't work any more: make new ones."
                .to_owned();
        if !stranded.is_empty() {
            text.push_str("\nThese devices didn't keep the new pin and have to join again:");
            for one in &stranded {
                let _ = write!(text, "\n  {} ({})", plain(&one.device), plain(&one.client));
            }
        }
        text
    } else {
        let pin = rotation::begin(&app, Who::cli()).await?;
        format!(
            "A new certificate authority was made, pin {pin}. Devices that are on are told of it within seconds, others when \
             they come. `board ca status` shows who keeps its pin; end it with `board ca rotate --finish`."
        )
    };
    app.db.close().await;
    Ok(text)
}

#[derive(Serialize)]
struct StatusJson<'a> {
    pin: &'a str,
    since: String,
    coming: Option<ComingJson<'a>>,
}

#[derive(Serialize)]
struct ComingJson<'a> {
    pin: &'a str,
    begun_at: String,
    open_requests: u32,
    devices: Vec<DeviceJson<'a>>,
}

#[derive(Serialize)]
struct DeviceJson<'a> {
    id: DeviceId,
    name: &'a str,
    client: &'a str,
    state: &'static str,
    acknowledged: bool,
    last_seen_at: Option<String>,
}

fn as_json(status: &Status) -> anyhow::Result<String> {
    let coming = status.coming.as_ref().map(|coming| ComingJson {
        pin: &coming.pin,
        begun_at: coming.begun_at.rfc3339(),
        open_requests: coming.open_requests,
        devices: coming
            .devices
            .iter()
            .map(|one| DeviceJson {
                id: one.device_id,
                name: &one.device,
                client: &one.client,
                state: one.state.as_str(),
                acknowledged: one.acknowledged,
                last_seen_at: one.last_seen_at.map(Timestamp::rfc3339),
            })
            .collect(),
    });
    let status = StatusJson { pin: &status.pin, since: status.since.rfc3339(), coming };
    Ok(serde_json::to_string_pretty(&status)?)
}

fn as_text(status: &Status, now: Timestamp) -> String {
    let mut text =
        format!("Agents meet the authority with pin {}, made {}.", status.pin, status.since.rfc3339());
    let Some(coming) = &status.coming else {
        text.push_str("\nNo rotation is under way.");
        return text;
    };
    let waiting = coming.devices.iter().filter(|one| !one.acknowledged).count();
    let _ =
        write!(text, "\nA rotation to pin {} is under way since {}.", coming.pin, coming.begun_at.rfc3339());
    for one in &coming.devices {
        let (glyph, word) = if one.acknowledged { ('✓', "keeps the new pin") } else { ('?', "not yet") };
        let seen = one
            .last_seen_at
            .map_or("never seen".to_owned(), |at| format!("last seen {}", Moment { at, now }.words()));
        let _ = write!(
            text,
            "\n  {glyph} {} ({}): {word}, {}, {seen}",
            plain(&one.device),
            plain(&one.client),
            one.state
        );
    }
    if coming.open_requests > 0 {
        let asks = count(coming.open_requests, "device asks", "devices ask");
        let _ = write!(text, "\n{asks} to join: decide that before the end, or it has to be asked again.");
    }
    match waiting {
        0 => text.push_str("\nAll devices keep it: end it with `board ca rotate --finish`."),
        waiting => {
            let devices = count(waiting, "device has", "devices have");
            let _ = write!(text, "\n{devices} not said so yet.");
        }
    }
    text
}
