//! The copy button in a real browser: the value is in the clipboard, and nowhere else; alone, and with a second person in a
//! browser of their own.

use serde_json::Value;
use tests::consultant::PASSWORD;
use tests::process::output;
use tokio::process::Command;

use super::every_page::check;
use super::scene::sign_in;
use super::window::Window;
use crate::stage::{Database, SOON, Stage, VALUE};

const WHY: &str = "The vendor wants it typed";
const CLIPBOARD: &str = "await navigator.clipboard.readText()";

/// Posts to an address from the page that is shown, as any script in it could; gives the answer's status.
async fn posted(window: &Window, path: &str) -> Value {
    let script = "const headers = { accept: 'text/plain, application/problem+json' };
        const body = new URLSearchParams({ reason: 'it is typed' });
        return (await fetch(given[0], { method: 'POST', headers, body })).status";
    window.settle(script, [path.into()]).await
}

/// Posts to it as a program with an API token; gives the answer's status.
async fn with_token(stage: &Stage, token: &str, path: &str) -> u16 {
    let http = reqwest::Client::builder().timeout(SOON).build().unwrap();
    let request = http.post(format!("{}{path}", stage.board.console_url)).bearer_auth(token);
    let request = request.header("accept", "text/plain, application/problem+json");
    let answer = request.form(&[("reason", WHY)]).send().await.unwrap();
    let status = answer.status().as_u16();
    assert!(!answer.text().await.unwrap().contains(VALUE));
    status
}

async fn fill_clipboard(window: &Window, text: &str) {
    window.settle("await navigator.clipboard.writeText(given[0])", [text.into()]).await;
}

/// Clicks the button of the form that is shown; the clipboard has the value then.
async fn copy(window: &Window) {
    fill_clipboard(window, "something else").await;
    window.click("secret-copy form .acts button").await;
    let copied = format!("{CLIPBOARD} === {VALUE:?}");
    window.until(&copied).await;
}

/// Searches the page, the browser's stores and its network log. Answers to `/copy` came and are kept by nobody.
async fn nowhere_else(window: &Window) {
    let script = "const fields = [...document.querySelectorAll('input, textarea')].map((field) => field.value);
        const kept = [{ ...localStorage }, { ...sessionStorage }, await caches.keys(), await indexedDB.databases()];
        return JSON.stringify([document.documentElement.outerHTML, document.title, fields, kept, location.href])";
    let page = window.settle(script, []).await;
    assert!(!page.as_str().unwrap().contains(VALUE), "not in the page or what it keeps");
    let log = window.network().await;
    assert!(log.iter().all(|message| !message.to_string().contains(VALUE)), "not in the network log");
    let mut copies = 0;
    for message in log.iter().filter(|message| message["method"] == "Network.responseReceived") {
        let answer = &message["params"]["response"];
        if answer["url"].as_str().unwrap().ends_with("/copy") && answer["status"] == 200 {
            assert_eq!(answer["headers"]["cache-control"], "no-store", "{answer}");
            assert_eq!(answer["fromDiskCache"], false, "{answer}");
            copies += 1;
        }
    }
    assert!(copies > 0, "the log has the copy");
}

/// A window of another user, signed in by their one-time link.
async fn invited(stage: &Stage, email: &str, role: &str) -> Window {
    let add = ["user", "add", email, "--roles", role, "--console-url", ""];
    let said = stage.board.beside(&add, "").await.unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let link = &said[said.find("/welcome/").expect("it prints a link")..];
    let window = Window::open(&stage.board.console_url).await;
    window.go(link.trim()).await;
    window.fill("#password", PASSWORD).await;
    window.fill("#repeat", PASSWORD).await;
    window.click("main button").await;
    window.arrive("/clients").await;
    window
}

#[tokio::test]
async fn a_copy_is_in_the_clipboard_and_nowhere_else() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let window = sign_in(&stage.board).await;
    window.allow_clipboard().await;
    window.go(&format!("/clients/{client}/secrets")).await;
    window.network().await;
    window.click("details[id^=copy-] summary").await;
    window.fill("secret-copy input[name=reason]", WHY).await;
    copy(&window).await;
    window.read("secret-copy output", "Copied.").await;
    nowhere_else(&window).await;

    let action = "return document.querySelector('secret-copy form').getAttribute('action')";
    let path = window.eval(action).await.as_str().unwrap().to_owned();
    let token = stage.board.make_token("a program", "consultant").await.unwrap();
    assert_eq!(with_token(&stage, &token, &path).await, 401);
    let support = invited(&stage, "support@example.com", "support").await;
    assert_eq!(posted(&support, &path).await, 403);
    support.go(&format!("/clients/{client}")).await;
    support.see("live-region#client").await;
    assert!(!support.source().await.contains("secret-copy"), "support is offered none");

    for _ in 1..10 {
        window.fill("secret-copy input[name=reason]", WHY).await;
        copy(&window).await;
        // The button works again, and what was typed is gone.
        window.until("document.querySelector('secret-copy input[name=reason]').value === ''").await;
        window.until("!document.querySelector('secret-copy .acts button').disabled").await;
    }
    fill_clipboard(&window, "something else").await;
    window.fill("secret-copy input[name=reason]", WHY).await;
    window.click("secret-copy form .acts button").await;
    window.read("secret-copy output", "within an hour").await;
    assert_eq!(window.until(CLIPBOARD).await, "something else", "the eleventh is refused");
    nowhere_else(&window).await;
}

/// As if everybody had gone for coffee: the next thing that matters wants the password again.
async fn sessions_age(stage: &Stage) {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=30); \
                  db.execute('UPDATE sessions SET fresh_at = 0'); db.commit()";
    let database = stage.board.layout.path("board/board.db");
    output(Command::new("python3").args(["-c", script]).arg(database)).await.unwrap();
}

/// Asks for a copy on the client's page, and stays on the page with what was asked for.
async fn ask(window: &Window, client: &str) {
    window.go(&format!("/clients/{client}/secrets")).await;
    window.click("details[id^=copy-] summary").await;
    window.fill("form[action$='/ask'] input[name=reason]", WHY).await;
    window.click("form[action$='/ask'] button").await;
    window.arrive("/approvals").await;
    window.read("#approvals .rows", "waits for a second person").await;
    window.eval("window.stayed = true").await;
}

#[tokio::test]
async fn a_second_person_approves_a_copy_in_a_browser_of_their_own() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let client = stage.client().await;
    let first = sign_in(&stage.board).await;
    first.allow_clipboard().await;
    let second = invited(&stage, "second@example.com", "consultant").await;
    second.go("/approvals").await;
    second.read(".empty h2", "Nobody asks").await;
    let mut problems = check(&second, "approvals-empty").await;

    first.go(&format!("/clients/{client}")).await;
    problems.extend(check(&first, "approvals-client-alone").await);
    first.click("form[action$='/second-person'] button").await;
    first.read("#about + dl", "Needs a second person").await;
    first.click("#second-person-off summary").await;
    problems.extend(check(&first, "approvals-client").await);
    first.go(&format!("/clients/{client}/secrets")).await;
    first.click("details[id^=copy-] summary").await;
    problems.extend(check(&first, "approvals-secrets").await);

    second.go(&format!("/clients/{client}")).await;
    second.eval("window.stayed = true").await;
    ask(&first, &client).await;
    assert_eq!(first.eval("return document.querySelectorAll('form[action$=\"/approve\"]').length").await, 0);
    problems.extend(check(&first, "approvals-waiting").await);
    second.read("#to-approve", "1").await;
    assert_eq!(second.eval("return window.stayed").await, true, "the badge came to the page that was open");

    sessions_age(&stage).await;
    second.click("nav a[href='/approvals']").await;
    second.read("#approvals article h2", "Copy").await;
    problems.extend(check(&second, "approvals-to-decide").await);
    second.fill("#approvals input[type=password]", PASSWORD).await;
    second.click("#approvals article button.primary").await;
    second.until("!document.querySelector('#approvals article')").await;

    first.see("secret-copy form").await;
    assert_eq!(first.eval("return window.stayed").await, true, "it came without loading the page again");
    problems.extend(check(&first, "approvals-approved").await);
    let action = "return document.querySelector('secret-copy form').getAttribute('action')";
    let path = first.eval(action).await.as_str().unwrap().to_owned();
    assert_eq!(posted(&second, &path).await, 403, "who approved doesn't copy");
    first.network().await;
    first.fill("secret-copy input[type=password]", PASSWORD).await;
    copy(&first).await;
    first.read("#approvals .rows", "given to your browser").await;
    nowhere_else(&first).await;
    assert_eq!(posted(&first, &path).await, 409, "once");
    problems.extend(check(&first, "approvals-used").await);

    ask(&first, &client).await;
    second.go("/approvals").await;
    second.click("#approvals button[formaction$='/decline']").await;
    second.until("!document.querySelector('#approvals article')").await;
    first.read("#approvals .rows", "declined by second@example.com").await;
    problems.extend(check(&first, "approvals-declined").await);

    let token = stage.board.make_token("a program", "consultant").await.unwrap();
    let approve = path.replace("/copy", "/approve");
    for path in [&path, &approve] {
        assert_eq!(with_token(&stage, &token, path).await, 401, "{path}");
    }
    let support = invited(&stage, "support@example.com", "support").await;
    assert_eq!(posted(&support, &approve).await, 403);
    assert_eq!(posted(&support, &path).await, 403);
    // A hint for password managers: who is asked again is named in the frame, not in each form.
    problems.retain(|problem| !problem.contains("hidden) username fields"));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
