//! EVERY route, on one screen, each with who may use it. A route can't be added without a rule.

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, response::Html};
use axum_extra::extract::CookieJar;
use std::net::{IpAddr, SocketAddr};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::access::{self, Role, Visitor};
use crate::app::App;
use crate::audit;
use crate::clients;
use crate::enrollment;
use crate::error::Failure;
use crate::link;
use crate::overview;
use crate::pages::{PageFailure, Refusal};
use crate::runbook;
use crate::secrets;
use crate::support;
use crate::web::{Section, assets};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Public,
    /// Any role.
    SignedIn,
    Consultant,
}

/// A form of the console: values up to 16 KiB and notes, nothing larger.
const FORM_LIMIT: usize = 512 * 1024;

#[rustfmt::skip]
pub fn console_routes() -> Vec<(&'static str, Rule, MethodRouter<App>)> {
    use Rule::{Consultant, Public, SignedIn};
    vec![
        ("/",                                     Public,     get(overview::web::home)),
        ("/health",                               Public,     get(health)),
        ("/static/{name}",                        Public,     get(asset)),
        ("/sign-in",                              Public,     get(access::web::sign_in_page).post(access::web::sign_in_form)),
        ("/welcome/{token}",                      Public,     get(access::web::link_page).post(access::web::link_form)),
        ("/sign-out",                             SignedIn,   post(access::web::sign_out_form)),
        ("/clients",                              SignedIn,   get(overview::web::clients_page)),
        ("/clients/new",                          Consultant, get(clients::web::new_page).post(clients::web::new_form)),
        ("/clients/{id}",                         SignedIn,   get(overview::web::client_page)),
        ("/clients/{id}/events",                  SignedIn,   get(overview::web::client_events)),
        ("/clients/{id}/package",                 Consultant, get(clients::web::package_page).post(clients::web::package_form)),
        ("/clients/{id}/integrations",            Consultant, get(clients::web::integrations_page).post(clients::web::integrations_form)),
        ("/clients/{id}/secrets",                 Consultant, get(secrets::web::secrets_page).post(secrets::web::secrets_form)),
        ("/clients/{id}/join-codes",              Consultant, post(enrollment::web::join_code)),
        ("/enrollments",                          SignedIn,   get(enrollment::web::enrollments_page)),
        ("/enrollments/events",                   SignedIn,   get(enrollment::web::events)),
        ("/enrollments/{id}/approve",             Consultant, post(enrollment::web::approve_form)),
        ("/enrollments/{id}/reject",              Consultant, post(enrollment::web::reject_form)),
        ("/devices/{id}/revoke",                  Consultant, post(enrollment::web::revoke_form)),
        ("/devices/{id}/runbook",                 SignedIn,   get(runbook::web::runbook_page)),
        ("/devices/{id}/runbook/events",          SignedIn,   get(runbook::web::events)),
        ("/devices/{id}/runbook/steps/{step}/retry", Consultant, post(runbook::web::retry_form)),
        ("/devices/{id}/runbook/steps/{step}/skip", Consultant, post(runbook::web::skip_form)),
        ("/devices/{id}/runbook/steps/{step}/mark", Consultant, post(runbook::web::mark_form)),
        ("/devices/{id}/output/{attempt}",        SignedIn,   get(runbook::web::output_page)),
        ("/support",                              SignedIn,   get(support::web::support_page)),
        ("/support.csv",                          SignedIn,   get(support::web::support_csv)),
        ("/support.json",                         SignedIn,   get(support::web::support_json)),
        ("/audit",                                SignedIn,   get(audit::web::audit_page)),
        ("/api/v1/state",                         SignedIn,   get(support::api::get_state)),
        ("/api/v1/clients/{id}/state",            SignedIn,   get(overview::api::get_state)),
        ("/api/v1/devices/{id}/runbook",          SignedIn,   get(runbook::api::get_runbook)),
    ]
}

/// The agents' port. `/enroll/*` is open to devices without a certificate; their bodies are signed.
pub fn agents(app: App) -> Router {
    let enrolled = Router::new()
        .route("/bundle/{digest}", get(link::api::get_bundle))
        .route("/link", get(link::api::get_link))
        .layer(middleware::from_fn_with_state(app.clone(), link::api::device_gate));
    Router::new()
        .route("/enroll/join", post(enrollment::api::post_join))
        .route("/enroll/status", post(enrollment::api::post_status))
        .route("/enroll/prove", post(enrollment::api::post_prove))
        .merge(enrolled)
        .fallback(async || Failure::not_found("address"))
        .layer(DefaultBodyLimit::max(shared::protocol::MAX_FRAME))
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

pub fn console(app: App) -> Router {
    let mut router = Router::new();
    for (path, rule, methods) in console_routes() {
        let gate = middleware::from_fn_with_state((app.clone(), rule), gate);
        router = router.route(path, methods.layer(gate));
    }
    let csp = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
               form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let header = |name, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    router
        .fallback(async || PageFailure::from(Failure::not_found("page")))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(CsrfLayer::new())
        .layer(header(header::CONTENT_SECURITY_POLICY, csp))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::CACHE_CONTROL, "no-store"))
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

/// Finds out who asks, and lets through whom the route's rule allows.
async fn gate(
    State((app, rule)): State<(App, Rule)>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    jar: CookieJar,
    mut request: Request,
    next: Next,
) -> Response {
    let json = request.uri().path().starts_with("/api/");
    let refuse = |failure: Failure| {
        if json { failure.into_response() } else { PageFailure::from(failure).into_response() }
    };
    let visitor = match visitor(&app, Browser::of(&app, address, request.headers()), &jar).await {
        Ok(visitor) => visitor,
        Err(error) => return refuse(error.into()),
    };
    let allowed = match rule {
        Rule::Public => true,
        Rule::SignedIn => visitor.user.is_some(),
        Rule::Consultant => visitor.can(Role::Consultant),
    };
    if !allowed {
        return match visitor.user {
            Some(_) => {
                refuse(Failure::forbidden("Your roles don't include this. Ask the operator if they should."))
            }
            None if json => refuse(Failure::new(
                401,
                "sign-in",
                "Sign in first",
                "This address needs a signed-in session.",
            )),
            None => Redirect::to("/sign-in").into_response(),
        };
    }
    request.extensions_mut().insert(visitor.clone());
    framed(next.run(request).await, &visitor)
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
    secure: bool,
}

impl Browser {
    fn of(app: &App, peer: SocketAddr, headers: &HeaderMap) -> Self {
        if app.proxy != Some(peer.ip()) {
            return Self { address: peer.ip().to_string(), secure: false };
        }
        let last = |name: &str| {
            let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
            value.rsplit(',').next().map(|last| last.trim().to_owned())
        };
        let forwarded = last("x-forwarded-for").filter(|text| text.parse::<IpAddr>().is_ok());
        Self {
            address: forwarded.unwrap_or_else(|| peer.ip().to_string()),
            secure: last("x-forwarded-proto").as_deref() == Some("https"),
        }
    }
}

async fn visitor(app: &App, browser: Browser, jar: &CookieJar) -> Result<Visitor, sqlx::Error> {
    let cookie = jar.get(access::web::COOKIE);
    let user = match cookie {
        Some(cookie) => access::user_of(app, cookie.value()).await?,
        None => None,
    };
    let session = cookie.map(|cookie| access::session_hash(app, cookie.value()));
    let now = app.now();
    let pending = if user.is_some() {
        let mut tx = app.db.read().await?;
        enrollment::pending_count(&mut tx, now).await?
    } else {
        0
    };
    Ok(Visitor { user, session, address: browser.address, secure: browser.secure, pending, now })
}

async fn health(State(app): State<App>) -> Response {
    match app.db.read().await {
        Ok(_) => (StatusCode::OK, Html("ok")).into_response(),
        Err(error) => Failure::from(error).into_response(),
    }
}

#[derive(serde::Deserialize)]
struct AssetQuery {
    #[serde(default)]
    v: String,
}

/// Kept for ever under the version that pages name; asked for again under any other address.
async fn asset(Path(name): Path<String>, Query(query): Query<AssetQuery>) -> Response {
    match assets::find(&name) {
        Some(asset) => {
            let caching = if query.v == asset.version() { assets::IMMUTABLE } else { "no-cache" };
            let headers = [
                (header::CONTENT_TYPE, asset.content_type.to_owned()),
                (header::CACHE_CONTROL, caching.to_owned()),
                (header::ETAG, asset.etag()),
            ];
            (headers, asset.bytes).into_response()
        }
        None => PageFailure::from(Failure::not_found("file")).into_response(),
    }
}
