//! One full job, with a canary in every slot: from the wizard to the last rotation, by every way that a value can take.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::Agent;
use tests::board::Board;
use tests::consultant::{Consultant, list};
use tests::process::{output, program};
use tests::relay::Relay;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::places::{Finding, Looked, Server, Watch};
use super::provider::Provider;
use super::recorder::Recorder;
use super::values::{Canaries, Form};
use crate::browser::scene::sign_in_at;
use crate::browser::window::Window;
use crate::stage::{Database, SOON, heard, served_with, until};

pub const CLIPBOARD: &str = "the consultant's clipboard";

pub struct Job {
    pub begun: SystemTime,
    pub canaries: Arc<Canaries>,
    pub board: Board,
    pub agent: Agent,
    /// Between the console and everybody who asks it.
    pub console: Recorder,
    /// Between the devices and the board.
    pub link: Recorder,
    pub window: Window,
    pub looked: Looked,
    pub folder: TempDir,
    pub watch: Watch,
    pub consultant: Consultant,
    pub provider: Provider,
    pub client: String,
    pub device: String,
    fingerprint: String,
    /// Of each of our slots, the id.
    slots: BTreeMap<String, String>,
    _relay: Relay,
    _kept_log: Option<Child>,
}

impl Job {
    /// A board that logs everything, a client with our secrets, and a Mac that joined and isn't on yet.
    pub async fn begin(database: Database) -> Self {
        // By the clock of the files, which is what it is compared with.
        let begun = tempfile::tempfile().unwrap().metadata().unwrap().modified().unwrap();
        let canaries = Arc::new(Canaries::new());
        let watch = Watch::begin(&canaries);
        let (mut board, relay, folder) = served_with(database, &catalog(), Vec::new()).await;
        let kept_log = match board.database() {
            Some(url) => Some(Server::of(url).keep_log().await),
            None => None,
        };
        board.kill().await.unwrap();
        board.log_filter = Some("trace");
        board.serve("127.0.0.1:0").await.unwrap();
        let (console, link) = (Recorder::start().await, Recorder::start().await);
        console.point(&board.console_url);
        link.point(&board.agents_address);
        relay.point(&link.address);
        let mut consultant = Consultant::welcome(&console.url(), &board.welcome).await.unwrap();

        let mut looked = Looked::default();
        let client =
            consultant.create_client("Example Client", &["ours", "theirs", "sealed"], &[]).await.unwrap();
        let slots = our_secrets(&mut consultant, &canaries, &client).await;
        let window = sign_in_at(&console.url()).await;
        type_ours(&window, &canaries, &client, &slots["TYPED"], &mut looked).await;

        let mut agent = Agent::new(&board.layout, "mac", "UUID-OF-mac");
        let join = consultant.join_command(&client).await.unwrap();
        let mut joining = agent.join(&join).await.unwrap();
        let enrollment = consultant.pending(SOON).await.unwrap();
        let device = consultant.approve_device(&enrollment, &joining.fingerprint).await.unwrap();
        assert!(joining.process.wait(SOON).await.unwrap().success());
        let fingerprint = joining.fingerprint;
        let provider = Provider::start(&board.layout.path("keys")).await;
        agent.stand_in = Some((provider.address.clone(), provider.authority.clone()));
        agent.log_filter = Some("trace");
        Self {
            begun,
            canaries,
            board,
            agent,
            console,
            link,
            window,
            looked,
            folder,
            watch,
            consultant,
            provider,
            client,
            device,
            fingerprint,
            slots,
            _relay: relay,
            _kept_log: kept_log,
        }
    }

    pub async fn play(&mut self) {
        self.run_up_to_the_first_person().await;
        self.paste_theirs().await;
        self.seal_in_the_browser().await;
        self.consultant.runbook_done(&self.device, SOON).await.unwrap();
        self.paste_again().await;
        self.rotate().await;
        self.copy().await;
        self.use_behind_the_broker().await;
        self.ask_the_provider().await;
    }

    /// Deliveries, and the step that prints; while it runs, what is there for it alone is looked for.
    async fn run_up_to_the_first_person(&mut self) {
        let home = self.agent.home();
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("hold"), "").unwrap();
        self.agent.start().unwrap();
        until("the step holds its secrets", async || home.join("held").exists()).await;
        let path = format!("/api/v1/devices/{}/runbook", self.device);
        let deliveries = async || {
            let runbook = self.consultant.json(&path).await.unwrap();
            let states = list(&runbook, "deliveries").iter().map(|one| one["state"].to_string());
            states.collect::<Vec<_>>()
        };
        let ours = self.slots.len();
        heard("all are delivered", deliveries, |all| {
            all.len() == ours && all.iter().all(|state| state.contains("receipted"))
        })
        .await;
        self.looked.files(&self.canaries, self.folder.path(), |path| format!("while a step runs: {path}"));
        // What it printed is on its way to the page meanwhile.
        self.window.go(&format!("/devices/{}/runbook", self.device)).await;
        self.looked.browser(&self.canaries, &self.window).await;
        std::fs::remove_file(home.join("hold")).unwrap();
    }

    async fn paste_theirs(&mut self) {
        self.consultant.waits_for_you(&self.device, "get", SOON).await.unwrap();
        let refused = self.canaries.value("theirs/ON_DEVICE, refused");
        let refusal = self.agent.paste("theirs/ON_DEVICE", refused).await.unwrap_err().to_string();
        assert!(refusal.contains("this is no "), "{refusal}");
        self.keep("paste-on-the-device", refusal.as_bytes());
        for slot in ["theirs/ON_DEVICE", "theirs/PASTED_AGAIN", "theirs/ASKED"] {
            self.agent.paste(slot, self.canaries.value(slot)).await.unwrap();
        }

        let token = self.board.make_token("desk", "consultant").await.unwrap();
        let refused = self.paste_from_desk(&token, "theirs/FROM_DESK, refused").await;
        assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
        let pasted = self.paste_from_desk(&token, "theirs/FROM_DESK").await;
        assert!(pasted.status.success(), "{}", String::from_utf8_lossy(&pasted.stderr));
    }

    /// `op read … | board paste`, with a log of everything.
    async fn paste_from_desk(&self, token: &str, value: &str) -> Output {
        let mut command = Command::new(program("board").unwrap());
        command.args(["paste", "theirs/FROM_DESK", "--board", &self.console.url(), "--device", &self.device]);
        command.args(["--device-fingerprint", &self.fingerprint, "--known-devices"]);
        command.arg(self.folder.path().join("desk/known_devices"));
        command.env("BOARD_TOKEN", token).env("BOARD_LOG", "trace").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // It may have said no before it read anything.
        let _ = input.write_all(format!("{}\n", self.canaries.value(value)).as_bytes()).await;
        drop(input);
        let done = tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        self.keep("paste-from-a-desk", &[done.stdout.as_slice(), &done.stderr].concat());
        done
    }

    async fn seal_in_the_browser(&mut self) {
        const FORM: &str = "form.sealed-paste[data-slot=FROM_BROWSER]";
        let path = format!("/api/v1/devices/{}/runbook", self.device);
        let waiting = async || {
            let runbook = self.consultant.json(&path).await.unwrap();
            let steps = list(&runbook, "steps").iter();
            steps
                .filter(|step| step["state"] == "waiting")
                .map(|step| step["component"].to_string())
                .collect()
        };
        heard("their last step alone waits", waiting, |all: &Vec<String>| *all == ["\"sealed\""]).await;
        let field = format!("{FORM} input");
        self.window.go(&format!("/devices/{}/runbook", self.device)).await;
        self.window.until("document.documentElement.dataset.live === 'on'").await;
        self.window.click("#next .ways > summary").await;
        self.window.fill(&field, self.canaries.value("sealed/FROM_BROWSER, refused")).await;
        self.window.click(&format!("{FORM} button")).await;
        self.window.read("#next .problem", "this is no ").await;
        self.looked.browser(&self.canaries, &self.window).await;
        self.window.fill(&field, self.canaries.value("sealed/FROM_BROWSER")).await;
        self.window.click(&format!("{FORM} button")).await;
        self.window.read(".tally", "0 need you").await;
        self.looked.browser(&self.canaries, &self.window).await;
    }

    /// Another value over the one that is there: the step that reads it runs again with it.
    async fn paste_again(&mut self) {
        let name = "theirs/PASTED_AGAIN, new";
        self.agent.paste("theirs/PASTED_AGAIN", self.canaries.value(name)).await.unwrap();
        let read =
            Finding { place: "environment of a step's programs".to_owned(), value: name, form: Form::Raw };
        until("the step reads the new value", async || self.watch.seen().await.found.contains(&read)).await;
        self.consultant.runbook_done(&self.device, SOON).await.unwrap();
    }

    async fn rotate(&mut self) {
        let path = format!("/clients/{}/secrets/{}/rotate", self.client, self.slots["ROTATED_BY_PAGE"]);
        self.consultant.get(&path).await.unwrap();
        let value = self.canaries.value("ours/ROTATED_BY_PAGE, new");
        let form = [("secret", value), ("reason", "a year is over")];
        let done = self.consultant.post_as_myself(&path, &form).await.unwrap();
        assert_eq!(done.status, 303, "{}", done.text);
        let arguments = ["rotate", "--client", &self.client, "--slot", "ours/ROTATED_BY_COMMAND"];
        let arguments = [&arguments[..], &["--reason", "it leaked", "--from-stdin"]].concat();
        let value = self.canaries.value("ours/ROTATED_BY_COMMAND, new");
        let done = self.board.beside(&arguments, &format!("{value}\n")).await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.keep("rotate", &[done.stdout, done.stderr].concat());
        for (slot, name) in [
            ("ROTATED_BY_PAGE", "ours/ROTATED_BY_PAGE, new"),
            ("ROTATED_BY_COMMAND", "ours/ROTATED_BY_COMMAND, new"),
        ] {
            let stored = self.agent.data.join(format!("vault/slot.ours.{slot}"));
            let there = async || {
                let bytes = std::fs::read(&stored).unwrap_or_default();
                self.canaries.find(&bytes).contains(&(name, Form::Raw))
            };
            until("the device has the new value", there).await;
        }
    }

    /// With the button of the page, into the clipboard.
    async fn copy(&mut self) {
        let slot = &self.slots["COPIED"];
        let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.window.devtools("Browser.grantPermissions", permissions).await;
        self.window.go(&format!("/clients/{}/secrets", self.client)).await;
        self.window.click(&format!("#copy-{slot} > summary")).await;
        self.window.fill(&format!("#why-{slot}"), "The vendor wants it typed").await;
        self.window.click(&format!("#copying-{slot} .acts button")).await;
        self.window.read(&format!("#copying-{slot} output"), "Copied.").await;
        self.looked.browser(&self.canaries, &self.window).await;
        let copied = self.window.until("await navigator.clipboard.readText()").await;
        self.looked.look(&self.canaries, CLIPBOARD, CLIPBOARD, copied.as_str().unwrap().as_bytes());
    }

    async fn use_behind_the_broker(&self) {
        let mut wrapper = Command::new(self.agent.wrapper("wrapped"));
        let read = output(wrapper.env("CANARY_STARTED_BY", "wrapper")).await.unwrap();
        assert_eq!(read.trim(), self.canaries.value("ours/WRAPPED").len().to_string());
        let mut exec = Command::new(program("board-agent").unwrap());
        exec.arg("exec").arg("--data").arg(&self.agent.data).args(["--for", "ours/execed", "--"]);
        exec.args(["/bin/sh", "-c", "printf %s \"$THE_KEY\" | wc -c; sleep 1"]);
        let read = output(exec.env("CANARY_STARTED_BY", "exec")).await.unwrap();
        assert_eq!(read.trim(), self.canaries.value("ours/EXECED").len().to_string());
    }

    /// Each device asks by itself; the answer is with the installed state.
    async fn ask_the_provider(&mut self) {
        let path = format!("/api/v1/clients/{}/state", self.client);
        let slots = async || {
            let state = self.consultant.json(&path).await.unwrap();
            let slots = list(&state["devices"][0], "slots").iter().filter(|slot| slot["slot"] == "ASKED");
            slots.map(|slot| slot["state"].clone()).collect::<Vec<Value>>()
        };
        heard("both work", slots, |all| all.len() == 2 && all.iter().all(|state| state == "verified")).await;
    }

    /// Keeps what a program said, with the logs.
    fn keep(&self, name: &str, said: &[u8]) {
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.board.layout.log(name));
        std::io::Write::write_all(&mut log.unwrap(), said).unwrap();
    }
}

/// Components with a slot for every way that a secret can take.
pub fn catalog() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/canary/catalog")
}

/// Through the wizard's form, one of them refused first; gives the ids of all slots. One is left to the browser.
async fn our_secrets(
    consultant: &mut Consultant,
    canaries: &Canaries,
    client: &str,
) -> BTreeMap<String, String> {
    let path = format!("/clients/{client}/secrets");
    let page = consultant.get(&path).await.unwrap();
    let field = Regex::new(r#"<label for="slot-([0-9a-f-]{36})">(?s:.*?)<code>(\w+)</code>"#).unwrap();
    let slots: BTreeMap<String, String> =
        field.captures_iter(&page).map(|found| (found[2].to_owned(), found[1].to_owned())).collect();
    let field = format!("slot-{}", slots["PRINTED"]);
    let refused = consultant.post(&path, &[(&field, canaries.value("ours/PRINTED, refused"))]).await.unwrap();
    assert_eq!(refused.status, 422, "{}", refused.text);
    let value = |slot: &str| match slot {
        "TYPED" => String::new(),
        _ => canaries.value(&format!("ours/{slot}")).to_owned(),
    };
    consultant.enter_secrets(client, value).await.unwrap();
    slots
}

async fn type_ours(window: &Window, canaries: &Canaries, client: &str, slot: &str, looked: &mut Looked) {
    let field = format!("#slot-{slot}");
    window.go(&format!("/clients/{client}/secrets")).await;
    window.fill(&field, canaries.value("ours/TYPED, refused")).await;
    window.click("main form.card button.primary").await;
    window.see(".problem").await;
    looked.browser(canaries, window).await;
    window.fill(&field, canaries.value("ours/TYPED")).await;
    window.click("main form.card button.primary").await;
    window.see("live-region#client").await;
    looked.browser(canaries, window).await;
    // Past the page that refused one, to the first.
    window.eval("history.go(-2)").await;
    window.arrive("/secrets").await;
    window.see("main .rows .is-done").await;
    looked.browser(canaries, window).await;
}
