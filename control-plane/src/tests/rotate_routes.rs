//! The form that rotates a secret, as a browser without scripts meets it.

use axum::http::{Method, StatusCode, header};
use shared::secret::Secret;

use super::{ask, post, read, signed_in};
use crate::access::{self, Role};
use crate::db::testing::on_both;
use crate::secrets;
use crate::testing::Fixture;

const FIRST: &str = "ours-first-value";
const NEW: &str = "ours-canary-new";

struct Desk {
    fixture: Fixture,
    client: String,
    path: String,
}

impl Desk {
    async fn new(db: crate::db::Db) -> Self {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let slot = fixture.our_slot().await;
        let value = Secret::new(FIRST.to_owned());
        let known = fixture.get_client(client).await;
        secrets::put(&fixture.app, Fixture::who(), &known, &slot, &value).await.unwrap();
        fixture.enrolled(client, "A-UUID").await;
        let path = format!("/clients/{client}/secrets/{}/rotate", slot.id);
        Self { fixture, client: client.to_string(), path }
    }

    async fn page(&self, cookie: &str, path: &str) -> String {
        let (parts, page) =
            read(ask(&self.fixture, Method::GET, path, Some(cookie), "http://board.test").await).await;
        assert_eq!(parts.status, StatusCode::OK, "{page}");
        page
    }

    async fn send(&self, cookie: &str, fields: &[(&str, &str)]) -> (StatusCode, String, String) {
        let (parts, page) = post(&self.fixture, &self.path, cookie, fields).await;
        let to = parts.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        (parts.status, to.to_owned(), page)
    }
}

#[tokio::test]
async fn a_new_value_once_with_a_reason_and_the_clients_page_says_where_it_is() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let cookie = signed_in(&desk.fixture, Role::Consultant).await;
        let client = format!("/clients/{}", desk.client);
        let secrets = desk.page(&cookie, &format!("{client}/secrets")).await;
        assert!(secrets.contains(&format!("href=\"{}\"", desk.path)) && !secrets.contains("name=\"slot-"));
        let page = desk.page(&cookie, &desk.path).await;
        assert!(page.contains("version 1 was stored") && page.contains("reception-mini"), "{page}");
        assert!(!page.contains("step_up_password"), "the session is fresh");

        let (status, _, page) = desk.send(&cookie, &[("secret", NEW)]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("id=\"reason-problem\"") && page.contains("id=\"secret-problem\""), "{page}");
        assert!(!page.contains(NEW));
        let (status, _, page) = desk.send(&cookie, &[("secret", FIRST), ("reason", "it leaked")]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("stored already") && page.contains("value=\"it leaked\""), "{page}");
        assert!(!page.contains(FIRST));
        let (status, to, _) = desk.send(&cookie, &[("secret", NEW), ("reason", "it leaked")]).await;
        assert_eq!((status, to), (StatusCode::SEE_OTHER, format!("{client}#slots")));
        let page = desk.page(&cookie, &client).await;
        assert!(page.contains("Version 2, on 0 of 1 device") && page.contains("not yet: "), "{page}");
        assert!(page.contains(&desk.path));
        let support = signed_in(&desk.fixture, Role::Support).await;
        assert!(!desk.page(&support, &client).await.contains(&desk.path), "support can't rotate");
    })
    .await;
}

#[tokio::test]
async fn a_stale_session_is_asked_for_the_password_and_that_page_never_holds_the_value() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let cookie = signed_in(&desk.fixture, Role::Consultant).await;
        desk.fixture.clock.advance(access::STEP_UP_TTL);
        assert!(desk.page(&cookie, &desk.path).await.contains("name=\"step_up_password\""));
        let filled = [("secret", NEW), ("reason", "it leaked")];
        for password in [None, Some("not the right one")] {
            let fields =
                [filled.as_slice(), password.map(|word| ("step_up_password", word)).as_slice()].concat();
            let (status, _, page) = desk.send(&cookie, &fields).await;
            assert!(status.is_client_error(), "{status}");
            assert!(page.contains("value=\"it leaked\"") && page.contains("but not the secret"), "{page}");
            assert!(!page.contains(NEW));
        }
        let password = ("step_up_password", "a long test passphrase");
        let (status, _, page) = desk.send(&cookie, &[("reason", "it leaked"), password]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("Enter the new value") && page.contains("value=\"it leaked\""), "{page}");
        let (status, ..) = desk.send(&cookie, &filled).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
    })
    .await;
}

#[tokio::test]
async fn the_page_for_first_values_replaces_nothing() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let cookie = signed_in(&desk.fixture, Role::Consultant).await;
        let slot = desk.fixture.our_slot().await.id;
        let form = [(format!("slot-{slot}"), NEW)];
        let (parts, page) =
            post(&desk.fixture, &format!("/clients/{}/secrets", desk.client), &cookie, &form).await;
        assert_eq!(parts.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("stored here already") && !page.contains(NEW), "{page}");
        assert!(desk.page(&cookie, &desk.path).await.contains("version 1 was stored"));
    })
    .await;
}
