//! `board state`: asks a board over HTTP, from any computer, what is installed where.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use reqwest::{Client, Response, StatusCode, redirect};
use serde::Deserialize;
use shared::ids::ClientId;
use shared::secret::Secret;
use url::{Host, Url};

use super::{Output, table};
use crate::support::{Filter, Shows, StateJson};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(60);
/// What one page of the answer may be long, in bytes: far more than the devices of its clients say.
const LONGEST: usize = 64 * 1024 * 1024;

pub const HELP: &str = "\
Example: BOARD_TOKEN=board_… board state --board https://board.example.com --drift differs

The token is read from BOARD_TOKEN or from --token-file, never from an argument, which every user of the computer
could see. `board token create --name NAME --roles support --days 90` makes one.

Exit codes:
  0  The board answered.
  1  With --exit-code: the board answered, and something that is shown differs from the scope.
  2  The board couldn't be asked, or refused.";

#[derive(Debug, Args)]
pub struct StateArgs {
    /// Address of the board's console.
    #[arg(long, env = "BOARD_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    board: String,
    /// A file that holds the token; otherwise it is read from BOARD_TOKEN.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Only this client: its id, or part of its name.
    #[arg(long)]
    client: Option<String>,
    /// Only this component: its key or its name.
    #[arg(long)]
    component: Option<String>,
    /// Only versions that begin so.
    #[arg(long)]
    version: Option<String>,
    /// Only what stands so.
    #[arg(long, value_parser = PossibleValuesParser::new(Shows::all().map(Shows::as_str)))]
    drift: Option<String>,
    /// Only where each of these words is in the name of the client, the component or the device, or in the version.
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// The board's answer as JSON.
    #[arg(long)]
    json: bool,
    /// End with exit code 1 when something that is shown differs from the scope.
    #[arg(long)]
    exit_code: bool,
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
        "there is no token. Make a token: board token create --name NAME --roles support --days 90; then set BOARD_TOKEN, or name a file that holds it with --token-file"
    )]
    NoToken,
    #[error(
        "what {0} holds is not a token of a board, which begins with board_. Make a token: board token create --name NAME --roles support --days 90"
    )]
    NotAToken(&'static str),
    #[error("the token file {path} can't be read: {error}")]
    TokenFile { path: PathBuf, error: std::io::Error },
    #[error(
        "the board at {board} can't be reached: {why}. See whether it runs, and whether --board is right"
    )]
    Unreachable { board: String, why: String },
    #[error(
        "the board at {board} refuses the token: {why} Make a token: board token create --name NAME --roles support --days 90"
    )]
    Unauthorized { board: String, why: String },
    #[error("the board at {board} refuses: {why}")]
    Refused { board: String, why: String },
    #[error(
        "{board} answers with {status}, which sends elsewhere. The token isn't sent there: name the console's own address with --board"
    )]
    Elsewhere { board: String, status: StatusCode },
    #[error(
        "what {board} answered isn't a board's state: {why}. See whether --board is right, and whether the board has this program's version"
    )]
    NotAState { board: String, why: String },
}

pub async fn run(args: StateArgs) -> anyhow::Result<Output> {
    let board = address(&args.board)?;
    let token = token(args.token_file.as_deref())?;
    let state = all(&board, &token, &args.filter()).await?;
    let text = if args.json {
        serde_json::to_string_pretty(&state).context("the answer can't be put into JSON")?
    } else {
        table::of(&state)
    };
    Ok(Output { text, exit: u8::from(args.exit_code && state.differ > 0) })
}

impl StateArgs {
    fn filter(&self) -> Filter {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Filter {
            q: text(&self.search),
            client: text(&self.client),
            component: text(&self.component),
            version: text(&self.version),
            drift: self.drift.as_deref().and_then(|typed| Shows::all().find(|shows| shows.as_str() == typed)),
            age: None,
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

fn token(file: Option<&Path>) -> Result<Secret<String>, Unasked> {
    let (text, place) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Unasked::TokenFile { path: path.to_owned(), error })?;
            (text, "the token file")
        }
        None => (std::env::var("BOARD_TOKEN").map_err(|_| Unasked::NoToken)?, "BOARD_TOKEN"),
    };
    checked(text, place)
}

fn checked(text: String, place: &'static str) -> Result<Secret<String>, Unasked> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(Unasked::NoToken);
    }
    if !trimmed.starts_with("board_") || !trimmed.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Unasked::NotAToken(place));
    }
    Ok(Secret::new(trimmed.to_owned()))
}

/// Follows the pages of the answer, and puts them together as one by the clients' names.
async fn all(board: &Url, token: &Secret<String>, filter: &Filter) -> Result<StateJson, Unasked> {
    let mut state = ask(board, token, filter, None).await?;
    while let Some(after) = state.next.take() {
        let page = ask(board, token, filter, Some(after)).await?;
        // Ids go up from page to page, so that this ends.
        if page.next.is_some_and(|next| next <= after) {
            let (board, why) = (board.to_string(), "its pages lead in a circle".to_owned());
            return Err(Unasked::NotAState { board, why });
        }
        state.differ += page.differ;
        state.answers.extend(page.answers);
        state.next = page.next;
    }
    state.answers.sort_by_cached_key(|answer| (answer.client.to_lowercase(), answer.client_id));
    Ok(state)
}

async fn ask(
    board: &Url,
    token: &Secret<String>,
    filter: &Filter,
    after: Option<ClientId>,
) -> Result<StateJson, Unasked> {
    let shown = board.as_str().trim_end_matches('/').to_owned();
    let unreachable =
        |error: reqwest::Error| Unasked::Unreachable { board: shown.clone(), why: words(error) };
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .user_agent(concat!("board/", env!("CARGO_PKG_VERSION")));
    if is_this_computer(board) {
        builder = builder.no_proxy();
    }
    let http = builder.build().map_err(unreachable)?;
    let mut query = filter.query();
    if let Some(after) = after {
        query = format!("{query}{}after={after}", if query.is_empty() { '?' } else { '&' });
    }
    let url = format!("{shown}/api/v1/state{query}");
    let response = http.get(url).bearer_auth(token.expose()).send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(Unasked::Elsewhere { board: shown, status });
    }
    let body = body(response, &shown).await?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|error| Unasked::NotAState { board: shown, why: table::plain(&error.to_string()) }),
        StatusCode::UNAUTHORIZED => Err(Unasked::Unauthorized { why: said(status, &body), board: shown }),
        _ => Err(Unasked::Refused { why: said(status, &body), board: shown }),
    }
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
            return Err(Unasked::NotAState { board: board.to_owned(), why });
        }
        body.extend_from_slice(&chunk);
    }
}

/// What the board says about a refusal (RFC 9457), or the status alone.
fn said(status: StatusCode, body: &[u8]) -> String {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Unasked, address, all, ask, checked};
    use crate::support::Filter;

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
        assert_eq!(checked("board_abc\n".into(), "BOARD_TOKEN").unwrap().expose(), "board_abc");
        assert!(matches!(checked(" \n".into(), "BOARD_TOKEN"), Err(Unasked::NoToken)));
        for wrong in ["hunter2", "board_a b", "board_a\r\nHost: x", "board_é"] {
            let refused = checked(wrong.into(), "BOARD_TOKEN").unwrap_err();
            assert!(matches!(refused, Unasked::NotAToken(_)), "{wrong}");
            assert!(!refused.to_string().contains(wrong));
        }
    }

    /// What asking comes to when the board answers so, once.
    async fn refusal(answer: &'static str) -> Unasked {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let board = address(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        let token = checked("board_abc".into(), "BOARD_TOKEN").unwrap();
        let filter = Filter { q: "a&b".into(), ..Filter::default() };
        let (asked, said) = tokio::join!(serve, ask(&board, &token, &filter, None));
        assert!(asked.starts_with("GET /api/v1/state?q=a%26b HTTP/1.1\r\n"), "{asked}");
        let refusal = said.unwrap_err();
        assert!(!format!("{refusal} {refusal:?}").contains("board_abc"));
        refusal
    }

    #[tokio::test]
    async fn what_a_board_refuses_is_said_with_what_to_do_next() {
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(refusal(moved).await, Unasked::Elsewhere { .. }));
        let page = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>";
        assert!(matches!(refusal(page).await, Unasked::NotAState { .. }));
        let down = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let said = refusal(down).await.to_string();
        assert!(said.contains("503"), "{said}");
        let stranger = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 34\r\n\r\n{\"title\":\"No\",\"detail\":\"It\\u001b[2J\"}";
        let said = refusal(stranger).await.to_string();
        assert!(said.contains("board token create") && !said.contains('\u{1b}'), "{said}");
    }

    /// Answers each request with the next of these bodies; gives what was asked.
    async fn serve(listener: TcpListener, bodies: Vec<String>) -> Vec<String> {
        let mut asked = Vec::new();
        for body in bodies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            asked.push(text.lines().next().unwrap().to_owned());
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
        asked
    }

    fn page(clients: &[(&str, &str)], next: Option<&str>) -> String {
        let answers: Vec<_> = clients
            .iter()
            .map(|(id, name)| {
                serde_json::json!({
                    "client_id": id, "client": name, "device_id": null, "device": null, "on": false,
                    "last_seen_at": null, "component": "base", "component_name": "Base", "drift": "missing",
                    "presence": null, "version": null, "observed_at": null, "age_seconds": null, "slots": [],
                })
            })
            .collect();
        let mut page = serde_json::json!({ "made_at": "now", "differ": answers.len(), "answers": answers });
        if let Some(next) = next {
            page["next"] = next.into();
        }
        page.to_string()
    }

    #[tokio::test]
    async fn all_pages_are_asked_for_and_become_one_answer() {
        let ids = [1, 2, 3].map(|number| format!("01990000-0000-7000-8000-00000000000{number}"));
        let [a, b, c] = [0, 1, 2].map(|at| ids[at].as_str());
        let token = checked("board_abc".into(), "BOARD_TOKEN").unwrap();
        let filter = Filter { q: "x".into(), ..Filter::default() };
        for (last, whole) in [(None, true), (Some(a), false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let board = address(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
            let bodies = vec![page(&[(a, "Zoe"), (b, "Ada")], Some(b)), page(&[(c, "bob")], last)];
            let (asked, state) = tokio::join!(serve(listener, bodies), all(&board, &token, &filter));
            assert!(asked[0].starts_with("GET /api/v1/state?q=x HTTP"), "{asked:?}");
            assert!(asked[1].starts_with(&format!("GET /api/v1/state?q=x&after={b} HTTP")), "{asked:?}");
            match state {
                Ok(state) => {
                    assert!(whole, "pages that lead in a circle are refused");
                    let names: Vec<_> = state.answers.iter().map(|answer| answer.client.as_str()).collect();
                    assert_eq!((names, state.differ, state.next), (vec!["Ada", "bob", "Zoe"], 3, None));
                }
                Err(refused) => assert!(!whole && matches!(refused, Unasked::NotAState { .. }), "{refused}"),
            }
        }
    }
}
