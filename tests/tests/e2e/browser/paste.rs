//! Pasting in the browser: the sealing itself against published vectors, and a value's way from the field to the Mac.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use tests::demo::workspace;
use tests::scan;

use super::every_page::check;
use super::scene::sign_in;
use super::window::Window;
use crate::stage::{Database, SOON, Stage};

const FORM: &str = "#next .sealed-paste";
const FIELD: &str = "#next .sealed-paste input";

fn testdata(name: &str) -> Value {
    let path = workspace().join("shared/testdata").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Begins with the module of the page, whatever its version.
const MODULE: &str = "
    const source = document.querySelector('script[src*=\"/paste.js\"]').src;
    const { seal, bound } = await import(source);
    const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));
    const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');";

/// A Mac that waits for the client's secret, and its runbook's page.
struct Waiting {
    stage: Stage,
    agent: tests::agent::Agent,
    client: String,
    device: String,
    window: Window,
}

impl Waiting {
    async fn new() -> Self {
        let mut stage = Stage::new(Database::Sqlite).await;
        stage.board.stop().await.unwrap();
        stage.board.log_filter = Some("trace");
        stage.board.serve("127.0.0.1:0").await.unwrap();
        stage.relay.point(&stage.board.agents_address);
        let params = [("param-asked-WORKSPACE", "office")];
        let client = stage.consultant.create_client("Example Client", &["asked"], &params).await.unwrap();
        let mut agent = stage.agent("mac");
        let device = stage.enroll(&client, &agent).await;
        agent.start().unwrap();
        stage.consultant.waits_for_you(&device, "get", SOON).await.unwrap();
        let window = sign_in(&stage.board).await;
        let waiting = Self { stage, agent, client, device, window };
        waiting.window.go(&waiting.path()).await;
        waiting
    }

    fn path(&self) -> String {
        format!("/devices/{}/runbook", self.device)
    }

    /// The card is open; what is for this computer is folded.
    async fn open(&self) {
        self.window.until("document.documentElement.dataset.live === 'on'").await;
        self.window.click("#next .ways > summary").await;
        self.window.see(FIELD).await;
    }

    async fn slot(&mut self) -> String {
        let state =
            self.stage.consultant.json(&format!("/api/v1/clients/{}/state", self.client)).await.unwrap();
        let slots = state["devices"][0]["slots"].as_array().unwrap();
        slots.iter().find(|slot| slot["slot"] == "THEIR_KEY").unwrap()["state"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_page_seals_as_rfc_9180_says_and_binds_what_the_device_expects() {
    let waiting = Waiting::new().await;
    let script = format!(
        "{MODULE}
        const vector = given[0];
        const b64 = (text) => btoa(String.fromCharCode(...unhex(text))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
        const jwk = {{ kty: 'OKP', crv: 'X25519', x: b64(vector.pkEm) }};
        const key = (jwk, uses) => crypto.subtle.importKey('jwk', jwk, 'X25519', true, uses);
        const pair = {{ publicKey: await key(jwk, []), privateKey: await key({{ ...jwk, d: b64(vector.skEm) }}, ['deriveBits']) }};
        return hex(await seal(...['pkRm', 'info', 'aad', 'pt'].map((name) => unhex(vector[name])), pair));"
    );
    let vector = testdata("vectors/hpke-rfc9180.json");
    let sealed = waiting.window.settle(&script, [vector.clone()]).await;
    let text = |name: &str| vector[name].as_str().unwrap();
    let expected = format!("{}{}{}", HEXLOWER.encode(b"BSD1"), text("enc"), text("ct"));
    assert_eq!(sealed, expected.as_str());

    let frozen = testdata("sealing.json");
    let script =
        format!("{MODULE} const {{ info, aad }} = await bound(given[0]); return [hex(info), hex(aad)];");
    let bound = waiting.window.settle(&script, [frozen.clone()]).await;
    assert_eq!(bound, json!([frozen["info_paste"], frozen["aad"]]));

    let script = format!(
        "{MODULE} const key = unhex(given[0]); const none = new Uint8Array();
        return [hex(await seal(key, none, none, none)), hex(await seal(key, none, none, none))];"
    );
    let twice = waiting.window.settle(&script, [frozen["key"].clone()]).await;
    assert_ne!(twice[0], twice[1], "a fresh encapsulation each time");
}

#[tokio::test]
async fn what_is_typed_reaches_the_mac_and_neither_the_board_nor_the_page_keeps_it() {
    let mut waiting = Waiting::new().await;
    let window = &waiting.window;
    waiting.open().await;
    let mut problems = check(window, "paste-card").await;
    // The ways that don't need trust stand first, and this one says what it needs.
    let card = window.see("#next .ways").await.text().await.unwrap();
    let said = card.find("use it only if you trust the board").expect("the label");
    assert!(card.find("board paste asked/THEIR_KEY").unwrap() < said, "{card}");
    assert!(card.contains("op read 'op://Example Client/Example/their-key' |"), "{card}");
    let shown = waiting.agent.status().await.unwrap()["fingerprint"].as_str().unwrap().to_owned();
    assert!(!window.source().await.contains(&shown), "the fingerprint is the Mac's to show");

    // A value that doesn't fit: the Mac says so, and the field is empty.
    window.fill(FIELD, "NOT A KEY canary").await;
    window.click(&format!("{FORM} button")).await;
    window.read("#next .problem", "this is no Their key").await;
    assert_eq!(window.see(FIELD).await.value().await.unwrap().as_deref(), Some(""));
    problems.extend(check(window, "paste-refused").await);

    let canary = format!("canary-{:x}-browser", std::process::id() ^ 0x0b10_55e5);
    window
        .eval("window.sent = []; const real = fetch; window.fetch = (to, what) => { sent.push([to, what.body]); return real(to, what); };")
        .await;
    window.fill(FIELD, &canary).await;
    window.click(&format!("{FORM} button")).await;
    window.read(".tally", "0 need you").await;
    let sent = window.eval("return sent").await;
    let [to, body] = [0, 1].map(|at| sent[0][at].as_str().unwrap().to_owned());
    assert!(to.ends_with("/paste") && sent.as_array().unwrap().len() == 1, "{sent}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let mut keys: Vec<_> = body.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["component", "delivery_id", "expires", "sealed", "slot"]);
    let sealed = body["sealed"].as_str().unwrap();
    let raw = BASE64.decode(sealed.as_bytes()).unwrap();
    assert_eq!(raw.len(), canary.len() + 52);

    let kept = window
        .eval("return JSON.stringify([document.documentElement.outerHTML, { ...localStorage }, { ...sessionStorage }, location.href, [...document.querySelectorAll('input')].map((field) => field.value)])")
        .await;
    assert!(!kept.as_str().unwrap().contains("canary"), "the page keeps nothing of it");
    let complaints = window.complaints().await;
    assert!(complaints.iter().all(|text| text.contains("status of 4")), "{complaints:?}");

    waiting.stage.consultant.runbook_done(&waiting.device, SOON).await.unwrap();
    let length = std::fs::read_to_string(waiting.agent.home().join("their-key-length")).unwrap();
    assert_eq!(length.trim(), canary.len().to_string());
    assert_eq!(waiting.slot().await, "present");
    let board = waiting.stage.board.process().unwrap().id().unwrap();
    assert_eq!(scan::memory_with(board, canary.as_bytes()).unwrap(), 0, "the board never had it");
    let held = waiting.stage.board.agents_address.clone();
    assert!(scan::memory_with(board, held.as_bytes()).unwrap() > 0, "its memory was really read");
    waiting.agent.stop().await.unwrap();
    waiting.stage.board.stop().await.unwrap();
    let needles = [canary.as_bytes(), &sealed.as_bytes()[8..], &raw[36..]];
    let found = scan::files_with(waiting.stage.folder.path(), &needles).unwrap();
    assert_eq!(found, [std::path::Path::new("mac/vault/slot.asked.THEIR_KEY")]);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test]
async fn a_client_can_be_without_it_and_a_page_without_scripts_says_so() {
    let mut waiting = Waiting::new().await;
    let plain = Window::without_scripts(&waiting.window.base).await;
    plain.go("/sign-in").await;
    plain.fill("#email", tests::board::EMAIL).await;
    plain.fill("#password", tests::consultant::PASSWORD).await;
    plain.click("main button").await;
    plain.arrive("/clients").await;
    plain.go(&waiting.path()).await;
    plain.click("#next .ways > summary").await;
    plain.read("#next .ways noscript", "needs JavaScript").await;
    let shown = format!("return document.querySelector('{FORM}').checkVisibility()");
    assert_eq!(plain.eval(&shown).await, false, "a form that can't seal isn't there");
    let way_out = format!(
        "const form = document.querySelector('{FORM}'); return [form.method, form.getAttribute('action'), [...new FormData(form)].length, form.querySelector('input').name]"
    );
    assert_eq!(plain.eval(&way_out).await, json!(["dialog", null, 0, ""]), "and nothing of it could be sent");

    waiting.open().await;
    waiting.window.go(&format!("/clients/{}", waiting.client)).await;
    waiting.window.click("form[action$='/browser-paste'] button").await;
    waiting.window.read("form[action$='/browser-paste'] button", "Switch on").await;
    let mut problems = check(&waiting.window, "paste-off-client").await;
    waiting.window.go(&waiting.path()).await;
    waiting.window.click("#next .ways > summary").await;
    waiting.window.read("#next .ways", "board paste asked/THEIR_KEY").await;
    assert_eq!(waiting.window.eval(&format!("return document.querySelector('{FORM}')")).await, Value::Null);
    problems.extend(check(&waiting.window, "paste-off-card").await);
    waiting.agent.stop().await.unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
