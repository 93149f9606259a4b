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
"#;

const MANAGED: u32 = 4711;

struct Fixture {
    _folder: tempfile::TempDir,
    broker: Arc<Broker>,
}

fn fixture() -> Fixture {
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
        board_id: BoardId::new(&SystemClock, &SystemRandom),
        client_id: ClientId::new(&SystemClock, &SystemRandom),
        client_name: String::new(),
        enrollment_id: EnrollmentId::new(&SystemClock, &SystemRandom),
        device_id: DeviceId::new(&SystemClock, &SystemRandom),
        certificate: Vec::new(),
        not_after: SystemClock.now(),
        managed_user: ManagedUser {
            name: "ann".to_owned(),
            uid: MANAGED,
            gid: MANAGED,
            home: paths.dev_home(),
        },
        dev: true,
        hardware_uuid: None,
        extra_path: Vec::new(),
    };
    let broker = Arc::new(Broker {
        identity: Arc::new(identity),
        vault: Arc::new(Vault::new(Box::new(FileStore::open(paths.vault()).unwrap()))),
        journal: Arc::new(Journal::open(&paths.journal()).unwrap()),
        clock: Arc::new(SystemClock),
        current: Arc::new(RwLock::new(Current { catalog: Some(catalog), params })),
        paths,
    });
    Fixture { _folder: folder, broker }
}

impl Fixture {
    fn hold(&self, slot: &str, value: &str) {
        self.broker.vault.write("slack", slot, 1, &Secret::new(value.as_bytes().to_vec())).unwrap();
    }

    fn ask(
        &self,
        uid: u32,
        component: &str,
        wrapper: Option<&str>,
    ) -> Result<BTreeMap<String, String>, String> {
        let ask = Ask { component: component.to_owned(), wrapper: wrapper.map(str::to_owned) };
        match self.broker.answer(uid, &ask) {
            Answer::Environment { values, .. } => Ok(values.expose().clone()),
            Answer::Missing { reason } => Err(format!("missing: {reason}")),
            Answer::Refused { reason } => Err(format!("refused: {reason}")),
        }
    }
}

#[test]
fn a_wrapper_gets_its_own_slots_and_no_others_and_it_is_journalled() {
    let fixture = fixture();
    fixture.hold("TOKEN", "xoxb-1");
    fixture.hold("OTHER", "not for it");
    let values = fixture.ask(MANAGED, "slack", Some("slack")).unwrap();
    let expected = [("SLACK_TEAM", "T"), ("SLACK_TOKEN", "xoxb-1")];
    assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let readings = fixture.broker.journal.readings().unwrap();
    assert_eq!(readings.len(), 1);
    assert_eq!((readings[0].uid, readings[0].wrapper.as_str()), (MANAGED, "slack"));
    assert_eq!(readings[0].slots, ["TOKEN"]);
    assert_eq!(
        fixture.ask(0, "slack", None).unwrap(),
        values,
        "without a name it is the component's own; root may ask"
    );
}

#[test]
fn others_get_nothing() {
    let fixture = fixture();
    fixture.hold("TOKEN", "xoxb-1");
    assert!(fixture.ask(MANAGED + 1, "slack", None).unwrap_err().starts_with("refused"));
    assert!(fixture.ask(MANAGED, "teams", None).unwrap_err().starts_with("refused"));
    assert!(fixture.ask(MANAGED, "slack", Some("made-up")).unwrap_err().starts_with("refused"));
    fixture.broker.current.write().unwrap().catalog = None;
    assert!(fixture.ask(MANAGED, "slack", None).unwrap_err().starts_with("refused"));
    assert!(fixture.broker.journal.readings().unwrap().is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let fixture = fixture();
    assert_eq!(
        fixture.ask(MANAGED, "slack", None).unwrap_err(),
        "missing: the secret slack/TOKEN is not on this device yet"
    );
    fixture.hold("TOKEN", "xoxb-1");
    fixture.broker.current.write().unwrap().params.clear();
    assert_eq!(
        fixture.ask(MANAGED, "slack", None).unwrap_err(),
        "missing: the parameter slack/TEAM is not on this device yet"
    );
    assert!(fixture.broker.journal.readings().unwrap().is_empty(), "no value left");
}

#[tokio::test]
async fn the_socket_knows_who_asks() {
    let fixture = fixture();
    fixture.hold("TOKEN", "xoxb-1");
    let listener = bind(&fixture.broker.paths).unwrap();
    let serving = tokio::spawn(Arc::clone(&fixture.broker).serve(listener));
    let mut answers = Vec::new();
    for request in ["{\"component\":\"slack\"}\n", "nonsense\n"] {
        let mut stream = UnixStream::connect(fixture.broker.paths.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answers.push(answer);
    }
    serving.abort();
    let may = nix::unistd::Uid::effective().is_root();
    assert_eq!(
        answers[0].contains("xoxb-1"),
        may,
        "this test's user is not the managed one, but may be root"
    );
    assert!(answers[1].contains("refused"));
}
