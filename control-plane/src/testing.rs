//! What unit tests start from: a board in a database, with a catalog, a user, and devices that speak for themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _, SigningKey as _};
use shared::catalog::{Bundle, Platform, PublisherKey, generate_publisher_key, sign};
use shared::crypto::{Fingerprint, FingerprintParts, SealingKey, open_nonce};
use shared::ids::{ClientId, DeviceId, UserId};
use shared::protocol::enroll::{
    Enrolled, EnrollmentStatus, Facts, JoinAnswer, JoinRequest, ProveRequest, StatusRequest,
};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, ManualClock, SystemClock, Timestamp};

use crate::access;
use crate::app::App;
use crate::audit::{self, Who};
use crate::board;
use crate::catalog;
use crate::clients::{self, CreateError, NewClient, Package, Proposal, Scope};
use crate::db::Db;
use crate::enrollment::{self, EnrollError};
use crate::jobs::Wake;
use crate::keys::{Outside, Source};
use crate::runbook;

/// `base` has no needs; `tool` depends on it, has a secret of ours that its second step reads, and one of the client's.
pub const MANIFESTS: &[(&str, &str)] = &[
    (
        "base",
        r#"
key = "base"
name = "Base"
category = "runtime"
summary = "What the tool stands on."
platforms = ["macos", "linux"]
[[step]]
id = "install"
kind = "auto"
title = "Install the base"
as = "user"
check = "false"
run = "true"
[[step]]
id = "mac_only"
kind = "auto"
title = "For macOS only"
as = "user"
platforms = ["macos"]
check = "false"
run = "true"
"#,
    ),
    (
        "tool",
        r#"
key = "tool"
name = "Tool"
category = "ai"
summary = "Works on top of the base."
platforms = ["macos", "linux"]
depends_on = ["base"]
[[slot]]
key = "OUR_KEY"
name = "Our key"
tag = "our-managed"
pattern = '^ours-[a-z0-9-]{4,60}$'
[[slot]]
key = "THEIR_TOKEN"
name = "Their token"
tag = "client-supplied"
hint = "op://{vault}/Tool/token"
[[step]]
id = "install"
kind = "auto"
title = "Install the tool"
as = "user"
check = "false"
run = "true"
[[step]]
id = "configure"
kind = "auto"
title = "Configure the tool"
as = "user"
check = "false"
run = "true"
secrets = [{ slot = "OUR_KEY", as = "env" }]
undo = "rm configured"
"#,
    ),
];

/// A component whose input takes any text, and whose texts want escaping.
pub const NOTED: (&str, &str) = (
    "noted",
    r#"
key = "noted"
name = "Noted <i>&"
category = "ai"
summary = "Has an input."
platforms = ["macos", "linux"]
[[param]]
key = "NAME"
name = "A name"
pattern = '^(?s).{1,400}$'
required = true
[[step]]
id = "install"
kind = "auto"
title = "Install <b>what</b> is noted"
as = "user"
check = "false"
run = "true"
"#,
);

/// A package without inputs, and one that leaves an input open.
pub const TIERS: &str = r#"
[[tier]]
key = "small"
name = "Small"
components = ["base"]
[[tier]]
key = "open"
name = "Open"
components = ["base", "noted"]
"#;

/// The proxy that fixtures believe.
pub const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

pub struct Fixture {
    pub app: App,
    pub clock: Arc<ManualClock>,
    pub user: UserId,
    /// Where the root key's key lies.
    pub keys: tempfile::TempDir,
    publisher: (Secret<String>, PublisherKey),
}

impl Fixture {
    pub async fn new(db: Db) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let folder = tempfile::tempdir().unwrap();
        let key = Source::File(folder.path().join("root.key"));
        let outside = Outside::of(clock.clone(), &[]);
        let token =
            board::init(&db, &key, outside.clone(), "consultant@example.com", &SystemRandom).await.unwrap();
        let random = Arc::new(SystemRandom);
        let app =
            board::open(db, None, outside, "https://agents.test".into(), Some(PROXY), random).await.unwrap();
        app.console_url.set("http://board.test".parse().unwrap()).unwrap();
        let password = Secret::new("a long test passphrase".to_owned());
        let session = access::accept_link(&app, token.expose(), &password, "192.0.2.1").await.unwrap();
        let user = access::user_of(&app, session.expose()).await.unwrap().unwrap().id;
        let (private, public) = generate_publisher_key(&SystemRandom).unwrap();
        let publisher = (private, PublisherKey::from_pem(&public).unwrap());
        let fixture = Self { app, clock, user, keys: folder, publisher };
        fixture.import(1, MANIFESTS).await.unwrap();
        fixture
    }

    pub async fn import(&self, serial: u64, manifests: &[(&str, &str)]) -> Result<(), catalog::CatalogError> {
        self.import_with_tiers(serial, manifests, "").await
    }

    pub async fn import_with_tiers(
        &self,
        serial: u64,
        manifests: &[(&str, &str)],
        tiers: &str,
    ) -> Result<(), catalog::CatalogError> {
        let bundle = Bundle {
            serial,
            min_serial: 0,
            not_after: self.clock.now().after(Duration::from_secs(3600)),
            revoked_steps: Vec::new(),
            tiers: tiers.to_owned(),
            manifests: manifests
                .iter()
                .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
                .collect::<BTreeMap<_, _>>(),
        };
        let signed = sign(&bundle, &self.publisher.0)?;
        let mut tx = self.app.db.write().await?;
        catalog::import(&mut tx, &*self.clock, &SystemRandom, &signed, &self.publisher.1).await?;
        tx.commit().await?;
        Ok(())
    }

    pub fn who() -> Who {
        Who::user("consultant@example.com", "192.0.2.1")
    }

    pub async fn client(&self, name: &str, components: &[&str]) -> ClientId {
        let form = NewClient { name: name.to_owned(), ..NewClient::default() };
        let id = clients::create(&self.app, Self::who(), self.user, &form).await.unwrap();
        let scope = Scope {
            components: components.iter().map(|key| (*key).to_owned()).collect(),
            ..Scope::default()
        };
        choose_scope(&self.app, Self::who(), id, &scope).await.unwrap();
        id
    }

    pub async fn code(&self, client: ClientId) -> String {
        enrollment::make_join_code(&self.app, Self::who(), self.user, client).await.unwrap().code
    }

    /// A device of this client that joined, was approved and proved its key.
    pub async fn enrolled(&self, client: ClientId, hardware_uuid: &str) -> (TestDevice, DeviceId) {
        let (device, enrolled) = self.enroll(client, hardware_uuid).await;
        (device, enrolled.device_id)
    }

    /// The same, with what the board answered to its proof.
    pub async fn enroll(&self, client: ClientId, hardware_uuid: &str) -> (TestDevice, Enrolled) {
        let device = TestDevice::new(hardware_uuid, self.clock.now());
        let code = self.code(client).await;
        let answer = device.join(&self.app, &code).await.unwrap();
        let typed = device.fingerprint(&self.app, &answer);
        enrollment::approve(&self.app, Self::who(), self.user, answer.enrollment_id, &typed).await.unwrap();
        let enrolled = device.prove(&self.app, &answer).await.unwrap();
        (device, enrolled)
    }

    /// The device with its runbook, composed from its client's scope as it is when the device connects.
    pub async fn with_runbook(&self, device: DeviceId) -> enrollment::Device {
        let mut tx = self.app.db.write().await.unwrap();
        let device = enrollment::get_device(&mut tx, device).await.unwrap();
        runbook::ensure(&self.app, &mut tx, &device).await.unwrap().expect("there is a catalog");
        tx.commit().await.unwrap();
        device
    }

    pub async fn our_slot(&self) -> catalog::OurSlot {
        let mut tx = self.app.db.read().await.unwrap();
        match catalog::slot(&mut tx, "tool", "OUR_KEY").await.unwrap().unwrap() {
            catalog::AnySlot::Ours(slot) => slot,
            catalog::AnySlot::Theirs(_) => panic!("the slot is ours"),
        }
    }

    pub async fn get_client(&self, id: ClientId) -> clients::Client {
        let mut tx = self.app.db.read().await.unwrap();
        clients::get(&mut tx, id).await.unwrap()
    }
}

/// Saves a package, and the components that it preselects, without looking at any runbook.
pub async fn choose_package(app: &App, who: Who, id: ClientId, package: &Package) -> Result<(), CreateError> {
    choose(app, who, id, &Proposal::Package(package.clone())).await
}

/// Saves a scope without looking at any runbook.
pub async fn choose_scope(app: &App, who: Who, id: ClientId, chosen: &Scope) -> Result<(), CreateError> {
    choose(app, who, id, &Proposal::Scope { scope: chosen.clone(), package: None }).await
}

async fn choose(app: &App, who: Who, id: ClientId, proposal: &Proposal) -> Result<(), CreateError> {
    let mut tx = app.db.write().await?;
    let change = clients::propose(&mut tx, id, proposal).await?;
    if change.is_none() {
        return Ok(());
    }
    let entry = change.write(&mut tx, who, app.now()).await?;
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Client(id));
    Ok(())
}

/// A device's half of the protocol, with its own keys.
pub struct TestDevice {
    pub tls: KeyPair,
    pub sealing: SealingKey,
    pub facts: Facts,
}

impl TestDevice {
    pub fn new(hardware_uuid: &str, clock: Timestamp) -> Self {
        Self {
            tls: KeyPair::generate().unwrap(),
            sealing: SealingKey::generate(&SystemRandom),
            facts: Facts {
                hardware_uuid: hardware_uuid.to_owned(),
                serial: "H2WX0000Q6NV".into(),
                model: "Mac mini".into(),
                platform: Platform::Linux,
                os_version: "1".into(),
                host_name: "reception-mini".into(),
                managed_user: "assistant".into(),
                agent_version: "0.1.0".into(),
                clock,
                dev: true,
            },
        }
    }

    pub fn csr(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.tls).unwrap().der().to_vec()
    }

    pub fn request(&self, code: &str) -> JoinRequest {
        JoinRequest {
            code: code.to_owned(),
            csr: self.csr(),
            sealing_public_key: self.sealing.public_key().as_bytes().to_vec(),
            facts: self.facts.clone(),
        }
    }

    pub async fn send(&self, app: &App, request: &JoinRequest) -> Result<JoinAnswer, EnrollError> {
        let body = serde_json::to_vec(request).unwrap();
        let signature = self.tls.sign(&body).unwrap();
        enrollment::join(app, request, &body, &signature, "192.0.2.17").await
    }

    pub async fn join(&self, app: &App, code: &str) -> Result<JoinAnswer, EnrollError> {
        self.send(app, &self.request(code)).await
    }

    pub fn fingerprint(&self, app: &App, answer: &JoinAnswer) -> String {
        Fingerprint::of(&FingerprintParts {
            ca_spki: &app.ca().spki,
            board_id: answer.board_id,
            client_id: answer.client_id,
            enrollment_id: answer.enrollment_id,
            tls_spki: &self.tls.subject_public_key_info(),
            sealing_public_key: self.sealing.public_key().as_bytes(),
        })
        .to_string()
    }

    pub async fn status(&self, app: &App, answer: &JoinAnswer) -> Result<EnrollmentStatus, EnrollError> {
        let request = StatusRequest { enrollment_id: answer.enrollment_id, at: app.now() };
        let body = serde_json::to_vec(&request).unwrap();
        enrollment::status(app, &request, &body, &self.tls.sign(&body).unwrap()).await
    }

    pub async fn prove(&self, app: &App, answer: &JoinAnswer) -> Result<Enrolled, EnrollError> {
        let EnrollmentStatus::Approved { sealed_nonce } = self.status(app, answer).await? else {
            return Err(EnrollError::Nonce);
        };
        let nonce = open_nonce(&self.sealing, answer.enrollment_id, &sealed_nonce).unwrap();
        self.prove_with(app, answer, nonce.to_vec()).await
    }

    pub async fn prove_with(
        &self,
        app: &App,
        answer: &JoinAnswer,
        nonce: Vec<u8>,
    ) -> Result<Enrolled, EnrollError> {
        let request = ProveRequest { enrollment_id: answer.enrollment_id, nonce, at: app.now() };
        let body = serde_json::to_vec(&request).unwrap();
        enrollment::prove(app, &request, &body, &self.tls.sign(&body).unwrap(), "192.0.2.17").await
    }
}
