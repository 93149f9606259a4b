//! A second person for a copy, as browsers meet it: who asks, who decides, and what each page says of it.

use axum::http::{Method, StatusCode, header};
use shared::ids::ClientId;
use shared::secret::Secret;

use super::access_routes::{self, SCRIPT, token, with_token};
use super::{ask, post, read, signed_in};
use crate::access::approvals::{self, TTL};
use crate::access::{self, Role};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::secrets;
use crate::testing::Fixture;

const VALUE: &str = "ours-canary-2c9b";
const WHY: (&str, &str) = ("reason", "The vendor wants it typed");
const NONE: &[(&str, &str)] = &[];
const PASSWORD: (&str, &str) = ("step_up_password", "a long test passphrase");

/// A client that wants a second person, and two consultants with their cookies.
struct Desk {
    fixture: Fixture,
    client: ClientId,
    /// Where the one secret is copied without asking, and where it is asked for.
    copy: String,
    ask: String,
    first: String,
    second: String,
}

impl Desk {
    async fn new(fixture: Fixture) -> Self {
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let slot = fixture.our_slot().await;
        let value = Secret::new(VALUE.to_owned());
        let known = fixture.get_client(client).await;
        secrets::put(&fixture.app, Fixture::who(), &known, &slot, &value).await.unwrap();
        let first = signed_in(&fixture, Role::Consultant).await;
        let second = signed_in(&fixture, Role::Consultant).await;
        let place = format!("/clients/{client}/secrets/{}", slot.id);
        let desk = Self {
            fixture,
            client,
            copy: format!("{place}/copy"),
            ask: format!("{place}/ask"),
            first,
            second,
        };
        let on = format!("/clients/{client}/second-person");
        let (parts, page) = post(&desk.fixture, &on, &desk.first, NONE).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER, "{page}");
        desk
    }

    /// Asks for a copy as the first; gives where it is decided and used.
    async fn asked(&self) -> String {
        let (parts, page) = post(&self.fixture, &self.ask, &self.first, &[WHY]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER, "{page}");
        assert_eq!(parts.headers[header::LOCATION], "/approvals");
        self.waiting().await
    }

    async fn waiting(&self) -> String {
        let app = &self.fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let waiting = approvals::to_decide(&mut tx, self.fixture.user, app.now()).await.unwrap();
        format!("/approvals/{}", waiting[0].id)
    }

    async fn page(&self, path: &str, cookie: &str) -> String {
        let answer = ask(&self.fixture, Method::GET, path, Some(cookie), "http://board.test").await;
        let (parts, page) = read(answer).await;
        assert_eq!(parts.status, StatusCode::OK, "{page}");
        assert!(!page.contains(VALUE), "the value is on no page");
        page
    }

    async fn script(&self, path: &str, cookie: &str) -> (StatusCode, String) {
        access_routes::post(&self.fixture, cookie, path, "reason=it+is+typed", SCRIPT).await
    }

    async fn entries(&self, action: Action) -> Vec<audit::Entry> {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let all = audit::page(&mut tx, None, 200).await.unwrap().into_iter().map(|stored| stored.entry);
        all.filter(|entry| entry.action == action).collect()
    }
}

#[tokio::test]
async fn a_copy_wants_another_fresh_consultant_and_leaves_by_one_script_once() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let (status, said) = desk.script(&desk.copy, &desk.first).await;
        assert!(status == StatusCode::CONFLICT && said.contains("second person"), "{said}");
        let secrets = desk.page(&format!("/clients/{}/secrets", desk.client), &desk.first).await;
        assert!(secrets.contains(&desk.ask) && !secrets.contains(&desk.copy), "the form asks instead");
        let at = desk.asked().await;
        let again = post(&desk.fixture, &desk.ask, &desk.first, &[WHY]).await.0;
        assert_eq!(again.headers[header::LOCATION], "/approvals", "asking twice leads to the one request");
        let (copy, approve) = (format!("{at}/copy"), format!("{at}/approve"));

        let own = desk.page("/approvals", &desk.first).await;
        assert!(own.contains("waits for a second person") && !own.contains(&approve), "{own}");
        let (parts, page) = post(&desk.fixture, &approve, &desk.first, NONE).await;
        assert!(parts.status == StatusCode::FORBIDDEN && page.contains("another person"), "{page}");
        let (status, said) = desk.script(&copy, &desk.first).await;
        assert!(status == StatusCode::CONFLICT && said.contains("Nobody has approved"), "{said}");

        let theirs = desk.page("/approvals", &desk.second).await;
        assert!(theirs.contains(&approve) && theirs.contains(WHY.1), "{theirs}");
        assert!(theirs.contains("<b>1</b>"), "the badge: {theirs}");
        for role in [Role::Support, Role::Operator] {
            let cookie = signed_in(&desk.fixture, role).await;
            for path in [&approve, &copy, &format!("{at}/decline")] {
                let (parts, _) = post(&desk.fixture, path, &cookie, NONE).await;
                assert_eq!(parts.status, StatusCode::FORBIDDEN, "{path} as {role}");
            }
            let page =
                ask(&desk.fixture, Method::GET, "/approvals", Some(&cookie), "http://board.test").await;
            assert_eq!(page.status(), StatusCode::FORBIDDEN);
        }
        let program = token(&desk.fixture, &[Role::Consultant], 1).await;
        for path in [&approve, &copy] {
            let answer = with_token(&desk.fixture, Method::POST, path, &program, &desk.second).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        }

        desk.fixture.clock.advance(access::STEP_UP_TTL);
        let (parts, page) = post(&desk.fixture, &approve, &desk.second, NONE).await;
        assert!(parts.status == StatusCode::UNAUTHORIZED && page.contains("step_up_password"), "{page}");
        let (parts, page) = post(&desk.fixture, &approve, &desk.second, &[PASSWORD]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER, "{page}");
        let (parts, page) = post(&desk.fixture, &format!("{at}/decline"), &desk.second, &[PASSWORD]).await;
        assert!(parts.status == StatusCode::CONFLICT && page.contains("decided this already"), "{page}");
        let (status, said) = desk.script(&copy, &desk.second).await;
        assert!(status == StatusCode::FORBIDDEN, "{said}");

        let own = desk.page("/approvals", &desk.first).await;
        assert!(own.contains(&copy), "{own}");
        let (status, said) = desk.script(&copy, &desk.first).await;
        assert!(status == StatusCode::UNAUTHORIZED && said.contains("urn:board:step-up"), "{said}");
        let form = "step_up_password=a+long+test+passphrase";
        let (status, page) = access_routes::post(&desk.fixture, &desk.first, &copy, form, "text/html").await;
        assert_eq!(status, StatusCode::NOT_ACCEPTABLE, "{page}");
        assert!(desk.entries(Action::SecretCopied).await.is_empty());
        let (status, said) = desk.script(&copy, &desk.first).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, VALUE));
        let (status, said) = desk.script(&copy, &desk.first).await;
        assert!(status == StatusCode::CONFLICT && said.contains("approved for one copy"), "{said}");
        assert!(desk.page("/approvals", &desk.first).await.contains("given to your browser"));
        let copied = desk.entries(Action::SecretCopied).await;
        assert_eq!(copied.len(), 1);
        assert_eq!(copied[0].reason, WHY.1);
        assert_eq!(copied[0].detail["approved_by"], desk.entries(Action::ApprovalGiven).await[0].who.id);
    })
    .await;
}

#[tokio::test]
async fn what_is_over_or_declined_says_so_and_can_be_asked_again() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let at = desk.asked().await;
        post(&desk.fixture, &format!("{at}/decline"), &desk.second, NONE).await;
        let (status, said) = desk.script(&format!("{at}/copy"), &desk.first).await;
        assert!(status == StatusCode::CONFLICT && said.contains("declined this"), "{said}");
        assert!(desk.page("/approvals", &desk.first).await.contains("declined by"));
        let at = desk.asked().await;
        desk.fixture.clock.advance(TTL);
        let (parts, page) = post(&desk.fixture, &format!("{at}/approve"), &desk.second, &[PASSWORD]).await;
        assert!(parts.status == StatusCode::GONE && page.contains("ten minutes"), "{page}");
        let (status, said) = access_routes::post(
            &desk.fixture,
            &desk.first,
            &format!("{at}/copy"),
            "step_up_password=a+long+test+passphrase",
            SCRIPT,
        )
        .await;
        assert!(status == StatusCode::GONE && said.contains("ten minutes"), "{said}");
        assert!(desk.page("/approvals", &desk.first).await.contains("the ten minutes are over"));
        assert!(!desk.page("/approvals", &desk.second).await.contains("/approve"));
        desk.asked().await;
        assert!(desk.entries(Action::SecretCopied).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn switching_off_wants_an_operator_or_another_consultant() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let (client, operator) = (desk.client, signed_in(&desk.fixture, Role::Operator).await);
        let page = format!("/clients/{client}");
        let (off, ask_off) = (format!("{page}/second-person/off"), format!("{page}/second-person/ask-off"));
        let is_on = async || desk.page(&page, &desk.first).await.contains("Needs a second person");
        let (parts, _) = post(&desk.fixture, &off, &desk.first, &[WHY]).await;
        assert_eq!(parts.status, StatusCode::FORBIDDEN, "no consultant alone");
        let shown = desk.page(&page, &desk.first).await;
        assert!(shown.contains(&ask_off) && !shown.contains(&format!("{off}\"")), "{shown}");
        let shown = desk.page(&page, &operator).await;
        assert!(shown.contains(&off) && !shown.contains(&ask_off), "{shown}");

        let (parts, _) = post(&desk.fixture, &ask_off, &desk.first, &[WHY]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        assert!(is_on().await);
        let at = desk.waiting().await;
        let (parts, _) = post(&desk.fixture, &format!("{at}/approve"), &desk.second, NONE).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        assert!(!is_on().await);
        assert!(desk.page("/approvals", &desk.first).await.contains("switched off"));
        let (status, said) = desk.script(&desk.copy, &desk.first).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, VALUE), "alone again");

        post(&desk.fixture, &format!("{page}/second-person"), &desk.first, NONE).await;
        assert!(is_on().await);
        let (parts, page) = post(&desk.fixture, &off, &operator, &[("reason", " ")]).await;
        assert!(parts.status == StatusCode::UNPROCESSABLE_ENTITY && is_on().await, "{page}");
        let (parts, _) = post(&desk.fixture, &off, &operator, &[WHY]).await;
        assert!(parts.status == StatusCode::SEE_OTHER && !is_on().await);
        let changes = desk.entries(Action::SecondPersonChanged).await;
        let changes: Vec<&str> =
            changes.iter().rev().map(|one| one.detail["second_person"].as_str()).collect();
        assert_eq!(changes, ["on", "off", "on", "off"]);
    })
    .await;
}
