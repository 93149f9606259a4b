//! Providers in the browser: the operator's page, and what a client's page says and does about its key. Neither the
//! management key nor a client's key is anywhere to be read.

use std::time::Duration;

use axum::http::{Method, StatusCode};

use super::hostile::Log;
use super::{ask, post, read, signed_in};
use crate::access::{self, Role};
use crate::audit;
use crate::db::testing::on_both;
use crate::providers::KeyState;
use crate::providers::tests::{Desk, MANAGEMENT};

/// A part of the management key and of every key that the stand-in makes.
const CANARY: &str = "canary";

const NOTHING: &[(&str, &str)] = &[];
const PASSWORD: (&str, &str) = ("step_up_password", "a long test passphrase");

async fn page(desk: &Desk, path: &str, cookie: &str) -> String {
    let answer = ask(&desk.fixture, Method::GET, path, Some(cookie), "http://board.test").await;
    let (parts, page) = read(answer).await;
    assert_eq!(parts.status, StatusCode::OK, "{path}: {page}");
    page
}

#[tokio::test]
async fn from_the_management_key_to_the_clients_numbers_and_nothing_shows_a_key() {
    on_both(|db| async move {
        let log = Log::default();
        let listening = log.start();
        let desk = Desk::new(db).await;
        let operator = signed_in(&desk.fixture, Role::Operator).await;
        let consultant = signed_in(&desk.fixture, Role::Consultant).await;
        let support = signed_in(&desk.fixture, Role::Support).await;
        let client = format!("/clients/{}", desk.client);
        let action = |name: &str| format!("{client}/openrouter/{name}");
        let mut seen =
            vec![page(&desk, "/providers", &operator).await, page(&desk, &client, &consultant).await];
        assert!(seen[0].contains("Without one, consultants enter"), "{}", seen[0]);
        assert!(seen[1].contains("The board has made no key for this client"), "{}", seen[1]);

        let (parts, _) = post(&desk.fixture, "/providers", &operator, &[("secret", MANAGEMENT)]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        desk.work().await;
        desk.read(12.4).await;
        let shown = page(&desk, &client, &consultant).await;
        assert!(
            shown.contains("This month: $12.40 of $50.00, read <time") && shown.contains("in use"),
            "{shown}"
        );
        seen.push(shown);
        let seen_by_support = page(&desk, &client, &support).await;
        assert!(
            seen_by_support.contains("$12.40") && !seen_by_support.contains("/openrouter/"),
            "{seen_by_support}"
        );
        desk.read(40.0).await;
        seen.push(page(&desk, &client, &consultant).await);
        assert!(seen[3].contains("near its limit"), "from 80 % on: {}", seen[3]);

        for (name, fields, words) in [
            ("limit", &[("limit", "$75.50")][..], "of $75.50"),
            ("disable", NOTHING, "disabled"),
            ("enable", NOTHING, "in use"),
        ] {
            let (parts, answer) = post(&desk.fixture, &action(name), &consultant, fields).await;
            assert_eq!(parts.status, StatusCode::SEE_OTHER, "{name}: {answer}");
            let shown = page(&desk, &client, &consultant).await;
            assert!(shown.contains(words), "{name}: {shown}");
            seen.push(shown);
        }
        desk.fixture.clock.advance(access::STEP_UP_TTL);
        let (parts, asked) = post(&desk.fixture, &action("delete"), &consultant, NOTHING).await;
        assert_eq!(parts.status, StatusCode::UNAUTHORIZED, "a deletion wants a fresh session");
        seen.push(asked);
        let (parts, _) = post(&desk.fixture, &action("delete"), &consultant, &[PASSWORD]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        assert_eq!(desk.key().await.state, KeyState::Deleted);
        let (parts, _) = post(&desk.fixture, &action("make"), &consultant, NOTHING).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        desk.work().await;
        assert_eq!(desk.key().await.state, KeyState::Stored);

        let runbook = format!("/devices/{}/runbook", desk.device);
        for path in [client.as_str(), runbook.as_str(), "/audit"] {
            seen.push(page(&desk, path, &consultant).await);
        }
        for path in ["/api/v1/state".to_owned(), format!("/api/v1{client}/state")] {
            seen.push(page(&desk, &path, &consultant).await);
        }
        seen.push(page(&desk, "/providers", &operator).await);
        for text in &seen {
            assert!(!text.contains(CANARY), "{text}");
        }
        let mut tx = desk.fixture.app.db.read().await.unwrap();
        for stored in audit::page(&mut tx, None, 10_000).await.unwrap() {
            let entry = format!("{:?}", stored.entry);
            assert!(!entry.contains(CANARY), "{entry}");
        }
        drop(listening);
        assert_eq!(log.lines_with(CANARY), 0);
    })
    .await;
}

#[tokio::test]
async fn the_page_that_asks_for_the_password_does_not_hold_the_management_key() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let operator = signed_in(&desk.fixture, Role::Operator).await;
        desk.fixture.clock.advance(access::STEP_UP_TTL + Duration::from_secs(1));
        let typed = ("secret", MANAGEMENT);
        for fields in [&[typed][..], &[typed, ("step_up_password", "wrong")]] {
            let (parts, asked) = post(&desk.fixture, "/providers", &operator, fields).await;
            assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
            assert!(!asked.contains(CANARY) && asked.contains("but not the secret"), "{asked}");
        }
        let (parts, _) = post(&desk.fixture, "/providers", &operator, &[typed, PASSWORD]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        let (parts, again) = post(&desk.fixture, "/providers", &operator, &[("secret", "canary")]).await;
        assert_eq!(parts.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!again.contains(CANARY) && again.contains("sk-or-"), "{again}");
        let (parts, _) = post(&desk.fixture, "/providers/remove", &operator, NOTHING).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER);
        assert!(page(&desk, "/providers", &operator).await.contains("Without one"));
    })
    .await;
}

#[tokio::test]
async fn rotating_by_hand_says_what_becomes_of_the_boards_key() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let operator = signed_in(&desk.fixture, Role::Operator).await;
        let consultant = signed_in(&desk.fixture, Role::Consultant).await;
        post(&desk.fixture, "/providers", &operator, &[("secret", MANAGEMENT)]).await;
        desk.work().await;
        let client = format!("/clients/{}", desk.client);
        let shown = page(&desk, &client, &consultant).await;
        assert!(shown.contains("in use") && !shown.contains("typed in its place"), "{shown}");
        let rotate = format!("{client}/secrets/{}/rotate", desk.slot().await.id);
        let asked = page(&desk, &rotate, &consultant).await;
        assert!(
            asked.contains("takes the place of the board’s key") && asked.contains("#openrouter"),
            "{asked}"
        );
        let typed = [("secret", "sk-or-v1-canary-typed-by-hand-0001"), ("reason", "it leaked")];
        let (parts, answer) = post(&desk.fixture, &rotate, &consultant, &typed).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER, "{answer}");
        let shown = page(&desk, &client, &consultant).await;
        assert!(shown.contains("somebody typed in its place") && !shown.contains(CANARY), "{shown}");

        for name in ["delete", "make"] {
            let path = format!("{client}/openrouter/{name}");
            let (parts, answer) = post(&desk.fixture, &path, &consultant, NOTHING).await;
            assert_eq!(parts.status, StatusCode::SEE_OTHER, "{answer}");
        }
        desk.work().await;
        let shown = page(&desk, &client, &consultant).await;
        assert!(
            shown.contains("in use") && !shown.contains("typed in its place"),
            "the board's again: {shown}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_scope_without_openrouter_says_that_the_key_goes_on_working() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let operator = signed_in(&desk.fixture, Role::Operator).await;
        let consultant = signed_in(&desk.fixture, Role::Consultant).await;
        post(&desk.fixture, "/providers", &operator, &[("secret", MANAGEMENT)]).await;
        desk.work().await;
        let client = format!("/clients/{}", desk.client);
        let path = format!("{client}/integrations");
        let fewer = ("component", "base");
        let (_, shown) = post(&desk.fixture, &path, &consultant, &[fewer]).await;
        assert!(shown.contains("it goes on working at its provider"), "{shown}");
        let (_, basis) = shown.split_once("name=\"difference\" value=\"").unwrap();
        let seen = ("difference", basis.split('"').next().unwrap());
        let (parts, answer) = post(&desk.fixture, &path, &consultant, &[fewer, seen]).await;
        assert_eq!(parts.status, StatusCode::SEE_OTHER, "{answer}");
        let shown = page(&desk, &client, &consultant).await;
        assert!(
            shown.contains("isn’t in this client’s scope") && shown.contains("Disable the key"),
            "{shown}"
        );
    })
    .await;
}
