use shared::catalog::Bundle;
use shared::ids::{BoardId, ClientId, DeviceId, EnrollmentId};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::SystemClock;

use super::*;
use crate::config::ManagedUser;
use crate::vault::{FileStore, Vault};

const MANIFEST: &str = r#"
key = "slack"
name = "Slack"
category = "integration"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "TOKEN"
name = "x"
tag = "our-managed"
[[slot]]
key = "OTHER"
name = "x"
tag = "our-managed"
[[slot]]
key = "EXTRA"
name = "x"
tag = "our-managed"
required = false
[[slot]]
key = "THEIRS"
name = "Slack app token"
tag = "client-supplied"
pattern = "^xapp-[0-9]+$"
[[slot]]
key = "ANY"
name = "x"
tag = "client-supplied"
required = false
one_of = "auth"
[[slot]]
key = "OTHER_ANY"
name = "x"
tag = "our-managed"
one_of = "auth"
[[param]]
key = "TEAM"
name = "x"
pattern = "^T$"
required = true
[[wrapper]]
name = "slack"
command = ["slack-mcp-server"]
slots = { SLACK_TOKEN = "TOKEN", SLACK_EXTRA = "EXTRA" }
params = { SLACK_TEAM = "TEAM" }
[[wrapper]]
name = "admin"
command = ["slack-admin"]
slots = { ADMIN = "OTHER" }
[[wrapper]]
name = "either"
command = ["slack-either"]
slots = { ONE = "ANY", TWO = "OTHER_ANY" }
"#;

const MANAGED: u32 = 4711;

struct Fixture {
    _folder: tempfile::TempDir,
    broker: Arc<Broker>,
}

/// What the daemon does, without the vault.
fn daemon(mut pastes: mpsc::Receiver<Paste>, vault: Arc<Vault>) {
    tokio::spawn(async move {
        while let Some(Paste { component, slot, value, written, .. }) = pastes.recv().await {
            let result = vault.write_pasted(&component, &slot, &value).map_err(|error| error.to_string());
            written.send(result).unwrap();
        }
    });
}

fn fixture() -> Fixture {
    let (pastes, pasted) = mpsc::channel(1);
    let fixture = fixture_with(MANAGED, pastes);
    daemon(pasted, Arc::clone(&fixture.broker.vault));
    fixture
}

fn fixture_with(managed: u32, pastes: mpsc::Sender<Paste>) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().to_owned());
    paths.create().unwrap();
    let bundle = Bundle {
        serial: 1,
        min_serial: 0,
        not_after: SystemClock.now(),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: BTreeMap::from([("slack".to_owned(), MANIFEST.to_owned())]),
    };
    let manifests = bundle.parse_manifests().unwrap();
    let catalog = Arc::new(Catalog { digest: String::new(), bundle, manifests });
    let params =
        BTreeMap::from([("slack".to_owned(), BTreeMap::from([("TEAM".to_owned(), "T".to_owned())]))]);
    let identity = Identity {
        board: "https://board:1".to_owned(),
        pin: String::new(),
        next_ca: None,
        board_id: BoardId::new(&SystemClock, &SystemRandom),
        client_id: ClientId::new(&SystemClock, &SystemRandom),
        client_name: String::new(),
        enrollment_id: EnrollmentId::new(&SystemClock, &SystemRandom),
        device_id: DeviceId::new(&SystemClock, &SystemRandom),
        certificate: Vec::new(),
        not_after: SystemClock.now(),
        managed_user: ManagedUser {
            name: "ann".to_owned(),
            uid: managed,
            gid: managed,
            home: paths.dev_home(),
        },
        dev: true,
        hardware_uuid: None,
        extra_path: Vec::new(),
    };
    let vault = Arc::new(Vault::new(Box::new(FileStore::open(paths.vault()).unwrap())));
    let broker = Arc::new(Broker {
        identity: Arc::new(identity),
        vault: Arc::clone(&vault),
        journal: Arc::new(Journal::open(&paths.journal()).unwrap()),
        clock: Arc::new(SystemClock),
        current: Arc::new(RwLock::new(Current {
            catalog: Some(catalog),
            components: vec!["slack".to_owned()],
            params,
        })),
        platform: Platform::Linux,
        pastes,
        leaves: mpsc::channel(1).0,
        paths,
    });
    Fixture { _folder: folder, broker }
}

impl Fixture {
    fn hold(&self, slot: &str, value: &str) {
        self.broker.vault.write("slack", slot, 1, &Secret::new(value.as_bytes().to_vec())).unwrap();
    }

    async fn ask(
        &self,
        uid: u32,
        component: &str,
        wrapper: Option<&str>,
    ) -> Result<BTreeMap<String, String>, String> {
        let ask = Ask { component: component.to_owned(), wrapper: wrapper.map(str::to_owned) };
        let answer = self.broker.answer(uid, Request::Environment(ask)).await;
        if let Answer::Environment { values, .. } = answer {
            return Ok(values.expose().clone());
        }
        Err(words(answer))
    }

    async fn paste(&self, uid: u32, target: &str, value: &[u8]) -> String {
        let (component, slot) = target.split_once('/').unwrap();
        let value = Secret::new(value.to_vec());
        let pasting = Pasting { component: component.to_owned(), slot: slot.to_owned(), value };
        words(self.broker.answer(uid, Request::Paste(pasting)).await)
    }
}

fn words(answer: Answer) -> String {
    match answer {
        Answer::Environment { .. } => "values".to_owned(),
        Answer::Slots(_) => "slots".to_owned(),
        Answer::Pasted => "pasted".to_owned(),
        Answer::Wiped(_) => "wiped".to_owned(),
        Answer::Done => "done".to_owned(),
        Answer::Missing { reason } => format!("missing: {reason}"),
        Answer::BadValue { reason } => format!("bad value: {reason}"),
        Answer::Refused { reason } => format!("refused: {reason}"),
    }
}

#[tokio::test]
async fn a_wrapper_gets_its_own_slots_and_no_others_and_it_is_journalled() {
    let fixture = fixture();
    fixture.hold("TOKEN", "xoxb-1");
    fixture.hold("OTHER", "not for it");
    let values = fixture.ask(MANAGED, "slack", Some("slack")).await.unwrap();
    let expected = [("SLACK_TEAM", "T"), ("SLACK_TOKEN", "xoxb-1")];
    assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let readings = fixture.broker.journal.readings().unwrap();
    assert_eq!(readings.len(), 1);
    assert_eq!((readings[0].uid, readings[0].wrapper.as_str()), (MANAGED, "slack"));
    assert_eq!(readings[0].slots, ["TOKEN"]);
    assert_eq!(
        fixture.ask(0, "slack", None).await.unwrap(),
        values,
        "without a name it is the component's own; root may ask"
    );
}

#[tokio::test]
async fn others_get_nothing() {
    let fixture = fixture();
    fixture.hold("TOKEN", "xoxb-1");
    assert!(fixture.ask(MANAGED + 1, "slack", None).await.unwrap_err().starts_with("refused"));
    assert!(fixture.ask(MANAGED, "teams", None).await.unwrap_err().starts_with("refused"));
    assert!(fixture.ask(MANAGED, "slack", Some("made-up")).await.unwrap_err().starts_with("refused"));
    fixture.broker.current.write().unwrap().catalog = None;
    assert!(fixture.ask(MANAGED, "slack", None).await.unwrap_err().starts_with("refused"));
    assert!(fixture.broker.journal.readings().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fixture = fixture();
    assert_eq!(
        fixture.ask(MANAGED, "slack", None).await.unwrap_err(),
        "missing: the secret slack/TOKEN is not on this device yet"
    );
    fixture.hold("TOKEN", "xoxb-1");
    fixture.broker.current.write().unwrap().params.clear();
    assert_eq!(
        fixture.ask(MANAGED, "slack", None).await.unwrap_err(),
        "missing: the parameter slack/TEAM is not on this device yet"
    );
    assert!(fixture.broker.journal.readings().unwrap().is_empty(), "no value left");
}

#[tokio::test]
async fn no_more_than_a_few_talk_at_once_and_who_waits_gets_a_turn() {
    let me = nix::unistd::Uid::effective().as_raw();
    let fixture = fixture_with(me, mpsc::channel(1).0);
    fixture.hold("TOKEN", "xoxb-1");
    let listener = bind(&fixture.broker.paths).unwrap();
    let serving = tokio::spawn(Arc::clone(&fixture.broker).serve(listener));
    let connect = async || UnixStream::connect(fixture.broker.paths.socket()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..MOST {
        silent.push(connect().await);
    }
    let mut waiting = connect().await;
    waiting.write_all(b"{\"environment\":{\"component\":\"slack\"}}\n").await.unwrap();
    let mut answer = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.read(&mut answer)).await;
    assert!(early.is_err(), "there is no turn left");
    silent.pop();
    let mut answer = String::new();
    tokio::time::timeout(TIMEOUT, waiting.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("xoxb-1"));
    let mut nonsense = connect().await;
    nonsense.write_all(b"nonsense\n").await.unwrap();
    let mut answer = String::new();
    nonsense.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("can't be understood"));
    serving.abort();
}

#[tokio::test]
async fn what_is_said_of_a_paste_is_what_became_of_it() {
    let (pastes, mut pasted) = mpsc::channel(1);
    let fixture = fixture_with(MANAGED, pastes);
    let pasting = || {
        let value = Secret::new(b"xapp-1".to_vec());
        Pasting { component: "slack".to_owned(), slot: "THEIRS".to_owned(), value }
    };
    let soon = Duration::from_millis(50);
    let said = words(fixture.broker.paste_within(pasting(), soon).await);
    assert!(said.contains("busy; nothing was changed"), "{said}");
    assert!(!pasted.recv().await.unwrap().claim(), "and then nothing may be changed");

    let slow = async {
        let paste = pasted.recv().await.unwrap();
        assert!(paste.claim() && !paste.claim());
        tokio::time::sleep(soon * 4).await;
        paste.written.send(Ok(())).unwrap();
    };
    let (answer, ()) = tokio::join!(fixture.broker.paste_within(pasting(), soon), slow);
    assert_eq!(words(answer), "pasted");

    let stopping = async {
        tokio::time::sleep(soon).await;
        drop(pasted);
    };
    let (answer, ()) = tokio::join!(fixture.broker.paste(pasting()), stopping);
    assert!(words(answer).contains("stopping; nothing was changed"));
    assert!(words(fixture.broker.paste(pasting()).await).contains("stopping; nothing was changed"));
}

#[tokio::test]
async fn any_one_of_a_group_will_do() {
    let fixture = fixture();
    assert_eq!(
        fixture.ask(MANAGED, "slack", Some("either")).await.unwrap_err(),
        "missing: none of the secrets slack/ANY, slack/OTHER_ANY is on this device yet"
    );
    assert_eq!(fixture.paste(MANAGED, "slack/ANY", b"theirs").await, "pasted");
    let given = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    assert_eq!(fixture.ask(MANAGED, "slack", Some("either")).await.unwrap(), given("ONE", "theirs"));
    std::fs::remove_file(fixture.broker.paths.vault().join("slot.slack.ANY")).unwrap();
    fixture.hold("OTHER_ANY", "ours");
    assert_eq!(fixture.ask(MANAGED, "slack", Some("either")).await.unwrap(), given("TWO", "ours"));
}

#[tokio::test]
async fn only_what_the_client_supplies_and_what_fits_can_be_pasted() {
    let fixture = fixture();
    let too_large = vec![b'x'; MAX_LEN + 1];
    let bad: [(u32, &str, &[u8], &str); 8] = [
        (MANAGED + 1, "slack/THEIRS", b"xapp-1", "refused: only the managed user of this device may ask"),
        (MANAGED, "slack/TOKEN", b"hunter2", "refused: slack/TOKEN: this one is delivered by the board"),
        (MANAGED, "slack/NONE", b"hunter2", "refused: this device's scope has no slot slack/NONE"),
        (MANAGED, "teams/THEIRS", b"hunter2", "refused: this device's scope has no slot teams/THEIRS"),
        (MANAGED, "../x/THEIRS", b"hunter2", "refused: this device's scope has no slot ../x/THEIRS"),
        (MANAGED, "slack/THEIRS", b"", "bad value: the value is empty"),
        (MANAGED, "slack/THEIRS", &too_large, "bad value: the value is larger than 16 KiB"),
        (
            MANAGED,
            "slack/THEIRS",
            b"hunter2",
            "bad value: this is no Slack app token: it must look like ^xapp-[0-9]+$. Nothing was changed. Copy the \
             whole value, without spaces or quotes around it, and paste it again",
        ),
    ];
    for (uid, target, value, expected) in bad {
        let said = fixture.paste(uid, target, value).await;
        assert!(said.starts_with(expected) && !said.contains("hunter2"), "{said}");
    }
    assert!(fixture.broker.vault.held().unwrap().is_empty());

    for uid in [MANAGED, 0] {
        assert_eq!(fixture.paste(uid, "slack/THEIRS", b"xapp-12").await, "pasted");
    }
    let held = fixture.broker.vault.read("slack", "THEIRS").unwrap().unwrap();
    assert_eq!((held.version, held.value.expose().as_slice()), (None, b"xapp-12".as_slice()));

    let Answer::Slots(lines) = fixture.broker.answer(MANAGED, Request::Slots).await else { panic!() };
    let filled: Vec<_> = lines.iter().filter(|line| line.filled).map(|line| line.slot.as_str()).collect();
    assert_eq!((lines.len(), filled), (6, vec!["THEIRS"]));

    fixture.broker.current.write().unwrap().components.clear();
    assert!(
        fixture.paste(MANAGED, "slack/THEIRS", b"xapp-3").await.starts_with("refused"),
        "not in the scope"
    );
}
