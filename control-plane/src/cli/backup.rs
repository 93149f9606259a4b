//! `board backup` and `board restore`: both open the database themselves.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use shared::time::Clock;

use super::table::plain;
use super::{KeyPlace, Place};
use crate::backup::{self, Manifest, manifest_of};
use crate::keys::Outside;
use crate::offboarding::Rewritten;
use crate::web;

pub const BACKUP_HELP: &str = "\
The copy is consistent, whatever the board does meanwhile. FILE.json beside it says which board it is of, which root key
opens it, and where the audit log stood. Keep both together, and never beside the root key: neither file holds it. What
is our-managed stays encrypted in the copy; who has what is readable.

On PostgreSQL `pg_dump` makes the copy, and has to be of the server's version or newer.

Examples:
  board backup --out /backups/board-monday.db
  board backup --database postgres://board@db/board --out /backups/board-monday.dump
  board backup --verify /backups/board-monday.db   (anywhere, with the root key)";

pub const RESTORE_HELP: &str = "\
Digest, audit chain and root key are checked before anything is touched. With --replace the database of before is moved
aside, never deleted.

A new epoch of the audit log begins, with an entry that an operator acknowledges. Sessions, one-time links, API tokens,
join codes, waiting joins and open offers of the backup end. Devices go on by themselves: one that renewed its certificate
since the backup proves itself by its key; one that joined since then is unknown and joins again.

What was revoked, disabled or ended after the backup is not any more: look through users, devices and clients before you
start the board. Purges that are due are done again: a hold or a reactivation since the backup isn't known here, so take a
newer backup when there was one.

Examples:
  board restore /backups/board-monday.db
  board restore /backups/board-monday.db --replace
  board restore /backups/board-monday.dump --database postgres://board@db/board --owner-url postgres://board_owner@db/board";

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: KeyPlace,
    /// The file to make.
    #[arg(long, value_name = "FILE", required_unless_present = "verify", conflicts_with = "verify")]
    out: Option<PathBuf>,
    /// Check this backup instead: its digest, its audit chain, and that the root key opens it.
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
    /// Print the manifest.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: KeyPlace,
    /// postgres://OWNER@HOST/NAME: the same database as the role that owns its tables.
    #[arg(long, env = "BOARD_OWNER_URL", hide_env_values = true)]
    owner_url: Option<String>,
    /// Move aside the database that is there.
    #[arg(long)]
    replace: bool,
}

pub async fn backup(args: BackupArgs, clock: Arc<dyn Clock>) -> anyhow::Result<String> {
    let (manifest, file, done) = match (&args.verify, &args.out) {
        (Some(file), _) => {
            let named = args.key.named()?;
            let manifest = backup::verify(file, named.as_ref(), Outside::process(clock)).await?;
            (manifest, file, "is whole, its audit chain holds, and the root key opens it")
        }
        (None, Some(out)) => {
            let db = args.place.connect().await?;
            let manifest = backup::make(&db, &args.place.url(), out, &*clock).await?;
            db.close().await;
            (manifest, out, "was made")
        }
        (None, None) => anyhow::bail!("name the file to make with --out, or the one to check with --verify"),
    };
    if args.json {
        return Ok(serde_json::to_string_pretty(&manifest)?);
    }
    let described = described(&manifest);
    Ok(format!(
        "The backup {} {done}.\n{described}\nIts manifest: {}. Keep both together, and the root key elsewhere.",
        file.display(),
        manifest_of(file).display()
    ))
}

fn described(manifest: &Manifest) -> String {
    let root_keys: Vec<String> = manifest
        .root_keys
        .iter()
        .map(|key| format!("version {} (fingerprint {}) with {}", key.version, key.fingerprint, key.provider))
        .collect();
    format!(
        "Board {}, {}, at {}.\nAudit log: entry {} of epoch {}.\nRoot key: {}.",
        manifest.board_id,
        manifest.database,
        manifest.made_at.rfc3339(),
        manifest.audit_head.seq,
        manifest.audit_head.epoch,
        root_keys.join(" and ")
    )
}

pub async fn restore(args: RestoreArgs, clock: Arc<dyn Clock>) -> anyhow::Result<String> {
    let url = args.place.url();
    let place = backup::Place { url: &url, owner_url: args.owner_url.as_deref(), replace: args.replace };
    let named = args.key.named()?;
    let done = backup::restore(&args.file, &place, named.as_ref(), Outside::process(clock)).await?;
    let ended = done.ended;
    let mut text = format!(
        "The board is restored as it was at {}. The audit log goes on in epoch {}.",
        done.manifest.made_at.rfc3339(),
        done.epoch
    );
    if let Some(aside) = &done.aside {
        text.push_str(&format!("\nThe database of before was moved to {aside}."));
    }
    text.push_str(&format!(
        "\nEnded: {}, {}, {}, {}, {}, {}.",
        web::count(ended.sessions, "session", "sessions"),
        web::count(ended.links, "one-time link", "one-time links"),
        web::count(ended.tokens, "API token", "API tokens"),
        web::count(ended.join_codes, "join code", "join codes"),
        web::count(ended.joins, "waiting join", "waiting joins"),
        web::count(ended.offers, "open offer", "open offers"),
    ));
    text.push_str(&format!(
        "\n{} known; one that renewed its certificate since the backup proves itself by its key. One that joined since then is unknown and joins again.",
        web::count(ended.devices, "enrolled device is", "enrolled devices are")
    ));
    text.push_str("\nWhat was revoked, disabled or ended after the backup is not any more: look through users, devices and clients before you start the board.");
    for purged in &done.purged {
        let secrets = web::count(purged.secrets, "secret", "secrets");
        text.push_str(&format!("\nPurged again: {}, {secrets}.", plain(&purged.name)));
    }
    match done.rewritten {
        Rewritten::Nothing | Rewritten::Done => {}
        Rewritten::Busy | Rewritten::NotOwner => text.push_str(
            "\nThe database's files still hold what was purged: run `board purge` (on PostgreSQL with --owner-url).",
        ),
    }
    text.push_str(&format!(
        "\nAn operator confirms the restore on the audit page, or with `board audit acknowledge {} --reason …`.",
        done.entry
    ));
    Ok(text)
}
