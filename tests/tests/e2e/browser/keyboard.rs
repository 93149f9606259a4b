//! Each task with the keyboard alone: Tab, Enter, Space and what is typed. Wherever the focus comes by, it can be seen.

use tests::agent::Agent;
use tests::board::EMAIL;
use tests::consultant::{Consultant, JoinCommand, PASSWORD};
use thirtyfour::Key;

use super::window::Window;
use crate::stage::{Database, SOON, VALUE, served};

const PRIMARY: &str = "main button.primary";

#[tokio::test]
async fn sign_in_wizard_approval_and_a_skipped_step_with_the_keyboard_alone() {
    let (board, _relay, _folder) = served(Database::Sqlite).await;
    Consultant::welcome(&board.console_url, &board.welcome).await.unwrap();
    let window = Window::open(&board.console_url).await;
    window.go("/sign-in").await;
    enter(&window, "#email", EMAIL).await;
    enter(&window, "#password", PASSWORD).await;
    window.keys(Key::Enter).await;
    window.arrive("/clients").await;

    tab_to(&window, ".skip").await;
    window.keys(Key::Enter).await;
    press(&window, "main a[href='/clients/new']").await;
    window.arrive("/clients/new").await;
    enter(&window, "#name", "Example Client").await;
    window.keys(Key::Enter).await;
    window.arrive("/package").await;
    tab_to(&window, "[name=tier]").await;
    window.keys(" ").await;
    press(&window, PRIMARY).await;
    window.arrive("/integrations").await;
    tab_to(&window, "#c-asked").await;
    window.keys(" ").await;
    enter(&window, "#param-asked-WORKSPACE", "office").await;
    press(&window, PRIMARY).await;
    window.arrive("/secrets").await;
    enter(&window, "main input[type=password]", VALUE).await;
    window.keys(Key::Enter).await;
    window.see("live-region#client").await;
    press(&window, "form[action$='/join-codes'] button").await;
    window.arrive("/join-codes").await;

    let join = JoinCommand::parse(&window.see("#command").await.text().await.unwrap()).unwrap();
    let mut agent = Agent::new(&board.layout, "mac", "UUID-OF-mac");
    let mut joining = agent.join(&join).await.unwrap();
    window.see("input[name=fingerprint]").await;
    enter(&window, "input[name=fingerprint]", &joining.fingerprint.replace(' ', "")).await;
    press(&window, "form.approve button").await;
    window.arrive("/runbook").await;
    assert!(joining.process.wait(SOON).await.unwrap().success());
    agent.start().unwrap();

    window.read(".tally", "1 needs you").await;
    if window.eval("return document.querySelector('#next details').open").await == false {
        press(&window, "#next summary").await;
    }
    press(&window, "#next .manual > .fold > summary").await;
    enter(&window, "#next input[name=reason]", "They have none").await;
    window.keys(Key::Enter).await;
    window.read(".steps", "They have none").await;
    agent.stop().await.unwrap();
}

async fn enter(window: &Window, selector: &str, text: &str) {
    tab_to(window, selector).await;
    window.keys(text).await;
}

async fn press(window: &Window, selector: &str) {
    tab_to(window, selector).await;
    window.keys(Key::Enter).await;
}

/// Tabs on to the first element of this selector that the focus comes by.
async fn tab_to(window: &Window, selector: &str) {
    window.until(&format!("document.querySelector(\"{selector}\")")).await;
    let at_focus = format!(
        "const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
        const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1 && style.visibility === 'visible'
            && box.width > 0 && box.bottom > 0 && box.top < innerHeight;
        return [at.matches(\"{selector}\"), seen || at === document.body, at.outerHTML.slice(0, 120)]"
    );
    for _ in 0..100 {
        window.keys(Key::Tab).await;
        let at = window.eval(&at_focus).await;
        assert_eq!(at[1], true, "the focus is seen at {}", at[2]);
        if at[0] == true {
            return;
        }
    }
    panic!("the Tab key doesn't come by {selector}");
}
