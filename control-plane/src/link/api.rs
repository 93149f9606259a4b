//! `/link`, `/bundle/{digest}` and `/release/{digest}` on the agents' port, for enrolled devices. The device's row decides on every request.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Json, response::IntoResponse as _};
use shared::catalog::SignedBundle;
use shared::protocol::{LINK_SUBPROTOCOL, MAX_FRAME};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::session;
use crate::app::App;
use crate::catalog;
use crate::enrollment::api::Peer;
use crate::enrollment::{CertificateRefused, Device, DeviceState, check_certificate};
use crate::error::Failure;
use crate::releases;

const PROGRAMS_AT_ONCE: usize = 16;

/// Lets enrolled devices with their latest certificate through, and tells the handler which one it is.
pub async fn device_gate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    match device(&app, peer).await {
        Ok(device) => {
            request.extensions_mut().insert(device);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

async fn device(app: &App, peer: Option<Peer>) -> Result<Device, Failure> {
    let Some((certificate, address)) = peer.and_then(|peer| Some((peer.certificate?, peer.address))) else {
        let detail =
            "This address is for enrolled devices: connect with the device's certificate, or join first.";
        return Err(Failure::new(401, "certificate", "No device certificate", detail));
    };
    check_certificate(app, certificate.device_id, &certificate.serial, &address).await.map_err(|error| {
        let text = error.to_string();
        match error {
            CertificateRefused::NotEnrolled | CertificateRefused::Stale => {
                Failure::new(403, "device-refused", "This device is refused", text)
            }
            CertificateRefused::Restored => {
                Failure::new(403, "renew-first", "Renew the certificate first", text)
            }
            CertificateRefused::Audit(error) => error.into(),
            CertificateRefused::Database(error) => error.into(),
        }
    })
}

pub async fn get_bundle(
    State(app): State<App>,
    Extension(device): Extension<Device>,
    Path(digest): Path<String>,
) -> Result<Json<SignedBundle>, Failure> {
    if device.state == DeviceState::Leaving {
        return Err(Failure::forbidden("a device that leaves gets nothing but its wipe"));
    }
    let mut tx = app.db.read().await?;
    catalog::signed(&mut tx, &digest).await?.map(Json).ok_or_else(|| Failure::not_found("bundle"))
}

/// Programs that are on their way to devices at the same time. A stalled one ends with its connection.
#[derive(Clone)]
pub struct Programs(Arc<Semaphore>);

impl Default for Programs {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PROGRAMS_AT_ONCE)))
    }
}

/// The program of a release, piece by piece: never whole in memory.
pub async fn get_release(
    State(app): State<App>,
    Path(digest): Path<String>,
    Extension(programs): Extension<Programs>,
) -> Result<Response, Failure> {
    let mut tx = app.db.read().await?;
    let size = releases::size(&mut tx, &digest).await?.ok_or_else(|| Failure::not_found("release"))?;
    drop(tx);
    let Ok(permit) = programs.0.try_acquire_owned() else {
        let detail = "Other devices are fetching the program. Ask again in a few minutes.";
        return Err(Failure::new(503, "busy", "Too many at the same time", detail));
    };
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        for seq in 0.. {
            let piece = async {
                let mut tx = app.db.read().await?;
                releases::piece(&mut tx, &digest, seq).await
            };
            let Some(piece) = piece.await.map_err(io::Error::other).transpose() else { break };
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                break;
            }
        }
        drop(permit);
    });
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, size.to_string())];
    Ok((headers, Body::from_stream(ReceiverStream::new(pieces))).into_response())
}

pub async fn get_link(
    State(app): State<App>,
    Extension(device): Extension<Device>,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .protocols([LINK_SUBPROTOCOL])
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .on_upgrade(move |socket| session::run(app, device, peer, socket))
}
