//! Every text field of every form of the console, with what a person may paste into it by mistake or on purpose.
//!
//! A form that is added needs its line in [`FORMS`]; one without text fields its line in [`NO_TEXT`].

use axum::http::{Method, StatusCode, header};
use shared::ids::{EnrollmentId, StepId};
use shared::protocol::link::Head;
use shared::secret::Secret;

use super::{ask, post, read, signed_in};
use crate::access::{self, Role};
use crate::audit;
use crate::db::testing::on_both;
use crate::router;
use crate::runbook;
use crate::secrets;
use crate::testing::{Fixture, NOTED, TIERS, TestDevice};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// Kept and shown: a token is refused, everything else is shown escaped.
    Text,
    /// A value of ours or a password: never shown again.
    Secret,
    /// One of what the page offers, or something to compare: whatever doesn't fit is refused.
    Choice,
}

type Form = (&'static str, &'static [(&'static str, Field)]);

const FORMS: &[Form] = &[
    ("/sign-in", &[("email", Field::Choice), ("password", Field::Secret)]),
    ("/welcome/{token}", &[("password", Field::Secret), ("repeat", Field::Secret)]),
    ("/sign-in/passkey", &[("passkey", Field::Choice)]),
    ("/welcome/{token}/passkey", &[("name", Field::Text), ("passkey", Field::Choice)]),
    ("/account/passkeys", &[("name", Field::Text), ("passkey", Field::Choice)]),
    ("/passkeys/required", &[("on", Field::Choice)]),
    ("/clients/new", &[("name", Field::Text), ("vault_name", Field::Text), ("notes", Field::Text)]),
    (
        "/clients/{id}/package",
        &[("tier", Field::Choice), ("addon", Field::Choice), ("difference", Field::Choice)],
    ),
    (
        "/clients/{id}/integrations",
        &[("component", Field::Choice), ("param-noted-NAME", Field::Text), ("difference", Field::Choice)],
    ),
    ("/clients/{id}/secrets", &[("slot-{slot}", Field::Secret)]),
    ("/clients/{id}/openrouter/limit", &[("limit", Field::Choice)]),
    ("/providers", &[("secret", Field::Secret)]),
    ("/clients/{id}/browser-paste", &[("allow", Field::Choice)]),
    ("/clients/{id}/engagement/end", &[("pasted", Field::Choice)]),
    ("/clients/{id}/engagement/hold", &[("reason", Field::Text)]),
    ("/clients/{id}/engagement/days", &[("days", Field::Choice)]),
    ("/clients/{id}/secrets/{slot}/ask", &[("reason", Field::Text)]),
    ("/clients/{id}/second-person/ask-off", &[("reason", Field::Text)]),
    ("/clients/{id}/second-person/off", &[("reason", Field::Text)]),
    ("/clients/{id}/secrets/{slot}/rotate", &[("secret", Field::Secret), ("reason", Field::Text)]),
    ("/enrollments/{id}/approve", &[("fingerprint", Field::Choice)]),
    ("/enrollments/{id}/reject", &[("reason", Field::Text)]),
    ("/devices/{id}/revoke", &[("reason", Field::Text)]),
    ("/devices/{id}/quarantine", &[("release", Field::Choice), ("hardware_uuid", Field::Choice)]),
    ("/devices/{id}/runbook/pause", &[("reason", Field::Text)]),
    ("/devices/{id}/runbook/steps/{step}/skip", &[("reason", Field::Text)]),
    ("/devices/{id}/runbook/steps/{step}/undo", &[("reason", Field::Text)]),
    ("/users", &[("email", Field::Choice), ("role", Field::Choice)]),
    ("/users/{id}/roles", &[("role", Field::Choice)]),
    ("/audit/alarms/{id}", &[("reason", Field::Text)]),
    ("/incident", &[("reason", Field::Text)]),
    ("/incident/lift", &[("reason", Field::Text)]),
    ("/tokens", &[("name", Field::Text), ("days", Field::Choice), ("token_role", Field::Choice)]),
];

/// The reason of a copy is asked by a script and answered to it: `access_routes` and `approvals_routes` have its tests. A sealed paste is no form:
/// `paste_routes` has its tests.
const NO_TEXT: &[&str] = &[
    "/clients/{id}/secrets/{slot}/copy",
    "/clients/{id}/engagement/release",
    "/clients/{id}/engagement/reactivate",
    "/clients/{id}/second-person",
    "/approvals/{id}/approve",
    "/approvals/{id}/decline",
    "/approvals/{id}/copy",
    "/clients/{id}/openrouter/disable",
    "/clients/{id}/openrouter/enable",
    "/clients/{id}/openrouter/make",
    "/clients/{id}/openrouter/delete",
    "/providers/remove",
    "/clients/{id}/join-codes",
    "/devices/{id}/runbook/resume",
    "/devices/{id}/runbook/plan",
    "/devices/{id}/runbook/steps/{step}/retry",
    "/devices/{id}/runbook/steps/{step}/mark",
    "/devices/{id}/runbook/steps/{step}/keep",
    "/devices/{id}/renewal",
    "/users/{id}/link",
    "/users/{id}/disable",
    "/users/{id}/enable",
    "/tokens/{id}/revoke",
    "/account/passkeys/{id}/remove",
    "/api/v1/devices/{id}/paste",
];

/// Every form of the console but signing out, which ends the session that asks.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|(path, _)| *path).chain(NO_TEXT.iter().copied())
}

const MARKUP: &str = "<script>alert('canary')</script><b>\"canary\"</b>";

/// An alarm about a head that the log doesn't hold; gives the number of its entry.
pub(super) async fn raised(fixture: &Fixture) -> u64 {
    let head = Head { epoch: 1, seq: 1, hash: vec![7; 32] };
    let mut tx = fixture.app.db.write().await.unwrap();
    let witness = audit::Witness { device: None, who: audit::Who::job("test"), head: &head };
    assert!(audit::compare(&mut tx, &witness, fixture.app.now()).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = fixture.app.db.read().await.unwrap();
    u64::try_from(audit::alarms(&mut tx).await.unwrap()[0].entry).unwrap()
}

struct Desk {
    fixture: Fixture,
    cookie: String,
    operator: String,
    client: String,
    slot: String,
    device: String,
    step: StepId,
    pending: EnrollmentId,
    welcome: String,
    alarm: u64,
}

impl Desk {
    async fn new(fixture: Fixture) -> Self {
        let mut manifests = crate::testing::MANIFESTS.to_vec();
        manifests.push(NOTED);
        fixture.import_with_tiers(2, &manifests, TIERS).await.unwrap();
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let app = &fixture.app;
        fixture.with_runbook(device).await;
        let mut tx = app.db.write().await.unwrap();
        let made = runbook::of_device(&mut tx, device).await.unwrap().unwrap();
        let step = runbook::steps(&mut tx, made.id).await.unwrap().remove(0).id;
        let email = "new@example.com";
        let welcome =
            access::create_user(&mut tx, &app.root, &*app.clock, &*app.random, email, &[Role::Support])
                .await
                .unwrap();
        tx.commit().await.unwrap();
        let alarm = raised(&fixture).await;
        let asking = TestDevice::new("B-UUID", app.now());
        let pending = asking.join(app, &fixture.code(client).await).await.unwrap().enrollment_id;
        let slot = fixture.our_slot().await;
        let value = Secret::new("ours-first-value".to_owned());
        secrets::put(app, Fixture::who(), &fixture.get_client(client).await, &slot, &value).await.unwrap();
        let slot = slot.id.to_string();
        let operator = signed_in(&fixture, Role::Operator).await;
        Self {
            cookie,
            operator,
            client: client.to_string(),
            slot,
            device: device.to_string(),
            step,
            pending,
            welcome: welcome.expose().clone(),
            alarm,
            fixture,
        }
    }

    fn path(&self, path: &str) -> String {
        let id = match path.split('/').nth(1) {
            Some("devices") => self.device.clone(),
            Some("enrollments") => self.pending.to_string(),
            Some("audit") => self.alarm.to_string(),
            Some("users") => self.fixture.user.to_string(),
            _ => self.client.clone(),
        };
        path.replace("{id}", &id)
            .replace("{slot}", &self.slot)
            .replace("{step}", &self.step.to_string())
            .replace("{token}", &self.welcome)
    }

    /// The session of somebody who may send this form.
    fn cookie(&self, path: &str) -> &str {
        let operators = ["/users", "/tokens", "/audit/alarms", "/incident", "/passkeys", "/providers"];
        let operators = operators.iter().any(|start| path.starts_with(start));
        if operators || path.ends_with("/second-person/off") { &self.operator } else { &self.cookie }
    }

    /// Sends a form in which one field is what a test wants, the others fit.
    async fn fill(&self, form: &Form, field: &str, value: &str) -> (StatusCode, String) {
        let mut fields: Vec<(String, String)> = Vec::new();
        for (name, _) in form.1 {
            let fits = match *name {
                "name" => "Another Client",
                "vault_name" => "Vault",
                "component" => "noted",
                "tier" => "small",
                "param-noted-NAME" => "a name",
                "password" | "repeat" => "a long test passphrase",
                "email" => "another@example.com",
                "role" | "token_role" => "support",
                "days" => "30",
                _ => "",
            };
            let value = if *name == field { value } else { fits };
            fields.push((name.replace("{slot}", &self.slot), value.to_owned()));
        }
        let (parts, page) = post(&self.fixture, &self.path(form.0), self.cookie(form.0), &fields).await;
        if !parts.status.is_redirection() {
            let content = parts.headers[header::CONTENT_TYPE].to_str().unwrap();
            assert!(content.starts_with("text/html"), "{} {field}: {content}", form.0);
        }
        assert!(!parts.status.is_server_error(), "{} {field}: {}\n{page}", form.0, parts.status);
        (parts.status, page)
    }
}

#[tokio::test]
async fn every_form_has_its_line() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        // Signing out ends the session that asks.
        for (path, ..) in router::console_routes().into_iter().filter(|(path, ..)| *path != "/sign-out") {
            let known = FORMS.iter().any(|(form, _)| *form == path) || NO_TEXT.contains(&path);
            let asked = desk.path(path);
            let answer =
                ask(&desk.fixture, Method::POST, &asked, Some(desk.cookie(path)), "http://board.test").await;
            let takes = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(takes, known, "{path}: a form needs its line in FORMS or NO_TEXT of this file");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_or_a_secret_is_refused_on_a_page_and_not_repeated() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let token = format!("xoxb{}", "-123456789012-abcdefghijkl");
        for form in FORMS {
            for (field, kind) in form.1 {
                let place = format!("{} {field}", form.0);
                let (status, page) = desk.fill(form, field, &"x".repeat(1024 * 1024)).await;
                assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{place}");
                assert!(page.contains("too large") && page.len() < 64 * 1024, "{place}");

                let long = format!("canary {}", "x".repeat(20 * 1024));
                let (status, page) = desk.fill(form, field, &long).await;
                let says_so = status == StatusCode::UNPROCESSABLE_ENTITY || status == StatusCode::CONFLICT;
                assert!(says_so, "{place}: {status}");
                assert!(*kind != Field::Secret || !page.contains("canary"), "{place}");

                let (status, page) = desk.fill(form, field, &token).await;
                assert!(!page.contains(&token), "{place} repeats it");
                if *kind == Field::Text {
                    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{place}");
                    assert!(page.contains("looks like a"), "{place}: {page}");
                }

                let (status, page) = desk.fill(form, field, "canary\0with a NUL").await;
                assert!(status.is_client_error(), "{place}: {status}");
                assert!(*kind != Field::Secret || !page.contains("canary"), "{place}");
            }
        }
        // Nothing of it was done.
        let mut tx = desk.fixture.app.db.read().await.unwrap();
        assert_eq!(crate::clients::list(&mut tx).await.unwrap().len(), 1);
        for stored in crate::audit::page(&mut tx, None, 1000).await.unwrap() {
            let entry = format!("{:?}", stored.entry);
            assert!(
                !entry.contains("canary") && !entry.contains(&token) && !entry.contains("xxxx"),
                "{entry}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn markup_emoji_and_right_to_left_text_are_shown_as_they_are() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let hostile = format!("{MARKUP} 🙂👩‍💻 עברית \u{202e}dlrow");
        let mut accepted = 0;
        for form in FORMS {
            for (field, _) in form.1 {
                let (status, page) = desk.fill(form, field, &hostile).await;
                assert!(
                    !page.contains("<script>alert") && !page.contains("<b>\"canary"),
                    "{} {field}",
                    form.0
                );
                accepted += u32::from(status.is_redirection());
            }
        }
        assert!(accepted >= 5, "names, notes, inputs and reasons take it: {accepted}");
        let id = |path: &str| desk.path(path);
        for path in [
            "/clients".to_owned(),
            id("/clients/{id}"),
            id("/clients/{id}/package"),
            id("/clients/{id}/integrations"),
            id("/clients/{id}/secrets"),
            "/enrollments".to_owned(),
            id("/devices/{id}/runbook"),
            "/audit".to_owned(),
        ] {
            let answer =
                ask(&desk.fixture, Method::GET, &path, Some(&desk.cookie), "http://board.test").await;
            let (parts, page) = read(answer).await;
            assert_eq!(parts.status, StatusCode::OK, "{path}");
            assert!(!page.contains("<script>alert") && !page.contains("<b>\"canary"), "{path}");
            if path == "/clients" || path == "/audit" {
                assert!(page.contains("alert(&#39;canary&#39;)") && page.contains("🙂👩‍💻 עברית"), "{path}");
            }
        }
    })
    .await;
}
