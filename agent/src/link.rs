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

use crate::tls::{Board, TlsError};

const PING: Duration = Duration::from_secs(20);
const DEAD: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(20);
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// A link that held this long was a good one: the next try comes soon.
const GOOD: Duration = Duration::from_secs(10);
/// Frames on their way to the board; what doesn't fit waits in the journal.
pub const QUEUE: usize = 64;

/// Held for reading by everything that shows the certificate, for writing while it changes: after the first use of a new
/// one the board takes any use of the old for a theft.
pub type InUse = Arc<RwLock<()>>;

const FORBIDDEN: u16 = 403;

pub enum LinkEvent {
    /// Connected: the first frame must be a hello.
    Up {
        sender: mpsc::Sender<FromAgent>,
        /// The authority that the board showed, in DER.
        ca: Vec<u8>,
    },
    Frame(FromBoard),
    /// The board doesn't take the certificate.
    Refused,
    Down,
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
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let Err(error) = once(&mut boards, &in_use, &events, stop.clone()).await else { return };
        if matches!(error, LinkError::Status(FORBIDDEN)) && events.send(LinkEvent::Refused).await.is_err() {
            return;
        }
        if events.send(LinkEvent::Down).await.is_err() {
            return;
        }
        if matches!(error, LinkError::Renewed) {
            failures = 0;
            continue;
        }
        failures = if began.elapsed() >= GOOD { 0 } else { failures + 1 };
        let revoked = matches!(error, LinkError::Revoked(_));
        let chance = u64::from_be_bytes(random::bytes::<8>(&*random));
        let wait =
            if revoked { between(LONGEST_WAIT / 2, LONGEST_WAIT, chance) } else { backoff(failures, chance) };
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

/// Full jitter: thousands of agents don't come back in the same second.
fn backoff(failures: u32, chance: u64) -> Duration {
    let ceiling = SHORTEST_WAIT.saturating_mul(1 << failures.clamp(1, 10)).min(LONGEST_WAIT);
    between(SHORTEST_WAIT, ceiling, chance)
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
    fn waiting_grows_up_to_two_minutes_and_is_never_shorter_than_half_a_second() {
        for failures in 0..100 {
            for chance in [0, 1, 12_345, u64::MAX / 2, u64::MAX] {
                let wait = backoff(failures, chance);
                assert!((SHORTEST_WAIT..=LONGEST_WAIT).contains(&wait), "{failures} {chance}: {wait:?}");
            }
        }
        assert!(backoff(1, u64::MAX) <= Duration::from_secs(1));
        assert!(backoff(50, 119_500) > Duration::from_secs(100));
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
