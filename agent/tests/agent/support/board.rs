//! A board in this process, as small as the agent allows: it speaks the real TLS, HTTP and WebSocket, and decides what
//! the test tells it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::Serialize;
use shared::catalog::{Bundle, SignedBundle, generate_publisher_key, sign};
use shared::crypto::{
    Fingerprint, FingerprintParts, SealingPublicKey, base64, hex, seal_nonce, sha256, verify_p256,
};
use shared::ids::{BoardId, ClientId, DeviceId, EnrollmentId};
use shared::problem::Problem;
use shared::protocol::enroll::{
    Enrolled, EnrollmentStatus, JoinAnswer, JoinRequest, ProveRequest, RenewalChallenge,
};
use shared::protocol::link::{FromAgent, FromBoard, Head, Hello, Scope, Welcome};
use shared::protocol::{LINK_SUBPROTOCOL, LISTENER_NAME};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use x509_parser::prelude::FromDer as _;

use super::Link;

const PATIENCE: Duration = Duration::from_secs(20);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

pub struct Board {
    pub address: String,
    pub pin: String,
    pub publisher_key: PathBuf,
    pub state: Arc<Mutex<State>>,
    links: mpsc::UnboundedReceiver<Link>,
    private: Secret<String>,
}

pub struct State {
    pub ca: CertifiedIssuer<'static, KeyPair>,
    pub board_id: BoardId,
    pub client_id: ClientId,
    pub enrollment_id: EnrollmentId,
    pub device_id: DeviceId,
    pub status: EnrollmentStatus,
    pub joins: Vec<JoinRequest>,
    pub spki: Vec<u8>,
    /// For each renewal, whether a certificate was shown.
    pub renewed_with_certificate: Vec<bool>,
    nonce: [u8; 32],
    bundles: HashMap<String, SignedBundle>,
}

impl Board {
    pub async fn start(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, key()).unwrap();
        let (private, public) = generate_publisher_key(&SystemRandom).unwrap();
        let publisher_key = folder.join("publisher.pem");
        std::fs::write(&publisher_key, public).unwrap();
        let pin = hex(&sha256(&ca.key().subject_public_key_info()));
        let config = Arc::new(server_config(&ca));
        let state = Arc::new(Mutex::new(State {
            ca,
            board_id: BoardId::new(&SystemClock, &SystemRandom),
            client_id: ClientId::new(&SystemClock, &SystemRandom),
            enrollment_id: EnrollmentId::new(&SystemClock, &SystemRandom),
            device_id: DeviceId::new(&SystemClock, &SystemRandom),
            status: EnrollmentStatus::Pending,
            joins: Vec::new(),
            spki: Vec::new(),
            renewed_with_certificate: Vec::new(),
            nonce: [7; 32],
            bundles: HashMap::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (up, links) = mpsc::unbounded_channel();
        let shared_state = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, state, up) = (Arc::clone(&config), Arc::clone(&shared_state), up.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                        serve(stream, &state, &up).await;
                    }
                });
            }
        });
        Self { address, pin, publisher_key, state, links, private }
    }

    /// Signs a bundle with these manifests and offers it for download.
    pub fn publish(&self, serial: u64, manifests: &[(&str, &str)]) -> String {
        let bundle = Bundle {
            serial,
            min_serial: 0,
            not_after: SystemClock.now().after(Duration::from_secs(3600)),
            revoked_steps: Vec::new(),
            tiers: String::new(),
            manifests: manifests.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect(),
        };
        let signed = sign(&bundle, &self.private).unwrap();
        let digest = signed.digest();
        self.state.lock().unwrap().bundles.insert(digest.clone(), signed);
        digest
    }

    pub fn approve(&self) {
        let mut state = self.state.lock().unwrap();
        let recipient = SealingPublicKey::from_bytes(&state.joins[0].sealing_public_key).unwrap();
        let sealed_nonce = seal_nonce(&recipient, state.enrollment_id, &state.nonce).unwrap();
        state.status = EnrollmentStatus::Approved { sealed_nonce };
    }

    pub fn reject(&self, reason: &str) {
        self.state.lock().unwrap().status = EnrollmentStatus::Rejected { reason: reason.to_owned() };
    }

    /// The next link, after its hello.
    pub async fn link(&mut self) -> (Link, Hello) {
        let mut link = within(self.links.recv()).await.unwrap();
        let Some(FromAgent::Hello(hello)) = within(link.next()).await else {
            panic!("the first frame is no hello")
        };
        (link, hello)
    }

    /// The next link, welcomed.
    pub async fn welcome(&mut self, digest: &str, components: &[&str]) -> (Link, Hello) {
        let (link, hello) = self.link().await;
        link.send(self.welcome_frame(digest, components));
        (link, hello)
    }

    /// The next link, before its hello: it may be cut already.
    pub async fn raw_link(&mut self) -> Link {
        self.links.recv().await.unwrap()
    }

    pub fn welcome_frame(&self, digest: &str, components: &[&str]) -> FromBoard {
        let (client_id, device_id) = {
            let state = self.state.lock().unwrap();
            (state.client_id, state.device_id)
        };
        FromBoard::Welcome(Welcome {
            time: SystemClock.now(),
            client_id,
            device_id,
            audit_head: Head { epoch: 1, seq: 42, hash: vec![9; 32] },
            scope: Scope {
                bundle_digest: Some(digest.to_owned()),
                components: components.iter().map(|&key| key.to_owned()).collect(),
                params: [].into(),
                look_at: Vec::new(),
            },
        })
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn server_config(ca: &CertifiedIssuer<'static, KeyPair>) -> ServerConfig {
    let leaf_key = key();
    let leaf =
        CertificateParams::new(vec![LISTENER_NAME.to_owned()]).unwrap().signed_by(&leaf_key, ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf.der().clone(), ca.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der())),
        )
        .unwrap()
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    state: &Mutex<State>,
    up: &mpsc::UnboundedSender<Link>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut first = head.split(' ');
    let (_, path) = (first.next()?, first.next()?.to_owned());
    let known = stream.get_ref().1.peer_certificates().is_some();
    if path == "/link" {
        assert!(known, "a link without a certificate");
        assert_eq!(header("sec-websocket-protocol").as_deref(), Some(LINK_SUBPROTOCOL));
        let accept = derive_accept_key(header("sec-websocket-key")?.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {LINK_SUBPROTOCOL}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.ok()?;
        return carry(stream, up).await;
    }
    if head.starts_with("HEAD / ") {
        // What the real one says of the time, with any answer.
        let date = httpdate::fmt_http_date(SystemClock.now().to_datetime().into());
        let answer = format!("HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.ok()?;
        return stream.shutdown().await.ok();
    }
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let signature = header("board-signature").map(|signature| base64::decode(&signature).unwrap());
    let (status, content_type, answer) = match answer(&path, &body, signature, known, state) {
        Ok(answer) => (200, "application/json", answer),
        Err(problem) => (problem.status, "application/problem+json", json(&problem)),
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&answer).await.ok()?;
    if path == "/renew/challenge" {
        // The renewal itself comes over the same connection.
        return Box::pin(serve(stream, state, up)).await;
    }
    stream.shutdown().await.ok()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn answer(
    path: &str,
    body: &[u8],
    signature: Option<Vec<u8>>,
    known: bool,
    state: &Mutex<State>,
) -> Result<Vec<u8>, Problem> {
    let mut state = state.lock().unwrap();
    let refuse = |detail: &str| Problem::new(409, "refused", "Refused", detail);
    if let Some(digest) = path.strip_prefix("/bundle/") {
        assert!(known, "a bundle without a certificate");
        return state.bundles.get(digest).map(json).ok_or_else(|| Problem::new(404, "none", "None", digest));
    }
    if path == "/enroll/join" {
        let join: JoinRequest = serde_json::from_slice(body).unwrap();
        if join.code != "ABCD2345" {
            return Err(refuse("this join code is not known"));
        }
        state.spki = x509_parser::certification_request::X509CertificationRequest::from_der(&join.csr)
            .unwrap()
            .1
            .certification_request_info
            .subject_pki
            .raw
            .to_vec();
        state.joins.push(join);
    }
    if path == "/renew/challenge" {
        return Ok(json(&RenewalChallenge { nonce: state.nonce.to_vec() }));
    }
    if path == "/renew" {
        state.renewed_with_certificate.push(known);
        return Ok(json(&state.issue(WEEK)));
    }
    verify_p256(&state.spki, body, &signature.unwrap()).map_err(|error| refuse(&error.to_string()))?;
    match path {
        "/enroll/join" => Ok(json(&JoinAnswer {
            board_id: state.board_id,
            client_id: state.client_id,
            client_name: "Acme Realty".to_owned(),
            enrollment_id: state.enrollment_id,
            expires: SystemClock.now().after(Duration::from_secs(60)),
        })),
        "/enroll/status" => Ok(json(&state.status)),
        "/enroll/prove" => {
            let prove: ProveRequest = serde_json::from_slice(body).unwrap();
            if prove.nonce != state.nonce {
                return Err(refuse("this is not the nonce"));
            }
            state.status = EnrollmentStatus::Enrolled;
            Ok(json(&state.issue(WEEK)))
        }
        other => panic!("{other} is not asked for"),
    }
}

impl State {
    /// A certificate that begins two minutes ago and lasts from then on.
    pub fn issue(&self, life: Duration) -> Enrolled {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{}/device/{}", self.board_id, self.device_id);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let not_before = SystemClock.now().before(Duration::from_secs(120));
        let not_after = not_before.after(life);
        params.not_before = not_before.to_datetime();
        params.not_after = not_after.to_datetime();
        let public = rcgen::SubjectPublicKeyInfo::from_der(&self.spki).unwrap();
        let certificate = params.signed_by(&public, &self.ca).unwrap().der().to_vec();
        Enrolled { device_id: self.device_id, certificate, not_after }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&FingerprintParts {
            ca_spki: &self.ca.key().subject_public_key_info(),
            board_id: self.board_id,
            client_id: self.client_id,
            enrollment_id: self.enrollment_id,
            tls_spki: &self.spki,
            sealing_public_key: self.joins[0].sealing_public_key.as_slice().try_into().unwrap(),
        })
    }
}

async fn carry(stream: TlsStream<TcpStream>, up: &mpsc::UnboundedSender<Link>) -> Option<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (to_test, from_agent) = mpsc::unbounded_channel();
    let (to_agent, mut from_test) = mpsc::unbounded_channel::<FromBoard>();
    up.send(Link::new(from_agent, to_agent)).ok()?;
    loop {
        tokio::select! {
            message = socket.next() => match message?.ok()? {
                Message::Text(text) => to_test.send(serde_json::from_str(&text).unwrap()).ok()?,
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(_) => return None,
            },
            frame = from_test.recv() => {
                let text = serde_json::to_string(&frame?).unwrap();
                socket.send(Message::text(text)).await.ok()?;
            }
        }
    }
}
