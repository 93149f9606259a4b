//! A client's secret sealed on the consultant's computer: it arrives at the device, and the board that carried it has it
//! nowhere, neither opened nor sealed.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use regex::bytes::Regex;
use tests::agent::Agent;
use tests::process::{at_a_terminal, output, program};
use tests::scan;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage};

/// A desk with `board` on it: not the board's own computer.
struct Desk {
    stage: Stage,
    agent: Agent,
    client: String,
    device: String,
    fingerprint: String,
    token: String,
    known: PathBuf,
}

impl Desk {
    async fn new(database: Database) -> Self {
        let mut stage = Stage::new(database).await;
        stage.board.stop().await.unwrap();
        stage.board.log_filter = Some("trace");
        stage.board.serve("127.0.0.1:0").await.unwrap();
        stage.relay.point(&stage.board.agents_address);
        let params = [("param-asked-WORKSPACE", "office")];
        let client = stage.consultant.create_client("Example Client", &["asked"], &params).await.unwrap();
        let mut agent = stage.agent("mac");
        let join = stage.consultant.join_command(&client).await.unwrap();
        let mut joining = agent.join(&join).await.unwrap();
        let enrollment = stage.consultant.pending(SOON).await.unwrap();
        let device = stage.consultant.approve_device(&enrollment, &joining.fingerprint).await.unwrap();
        assert!(joining.process.wait(SOON).await.unwrap().success());
        agent.log_filter = Some("trace");
        agent.start().unwrap();
        stage.consultant.waits_for_you(&device, "get", SOON).await.unwrap();
        let token = stage.board.make_token("desk", "consultant").await.unwrap();
        let known = stage.folder.path().join("desk/known_devices");
        let shown = agent.status().await.unwrap()["fingerprint"].as_str().unwrap().to_owned();
        assert_eq!(shown, joining.fingerprint, "the Mac goes on showing what joining showed");
        Self { stage, agent, client, device, fingerprint: shown, token, known }
    }

    /// `op read … | board paste SLOT …`, asked at `board`.
    async fn paste(&self, board: &str, token: &str, arguments: &[&str], value: &str) -> Output {
        let mut command = Command::new(program("board").unwrap());
        command.args(["paste", "--board", board, "--device", &self.device]).args(arguments);
        command.arg("--known-devices").arg(&self.known).env("BOARD_TOKEN", token).env("BOARD_LOG", "trace");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // It may have said no before it read anything.
        let _ = input.write_all(format!("{value}\n").as_bytes()).await;
        drop(input);
        tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap()
    }

    async fn refused(&self, token: &str, arguments: &[&str], value: &str) -> (Option<i32>, String) {
        let done = self.paste(&self.stage.board.console_url, token, arguments, value).await;
        assert!(done.stdout.is_empty(), "{}", String::from_utf8_lossy(&done.stdout));
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    }

    async fn slot_state(&mut self) -> String {
        let state =
            self.stage.consultant.json(&format!("/api/v1/clients/{}/state", self.client)).await.unwrap();
        let slots = state["devices"][0]["slots"].as_array().unwrap();
        slots.iter().find(|slot| slot["slot"] == "THEIR_KEY").unwrap()["state"].as_str().unwrap().to_owned()
    }

    fn board(&self) -> u32 {
        self.stage.board.process().unwrap().id().unwrap()
    }
}

/// Stands between the desk and the board's console, and keeps what the desk sends.
async fn eavesdrop(board: &str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (heard, target) = (Arc::new(Mutex::new(Vec::new())), board.replace("http://", ""));
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((desk, _)) = listener.accept().await {
            let (kept, board) = (Arc::clone(&kept), TcpStream::connect(&target).await.unwrap());
            let (mut from_desk, mut to_desk) = desk.into_split();
            let (mut from_board, mut to_board) = board.into_split();
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(read @ 1..) = from_desk.read(&mut buffer).await {
                    kept.lock().unwrap().extend_from_slice(&buffer[..read]);
                    if to_board.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut from_board, &mut to_desk).await });
        }
    });
    (address, heard)
}

/// The search of another process's memory finds what is there.
async fn assert_search_sees(value: &str) {
    let script = "import sys\nvalue = sys.stdin.readline()\nprint('held', flush=True)\nsys.stdin.read()\nsys.exit(value == '')";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = holder.stdin.take().unwrap();
    input.write_all(format!("{value}\n").as_bytes()).await.unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).await.unwrap();
    assert_eq!(said.trim(), "held");
    assert!(scan::memory_with(holder.id().unwrap(), value.as_bytes()).unwrap() > 0);
    drop(input);
    holder.wait().await.unwrap();
}

async fn carried_and_kept_nowhere(database: Database) {
    let mut desk = Desk::new(database).await;
    // Unlike anything in the program's own text.
    let canary = format!("canary-{:x}-cli", std::process::id() ^ 0x5eed_1e55);
    let (address, heard) = eavesdrop(&desk.stage.board.console_url).await;
    let arguments = ["asked/THEIR_KEY", "--device-fingerprint", &desk.fingerprint];
    let done = desk.paste(&address, &desk.token, &arguments, &canary).await;
    let (said, trouble) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.contains("asked/THEIR_KEY is on "), "{said} {trouble}");
    assert!(!trouble.contains(&canary), "{trouble}");
    assert_eq!(desk.slot_state().await, "present", "before the command ends");
    let runbook = desk.stage.consultant.runbook_done(&desk.device, SOON).await.unwrap();
    assert_eq!(runbook["done"], true);
    let length = std::fs::read_to_string(desk.agent.home().join("their-key-length")).unwrap();
    assert_eq!(length.trim(), canary.len().to_string(), "the step that needs it read it");

    assert_eq!(scan::memory_with(desk.board(), canary.as_bytes()).unwrap(), 0, "the board never had it");
    let held = desk.stage.board.agents_address.clone();
    assert!(scan::memory_with(desk.board(), held.as_bytes()).unwrap() > 0, "its memory was really read");
    assert_search_sees(&canary).await;
    let (command_lines, environments) = scan::processes_with(canary.as_bytes()).unwrap();
    assert!(command_lines.is_empty() && environments.is_empty());

    // What went over the wire, and where else it could be.
    let heard = heard.lock().unwrap().clone();
    assert!(!scan::contains(&heard, canary.as_bytes()));
    let sealed = Regex::new(r#""sealed":"([A-Za-z0-9+/=]+)""#).unwrap();
    let sealed = sealed.captures(&heard).expect("the ciphertext was sent")[1].to_vec();
    let raw = BASE64.decode(&sealed).unwrap();
    assert!(raw.starts_with(b"BSD1") && raw.len() == canary.len() + 52);
    let in_hex = HEXLOWER.encode(&raw[36..]);
    let needles = [canary.as_bytes(), &sealed[8..], &raw[36..], in_hex.as_bytes()];
    let allowed = PathBuf::from("mac/vault/slot.asked.THEIR_KEY");
    let found = scan::files_with(desk.stage.folder.path(), &needles).unwrap();
    assert_eq!(
        found,
        std::slice::from_ref(&allowed),
        "while the board runs: database, WAL and logs at trace"
    );
    let log = std::fs::read_to_string(desk.stage.board.layout.log("board")).unwrap();
    assert!(
        log.contains("TRACE") && log.contains("a sealed paste was passed on"),
        "the log is that detailed"
    );
    if let Some(url) = desk.stage.board.database() {
        let mut dump = Command::new("pg_dump");
        let dump = output(dump.args(["--data-only", "--inserts", url])).await.unwrap();
        assert!(dump.contains("audit_log") && dump.contains("paste.relayed"), "the dump has the tables");
        assert!(needles.iter().all(|needle| !scan::contains(dump.as_bytes(), needle)));
    }
    // The same once more, as somebody who kept it could send it.
    let body = heard.split(|byte| *byte == b'{').next_back().unwrap();
    let body = [b"{", body].concat();
    let again = reqwest::Client::builder()
        .timeout(SOON)
        .build()
        .unwrap()
        .post(format!("{}/api/v1/devices/{}/paste", desk.stage.board.console_url, desk.device))
        .bearer_auth(&desk.token)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let (status, said) = (again.status().as_u16(), again.text().await.unwrap());
    assert!(status == 422 && said.contains("this paste came before"), "{status} {said}");
    let audit = desk.stage.consultant.get("/audit.csv").await.unwrap();
    assert!(audit.contains("paste.relayed") && audit.contains("paste.answered"), "{audit}");
    desk.agent.stop().await.unwrap();
    desk.stage.board.stop().await.unwrap();
    assert!(desk.stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
    let found = scan::files_with(desk.stage.folder.path(), &needles).unwrap();
    assert_eq!(found, [allowed], "and when it has stopped");
    assert!(desk.stage.consultant.pages.iter().all(|(_, text)| !text.contains(&canary)));
}

#[tokio::test]
async fn what_is_sealed_at_the_desk_is_on_the_device_and_nowhere_on_the_way_on_sqlite() {
    carried_and_kept_nowhere(Database::Sqlite).await;
}

#[tokio::test]
async fn what_is_sealed_at_the_desk_is_on_the_device_and_nowhere_on_the_way_on_postgresql() {
    carried_and_kept_nowhere(Database::Postgres).await;
}

#[tokio::test]
async fn whoever_can_not_paste_is_told_why_and_what_to_do() {
    const VALUE: &str = "canary-not-to-be-sent";
    let mut desk = Desk::new(Database::Sqlite).await;
    let (token, fingerprint) = (desk.token.clone(), desk.fingerprint.clone());
    let support = desk.stage.board.make_token("support", "support").await.unwrap();
    let slot = "asked/THEIR_KEY";
    let with: &[&str] = &[slot, "--device-fingerprint", &fingerprint];
    let cases: &[(&str, &[&str], &str, i32, &str)] = &[
        (&token, &[slot], VALUE, 4, "isn't known on this computer"),
        (&token, &[slot, "--device-fingerprint", "AAAA BBBB CCCC DDDD"], VALUE, 4, "ALARM"),
        (&support, with, VALUE, 2, "roles don't include this"),
        ("board_made-up", with, VALUE, 2, "--roles consultant"),
        (&token, with, "NOT a key", 1, "this is no Their key"),
        (&token, with, "", 1, "the value is empty"),
        (&token, &["asked/TYPO"], VALUE, 1, "Choose one of:\n  asked/THEIR_KEY"),
        (&token, &["THEIR_KEY"], VALUE, 1, "THEIR_KEY doesn't say of which component"),
    ];
    for (token, arguments, value, code, words) in cases {
        let (ended, said) = desk.refused(token, arguments, value).await;
        assert!(ended == Some(*code) && said.contains(words), "{words}: {ended:?} {said}");
        assert!(!said.contains("canary") && !said.contains("NOT a key"), "{said}");
    }
    assert_eq!(desk.slot_state().await, "empty");

    // Known by now; the file says otherwise when somebody stands in the device's place.
    let known = std::fs::read_to_string(&desk.known).unwrap();
    assert!(known.starts_with(&desk.device), "{known}");
    let shown = desk.fingerprint.replace(' ', "-");
    std::fs::write(&desk.known, known.replace(&shown, "AAAA-BBBB-CCCC-DDDD")).unwrap();
    let (ended, said) = desk.refused(&token, with, VALUE).await;
    assert!(ended == Some(4) && said.contains("ALARM") && said.contains("line 1"), "{ended:?} {said}");
    std::fs::write(&desk.known, &known).unwrap();

    desk.agent.stop().await.unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let (ended, said) = desk.refused(&token, &[slot], VALUE).await;
        if ended == Some(1) && said.contains("is off") && said.contains("nothing was sent") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{ended:?} {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(scan::memory_with(desk.board(), VALUE.as_bytes()).unwrap(), 0);
}

#[tokio::test]
async fn at_a_terminal_nothing_of_it_is_shown() {
    let mut desk = Desk::new(Database::Sqlite).await;
    let (address, heard) = eavesdrop(&desk.stage.board.console_url).await;
    let paste = [
        program("board").unwrap().to_str().unwrap(),
        "paste",
        "THEIR_KEY",
        "--board",
        &address,
        "--device",
        &desk.device,
        "--device-fingerprint",
        &desk.fingerprint,
        "--known-devices",
        desk.known.to_str().unwrap(),
    ]
    .map(ToOwned::to_owned);
    let paste = paste.each_ref().map(String::as_str);
    let environment = [("BOARD_TOKEN", desk.token.as_str())];
    // With a line end behind the last line, and without.
    for typed in ["canary-first-line\nsecond line\n", "canary-first-line\nsecond line"] {
        let (code, shown) = at_a_terminal(&paste, &environment, &[typed], SOON).await.unwrap();
        assert!(
            code == Some(1) && shown.contains("the value has several lines: nothing was sent"),
            "{shown}"
        );
        assert!(!shown.contains("canary") && !shown.contains("second"), "{shown}");
    }
    heard.lock().unwrap().clear();
    let (code, shown) = at_a_terminal(&paste, &environment, &["canary-typed\n"], SOON).await.unwrap();
    assert!(code == Some(0) && shown.contains("asked/THEIR_KEY is on "), "{code:?} {shown}");
    assert!(
        shown.starts_with("Their key (asked/THEIR_KEY), not shown: ") && !shown.contains("canary"),
        "{shown}"
    );
    assert_eq!(desk.slot_state().await, "present");
    let asked = Regex::new("GET /api/v1/devices/[^ ]+/paste ").unwrap();
    let times = asked.find_iter(&heard.lock().unwrap()).count();
    assert_eq!(times, 2, "the time that it is good for begins when the value is there");
}

#[tokio::test]
async fn with_a_new_authority_the_mac_shows_what_the_desk_reckons_and_another_value_runs_its_step_again() {
    let mut desk = Desk::new(Database::Sqlite).await;
    let arguments = ["asked/THEIR_KEY", "--device-fingerprint", &desk.fingerprint.clone()];
    let done = desk.paste(&desk.stage.board.console_url, &desk.token, &arguments, "their-first-key").await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    desk.stage.consultant.runbook_done(&desk.device, SOON).await.unwrap();

    for arguments in [&["ca", "rotate"][..], &["ca", "rotate", "--finish"]] {
        let begun = tokio::time::Instant::now();
        loop {
            let done = desk.stage.board.beside(arguments, "").await.unwrap();
            if done.status.success() {
                break;
            }
            // Until the device keeps the new pin.
            assert!(begun.elapsed() < SOON, "{}", String::from_utf8_lossy(&done.stderr));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    // The Mac stays on: its link is made anew by itself, and it shows the fingerprint under the new authority.
    let begun = tokio::time::Instant::now();
    let shown = loop {
        let shown = desk.agent.status().await.unwrap()["fingerprint"].as_str().unwrap().to_owned();
        if shown != desk.fingerprint {
            break shown;
        }
        assert!(begun.elapsed() < SOON, "the Mac goes over by itself");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let arguments = ["asked/THEIR_KEY", "--device-fingerprint", &shown];
    let (code, said) = desk.refused(&desk.token, &arguments, "their-second-key-is-longer").await;
    assert!(code == Some(4) && said.contains("rotated its certificate authority"), "{said}");
    std::fs::remove_file(&desk.known).unwrap();
    let value = "their-second-key-is-longer";
    let begun = tokio::time::Instant::now();
    loop {
        let done = desk.paste(&desk.stage.board.console_url, &desk.token, &arguments, value).await;
        if done.status.success() {
            break;
        }
        // The link may be on its way.
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!said.contains("ALARM") && begun.elapsed() < SOON, "{said}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let begun = tokio::time::Instant::now();
    let length = || std::fs::read_to_string(desk.agent.home().join("their-key-length")).unwrap();
    while length().trim() != value.len().to_string() {
        assert!(begun.elapsed() < SOON, "the step that reads it runs again: {}", length());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    desk.agent.stop().await.unwrap();
    desk.stage.board.stop().await.unwrap();
}
