//! Accepting agents: one TLS handshake and one HTTP/1.1 connection each, with small buffers.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use shared::ids::DeviceId;
use shared::protocol::enroll::RENEWAL_EXPORTER;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::doors::{Doors, TooMany};
use crate::app::{App, ShownCa};
use crate::enrollment::Channel;
use crate::enrollment::api::{Peer, PeerCertificate};
use crate::enrollment::ca::{Authority, CaError, LISTENER_TTL};
use crate::enrollment::rotation::{self, Believed};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Whether another authority came or went is looked up this often.
const LOOK: Duration = Duration::from_secs(5);
const HANDSHAKES_AT_ONCE: usize = 256;
/// Connections that one address may have beside its links, unless the operator says otherwise: a quarter of the
/// handshakes, so that no single address takes all.
pub const PER_ADDRESS: usize = 64;
/// A connection that doesn't become a link ends after this, also when its client doesn't take the answer.
const CONNECTION_TTL: Duration = Duration::from_secs(300);
/// Refused connections that are told so at the same time; others are closed without a word.
const FAREWELLS_AT_ONCE: usize = 64;
/// TLS record of a fatal alert, access_denied (RFC 8446, section 6).
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
/// hyper's buffer per connection, in bytes: idle agents are many.
const HTTP_BUFFER: usize = 8192;

#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client certificates can't be checked: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the listener's certificate can't be replaced")]
    Key,
}

/// Serves agents until `stop` completes; one address may have `per_address` connections beside its links.
pub async fn serve(
    app: App,
    listener: TcpListener,
    routes: Router,
    per_address: usize,
    stop: impl Future<Output = ()>,
) -> Result<(), ListenerError> {
    let mut believed = believed_by(&app).await?;
    let certificate = Arc::new(Current(RwLock::new(issue(&app).await?)));
    let mut acceptor = acceptor(&believed, &certificate)?;
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_AT_ONCE));
    let farewells = Arc::new(Semaphore::new(FAREWELLS_AT_ONCE));
    let doors = Doors::new(per_address);
    let mut renew = tokio::time::interval(LISTENER_TTL / 4);
    renew.tick().await;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = renew.tick() => match issue(&app).await {
                Ok(fresh) => *certificate.0.write().unwrap_or_else(PoisonError::into_inner) = fresh,
                Err(error) => tracing::error!(%error, "the listener's certificate was not renewed; trying again"),
            },
            _ = look.tick() => match changed(&app, &believed, &certificate).await {
                Ok(Some((now, changed))) => (believed, acceptor) = (now, changed),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the certificate authorities could not be looked up; trying again"),
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let door = match doors.enter(address.ip()) {
                        Ok(door) => door,
                        Err(TooMany { first }) => {
                            if first {
                                tracing::warn!(address = %address.ip(), most = per_address, "an address has too many connections open; more are refused until they end");
                            }
                            if let Ok(permit) = Arc::clone(&farewells).try_acquire_owned() {
                                tokio::spawn(async move {
                                    let _ = tokio::time::timeout(Duration::from_secs(1), refuse(stream)).await;
                                    drop(permit);
                                });
                            }
                            continue;
                        }
                    };
                    let (acceptor, routes) = (acceptor.clone(), routes.clone());
                    let handshakes = Arc::clone(&handshakes);
                    let board = app.board_id.to_string();
                    // Before the handshake: a change in between costs one link too many, never one too few.
                    let authority = app.ca().number;
                    tokio::spawn(async move {
                        let shake = async {
                            let _permit = handshakes.acquire().await.map_err(std::io::Error::other)?;
                            handshake(&acceptor, stream).await
                        };
                        let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake).await;
                        match tls {
                            Ok(Ok(tls)) => connection(tls, address, authority, &board, routes).await,
                            Ok(Err(error)) => tracing::debug!(%address, %error, "a handshake failed"),
                            Err(_) => tracing::debug!(%address, "a handshake took too long"),
                        }
                        drop(door);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> std::io::Result<Tls> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// Says so as TLS can, and takes what the client said first: or its end would never see the alert.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(&ACCESS_DENIED).await?;
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    for _ in 0..8 {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// The peer's certificate is read once per connection.
async fn connection(tls: Tls, address: SocketAddr, authority: i64, board: &str, routes: Router) {
    let session = tls.get_ref().1;
    let exporter = match session.export_keying_material([0; 32], RENEWAL_EXPORTER, None) {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::error!(%address, %error, "a connection has no exporter; it was ended");
            return;
        }
    };
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| device_of(certificate, board));
    let channel = Arc::new(Channel::new(exporter));
    let peer = Peer { address: address.ip().to_string(), certificate, channel, authority };
    let service = TowerToHyperService::new(routes.layer(Extension(peer)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HTTP_BUFFER)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    // A link goes on by itself; this ends when the connection became one.
    match tokio::time::timeout(CONNECTION_TTL, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.is_timeout() => {
            tracing::info!(%address, "a client took too long with its request; its connection was ended");
        }
        Ok(Err(error)) => tracing::debug!(%address, %error, "a connection ended with an error"),
        Err(_) => tracing::debug!(%address, "a connection was ended: it was open too long"),
    }
}

/// The device that a certificate of our CA names: `spiffe://BOARD/device/DEVICE`.
fn device_of(der: &CertificateDer<'_>, board: &str) -> Option<PeerCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let device_id = names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        let rest = uri.strip_prefix("spiffe://")?.strip_prefix(board)?.strip_prefix("/device/")?;
        rest.parse::<DeviceId>().ok()
    })?;
    Some(PeerCertificate { device_id, serial: certificate.raw_serial().to_vec() })
}

async fn believed_by(app: &App) -> Result<Believed, ListenerError> {
    let mut tx = app.db.read().await?;
    Ok(rotation::believed(&mut tx, app.now()).await?)
}

/// The authorities when they are others than before, and what accepts connections by them. `current` shows a certificate
/// of the active one then.
async fn changed(
    app: &App,
    before: &Believed,
    current: &Arc<Current>,
) -> Result<Option<(Believed, TlsAcceptor)>, ListenerError> {
    let believed = believed_by(app).await?;
    if believed == *before {
        return Ok(None);
    }
    let changed = acceptor(&believed, current)?;
    if believed.active != before.active {
        let fresh = issue(app).await?;
        *current.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
    tracing::info!(authorities = believed.certificates.len(), "the certificate authorities changed");
    Ok(Some((believed, changed)))
}

fn acceptor(believed: &Believed, current: &Arc<Current>) -> Result<TlsAcceptor, ListenerError> {
    let current: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(current);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in &believed.certificates {
        roots.add(CertificateDer::from(certificate.clone()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(current);
    // A resumed session would carry the earlier certificate unverified.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The listener's certificate, replaced well before it ends.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

async fn issue(app: &App) -> Result<Arc<CertifiedKey>, ListenerError> {
    let mut tx = app.db.read().await?;
    let authority = Authority::load(&mut tx, &app.root, app.board_id).await?;
    let (issued, key) = authority.issue_listener(app.now(), &*app.random)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| ListenerError::Key)?;
    let key = aws_lc_rs::sign::any_ecdsa_type(&key)?;
    app.show_ca(ShownCa { number: authority.number, spki: authority.spki()? });
    let chain = vec![CertificateDer::from(issued.der), authority.certificate().clone()];
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
