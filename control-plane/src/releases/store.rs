use shared::catalog::Platform;
use shared::ids::{ClientId, DeviceId};
use shared::protocol::link::ReleaseOutcome;
use shared::signing::{Arch, Release, SignedRelease};
use shared::time::Timestamp;

use crate::db::Tx;
use crate::on;

/// A release, and how many devices said what of it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Staged {
    pub digest: String,
    pub version: String,
    pub platform: Platform,
    pub arch: Arch,
    pub size: i64,
    pub percent: i64,
    pub imported_at: Timestamp,
    pub installed: i64,
    pub refused: i64,
    pub went_back: i64,
}

/// A release that is offered to somebody.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Offered {
    pub digest: String,
    pub version: String,
    pub percent: i64,
}

/// What a device runs, and its last word on a release.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DeviceProgram {
    pub device_id: DeviceId,
    pub device: String,
    pub client_id: ClientId,
    pub client: String,
    pub version: String,
    pub said_at: Timestamp,
    pub release_version: Option<String>,
    pub outcome: Option<ReleaseOutcome>,
    pub reason: Option<String>,
}

pub async fn find(
    tx: &mut Tx,
    version: &str,
    platform: Platform,
    arch: Arch,
) -> Result<Option<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT digest FROM releases WHERE version = $1 AND platform = $2 AND arch = $3")
        .bind(version)
        .bind(platform)
        .bind(arch)
        .fetch_optional(conn)
        .await)
}

pub async fn insert(
    tx: &mut Tx,
    digest: &str,
    release: &Release,
    signed: &SignedRelease,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO releases (digest, version, platform, arch, size, sha256, payload, signature, imported_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(digest)
    .bind(&release.version)
    .bind(release.platform)
    .bind(release.arch)
    .bind(i64::try_from(release.size).unwrap_or(i64::MAX))
    .bind(&release.sha256)
    .bind(&signed.payload)
    .bind(&signed.signature)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn insert_piece(tx: &mut Tx, digest: &str, seq: i64, bytes: &[u8]) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("INSERT INTO release_pieces (release_digest, seq, bytes) VALUES ($1, $2, $3)")
        .bind(digest)
        .bind(seq)
        .bind(bytes)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn piece(tx: &mut Tx, digest: &str, seq: i64) -> Result<Option<Vec<u8>>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT bytes FROM release_pieces WHERE release_digest = $1 AND seq = $2")
        .bind(digest)
        .bind(seq)
        .fetch_optional(conn)
        .await)
}

pub async fn size(tx: &mut Tx, digest: &str) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT size FROM releases WHERE digest = $1")
        .bind(digest)
        .fetch_optional(conn)
        .await)
}

pub async fn version_of(tx: &mut Tx, digest: &str) -> Result<Option<String>, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT version FROM releases WHERE digest = $1")
        .bind(digest)
        .fetch_optional(conn)
        .await)
}

pub async fn signed(tx: &mut Tx, digest: &str) -> Result<Option<SignedRelease>, sqlx::Error> {
    let row: Option<(Vec<u8>, Vec<u8>)> = on!(tx, conn => sqlx::query_as("SELECT payload, signature FROM releases WHERE digest = $1")
            .bind(digest)
            .fetch_optional(conn)
            .await)?;
    Ok(row.map(|(payload, signature)| SignedRelease { payload, signature }))
}

pub async fn stage(tx: &mut Tx, version: &str, percent: u8) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE releases SET percent = $2 WHERE version = $1")
        .bind(version)
        .bind(i64::from(percent))
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn staged(tx: &mut Tx, platform: Platform, arch: Arch) -> Result<Vec<Offered>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT digest, version, percent FROM releases WHERE platform = $1 AND arch = $2 AND percent > 0",
    )
    .bind(platform)
    .bind(arch)
    .fetch_all(conn)
    .await)
}

pub async fn all(tx: &mut Tx) -> Result<Vec<Staged>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT r.digest, r.version, r.platform, r.arch, r.size, r.percent, r.imported_at, \
         (SELECT count(*) FROM release_outcomes o WHERE o.release_digest = r.digest AND o.outcome = 'installed') AS installed, \
         (SELECT count(*) FROM release_outcomes o WHERE o.release_digest = r.digest AND o.outcome = 'refused') AS refused, \
         (SELECT count(*) FROM release_outcomes o WHERE o.release_digest = r.digest AND o.outcome = 'went-back') AS went_back \
         FROM releases r",
    )
    .fetch_all(conn)
    .await)
}

pub async fn said(
    tx: &mut Tx,
    device_id: DeviceId,
    version: &str,
    arch: Option<Arch>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO device_programs (device_id, version, arch, said_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (device_id) DO UPDATE SET version = $2, arch = $3, said_at = $4",
    )
    .bind(device_id)
    .bind(version)
    .bind(arch)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn outcome(
    tx: &mut Tx,
    device_id: DeviceId,
    digest: &str,
) -> Result<Option<(ReleaseOutcome, String)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT outcome, reason FROM release_outcomes WHERE device_id = $1 AND release_digest = $2",
    )
    .bind(device_id)
    .bind(digest)
    .fetch_optional(conn)
    .await)
}

pub async fn note_outcome(
    tx: &mut Tx,
    device_id: DeviceId,
    digest: &str,
    outcome: ReleaseOutcome,
    reason: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO release_outcomes (device_id, release_digest, outcome, reason, at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (device_id, release_digest) DO UPDATE SET outcome = $3, reason = $4, at = $5",
    )
    .bind(device_id)
    .bind(digest)
    .bind(outcome)
    .bind(reason)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Of devices that are still enrolled, those first whose last word was no good news, then by when they said it.
pub async fn programs(tx: &mut Tx, limit: i64) -> Result<Vec<DeviceProgram>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT p.device_id, d.name AS device, d.client_id, c.name AS client, p.version, p.said_at, \
         r.version AS release_version, o.outcome, o.reason \
         FROM device_programs p JOIN devices d ON d.id = p.device_id JOIN clients c ON c.id = d.client_id \
         LEFT JOIN release_outcomes o ON o.device_id = p.device_id AND o.at = \
             (SELECT max(l.at) FROM release_outcomes l WHERE l.device_id = p.device_id) \
         LEFT JOIN releases r ON r.digest = o.release_digest \
         WHERE d.state = 'enrolled' \
         ORDER BY CASE WHEN o.outcome IN ('refused', 'went-back') THEN 0 ELSE 1 END, p.said_at DESC, p.device_id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(conn)
    .await)
}
