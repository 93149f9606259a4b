//! Whatever changes something leaves its entry: every form of the console is sent once, and the log is looked at. What the
//! agents' port and the commands leave is in `tests/tests/e2e/entries.rs`.
//!
//! A form that is added needs its step in [`every_form_leaves_its_entry`].

use std::collections::BTreeSet;
use std::path::Path;

use axum::http::StatusCode;
use regex::Regex;
use shared::ids::{ClientId, DeviceId, UserId};
use shared::secret::Secret;
use sqlx::{AssertSqlSafe, Executor as _};

use super::access_routes::{self, SCRIPT};
use super::{forms, post, signed_in};
use crate::access::passkeys::{Purpose, tests as software};
use crate::access::{self, Role};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::enrollment;
use crate::on;
use crate::providers::tests::stand_in::StandIn;
use crate::providers::tests::{MANAGEMENT, MANIFEST as OPENROUTER, look};
use crate::runbook;
use crate::testing::{Fixture, MANIFESTS, TestDevice};

#[test]
fn every_action_has_its_place_in_the_code() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    super::rust_files(&source, &mut files);
    let outside = |file: &Path| !file.ends_with("audit/entry.rs") && !file.starts_with(source.join("tests"));
    let code: String = files
        .iter()
        .filter(|file| outside(file))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for action in Action::ALL {
        let name = format!("{action:?}");
        let used = Regex::new(&format!(r"Action::{name}\b")).unwrap();
        assert!(used.is_match(&code), "{name} is never written");
    }
}

struct Sent {
    fixture: Fixture,
    paths: BTreeSet<&'static str>,
}

impl Sent {
    /// Sends the form at `path`, whose parameters are `ids` in order, and expects its entry behind all that were there.
    async fn form(
        &mut self,
        path: &'static str,
        ids: &[String],
        cookie: &str,
        fields: &[(&str, &str)],
        action: Action,
    ) {
        let mut filled = path.to_owned();
        let parameter = Regex::new(r"\{[a-z]+\}").unwrap();
        for id in ids {
            filled = parameter.replace(&filled, id.as_str()).into_owned();
        }
        let before = self.entries().await.len();
        let (parts, page) = post(&self.fixture, &filled, cookie, fields).await;
        assert!(
            parts.status.is_redirection() || parts.status == StatusCode::OK,
            "{filled}: {} {page}",
            parts.status
        );
        self.expect(path, before, action).await;
    }

    async fn expect(&mut self, path: &'static str, before: usize, action: Action) {
        let entries = self.entries().await;
        assert!(entries[before..].contains(&action), "{path} leaves no {action}: {:?}", &entries[before..]);
        self.paths.insert(path);
    }

    /// The actions in the log, oldest first.
    async fn entries(&self) -> Vec<Action> {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let stored = audit::page(&mut tx, None, 1000).await.unwrap();
        stored.into_iter().rev().map(|stored| stored.entry.action).collect()
    }

    async fn sql(&self, text: &str) {
        let mut tx = self.fixture.app.db.write().await.unwrap();
        on!(&mut tx, conn => conn.execute(AssertSqlSafe(text.to_owned())).await.map(|_| ())).unwrap();
        tx.commit().await.unwrap();
    }

    async fn step(&self, device: DeviceId, key: &str) -> String {
        self.fixture.with_runbook(device).await;
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let made = runbook::of_device(&mut tx, device).await.unwrap().unwrap();
        let steps = runbook::steps(&mut tx, made.id).await.unwrap();
        steps.into_iter().find(|step| step.step_key == key).unwrap().id.to_string()
    }
}

const BY_HAND: &str = r#"
key = "hand"
name = "By hand"
category = "ai"
summary = "Has a manual step."
platforms = ["macos", "linux"]
[[step]]
id = "look"
kind = "manual"
title = "Look at it"
text = "Does it answer?"
"#;

const TIERS: &str = r#"
[[tier]]
key = "starter"
name = "Starter"
components = ["base", "tool", "hand"]
"#;

const PASSWORD: &str = "a long test passphrase";
const WHY: (&str, &str) = ("reason", "because it has to be");

#[tokio::test]
async fn every_form_leaves_its_entry() {
    on_both(|db| async move {
        let provider = StandIn::start(MANAGEMENT).await;
        let fixture = Fixture::with_providers(db, provider.address).await;
        let mut manifests = MANIFESTS.to_vec();
        manifests.push(("hand", BY_HAND));
        manifests.push(("openrouter", OPENROUTER));
        fixture.import_with_tiers(2, &manifests, TIERS).await.unwrap();
        let (c, o) = (signed_in(&fixture, Role::Consultant).await, signed_in(&fixture, Role::Operator).await);
        let client = fixture.client("Example Client", &["base", "tool", "hand"]).await;
        let slot = fixture.our_slot().await.id.to_string();
        let mut sent = Sent { fixture, paths: BTreeSet::new() };
        let id = [client.to_string()];

        let fields = [("email", "consultant@example.com"), ("password", PASSWORD)];
        sent.form("/sign-in", &[], "", &fields, Action::SignedIn).await;
        let fields = [("name", "Another Client"), ("vault_name", "Vault")];
        sent.form("/clients/new", &[], &c, &fields, Action::ClientCreated).await;
        let fewer = [("component", "base"), ("component", "tool")];
        sent.form("/clients/{id}/integrations", &id, &c, &fewer, Action::ScopeChanged).await;
        sent.form("/clients/{id}/package", &id, &c, &[("tier", "starter")], Action::ScopeChanged).await;
        let paste = "/clients/{id}/browser-paste";
        sent.form(paste, &id, &c, &[("allow", "off")], Action::BrowserPasteChanged).await;
        // No form, and it needs a device that is on: `paste_routes` has its tests.
        sent.paths.insert("/api/v1/devices/{id}/paste");
        let field = format!("slot-{slot}");
        let fields = [(field.as_str(), "ours-canary-77aa")];
        sent.form("/clients/{id}/secrets", &id, &c, &fields, Action::SecretStored).await;
        let before = sent.entries().await.len();
        let path = format!("/clients/{client}/secrets/{slot}/copy");
        let (status, _) = access_routes::post(&sent.fixture, &c, &path, "reason=It+is+typed", SCRIPT).await;
        assert_eq!(status, StatusCode::OK);
        sent.expect("/clients/{id}/secrets/{slot}/copy", before, Action::SecretCopied).await;
        second_person(&mut sent, (&c, &o), client, &slot).await;
        let rotate = "/clients/{id}/secrets/{slot}/rotate";
        let both = [client.to_string(), slot.clone()];
        let fields = [("secret", "ours-another-88bb"), WHY];
        sent.form(rotate, &both, &c, &fields, Action::SecretStored).await;
        sent.form("/clients/{id}/join-codes", &id, &c, &[], Action::JoinCodeMade).await;

        providers(&mut sent, &c, &o).await;

        let asking = TestDevice::new("B-UUID", sent.fixture.app.now());
        let code = sent.fixture.code(client).await;
        let answer = asking.join(&sent.fixture.app, &code).await.unwrap();
        let enrollment = [answer.enrollment_id.to_string()];
        let typed = asking.fingerprint(&sent.fixture.app, &answer);
        let fields = [("fingerprint", typed.as_str())];
        sent.form("/enrollments/{id}/approve", &enrollment, &c, &fields, Action::EnrollmentApproved).await;
        let asking = TestDevice::new("C-UUID", sent.fixture.app.now());
        let code = sent.fixture.code(client).await;
        let refused = asking.join(&sent.fixture.app, &code).await.unwrap();
        let enrollment = [refused.enrollment_id.to_string()];
        sent.form("/enrollments/{id}/reject", &enrollment, &c, &[WHY], Action::EnrollmentRejected).await;

        let (_, device) = sent.fixture.enrolled(client, "A-UUID").await;
        let mut tx = sent.fixture.app.db.read().await.unwrap();
        let enrolled = enrollment::get_device(&mut tx, device).await.unwrap();
        drop(tx);
        let own = [device.to_string()];
        let look = [device.to_string(), sent.step(device, "look").await];
        let install = [device.to_string(), sent.step(device, "install").await];
        let configure = [device.to_string(), sent.step(device, "configure").await];
        sent.sql("UPDATE steps SET state = 'failed' WHERE step_key = 'install'").await;
        sent.sql("UPDATE steps SET state = 'waiting' WHERE step_key = 'look'").await;
        let (retry, mark) =
            ("/devices/{id}/runbook/steps/{step}/retry", "/devices/{id}/runbook/steps/{step}/mark");
        sent.form(retry, &install, &c, &[], Action::StepRetried).await;
        sent.form(mark, &look, &c, &[], Action::StepMarked).await;
        let skip = "/devices/{id}/runbook/steps/{step}/skip";
        sent.form(skip, &configure, &c, &[WHY], Action::StepSkipped).await;
        let (undo, keep) =
            ("/devices/{id}/runbook/steps/{step}/undo", "/devices/{id}/runbook/steps/{step}/keep");
        let attempt = "INSERT INTO attempts (id, step_id, number, state, offered_at, expires_at) \
                       SELECT id, id, 1, 'succeeded', changed_at, changed_at FROM steps WHERE step_key = 'configure'";
        sent.sql(attempt).await;
        sent.sql("UPDATE steps SET state = 'succeeded' WHERE step_key = 'configure'").await;
        sent.form(undo, &configure, &c, &[WHY], Action::StepUndoAsked).await;
        sent.form(keep, &configure, &c, &[], Action::StepUndoDropped).await;
        sent.form("/devices/{id}/runbook/pause", &own, &c, &[WHY], Action::RunbookPaused).await;
        sent.form("/devices/{id}/runbook/resume", &own, &c, &[], Action::RunbookResumed).await;
        let on = sent.fixture.app.links.open(device, sent.fixture.app.now());
        sent.form("/devices/{id}/runbook/plan", &own, &c, &[], Action::PlanAsked).await;
        drop(on);
        sent.sql("UPDATE enrollments SET renewal_asked_at = created_at WHERE state = 'enrolled'").await;
        sent.form("/devices/{id}/renewal", &own, &c, &[], Action::RenewalConfirmed).await;
        enrollment::quarantine(&sent.fixture.app, &enrolled, "OTHER-UUID", "192.0.2.17").await.unwrap();
        let fields = [("release", "enrolled"), ("hardware_uuid", "OTHER-UUID")];
        sent.form("/devices/{id}/quarantine", &own, &c, &fields, Action::DeviceReleased).await;
        sent.form("/devices/{id}/revoke", &own, &c, &[WHY], Action::DeviceRevoked).await;

        let (end, days) = ("/clients/{id}/engagement/end", "/clients/{id}/engagement/days");
        sent.form(days, &id, &c, &[("days", "7")], Action::PurgeDaysChanged).await;
        sent.form(end, &id, &c, &[], Action::EngagementEnded).await;
        sent.form("/clients/{id}/engagement/hold", &id, &c, &[WHY], Action::PurgeHeld).await;
        sent.form("/clients/{id}/engagement/release", &id, &c, &[], Action::PurgeReleased).await;
        let reactivate = "/clients/{id}/engagement/reactivate";
        sent.form(reactivate, &id, &c, &[], Action::EngagementReactivated).await;

        let fields = [("email", "another@example.com"), ("role", "support")];
        sent.form("/users", &[], &o, &fields, Action::UserAdded).await;
        let (user, link) = invited(&sent.fixture).await;
        let fields = [("password", PASSWORD), ("repeat", PASSWORD)];
        sent.form("/welcome/{token}", &[link], "", &fields, Action::PasswordSet).await;
        let user = [user.to_string()];
        sent.form("/users/{id}/roles", &user, &o, &[("role", "consultant")], Action::RolesChanged).await;
        sent.form("/users/{id}/link", &user, &o, &[], Action::LinkMade).await;
        sent.form("/users/{id}/disable", &user, &o, &[], Action::UserDisabled).await;
        sent.form("/users/{id}/enable", &user, &o, &[], Action::UserEnabled).await;
        let fields = [("name", "a program"), ("days", "30"), ("token_role", "support")];
        sent.form("/tokens", &[], &o, &fields, Action::TokenMade).await;
        let token = first_token(&sent.fixture).await;
        sent.form("/tokens/{id}/revoke", &[token], &o, &[], Action::TokenRevoked).await;
        let alarm = forms::raised(&sent.fixture).await.to_string();
        sent.form("/audit/alarms/{id}", &[alarm], &o, &[WHY], Action::AlarmAcknowledged).await;

        sent.form("/incident", &[], &o, &[WHY], Action::IncidentBegun).await;
        sent.form("/incident/lift", &[], &o, &[WHY], Action::IncidentLifted).await;

        passkeys(&mut sent, &o).await;
        let all: BTreeSet<&str> = forms::paths().collect();
        assert_eq!(sent.paths, all, "a form needs its step in this test");
        sent.form("/sign-out", &[], &c, &[], Action::SignedOut).await;
    })
    .await;
}

/// A copy that another consultant approves, one that they decline, and both ways to switch it off again.
async fn second_person(sent: &mut Sent, (c, o): (&str, &str), client: ClientId, slot: &str) {
    let d = signed_in(&sent.fixture, Role::Consultant).await;
    let (id, both) = ([client.to_string()], [client.to_string(), slot.to_owned()]);
    let ask = "/clients/{id}/secrets/{slot}/ask";
    let on = "/clients/{id}/second-person";
    sent.form(on, &id, c, &[], Action::SecondPersonChanged).await;
    sent.form(ask, &both, c, &[WHY], Action::ApprovalAsked).await;
    let asked = [waiting(&sent.fixture).await];
    sent.form("/approvals/{id}/approve", &asked, &d, &[], Action::ApprovalGiven).await;
    let before = sent.entries().await.len();
    let path = format!("/approvals/{}/copy", asked[0]);
    let (status, _) = access_routes::post(&sent.fixture, c, &path, "", SCRIPT).await;
    assert_eq!(status, StatusCode::OK);
    sent.expect("/approvals/{id}/copy", before, Action::SecretCopied).await;
    sent.form(ask, &both, c, &[WHY], Action::ApprovalAsked).await;
    let asked = [waiting(&sent.fixture).await];
    sent.form("/approvals/{id}/decline", &asked, &d, &[], Action::ApprovalDeclined).await;
    sent.form("/clients/{id}/second-person/ask-off", &id, c, &[WHY], Action::ApprovalAsked).await;
    let asked = [waiting(&sent.fixture).await];
    sent.form("/approvals/{id}/approve", &asked, &d, &[], Action::SecondPersonChanged).await;
    sent.form(on, &id, c, &[], Action::SecondPersonChanged).await;
    sent.form("/clients/{id}/second-person/off", &id, o, &[WHY], Action::SecondPersonChanged).await;
}

/// The one request for a second person that waits.
async fn waiting(fixture: &Fixture) -> String {
    let mut tx = fixture.app.db.read().await.unwrap();
    let now = fixture.app.now();
    let waiting = access::approvals::to_decide(&mut tx, fixture.user, now).await.unwrap();
    assert_eq!(waiting.len(), 1);
    waiting[0].id.to_string()
}

/// With authenticators in software; the switch is put back.
async fn passkeys(sent: &mut Sent, cookie: &str) {
    let token = Secret::new(cookie.trim_start_matches("board_session=").to_owned());
    let own = software::visitor(&sent.fixture, Some(&token)).await;
    let nobody = software::visitor(&sent.fixture, None).await;
    let app = sent.fixture.app.clone();
    let ask =
        async |visitor, purpose, at: &str| access::passkeys::ask(&app, visitor, purpose, at).await.unwrap();
    let at = "/account/passkeys";
    let mut keys = [1, 2].map(software::Authenticator::new);
    for key in &mut keys {
        let answer = key.create(&ask(&own, Purpose::Register, at).await);
        let fields = [("name", "a laptop"), ("passkey", answer.as_str())];
        sent.form(at, &[], cookie, &fields, Action::PasskeyRegistered).await;
    }
    let answer = keys[1].get(&ask(&nobody, Purpose::SignIn, "/sign-in/passkey").await);
    sent.form("/sign-in/passkey", &[], "", &[("passkey", answer.as_str())], Action::SignedIn).await;
    sent.form("/passkeys/required", &[], cookie, &[("on", "true")], Action::PasskeysRequired).await;
    sent.form("/passkeys/required", &[], cookie, &[("on", "false")], Action::PasskeysRequired).await;
    let mut tx = app.db.read().await.unwrap();
    let user = own.user.as_ref().unwrap().id;
    let first = access::passkeys::of_user(&mut tx, user).await.unwrap().remove(0).id.to_string();
    drop(tx);
    sent.form("/account/passkeys/{id}/remove", &[first], cookie, &[], Action::PasskeyRemoved).await;
    let mut tx = app.db.write().await.unwrap();
    let email = "returns@example.com";
    let link = access::create_user(&mut tx, &app.root, &*app.clock, &*app.random, email, &[Role::Support])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let token = [link.expose().clone()];
    let mut key = software::Authenticator::new(3);
    let at = format!("/welcome/{}/passkey", link.expose());
    let answer = key.create(&ask(&nobody, Purpose::Register, &at).await);
    let fields = [("name", "a phone"), ("passkey", answer.as_str())];
    sent.form("/welcome/{token}/passkey", &token, "", &fields, Action::PasskeyRegistered).await;
}

/// What is done with the management key, and with the key of a client that the board makes.
async fn providers(sent: &mut Sent, consultant: &str, operator: &str) {
    sent.form("/providers", &[], operator, &[("secret", MANAGEMENT)], Action::BoardSecretStored).await;
    let client = sent.fixture.client("Client of OpenRouter", &["openrouter"]).await;
    let (_, device) = sent.fixture.enrolled(client, "P-UUID").await;
    sent.fixture.with_runbook(device).await;
    look(&sent.fixture.app).await;
    let id = [client.to_string()];
    let changed = Action::ProviderKeyChanged;
    let fields = [("limit", "75.50")];
    sent.form("/clients/{id}/openrouter/limit", &id, consultant, &fields, changed).await;
    sent.form("/clients/{id}/openrouter/disable", &id, consultant, &[], changed).await;
    sent.form("/clients/{id}/openrouter/enable", &id, consultant, &[], changed).await;
    let delete = "/clients/{id}/openrouter/delete";
    sent.form(delete, &id, consultant, &[], Action::ProviderKeyDeleted).await;
    sent.form("/clients/{id}/openrouter/make", &id, consultant, &[], changed).await;
    sent.form("/providers/remove", &[], operator, &[], Action::BoardSecretRemoved).await;
}

async fn invited(fixture: &Fixture) -> (UserId, String) {
    let app = &fixture.app;
    let mut tx = app.db.write().await.unwrap();
    let email = "new@example.com";
    let token = access::create_user(&mut tx, &app.root, &*app.clock, &*app.random, email, &[Role::Support])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = app.db.read().await.unwrap();
    let user =
        access::users::list(&mut tx).await.unwrap().into_iter().find(|user| user.email == email).unwrap();
    (user.id, token.expose().clone())
}

async fn first_token(fixture: &Fixture) -> String {
    let mut tx = fixture.app.db.read().await.unwrap();
    access::tokens::tokens(&mut tx).await.unwrap().remove(0).id.to_string()
}
