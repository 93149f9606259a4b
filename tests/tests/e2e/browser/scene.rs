//! A board where a lot is going on: a device that is on, with a step that waits for a person and one that failed, a device
//! that was rejected, and one that asks to join.

use std::time::{Duration, Instant};

use tests::agent::{Agent, Joining};
use tests::board::{Board, EMAIL};
use tests::consultant::{PASSWORD, list};
use tests::process::output;
use tokio::process::Command;

use super::pages::Page;
use super::window::Window;
use crate::stage::{Database, SOON, Stage, VALUE};

pub struct Scene {
    pub stage: Stage,
    pub client: String,
    pub device: String,
    user: String,
    /// Our secret's, which is stored.
    slot: String,
    /// The failed step's attempt.
    attempt: String,
    /// One that can be undone.
    step: String,
    /// A one-time link that nobody used.
    link: String,
    _agent: Agent,
    _pending: Joining,
}

/// What people and devices call things.
pub struct Names {
    pub client: String,
    pub notes: String,
    pub reason: String,
    /// What the devices claim about themselves, instead of the truth.
    pub claims: Option<String>,
}

impl Names {
    pub fn plain() -> Self {
        Self {
            client: "Example Client".into(),
            notes: "Call the office before noon.".into(),
            reason: "This is another office’s Mac.".into(),
            claims: None,
        }
    }

    /// As long as they may be: HTML, two directions of writing, emoji of several parts, and a word that has no end.
    pub fn hostile() -> Self {
        let text = "<script>window.marker=1</script><img src=x onerror=window.marker=1>&lt;b&gt;\
                    مرحبا بالعالم שלום עולם 👩‍👩‍👧‍👦🏳️‍🌈 \u{202e}gnp.exe";
        let long = |length: usize| text.chars().chain(std::iter::repeat('W')).take(length).collect();
        Self { client: long(200), notes: long(2000), reason: long(500), claims: Some(long(255)) }
    }
}

impl Scene {
    pub async fn new(names: &Names) -> Self {
        let mut stage = Stage::new(Database::Sqlite).await;
        let client = new_client(&mut stage, names).await;
        stage.consultant.enter_secrets(&client, |_| VALUE.to_owned()).await.unwrap();

        let other = stage.agent("other");
        let join = stage.consultant.join_command(&client).await.unwrap();
        let refused = other.join(&join).await.unwrap();
        claim(&stage, names).await;
        let enrollment = stage.consultant.pending(SOON).await.unwrap();
        let reject = format!("/enrollments/{enrollment}/reject");
        let answer = stage.consultant.post(&reject, &[("reason", &names.reason)]).await.unwrap();
        assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
        drop(refused);

        let mut agent = stage.agent("mac");
        let join = stage.consultant.join_command(&client).await.unwrap();
        let mut joining = agent.join(&join).await.unwrap();
        claim(&stage, names).await;
        let enrollment = stage.consultant.pending(SOON).await.unwrap();
        let device = stage.consultant.approve_device(&enrollment, &joining.fingerprint).await.unwrap();
        assert!(joining.process.wait(SOON).await.unwrap().success());
        agent.start().unwrap();
        let attempt = settled(&mut stage, &device).await;

        let join = stage.consultant.join_command(&client).await.unwrap();
        let pending = stage.agent("third").join(&join).await.unwrap();
        claim(&stage, names).await;
        others(&stage, &device).await;
        let link = stage.board.sign_in_link().await.unwrap();
        let users = stage.consultant.get("/users").await.unwrap();
        let (_, user) = users.split_once("href=\"/users/").expect("the list leads to each user");
        let user = user.split('"').next().unwrap().to_owned();
        let secrets = stage.consultant.get(&format!("/clients/{client}/secrets")).await.unwrap();
        let (before, _) = secrets.split_once("/rotate\"").expect("the stored secret can be rotated");
        let slot = before.rsplit('/').next().unwrap().to_owned();
        let runbook = stage.consultant.get(&format!("/devices/{device}/runbook")).await.unwrap();
        let (before, _) = runbook.split_once("/undo\"").expect("a step can be undone");
        let step = before.rsplit('/').next().unwrap().to_owned();
        Self { stage, client, device, user, slot, attempt, step, link, _agent: agent, _pending: pending }
    }

    /// A page's address, with ids of this scene in it.
    pub fn path(&self, page: &Page) -> String {
        let id = match page.route.split('/').nth(1) {
            Some("clients") => &self.client,
            Some("devices") => &self.device,
            Some("users") => &self.user,
            _ => "{id}",
        };
        let path =
            page.route.replace("{id}", id).replace("{attempt}", &self.attempt).replace("{step}", &self.step);
        let path = path.replace("/welcome/{token}", &self.link).replace("{slot}", &self.slot);
        assert!(!path.contains('{'), "give the page {} an id of this scene", page.route);
        path
    }
}

/// A window of a consultant who has signed in.
pub async fn sign_in(board: &Board) -> Window {
    sign_in_at(&board.console_url).await
}

/// The same through something that stands before the board.
pub async fn sign_in_at(console: &str) -> Window {
    let window = Window::open(console).await;
    window.go("/sign-in").await;
    window.fill("#email", EMAIL).await;
    window.fill("#password", PASSWORD).await;
    window.click("main button").await;
    window.arrive("/clients").await;
    window
}

async fn new_client(stage: &mut Stage, names: &Names) -> String {
    let form = [("name", names.client.as_str()), ("vault_name", "Example Vault"), ("notes", &names.notes)];
    let answer = stage.consultant.post("/clients/new", &form).await.unwrap();
    let location = answer.location.unwrap_or_else(|| panic!("the name is accepted: {}", answer.text));
    let client = location.split('/').nth(2).unwrap().to_owned();
    let form = [
        ("component", "tool"),
        ("component", "asked"),
        ("component", "broken"),
        ("param-asked-WORKSPACE", "office"),
        ("param-broken-WORD", &names.client),
    ];
    let answer = stage.consultant.post(&format!("/clients/{client}/integrations"), &form).await.unwrap();
    assert_eq!(answer.status.as_u16(), 303, "{}", answer.text);
    client
}

/// Puts other facts into the request that waits: a device may claim anything.
async fn claim(stage: &Stage, names: &Names) {
    let Some(claims) = &names.claims else { return };
    let script = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
for fact in ('host_name', 'managed_user', 'model', 'os_version', 'serial'):
    db.execute('UPDATE enrollments SET facts = json_set(facts, ?, ?) WHERE state = ?', ('$.' + fact, sys.argv[2], 'pending'))
db.commit()
";
    let database = stage.board.layout.path("board/board.db");
    let mut python = Command::new("python3");
    output(python.args(["-c", script]).arg(database).arg(claims)).await.unwrap();
}

/// Two devices more that wait for a decision: one quarantined, one that asks to renew after a long silence. And a key at
/// OpenRouter that used most of its limit.
async fn others(stage: &Stage, device: &str) {
    let script = "
import os, sqlite3, sys, time, uuid
db = sqlite3.connect(sys.argv[1], timeout=30)
db.row_factory = sqlite3.Row
def copy(table, key, value, **changes):
    row = dict(db.execute(f'SELECT * FROM {table} WHERE {key} = ?', (value,)).fetchone()) | changes
    names, marks = ', '.join(row), ', '.join('?' * len(row))
    db.execute(f'INSERT INTO {table} ({names}) VALUES ({marks})', tuple(row.values()))
device = uuid.UUID(sys.argv[2]).bytes
moved, silent, code = os.urandom(16), os.urandom(16), os.urandom(16)
copy('devices', 'id', device, id=moved, hardware_uuid='MOVED', state='quarantined', other_hardware_uuid='COPY')
copy('devices', 'id', device, id=silent, hardware_uuid='SILENT', last_seen_at=1)
used = db.execute('SELECT join_code_id FROM enrollments WHERE device_id = ?', (device,)).fetchone()[0]
copy('join_codes', 'id', used, id=code, code_hmac=os.urandom(32))
copy('enrollments', 'device_id', device, id=os.urandom(16), device_id=silent, join_code_id=code, renewal_asked_at=2)
client = db.execute('SELECT client_id FROM devices WHERE id = ?', (device,)).fetchone()[0]
now = time.time_ns() // 1000 - 720_000_000
db.execute('INSERT INTO provider_keys (client_id, state, limit_micros, hash, usage_micros, read_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
    (client, 'stored', 50_000_000, 'a-hash', 42_400_000, now, now))
db.commit()
";
    let database = stage.board.layout.path("board/board.db");
    output(Command::new("python3").args(["-c", script]).arg(database).arg(device)).await.unwrap();
}

/// Waits until there is nothing left but what a person has to do; gives the failed attempt.
async fn settled(stage: &mut Stage, device: &str) -> String {
    let path = format!("/api/v1/devices/{device}/runbook");
    let started = Instant::now();
    loop {
        let runbook = stage.consultant.json(&path).await.unwrap();
        let is = |step: &str, state: &str| {
            list(&runbook, "steps").iter().find(|one| one["step"] == step && one["state"] == state).cloned()
        };
        let used = list(&runbook, "steps")
            .iter()
            .any(|one| one["component"] == "tool" && one["step"] == "use" && one["state"] == "succeeded");
        if let (true, Some(failed), Some(_)) = (used, is("fail", "failed"), is("get", "waiting")) {
            return failed["attempt"].as_str().unwrap().to_owned();
        }
        assert!(started.elapsed() < SOON, "{runbook:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
