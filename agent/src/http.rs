//! Requests to the board outside the link: signed JSON for joining, bundles afterwards. One connection a request.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rcgen::{KeyPair, SigningKey as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::catalog::SignedBundle;
use shared::crypto::base64;
use shared::problem::{CONTENT_TYPE as PROBLEM, Problem};
use shared::protocol::{MAX_FRAME, SIGNATURE_HEADER};

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
    let broken = |error: hyper::Error| HttpError::Broken(error.to_string());
    let stream = board.connect().await?;
    let ca = board.ca_of(&stream)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let result = async {
        let response = sender.send_request(request).await.map_err(broken)?;
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
            return Ok(Answered { answer: body, ca });
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => Err(HttpError::Problem(Box::new(problem))),
            Ok(_) | Err(_) => Err(HttpError::Status(status.as_u16())),
        }
    }
    .await;
    driver.abort();
    result
}
