//! Tests of the crate as a whole: who may use which route, and which way dependencies point.

mod access_routes;
mod actions;
mod approvals_routes;
mod assets;
mod audit_log;
mod clients_routes;
mod database;
mod forms;
mod hostile;
mod offboarding_routes;
mod paste_routes;
mod provider_routes;
mod rotate_routes;
mod scope_routes;
mod statement_routes;
mod support_routes;
mod vectors;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::response::Parts;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use regex::Regex;
use shared::ids::UserId;
use shared::secret::Secret;
use tower::ServiceExt as _;

use crate::access::{self, Role};
use crate::db::testing::on_both;
use crate::jobs::Wake;
use crate::router::{self, Rule};
use crate::testing::{Fixture, PROXY};

/// A user with one role, signed in; gives the cookie.
pub async fn signed_in(fixture: &Fixture, role: Role) -> String {
    let app = &fixture.app;
    let email = format!("{role}-{}@example.com", UserId::new(&*app.clock, &*app.random));
    let mut tx = app.db.write().await.unwrap();
    let token =
        access::create_user(&mut tx, &app.root, &*app.clock, &*app.random, &email, &[role]).await.unwrap();
    tx.commit().await.unwrap();
    let password = Secret::new("a long test passphrase".to_owned());
    let session = access::accept_link(app, token.expose(), &password, "192.0.2.1").await.unwrap();
    format!("{}={}", access::web::COOKIE, session.expose())
}

pub async fn ask(
    fixture: &Fixture,
    method: Method,
    path: &str,
    cookie: Option<&str>,
    origin: &str,
) -> Response {
    answer(fixture, method, path, cookie, origin, String::new()).await
}

/// Posts a form of our own page; gives status, headers and the page.
async fn post<K, V>(fixture: &Fixture, path: &str, cookie: &str, form: &[(K, V)]) -> (Parts, String)
where
    K: AsRef<str>,
    V: AsRef<str>,
{
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    read(answer(fixture, Method::POST, path, Some(cookie), "http://board.test", body).await).await
}

pub async fn read(response: Response) -> (Parts, String) {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn answer(
    fixture: &Fixture,
    method: Method,
    path: &str,
    cookie: Option<&str>,
    origin: &str,
    body: String,
) -> Response {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "board.test");
    request = request
        .header(header::ORIGIN, origin)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let mut request = request.body(Body::from(body)).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
    router::console(fixture.app.clone()).oneshot(request).await.unwrap()
}

fn allows(rule: Rule, role: Role) -> bool {
    match rule {
        Rule::Public | Rule::SignedIn | Rule::Own => true,
        Rule::Consultant => role == Role::Consultant,
        Rule::Operator => role == Role::Operator,
        Rule::Fresh(wanted) => role == wanted,
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_its_rule_names_and_nobody_else() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let mut sessions = Vec::new();
        for role in Role::ALL {
            sessions.push((*role, false, signed_in(&fixture, *role).await));
        }
        fixture.clock.advance(access::STEP_UP_TTL);
        for role in Role::ALL {
            sessions.push((*role, true, signed_in(&fixture, *role).await));
        }
        let id = UserId::new(&*fixture.clock, &shared::random::SystemRandom).to_string();
        let ours = "http://board.test";
        let parameter = Regex::new(r"\{[a-z]+\}").unwrap();
        let ends_the_session = "/sign-out";
        for (path, rule, _) in
            router::console_routes().into_iter().filter(|(path, ..)| *path != ends_the_session)
        {
            let path = parameter.replace_all(path, id.as_str()).into_owned();
            for method in [Method::GET, Method::POST] {
                // A route that exists never answers 404 or 405 to somebody who is kept out.
                let nobody = ask(&fixture, method.clone(), &path, None, ours).await.status();
                let stranger =
                    ask(&fixture, method.clone(), &path, Some("board_session=made-up"), ours).await.status();
                let shut = [StatusCode::SEE_OTHER, StatusCode::UNAUTHORIZED];
                if rule != Rule::Public {
                    assert!(shut.contains(&nobody), "{method} {path} lets in nobody: {nobody}");
                    assert!(shut.contains(&stranger), "{method} {path} lets in a stranger: {stranger}");
                }
                for (role, fresh, cookie) in &sessions {
                    let answer = ask(&fixture, method.clone(), &path, Some(cookie), ours).await.status();
                    let name = format!("{method} {path} as {role}, fresh: {fresh}");
                    assert_ne!(answer, StatusCode::INTERNAL_SERVER_ERROR, "{name}");
                    let asks = matches!(rule, Rule::Fresh(_) | Rule::Own) && method == Method::POST && !fresh;
                    match (allows(rule, *role), asks) {
                        (false, _) => assert_eq!(answer, StatusCode::FORBIDDEN, "{name}"),
                        (true, true) => assert_eq!(answer, StatusCode::UNAUTHORIZED, "{name}"),
                        (true, false) => {
                            assert_ne!(answer, StatusCode::FORBIDDEN, "{name}");
                            if rule != Rule::Public {
                                assert_ne!(answer, StatusCode::UNAUTHORIZED, "{name}");
                            }
                        }
                    }
                }
            }
        }
        let ended = ask(&fixture, Method::POST, ends_the_session, None, ours).await.status();
        assert_eq!(ended, StatusCode::SEE_OTHER, "to the sign-in page");
    })
    .await;
}

#[tokio::test]
async fn forms_from_other_sites_are_refused_and_pages_have_a_strict_policy() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let forged = ask(&fixture, Method::POST, "/clients/new", Some(&cookie), "https://evil.example").await;
        assert_eq!(forged.status(), StatusCode::FORBIDDEN);
        let page = ask(&fixture, Method::GET, "/clients", Some(&cookie), "http://board.test").await;
        assert_eq!(page.status(), StatusCode::OK);
        let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (header("cache-control"), header("referrer-policy")),
            ("no-store".into(), "no-referrer".into())
        );
    })
    .await;
}

#[tokio::test]
async fn only_the_named_proxy_is_believed_about_the_browser() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let sign_in = |peer: IpAddr| {
            let form = "email=consultant%40example.com&password=a+long+test+passphrase";
            let mut request = Request::builder()
                .method(Method::POST)
                .uri("/sign-in")
                .header(header::HOST, "board.test")
                .header(header::ORIGIN, "https://board.test")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header("x-forwarded-for", "203.0.113.5, 192.0.2.44")
                .header("x-forwarded-proto", "https")
                .body(Body::from(form))
                .unwrap();
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 1))));
            router::console(fixture.app.clone()).oneshot(request)
        };
        for (peer, address, secure) in
            [(PROXY, "192.0.2.44", true), (IpAddr::from([192, 0, 2, 1]), "192.0.2.1", false)]
        {
            let answer = sign_in(peer).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SEE_OTHER);
            let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
            assert_eq!(cookie.contains("Secure"), secure, "{cookie}");
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
            let mut tx = fixture.app.db.read().await.unwrap();
            let entry = crate::audit::page(&mut tx, None, 1).await.unwrap().remove(0).entry;
            assert_eq!((entry.action, entry.who.address.as_str()), (crate::audit::Action::SignedIn, address));
        }
    })
    .await;
}

#[tokio::test]
async fn files_are_kept_for_ever_under_their_version_only() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        for (path, caching) in [
            (crate::web::assets::href("console.css"), crate::web::assets::IMMUTABLE),
            ("/static/console.css?v=old".to_owned(), "no-cache"),
            ("/static/console.css".to_owned(), "no-cache"),
        ] {
            let file = ask(&fixture, Method::GET, &path, None, "http://board.test").await;
            assert_eq!(file.status(), StatusCode::OK, "{path}");
            assert_eq!(file.headers()["cache-control"], caching, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_live_page_ends_with_its_session() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let cookie = signed_in(&fixture, Role::Support).await;
        let path = format!("/clients/{client}/events");
        let page = ask(&fixture, Method::GET, &path, Some(&cookie), "http://board.test").await;
        assert_eq!(page.status(), StatusCode::OK);
        let mut body = page.into_body().into_data_stream();
        let first = body.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"event: title"), "{first:?}");
        let out = ask(&fixture, Method::POST, "/sign-out", Some(&cookie), "http://board.test").await;
        assert_eq!(out.status(), StatusCode::SEE_OTHER);
        let end = async {
            loop {
                fixture.app.jobs.wake(Wake::Client(client));
                if let Ok(None) = tokio::time::timeout(Duration::from_millis(300), body.next()).await {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("the stream ends");
    })
    .await;
}

/// Lowest first: a module may use what stands before it. Modules in one line don't use each other.
const LAYERS: &[&[&str]] = &[
    &["aead", "jobs", "links", "outbound", "db"],
    &["keys"],
    &["audit"],
    &["web"],
    &["error", "app"],
    &["free_text"],
    &["freeze"],
    &["pages", "live"],
    &["access"],
    &["catalog"],
    &["clients"],
    &["enrollment"],
    &["secrets"],
    &["inventory", "releases"],
    &["runbook"],
    &["providers"],
    &["offboarding"],
    &["link", "overview", "support", "incident"],
    &["gate"],
    &["router", "board", "backup"],
    &["cli"],
];

/// Views know the page shell and each other's small parts; a feature's pages may use what every page uses.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("pages", "access"), // the page that says what went wrong
    ("audit", "access"), // audit/web.rs: who looks
    ("audit", "app"),
    ("audit", "error"),
    ("audit", "free_text"), // the reason of an acknowledgement
    ("audit", "pages"),
    ("audit", "web"),
    ("error", "audit"),
];

#[test]
fn dependencies_point_one_way() {
    let rank = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let used = Regex::new(r"crate::(?:\{self, )?([a-z_]+)").unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for layer in LAYERS {
        for module in *layer {
            let mut files = Vec::new();
            let folder = source.join(module);
            if folder.is_dir() {
                rust_files(&folder, &mut files);
            } else {
                files.push(source.join(format!("{module}.rs")));
            }
            for file in files {
                let text = std::fs::read_to_string(&file).unwrap();
                for found in used.captures_iter(&text) {
                    let other = &found[1];
                    let upwards = rank(other).is_some_and(|other| other >= rank(module).unwrap());
                    if other != *module && upwards && !EXCEPTIONS.contains(&(module, other)) {
                        wrong.push(format!("{} uses {other}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let listed = |name: &str| rank(name).is_some() || ["lib", "main", "tests", "testing"].contains(&name);
    for entry in std::fs::read_dir(&source).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(listed(&name), "{name} has no place in LAYERS");
    }
}

fn rust_files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

#[tokio::test]
async fn an_address_with_an_id_that_is_none_leads_to_no_page() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let consultant = signed_in(&fixture, Role::Consultant).await;
        let operator = signed_in(&fixture, Role::Operator).await;
        let parameter = Regex::new(r"\{[a-z]+\}").unwrap();
        let all = router::console_routes();
        for (path, rule, _) in
            all.iter().filter(|(path, rule, _)| path.contains('{') && *rule != Rule::Public)
        {
            let path = parameter.replace_all(path, "nobody");
            let cookie = if allows(*rule, Role::Consultant) { &consultant } else { &operator };
            let mut none = 0;
            for method in [Method::GET, Method::POST] {
                let answer = ask(&fixture, method.clone(), &path, Some(cookie), "http://board.test").await;
                let (parts, page) = read(answer).await;
                let known = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
                assert!(known.contains(&parts.status), "{method} {path}: {}", parts.status);
                assert!(!page.contains("Cannot parse") && !page.contains("UUID"), "{method} {path}: {page}");
                let content = parts.headers[header::CONTENT_TYPE].to_str().unwrap();
                let worded = content.starts_with("text/html") || content == "application/problem+json";
                assert!(worded, "{method} {path}: {content}");
                none += usize::from(parts.status == StatusCode::NOT_FOUND);
            }
            assert!(none > 0, "{path} leads to no page");
        }
    })
    .await;
}

/// The functions of the board: file, name and text of each.
fn functions() -> Vec<(PathBuf, String, String)> {
    let begins = Regex::new(r"(?m)^(?:pub(?:\([a-z]+\))? )?(?:async )?fn (\w+)").unwrap();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let starts: Vec<(usize, String)> = begins
                    .captures_iter(&text)
                    .map(|found| (found.get(0).unwrap().start(), found[1].to_owned()))
                    .collect();
                for (start, name) in starts {
                    let end = text[start..].find("\n}\n").map_or(text.len(), |end| start + end);
                    found.push((path.clone(), name, text[start..end].to_owned()));
                }
            }
        }
    }
    found
}

/// Taking a turn in the audit log holds everybody else's turn: who asks for a row's lock after it waits for somebody who
/// may be waiting for the turn, and PostgreSQL ends one of the two.
#[test]
fn a_transaction_writes_its_audit_entry_last() {
    let functions = functions();
    let call = Regex::new(r"(?s)([\w:]*\b\w+)\(\s*(?:[^();]*,\s*)?(?:&mut )?\btx\s*[,)]").unwrap();
    let last = |path: &str| path.rsplit("::").next().unwrap_or_default().to_owned();
    // Whoever appends within the caller's transaction, directly or not.
    let mut appending = BTreeSet::from(["append".to_owned()]);
    loop {
        let more: Vec<String> = functions
            .iter()
            .filter(|(_, name, text)| !appending.contains(name) && text.contains("tx: &mut Tx"))
            .filter(|(_, _, text)| {
                let mut calls = call.captures_iter(text).map(|found| found[1].to_owned());
                calls.any(|path| !path.starts_with("store::") && appending.contains(&last(&path)))
            })
            .map(|(_, name, _)| name.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        appending.extend(more);
    }
    assert!(appending.len() > 5, "it finds those that append: {appending:?}");
    let mut wrong = Vec::new();
    let over = Regex::new(r"\.commit\(\)|\breturn\b|\bdrop\(tx\)|\btx = |=>").unwrap();
    // When a board is made nobody else is there yet.
    let alone = |path: &Path, name: &str| {
        // An alarm is a new row that names its entry: nobody else holds it.
        path.ends_with("board/mod.rs") && name == "init"
            || path.ends_with("audit/heads.rs") && (name == "compare" || name == "begin_epoch")
    };
    for (path, name, text) in functions.iter().filter(|(path, name, _)| !alone(path, name)) {
        let calls: Vec<(usize, String)> = call
            .captures_iter(text)
            .map(|found| (found.get(0).unwrap().end(), found[1].to_owned()))
            .collect();
        let ends = |path: &str, end: usize| {
            let begin = text[..end].rfind(path).unwrap_or_default();
            text[..begin].trim_end().ends_with("return")
        };
        for (at, (end, path_of_call)) in calls.iter().enumerate() {
            let appends = !path_of_call.starts_with("store::") && appending.contains(&last(path_of_call));
            if !appends || ends(path_of_call, *end) {
                continue;
            }
            for (later, after) in &calls[at + 1..] {
                if over.is_match(&text[*end..*later]) {
                    break;
                }
                let appends = !after.starts_with("store::") && appending.contains(&last(after));
                if !appends || !after.ends_with("append") {
                    wrong.push(format!(
                        "{}: {name} goes on with {after} after {path_of_call}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
