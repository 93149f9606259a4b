//! Putting a backup back. Everything is checked before anything is touched; what was there before is moved aside.
//!
//! What a backup says about who is let in is as old as the backup, so it ends: sessions, one-time links, API tokens, join
//! codes with the joins that wait on them, and offers that no device took (the board makes them again). Which certificate
//! a device holds isn't known any more: each proves itself by its key at `/renew`. Which versions of secrets devices hold
//! they say at hello.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use shared::crypto::hex;
use shared::time::{Clock, Timestamp};

use super::{BackupError, Kind, Manifest, create, postgres, store, verify};
use crate::audit::{self, Action, Entry, Who};
use crate::db::copying::{self, Target};
use crate::db::{Db, Tx, without_password};
use crate::keys::{Outside, Source};
use crate::offboarding::{self, Purged, Rewritten};

/// Where a backup goes.
pub struct Place<'a> {
    /// sqlite:PATH or postgres://…
    pub url: &'a str,
    /// The same database as the role that owns its tables, on PostgreSQL.
    pub owner_url: Option<&'a str>,
    /// Move aside what is there.
    pub replace: bool,
}

#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// Where the database of before is: a file, or a schema.
    pub aside: Option<String>,
    pub epoch: u64,
    /// Number of the entry to acknowledge.
    pub entry: u64,
    pub ended: Ended,
    /// Clients whose purge was due: it was done again.
    pub purged: Vec<Purged>,
    /// Whether the database's files hold nothing of theirs.
    pub rewritten: Rewritten,
}

/// What ended with the restore, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub sessions: u64,
    pub links: u64,
    pub tokens: u64,
    pub join_codes: u64,
    pub joins: u64,
    pub offers: u64,
    /// Devices that have to renew their certificates if they did since the backup.
    pub devices: u64,
}

pub async fn restore(
    file: &Path,
    place: &Place<'_>,
    also: Option<&Source>,
    outside: Outside,
) -> Result<Restored, BackupError> {
    let clock = outside.clock.clone();
    let manifest = verify(file, also, outside).await?;
    let wanted = Kind::of_url(place.url);
    if manifest.database != wanted {
        return Err(BackupError::OtherKind { made: manifest.database, wanted });
    }
    match wanted {
        Kind::Sqlite => into_sqlite(file, place, manifest, &*clock).await,
        Kind::Postgres => into_postgres(file, place, manifest, &*clock).await,
    }
}

async fn into_sqlite(
    file: &Path,
    place: &Place<'_>,
    manifest: Manifest,
    clock: &dyn Clock,
) -> Result<Restored, BackupError> {
    let path = Path::new(place.url.trim_start_matches("sqlite:"));
    let shown = path.display().to_string();
    let there = path.exists();
    if (there && !place.replace) || (!there && beside(path, "-wal").exists()) {
        return Err(BackupError::Occupied(shown));
    }
    if there && !copying::settle(path).await? {
        return Err(BackupError::InUse(shown));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| BackupError::File { path, error }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    // Made ready beside its place: a restore that is killed leaves what was there.
    let ready = beside(path, ".restoring");
    for leftover in [ready.clone(), beside(&ready, "-wal"), beside(&ready, "-shm")] {
        if leftover.exists() {
            std::fs::remove_file(&leftover).map_err(failed(&leftover))?;
        }
    }
    let mut copy = create(&ready)?;
    let mut backup = File::open(file).map_err(failed(file))?;
    io::copy(&mut backup, &mut copy).and_then(|_| copy.sync_all()).map_err(failed(&ready))?;
    let db = Db::connect(&format!("sqlite:{}", ready.display())).await?;
    db.prepare().await?;
    let begun = begin(&db, &db, &manifest, clock).await?;
    db.close().await;
    if !copying::settle(&ready).await? {
        return Err(BackupError::InUse(ready.display().to_string()));
    }
    let aside = there.then(|| beside(path, &format!(".before-restore-{}", stamp(clock.now()))));
    if let Some(aside) = &aside {
        std::fs::rename(path, aside).map_err(failed(aside))?;
    }
    std::fs::rename(&ready, path).map_err(failed(path))?;
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
    Ok(begun.restored(manifest, aside.map(|path| path.display().to_string())))
}

async fn into_postgres(
    file: &Path,
    place: &Place<'_>,
    manifest: Manifest,
    clock: &dyn Clock,
) -> Result<Restored, BackupError> {
    let owner_url = place.owner_url.unwrap_or(place.url);
    let mut target = Target::open(owner_url).await?;
    let mut aside = None;
    if !target.is_empty().await? {
        let shown = without_password(place.url);
        if !place.replace {
            return Err(BackupError::Occupied(shown));
        }
        if target.is_in_use().await? {
            return Err(BackupError::InUse(shown));
        }
        let name = format!("before_restore_{}", stamp(clock.now()));
        target.move_aside(&name).await?;
        aside = Some(format!("the schema {name}"));
    }
    target.close().await?;
    let put = async {
        postgres::put_back(owner_url, file)?;
        let board = Db::connect(place.url).await?;
        let begun = match place.owner_url {
            Some(owner_url) => {
                let owner = Db::connect(owner_url).await?;
                owner.migrate_for(&board).await?;
                let begun = begin(&board, &owner, &manifest, clock).await?;
                owner.close().await;
                begun
            }
            None => {
                board.prepare().await?;
                begin(&board, &board, &manifest, clock).await?
            }
        };
        board.close().await;
        Ok(begun)
    };
    let begun = put.await.map_err(|error: BackupError| match &aside {
        Some(aside) => BackupError::Halfway { aside: aside.clone(), error: Box::new(error) },
        None => error,
    })?;
    Ok(begun.restored(manifest, aside))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A moment as part of a name: `20261125t105300`.
fn stamp(at: Timestamp) -> String {
    let text = at.rfc3339();
    text.chars().filter(char::is_ascii_alphanumeric).take(15).collect::<String>().to_lowercase()
}

struct Begun {
    epoch: u64,
    entry: u64,
    ended: Ended,
    purged: Vec<Purged>,
    rewritten: Rewritten,
}

impl Begun {
    fn restored(self, manifest: Manifest, aside: Option<String>) -> Restored {
        let Self { epoch, entry, ended, purged, rewritten } = self;
        Restored { manifest, aside, epoch, entry, ended, purged, rewritten }
    }
}

/// Makes the restored database ready for its board: what is out of date ends and a new epoch begins, in one transaction; then
/// every purge that is due is done again, in the new epoch, so that no device was told another entry of that number.
async fn begin(db: &Db, owner: &Db, manifest: &Manifest, clock: &dyn Clock) -> Result<Begun, BackupError> {
    let now = clock.now();
    let mut tx = db.write().await?;
    store::end_rekey_lease(&mut tx).await?;
    store::end_challenges(&mut tx).await?;
    let ended = end_what_is_old(&mut tx, now).await?;
    let head = audit::head(&mut tx).await?;
    let entry = Entry::new(now, Who::cli(), Action::BoardRestored)
        .detail("backup_made_at", manifest.made_at.rfc3339())
        .detail("backup_sha256", &manifest.sha256)
        .detail("head", format!("{}/{} {}", head.epoch, head.seq, hex(&head.hash)))
        .detail("sessions", ended.sessions)
        .detail("links", ended.links)
        .detail("tokens", ended.tokens)
        .detail("join_codes", ended.join_codes)
        .detail("offers", ended.offers);
    let why = format!(
        "The board was restored from a backup of {}: what was done after that is gone. What was revoked, disabled or ended since then is not any more: look through users, devices and clients.",
        manifest.made_at.rfc3339()
    );
    let entry = audit::begin_epoch(&mut tx, &entry, &why).await?;
    tx.commit().await?;
    let who = Who::cli();
    let purged = offboarding::purge_due(db, &who, now, None).await?;
    let rewritten = offboarding::rewrite(db, owner, &who, now).await?;
    Ok(Begun { epoch: head.epoch + 1, entry, ended, purged, rewritten })
}

async fn end_what_is_old(tx: &mut Tx, now: Timestamp) -> Result<Ended, sqlx::Error> {
    Ok(Ended {
        sessions: store::end_sessions(tx).await?,
        links: store::end_links(tx, now).await?,
        tokens: store::end_tokens(tx, now).await?,
        joins: store::end_joins(tx, now).await?,
        join_codes: store::end_join_codes(tx, now).await?,
        offers: store::end_offers(tx, now).await?,
        devices: store::doubt_certificates(tx, now).await?,
    })
}
