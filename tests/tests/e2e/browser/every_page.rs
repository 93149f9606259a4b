//! What has to hold on every page, light, dark and on a phone: nothing for axe-core to say, no sideways scrolling, nothing
//! from elsewhere, nothing heavy, no complaint of the browser, and nothing that people or devices wrote is run.

use std::path::PathBuf;

use data_encoding::BASE64;
use serde_json::Value;

use super::pages::{Page, pages};
use super::scene::{Names, Scene, sign_in};
use super::window::{Look, Window};
use crate::stage::{Database, Stage, VALUE};

const PAGE_LIMIT: u64 = 80 * 1024;
const SCRIPT_LIMIT: u64 = 20 * 1024;

/// Pages that a form answers with.
#[derive(Clone, Copy, Debug)]
enum Answer {
    JoinCode,
    WrongFingerprint,
    FieldError,
    ScopeChange,
    NotFound,
    Planned,
    PlanPage,
    PauseForm,
    Paused,
    ClientPaused,
}

#[tokio::test]
async fn every_page_keeps_the_rules() {
    walk(&Names::plain(), "plain").await;
}

#[tokio::test]
async fn every_page_keeps_the_rules_with_hostile_data() {
    walk(&Names::hostile(), "hostile").await;
}

#[tokio::test]
async fn a_list_with_nothing_in_it_says_what_to_do_first() {
    let mut stage = Stage::new(Database::Sqlite).await;
    let window = sign_in(&stage.board).await;
    let mut problems = Vec::new();
    for path in ["/clients", "/enrollments"] {
        window.go(path).await;
        window.see(".empty h2").await;
        problems.extend(check(&window, &format!("empty{}", path.replace('/', "-"))).await);
    }
    let client = stage.consultant.create_client("Example Client", &["ground"], &[]).await.unwrap();
    for page in ["", "/package", "/integrations", "/secrets"] {
        window.go(&format!("/clients/{client}{page}")).await;
        problems.extend(check(&window, &format!("empty-clients-id{}", page.replace('/', "-"))).await);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test]
async fn a_full_page_of_the_audit_log_keeps_the_rules() {
    let mut stage = Stage::new(Database::Sqlite).await;
    for number in 0..60 {
        let name = format!("Example Client {number}");
        stage.consultant.create_client(&name, &["tool"], &[]).await.unwrap();
    }
    let window = sign_in(&stage.board).await;
    window.go("/audit").await;
    window.see("main a.button[href*='/audit']").await;
    let problems = check(&window, "full-audit").await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test]
async fn many_clients_come_in_pages_that_keep_the_rules() {
    let mut stage = Stage::new(Database::Sqlite).await;
    for number in 0..120 {
        let name = format!(
            "Example Client {number:03} {}",
            if number < 50 { "long".repeat(44) } else { String::new() }
        );
        let form = [("name", name.as_str()), ("vault_name", "Vault"), ("notes", "")];
        let answer = stage.consultant.post("/clients/new", &form).await.unwrap();
        assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
    }
    let window = sign_in(&stage.board).await;
    window.go("/clients").await;
    let mut problems = check(&window, "many-clients-first").await;
    for (range, name) in
        [("26 to 50 of 120", "many-clients-second"), ("51 to 75 of 120", "many-clients-third")]
    {
        window.click("a[rel=next]").await;
        window.read("nav[aria-label=Pages]", range).await;
        problems.extend(check(&window, name).await);
    }
    window.go("/clients?page=5").await;
    window.read("nav[aria-label=Pages]", "101 to 120 of 120").await;
    problems.extend(check(&window, "many-clients-last").await);
    window.fill("#q", "client 07").await;
    window.click("form[role=search] button").await;
    window.read(".sub", "12 clients").await; // 007, 107 and the seventies
    assert_eq!(window.path().await, "/clients?q=client+07", "a search can be sent as a link");
    problems.extend(check(&window, "many-clients-found").await);
    window.go("/clients?q=nobody").await;
    window.see(".empty h2").await;
    problems.extend(check(&window, "many-clients-none").await);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

async fn walk(names: &Names, kind: &str) {
    let scene = Scene::new(names).await;
    let window = sign_in(&scene.stage.board).await;
    let stranger = Window::open(&window.base).await;
    let mut problems = Vec::new();
    for page in pages() {
        let window = if page.public { &stranger } else { &window };
        problems.extend(check_page(&scene, &page, window, kind).await);
    }
    for answer in [
        Answer::JoinCode,
        Answer::WrongFingerprint,
        Answer::FieldError,
        Answer::ScopeChange,
        Answer::NotFound,
        Answer::Planned,
        Answer::PlanPage,
        Answer::PauseForm,
        Answer::Paused,
        Answer::ClientPaused,
    ] {
        show(&scene, names, answer, &window).await;
        problems.extend(check(&window, &format!("{kind}-{answer:?}")).await);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

async fn check_page(scene: &Scene, page: &Page, window: &Window, kind: &str) -> Vec<String> {
    let path = scene.path(page);
    window.go(&path).await;
    assert_eq!(window.path().await, path, "{} shows a page of its own", page.route);
    let status = window.eval("return performance.getEntriesByType('navigation')[0].responseStatus").await;
    assert_eq!(status, 200, "{}", page.route);
    let name = page.route.replace(['{', '}'], "").replace('/', "-");
    check(window, &format!("{kind}{name}")).await
}

async fn show(scene: &Scene, names: &Names, answer: Answer, window: &Window) {
    let client = format!("/clients/{}", scene.client);
    let runbook = format!("/devices/{}/runbook", scene.device);
    match answer {
        Answer::JoinCode => {
            window.go(&client).await;
            window.click("form[action$='/join-codes'] button").await;
            window.arrive("/join-codes").await;
            window.see("#command").await;
        }
        Answer::WrongFingerprint => {
            window.go("/enrollments").await;
            window.click("input[name=fingerprint]").await;
            window.keys("AAAAAAAAAAAAAAAA").await;
            window.click("form.approve button").await;
            window.see(".problem").await;
        }
        Answer::FieldError => {
            window.go(&format!("{client}/integrations")).await;
            window.fill("#param-asked-WORKSPACE", "!").await;
            window.click("main button.primary").await;
            window.see(".summary").await;
        }
        Answer::ScopeChange => {
            window.go(&format!("{client}/integrations")).await;
            window.click("#c-tool").await;
            window.click("#c-either").await;
            window.click("#choice-either-sign-THEIR_SIGN").await;
            window.see("#param-asked-WORKSPACE").await.clear().await.unwrap();
            window.fill("#param-asked-WORKSPACE", "harbour").await;
            window.click("main button.primary").await;
            window.see("form.decide").await;
        }
        Answer::NotFound => {
            window.go("/nothing-here").await;
            window.see(".notice .status").await;
        }
        Answer::Planned => {
            window.go(&runbook).await;
            window.click("#plan-ask button").await;
            window.read(".standing", "would run").await;
        }
        Answer::PlanPage => {
            window.click(".standing a").await;
            window.arrive("/plan").await;
            window.see("td .planned").await;
        }
        Answer::PauseForm => {
            window.go(&runbook).await;
            window.click("#pause summary").await;
            window.see("#pause-reason").await;
        }
        Answer::Paused => {
            let fill = "document.getElementById('pause-reason').value = arguments[0]";
            window.call(fill, [names.reason.as_str().into()]).await;
            window.click("#pausing button").await;
            window.click("#pause-why summary").await;
            window.see("#pause-why .help").await;
        }
        Answer::ClientPaused => {
            window.go(&client).await;
            window.read("#client", "paused, ").await;
        }
    }
}

pub(super) async fn check(window: &Window, name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let [whole, scripts] = weights(window).await;
    if whole > PAGE_LIMIT || scripts > SCRIPT_LIMIT {
        problems.push(format!("{whole} bytes, {scripts} of them scripts"));
    }
    let elsewhere = window.requests().await;
    let own = |url: &String| url.starts_with(&format!("{}/", window.base)) || url == "data:,";
    problems.extend(elsewhere.into_iter().filter(|url| !own(url)).map(|url| format!("asks for {url}")));
    for look in [Look::Light, Look::Dark, Look::Phone] {
        window.look(look).await;
        problems.extend(window.axe().await.into_iter().map(|found| format!("{look:?}: {found}")));
        let over = window
            .eval("return document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
            .await;
        if over.as_f64().unwrap() > 0.0 {
            problems.push(format!("{look:?}: scrolls sideways by {over} pixels"));
        }
        if let Some(folder) = std::env::var_os("BOARD_SCREENSHOTS").map(PathBuf::from) {
            std::fs::create_dir_all(&folder).unwrap();
            let picture = BASE64.decode(window.screenshot().await.as_bytes()).unwrap();
            std::fs::write(folder.join(format!("{name}-{look:?}.png")), picture).unwrap();
        }
    }
    window.look(Look::Light).await;
    if window.eval("return window.marker").await != Value::Null {
        problems.push("something that was written ran".into());
    }
    if window.source().await.contains(VALUE) {
        problems.push("shows a secret".into());
    }
    // The answer to a form with a mistake in it is no complaint.
    let complaints = window.complaints().await.into_iter();
    problems.extend(complaints.filter(|text| !text.contains("responded with a status of 4")));
    problems.into_iter().map(|problem| format!("{name}: {problem}")).collect()
}

/// Of the page with what it needs, and of its scripts alone; in bytes.
async fn weights(window: &Window) -> [u64; 2] {
    let script =
        "const all = ['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type));
        const size = (list) => list.reduce((sum, entry) => sum + entry.encodedBodySize, 0);
        return [size(all), size(all.filter((entry) => entry.name.includes('.js')))]";
    serde_json::from_value(window.eval(script).await).unwrap()
}
