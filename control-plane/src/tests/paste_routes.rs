//! A sealed paste over HTTP: who may send one, what is no paste, and what is left behind: who asked and the device's word,
//! nothing of what was sealed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use shared::crypto::base64;
use shared::ids::{ClientId, DeliveryId, DeviceId};
use shared::random::SystemRandom;
use shared::secret::MAX_LEN;
use tokio::sync::Mutex;
use tower::ServiceExt as _;

use super::access_routes::token;
use super::{ask, post, read, signed_in};
use crate::access::Role;
use crate::audit::{self, Action, Actor};
use crate::clients::{Scope, browser_paste, choose_scope};
use crate::db::Db;
use crate::db::testing::on_both;
use crate::links::OpenLink;
use crate::router;
use crate::testing::Fixture;

const CANARY: &[u8] = b"canary-ciphertext-5d1c";

/// A consultant's token and session, and an enrolled device with a client-supplied slot.
struct Desk {
    fixture: Fixture,
    client: ClientId,
    device: DeviceId,
    cookie: String,
    token: String,
}

/// The ciphertexts that reached the device.
type Arrived = Arc<Mutex<Vec<Vec<u8>>>>;

enum Asks<'a> {
    Program(&'a str),
    Page(&'a str),
}

impl Desk {
    async fn new(db: Db) -> Self {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let token = token(&fixture, &[Role::Consultant], 1).await;
        Self { fixture, client, device, cookie, token }
    }

    fn path(&self) -> String {
        format!("/api/v1/devices/{}/paste", self.device)
    }

    fn paste(&self) -> Value {
        json!({
            "delivery_id": DeliveryId::new(&*self.fixture.clock, &SystemRandom),
            "component": "tool",
            "slot": "THEIR_TOKEN",
            "expires": self.fixture.app.now().after(Duration::from_secs(60)),
            "sealed": base64::encode(CANARY),
        })
    }

    async fn send(&self, who: Asks<'_>, body: impl Into<Body>, content: &str) -> (StatusCode, String) {
        let request = Request::builder().method(Method::POST).uri(self.path());
        let request = request.header(header::HOST, "board.test").header(header::CONTENT_TYPE, content);
        let request = match who {
            Asks::Program(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            Asks::Page(cookie) => {
                request.header(header::COOKIE, cookie).header(header::ORIGIN, "http://board.test")
            }
        };
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
        let (parts, body) =
            read(router::console(self.fixture.app.clone()).oneshot(request).await.unwrap()).await;
        (parts.status, body)
    }

    async fn program(&self, paste: &Value) -> (StatusCode, String) {
        self.send(Asks::Program(&self.token), paste.to_string(), "application/json").await
    }

    /// The device is on, and says this to each paste; what arrived is given.
    fn device(&self, says: Result<(), String>) -> (tokio::task::JoinHandle<()>, Arrived) {
        let mut link: OpenLink = self.fixture.app.links.open(self.device, self.fixture.app.now());
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&arrived);
        let device = tokio::spawn(async move {
            while let Some(relayed) = link.pastes.recv().await {
                kept.lock().await.push(relayed.paste.sealed);
                relayed.answer.send(says.clone()).unwrap();
            }
        });
        (device, arrived)
    }

    /// (who, action, reason) of the entries about pastes, oldest first. None holds anything of what was sealed.
    async fn audited(&self) -> Vec<(Actor, Action, String)> {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let mut all = audit::page(&mut tx, None, 100).await.unwrap();
        all.reverse();
        let about = [Action::PasteRelayed, Action::PasteAnswered, Action::BrowserPasteChanged];
        let mut found = Vec::new();
        for stored in all.into_iter().filter(|stored| about.contains(&stored.entry.action)) {
            let text = format!("{:?}", stored.entry);
            assert!(!text.contains("canary") && !text.contains(&base64::encode(CANARY)), "{text}");
            assert_eq!(stored.entry.client, Some(self.client));
            found.push((stored.entry.who.kind, stored.entry.action, stored.entry.reason));
        }
        found
    }
}

#[tokio::test]
async fn what_a_consultant_sealed_reaches_the_device_and_its_word_comes_back() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let (device, arrived) = desk.device(Ok(()));
        let (status, body) = desk.program(&desk.paste()).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"state":"present"}"#));
        let (status, body) =
            desk.send(Asks::Page(&desk.cookie), desk.paste().to_string(), "application/json").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(*arrived.lock().await, [CANARY, CANARY]);
        let present = || (Actor::Device, Action::PasteAnswered, "present".to_owned());
        assert_eq!(
            desk.audited().await,
            [
                (Actor::Token, Action::PasteRelayed, String::new()),
                present(),
                (Actor::User, Action::PasteRelayed, String::new()),
                present(),
            ]
        );
        device.abort();
        let _ = device.await;
        let (_refusing, _) = desk.device(Err("this paste came before\u{1b}[2J".into()));
        let (status, body) = desk.program(&desk.paste()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(body.contains("The device refused it: this paste came before[2J."), "{body}");
        let last = desk.audited().await.pop().unwrap();
        assert!(last.0 == Actor::Device && last.2.contains("came before"), "{last:?}");
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_passed_on_is_refused_and_nothing_is_kept() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let (status, body) = desk.program(&desk.paste()).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(body.contains("device-off") && body.contains("nothing was sent"), "{body}");

        let (_device, arrived) = desk.device(Ok(()));
        let with = |key: &str, value: Value| {
            let mut paste = desk.paste();
            paste[key] = value;
            paste.to_string()
        };
        let without = |key: &str| {
            let mut paste = desk.paste();
            paste.as_object_mut().unwrap().remove(key);
            paste.to_string()
        };
        let json = "application/json";
        let large = base64::encode(&vec![0; MAX_LEN + 53]);
        for (body, content, status, words) in [
            (with("slot", "OUR_KEY".into()), json, 422, "our-managed"),
            (with("slot", "TYPO".into()), json, 404, "no-slot"),
            (with("component", "base".into()), json, 404, "no-slot"),
            (with("component", "x\u{0}y\u{1b}".into()), json, 404, "no-slot"),
            (with("sealed", large.into()), json, 413, "too-large"),
            (with("sealed", "x".repeat(1024 * 1024).into()), json, 413, "too-large"),
            (with("sealed", "not base64 canary".into()), json, 422, "can't be read at line"),
            (with("delivery_id", "canary".into()), json, 422, "can't be read at line"),
            (without("sealed"), json, 422, "can't be read at line"),
            (without("expires"), json, 422, "can't be read at line"),
            ("}{ canary".to_owned(), json, 422, "can't be read at line"),
            (String::new(), json, 422, "can't be read at line"),
            (desk.paste().to_string(), "text/plain", 415, "content-type"),
            (desk.paste().to_string(), "application/x-www-form-urlencoded", 415, "content-type"),
        ] {
            let (code, said) = desk.send(Asks::Program(&desk.token), body, content).await;
            assert!(code.as_u16() == status && said.contains(words), "{words}: {code} {said}");
            assert!(said.starts_with("{\"type\":\"urn:board:") && !said.contains("canary"), "{said}");
        }
        assert!(arrived.lock().await.is_empty(), "nothing of it reached the device");
        assert!(desk.audited().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn support_and_strangers_neither_seal_nor_send() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let (_device, arrived) = desk.device(Ok(()));
        let support = token(&desk.fixture, &[Role::Support], 1).await;
        let cookie = signed_in(&desk.fixture, Role::Support).await;
        let body = desk.paste().to_string();
        let json = "application/json";
        let (status, _) = desk.send(Asks::Program(&support), body.clone(), json).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let (status, _) = desk.send(Asks::Page(&cookie), body.clone(), json).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let (status, _) = desk.send(Asks::Program("board_made-up"), body.clone(), json).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let page = ask(&desk.fixture, Method::GET, &desk.path(), Some(&cookie), "http://board.test").await;
        assert_eq!(page.status(), StatusCode::FORBIDDEN);
        let forged = "https://evil.example";
        let answer = ask(&desk.fixture, Method::POST, &desk.path(), Some(&desk.cookie), forged).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "another site's page");
        assert!(arrived.lock().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_browsers_way_is_switched_off_for_a_client_and_the_others_stay() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let (_device, arrived) = desk.device(Ok(()));
        let setting = format!("/clients/{}/browser-paste", desk.client);
        let switch = async |allow: &str| {
            post(&desk.fixture, &setting, &desk.cookie, &[("allow", allow)]).await.0.status
        };
        assert_eq!(switch("maybe").await, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(switch("off").await, StatusCode::SEE_OTHER);
        assert_eq!(switch("off").await, StatusCode::SEE_OTHER);
        let page = async || {
            let path = format!("/clients/{}", desk.client);
            let page = ask(&desk.fixture, Method::GET, &path, Some(&desk.cookie), "http://board.test").await;
            read(page).await.1
        };
        assert!(page().await.contains("Switch on pasting in the browser"));
        let json = "application/json";
        let (status, body) = desk.send(Asks::Page(&desk.cookie), desk.paste().to_string(), json).await;
        assert!(status == StatusCode::CONFLICT && body.contains("browser-paste-off"), "{status} {body}");
        assert_eq!(desk.program(&desk.paste()).await.0, StatusCode::OK);
        assert_eq!(arrived.lock().await.len(), 1);
        assert_eq!(switch("on").await, StatusCode::SEE_OTHER);
        assert!(page().await.contains("Switch off pasting in the browser"));
        let changes = desk.audited().await;
        let changes = changes.iter().filter(|(_, action, _)| *action == Action::BrowserPasteChanged);
        assert_eq!(changes.count(), 2, "each change, and no more");
        let mut tx = desk.fixture.app.db.read().await.unwrap();
        assert!(browser_paste(&mut tx, desk.client).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn who_seals_is_told_the_device_and_its_slots() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let request = Request::builder().uri(desk.path()).header(header::HOST, "board.test");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", desk.token));
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 1))));
        let answer = router::console(desk.fixture.app.clone()).oneshot(request).await.unwrap();
        let (parts, body) = read(answer).await;
        assert_eq!(parts.status, StatusCode::OK);
        let told: crate::secrets::api::Recipient = serde_json::from_str(&body).unwrap();
        assert_eq!((told.device_id, told.client_id, told.on), (desk.device, desk.client, false));
        let slots: Vec<_> = told.slots.iter().map(|slot| slot.slot.as_str()).collect();
        assert_eq!(slots, ["THEIR_TOKEN"], "none of ours");

        let app = &desk.fixture.app;
        let scope = Scope { components: ["base".to_owned()].into(), ..Scope::default() };
        choose_scope(app, Fixture::who(), desk.client, &scope).await.unwrap();
        let (_device, _) = desk.device(Ok(()));
        let (status, body) = desk.program(&desk.paste()).await;
        assert!(status == StatusCode::NOT_FOUND && body.contains("no-slot"), "out of scope: {body}");
        crate::enrollment::revoke(app, Fixture::who(), desk.device, "It was stolen").await.unwrap();
        let (status, body) = desk.program(&desk.paste()).await;
        assert!(status == StatusCode::CONFLICT && body.contains("not-enrolled"), "{body}");
    })
    .await;
}

/// A step that a consultant does, with a slot of the client's.
const ASKS: &str = r#"
key = "crm"
name = "CRM"
category = "crm"
summary = "x"
platforms = ["macos", "linux"]
[[slot]]
key = "TOKEN"
name = "CRM token"
tag = "client-supplied"
hint = "op://{vault}/CRM/token"
[[step]]
id = "get"
kind = "manual"
title = "Get the token"
text = "Make one."
slots = ["TOKEN"]
"#;

#[tokio::test]
async fn the_runbook_offers_the_browsers_way_to_a_consultant_and_while_the_client_has_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        fixture.import(2, &[("crm", ASKS)]).await.unwrap();
        let client = fixture.client("Example Client", &["crm"]).await;
        let (keys, device) = fixture.enrolled(client, "A-UUID").await;
        let app = &fixture.app;
        let enrolled = fixture.with_runbook(device).await;
        crate::runbook::next_offer(app, &enrolled, &crate::runbook::Carried::default()).await.unwrap();
        let shown = async |role: Role| {
            let cookie = signed_in(&fixture, role).await;
            let path = format!("/devices/{device}/runbook");
            let page = ask(&fixture, Method::GET, &path, Some(&cookie), "http://board.test").await;
            read(page).await.1
        };
        let form = "class=\"sealed-paste\"";
        let key = shared::crypto::hex(keys.sealing.public_key().as_bytes());
        let page = shown(Role::Consultant).await;
        assert!(page.contains(form) && page.contains(&format!("data-key=\"{key}\"")), "{page}");
        let command = format!(
            "op read &#39;op://Example Client/CRM/token&#39; | board paste crm/TOKEN --board http://board.test \
             --device {device} --device-fingerprint FINGERPRINT"
        );
        assert!(page.contains(&command), "{page}");
        let page = shown(Role::Support).await;
        assert!(page.contains("Get the token") && !page.contains(form) && !page.contains(&key), "{page}");
        crate::clients::set_browser_paste(app, Fixture::who(), client, false).await.unwrap();
        let page = shown(Role::Consultant).await;
        assert!(page.contains("board paste crm/TOKEN") && !page.contains(form) && !page.contains(&key));
    })
    .await;
}
