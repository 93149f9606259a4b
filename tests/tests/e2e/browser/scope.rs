//! Changing the scope of a client whose Mac is on: what it changes is read, taken back, and confirmed, with scripts and
//! without.

use super::scene::sign_in;
use super::window::Window;
use crate::stage::{Database, SOON, Stage};
use tests::board::{Board, EMAIL};
use tests::consultant::PASSWORD;

#[tokio::test]
async fn a_changed_scope_is_read_before_anything_runs() {
    change(async |board| sign_in(board).await).await;
}

#[tokio::test]
async fn a_changed_scope_is_read_before_anything_runs_without_scripts() {
    change(async |board: &Board| {
        let window = Window::without_scripts(&board.console_url).await;
        window.go("/sign-in").await;
        window.fill("#email", EMAIL).await;
        window.fill("#password", PASSWORD).await;
        window.click("main button").await;
        window.arrive("/clients").await;
        window
    })
    .await;
}

async fn change(open: impl AsyncFnOnce(&Board) -> Window) {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.consultant.create_client("Example Client", &["ground"], &[]).await.unwrap();
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&client, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();

    let window = open(&stage.board).await;
    window.go(&format!("/clients/{client}/integrations")).await;
    window.click("#c-either").await;
    window.click("#choice-either-sign-THEIR_SIGN").await;
    window.click("main button.primary").await;
    window.read("h1", "What this changes").await;
    window.read(".changes", "1 step for the agent").await;
    window.read(".changes", "1 step for you").await;
    window.read(".rows", "op://Example Client/Either/token").await;
    assert!(!agent.home().join("either").exists(), "nothing runs before it is confirmed");

    window.click("form.decide button[name=back]").await;
    let ticked = window.see("#c-either").await;
    assert!(ticked.is_selected().await.unwrap(), "what was typed is kept");
    window.click("main button.primary").await;
    window.click("form.decide button.primary").await;
    window.arrive("/secrets").await;
    window.go(&format!("/devices/{device}/runbook")).await;
    window.read(".tally", "1 needs you").await;
    // A card that came while one was looking is folded, so that nothing under it moves.
    if window.see("#next details").await.attr("open").await.unwrap().is_none() {
        window.click("#next summary").await;
    }
    window.read("#next .ref code", "op://Example Client/Either/token").await;
    assert!(agent.home().join("either").exists(), "the agent did its step");
    agent.stop().await.unwrap();
}
