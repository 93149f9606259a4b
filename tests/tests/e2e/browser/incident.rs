//! An incident in the page: the board is frozen, every page says so, a secret gets a new value, and the freeze is lifted.

use serde_json::Value;

use super::every_page::check;
use super::scene::sign_in;
use super::window::Window;
use crate::stage::{Database, Stage};
use tests::consultant::PASSWORD;

async fn send(window: &Window, form: &str, why: &str) {
    window.fill("#reason", why).await;
    let password = format!("{form} input[type=password]");
    if window
        .eval(&format!("return document.querySelector('{}') !== null", password.replace('\'', "\"")))
        .await
        == true
    {
        window.fill(&password, PASSWORD).await;
    }
    window.click(&format!("{form} button")).await;
}

#[tokio::test]
async fn a_board_is_frozen_and_lifted() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let window = sign_in(&stage.board).await;
    window.go("/clients").await;
    window.click("nav a[href='/incident']").await;
    window.read("main", "1 of 1 to rotate").await;
    send(&window, "form[action='/incident']", "The server was broken into").await;
    window.read("main", "The server was broken into").await;
    window.read(".banner", "The board is frozen").await;
    let mut problems = check(&window, "incident-frozen").await;
    window.go(&format!("/clients/{client}")).await;
    window.read(".banner", "The board is frozen").await;
    problems.extend(check(&window, "incident-client").await);
    stage.consultant.rotate_secret(&client, "canary-after-the-incident", "exposed").await.unwrap();
    window.go("/incident").await;
    window.read("main", "0 of 1 to rotate").await;
    send(&window, "form[action='/incident/lift']", "It is another server").await;
    window.read("main", "Freeze the board").await;
    window.go("/clients").await;
    assert_eq!(window.eval("return document.querySelector('.banner')").await, Value::Null, "lifted");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
