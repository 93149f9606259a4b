//! From a view or a failure to an HTTP answer. The one place that turns failures into pages and problem+json.

use askama::Template;
use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use shared::problem::Problem;
use shared::time::Timestamp;

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
        (code, [(header::CONTENT_TYPE, shared::problem::CONTENT_TYPE)], Json(self.public)).into_response()
    }
}

/// What a failed page has to say, for whoever knows the viewer.
#[derive(Clone, Debug)]
pub struct Refusal(Problem);

impl IntoResponse for PageFailure {
    fn into_response(self) -> Response {
        log(&self.0);
        let refusal = Refusal(self.0.public);
        let nobody =
            Shell { viewer: None, section: Section::None, pending: 0, now: Timestamp::from_micros(0) };
        let mut response = refusal.page(nobody);
        response.extensions_mut().insert(refusal);
        response
    }
}

impl Refusal {
    /// The failed page again, in the frame of its viewer.
    pub fn page(&self, shell: Shell) -> Response {
        let (href, label) = match self.0.status {
            401 => ("/sign-in", "Sign in"),
            _ => ("/clients", "To the clients"),
        };
        let view = ErrorPage {
            shell,
            status: self.0.status,
            title: self.0.title.clone(),
            detail: self.0.detail.clone(),
            next: Some((href.to_owned(), label.to_owned())),
        };
        match view.render() {
            Ok(html) => (status(self.0.status), Html(html)).into_response(),
            Err(_) => status(500).into_response(),
        }
    }
}
