use shared::ids::{ClientId, DeviceId, EnrollmentId, JoinCodeId, UserId};
use shared::protocol::enroll::Facts;
use shared::time::Timestamp;

use super::ca::{Issued, spki_of};
use super::rotation::AuthorityState;
use super::{Device, Enrollment, EnrollmentState};
use crate::db::Tx;
use crate::on;

#[derive(sqlx::FromRow)]
struct Row {
    id: EnrollmentId,
    client_id: ClientId,
    device_id: Option<DeviceId>,
    state: EnrollmentState,
    tls_spki: Vec<u8>,
    sealing_public_key: Vec<u8>,
    facts: String,
    source_address: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    decided_by: Option<String>,
    decided_at: Option<Timestamp>,
    reason: Option<String>,
    code_reused_at: Option<Timestamp>,
    nonce: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    certificate_not_after: Option<Timestamp>,
    ca_certificate: Vec<u8>,
}

impl TryFrom<Row> for Enrollment {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
        Ok(Self {
            id: row.id,
            client_id: row.client_id,
            device_id: row.device_id,
            state: row.state,
            tls_spki: row.tls_spki,
            sealing_public_key: row
                .sealing_public_key
                .try_into()
                .map_err(|_| decode("a sealing key that is not 32 bytes".into()))?,
            facts: serde_json::from_str(&row.facts).map_err(|error| decode(error.into()))?,
            source_address: row.source_address,
            created_at: row.created_at,
            expires_at: row.expires_at,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            reason: row.reason,
            code_reused_at: row.code_reused_at,
            nonce: row.nonce.and_then(|nonce| nonce.try_into().ok()),
            certificate: row.certificate.zip(row.certificate_not_after),
            ca_spki: spki_of(&row.ca_certificate).map_err(|error| decode(error.into()))?,
        })
    }
}

pub async fn insert_authority(
    tx: &mut Tx,
    certificate: &[u8],
    wrapped: &[u8],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO authorities (number, certificate, wrapped_key, created_at) VALUES (1, $1, $2, $3)",
    )
    .bind(certificate)
    .bind(wrapped)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// Number, certificate and wrapped key.
pub async fn authority(
    tx: &mut Tx,
    state: AuthorityState,
) -> Result<Option<(i64, Vec<u8>, Vec<u8>)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT number, certificate, wrapped_key FROM authorities WHERE state = $1")
        .bind(state)
        .fetch_optional(conn)
        .await)
}

/// Numbers and wrapped keys of all authorities.
pub async fn wrapped_authorities(tx: &mut Tx) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT number, wrapped_key FROM authorities ORDER BY number")
        .fetch_all(conn)
        .await)
}

/// No row when somebody else wrapped it meanwhile.
pub async fn rewrap_authority(
    tx: &mut Tx,
    number: i64,
    wrapped: &[u8],
    again: &[u8],
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE authorities SET wrapped_key = $3 WHERE number = $1 AND wrapped_key = $2")
        .bind(number)
        .bind(wrapped)
        .bind(again)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn open_requests(tx: &mut Tx, now: Timestamp) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar("SELECT count(*) FROM enrollments WHERE state = 'pending' AND expires_at > $1")
        .bind(now)
        .fetch_one(conn)
        .await)
}

#[derive(sqlx::FromRow)]
pub struct CodeRow {
    pub id: JoinCodeId,
    pub client_id: ClientId,
}

pub async fn insert_code(
    tx: &mut Tx,
    id: JoinCodeId,
    client_id: ClientId,
    hmac: &[u8],
    by: UserId,
    now: Timestamp,
    expires: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO join_codes (id, client_id, code_hmac, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id)
    .bind(client_id)
    .bind(hmac)
    .bind(by)
    .bind(now)
    .bind(expires)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn code(tx: &mut Tx, hmac: &[u8], now: Timestamp) -> Result<Option<CodeRow>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as("SELECT id, client_id FROM join_codes WHERE code_hmac = $1 AND expires_at > $2")
        .bind(hmac)
        .bind(now)
        .fetch_optional(conn)
        .await)
}

pub struct NewEnrollment<'a> {
    pub id: EnrollmentId,
    pub client_id: ClientId,
    pub join_code_id: JoinCodeId,
    pub tls_spki: &'a [u8],
    pub sealing_public_key: &'a [u8; 32],
    pub facts: String,
    pub address: &'a str,
    /// Number of the authority that the device pinned.
    pub authority: i64,
    pub now: Timestamp,
    pub expires: Timestamp,
}

pub async fn insert(tx: &mut Tx, new: NewEnrollment<'_>) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO enrollments (id, client_id, join_code_id, state, tls_spki, sealing_public_key, facts, \
         source_address, created_at, expires_at, pinned_authority) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(new.id)
    .bind(new.client_id)
    .bind(new.join_code_id)
    .bind(EnrollmentState::Pending)
    .bind(new.tls_spki)
    .bind(new.sealing_public_key.as_slice())
    .bind(&new.facts)
    .bind(new.address)
    .bind(new.now)
    .bind(new.expires)
    .bind(new.authority)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn get(tx: &mut Tx, id: EnrollmentId) -> Result<Option<Enrollment>, sqlx::Error> {
    let row: Option<Row> = on!(tx, conn => sqlx::query_as(
        "SELECT enrollments.*, users.email AS decided_by, authorities.certificate AS ca_certificate FROM \
         (SELECT id, client_id, device_id, state, tls_spki, sealing_public_key, facts, source_address, created_at, \
         expires_at, decided_by AS decider, decided_at, reason, code_reused_at, nonce, certificate, certificate_not_after, \
         pinned_authority FROM enrollments WHERE id = $1) AS enrollments \
         JOIN authorities ON authorities.number = enrollments.pinned_authority \
         LEFT JOIN users ON users.id = enrollments.decider",
    )
    .bind(id)
    .fetch_optional(conn)
    .await)?;
    row.map(Enrollment::try_from).transpose()
}

pub async fn by_code(tx: &mut Tx, code: JoinCodeId) -> Result<Option<Enrollment>, sqlx::Error> {
    let id: Option<EnrollmentId> = on!(tx, conn => sqlx::query_scalar("SELECT id FROM enrollments WHERE join_code_id = $1")
            .bind(code)
            .fetch_optional(conn)
            .await)?;
    match id {
        Some(id) => get(tx, id).await,
        None => Ok(None),
    }
}

pub async fn pending(tx: &mut Tx, now: Timestamp) -> Result<Vec<Enrollment>, sqlx::Error> {
    let ids: Vec<EnrollmentId> = on!(tx, conn => sqlx::query_scalar(
        "SELECT id FROM enrollments WHERE state = 'pending' AND expires_at > $1 ORDER BY created_at LIMIT 500",
    )
    .bind(now)
    .fetch_all(conn)
    .await)?;
    all(tx, ids).await
}

pub async fn pending_count(tx: &mut Tx, now: Timestamp) -> Result<i64, sqlx::Error> {
    on!(tx, conn => sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM enrollments WHERE state = 'pending' AND expires_at > $1) \
         + (SELECT count(*) FROM devices WHERE state = 'quarantined') \
         + (SELECT count(*) FROM enrollments WHERE state = 'enrolled' AND renewal_asked_at IS NOT NULL \
            AND renewal_confirmed_at IS NULL)",
    )
    .bind(now)
    .fetch_one(conn)
    .await)
}

pub async fn decided(tx: &mut Tx, limit: i64) -> Result<Vec<Enrollment>, sqlx::Error> {
    let ids: Vec<EnrollmentId> = on!(tx, conn => sqlx::query_scalar(
        "SELECT id FROM enrollments WHERE decided_at IS NOT NULL ORDER BY decided_at DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(conn)
    .await)?;
    all(tx, ids).await
}

async fn all(tx: &mut Tx, ids: Vec<EnrollmentId>) -> Result<Vec<Enrollment>, sqlx::Error> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(get(tx, id).await?);
    }
    Ok(found)
}

pub async fn approve(
    tx: &mut Tx,
    id: EnrollmentId,
    device_id: DeviceId,
    by: UserId,
    now: Timestamp,
    nonce: &[u8; 32],
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET state = $2, device_id = $3, decided_by = $4, decided_at = $5, nonce = $6 \
         WHERE id = $1 AND state = 'pending'",
    )
    .bind(id)
    .bind(EnrollmentState::Approved)
    .bind(device_id)
    .bind(by)
    .bind(now)
    .bind(nonce.as_slice())
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn reject(
    tx: &mut Tx,
    id: EnrollmentId,
    by: UserId,
    now: Timestamp,
    reason: &str,
) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET state = $2, decided_by = $3, decided_at = $4, reason = $5 \
         WHERE id = $1 AND state = 'pending'",
    )
    .bind(id)
    .bind(EnrollmentState::Rejected)
    .bind(by)
    .bind(now)
    .bind(reason)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

pub async fn note_code_reuse(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE enrollments SET code_reused_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn expire(tx: &mut Tx, id: EnrollmentId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE enrollments SET state = 'expired' WHERE id = $1 AND state = 'pending'")
        .bind(id)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn enroll(tx: &mut Tx, id: EnrollmentId, issued: &Issued) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET state = $2, certificate = $3, certificate_not_after = $4, serial_issued = $5 \
         WHERE id = $1 AND state = 'approved'",
    )
    .bind(id)
    .bind(EnrollmentState::Enrolled)
    .bind(&issued.der)
    .bind(issued.not_after)
    .bind(&issued.serial)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// The device's serials: in use, and issued but not seen yet.
pub async fn serials(
    tx: &mut Tx,
    device_id: DeviceId,
) -> Result<Option<(Option<Vec<u8>>, Option<Vec<u8>>)>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT serial_current, serial_issued FROM enrollments WHERE device_id = $1 AND state = 'enrolled'",
    )
    .bind(device_id)
    .fetch_optional(conn)
    .await)
}

/// Makes the issued serial the one in use; no row when it isn't the issued one (any more).
pub async fn first_use(tx: &mut Tx, device_id: DeviceId, serial: &[u8]) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET serial_current = serial_issued, serial_issued = NULL, restored_at = NULL \
         WHERE device_id = $1 AND state = 'enrolled' AND serial_issued = $2",
    )
    .bind(device_id)
    .bind(serial)
    .execute(conn)
    .await
    .map(|done| done.rows_affected()))
}

/// Whether a restore left open which certificate the device holds.
pub async fn is_restored(tx: &mut Tx, device_id: DeviceId) -> Result<bool, sqlx::Error> {
    let rows: i64 = on!(tx, conn => sqlx::query_scalar(
        "SELECT count(*) FROM enrollments WHERE device_id = $1 AND state = 'enrolled' AND restored_at IS NOT NULL",
    )
    .bind(device_id)
    .fetch_one(conn)
    .await)?;
    Ok(rows > 0)
}

pub async fn revoke_identities(tx: &mut Tx, device_id: DeviceId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE enrollments SET state = 'revoked' WHERE device_id = $1 AND state IN ('approved', 'enrolled')",
    )
    .bind(device_id)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn revoke_device(tx: &mut Tx, id: DeviceId) -> Result<u64, sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE devices SET state = 'revoked' WHERE id = $1 AND state <> 'revoked'")
        .bind(id)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))
}

pub async fn insert_device(
    tx: &mut Tx,
    id: DeviceId,
    client_id: ClientId,
    facts: &Facts,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "INSERT INTO devices (id, client_id, name, hardware_uuid, platform, os_version, dev, state, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'approved', $8)",
    )
    .bind(id)
    .bind(client_id)
    .bind(&facts.host_name)
    .bind(&facts.hardware_uuid)
    .bind(facts.platform)
    .bind(&facts.os_version)
    .bind(facts.dev)
    .bind(now)
    .execute(conn)
    .await
    .map(|_| ()))
}

/// A known Mac joined again: what it says of itself now; enrolled once it proves its new keys.
pub async fn update_device(tx: &mut Tx, id: DeviceId, facts: &Facts) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query(
        "UPDATE devices SET name = $2, os_version = $3, dev = $4, state = 'approved' WHERE id = $1",
    )
    .bind(id)
    .bind(&facts.host_name)
    .bind(&facts.os_version)
    .bind(facts.dev)
    .execute(conn)
    .await
    .map(|_| ()))
}

pub async fn device_enrolled(tx: &mut Tx, id: DeviceId) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE devices SET state = 'enrolled' WHERE id = $1 AND state = 'approved'")
        .bind(id)
        .execute(conn)
        .await
        .map(|_| ()))
}

pub async fn device(tx: &mut Tx, id: DeviceId) -> Result<Option<Device>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, client_id, name, hardware_uuid, platform, os_version, dev, state, last_seen_at \
         FROM devices WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await)
}

pub async fn device_by_hardware(tx: &mut Tx, hardware_uuid: &str) -> Result<Option<Device>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, client_id, name, hardware_uuid, platform, os_version, dev, state, last_seen_at \
         FROM devices WHERE hardware_uuid = $1 AND state <> 'revoked'",
    )
    .bind(hardware_uuid)
    .fetch_optional(conn)
    .await)
}

pub async fn devices_of(tx: &mut Tx, client_id: ClientId) -> Result<Vec<Device>, sqlx::Error> {
    on!(tx, conn => sqlx::query_as(
        "SELECT id, client_id, name, hardware_uuid, platform, os_version, dev, state, last_seen_at \
         FROM devices WHERE client_id = $1 ORDER BY lower(name), id",
    )
    .bind(client_id)
    .fetch_all(conn)
    .await)
}

pub async fn seen(tx: &mut Tx, id: DeviceId, now: Timestamp) -> Result<(), sqlx::Error> {
    on!(tx, conn => sqlx::query("UPDATE devices SET last_seen_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(conn)
        .await
        .map(|_| ()))
}
