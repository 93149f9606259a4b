//! `board-agent paste`, as a person and as a script call it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use shared::ids::AttemptId;
use shared::protocol::inventory::SlotState;
use shared::protocol::link::{FromBoard, ReportBody};
use shared::protocol::steps::{Offer, OfferKind, Outcome};
use shared::random::SystemRandom;
use shared::time::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::board::walk;
use crate::support::{AGENT, Board, Device, Link, Running, within};

pub const SECRET: &str = "xoxb-0123456789-abcdefghij";
/// Looking takes seconds: what was pasted must be told sooner.
const SLACK: &str = r#"
key = "slack"
name = "Slack"
category = "integration"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "BOT_TOKEN"
name = "Slack bot token"
tag = "client-supplied"
pattern = "^xoxb-[0-9A-Za-z-]{20,200}$"
[[slot]]
key = "SHARED"
name = "x"
tag = "client-supplied"
required = false
[[slot]]
key = "LICENCE"
name = "x"
tag = "our-managed"
[[step]]
id = "use"
kind = "auto"
title = "x"
run = 'echo "it is $BOT_TOKEN"; printf %s "$BOT_TOKEN" > "$HOME/used"'
verify = 'test -s "$HOME/used"'
secrets = [{ slot = "BOT_TOKEN", as = "env" }]
[[wrapper]]
name = "slack"
command = ["sh", "-c", 'test "$TOKEN" = "$1"', "slack"]
slots = { TOKEN = "BOT_TOKEN" }
[[detect]]
type = "command"
argv = ["sleep", "3"]
"#;
const GOOGLE: &str = r#"
key = "google"
name = "Google"
category = "integration"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "SHARED"
name = "Google credentials"
tag = "client-supplied"
one_of = "auth"
"#;

pub struct Site {
    pub folder: tempfile::TempDir,
    pub board: Board,
    pub device: Device,
    pub digest: String,
    _agent: Running,
}

/// An agent that runs and has its scope.
pub async fn site() -> (Site, Link) {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("slack", SLACK), ("google", GOOGLE)]);
    let agent = device.run_logging(&folder.path().join("agent.log"));
    let (mut link, _) = board.welcome(&digest, &["slack", "google"]).await;
    link.inventory(|_| true).await;
    (Site { folder, board, device, digest, _agent: agent }, link)
}

pub fn state(body: &ReportBody, key: &str) -> Option<(SlotState, Option<u64>)> {
    let ReportBody::Inventory { slots, .. } = body else { return None };
    slots
        .iter()
        .find(|report| format!("{}/{}", report.component, report.slot) == key)
        .map(|report| (report.state, report.version))
}

#[tokio::test]
async fn a_pasted_secret_is_there_at_once_and_is_used_like_any_other() {
    let (mut site, mut link) = site().await;
    let device = &site.device;
    let began = Instant::now();
    let (code, out, err) = device.pipe("paste", &["BOT_TOKEN"], format!("{SECRET}\n").as_bytes()).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "slack/BOT_TOKEN is on this device. The board is told that it is there, never what it is.\n"
    );
    link.inventory(|body| state(body, "slack/BOT_TOKEN") == Some((SlotState::Present, None))).await;
    assert!(began.elapsed() < Duration::from_secs(1), "the board sees it in {:?}", began.elapsed());

    let (code, _, err) = device.call("exec", &["--for", "slack", "--", "printenv", "TOKEN"]).await;
    assert_eq!(code, Some(0), "{err}");
    let wrapper = device.data.join("wrappers/slack");
    assert!(Command::new(wrapper).arg(SECRET).status().await.unwrap().success());
    link.send(FromBoard::Offer(Offer {
        attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
        bundle_digest: site.digest.clone(),
        component: "slack".to_owned(),
        step: "use".to_owned(),
        kind: OfferKind::Run,
        params: [].into(),
        expires_in_ms: 60_000,
    }));
    link.report().await;
    let output = link.report().await;
    assert!(matches!(&output.body, ReportBody::Output(chunk) if chunk.text == "it is ••••\n"), "{output:?}");
    assert!(
        matches!(link.report().await.body, ReportBody::AttemptEnded(end) if end.outcome == Outcome::Succeeded)
    );

    let (code, out, _) = device.call("paste", &["--list", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, listed.as_array().unwrap().len()), (Some(0), 3));
    assert_eq!((&listed[0]["slot"], &listed[0]["filled"]), (&"BOT_TOKEN".into(), &true.into()));

    drop(link);
    let (_link, hello) = site.board.welcome(&site.digest, &["slack", "google"]).await;
    assert!(hello.secrets.is_empty(), "the board learns no version of it");
    for file in walk(site.folder.path()) {
        let content = std::fs::read(&file).unwrap_or_default();
        let held = content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        let allowed = file.starts_with(site.device.data.join("vault")) || file.ends_with("home/used");
        assert!(allowed || !held, "{}", file.display());
    }
    let log = std::fs::read_to_string(site.folder.path().join("agent.log")).unwrap();
    assert!(log.contains("a secret was pasted"), "{log}");
}

#[tokio::test]
async fn what_can_not_be_pasted_is_refused_and_says_why() {
    let (site, _link) = site().await;
    let refused = [
        (
            "slack/BOT_TOKEN",
            "hunter2hunter2",
            6,
            "this is no Slack bot token: it must look like ^xoxb-[0-9A-Za-z-]{20,200}$. Nothing was changed. Copy the \
             whole value, without spaces or quotes around it, and paste it again\n",
        ),
        (
            "slack/BOT_TOKEN",
            "\n",
            6,
            "the value is empty: nothing was changed. Copy the Slack bot token again and paste it\n",
        ),
        ("slack/LICENCE", "hunter2", 2, "slack/LICENCE: this one is delivered by the board\n"),
        ("LICENCE", "hunter2", 2, "slack/LICENCE: this one is delivered by the board\n"),
        (
            "SHARED",
            "hunter2",
            2,
            "several components have a slot SHARED. Choose one of:\n  slack/SHARED\n  google/SHARED\n",
        ),
        (
            "TYPO",
            "hunter2",
            2,
            "this device's scope has no slot TYPO. Choose one of:\n  slack/BOT_TOKEN\n  slack/SHARED\n  google/SHARED\n",
        ),
    ];
    for (slot, value, code, why) in refused {
        let (ended, out, err) = site.device.pipe("paste", &[slot], value.as_bytes()).await;
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{slot}");
        assert_eq!(err, format!("board-agent: {why}"));
    }
    let large = vec![b'x'; 16 * 1024 + 1];
    let (code, _, err) = site.device.pipe("paste", &["google/SHARED"], &large).await;
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains("larger than 16 KiB"), "{err}");
    assert_eq!(site.device.pipe("paste", &["google/SHARED"], &large[1..]).await.0, Some(0), "the largest");
    assert_eq!(site.device.pipe("paste", &[], b"").await.0, Some(2));

    let (_, out, _) = site.device.call("paste", &["--list"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "slack/BOT_TOKEN                                 empty   Slack bot token",
            "slack/SHARED                                    empty   x (optional)",
            "google/SHARED                                   filled  Google credentials (one of the group auth)",
        ]
    );
    let nobody_runs = Device::new(&site.folder.path().join("another"));
    std::fs::create_dir_all(&nobody_runs.data).unwrap();
    let (code, _, err) = nobody_runs.pipe("paste", &["X"], b"x").await;
    assert_eq!(code, Some(1));
    assert!(err.contains("Is `board-agent run` running?"), "{err}");
}

#[tokio::test]
async fn at_a_terminal_nothing_of_it_is_shown() {
    let (site, mut link) = site().await;
    let (code, shown) = at_a_terminal(&site.device, "BOT_TOKEN", &format!("{SECRET}\n")).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.starts_with("Slack bot token (slack/BOT_TOKEN), not shown: "), "{shown}");
    assert!(!shown.contains("xoxb"), "{shown}");
    link.inventory(|body| state(body, "slack/BOT_TOKEN") == Some((SlotState::Present, None))).await;

    let (code, shown) =
        at_a_terminal(&site.device, "google/SHARED", "first line\nsecond line\nthird\n").await;
    assert_eq!(code, Some(6), "{shown}");
    assert!(shown.contains("the value has several lines: nothing was changed"), "{shown}");
    let (_, out, _) = site.device.call("paste", &["--list"]).await;
    assert_eq!(out.matches(" empty ").count(), 2, "{out}");
}

/// With `script`, which every system has: it gives a program a terminal of its own.
async fn at_a_terminal(device: &Device, slot: &str, typed: &str) -> (Option<i32>, String) {
    let paste = format!(
        "'{AGENT}' paste {slot} --data '{}'",
        device.data.display().to_string().replace('\'', r"'\''")
    );
    let mut command = Command::new("script");
    if cfg!(target_os = "macos") {
        command.args(["-q", "/dev/null", "sh", "-c", &paste]);
    } else {
        command.args(["-qec", &paste, "/dev/null"]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    while !shown.ends_with(b"not shown: ") {
        shown.push(within(screen.read_u8()).await.unwrap());
    }
    keyboard.write_all(typed.as_bytes()).await.unwrap();
    keyboard.flush().await.unwrap();
    within(screen.read_to_end(&mut shown)).await.unwrap();
    let status = within(child.wait()).await.unwrap();
    (status.code(), String::from_utf8(shown).unwrap())
}

#[tokio::test]
async fn the_board_hears_when_another_value_takes_the_place_of_one() {
    let (site, mut link) = site().await;
    let paste = async |value: &str| {
        let (code, _, err) = site.device.pipe("paste", &["BOT_TOKEN"], format!("{value}\n").as_bytes()).await;
        assert_eq!(code, Some(0), "{err}");
    };
    let other = SECRET.replace("0123", "9876");
    for value in [SECRET, SECRET, &other] {
        paste(value).await;
    }
    let report = link.report().await;
    let expected = ReportBody::Replaced { component: "slack".to_owned(), slot: "BOT_TOKEN".to_owned() };
    assert_eq!(report.body, expected, "neither the first nor the same again is told");
    link.acknowledge(&report);
    paste(SECRET).await;
    assert_eq!(link.report().await.body, expected);
}
