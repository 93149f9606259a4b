//! The whole job in the browser, as the consultant does it on a call: from the one-time link to the installed state. Once
//! with scripts, where nothing is loaded again that console.md calls live, and once without.

use serde_json::json;
use tests::agent::{Agent, Joining};
use tests::board::Board;
use tests::consultant::{JoinCommand, PASSWORD};

use super::scene::sign_in;
use super::window::Window;
use crate::stage::{Database, SOON, Stage, VALUE, served};

const THEIRS: &str = "canary-9d20c3-theirs";
const BOXES: &str = "input[name=fingerprint]";

#[tokio::test]
async fn the_whole_job_live() {
    let (mut board, _relay, _folder) = served(Database::Sqlite).await;
    let window = Window::open(&board.console_url).await;
    window.allow_clipboard().await;
    welcome(&window, &board).await;
    wizard(&window).await;

    window.click("button[data-copy=command]").await;
    window.read("button[data-copy=command]", "Copied").await;
    let copied = window.until("await navigator.clipboard.readText()").await;
    let join = JoinCommand::parse(copied.as_str().unwrap()).unwrap();
    stay(&window).await;
    let (mut agent, mut joining) = join_a_mac(&board, &join).await;
    window.see(BOXES).await;
    assert_stayed(&window).await;

    let approve = window.see("form.approve button").await;
    assert!(!approve.is_enabled().await.unwrap(), "approving waits for sixteen characters");
    window.see(BOXES).await.click().await.unwrap();
    window.keys("aaaaaaaaaaaaaaaa").await;
    assert!(approve.is_enabled().await.unwrap(), "what is typed goes on in the next box");
    approve.click().await.unwrap();
    window.read(".problem", "another device").await;
    window.call("navigator.clipboard.writeText(arguments[0])", [json!(joining.fingerprint)]).await;
    window.see(BOXES).await.click().await.unwrap();
    window.control('a').await;
    window.control('v').await;
    let typed = format!("[...document.querySelectorAll('{BOXES}')].map((box) => box.value).join(' ')");
    window.until(&format!("{typed} === {:?}", joining.fingerprint)).await;
    window.click("form.approve button").await;
    window.arrive("/runbook").await;
    stay(&window).await;
    assert!(joining.process.wait(SOON).await.unwrap().success());
    agent.start().unwrap();

    runbook(&window, &agent).await;
    assert_stayed(&window).await;
    installed(&window).await;
    nothing_left_behind(&window).await;
    agent.stop().await.unwrap();
    board.stop().await.unwrap();
}

#[tokio::test]
async fn the_whole_job_without_scripts() {
    let (mut board, _relay, _folder) = served(Database::Sqlite).await;
    let window = Window::without_scripts(&board.console_url).await;
    welcome(&window, &board).await;
    let ran = window.eval("return document.documentElement.classList.contains('js')").await;
    assert_eq!(ran, false, "no script ran");
    wizard(&window).await;

    let command = window.see("#command").await.text().await.unwrap();
    let copy = "[...document.querySelectorAll('.copy')].every((one) => getComputedStyle(one).visibility === 'hidden')";
    assert_eq!(window.eval(&format!("return {copy}")).await, true, "a button that can't work isn't there");
    let (mut agent, mut joining) = join_a_mac(&board, &JoinCommand::parse(&command).unwrap()).await;
    window.click("nav a[href='/enrollments']").await;
    window.arrive("/enrollments").await;
    window.see(BOXES).await;
    type_fingerprint(&window, "AAAA AAAA AAAA AAAA").await;
    window.read(".problem", "another device").await;
    type_fingerprint(&window, &joining.fingerprint).await;
    window.arrive("/runbook").await;
    assert!(joining.process.wait(SOON).await.unwrap().success());
    agent.start().unwrap();

    runbook(&window, &agent).await;
    installed(&window).await;
    agent.stop().await.unwrap();
    board.stop().await.unwrap();
}

#[tokio::test]
async fn a_secret_that_was_typed_stays_nowhere_in_the_browser() {
    const FIELD: &str = "main input[type=password]";
    const NEWER: &str = "canary-newer-value";
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.consultant.create_client("Example Client", &["tool"], &[]).await.unwrap();
    let window = sign_in(&stage.board).await;
    window.go(&format!("/clients/{client}/secrets")).await;
    window.fill(FIELD, "WRONG canary").await;
    window.click("main form.card button.primary").await;
    window.see(".problem").await;
    assert!(!window.source().await.contains("canary"), "a value that was refused isn't sent back");
    window.fill(FIELD, VALUE).await;
    window.click("main form.card button.primary").await;
    window.see("live-region#client").await;
    nothing_left_behind(&window).await;
    window.eval("history.go(-2)").await;
    window.arrive("/secrets").await;
    window.see("main .rows .is-done").await;
    nothing_left_behind(&window).await;
    window.click("main .rows a.button").await;
    window.see("#secret").await;
    window.fill("#secret", "WRONG canary").await;
    window.fill("#reason", "it was in a screenshot").await;
    window.click("main form button.primary").await;
    window.see("#secret-problem").await;
    assert!(!window.source().await.contains("canary"), "a value that was refused isn't sent back");
    window.fill("#secret", NEWER).await;
    window.click("main form button.primary").await;
    window.see("live-region#client").await;
    nothing_left_behind(&window).await;
    assert!(!window.source().await.contains(NEWER));
    window.eval("history.go(-2)").await;
    window.arrive("/rotate").await;
    let again = window.see("#secret").await;
    assert_eq!(again.value().await.unwrap().as_deref(), Some(""), "going back shows none");
}

async fn welcome(window: &Window, board: &Board) {
    window.go(&board.welcome).await;
    window.fill("#password", PASSWORD).await;
    window.fill("#repeat", PASSWORD).await;
    window.click("main button").await;
    window.arrive("/clients").await;
}

/// From the empty list to the page with the join command.
async fn wizard(window: &Window) {
    window.click("main a[href='/clients/new']").await;
    window.fill("#name", "Example Client").await;
    window.click("main button.primary").await;
    window.arrive("/package").await;
    window.click("#tier-starter").await;
    window.click("main button.primary").await;
    window.arrive("/integrations").await;
    window.click("#c-asked").await;
    window.fill("#param-asked-WORKSPACE", "Main Office").await;
    window.click("main button.primary").await;
    window.click(".summary a[href='#param-asked-WORKSPACE']").await;
    let field = window.see("#param-asked-WORKSPACE").await;
    assert_eq!(field.value().await.unwrap().as_deref(), Some("Main Office"), "what was typed is kept");
    field.clear().await.unwrap();
    field.send_keys("office").await.unwrap();
    window.click("main button.primary").await;
    window.arrive("/secrets").await;
    window.fill("main input[type=password]", VALUE).await;
    window.click("main form.card button.primary").await;
    window.click("form[action$='/join-codes'] button").await;
    window.arrive("/join-codes").await;
}

async fn join_a_mac(board: &Board, join: &JoinCommand) -> (Agent, Joining) {
    let agent = Agent::new(&board.layout, "mac", "UUID-OF-mac");
    let joining = agent.join(join).await.unwrap();
    (agent, joining)
}

/// Box by box, and sends it.
async fn type_fingerprint(window: &Window, fingerprint: &str) {
    for (at, group) in fingerprint.split(' ').enumerate() {
        let field = window.see(&format!("{BOXES}:nth-of-type({})", at + 1)).await;
        field.clear().await.unwrap();
        field.send_keys(group).await.unwrap();
    }
    window.click("form.approve button").await;
}

/// Watches the runbook up to its end; the consultant's step is done on the Mac.
async fn runbook(window: &Window, agent: &Agent) {
    window.read(".tally", "1 needs you").await;
    // A card that came while one was looking is folded, so that nothing under it moves.
    if window.eval("return document.querySelector('#next details').open").await == false {
        window.click("#next summary").await;
    }
    window.read("#next .ref code", "op://Example Client/Example/their-key").await;
    agent.paste("asked/THEIR_KEY", THEIRS).await.unwrap();
    window.read(".tally", "12 of 12 done").await;
}

/// What support sees, and what the audit log kept of it.
async fn installed(window: &Window) {
    window.click(".crumbs a[href^='/clients/']").await;
    window.read(".sentence", "as wanted; ").await;
    window.click("nav a[href='/audit']").await;
    window.arrive("/audit").await;
    window.read(".verdict", "holds").await;
    window.read("tbody", "enrollment.approved").await;
}

async fn nothing_left_behind(window: &Window) {
    let kept = window.eval("return JSON.stringify([{ ...localStorage }, { ...sessionStorage }])").await;
    assert_eq!(kept, "[{},{}]");
    assert!(!window.source().await.contains(VALUE));
}

/// A mark that goes when the page is loaded again.
async fn stay(window: &Window) {
    window.eval("window.stayed = true").await;
}

async fn assert_stayed(window: &Window) {
    assert_eq!(window.eval("return window.stayed").await, true, "the page was not loaded again");
}
