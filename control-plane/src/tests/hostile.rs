//! What a client of the agents' port may do wrong, over real sockets and TLS: the board says so once, ends that
//! connection, and serves everybody else.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use shared::ids::{AttemptId, DeliveryId, ReportId};
use shared::protocol::link::{
    FromAgent, FromBoard, Hello, Paste, Pasted, Refused, Report, ReportBody, UNKNOWN_FRAME,
};
use shared::protocol::{LINK_SUBPROTOCOL, LISTENER_NAME, MAX_FRAME};
use shared::random::SystemRandom;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tracing_subscriber::fmt::MakeWriter;

use crate::db::Db;
use crate::db::testing::{on_both, on_sqlite};
use crate::enrollment::ca::Authority;
use crate::enrollment::{self, Release};
use crate::link::serve;
use crate::router;
use crate::testing::{Fixture, TestDevice};

const SOON: Duration = Duration::from_secs(10);
const PER_ADDRESS: usize = 8;
/// Every address of 127.0.0.0/8 is this machine on Linux.
const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CROWD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What the board logs in this test: its tasks run on the test's own thread.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn start(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(self.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(super) fn lines_with(&self, words: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(words)).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A board that listens, with two enrolled devices.
struct Stage {
    fixture: Fixture,
    board: SocketAddr,
    roots: RootCertStore,
    hostile: Identity,
    honest: Identity,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

struct Identity {
    device: TestDevice,
    certificate: Vec<u8>,
}

type Link = WebSocketStream<TlsStream<TcpStream>>;

impl Stage {
    async fn new(db: Db) -> Self {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let mut identities = Vec::new();
        for uuid in ["HOSTILE-UUID", "HONEST-UUID"] {
            let (device, enrolled) = fixture.enroll(client, uuid).await;
            identities.push(Identity { device, certificate: enrolled.certificate });
        }
        let (honest, hostile) = (identities.pop().unwrap(), identities.pop().unwrap());
        let app = &fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let authority = Authority::load(&mut tx, &app.root, app.board_id).await.unwrap();
        drop(tx);
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        // Small buffers are passed on to accepted connections: a client that doesn't read is felt at once.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(1024).unwrap();
        let board = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = router::agents(app.clone());
        let serving = serve(app.clone(), listener, routes, PER_ADDRESS, async {
            let _ = stopped.await;
        });
        let served = tokio::spawn(async move { serving.await.unwrap() });
        Self { fixture, board, roots, hostile, honest, stop, served }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap();
    }

    async fn tcp(&self, from: IpAddr, receive_buffer: Option<u32>) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        tokio::time::timeout(SOON, socket.connect(self.board)).await.unwrap().unwrap()
    }

    async fn tls(&self, stream: TcpStream, who: Option<&Identity>) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match who {
            Some(who) => {
                let key = PrivateKeyDer::try_from(who.device.tls.serialize_der()).unwrap();
                let chain = vec![CertificateDer::from(who.certificate.clone())];
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(LISTENER_NAME).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(SOON, connecting).await.unwrap().unwrap()
    }

    /// A link that was welcomed.
    async fn link(&self, who: &Identity, receive_buffer: Option<u32>) -> Link {
        self.link_from(HONEST, who, receive_buffer).await
    }

    async fn link_from(&self, from: IpAddr, who: &Identity, receive_buffer: Option<u32>) -> Link {
        let uuid = &who.device.facts.hardware_uuid;
        let mut link = self.hello(from, who, uuid, receive_buffer).await;
        assert!(matches!(next(&mut link).await, FromBoard::Welcome(_)));
        link
    }

    /// A link that said hello as this Mac.
    async fn hello(&self, from: IpAddr, who: &Identity, uuid: &str, receive_buffer: Option<u32>) -> Link {
        let tls = self.tls(self.tcp(from, receive_buffer).await, Some(who)).await;
        let mut request = format!("wss://{LISTENER_NAME}/link").into_client_request().unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, LINK_SUBPROTOCOL.parse().unwrap());
        let (mut link, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
        let hello = FromAgent::Hello(Hello {
            agent_version: "0.1.0".into(),
            hardware_uuid: uuid.to_owned(),
            boot_session: "boot".into(),
            clock: self.fixture.app.now(),
            audit_head: None,
            bundle_serial: 0,
            secrets: Vec::new(),
            attempts: Vec::new(),
            plans: None,
            program: None,
        });
        send(&mut link, &hello).await;
        link
    }

    fn report(&self) -> FromAgent {
        let app = &self.fixture.app;
        let attempt_id = AttemptId::new(&*app.clock, &SystemRandom);
        let body = ReportBody::AttemptStarted { attempt_id };
        FromAgent::Report(Report { id: ReportId::new(&*app.clock, &SystemRandom), at: app.now(), body })
    }

    /// Another device links, reports, and is heard.
    async fn serves_others(&self) {
        let mut link = self.link(&self.honest, None).await;
        self.is_heard(&mut link).await;
        link.close(None).await.unwrap();
    }

    async fn is_heard(&self, link: &mut Link) {
        send(link, &self.report()).await;
        while !matches!(next(link).await, FromBoard::Ack { .. }) {}
    }

    /// Sends a request as it stands, and gives all of the answer.
    async fn ask(&self, who: Option<&Identity>, request: &[u8]) -> String {
        let mut tls = self.tls(self.tcp(HONEST, None).await, who).await;
        // The board may answer and close before it took everything.
        let _ = tls.write_all(request).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, tls.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

async fn send(link: &mut Link, frame: &FromAgent) {
    link.send(Message::text(serde_json::to_string(frame).unwrap())).await.unwrap();
}

async fn next(link: &mut Link) -> FromBoard {
    loop {
        let frame = tokio::time::timeout(SOON, link.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = frame {
            return serde_json::from_str(text.as_str()).unwrap();
        }
    }
}

/// Why the board closed the link; empty when it was cut off without a word.
async fn closed(link: &mut Link) -> String {
    loop {
        match tokio::time::timeout(SOON, link.next()).await.unwrap() {
            Some(Ok(Message::Close(frame))) => {
                return frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return String::new(),
        }
    }
}

#[tokio::test]
async fn a_frame_that_breaks_the_rules_ends_its_link_and_no_other() {
    on_both(|db| async move {
        let log = Log::default();
        let _guard = log.start();
        let stage = Stage::new(db).await;
        let mut kept = stage.link(&stage.honest, None).await;
        for (frame, said, logged) in [
            (Message::text("x".repeat(MAX_FRAME + 1)), "larger than 1 MiB", "a frame is too large"),
            (Message::text(r#"{"type":"dance","with":"me"}"#), "doesn't know", "a frame of a kind"),
            (Message::binary(vec![0; 64]), "binary frames", "a binary frame"),
            (Message::text("}{ no JSON"), "could not be read", "a frame that can't be read"),
            (Message::text(r#"{"type":"report"}"#), "could not be read", ""),
        ] {
            let mut link = stage.link(&stage.hostile, None).await;
            // The board may close before it took everything.
            let _ = link.send(frame).await;
            let reason = closed(&mut link).await;
            assert!(
                reason.contains(said) || (reason.is_empty() && said.contains("1 MiB")),
                "{said}: {reason:?}"
            );
            if !logged.is_empty() {
                assert_eq!(log.lines_with(logged), 1, "{logged}");
            }
        }
        stage.is_heard(&mut kept).await;
        stage.serves_others().await;
        stage.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_answered_in_words() {
    on_both(|db| async move {
        let log = Log::default();
        let _guard = log.start();
        let stage = Stage::new(db).await;
        let post = |body: &str, more: &str| {
            let length = body.len();
            format!("POST /enroll/join HTTP/1.1\r\nHost: board\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}")
        };
        let large = "x".repeat(MAX_FRAME + 1);
        let signed = "board-signature: AAAA\r\n";
        for (request, status, kind) in [
            (post(&large, signed), "413", "too-large"),
            (post("}{ canary-body", signed), "400", "The request can't be read"),
            (post("{}", ""), "401", "signature"),
            ("GET /link HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n".to_owned(), "401", "certificate"),
            ("PUT /enroll/join HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n".to_owned(), "405", "method"),
            ("GET /nowhere HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n".to_owned(), "404", "not-found"),
        ] {
            let answer = stage.ask(None, request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{kind}: {answer}");
            assert!(answer.contains("application/problem+json") && answer.contains(kind), "{answer}");
            assert!(!answer.contains("canary-body"), "{answer}");
        }
        assert_eq!(log.lines_with("too-large"), 1);
        let noise = stage.ask(None, b"\x00\x01\x02 no HTTP\r\n\r\n").await;
        assert!(noise.starts_with("HTTP/1.1 400"), "{noise}");
        stage.serves_others().await;
        stage.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_the_latest_is_refused() {
    on_both(|db| async move {
        let stage = Stage::new(db).await;
        let request = b"GET /bundle/none HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n";
        let latest = stage.ask(Some(&stage.hostile), request).await;
        assert!(latest.starts_with("HTTP/1.1 404"), "{latest}");
        // The Mac joins again: a copy of its old key and certificate is out.
        let device = {
            let mut tx = stage.fixture.app.db.read().await.unwrap();
            enrollment::known_device(&mut tx, "HOSTILE-UUID").await.unwrap().unwrap()
        };
        stage.fixture.enroll(device.client_id, "HOSTILE-UUID").await;
        let stale = stage.ask(Some(&stage.hostile), request).await;
        assert!(stale.starts_with("HTTP/1.1 403") && stale.contains("device-refused"), "{stale}");
        stage.serves_others().await;
        stage.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_crowd_from_one_address_keeps_nobody_else_out() {
    on_both(|db| async move {
        let log = Log::default();
        let _guard = log.start();
        let stage = Stage::new(db).await;
        let mut tx = stage.fixture.app.db.read().await.unwrap();
        let known = enrollment::known_device(&mut tx, "HONEST-UUID").await.unwrap();
        let client = known.unwrap().client_id;
        drop(tx);
        let mut idle = Vec::new();
        for _ in 0..PER_ADDRESS {
            idle.push(stage.tcp(CROWD, None).await);
        }
        for _ in 0..200 {
            let mut refused = stage.tcp(CROWD, None).await;
            let mut alert = Vec::new();
            // What comes after the first of them at once may be closed without the alert.
            let _ = tokio::time::timeout(SOON, refused.read_to_end(&mut alert)).await.unwrap();
            assert!(alert.is_empty() || alert == [21, 3, 3, 0, 2, 2, 49], "{alert:?}");
        }
        assert_eq!(log.lines_with("too many connections"), 1);
        stage.serves_others().await;
        drop(idle);
        // Links don't count: more of them than doors come from the same address, once the crowd is gone.
        let mut links = Vec::new();
        for number in 0..=PER_ADDRESS {
            let (device, enrolled) = stage.fixture.enroll(client, &format!("UUID-{number}")).await;
            let who = Identity { device, certificate: enrolled.certificate };
            links.push(stage.link_from(CROWD, &who, None).await);
        }
        for link in &mut links {
            stage.is_heard(link).await;
        }
        stage.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_hello_of_another_mac_is_told_why_it_goes_no_further() {
    on_both(|db| async move {
        let log = Log::default();
        let _guard = log.start();
        let stage = Stage::new(db).await;
        let mut kept = stage.link(&stage.honest, None).await;
        let comes = async |uuid: &str| {
            let mut link = stage.hello(HONEST, &stage.honest, uuid, None).await;
            closed(&mut link).await
        };
        for odd in ["", "nul\0", &"x".repeat(256)] {
            let said = comes(odd).await;
            assert!(said.contains("no hardware UUID"), "{said}");
        }
        assert!(comes("CLONE-UUID").await.contains("quarantined"));
        let said = closed(&mut kept).await;
        assert!(said.contains("not enrolled any more"), "{said}");
        let app = &stage.fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let device = enrollment::known_device(&mut tx, "HONEST-UUID").await.unwrap().unwrap();
        drop(tx);
        let how = Release::Enrolled;
        enrollment::release(app, Fixture::who(), device.id, "CLONE-UUID", how).await.unwrap();
        let mut kept = stage.link(&stage.honest, None).await;
        let said = comes("CLONE-UUID").await;
        assert!(said.contains("turned away"), "{said}");
        stage.is_heard(&mut kept).await;
        assert_eq!(log.lines_with("a link failed"), 0, "none of this is a fault of the board");
        stage.end().await;
    })
    .await;
}

#[tokio::test]
async fn slow_clients_are_cut_off_while_others_are_served() {
    on_sqlite(|db| async move {
        let log = Log::default();
        let _guard = log.start();
        let stage = Stage::new(db).await;
        let loris = async {
            let mut tls = stage.tls(stage.tcp(HONEST, None).await, None).await;
            let started = tokio::time::Instant::now();
            for byte in "GET /link HTTP/1.1\r\nX-Slow: ".bytes().chain(std::iter::repeat_n(b'x', 60)) {
                if tls.write_all(&[byte]).await.is_err() || tls.flush().await.is_err() {
                    break;
                }
                if let Ok(read) = tokio::time::timeout(Duration::from_secs(1), tls.read(&mut [0; 1024])).await
                    && read.is_ok_and(|length| length == 0)
                {
                    break;
                }
            }
            started.elapsed()
        };
        let never_reads = async {
            let mut link = stage.link(&stage.hostile, Some(4096)).await;
            // Each report is acknowledged, until the acknowledgements fill what lies between.
            let until = tokio::time::Instant::now() + Duration::from_secs(60);
            loop {
                let report = Message::text(serde_json::to_string(&stage.report()).unwrap());
                match tokio::time::timeout_at(until, link.send(report)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => panic!("the board bore with it for a minute"),
                }
            }
        };
        let (slow, ()) = tokio::join!(loris, never_reads);
        assert!(slow < Duration::from_secs(45), "{slow:?}");
        assert_eq!(log.lines_with("took too long with its request"), 1);
        assert_eq!(log.lines_with("doesn't read what it is sent"), 1);
        stage.serves_others().await;
        stage.end().await;
    })
    .await;
}

/// The next sealed paste that the board passes on.
async fn next_paste(link: &mut Link) -> Paste {
    loop {
        if let FromBoard::Paste(paste) = next(link).await {
            return paste;
        }
    }
}

#[tokio::test]
async fn whoever_waits_for_a_devices_word_on_a_paste_gets_it_or_hears_that_there_is_none() {
    on_both(|db| async move {
        let stage = Stage::new(db).await;
        let app = stage.fixture.app.clone();
        let device = {
            let mut tx = app.db.read().await.unwrap();
            crate::enrollment::known_device(&mut tx, "HONEST-UUID").await.unwrap().unwrap().id
        };
        let paste = || Paste {
            delivery_id: DeliveryId::new(&*app.clock, &SystemRandom),
            component: "base".into(),
            slot: "X".into(),
            expires: app.now(),
            sealed: vec![7; 60],
        };
        let mut link = stage.link(&stage.honest, None).await;
        let (first, second) = (paste(), paste());
        let word = app.links.relay(device, first.clone()).unwrap();
        assert_eq!(next_paste(&mut link).await, first);
        let twice = app.links.relay(device, first.clone()).unwrap();
        let said = tokio::time::timeout(SOON, twice).await.unwrap().unwrap().unwrap_err();
        assert!(said.contains("on its way already"), "{said}");
        // The word on another one, and on one that nobody sent, is no word on this one.
        let other = app.links.relay(device, second.clone()).unwrap();
        next_paste(&mut link).await;
        for (delivery_id, refused) in
            [(paste().delivery_id, None), (second.delivery_id, Some("no".into())), (first.delivery_id, None)]
        {
            send(&mut link, &FromAgent::Pasted(Pasted { delivery_id, refused })).await;
        }
        assert_eq!(tokio::time::timeout(SOON, word).await.unwrap().unwrap(), Ok(()));
        assert_eq!(tokio::time::timeout(SOON, other).await.unwrap().unwrap(), Err("no".into()));

        // An agent from before: it says that it doesn't know the frame.
        let word = app.links.relay(device, paste()).unwrap();
        next_paste(&mut link).await;
        let refused = Refused { what: UNKNOWN_FRAME.into(), reason: "agent 0.0.9".into() };
        send(&mut link, &FromAgent::Refused(refused)).await;
        let said = tokio::time::timeout(SOON, word).await.unwrap().unwrap().unwrap_err();
        assert!(said.contains("older than sealed pastes"), "{said}");

        let word = app.links.relay(device, paste()).unwrap();
        next_paste(&mut link).await;
        drop(link);
        assert!(tokio::time::timeout(SOON, word).await.unwrap().is_err(), "the link was cut");

        let mut link = stage.link(&stage.honest, None).await;
        crate::enrollment::revoke(&app, crate::testing::Fixture::who(), device, "It was stolen")
            .await
            .unwrap();
        if let Ok(word) = app.links.relay(device, paste()) {
            assert!(
                tokio::time::timeout(SOON, word).await.unwrap().is_err(),
                "a revoked device gets nothing"
            );
        }
        assert!(closed(&mut link).await.contains("revoked"));
        stage.end().await;
    })
    .await;
}
