//! EVERY route, on one screen, each with who may use it. A route can't be added without a rule.

use axum::extract::{DefaultBodyLimit, Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Router, response::Html};
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use crate::access::{self, Role};
use crate::app::App;
use crate::audit;
use crate::clients;
use crate::enrollment;
use crate::error::Failure;
use crate::freeze;
use crate::gate::{gate, no_browser};
use crate::incident;
use crate::link;
use crate::offboarding;
use crate::overview;
use crate::pages::{PageFailure, wordless};
use crate::providers;
use crate::releases;
use crate::runbook;
use crate::secrets;
use crate::support;
use crate::web::assets;

pub use crate::gate::Rule;

/// A form of the console: values up to 16 KiB and notes, nothing larger.
const FORM_LIMIT: usize = 512 * 1024;
/// A request of an agent, with its body and the long poll, is answered within this.
const AGENTS_REQUEST: Duration = Duration::from_secs(60);

#[rustfmt::skip]
pub fn console_routes() -> Vec<(&'static str, Rule, MethodRouter<App>)> {
    use Rule::{Consultant, Fresh, Operator, Own, Public, SignedIn};
    vec![
        ("/",                                     Public,     get(overview::web::home)),
        ("/health",                               Public,     get(health)),
        ("/static/{name}",                        Public,     get(asset)),
        ("/sign-in",                              Public,     get(access::web::sign_in_page).post(access::web::sign_in_form)),
        ("/welcome/{token}",                      Public,     get(access::web::link_page).post(access::web::link_form)),
        ("/sign-in/passkey",                      Public,     post(access::passkeys::web::sign_in_form)),
        ("/welcome/{token}/passkey",              Public,     post(access::passkeys::web::link_form)),
        ("/passkeys/{purpose}",                   Public,     get(access::passkeys::web::question)),
        ("/passkeys/required",                    Fresh(Role::Operator), post(access::passkeys::web::require_form)),
        ("/account",                              SignedIn,   get(access::passkeys::web::account_page)),
        ("/account/passkeys",                     Own,        post(access::passkeys::web::register_form)),
        ("/account/passkeys/{id}/remove",         Own,        post(access::passkeys::web::remove_form)),
        ("/sign-out",                             SignedIn,   post(access::web::sign_out_form)),
        ("/clients",                              SignedIn,   get(overview::web::clients_page)),
        ("/clients/new",                          Consultant, get(clients::web::new_page).post(clients::web::new_form)),
        ("/clients/{id}",                         SignedIn,   get(overview::web::client_page)),
        ("/clients/{id}/events",                  SignedIn,   get(overview::web::client_events)),
        ("/clients/{id}/package",                 Consultant, get(clients::web::package_page).post(runbook::scope_change::web::package_form)),
        ("/clients/{id}/integrations",            Consultant, get(clients::web::integrations_page).post(runbook::scope_change::web::integrations_form)),
        ("/clients/{id}/secrets",                 Consultant, get(secrets::web::secrets_page).post(secrets::web::secrets_form)),
        ("/clients/{id}/secrets/{slot}/copy",     Fresh(Role::Consultant), post(secrets::web::copy_secret)),
        ("/clients/{id}/secrets/{slot}/ask",      Consultant, post(secrets::approvals::web::ask_form)),
        ("/clients/{id}/second-person",           Consultant, post(clients::web::second_person_form)),
        ("/clients/{id}/second-person/ask-off",   Fresh(Role::Consultant), post(clients::web::ask_off_form)),
        ("/clients/{id}/second-person/off",       Fresh(Role::Operator), post(clients::web::off_form)),
        ("/approvals",                            Consultant, get(secrets::approvals::web::approvals_page)),
        ("/approvals/events",                     Consultant, get(secrets::approvals::web::events)),
        ("/approvals/{id}/approve",               Fresh(Role::Consultant), post(secrets::approvals::web::approve_form)),
        ("/approvals/{id}/decline",               Fresh(Role::Consultant), post(secrets::approvals::web::decline_form)),
        ("/approvals/{id}/copy",                  Fresh(Role::Consultant), post(secrets::approvals::web::copy_form)),
        ("/clients/{id}/statement",               SignedIn,   get(overview::statement::web::statement_page)),
        ("/clients/{id}/browser-paste",           Consultant, post(clients::web::browser_paste_form)),
        ("/clients/{id}/engagement/end",          Fresh(Role::Consultant), post(offboarding::web::end_form)),
        ("/clients/{id}/engagement/hold",         Consultant, post(offboarding::web::hold_form)),
        ("/clients/{id}/engagement/release",      Fresh(Role::Consultant), post(offboarding::web::release_form)),
        ("/clients/{id}/engagement/reactivate",   Fresh(Role::Consultant), post(offboarding::web::reactivate_form)),
        ("/clients/{id}/engagement/days",         Consultant, post(offboarding::web::days_form)),
        ("/clients/{id}/secrets/{slot}/rotate",   Fresh(Role::Consultant), get(runbook::web::rotate_page).post(runbook::web::rotate_form)),
        ("/clients/{id}/openrouter/limit",        Consultant, post(providers::web::limit_form)),
        ("/clients/{id}/openrouter/disable",      Consultant, post(providers::web::disable_form)),
        ("/clients/{id}/openrouter/enable",       Consultant, post(providers::web::enable_form)),
        ("/clients/{id}/openrouter/make",         Consultant, post(providers::web::make_form)),
        ("/clients/{id}/openrouter/delete",       Fresh(Role::Consultant), post(providers::web::delete_form)),
        ("/clients/{id}/join-codes",              Consultant, post(enrollment::web::join_code)),
        ("/enrollments",                          SignedIn,   get(enrollment::web::enrollments_page)),
        ("/enrollments/events",                   SignedIn,   get(enrollment::web::events)),
        ("/releases",                             SignedIn,   get(releases::web::releases_page)),
        ("/enrollments/{id}/approve",             Fresh(Role::Consultant), post(enrollment::web::approve_form)),
        ("/enrollments/{id}/reject",              Consultant, post(enrollment::web::reject_form)),
        ("/devices/{id}/revoke",                  Consultant, post(enrollment::web::revoke_form)),
        ("/devices/{id}/quarantine",              Fresh(Role::Consultant), post(enrollment::web::release_form)),
        ("/devices/{id}/renewal",                 Fresh(Role::Consultant), post(enrollment::web::confirm_renewal_form)),
        ("/devices/{id}/runbook",                 SignedIn,   get(runbook::web::runbook_page)),
        ("/devices/{id}/runbook/events",          SignedIn,   get(runbook::web::events)),
        ("/devices/{id}/runbook/pause",           Consultant, post(runbook::web::pause_form)),
        ("/devices/{id}/runbook/resume",          Consultant, post(runbook::web::resume_form)),
        ("/devices/{id}/runbook/plan",            Consultant, post(runbook::web::plan_form)),
        ("/devices/{id}/runbook/steps/{step}/retry", Consultant, post(runbook::web::retry_form)),
        ("/devices/{id}/runbook/steps/{step}/skip", Consultant, post(runbook::web::skip_form)),
        ("/devices/{id}/runbook/steps/{step}/undo", Fresh(Role::Consultant), get(runbook::undo::web::undo_page).post(runbook::undo::web::undo_form)),
        ("/devices/{id}/runbook/steps/{step}/keep", Consultant, post(runbook::undo::web::keep_form)),
        ("/devices/{id}/runbook/steps/{step}/mark", Consultant, post(runbook::web::mark_form)),
        ("/devices/{id}/plan",                    SignedIn,   get(runbook::web::plan_page)),
        ("/devices/{id}/output/{attempt}",        SignedIn,   get(runbook::web::output_page)),
        ("/users",                                Fresh(Role::Operator), get(access::users::web::users_page).post(access::users::web::invite_form)),
        ("/users/{id}",                           Operator,   get(access::users::web::user_page)),
        ("/users/{id}/roles",                     Fresh(Role::Operator), post(access::users::web::roles_form)),
        ("/users/{id}/link",                      Fresh(Role::Operator), post(access::users::web::sign_in_link_form)),
        ("/users/{id}/disable",                   Operator,   post(access::users::web::disable_form)),
        ("/users/{id}/enable",                    Fresh(Role::Operator), post(access::users::web::enable_form)),
        ("/tokens",                               Fresh(Role::Operator), post(access::users::web::token_form)),
        ("/tokens/{id}/revoke",                   Operator,   post(access::users::web::revoke_token_form)),
        ("/providers",                            Fresh(Role::Operator), get(providers::web::providers_page).post(providers::web::management_key_form)),
        ("/providers/remove",                     Fresh(Role::Operator), post(providers::web::remove_management_key_form)),
        ("/support",                              SignedIn,   get(support::web::support_page)),
        ("/support.csv",                          SignedIn,   get(support::web::support_csv)),
        ("/support.json",                         SignedIn,   get(support::web::support_json)),
        ("/audit",                                SignedIn,   get(audit::web::audit_page)),
        ("/audit.csv",                            SignedIn,   get(audit::web::audit_csv)),
        ("/audit.jsonl",                          SignedIn,   get(audit::web::audit_jsonl)),
        ("/audit/alarms/{id}",                    Operator,   post(audit::web::acknowledge_form)),
        ("/incident",                             Fresh(Role::Operator), get(incident::web::incident_page).post(incident::web::begin_form)),
        ("/incident/lift",                        Fresh(Role::Operator), post(incident::web::lift_form)),
        ("/incident.csv",                         Operator,   get(incident::web::incident_csv)),
        ("/api/v1/state",                         SignedIn,   get(support::api::get_state)),
        ("/api/v1/clients/{id}/state",            SignedIn,   get(overview::api::get_state)),
        ("/api/v1/devices/{id}/runbook",          SignedIn,   get(runbook::api::get_runbook)),
        ("/api/v1/devices/{id}/paste",            Consultant, get(secrets::api::get_recipient).post(secrets::api::post_paste)),
    ]
}

/// The agents' port. `/enroll/*` and `/renew` are open to devices without a certificate; their bodies are signed.
pub fn agents(app: App) -> Router {
    let enrolled = Router::new()
        .route("/bundle/{digest}", get(link::api::get_bundle))
        .route("/release/{digest}", get(link::api::get_release))
        .route("/link", get(link::api::get_link))
        .layer(Extension(link::api::Programs::default()))
        .layer(middleware::from_fn_with_state(app.clone(), link::api::device_gate));
    Router::new()
        .route("/enroll/join", post(enrollment::api::post_join))
        .route("/enroll/status", post(enrollment::api::post_status))
        .route("/enroll/prove", post(enrollment::api::post_prove))
        .route("/renew/challenge", post(enrollment::api::post_renewal_challenge))
        .route("/renew", post(enrollment::api::post_renew))
        .merge(enrolled)
        .fallback(async || Failure::not_found("address"))
        .layer(DefaultBodyLimit::max(shared::protocol::MAX_FRAME))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, AGENTS_REQUEST))
        .layer(middleware::from_fn(worded))
        .layer(middleware::from_fn_with_state(app.clone(), watched))
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
        .layer(middleware::from_fn(no_browser))
        .layer(header(header::CONTENT_SECURITY_POLICY, csp))
        .layer(header(header::REFERRER_POLICY, "no-referrer"))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::CACHE_CONTROL, "no-store"))
        .layer(middleware::from_fn_with_state(app.clone(), watched))
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

/// Agents get problem+json for what no handler saw, too.
async fn worded(request: Request, next: Next) -> Response {
    let address = request.extensions().get::<enrollment::api::Peer>().map(|peer| peer.address.clone());
    let response = next.run(request).await;
    match wordless(&response) {
        Some(failure) => {
            tracing::info!(address, kind = failure.public.kind, "a request was refused");
            failure.into_response()
        }
        None => response,
    }
}

/// What the health page says while the board works, but its audit log isn't what it was.
const DOUBTED: &str = "degraded: the audit log needs an operator, see the console's audit page";

/// What it says while an incident is open.
const FROZEN: &str =
    "degraded: an operator froze the board because of an incident, see the console's incident page";

async fn frozen(app: &App) -> bool {
    match app.db.read().await {
        Ok(mut tx) => freeze::is_on(&mut tx).await.unwrap_or(false),
        Err(_) => false,
    }
}

/// 503 when the audit log can't be written: the board does nothing then. Cheap, however often it is asked.
async fn health(State(app): State<App>) -> Response {
    match app.audit_watch.check(&app.db, app.now()).await {
        None => match app.root.trouble() {
            Some(_) => Failure::without_root_key(None).into_response(),
            None if frozen(&app).await => (StatusCode::OK, Html(FROZEN)).into_response(),
            None if app.audit_watch.is_doubted() => (StatusCode::OK, Html(DOUBTED)).into_response(),
            None => (StatusCode::OK, Html("ok")).into_response(),
        },
        Some(cause) => Failure::unwritten(cause, None).into_response(),
    }
}

/// Tells the health page what a refused request met.
async fn watched(State(app): State<App>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(cause) = response.extensions().get() {
        app.audit_watch.note(*cause, app.now());
    }
    response
}

#[derive(serde::Deserialize)]
struct AssetQuery {
    #[serde(default)]
    v: String,
}

/// Whether this `Accept-Encoding` (RFC 9110, section 12.5.3) names gzip and doesn't refuse it.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named
            && !parts
                .any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0)))
    })
}

/// Kept for ever under the version that pages name; asked for again under any other address.
async fn asset(Path(name): Path<String>, Query(query): Query<AssetQuery>, headers: HeaderMap) -> Response {
    match assets::find(&name) {
        Some(asset) => {
            let takes = |value: &HeaderValue| value.to_str().is_ok_and(takes_gzip);
            let zipped = !asset.gzip.is_empty() && headers.get_all(header::ACCEPT_ENCODING).iter().any(takes);
            let caching = if query.v == asset.version() { assets::IMMUTABLE } else { "no-cache" };
            let headers = [
                (header::CONTENT_TYPE, asset.content_type.to_owned()),
                (header::CACHE_CONTROL, caching.to_owned()),
                (header::ETAG, asset.etag(zipped)),
                (header::VARY, header::ACCEPT_ENCODING.to_string()),
            ];
            match zipped {
                true => (headers, [(header::CONTENT_ENCODING, "gzip")], asset.gzip).into_response(),
                false => (headers, asset.bytes).into_response(),
            }
        }
        None => PageFailure::from(Failure::not_found("file")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn gzip_is_sent_to_whom_it_is_good_for() {
        for good in ["gzip", "deflate, GZIP;q=0.5, br", "br , gzip ; q=1"] {
            assert!(super::takes_gzip(good), "{good}");
        }
        for not in ["", "br", "gzip;q=0", "gzip; q=0.0", "gzipped", "identity"] {
            assert!(!super::takes_gzip(not), "{not}");
        }
    }
}
