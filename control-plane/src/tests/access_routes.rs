//! Step-up, as a browser without scripts meets it.

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request, StatusCode, header};
use std::net::SocketAddr;
use tower::ServiceExt as _;

use super::signed_in;
use crate::access::{self, Role};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::router;
use crate::testing::{Fixture, TestDevice};

/// Status and body of a form that a page of ours posts.
async fn post(fixture: &Fixture, cookie: &str, path: &str, form: &str, accept: &str) -> (StatusCode, String) {
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
        fixture.clock.advance(access::STEP_UP_TTL);

        let (status, asked) = post(&fixture, &cookie, &path, "fingerprint=7Q4K&fingerprint=M2XP", HTML).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(
            asked.contains(&format!("action=\"{path}\"")) && asked.contains("step_up_password"),
            "{asked}"
        );
        assert!(asked.contains("value=\"7Q4K\"") && asked.contains("value=\"M2XP\""), "{asked}");

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
        fixture.clock.advance(std::time::Duration::from_secs(901));
        let (status, _) = post(&fixture, &cookie, &path, right, json).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(actions(&fixture, Action::StepUpRefused).await, 10);
    })
    .await;
}
