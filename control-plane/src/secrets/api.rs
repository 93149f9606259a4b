//! `GET` and `POST /api/v1/devices/{id}/paste`: what a consultant needs to seal a client's secret to a device, and the
//! sealed value on its way there.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use shared::crypto::base64;
use shared::ids::{BoardId, ClientId, DeviceId, EnrollmentId};
use shared::protocol::link::Paste;
use shared::time::Timestamp;

use super::{Way, recipient, relay};
use crate::access::Visitor;
use crate::app::App;
use crate::error::Failure;

/// A device that can be sealed to. Nothing here has to be believed: whoever seals makes the fingerprint from it and
/// compares with what the Mac shows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recipient {
    pub board_id: BoardId,
    #[serde(with = "base64")]
    pub ca_spki: Vec<u8>,
    pub client_id: ClientId,
    pub device_id: DeviceId,
    pub name: String,
    pub enrollment_id: EnrollmentId,
    #[serde(with = "base64")]
    pub tls_spki: Vec<u8>,
    /// X25519, 32 bytes.
    #[serde(with = "base64")]
    pub sealing_public_key: Vec<u8>,
    pub on: bool,
    /// The board's, by which a paste expires.
    pub time: Timestamp,
    /// The client-supplied slots of this device's scope.
    pub slots: Vec<SlotJson>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotJson {
    pub component: String,
    pub slot: String,
    pub name: String,
}

/// The device has it, in its own word.
#[derive(Debug, Serialize, Deserialize)]
pub struct PastedJson {
    pub state: String,
}

pub async fn get_recipient(
    State(app): State<App>,
    Path(id): Path<DeviceId>,
) -> Result<Json<Recipient>, Failure> {
    Ok(Json(recipient(&app, id).await?))
}

/// The body is a [`Paste`] in JSON. A program with a token compared the fingerprint; a session is our own page.
pub async fn post_paste(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<DeviceId>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<PastedJson>, Failure> {
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content.split(';').next().unwrap_or_default().trim() != "application/json" {
        let detail = "A sealed paste is sent as application/json. Nothing was sent to the device.";
        return Err(Failure::new(415, "content-type", "Not pasted", detail));
    }
    let paste: Paste = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!(
            "The body isn't a sealed paste: it can't be read at line {}, column {}. Nothing was sent to the device.",
            error.line(),
            error.column()
        );
        Failure::invalid("paste", "Not pasted", detail)
    })?;
    let way = if visitor.token.is_some() { Way::CommandLine } else { Way::Browser };
    // Also when whoever sent it goes away meanwhile: the device's word belongs into the audit log.
    tokio::spawn(async move { relay(&app, visitor.who(), way, id, paste).await })
        .await
        .map_err(Failure::internal)??;
    Ok(Json(PastedJson { state: "present".into() }))
}
