//! Before every handler of the console and the JSON API: who asks, and whether the route's rule lets them.
//!
//! A browser brings a session, a program an API token; the token counts below [`API`] only, whatever else comes with it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;

use crate::access::{self, Role, Visitor};
use crate::app::App;
use crate::enrollment;
use crate::error::Failure;
use crate::freeze;
use crate::pages::{PageFailure, Refusal, wants_problem, wordless};
use crate::web::Section;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Public,
    /// Any role.
    SignedIn,
    Consultant,
    Operator,
    /// This role; and whatever changes something needs a fresh session (`access::step_up`). What only takes access
    /// away doesn't want one: it has to be quick.
    Fresh(Role),
    /// Any role, about what is their own; fresh like the above.
    Own,
}

impl Rule {
    fn lets(self, visitor: &Visitor) -> bool {
        match self {
            Self::Public => true,
            Self::SignedIn | Self::Own => visitor.is_known(),
            Self::Consultant => visitor.can(Role::Consultant),
            Self::Operator => visitor.can(Role::Operator),
            Self::Fresh(role) => visitor.can(role),
        }
    }

    fn wants_fresh(self, method: &Method) -> bool {
        matches!(self, Self::Fresh(_) | Self::Own) && !method.is_safe()
    }
}

/// The JSON API: answers with problem+json, and takes API tokens.
const API: &str = "/api/v1/";

/// Finds out who asks, and lets through whom the route's rule allows.
pub async fn gate(
    State((app, rule)): State<(App, Rule)>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    jar: CookieJar,
    mut request: Request,
    next: Next,
) -> Response {
    let answers = Answers::to(&request);
    let browser = Browser::of(&app, address, request.headers());
    let found = match (bearer(request.headers()), answers.api) {
        (Some(text), true) => program(&app, browser, text).await,
        (Some(_), false) if rule != Rule::Public => Err(Failure::new(
            401,
            "token-not-here",
            "API tokens are for /api/v1 only",
            "No page takes an API token. Sign in with a browser, or ask an address below /api/v1.",
        )),
        (Some(_) | None, _) => visitor(&app, browser, &jar, rule).await.map_err(Failure::from),
    };
    let mut visitor = match found {
        Ok(visitor) => visitor,
        Err(failure) if failure.public.status == 401 => return challenge(failure),
        Err(failure) => return answers.refuse(failure),
    };
    if !rule.lets(&visitor) {
        return match visitor.is_known() {
            true => answers.refuse(Failure::forbidden(
                "Your roles don't include this. Ask the operator if they should.",
            )),
            false => answers.sign_in_first(),
        };
    }
    if rule.wants_fresh(request.method()) && !visitor.fresh {
        request = match access::web::stepped_up(&app, &visitor, request).await {
            Ok(request) => request,
            Err(asked) => return framed(asked, &visitor),
        };
        visitor.fresh = true;
    }
    request.extensions_mut().insert(visitor.clone());
    let response = next.run(request).await;
    match wordless(&response) {
        // An id that is none, or a filter that can't be read: an address that leads nowhere. A form that can't be read is
        // answered with another status.
        Some(_) if response.status() == StatusCode::BAD_REQUEST => {
            framed(answers.refuse(Failure::not_found("page")), &visitor)
        }
        Some(failure) => framed(answers.refuse(failure), &visitor),
        None => framed(response, &visitor),
    }
}

/// How a request wants to be told no.
#[derive(Clone, Copy)]
struct Answers {
    api: bool,
    /// A script of ours asks.
    script: bool,
}

impl Answers {
    fn to(request: &Request) -> Self {
        let api = request.uri().path().starts_with(API);
        Self { api, script: wants_problem(request.headers()) }
    }

    fn refuse(self, failure: Failure) -> Response {
        match self.api || self.script {
            true => failure.into_response(),
            false => PageFailure::from(failure).into_response(),
        }
    }

    fn sign_in_first(self) -> Response {
        let detail = match (self.api, self.script) {
            (true, _) => "This address needs a session, or an API token in `Authorization: Bearer …`.",
            (false, true) => "Your session is over. Sign in again; nothing was done.",
            (false, false) => return Redirect::to("/sign-in").into_response(),
        };
        challenge(Failure::new(401, "sign-in", "Sign in first", detail))
    }
}

/// Puts a page that failed into its viewer's frame.
fn framed(mut response: Response, visitor: &Visitor) -> Response {
    match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => refusal.page(visitor.shell(Section::None)),
        None => response,
    }
}

/// Where a request came from. The proxy that the operator named is believed about it, nobody else.
struct Browser {
    address: String,
    host: String,
    secure: bool,
}

impl Browser {
    fn of(app: &App, peer: SocketAddr, headers: &HeaderMap) -> Self {
        let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if app.proxy != Some(peer.ip()) {
            return Self { address: peer.ip().to_string(), host: asked.to_owned(), secure: false };
        }
        let last = |name: &str| {
            let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
            value.rsplit(',').next().map(|last| last.trim().to_owned())
        };
        let forwarded = last("x-forwarded-for").filter(|text| text.parse::<IpAddr>().is_ok());
        Self {
            address: forwarded.unwrap_or_else(|| peer.ip().to_string()),
            host: last("x-forwarded-host").unwrap_or_else(|| asked.to_owned()),
            secure: last("x-forwarded-proto").as_deref() == Some("https"),
        }
    }
}

/// The API token that a request carries. Other schemes are somebody else's, such as a proxy's.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A refusal that says which credentials are wanted (RFC 6750).
fn challenge(failure: Failure) -> Response {
    ([(header::WWW_AUTHENTICATE, "Bearer realm=\"board\"")], failure).into_response()
}

/// What carries a token is no browser led astray by another site: nobody can make one send it.
pub async fn no_browser(mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(API) && bearer(request.headers()).is_some() {
        for name in [header::ORIGIN, HeaderName::from_static("sec-fetch-site")] {
            request.headers_mut().remove(name);
        }
    }
    next.run(request).await
}

async fn program(app: &App, browser: Browser, text: &str) -> Result<Visitor, Failure> {
    let token = access::token_of(app, text, &browser.address).await?;
    Ok(Visitor {
        user: None,
        token: Some(token),
        session: None,
        fresh: false,
        address: browser.address,
        host: browser.host,
        secure: browser.secure,
        pending: 0,
        approvals: 0,
        frozen: false,
        now: app.now(),
    })
}

async fn visitor(app: &App, browser: Browser, jar: &CookieJar, rule: Rule) -> Result<Visitor, sqlx::Error> {
    let cookie = jar.get(access::web::COOKIE);
    let hash = match cookie {
        Some(cookie) => Some(access::session_hash(app, cookie.value()).await?),
        None => None,
    };
    let session = match &hash {
        Some(hash) => access::session_of(app, hash).await?,
        None => None,
    };
    let now = app.now();
    // Files and the pages of who isn't signed in don't show it.
    let (pending, frozen) = if session.is_some() && rule != Rule::Public {
        let mut tx = app.db.read().await?;
        (enrollment::pending_count(&mut tx, now).await?, freeze::is_on(&mut tx).await?)
    } else {
        (0, false)
    };
    let approvals = match &session {
        Some(session) if rule != Rule::Public => access::approvals_for(app, &session.user, now).await?,
        Some(_) | None => 0,
    };
    Ok(Visitor {
        fresh: session.as_ref().is_some_and(|session| session.is_fresh(now)),
        user: session.map(|session| session.user),
        token: None,
        session: hash,
        address: browser.address,
        host: browser.host,
        secure: browser.secure,
        pending,
        approvals,
        frozen,
        now,
    })
}
