//! `/enroll/*` and `/renew` on the agents' port: open to devices without a certificate, every body signed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::{Json, response::IntoResponse, response::Response};
use serde::de::DeserializeOwned;
use shared::crypto::base64;
use shared::ids::DeviceId;
use shared::protocol::SIGNATURE_HEADER;
use shared::protocol::enroll::{
    Enrolled, EnrollmentStatus, JoinRequest, ProveRequest, RenewRequest, RenewalChallenge, StatusRequest,
};

use super::{Channel, join, prove, renew, status};
use crate::app::App;
use crate::error::Failure;
use crate::jobs::Wake;

/// A status request is answered at the latest after this.
const LONG_POLL: Duration = Duration::from_secs(25);

/// The other end of a connection on the agents' port.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: String,
    pub certificate: Option<PeerCertificate>,
    pub channel: Arc<Channel>,
    /// Number of the authority that the listener showed.
    pub authority: i64,
}

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    pub device_id: DeviceId,
    pub serial: Vec<u8>,
}

pub async fn post_join(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let signature = signature(&headers)?;
    let request: JoinRequest = parse(&body)?;
    Ok(Json(join(&app, &request, &body, &signature, &peer.address).await?).into_response())
}

pub async fn post_status(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<EnrollmentStatus>, Failure> {
    let signature = signature(&headers)?;
    let request: StatusRequest = parse(&body)?;
    let mut changes = app.jobs.listen();
    let answer = status(&app, &request, &body, &signature).await?;
    if answer != EnrollmentStatus::Pending {
        return Ok(Json(answer));
    }
    let wanted = Wake::Enrollment(request.enrollment_id);
    // Woken or not, the database decides.
    let _ = tokio::time::timeout(LONG_POLL, changes.next(|wake| wake == wanted)).await;
    Ok(Json(status(&app, &request, &body, &signature).await?))
}

pub async fn post_prove(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let signature = signature(&headers)?;
    let request: ProveRequest = parse(&body)?;
    Ok(Json(prove(&app, &request, &body, &signature, &peer.address).await?).into_response())
}

pub async fn post_renewal_challenge(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
) -> Json<RenewalChallenge> {
    Json(RenewalChallenge { nonce: peer.channel.challenge(&*app.random).to_vec() })
}

pub async fn post_renew(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<Json<Enrolled>, Failure> {
    let request: RenewRequest = parse(&body)?;
    Ok(Json(renew(&app, &request, &peer).await?))
}

fn signature(headers: &HeaderMap) -> Result<Vec<u8>, Failure> {
    headers
        .get(SIGNATURE_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| base64::decode(text).ok())
        .ok_or_else(|| {
            let detail = format!("The header {SIGNATURE_HEADER} with the base64 of the signature over the body is missing or can't be read.");
            Failure::new(401, "signature", "The request is not signed", detail)
        })
}

/// Says where a body can't be read, never what stands there.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!(
            "The body can't be read as this request: line {}, column {}. Agent and board may be of different versions.",
            error.line(),
            error.column()
        );
        Failure::new(400, "body", "The request can't be read", detail)
    })
}
