//! `board state`: asks a board over HTTP, from any computer, what is installed where.

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use reqwest::StatusCode;
use shared::ids::ClientId;

use super::ask::{Asking, Board, Unasked};
use super::{Output, table};
use crate::support::{Filter, Shows, StateJson};

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
    #[command(flatten)]
    asking: Asking,
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

pub async fn run(args: StateArgs) -> anyhow::Result<Output> {
    let board = args.asking.board("support")?;
    let state = all(&board, &args.filter()).await?;
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

/// Follows the pages of the answer, and puts them together as one by the clients' names.
async fn all(board: &Board, filter: &Filter) -> Result<StateJson, Unasked> {
    let mut state = ask(board, filter, None).await?;
    while let Some(after) = state.next.take() {
        let page = ask(board, filter, Some(after)).await?;
        // Ids go up from page to page, so that this ends.
        if page.next.is_some_and(|next| next <= after) {
            return Err(board.not_understood("its pages lead in a circle"));
        }
        state.differ += page.differ;
        state.answers.extend(page.answers);
        state.next = page.next;
    }
    state.answers.sort_by_cached_key(|answer| (answer.client.to_lowercase(), answer.client_id));
    Ok(state)
}

async fn ask(board: &Board, filter: &Filter, after: Option<ClientId>) -> Result<StateJson, Unasked> {
    let mut query = filter.query();
    if let Some(after) = after {
        query = format!("{query}{}after={after}", if query.is_empty() { '?' } else { '&' });
    }
    let (status, body) = board.get(&format!("/api/v1/state{query}")).await?;
    match status {
        StatusCode::OK => board.read(&body),
        _ => Err(board.refusal(status, &body)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Board, Unasked, all, ask};
    use crate::support::Filter;

    /// What asking comes to when the board answers so, once.
    async fn refusal(answer: &'static str) -> Unasked {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let board = Board::new(&url, "board_abc", "support").unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        let filter = Filter { q: "a&b".into(), ..Filter::default() };
        let (asked, said) = tokio::join!(serve, ask(&board, &filter, None));
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
        assert!(matches!(refusal(page).await, Unasked::NotUnderstood { .. }));
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
        let filter = Filter { q: "x".into(), ..Filter::default() };
        for (last, whole) in [(None, true), (Some(a), false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let board = Board::new(&address, "board_abc", "support").unwrap();
            let bodies = vec![page(&[(a, "Zoe"), (b, "Ada")], Some(b)), page(&[(c, "bob")], last)];
            let (asked, state) = tokio::join!(serve(listener, bodies), all(&board, &filter));
            assert!(asked[0].starts_with("GET /api/v1/state?q=x HTTP"), "{asked:?}");
            assert!(asked[1].starts_with(&format!("GET /api/v1/state?q=x&after={b} HTTP")), "{asked:?}");
            match state {
                Ok(state) => {
                    assert!(whole, "pages that lead in a circle are refused");
                    let names: Vec<_> = state.answers.iter().map(|answer| answer.client.as_str()).collect();
                    assert_eq!((names, state.differ, state.next), (vec!["Ada", "bob", "Zoe"], 3, None));
                }
                Err(refused) => {
                    assert!(!whole && matches!(refused, Unasked::NotUnderstood { .. }), "{refused}")
                }
            }
        }
    }
}
