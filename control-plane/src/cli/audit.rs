//! `board audit`: checks the chain of the log, compares it with what devices were told, writes it into a file.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;
use shared::crypto::hex;
use shared::time::{Clock as _, SystemClock};

use super::{Output, Place};
use crate::audit::{
    self, Break, Compared, Filter, Format, Standing, Told, Walk, Who, compare_heads, read_export,
    read_witness,
};
use crate::free_text;

const VERIFY_HELP: &str = "\
Examples:
  board audit verify
  sudo board-agent status --json > mac-mini-3.json   (on the device)
  board audit verify --witness mac-mini-3.json
  board audit verify --export audit.jsonl --witness mac-mini-3.json   (anywhere, without the board)

Exit codes:
  0  The chain holds, and all heads that could be compared fit.
  1  It could not be checked.
  3  The chain is broken.
  4  The chain holds, but it isn't what a witness was told: the log was rewritten, or an older one was put back.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the chain of the audit log, and compare it with heads that devices were told.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        #[command(flatten)]
        place: Place,
        /// A file with heads: what `board-agent status --json` printed, of one device or of several. May be named again.
        #[arg(long, value_name = "FILE")]
        witness: Vec<PathBuf>,
        /// Check this export (JSON lines) instead of the database.
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// End an alarm of the audit log, or confirm a restore: somebody knows why.
    #[command(after_help = "Example: board audit acknowledge 412 --reason 'the disk of the server died'")]
    Acknowledge {
        /// Number of the entry that raised it, as `board restore` and the console's audit page say it.
        entry: u64,
        /// What you found, for whoever reads the audit log.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        place: Place,
    },
    /// Write the audit log into a file: JSON lines, which `verify --export` checks anywhere, or CSV for a spreadsheet.
    #[command(after_help = "Example: board audit export --since 2026-11-01 --out audit.jsonl")]
    Export {
        #[command(flatten)]
        place: Place,
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        /// From this day (UTC) or moment (RFC 3339).
        #[arg(long)]
        since: Option<audit::Moment>,
        /// Up to this day, included, or before this moment.
        #[arg(long)]
        until: Option<audit::Moment>,
        /// The file to make; standard output without it. A file that is there is not overwritten.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub async fn run(command: Command) -> anyhow::Result<Output> {
    match command {
        Command::Verify { place, witness, export, json } => {
            verify(&place, &witness, export.as_deref(), json).await
        }
        Command::Acknowledge { entry, reason, place } => acknowledge(&place, entry, &reason).await,
        Command::Export { place, format, since, until, out } => {
            let filter = Filter { since, until, ..Filter::default() };
            write(&place, format, filter, out.as_deref()).await
        }
    }
}

/// The audit chain is broken: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error(
    "the audit chain is broken at entry {seq}: {why}. Compare with a backup and with the heads that agents keep"
)]
pub struct Broken {
    pub seq: u64,
    pub why: &'static str,
}

const BROKEN: u8 = 3;
const DIFFERS: u8 = 4;

async fn verify(
    place: &Place,
    witness: &[PathBuf],
    export: Option<&Path>,
    json: bool,
) -> anyhow::Result<Output> {
    let mut told = Vec::new();
    for path in witness {
        let named = || format!("the witness file {}", path.display());
        let text = std::fs::read_to_string(path).with_context(named)?;
        told.extend(read_witness(&text).with_context(named)?);
    }
    let mut walk = Walk::remembering(told.iter().map(|told| &told.head));
    let broken = match export {
        Some(path) => {
            let named = || format!("the export {}", path.display());
            let file = File::open(path).with_context(named)?;
            read_export(BufReader::new(file), &mut walk).with_context(named)?
        }
        None => {
            let db = place.connect().await?;
            let mut tx = db.read().await?;
            audit::walk_all(&mut tx, &mut walk).await?
        }
    };
    let compared = compare_heads(&walk, &told, export.is_some());
    if broken.is_none() && !told.is_empty() && compared.fit + compared.dropped + compared.differ.len() == 0 {
        bail!(
            "none of the {} heads lies in this export, so nothing was compared: export a longer time, or compare with the database",
            told.len()
        );
    }
    if json {
        return Ok(Output {
            text: as_json(&walk, broken, &compared).to_string(),
            exit: exit(broken, &compared),
        });
    }
    if let Some(Break { seq, why }) = broken {
        return Err(Broken { seq, why }.into());
    }
    Ok(Output { text: as_text(&walk, &told, &compared), exit: exit(None, &compared) })
}

async fn acknowledge(place: &Place, entry: u64, reason: &str) -> anyhow::Result<Output> {
    let reason = free_text::reason(reason)
        .map_err(|failure| anyhow::anyhow!("--reason: {}", failure.public.detail))?;
    let db = place.connect().await?;
    let mut tx = db.write().await?;
    if !audit::acknowledge(&mut tx, entry, Who::cli(), reason, SystemClock.now()).await? {
        bail!("no alarm of entry {entry} stands: the console's audit page shows those that do");
    }
    tx.commit().await?;
    db.close().await;
    Ok(format!("Entry {entry} is acknowledged.").into())
}

fn exit(broken: Option<Break>, compared: &Compared) -> u8 {
    match broken {
        Some(_) => BROKEN,
        None if compared.differ.is_empty() => 0,
        None => DIFFERS,
    }
}

fn as_json(walk: &Walk, broken: Option<Break>, compared: &Compared) -> serde_json::Value {
    let differ: Vec<_> = compared
        .differ
        .iter()
        .map(|(told, standing)| {
            json!({
                "device_id": told.by,
                "epoch": told.head.epoch,
                "seq": told.head.seq,
                "hash": hex(&told.head.hash),
                "log": why(*standing),
            })
        })
        .collect();
    let first = compared.first_difference().map(|(from, to)| json!({ "from": from, "to": to }));
    json!({
        "holds": broken.is_none(),
        "entries": (walk.last.seq + 1).saturating_sub(walk.began()),
        "from": walk.began(),
        "to": walk.last.seq,
        "head": { "epoch": walk.last.epoch, "seq": walk.last.seq, "hash": hex(&walk.last.hash) },
        "broken": broken.map(|Break { seq, why }| json!({ "seq": seq, "why": why })),
        "heads": {
            "fit": compared.fit,
            "dropped": compared.dropped,
            "outside": compared.outside,
            "differ": differ,
            "first_difference_among": first,
        },
    })
}

fn as_text(walk: &Walk, told: &[Told], compared: &Compared) -> String {
    let began = walk.began();
    let mut text = if began == 1 {
        format!("The chain holds: {} entries.", walk.last.seq)
    } else {
        format!(
            "The chain holds from entry {began} to {}. What comes before isn't in this file.",
            walk.last.seq
        )
    };
    if told.is_empty() {
        return text;
    }
    text.push_str(&format!("\n{} of {} heads fit.", compared.fit, told.len()));
    if compared.dropped > 0 {
        text.push_str(&format!(
            "\n{} heads are of entries that went with a restore: the log has a later epoch. Ask who restored it.",
            compared.dropped
        ));
    }
    if compared.outside > 0 {
        text.push_str(&format!(
            "\n{} heads lie outside this export and were not compared.",
            compared.outside
        ));
    }
    let Some((from, to)) = compared.first_difference() else { return text };
    let among = if from == to { format!("entry {to}") } else { format!("one of the entries {from} to {to}") };
    text.push_str(&format!(
        "\nThis is not the log that {} heads were told of. The first entry that differs is {among}.",
        compared.differ.len()
    ));
    for (Told { by, head }, standing) in &compared.differ {
        let by = by.as_deref().unwrap_or("a witness");
        text.push_str(&format!(
            "\n  {by}: entry {} of epoch {} was {}; {}",
            head.seq,
            head.epoch,
            hex(&head.hash),
            why(*standing)
        ));
    }
    text.push_str("\nThe log was rewritten behind the board, or an older one was put back without `board restore`. Keep this database and the witness files, and compare with the backups.");
    text
}

fn why(standing: Standing) -> &'static str {
    match standing {
        Standing::Other => "the log holds another entry there",
        Standing::Beyond => "the log ends before it",
        Standing::Fits => "it fits",
        Standing::Dropped => "it went with a restore",
        Standing::Before => "the export begins after it",
    }
}

async fn write(place: &Place, format: Format, filter: Filter, out: Option<&Path>) -> anyhow::Result<Output> {
    let db = place.connect().await?;
    let mut export = audit::export(&db, format, filter).await?;
    let Some(path) = out else {
        let mut stdout = std::io::stdout().lock();
        while let Some(part) = export.next().await? {
            stdout.write_all(&part)?;
        }
        stdout.flush()?;
        return Ok(Output { text: String::new(), exit: 0 });
    };
    let named = || format!("{} can't be written", path.display());
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).with_context(named)?;
    while let Some(part) = export.next().await? {
        file.write_all(&part).with_context(named)?;
    }
    file.sync_all().with_context(named)?;
    Ok(format!("The audit log is in {}.", path.display()).into())
}
