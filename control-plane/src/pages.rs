//! From a view or a failure to an HTTP answer. The one place that turns failures into pages and problem+json.

use askama::Template;
use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use shared::problem::Problem;
use shared::time::Timestamp;

use crate::db::Cause;
use crate::error::Failure;
use crate::web::{ErrorPage, Section, Shell};

/// What a page's handler gives.
pub type Page = Result<Response, PageFailure>;

/// A failure that is shown as a page.
#[derive(Debug)]
pub struct PageFailure(Box<Failure>);

impl<E: Into<Failure>> From<E> for PageFailure {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

pub fn page(view: &impl Template) -> Page {
    let html = view.render().map_err(Failure::internal)?;
    Ok(Html(html).into_response())
}

pub fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether a script of ours asks, which reads problem+json and shows what it says in the page.
pub fn wants_problem(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains(shared::problem::CONTENT_TYPE))
}

fn log(failure: &Failure) {
    if let Some(internal) = &failure.internal {
        tracing::error!(kind = failure.public.kind, error = format!("{internal:#}"), "a request failed");
    }
}

/// As problem+json (RFC 9457), for the JSON API and the agents.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        log(&self);
        let code = status(self.public.status);
        let (trouble, retry) = (self.trouble(), self.retry_after());
        let content = [(header::CONTENT_TYPE, shared::problem::CONTENT_TYPE)];
        noted((code, content, Json(self.public)).into_response(), trouble, retry)
    }
}

/// The words for an answer that the framework gave without any: a request that no handler saw.
pub fn wordless(response: &Response) -> Option<Failure> {
    let code = response.status();
    let content = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !code.is_client_error() || content.is_some_and(|content| !content.starts_with("text/plain")) {
        return None;
    }
    let (kind, title, detail) = match code {
        StatusCode::PAYLOAD_TOO_LARGE => (
            "too-large",
            "This is too large",
            "What was sent is larger than the board takes here. Nothing was saved. Shorten it and send it again.",
        ),
        StatusCode::REQUEST_TIMEOUT => (
            "too-slow",
            "This took too long",
            "The request didn't arrive in time. Nothing was saved. Send it again over a better connection.",
        ),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method", "Not this way", "This address doesn't take this kind of request. Nothing was saved.")
        }
        _ => (
            "request",
            "The request can't be read",
            "The board doesn't understand what was sent. Nothing was saved. Reload the page and try again.",
        ),
    };
    Some(Failure::new(code.as_u16(), kind, title, detail))
}

/// Says when to come again, and leaves the database's trouble for the router to find.
fn noted(mut response: Response, trouble: Option<Cause>, retry_after: Option<u32>) -> Response {
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(cause) = trouble {
        response.extensions_mut().insert(cause);
    }
    response
}

/// What a failed page has to say, for whoever knows the viewer.
#[derive(Clone, Debug)]
pub struct Refusal {
    problem: Problem,
    trouble: Option<Cause>,
    retry_after: Option<u32>,
}

impl IntoResponse for PageFailure {
    fn into_response(self) -> Response {
        log(&self.0);
        let (trouble, retry_after) = (self.0.trouble(), self.0.retry_after());
        let refusal = Refusal { problem: self.0.public, trouble, retry_after };
        let nobody = Shell {
            viewer: None,
            section: Section::None,
            pending: 0,
            approvals: 0,
            frozen: false,
            now: Timestamp::from_micros(0),
        };
        let mut response = refusal.page(nobody);
        response.extensions_mut().insert(refusal);
        response
    }
}

impl Refusal {
    /// The failed page again, in the frame of its viewer.
    pub fn page(&self, shell: Shell) -> Response {
        noted(self.rendered(shell), self.trouble, self.retry_after)
    }

    fn rendered(&self, shell: Shell) -> Response {
        let (href, label) = match self.problem.status {
            401 => ("/sign-in", "Sign in"),
            _ => ("/clients", "To the clients"),
        };
        let view = ErrorPage {
            shell,
            status: self.problem.status,
            title: self.problem.title.clone(),
            detail: self.problem.detail.clone(),
            next: Some((href.to_owned(), label.to_owned())),
        };
        match view.render() {
            Ok(html) => (status(self.problem.status), Html(html)).into_response(),
            Err(_) => status(500).into_response(),
        }
    }
}
