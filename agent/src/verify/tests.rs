use serde_json::json;
use shared::catalog::{Bundle, CheckUrl};
use shared::time::{Clock as _, ManualClock, Timestamp};

use super::*;
use crate::config::Paths;
use crate::vault;

const MANIFEST: &str = r#"
key = "crm"
name = "x"
category = "crm"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "TOKEN"
name = "x"
tag = "our-managed"
[[slot]]
key = "SYSTEM_KEY"
name = "x"
tag = "our-managed"
[[slot]]
key = "PLAIN"
name = "x"
tag = "our-managed"
[[param]]
key = "SYSTEM"
name = "x"
pattern = "^[a-z]+$"
[verify_secret.TOKEN]
method = "GET"
url = "https://api.example.com/me"
headers = { Authorization = "Bearer {secret}", X-Key = "{slot:SYSTEM_KEY}", X-System = "{param:SYSTEM}" }
ok = "status == 200"
bad = "json.error == 'invalid'"
record = ["id", "data.plan", "data.list", "data.missing", "data.free"]
"#;

fn manifest() -> Manifest {
    let bundle = Bundle {
        serial: 1,
        min_serial: 0,
        not_after: Timestamp::from_micros(0),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: [("crm".to_owned(), MANIFEST.to_owned())].into(),
    };
    bundle.parse_manifests().unwrap().remove("crm").unwrap()
}

const TOKEN: &str = "a-secret-token-0123456789";

fn judged(status: u16, body: &str) -> Finding {
    let manifest = manifest();
    let masks = Masks::new(&[Secret::new(TOKEN.as_bytes().to_vec())]);
    let values = [Secret::new(TOKEN.to_owned()), Secret::new("pin".to_owned())];
    judge(&manifest.verify_secret["TOKEN"], "api.example.com", status, body.as_bytes(), &masks, &values)
}

#[test]
fn an_answer_means_one_of_three_things_and_says_why() {
    use Verdict::{Rejected, Unverifiable, Verified};
    let table = [
        (200, "{}", Verified, false, "api.example.com answered 200 and accepts it"),
        (200, "not json", Verified, false, "api.example.com answered 200 and accepts it"),
        (403, "{\"error\":\"invalid\"}", Rejected, false, "api.example.com answered 403 and refuses it"),
        (200, "{\"error\":\"invalid\"}", Unverifiable, false, "means both"),
        (302, "", Unverifiable, false, "sends elsewhere; it was not followed"),
        (403, "{\"error\":\"other\"}", Unverifiable, false, "means neither"),
        (403, "<html>", Unverifiable, false, "with something that is no JSON"),
        (429, "{}", Unverifiable, true, "means neither"),
        (503, "<html>", Unverifiable, true, "no JSON"),
    ];
    for (status, body, verdict, passing, said) in table {
        let finding = judged(status, body);
        assert_eq!((finding.verdict, finding.passing), (verdict, passing), "{status} {body}");
        assert!(finding.said.contains(said), "{}", finding.said);
    }
}

#[test]
fn only_named_fields_are_kept_short_and_without_the_secret() {
    let long = "ü".repeat(5000);
    let body = json!({ "id": 17, "name": "x", "data": { "plan": long, "list": [1], "free": null } });
    let recorded = judged(200, &body.to_string()).recorded;
    assert_eq!(recorded.keys().collect::<Vec<_>>(), ["data.free", "data.plan", "id"]);
    assert_eq!((recorded["id"].as_str(), recorded["data.free"].as_str()), ("17", "null"));
    assert_eq!(recorded["data.plan"].chars().count(), FIELD);

    let at_the_edge = format!("{}{TOKEN}", "x".repeat(FIELD - 5));
    for leak in [TOKEN, &format!("key {TOKEN}"), "your pin", &at_the_edge, &base64(TOKEN)] {
        let body = json!({ "id": leak, "data": { "plan": format!("{leak}\u{0}\n") } }).to_string();
        for (name, kept) in judged(200, &body).recorded {
            assert!(
                kept.contains("••••") && !kept.contains("a-secr") && !kept.contains("pin"),
                "{name}: {kept}"
            );
            assert!(!kept.contains(char::is_control));
        }
    }
}

fn base64(text: &str) -> String {
    shared::crypto::base64::encode(text.as_bytes())
}

struct Site {
    _folder: tempfile::TempDir,
    paths: Paths,
    vault: Vault,
    manifest: Manifest,
    clock: ManualClock,
}

fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().to_owned());
    paths.create().unwrap();
    let vault = vault::open(&paths, true).unwrap();
    let clock = ManualClock::at(Timestamp::from_micros(1_764_000_000_000_000));
    let site = Site { _folder: folder, paths, vault, manifest: manifest(), clock };
    site.write("TOKEN", 1);
    site.write("SYSTEM_KEY", 1);
    site
}

impl Site {
    fn write(&self, slot: &str, version: u64) {
        self.vault.write("crm", slot, version, &Secret::new(TOKEN.as_bytes().to_vec())).unwrap();
    }

    fn due(&self, memory: &Memory, params: &BTreeMap<String, String>) -> Option<Due> {
        memory.due(&self.manifest, "TOKEN", Some(params), &self.vault, self.clock.now()).unwrap()
    }

    fn state(&self, memory: &Memory, params: &BTreeMap<String, String>) -> SlotState {
        memory.state(&self.manifest, "TOKEN", Some(params), &self.vault).unwrap().0
    }
}

fn finding(verdict: Verdict, passing: bool) -> Finding {
    Finding { verdict, said: "said".to_owned(), recorded: BTreeMap::new(), passing }
}

#[test]
fn an_answer_is_good_for_a_day_and_a_failed_try_for_an_hour() {
    let site = site();
    let params = BTreeMap::from([("SYSTEM".to_owned(), "ours".to_owned())]);
    let mut memory = Memory::load(&site.paths);
    let minutes = |minutes: u64| site.clock.advance(Duration::from_secs(minutes * 60));
    let due = site.due(&memory, &params).unwrap();
    assert_eq!(site.state(&memory, &params), SlotState::Present);
    assert!(memory.keep(due, finding(Verdict::Verified, false), site.clock.now()));
    assert_eq!(site.state(&memory, &params), SlotState::Verified);
    for _ in 0..23 {
        assert!(site.due(&memory, &params).is_none());
        minutes(60);
    }
    assert!(site.due(&Memory::load(&site.paths), &params).is_none(), "a restart asks nobody");
    minutes(60);
    let due = site.due(&memory, &params).unwrap();
    assert!(memory.keep(due, finding(Verdict::Unverifiable, true), site.clock.now()));
    minutes(30);
    assert!(site.due(&memory, &params).is_none());
    minutes(30);
    assert!(site.due(&memory, &params).is_some());
    let early = site.clock.now();
    let before = memory
        .due(
            &site.manifest,
            "TOKEN",
            Some(&params),
            &site.vault,
            Timestamp::from_micros(early.as_micros() / 2),
        )
        .unwrap();
    assert!(before.is_some(), "a clock that went back");
    assert!(memory.due(&site.manifest, "PLAIN", None, &site.vault, early).unwrap().is_none(), "no check");
}

#[test]
fn an_answer_is_only_about_what_was_asked() {
    let site = site();
    let params = BTreeMap::from([("SYSTEM".to_owned(), "ours".to_owned())]);
    let mut memory = Memory::load(&site.paths);
    let answered = |memory: &mut Memory| {
        let due = site.due(memory, &params).unwrap();
        assert!(memory.keep(due, finding(Verdict::Rejected, false), site.clock.now()));
        assert_eq!(site.state(memory, &params), SlotState::Rejected);
    };
    answered(&mut memory);
    site.write("TOKEN", 2);
    assert_eq!(site.state(&memory, &params), SlotState::Present, "another version");
    answered(&mut memory);
    site.write("SYSTEM_KEY", 2);
    assert_eq!(site.state(&memory, &params), SlotState::Present, "another slot that it reads");
    answered(&mut memory);
    let other = BTreeMap::from([("SYSTEM".to_owned(), "theirs".to_owned())]);
    assert_eq!(site.state(&memory, &other), SlotState::Present);
    assert!(site.due(&memory, &other).is_some());

    memory.forget("crm").unwrap();
    assert_eq!(site.state(&memory, &params), SlotState::Present, "pasted again: there is no version");
    assert_eq!(site.state(&Memory::load(&site.paths), &params), SlotState::Present, "and after a kill");
    let late = site.due(&memory, &params).unwrap();
    memory.forget("crm").unwrap();
    assert!(!memory.keep(late, finding(Verdict::Verified, false), site.clock.now()), "too late");
    assert_eq!(site.state(&memory, &params), SlotState::Present);
}

#[test]
fn what_can_not_be_asked_is_unverifiable_without_a_request() {
    let site = site();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = |params: &[(&str, &str)]| {
        let params = params.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (manifest, vault) = (&site.manifest, &site.vault);
        let check = &manifest.verify_secret["TOKEN"];
        let question = Question { manifest, slot: "TOKEN", check, params: &params, vault };
        // Nothing listens there: a request would say so.
        let nowhere = Outbound::default();
        let finding = runtime.block_on(ask(&nowhere, &question, Duration::ZERO)).unwrap();
        assert_eq!(finding.verdict, Verdict::Unverifiable);
        assert!(!finding.said.contains(TOKEN), "{}", finding.said);
        finding
    };
    let finding = said(&[]);
    assert_eq!(
        (finding.said.as_str(), finding.passing),
        ("the param SYSTEM is missing or does not fit its pattern", false)
    );
    assert_eq!(said(&[("SYSTEM", "NOT IT")]).said, finding.said);
    let value = Secret::new(b"two\nlines".to_vec());
    site.vault.write("crm", "SYSTEM_KEY", 3, &value).unwrap();
    assert!(said(&[("SYSTEM", "ours")]).said.contains("X-Key can't take"));
    site.vault.write("crm", "SYSTEM_KEY", 4, &Secret::new(vec![0xff; 9])).unwrap();
    assert!(said(&[("SYSTEM", "ours")]).said.contains("crm/SYSTEM_KEY is not text"));
}

/// Whoever sends the request reads the address with its own rules: they must see the same host that the manifest shows.
#[test]
fn what_passes_for_a_host_is_that_host_and_no_number() {
    let host =
        "([0-9]{1,3}|0x[0-9a-f]{0,3}|[a-z0-9-]{1,6})(\\.([0-9]{1,3}|0x[0-9a-f]{0,3}|[a-z0-9-]{1,6})){1,3}";
    proptest::proptest!(|(host in host)| {
        let text = format!("https://{host}/");
        if CheckUrl::try_from(text.clone()).is_ok() {
            // What can't be read leads nowhere.
            if let Ok(url) = url::Url::parse(&text) {
                proptest::prop_assert_eq!(url.host(), Some(url::Host::Domain(host.as_str())));
            }
        }
    });
    for number in ["https://0x7f.0x1/", "https://1.0x/", "https://127.1/"] {
        assert!(matches!(url::Url::parse(number).unwrap().host(), Some(url::Host::Ipv4(_))), "{number}");
        assert!(CheckUrl::try_from(number.to_owned()).is_err(), "{number}");
    }
}
