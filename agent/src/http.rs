//! Requests to the board outside the link: signed JSON for joining and renewing, bundles. One connection a request,
//! unless they belong together.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, DATE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rcgen::{KeyPair, SigningKey as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::catalog::SignedBundle;
use shared::crypto::base64;
use shared::problem::{CONTENT_TYPE as PROBLEM, Problem};
use shared::protocol::enroll::RENEWAL_EXPORTER;
use shared::protocol::{MAX_FRAME, SIGNATURE_HEADER};
use shared::time::Timestamp;
use tokio::task::JoinHandle;

use crate::tls::{Board, TlsError};

/// Longer than a long poll's 25 s.
const TIMEOUT: Duration = Duration::from_secs(45);
const MAX_BUNDLE: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What the board answered; it is written for a person.
    #[error("{0}")]
    Problem(Box<Problem>),
    #[error("the board answered with status {0} and nothing that can be understood")]
    Status(u16),
    #[error("the connection to the board broke: {0}")]
    Broken(String),
    #[error("the board did not answer in time")]
    Timeout,
    #[error("the board's answer can't be understood: {0}")]
    Answer(serde_json::Error),
    #[error("the request could not be signed")]
    Sign,
}

impl HttpError {
    /// Whether trying the same again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Tls(TlsError::Connect { .. }) | Self::Broken(_) | Self::Timeout => true,
            Self::Problem(problem) => problem.status >= 500 || problem.status == 429,
            Self::Status(status) => *status >= 500,
            Self::Tls(_) | Self::Answer(_) | Self::Sign => false,
        }
    }
}

/// An answer, and the CA certificate that the board showed with it.
pub struct Answered<T> {
    pub answer: T,
    pub ca: Vec<u8>,
}

/// A connection for requests that belong together.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
    authority: String,
    /// The CA certificate that the board showed.
    pub ca: Vec<u8>,
    /// What binds a renewal to this connection.
    pub exporter: [u8; 32],
}

impl Connection {
    pub async fn open(board: &Board) -> Result<Self, HttpError> {
        let stream = board.connect().await?;
        let ca = board.ca_of(&stream)?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], RENEWAL_EXPORTER, None)
            .map_err(TlsError::Setup)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpError::Broken(error.to_string()))?;
        Ok(Self { sender, driver: tokio::spawn(connection), authority: board.authority(), ca, exporter })
    }

    /// POSTs JSON that is signed inside, or needs no signature.
    pub async fn post<A: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, HttpError> {
        let body = serde_json::to_vec(body).map_err(|_| HttpError::Sign)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| HttpError::Broken(error.to_string()))?;
        let answer = tokio::time::timeout(TIMEOUT, self.send(request, MAX_FRAME))
            .await
            .map_err(|_| HttpError::Timeout)??;
        serde_json::from_slice(&answer).map_err(HttpError::Answer)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, limit: usize) -> Result<Bytes, HttpError> {
        let broken = |error: hyper::Error| HttpError::Broken(error.to_string());
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let is_problem = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(PROBLEM));
        let body = Limited::new(response.into_body(), limit)
            .collect()
            .await
            .map_err(|error| HttpError::Broken(error.to_string()))?
            .to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => Err(HttpError::Problem(Box::new(problem))),
            Ok(_) | Err(_) => Err(HttpError::Status(status.as_u16())),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// POSTs JSON, signed over its exact bytes by the device's TLS key.
pub async fn post_signed<A: DeserializeOwned>(
    board: &Board,
    path: &str,
    body: &impl Serialize,
    key: &KeyPair,
) -> Result<Answered<A>, HttpError> {
    let body = serde_json::to_vec(body).map_err(|_| HttpError::Sign)?;
    let signature = key.sign(&body).map_err(|_| HttpError::Sign)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, board.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(SIGNATURE_HEADER, base64::encode(&signature))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| HttpError::Broken(error.to_string()))?;
    let answered = send(board, request, MAX_FRAME).await?;
    let answer = serde_json::from_slice(&answered.answer).map_err(HttpError::Answer)?;
    Ok(Answered { answer, ca: answered.ca })
}

pub async fn get_bundle(board: &Board, digest: &str) -> Result<SignedBundle, HttpError> {
    let request = Request::builder()
        .uri(format!("/bundle/{digest}"))
        .header(HOST, board.authority())
        .body(Full::new(Bytes::new()))
        .map_err(|error| HttpError::Broken(error.to_string()))?;
    let answered = send(board, request, MAX_BUNDLE).await?;
    serde_json::from_slice(&answered.answer).map_err(HttpError::Answer)
}

/// A program on its way here.
pub struct Program {
    body: Incoming,
    /// Open for as long as the body comes.
    _connection: Connection,
}

impl Program {
    /// The next bytes, or nothing behind the last.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame =
                tokio::time::timeout(TIMEOUT, self.body.frame()).await.map_err(|_| HttpError::Timeout)?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(HttpError::Broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// The program of the release with this digest, up to its first byte.
pub async fn get_program(board: &Board, digest: &str) -> Result<Program, HttpError> {
    let asking = async {
        let mut connection = Connection::open(board).await?;
        let request = Request::builder()
            .uri(format!("/release/{digest}"))
            .header(HOST, board.authority())
            .body(Full::new(Bytes::new()))
            .map_err(|error| HttpError::Broken(error.to_string()))?;
        let broken = |error: hyper::Error| HttpError::Broken(error.to_string());
        connection.sender.ready().await.map_err(broken)?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        if !response.status().is_success() {
            return Err(HttpError::Status(response.status().as_u16()));
        }
        Ok(Program { body: response.into_body(), _connection: connection })
    };
    tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| HttpError::Timeout)?
}

/// What time it is for the board, to the second: the `Date` of any of its answers.
pub async fn time_of(board: &Board) -> Result<Timestamp, HttpError> {
    let broken = |error: hyper::Error| HttpError::Broken(error.to_string());
    let asking = async {
        let mut connection = Connection::open(board).await?;
        let request = Request::builder()
            .method(Method::HEAD)
            .uri("/")
            .header(HOST, board.authority())
            .body(Full::new(Bytes::new()))
            .map_err(|error| HttpError::Broken(error.to_string()))?;
        connection.sender.ready().await.map_err(broken)?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
        date.and_then(|date| httpdate::parse_http_date(date).ok())
            .map(|at| Timestamp::from_datetime(at.into()))
            .ok_or_else(|| HttpError::Broken("the answer says no time".to_owned()))
    };
    tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| HttpError::Timeout)?
}

async fn send(
    board: &Board,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Answered<Bytes>, HttpError> {
    tokio::time::timeout(TIMEOUT, send_now(board, request, limit)).await.map_err(|_| HttpError::Timeout)?
}

async fn send_now(
    board: &Board,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Answered<Bytes>, HttpError> {
    let mut connection = Connection::open(board).await?;
    let answer = connection.send(request, limit).await?;
    Ok(Answered { answer, ca: std::mem::take(&mut connection.ca) })
}
