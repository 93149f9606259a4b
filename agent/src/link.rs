//! The link: one WebSocket to the board, held up for as long as the agent runs.
//!
//! It carries frames and knows nothing about them. What must not be lost waits in the journal, not here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use shared::protocol::link::{FromAgent, FromBoard, Refused};
use shared::protocol::{LINK_SUBPROTOCOL, MAX_FRAME};
use shared::random::{self, Random};
use tokio::net::TcpStream;
use tokio::sync::{RwLock, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{HOST, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::tls::{self, Board, TlsError};

const PING: Duration = Duration::from_secs(20);
const DEAD: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(20);
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// For a device that the board knows and doesn't want: nothing but a person changes that, who then waits for the Mac.
const LONGEST_WAIT_UNWANTED: Duration = Duration::from_secs(600);
const FORBIDDEN: u16 = 403;
/// So many handshakes that fail over our certificate are no accident.
const ALERTS: u32 = 3;
/// A link that held this long was a good one: the next try comes soon.
const GOOD: Duration = Duration::from_secs(10);
/// Frames on their way to the board; what doesn't fit waits in the journal.
pub const QUEUE: usize = 64;

/// Held for reading by everything that shows the certificate, for writing while it changes: after the first use of a new
/// one the board takes any use of the old for a theft.
pub type InUse = Arc<RwLock<()>>;

pub enum LinkEvent {
    /// Connected: the first frame must be a hello.
    Up {
        sender: mpsc::Sender<FromAgent>,
        /// The authority that the board showed, in DER.
        ca: Vec<u8>,
    },
    Frame(FromBoard),
    Down,
    /// Several times in a row the handshake failed over our certificate, or the board doesn't take it: it may be restored
    /// from a backup of before it was issued.
    CertificateRefused,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    WebSocket(Box<tungstenite::Error>),
    #[error("the board refused the link with status {0}")]
    Status(u16),
    #[error("the board closed the link: {0}")]
    Closed(String),
    #[error("this device was revoked: {0}")]
    Revoked(String),
    #[error("the board has not answered for {} seconds", DEAD.as_secs())]
    Silent,
    #[error("the certificate was renewed")]
    Renewed,
    #[error("the daemon does not listen any more")]
    Stopped,
}

impl LinkError {
    fn is_over_certificate(&self) -> bool {
        match self {
            Self::Tls(TlsError::Connect { error, .. }) => tls::is_alert(error),
            Self::WebSocket(error) => {
                matches!(&**error, tungstenite::Error::Io(error) if tls::is_alert(error))
            }
            Self::Tls(_)
            | Self::Status(_)
            | Self::Closed(_)
            | Self::Revoked(_)
            | Self::Silent
            | Self::Renewed
            | Self::Stopped => false,
        }
    }

    /// Between which two durations the next try lies. Full jitter: thousands of agents don't come back in the same
    /// second.
    fn wait(&self, failures: u32) -> (Duration, Duration) {
        let ceiling = |most: Duration| SHORTEST_WAIT.saturating_mul(1 << failures.clamp(1, 11)).min(most);
        match self {
            Self::Status(FORBIDDEN) => (SHORTEST_WAIT, ceiling(LONGEST_WAIT_UNWANTED)),
            Self::Revoked(_) => (LONGEST_WAIT / 2, ceiling(LONGEST_WAIT_UNWANTED).max(LONGEST_WAIT)),
            Self::Tls(_)
            | Self::WebSocket(_)
            | Self::Status(_)
            | Self::Closed(_)
            | Self::Silent
            | Self::Renewed
            | Self::Stopped => (SHORTEST_WAIT, ceiling(LONGEST_WAIT)),
        }
    }
}

impl From<tungstenite::Error> for LinkError {
    fn from(error: tungstenite::Error) -> Self {
        if let tungstenite::Error::Http(response) = &error {
            return Self::Status(response.status().as_u16());
        }
        if let tungstenite::Error::Io(io) = &error
            && io.kind() == std::io::ErrorKind::UnexpectedEof
        {
            return Self::Closed("without a word".to_owned());
        }
        Self::WebSocket(Box::new(error))
    }
}

/// Connects, and connects again, until it is told to stop. A new value of `boards` has a new certificate: it takes its
/// place at once.
pub async fn hold(
    mut boards: watch::Receiver<Board>,
    in_use: InUse,
    events: mpsc::Sender<LinkEvent>,
    random: Arc<dyn Random>,
    mut stop: watch::Receiver<bool>,
) {
    let (mut failures, mut alerts) = (0, 0);
    loop {
        let began = Instant::now();
        let Err(error) = once(&mut boards, &in_use, &events, stop.clone()).await else { return };
        if events.send(LinkEvent::Down).await.is_err() {
            return;
        }
        if matches!(error, LinkError::Renewed) {
            (failures, alerts) = (0, 0);
            continue;
        }
        alerts = if error.is_over_certificate() { alerts + 1 } else { 0 };
        if alerts >= ALERTS || matches!(error, LinkError::Status(FORBIDDEN)) {
            alerts = 0;
            if events.send(LinkEvent::CertificateRefused).await.is_err() {
                return;
            }
        }
        failures = if began.elapsed() >= GOOD { 0 } else { failures + 1 };
        let (least, most) = error.wait(failures);
        let wait = between(least, most, u64::from_be_bytes(random::bytes::<8>(&*random)));
        tracing::warn!(%error, again_in_ms = wait.as_millis(), "no link to the board");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = renewed(&mut boards) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn renewed(boards: &mut watch::Receiver<Board>) {
    if boards.changed().await.is_err() {
        // The daemon is going; it says so by `stop`.
        std::future::pending().await
    }
}

fn between(least: Duration, most: Duration, chance: u64) -> Duration {
    let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX);
    least + Duration::from_millis(chance % span.saturating_add(1))
}

/// One connection, to its end. `Ok` means that the agent stops.
async fn once(
    boards: &mut watch::Receiver<Board>,
    in_use: &InUse,
    events: &mpsc::Sender<LinkEvent>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let connecting = async {
        let _using = in_use.read().await;
        let board = boards.borrow_and_update().clone();
        connect(&board).await
    };
    let connected = tokio::select! {
        connected = tokio::time::timeout(HANDSHAKE, connecting) => connected,
        () = stopped(&mut stop) => return Ok(()),
    };
    let (mut socket, ca) = connected.map_err(|_| LinkError::Silent)??;
    let (sender, mut outgoing) = mpsc::channel(QUEUE);
    events.send(LinkEvent::Up { sender, ca }).await.map_err(|_| LinkError::Stopped)?;

    let mut heard = Instant::now();
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = socket.next() => {
                heard = Instant::now();
                let message = message.ok_or_else(|| LinkError::Closed("without a word".to_owned()))??;
                match received(message)? {
                    Received::Frame(frame) => {
                        events.send(LinkEvent::Frame(*frame)).await.map_err(|_| LinkError::Stopped)?;
                    }
                    Received::Garbled(refused) => send(&mut socket, frame_of(&FromAgent::Refused(refused))).await?,
                    Received::Nothing => {}
                }
            }
            frame = outgoing.recv() => {
                let frame = frame.ok_or(LinkError::Stopped)?;
                send(&mut socket, frame_of(&frame)).await?;
            }
            _ = ping.tick() => send(&mut socket, Message::Ping(Bytes::new())).await?,
            () = tokio::time::sleep_until(heard + DEAD) => return Err(LinkError::Silent),
            () = renewed(boards) => {
                leave(&mut socket, "the certificate was renewed").await;
                return Err(LinkError::Renewed);
            }
            () = stopped(&mut stop) => {
                leave(&mut socket, "the agent stops").await;
                return Ok(());
            }
        }
    }
}

async fn leave(socket: &mut Socket, reason: &'static str) {
    let goodbye = CloseFrame { code: CloseCode::Away, reason: reason.into() };
    let _ = tokio::time::timeout(Duration::from_secs(2), socket.close(Some(goodbye))).await;
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn connect(board: &Board) -> Result<(Socket, Vec<u8>), LinkError> {
    let stream = board.connect().await?;
    let ca = board.ca_of(&stream)?;
    let authority = board.authority();
    let mut request = format!("wss://{authority}/link").into_client_request()?;
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(LINK_SUBPROTOCOL));
    if let Ok(host) = HeaderValue::from_str(&authority) {
        headers.insert(HOST, host);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
    Ok((socket, ca))
}

enum Received {
    Frame(Box<FromBoard>),
    Garbled(Refused),
    Nothing,
}

fn received(message: Message) -> Result<Received, LinkError> {
    match message {
        Message::Text(text) => Ok(match serde_json::from_str(&text) {
            Ok(frame) => Received::Frame(Box::new(frame)),
            Err(error) => Received::Garbled(Refused {
                what: "frame".to_owned(),
                reason: format!(
                    "it can't be understood ({:?} error at column {})",
                    error.classify(),
                    error.column()
                ),
            }),
        }),
        Message::Binary(_) => {
            Ok(Received::Garbled(Refused { what: "frame".to_owned(), reason: "frames are text".to_owned() }))
        }
        Message::Close(frame) => {
            let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
            Err(if reason.contains("revoked") {
                LinkError::Revoked(reason)
            } else {
                LinkError::Closed(reason)
            })
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(Received::Nothing),
    }
}

fn frame_of(frame: &FromAgent) -> Message {
    // A struct of ours with string keys: it always becomes JSON.
    Message::text(serde_json::to_string(frame).unwrap_or_default())
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), LinkError> {
    match tokio::time::timeout(DEAD, socket.send(message)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(LinkError::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_two_minutes_and_to_an_hour_for_who_is_not_wanted() {
        let longest = |error: &LinkError, failures| error.wait(failures).1;
        for failures in 0..100 {
            for (error, most) in [
                (LinkError::Silent, LONGEST_WAIT),
                (LinkError::Status(503), LONGEST_WAIT),
                (LinkError::Status(403), LONGEST_WAIT_UNWANTED),
                (LinkError::Revoked(String::new()), LONGEST_WAIT_UNWANTED),
            ] {
                let (least, ceiling) = error.wait(failures);
                for chance in [0, 1, 12_345, u64::MAX / 2, u64::MAX] {
                    let wait = between(least, ceiling, chance);
                    assert!((SHORTEST_WAIT..=most).contains(&wait), "{error} {failures} {chance}: {wait:?}");
                }
                assert!(longest(&error, failures) <= longest(&error, failures + 1), "it never shrinks");
            }
        }
        assert!(longest(&LinkError::Status(403), 1) <= Duration::from_secs(1), "a passing no is soon over");
        assert_eq!(longest(&LinkError::Status(403), 50), LONGEST_WAIT_UNWANTED);
        assert_eq!(longest(&LinkError::Silent, 50), LONGEST_WAIT);
        assert!(LinkError::Revoked(String::new()).wait(1).0 >= Duration::from_secs(60));
    }

    #[test]
    fn a_frame_from_the_future_arrives_and_nonsense_is_refused_without_its_content() {
        let unknown = received(Message::text(r#"{"type":"teleport","to":"moon"}"#)).unwrap();
        assert!(matches!(unknown, Received::Frame(frame) if *frame == FromBoard::Unknown));
        let Received::Garbled(refused) =
            received(Message::text(r#"{"type":"ack","reports":"hunter2"}"#)).unwrap()
        else {
            panic!("it was understood")
        };
        assert!(!refused.reason.contains("hunter2"));
    }

    #[test]
    fn a_close_says_why() {
        let close = |reason: &'static str| {
            received(Message::Close(Some(CloseFrame { code: CloseCode::Policy, reason: reason.into() })))
        };
        assert!(matches!(close("revoked"), Err(LinkError::Revoked(_))));
        assert!(matches!(close("a newer link took over"), Err(LinkError::Closed(_))));
    }
}
