//! Whether a credential works, asked of a real HTTPS server on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use agent::outbound::{Outbound, StandIn};
use agent::vault::{self, Vault};
use agent::verify::{Finding, Question, Verdict, ask};
use shared::catalog::{Bundle, Manifest};
use shared::protocol::inventory::{SlotReport, SlotState};
use shared::protocol::link::{FromBoard, ReportBody, Scope};
use shared::secret::Secret;
use shared::time::Timestamp;

use crate::board::walk;
use crate::support::{Asked, Board, Device, Link, Outside, Reply, within};

const GOOD: &str = "tok-good-0123456789abcdef";
const REVOKED: &str = "tok-revoked-0123456789abcdef";
const CRM: &str = r#"
key = "crm"
name = "CRM"
category = "crm"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "TOKEN"
name = "CRM token"
tag = "client-supplied"
[[slot]]
key = "SYSTEM_KEY"
name = "x"
tag = "client-supplied"
required = false
[[param]]
key = "STORE"
name = "x"
pattern = "^[a-z]+$"
[verify_secret.TOKEN]
method = "GET"
url = "https://api.example.com/v1/me?fields=id"
headers = { Authorization = "Bearer {secret}" }
ok = "status == 200"
bad = "json.error == 'revoked'"
record = ["id", "echo"]
[verify_secret.SYSTEM_KEY]
method = "POST"
url = "https://{param:STORE}.shops.example.com/check"
basic = "{secret}:{slot:TOKEN}"
ok = "json.ok == true"
"#;

fn manifest() -> Manifest {
    let bundle = Bundle {
        serial: 1,
        min_serial: 0,
        not_after: Timestamp::from_micros(0),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: [("crm".to_owned(), CRM.to_owned())].into(),
    };
    bundle.parse_manifests().unwrap().remove("crm").unwrap()
}

/// A provider that knows one token, and repeats it.
fn provider(asked: &Asked) -> Reply {
    match asked.header("authorization").strip_prefix("Bearer ") {
        Some(GOOD) => Reply::json(200, &format!(r#"{{"id":17,"echo":"{GOOD}","name":"not kept"}}"#)),
        Some(REVOKED) => Reply::json(403, r#"{"error":"revoked"}"#),
        Some(_) | None => Reply::json(401, r#"{"error":"unknown"}"#),
    }
}

struct Site {
    _folder: tempfile::TempDir,
    vault: Vault,
    outside: Outside,
}

impl Site {
    async fn new(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = agent::config::Paths::new(folder.path().join("data"));
        paths.create().unwrap();
        let vault = vault::open(&paths, true).unwrap();
        let outside = Outside::start(folder.path(), reply).await;
        let site = Self { _folder: folder, vault, outside };
        site.hold("TOKEN", GOOD);
        site
    }

    fn hold(&self, slot: &str, value: &str) {
        self.vault.write_pasted("crm", slot, &Secret::new(value.as_bytes().to_vec())).unwrap();
    }

    async fn ask(&self, slot: &str, timeout: Duration) -> Finding {
        self.ask_through(&self.outside.outbound(), slot, timeout).await
    }

    async fn ask_through(&self, outbound: &Outbound, slot: &str, timeout: Duration) -> Finding {
        let manifest = manifest();
        let params = BTreeMap::from([("STORE".to_owned(), "acme".to_owned())]);
        let check = &manifest.verify_secret[slot];
        let question = Question { manifest: &manifest, slot, check, params: &params, vault: &self.vault };
        let finding = within(ask(outbound, &question, timeout)).await.unwrap();
        let shown = format!("{finding:?}");
        for hidden in [GOOD, REVOKED, "fields=id", "https://"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        finding
    }
}

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_provider_accepts_refuses_or_says_neither() {
    let site = Site::new(provider).await;
    let finding = site.ask("TOKEN", SOON).await;
    assert_eq!((finding.verdict, finding.passing), (Verdict::Verified, false));
    assert_eq!(finding.said, "api.example.com answered 200 and accepts it");
    let recorded = BTreeMap::from([("id".into(), "17".into()), ("echo".into(), "••••".into())]);
    assert_eq!(finding.recorded, recorded, "what the manifest names, and the secret masked");
    let asked = site.outside.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "GET /v1/me?fields=id HTTP/1.1");
    assert_eq!(asked[0].header("host"), "api.example.com");
    assert!(asked[0].header("user-agent").starts_with("board-agent/"));

    site.hold("TOKEN", REVOKED);
    let finding = site.ask("TOKEN", SOON).await;
    assert_eq!(finding.verdict, Verdict::Rejected);
    assert_eq!(finding.said, "api.example.com answered 403 and refuses it");
    site.hold("TOKEN", "tok-other-0123456789abcdef");
    assert_eq!(site.ask("TOKEN", SOON).await.verdict, Verdict::Unverifiable);
}

#[tokio::test]
async fn a_check_reaches_the_param_s_host_with_both_values_of_http_basic() {
    let site = Site::new(|_| Reply::json(200, r#"{"ok":true}"#)).await;
    site.hold("SYSTEM_KEY", "system-key-1");
    assert_eq!(site.ask("SYSTEM_KEY", SOON).await.verdict, Verdict::Verified);
    let asked = site.outside.asked().remove(0);
    assert_eq!((asked.line.as_str(), asked.header("content-length")), ("POST /check HTTP/1.1", "0"));
    assert_eq!(asked.header("host"), "acme.shops.example.com");
    let basic = shared::crypto::base64::encode(format!("system-key-1:{GOOD}").as_bytes());
    assert_eq!(asked.header("authorization"), format!("Basic {basic}"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let site = Site::new(|_| Reply::redirect("https://files.example.com/steal")).await;
    let finding = site.ask("TOKEN", SOON).await;
    assert_eq!(finding.verdict, Verdict::Unverifiable);
    assert_eq!(finding.said, "api.example.com answered 302 and sends elsewhere; it was not followed");
    assert_eq!(site.outside.asked().len(), 1, "nobody else saw the secret");
}

#[tokio::test]
async fn what_is_too_large_cut_short_or_no_json_is_unverifiable() {
    let site = Site::new(|_| Reply::json(200, &format!(r#"{{"id":"{}"}}"#, "x".repeat(64 * 1024)))).await;
    let finding = site.ask("TOKEN", SOON).await;
    assert_eq!((finding.verdict, finding.passing), (Verdict::Unverifiable, false));
    assert!(finding.said.contains("more than 64 KiB") && finding.recorded.is_empty(), "{}", finding.said);

    let site = Site::new(|_| Reply::CutShort(b"{\"id\":".to_vec())).await;
    let finding = site.ask("TOKEN", SOON).await;
    assert_eq!((finding.verdict, finding.passing), (Verdict::Unverifiable, true));
    assert!(finding.said.starts_with("api.example.com broke off"), "{}", finding.said);

    for body in ["<html>it is down</html>", "{\"ok\":", "", &"[".repeat(10_000)] {
        let body = body.to_owned();
        let site = Site::new(move |_| Reply::json(200, &body)).await;
        site.hold("SYSTEM_KEY", "system-key-1");
        let finding = site.ask("SYSTEM_KEY", SOON).await;
        assert_eq!(finding.verdict, Verdict::Unverifiable);
        assert!(finding.said.ends_with("with something that is no JSON"), "{}", finding.said);
    }
}

#[tokio::test]
async fn who_does_not_answer_or_is_somebody_else_is_tried_again_later() {
    let site = Site::new(|_| Reply::Silence).await;
    let began = Instant::now();
    let finding = site.ask("TOKEN", Duration::from_secs(1)).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((finding.verdict, finding.passing), (Verdict::Unverifiable, true));
    assert_eq!(finding.said, "api.example.com gave no answer in 1 seconds");

    let impostor = Site::new(provider).await;
    let stranger = Outbound::through(StandIn::new(impostor.outside.address, Some(&site.outside.ca)).unwrap());
    let finding = impostor.ask_through(&stranger, "TOKEN", SOON).await;
    assert_eq!((finding.verdict, finding.passing), (Verdict::Unverifiable, true));
    assert!(finding.said.starts_with("api.example.com can't be reached: "), "{}", finding.said);
    assert!(impostor.outside.asked().is_empty(), "it saw no secret");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Outbound::through(StandIn::new(free, Some(&site.outside.ca)).unwrap());
    let finding = site.ask_through(&nobody, "TOKEN", SOON).await;
    assert!(finding.passing && finding.said.contains("Connection refused"), "{}", finding.said);
}

#[test]
fn a_stand_in_is_on_this_machine() {
    let refused = StandIn::new("192.0.2.1:443".parse().unwrap(), None);
    assert!(refused.err().unwrap().to_string().contains("not on this machine"));
}

fn slot(body: &ReportBody) -> Option<&SlotReport> {
    let ReportBody::Inventory { slots, .. } = body else { return None };
    slots.iter().find(|report| report.slot == "TOKEN")
}

async fn state(link: &mut Link, wanted: SlotState, said: &str) {
    link.inventory(|body| {
        slot(body).is_some_and(|slot| {
            let words = slot.check.as_ref().map_or("", |check| check.said.as_str());
            slot.state == wanted && words.contains(said)
        })
    })
    .await;
}

#[tokio::test]
async fn the_board_hears_whether_what_was_pasted_works_and_nobody_hears_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(folder.path(), provider).await;
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("crm", CRM)]);
    let log = folder.path().join("agent.log");
    let mut agent = device.run_outside(&log, &outside);
    let (mut link, _) = board.welcome(&digest, &["crm"]).await;
    state(&mut link, SlotState::Empty, "").await;
    assert!(outside.asked().is_empty(), "nothing to ask about");

    let paste = async |value: &str| {
        let (code, _, err) = device.pipe("paste", &["TOKEN"], value.as_bytes()).await;
        assert_eq!(code, Some(0), "{err}");
    };
    paste(REVOKED).await;
    state(&mut link, SlotState::Present, "").await;
    state(&mut link, SlotState::Rejected, "api.example.com answered 403 and refuses it").await;
    paste(GOOD).await;
    state(&mut link, SlotState::Present, "").await;
    state(&mut link, SlotState::Verified, "accepts it").await;
    assert_eq!(outside.asked().len(), 2, "once for each value");
    let (_, shown, _) = device.call("inventory", &[]).await;
    assert!(shown.contains("verified") && shown.contains("accepts it echo=•••• id=17"), "{shown}");

    drop(link);
    agent.kill().await;
    agent = device.run_outside(&log, &outside);
    let (mut link, _) = board.welcome(&digest, &["crm"]).await;
    state(&mut link, SlotState::Verified, "accepts it").await;
    assert!(outside.asked().is_empty(), "a restart asks nobody again");
    agent.kill().await;

    for file in walk(folder.path()) {
        let content = std::fs::read(&file).unwrap_or_default();
        for secret in [GOOD, REVOKED] {
            let held = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!held || file.starts_with(device.data.join("vault")), "{}", file.display());
        }
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("a credential was checked") && log.contains("TRACE"), "{log}");
}

#[tokio::test]
async fn the_inputs_that_a_check_needs_come_with_the_scope() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(folder.path(), |_| Reply::json(200, r#"{"ok":true}"#)).await;
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("crm", CRM)]);
    let _agent = device.run_outside(&folder.path().join("agent.log"), &outside);
    let (mut link, _) = board.welcome(&digest, &["crm"]).await;
    link.inventory(|_| true).await;
    for slot in ["SYSTEM_KEY", "TOKEN"] {
        assert_eq!(device.pipe("paste", &[slot], GOOD.as_bytes()).await.0, Some(0));
    }
    let said = |body: &ReportBody, state: SlotState, said: &str| {
        let ReportBody::Inventory { slots, .. } = body else { return false };
        slots.iter().any(|report| {
            let words = report.check.as_ref().map_or("", |check| check.said.as_str());
            report.slot == "SYSTEM_KEY" && report.state == state && words.contains(said)
        })
    };
    link.inventory(|body| said(body, SlotState::Unverifiable, "the param in the check's address is missing"))
        .await;
    let scope = |store: &str| {
        FromBoard::Scope(Scope {
            bundle_digest: Some(digest.clone()),
            components: vec!["crm".to_owned()],
            params: [("crm".to_owned(), [("STORE".to_owned(), store.to_owned())].into())].into(),
            look_at: Vec::new(),
        })
    };
    link.send(scope("evil.example/"));
    link.send(scope("acme"));
    link.inventory(|body| said(body, SlotState::Verified, "acme.shops.example.com answered 200")).await;
    let hosts: BTreeSet<_> = outside.greeted().into_iter().collect();
    assert!(hosts.iter().eq(["acme.shops.example.com", "api.example.com"]), "only the manifest's: {hosts:?}");
}

#[tokio::test]
async fn without_dev_nothing_plays_the_providers() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(folder.path(), provider).await;
    let board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let identity = device.data.join("identity.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    assert!(text.contains("\"dev\": true"));
    std::fs::write(&identity, text.replace("\"dev\": true", "\"dev\": false")).unwrap();
    let log = folder.path().join("agent.log");
    assert_eq!(device.run_outside(&log, &outside).end().await, Some(1));
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("a stand-in for the outside is for agents that joined with --dev"), "{said}");
}
