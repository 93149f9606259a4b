//! Asking a board over HTTP, from any computer, with an API token: where it is, the token, and what may go wrong.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::secret::Secret;
use url::{Host, Url};

use super::table;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(60);
/// What an answer may be long, in bytes: far more than a thousand devices say.
const LONGEST: usize = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Asking {
    /// Address of the board's console.
    #[arg(long, env = "BOARD_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    board: String,
    /// A file that holds the token; otherwise it is read from BOARD_TOKEN.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

impl Asking {
    /// The board, with a token of somebody who has this role.
    pub fn board(&self, role: &'static str) -> Result<Board, Unasked> {
        let url = address(&self.board)?;
        let token = token(self.token_file.as_deref(), role)?;
        Board::at(&url, token, role)
    }
}

/// The board couldn't be asked, or refused: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Unasked {
    #[error("{0} is not the address of a board: name it with --board https://HOST or http://127.0.0.1:PORT")]
    Address(String),
    #[error(
        "the token was not sent: {0} is neither https nor this computer, so anybody on the way could read it. Name the board's https address with --board"
    )]
    Plain(String),
    #[error(
        "there is no token. Make a token: board token create --name NAME --roles {0} --days 90; then set BOARD_TOKEN, or name a file that holds it with --token-file"
    )]
    NoToken(&'static str),
    #[error(
        "what {place} holds is not a token of a board, which begins with board_. Make a token: board token create --name NAME --roles {role} --days 90"
    )]
    NotAToken { place: &'static str, role: &'static str },
    #[error("the token file {path} can't be read: {error}")]
    TokenFile { path: PathBuf, error: std::io::Error },
    #[error(
        "the board at {board} can't be reached: {why}. See whether it runs, and whether --board is right"
    )]
    Unreachable { board: String, why: String },
    #[error(
        "the board at {board} refuses the token: {why} Make a token: board token create --name NAME --roles {role} --days 90"
    )]
    Unauthorized { board: String, why: String, role: &'static str },
    #[error("the board at {board} refuses: {why}")]
    Refused { board: String, why: String },
    #[error(
        "{board} answers with {status}, which sends elsewhere. The token isn't sent there: name the console's own address with --board"
    )]
    Elsewhere { board: String, status: StatusCode },
    #[error(
        "what {board} answered isn't what was asked for: {why}. See whether --board is right, and whether the board has this program's version"
    )]
    NotUnderstood { board: String, why: String },
}

/// A board's console, as a program with a token sees it.
pub struct Board {
    shown: String,
    token: Secret<String>,
    role: &'static str,
    http: Client,
}

impl Board {
    fn at(url: &Url, token: Secret<String>, role: &'static str) -> Result<Self, Unasked> {
        let shown = url.as_str().trim_end_matches('/').to_owned();
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("board/", env!("CARGO_PKG_VERSION")));
        if is_this_computer(url) {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|error| Unasked::Unreachable { board: shown.clone(), why: words(error) })?;
        Ok(Self { shown, token, role, http })
    }

    #[cfg(test)]
    pub fn new(url: &str, token: &str, role: &'static str) -> Result<Self, Unasked> {
        Self::at(&address(url)?, checked(token.to_owned(), "BOARD_TOKEN", role)?, role)
    }

    /// Status and body of what is at this path.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Vec<u8>), Unasked> {
        self.send(self.http.get(format!("{}{path}", self.shown))).await
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<(StatusCode, Vec<u8>), Unasked> {
        self.send(self.http.post(format!("{}{path}", self.shown)).json(body)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Unasked> {
        let unreachable =
            |error: reqwest::Error| Unasked::Unreachable { board: self.shown.clone(), why: words(error) };
        let response = request.bearer_auth(self.token.expose()).send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Unasked::Elsewhere { board: self.shown.clone(), status });
        }
        Ok((status, body(response, &self.shown).await?))
    }

    pub fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Unasked> {
        serde_json::from_slice(body).map_err(|error| self.not_understood(&error.to_string()))
    }

    pub fn not_understood(&self, why: &str) -> Unasked {
        Unasked::NotUnderstood { board: self.shown.clone(), why: table::plain(why) }
    }

    /// What an answer means that isn't the one that was asked for.
    pub fn refusal(&self, status: StatusCode, body: &[u8]) -> Unasked {
        let (board, why) = (self.shown.clone(), said(status, body));
        match status {
            StatusCode::UNAUTHORIZED => Unasked::Unauthorized { board, why, role: self.role },
            _ => Unasked::Refused { board, why },
        }
    }
}

/// Where to ask. Plain HTTP only to this computer: the token would be readable on the way.
fn address(typed: &str) -> Result<Url, Unasked> {
    // An address may hold a password: one that isn't understood is repeated only without an @.
    let shown = if typed.contains('@') { "what --board names" } else { typed };
    let wrong = || Unasked::Address(shown.to_owned());
    let url = Url::parse(typed).map_err(|_| wrong())?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !bare || url.host().is_none() || !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    if url.scheme() == "http" && !is_this_computer(&url) {
        return Err(Unasked::Plain(url.to_string()));
    }
    Ok(url)
}

fn is_this_computer(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn token(file: Option<&Path>, role: &'static str) -> Result<Secret<String>, Unasked> {
    let (text, place) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Unasked::TokenFile { path: path.to_owned(), error })?;
            (text, "the token file")
        }
        None => (std::env::var("BOARD_TOKEN").map_err(|_| Unasked::NoToken(role))?, "BOARD_TOKEN"),
    };
    checked(text, place, role)
}

fn checked(text: String, place: &'static str, role: &'static str) -> Result<Secret<String>, Unasked> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(Unasked::NoToken(role));
    }
    if !trimmed.starts_with("board_") || !trimmed.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Unasked::NotAToken { place, role });
    }
    Ok(Secret::new(trimmed.to_owned()))
}

async fn body(mut response: Response, board: &str) -> Result<Vec<u8>, Unasked> {
    let mut body = Vec::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|error| Unasked::Unreachable { board: board.to_owned(), why: words(error) })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > LONGEST {
            let why = format!("it is longer than {LONGEST} bytes");
            return Err(Unasked::NotUnderstood { board: board.to_owned(), why });
        }
        body.extend_from_slice(&chunk);
    }
}

/// What the board says about a refusal (RFC 9457), or the status alone.
pub fn said(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: String,
        #[serde(default)]
        detail: String,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title, detail }) => table::plain(format!("{title}. {detail}").trim_end()),
        Err(_) => format!("it answers with {status}."),
    }
}

/// The deepest cause, without the address.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    table::plain(&cause.map_or_else(|| error.to_string(), ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::{Unasked, address, checked};

    #[test]
    fn a_token_goes_over_https_or_stays_on_this_computer() {
        for good in [
            "https://board.example.com",
            "https://board.example.com:8443/behind/",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]:8080",
            "http://localhost:8080",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for plain in [
            "http://board.example.com",
            "http://192.0.2.1:8080",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[2001:db8::1]",
        ] {
            assert!(matches!(address(plain), Err(Unasked::Plain(_))), "{plain}");
        }
        for wrong in ["", "board.example.com", "ftp://127.0.0.1", "file:///etc/passwd", "https://h/?a=b"] {
            assert!(matches!(address(wrong), Err(Unasked::Address(_))), "{wrong}");
        }
        let refused = address("https://someone:pass-word@board.example.com").unwrap_err().to_string();
        assert!(!refused.contains("pass-word"), "{refused}");
    }

    #[test]
    fn what_is_not_a_token_is_refused_without_being_shown() {
        assert_eq!(checked("board_abc\n".into(), "BOARD_TOKEN", "support").unwrap().expose(), "board_abc");
        assert!(matches!(checked(" \n".into(), "BOARD_TOKEN", "support"), Err(Unasked::NoToken(_))));
        for wrong in ["hunter2", "board_a b", "board_a\r\nHost: x", "board_é"] {
            let refused = checked(wrong.into(), "BOARD_TOKEN", "support").unwrap_err();
            assert!(matches!(refused, Unasked::NotAToken { .. }), "{wrong}");
            assert!(!refused.to_string().contains(wrong));
        }
    }
}
