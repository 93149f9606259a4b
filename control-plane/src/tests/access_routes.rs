//! Step-up as a browser without scripts meets it, copying as the page's script does, and API tokens as a program does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use regex::Regex;
use shared::ids::ClientId;
use shared::secret::Secret;
use tower::ServiceExt as _;

use super::{ask, signed_in};
use crate::access::passkeys::{self, Purpose, tests as software};
use crate::access::tokens::{NewToken, make_token, revoke_token};
use crate::access::{self, Role};
use crate::audit::{self, Action, Who};
use crate::db::testing::on_both;
use crate::router::{self, Rule};
use crate::secrets;
use crate::testing::{Fixture, PROXY, TestDevice};

fn form_request(cookie: &str, path: &str, form: &str, accept: &str) -> Request<Body> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, "board.test")
        .header("sec-fetch-site", "same-origin")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::COOKIE, cookie)
        .header(header::ACCEPT, accept)
        .body(Body::from(form.to_owned()))
        .unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
    request
}

/// Status and body of a form that a page of ours posts.
pub(super) async fn post(
    fixture: &Fixture,
    cookie: &str,
    path: &str,
    form: &str,
    accept: &str,
) -> (StatusCode, String) {
    let request = form_request(cookie, path, form, accept);
    let answer = router::console(fixture.app.clone()).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn actions(fixture: &Fixture, action: Action) -> usize {
    let mut tx = fixture.app.db.read().await.unwrap();
    let entries = audit::page(&mut tx, None, 100).await.unwrap();
    entries.iter().filter(|stored| stored.entry.action == action).count()
}

const HTML: &str = "text/html";
const WRONG: &str = "fingerprint=7Q4K&fingerprint=%22%3E%3Cmark%3E&step_up_password=not+the+right+one";

#[tokio::test]
async fn a_stale_session_approves_with_the_password_in_the_same_form_and_loses_nothing_without() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.client("Example Client", &["base"]).await;
        let code = fixture.code(client).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let device = TestDevice::new("A-UUID", app.now());
        let answer = device.join(app, &code).await.unwrap();
        let path = format!("/enrollments/{}/approve", answer.enrollment_id);
        for (asks, wait) in [(false, access::STEP_UP_TTL), (true, Duration::ZERO)] {
            let page = ask(&fixture, Method::GET, "/enrollments", Some(&cookie), "http://board.test").await;
            let body = axum::body::to_bytes(page.into_body(), usize::MAX).await.unwrap();
            let page = String::from_utf8(body.to_vec()).unwrap();
            assert!(page.contains(&format!("action=\"{path}\"")), "{page}");
            assert_eq!(page.contains("name=\"step_up_password\""), asks, "{page}");
            fixture.clock.advance(wait);
        }

        let (status, asked) = post(&fixture, &cookie, &path, "fingerprint=7Q4K&fingerprint=M2XP", HTML).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(
            asked.contains(&format!("action=\"{path}\"")) && asked.contains("step_up_password"),
            "{asked}"
        );
        assert!(asked.contains("value=\"7Q4K\"") && asked.contains("value=\"M2XP\""), "{asked}");

        let token = ["sk-", "ant-api03-abcdefghijklmnop"].concat();
        let form = format!("fingerprint=7Q4K&note={token}");
        let (_, asked) = post(&fixture, &cookie, &path, &form, HTML).await;
        assert!(asked.contains("value=\"7Q4K\"") && !asked.contains(&token), "{asked}");

        let (status, wrong) = post(&fixture, &cookie, &path, WRONG, HTML).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(wrong.contains("not your password") && wrong.contains("aria-invalid"), "{wrong}");
        assert!(wrong.contains("7Q4K") && !wrong.contains("not the right one"), "kept, except the secret");
        assert!(!wrong.contains("<mark>"), "what was typed is escaped");
        assert_eq!(actions(&fixture, Action::StepUpRefused).await, 1);

        let typed = device.fingerprint(app, &answer).replace(' ', "");
        let form = format!("fingerprint={typed}&step_up_password=a+long+test+passphrase");
        let (status, page) = post(&fixture, &cookie, &path, &form, HTML).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
        assert_eq!(actions(&fixture, Action::SteppedUp).await, 1);
        let (status, page) = post(&fixture, &cookie, &path, &form, HTML).await;
        assert_eq!(status, StatusCode::CONFLICT, "fresh, and nothing to decide any more: {page}");
    })
    .await;
}

#[tokio::test]
async fn wrong_passwords_of_a_step_up_are_throttled_and_scripts_are_told_in_json() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let other = signed_in(&fixture, Role::Consultant).await;
        let path = format!("/enrollments/{}/approve", fixture.user);
        fixture.clock.advance(access::STEP_UP_TTL);
        let json = "text/plain, application/problem+json";
        for _ in 0..10 {
            let (status, body) = post(&fixture, &cookie, &path, WRONG, json).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert!(body.contains("urn:board:step-up") && !body.contains("<html"), "{body}");
        }
        let right = "step_up_password=a+long+test+passphrase";
        let (status, _) = post(&fixture, &cookie, &path, right, json).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "the right one has to wait too");
        let (status, _) = post(&fixture, &cookie, &path, right, HTML).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        let (status, _) = post(&fixture, &other, &path, right, json).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "somebody else isn't held up");
        fixture.clock.advance(Duration::from_secs(901));
        let (status, _) = post(&fixture, &cookie, &path, right, json).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(actions(&fixture, Action::StepUpRefused).await, 10);
    })
    .await;
}

/// A request with an API token and somebody's cookie along: to the API as from a page of another site, to a page as
/// from our own.
pub(super) async fn with_token(
    fixture: &Fixture,
    method: Method,
    path: &str,
    token: &str,
    cookie: &str,
) -> Response {
    let site = if path.starts_with("/api/v1/") { "cross-site" } else { "same-origin" };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "board.test")
        .header("sec-fetch-site", site)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::COOKIE, cookie)
        .body(Body::empty())
        .unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
    router::console(fixture.app.clone()).oneshot(request).await.unwrap()
}

pub(super) async fn token(fixture: &Fixture, roles: &[Role], days: u32) -> String {
    let app = &fixture.app;
    let name = format!("{roles:?} {days}");
    let new = NewToken { name, roles: roles.to_vec(), days, user: None };
    let mut tx = app.db.write().await.unwrap();
    let text = make_token(&mut tx, &app.root, &*app.clock, &*app.random, Who::cli(), &new).await.unwrap();
    tx.commit().await.unwrap();
    text.expose().clone()
}

#[tokio::test]
async fn a_token_of_any_role_is_taken_by_the_api_and_by_no_page() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let operator = signed_in(&fixture, Role::Operator).await;
        let parameter = Regex::new(r"\{[a-z]+\}").unwrap();
        let id = fixture.user.to_string();
        for role in Role::ALL {
            let token = token(&fixture, &[*role], 1).await;
            for (path, rule, _) in
                router::console_routes().into_iter().filter(|(_, rule, _)| *rule != Rule::Public)
            {
                let of_something = parameter.is_match(path);
                let path = parameter.replace_all(path, id.as_str()).into_owned();
                for (method, cookie) in [(Method::GET, &cookie), (Method::POST, &operator)] {
                    let name = format!("{method} {path} with a token: {role}");
                    let answer = with_token(&fixture, method.clone(), &path, &token, cookie).await;
                    let (status, headers) = (answer.status(), answer.headers().clone());
                    if path.starts_with("/api/v1/") {
                        let expected = match (super::allows(rule, *role), method == Method::GET) {
                            (false, _) => StatusCode::FORBIDDEN,
                            (true, true) if of_something => StatusCode::NOT_FOUND,
                            (true, true) => StatusCode::OK,
                            // The one thing that a program sends: a sealed paste, which this isn't.
                            (true, false) if path.ends_with("/paste") => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                            (true, false) => StatusCode::METHOD_NOT_ALLOWED,
                        };
                        assert_eq!(status, expected, "{name}");
                    } else {
                        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
                        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{name}");
                    }
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_reads_the_api_until_it_ends_and_each_end_says_what_to_do() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let path = format!("/api/v1/clients/{client}/state");
        let ask = |token: String| {
            let (fixture, path) = (&fixture, path.as_str());
            async move {
                let answer = with_token(fixture, Method::GET, path, &token, "board_session=made-up").await;
                let status = answer.status();
                let challenged = answer.headers().contains_key(header::WWW_AUTHENTICATE);
                assert_eq!(challenged, status == StatusCode::UNAUTHORIZED);
                let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
                (status, String::from_utf8(body.to_vec()).unwrap())
            }
        };
        let short = token(&fixture, &[Role::Support], 1).await;
        let long = token(&fixture, &[Role::Support], 365).await;
        let (status, body) = ask(short.clone()).await;
        assert!(status == StatusCode::OK && body.contains("Example Client"), "{status} {body}");
        fixture.clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(ask(long.clone()).await.0, StatusCode::OK);
        let app = &fixture.app;
        let mut tx = app.db.write().await.unwrap();
        revoke_token(&mut tx, &*app.clock, Who::cli(), "[Support] 365").await.unwrap();
        tx.commit().await.unwrap();
        for (token, kind) in
            [(short, "token-expired"), (long, "token-revoked"), ("board_made-up".into(), "token-unknown")]
        {
            let (status, body) = ask(token.clone()).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
            assert!(body.contains(kind) && body.contains("board token create"), "{body}");
            assert!(!body.contains(&token), "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_operator_invites_somebody_and_the_link_works() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Operator).await;
        fixture.clock.advance(access::STEP_UP_TTL);
        let form = "email=new%40example.com&role=support&role=consultant";
        let (status, asked) = post(&fixture, &cookie, "/users", form, HTML).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(asked.matches("name=\"role\"").count(), 2, "both roles are kept: {asked}");
        let form = format!("{form}&step_up_password=a+long+test+passphrase");
        let (status, page) = post(&fixture, &cookie, "/users", &form, HTML).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let link = Regex::new("http://board.test(/welcome/[A-Za-z0-9_-]{43})<").unwrap();
        let path = link.captures(&page).unwrap()[1].to_owned();
        let form = "password=a+long+test+passphrase&repeat=a+long+test+passphrase";
        let (status, _) = post(&fixture, "x=y", &path, form, HTML).await;
        assert_eq!(status, StatusCode::SEE_OTHER);

        let (status, page) =
            post(&fixture, &cookie, "/users", "email=new%40example.com&role=support", HTML).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("already") && page.contains("value=\"new@example.com\""), "{page}");
        let (status, page) =
            post(&fixture, &cookie, "/tokens", "name=cron&days=400&token_role=support", HTML).await;
        assert!(status == StatusCode::UNPROCESSABLE_ENTITY && page.contains("365 days"), "{page}");
        let (status, page) =
            post(&fixture, &cookie, "/tokens", "name=cron&days=30&token_role=consultant", HTML).await;
        assert!(
            status == StatusCode::UNPROCESSABLE_ENTITY && page.contains("consultant, so a token"),
            "{page}"
        );
        let (status, page) =
            post(&fixture, &cookie, "/tokens", "name=cron&days=30&token_role=support", HTML).await;
        assert!(status == StatusCode::OK && page.contains(">board_"), "{page}");
    })
    .await;
}

const VALUE: &str = "ours-canary-7d3f";
pub(super) const SCRIPT: &str = "text/plain, application/problem+json";

/// A client with a stored secret, and where it is copied.
async fn stored(fixture: &Fixture) -> (ClientId, String) {
    let client = fixture.client("Example Client", &["base", "tool"]).await;
    let slot = fixture.our_slot().await;
    let value = Secret::new(VALUE.to_owned());
    let known = fixture.get_client(client).await;
    secrets::put(&fixture.app, Fixture::who(), &known, &slot, &value).await.unwrap();
    (client, format!("/clients/{client}/secrets/{}/copy", slot.id))
}

#[tokio::test]
async fn a_copy_wants_a_fresh_consultant_a_script_and_a_reason() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, path) = stored(&fixture).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let support = signed_in(&fixture, Role::Support).await;
        fixture.clock.advance(access::STEP_UP_TTL);
        let why = "reason=The+vendor+wants+it+typed";
        let right = format!("{why}&step_up_password=a+long+test+passphrase");
        let mut seen = Vec::new();
        for (cookie, form, accept, expected) in [
            (&support, right.as_str(), SCRIPT, StatusCode::FORBIDDEN),
            (&cookie, why, SCRIPT, StatusCode::UNAUTHORIZED),
            (&cookie, "reason=x&step_up_password=wrong", SCRIPT, StatusCode::UNAUTHORIZED),
            (&cookie, right.as_str(), HTML, StatusCode::NOT_ACCEPTABLE),
            (&cookie, "reason=+", SCRIPT, StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            let (status, body) = post(&fixture, cookie, &path, form, accept).await;
            assert_eq!(status, expected, "{form} {body}");
            seen.push(body);
        }
        let (status, _) = post(&fixture, "board_session=made-up", &path, &right, SCRIPT).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "in JSON, not a page to be copied");
        assert_eq!(actions(&fixture, Action::SecretCopied).await, 0);

        let (status, body) = post(&fixture, &cookie, &path, why, SCRIPT).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, VALUE), "fresh by the password above");
        for page in [format!("/clients/{client}/secrets"), format!("/clients/{client}"), "/audit".into()] {
            let answer = ask(&fixture, Method::GET, &page, Some(&cookie), "http://board.test").await;
            assert_eq!(answer.status(), StatusCode::OK);
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            seen.push(String::from_utf8(body.to_vec()).unwrap());
        }
        assert!(seen.iter().any(|page| page.contains(&format!("action=\"{path}\""))));
        assert!(seen.iter().all(|page| !page.contains(VALUE)), "the value is on no page");
        for _ in 0..9 {
            assert_eq!(post(&fixture, &cookie, &path, why, SCRIPT).await.0, StatusCode::OK);
        }
        let (status, body) = post(&fixture, &cookie, &path, why, SCRIPT).await;
        assert!(status == StatusCode::TOO_MANY_REQUESTS && body.contains("within an hour"), "{body}");
        let token = token(&fixture, &[Role::Consultant], 1).await;
        let answer = with_token(&fixture, Method::POST, &path, &token, &cookie).await;
        assert_eq!(
            answer.status(),
            StatusCode::UNAUTHORIZED,
            "no token copies, with a session beside it neither"
        );
    })
    .await;
}

#[tokio::test]
async fn a_copy_stays_in_the_log_when_its_answer_is_dropped() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, path) = stored(&fixture).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let request = form_request(&cookie, &path, "reason=The+vendor+wants+it+typed", SCRIPT);
        let answer = router::console(fixture.app.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        drop(answer);
        assert_eq!(actions(&fixture, Action::SecretCopied).await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_runbook_offers_a_copy_to_a_consultant_and_to_nobody_else() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, path) = stored(&fixture).await;
        let (_, device_id) = fixture.enrolled(client, "A-UUID").await;
        fixture.with_runbook(device_id).await;
        let mut tx = fixture.app.db.write().await.unwrap();
        secrets::plan(&fixture.app, &mut tx, device_id).await.unwrap();
        tx.commit().await.unwrap();
        let runbook = format!("/devices/{device_id}/runbook");
        for (role, offered) in [(Role::Consultant, true), (Role::Support, false), (Role::Operator, false)] {
            let cookie = signed_in(&fixture, role).await;
            let answer = ask(&fixture, Method::GET, &runbook, Some(&cookie), "http://board.test").await;
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let page = String::from_utf8(body.to_vec()).unwrap();
            assert!(page.contains("Deliver Our key"), "{page}");
            assert_eq!(page.contains(&path), offered, "{role}");
            assert_eq!(page.contains("read -rs OUR_KEY &amp;&amp; export OUR_KEY"), offered, "{role}");
            assert!(!page.contains(VALUE));
        }
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_link_names_the_console_as_the_proxy_says() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Operator).await;
        let path = format!("/users/{}/link", fixture.user);
        let other = IpAddr::from([192, 0, 2, 1]);
        for (peer, start) in
            [(PROXY, ">https://console.example.com/welcome/"), (other, ">http://board.test/welcome/")]
        {
            let mut request = form_request(&cookie, &path, "", HTML);
            for (name, value) in [("x-forwarded-proto", "https"), ("x-forwarded-host", "console.example.com")]
            {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 1))));
            let answer = router::console(fixture.app.clone()).oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let page = String::from_utf8(body.to_vec()).unwrap();
            assert!(page.contains(start), "{page}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stale_session_goes_on_with_a_passkey_in_the_same_form_and_only_there() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let cookie = signed_in(&fixture, Role::Operator).await;
        let session = Secret::new(cookie.trim_start_matches("board_session=").to_owned());
        let own = software::visitor(&fixture, Some(&session)).await;
        let at = "/account/passkeys";
        let mut key = software::Authenticator::new(1);
        let asked = passkeys::ask(app, &own, Purpose::Register, at).await.unwrap();
        passkeys::register(app, &own, at, "a laptop", &key.create(&asked)).await.unwrap();
        fixture.clock.advance(access::STEP_UP_TTL);

        let form = |answer: &str| {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("on", "true").append_pair("step_up_passkey", answer).finish()
        };
        let asked = passkeys::ask(app, &own, Purpose::StepUp, "/tokens").await.unwrap();
        let elsewhere = form(&key.get(&asked));
        let (status, page) = post(&fixture, &cookie, "/passkeys/required", &elsewhere, HTML).await;
        assert_ne!(status, StatusCode::SEE_OTHER);
        assert!(page.contains("Nothing was done") && page.contains("name=\"on\" value=\"true\""), "{page}");
        assert!(!page.contains("authenticatorData"), "an answer isn't kept: {page}");
        assert_eq!(actions(&fixture, Action::PasskeysRequired).await, 0);

        let asked = passkeys::ask(app, &own, Purpose::StepUp, "/passkeys/required").await.unwrap();
        let right = form(&key.get(&asked));
        let (status, page) = post(&fixture, &cookie, "/passkeys/required", &right, HTML).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
        assert_eq!(actions(&fixture, Action::PasskeysRequired).await, 1);
        fixture.clock.advance(access::STEP_UP_TTL);
        let (status, _) = post(&fixture, &cookie, "/passkeys/required", &right, HTML).await;
        assert_ne!(status, StatusCode::SEE_OTHER, "once");
    })
    .await;
}
