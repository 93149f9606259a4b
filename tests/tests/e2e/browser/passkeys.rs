//! Passkeys with Chromium's virtual authenticator: registered, used for a step-up and for signing in, required, and lost.

use serde_json::json;
use tests::board::EMAIL;
use tests::consultant::PASSWORD;

use super::every_page::check;
use super::window::Window;
use crate::stage::{Database, Stage};

/// A window at the console's name: browsers keep no passkeys for an IP address.
async fn window(stage: &Stage) -> Window {
    let window = Window::open(&stage.board.console_url.replace("127.0.0.1", "localhost")).await;
    window.devtools("WebAuthn.enable", json!({})).await;
    window
}

/// Plugs in an authenticator that knows its owner by a finger; gives its id.
async fn plug_in(window: &Window) -> String {
    let options = json!({
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
        "isUserVerified": true, "automaticPresenceSimulation": true,
    });
    let added = window.devtools("WebAuthn.addVirtualAuthenticator", json!({ "options": options })).await;
    added["authenticatorId"].as_str().unwrap().to_owned()
}

async fn with_password(window: &Window) {
    window.go("/sign-in").await;
    window.fill("#email", EMAIL).await;
    window.fill("#password", PASSWORD).await;
    window.click("main form[action='/sign-in'] button").await;
}

async fn register(window: &Window, name: &str) {
    window.go("/account").await;
    window.fill("#name", name).await;
    window.click("[data-passkey=register]").await;
    window.read("main table", name).await;
}

#[tokio::test]
async fn a_passkey_signs_in_is_required_and_is_replaced_by_a_link() {
    let stage = Stage::new(Database::Sqlite).await;
    let window = window(&stage).await;
    with_password(&window).await;
    window.arrive("/clients").await;
    window.go("/account").await;
    let mut problems = check(&window, "account-empty").await;
    let authenticator = plug_in(&window).await;
    register(&window, "Example laptop").await;
    problems.extend(check(&window, "account").await);

    let touches = json!({ "authenticatorId": authenticator, "enabled": false });
    window.devtools("WebAuthn.setAutomaticPresenceSimulation", touches).await;
    window.click("form[action='/sign-out'] button").await;
    window.arrive("/sign-in").await;
    problems.extend(check(&window, "sign-in-passkey").await);
    // The list of the email field may have it by then.
    let touches = json!({ "authenticatorId": authenticator, "enabled": true });
    window.devtools("WebAuthn.setAutomaticPresenceSimulation", touches).await;
    window.eval("document.querySelector('[data-passkey=sign-in]')?.click()").await;
    window.arrive("/clients").await;

    window.go("/users").await;
    window.click("form[action='/passkeys/required'] button:not([data-passkey])").await;
    window.read("#require + .lead", "Required").await;
    problems.extend(check(&window, "passkeys-required").await);
    window.devtools("WebAuthn.removeVirtualAuthenticator", json!({ "authenticatorId": authenticator })).await;
    window.click("form[action='/sign-out'] button").await;
    window.arrive("/sign-in").await;
    with_password(&window).await;
    window.read(".summary", "requires passkeys").await;
    problems.extend(check(&window, "passkey-needed").await);

    let link = stage.board.sign_in_link().await.unwrap();
    plug_in(&window).await;
    window.go(&link).await;
    window.fill("#passkey-name", "Example phone").await;
    window.click("[data-passkey=register]").await;
    window.arrive("/clients").await;
    window.go("/account").await;
    window.read("main table", "Example phone").await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test]
async fn an_ip_address_is_told_where_passkeys_work() {
    let stage = Stage::new(Database::Sqlite).await;
    let window = Window::open(&stage.board.console_url).await;
    window.go("/sign-in").await;
    window.click("[data-passkey=sign-in]").await;
    window.read("main output", "Passkeys work at http://localhost:").await;
}
