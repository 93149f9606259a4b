use shared::crypto::sha256;
use shared::ids::{AttemptId, DeliveryId, ReportId};
use shared::protocol::inventory::{ComponentReport, Presence, SlotReport, SlotState};
use shared::protocol::link::{Report, ReportBody};
use shared::protocol::steps::{MAX_CHUNK, OutputChunk};
use shared::random::SystemRandom;

use super::reports::{Origin, apply};
use crate::audit::{self, Action, Who};
use crate::db::testing::on_both;
use crate::enrollment::ca::spki_of;
use crate::enrollment::{Device, get_device, revoke, rotation};
use crate::error::Failure;
use crate::inventory;
use crate::offboarding;
use crate::runbook::{self, Carried};
use crate::testing::{Fixture, MANIFESTS};

struct Linked {
    fixture: Fixture,
    device: Device,
    serial: Vec<u8>,
}

impl Linked {
    async fn new(db: crate::db::Db) -> Self {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, enrolled) = fixture.enroll(client, "A-UUID").await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let device = get_device(&mut tx, enrolled.device_id).await.unwrap();
        drop(tx);
        let (_, certificate) = x509_parser::parse_x509_certificate(&enrolled.certificate).unwrap();
        Self { serial: certificate.raw_serial().to_vec(), fixture, device }
    }

    async fn report(&self, body: ReportBody) -> Result<(), Failure> {
        let app = &self.fixture.app;
        let report = Report { id: ReportId::new(&*app.clock, &SystemRandom), at: app.now(), body };
        let origin = Origin { device: &self.device, serial: &self.serial, address: "192.0.2.17" };
        apply(app, &origin, &report).await?;
        apply(app, &origin, &report).await
    }

    /// How many reports the audit log says were refused.
    async fn refused(&self) -> usize {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let entries = audit::page(&mut tx, None, 100).await.unwrap();
        entries.iter().filter(|stored| stored.entry.action == Action::ReportRefused).count()
    }

    fn attempt(&self) -> AttemptId {
        AttemptId::new(&*self.fixture.clock, &SystemRandom)
    }
}

#[tokio::test]
async fn what_can_never_fit_is_acknowledged_and_recorded_once_but_output_and_probes_never_are() {
    on_both(|db| async move {
        let linked = Linked::new(db).await;
        let chunk =
            |text: String| ReportBody::Output(OutputChunk { attempt_id: linked.attempt(), seq: 0, text });
        linked.report(chunk("of an attempt that is not there".into())).await.unwrap();
        linked.report(chunk("x".repeat(MAX_CHUNK + 1))).await.unwrap();
        let hostile = ComponentReport {
            component: "nul\0".into(),
            presence: Presence::Present,
            version: Some("x".repeat(5000)),
            evidence: Vec::new(),
            observed_at: linked.fixture.app.now(),
        };
        linked.report(ReportBody::Inventory { components: vec![hostile], slots: Vec::new() }).await.unwrap();
        assert_eq!(linked.refused().await, 0, "a device can't fill the audit log with these");

        let reason = "x".repeat(5000);
        let delivery_id = DeliveryId::new(&*linked.fixture.clock, &SystemRandom);
        for body in [
            ReportBody::AttemptStarted { attempt_id: linked.attempt() },
            ReportBody::DeliveryRefused { delivery_id, reason, passing: false },
            ReportBody::Unknown,
        ] {
            linked.report(body).await.unwrap();
        }
        assert_eq!(linked.refused().await, 3, "each once, though each came twice");
        for _ in 0..30 {
            linked.report(ReportBody::Unknown).await.unwrap();
        }
        assert_eq!(linked.refused().await, 20, "and twenty an hour");
    })
    .await;
}

#[tokio::test]
async fn what_neither_the_catalog_nor_the_runbooks_bundle_knows_is_left_aside() {
    on_both(|db| async move {
        let linked = Linked::new(db).await;
        let app = &linked.fixture.app;
        // The runbook is of the bundle in which `tool` still was; the catalog goes on.
        linked.fixture.with_runbook(linked.device.id).await;
        linked.fixture.import(2, &MANIFESTS[..1]).await.unwrap();

        // Too long for a key of an index, too.
        let long = "x".repeat(4000);
        let component = |key: &str| ComponentReport {
            component: key.to_owned(),
            presence: Presence::Present,
            version: None,
            evidence: Vec::new(),
            observed_at: app.now(),
        };
        let slot = |component: &str, slot: &str| SlotReport {
            component: component.to_owned(),
            slot: slot.to_owned(),
            state: SlotState::Present,
            version: None,
            observed_at: app.now(),
            check: None,
        };
        let components = ["made-up", "tool", &long, "", "base"].map(component).to_vec();
        let slots =
            [("tool", "OUR_KEY"), ("tool", "MADE_UP"), ("tool", long.as_str()), ("made-up", "OUR_KEY")];
        let slots = slots.map(|(key, slot_key)| slot(key, slot_key)).to_vec();
        linked.report(ReportBody::Inventory { components, slots }).await.unwrap();

        let client = linked.device.client_id;
        let mut tx = app.db.read().await.unwrap();
        let kept = inventory::of_client(&mut tx, client).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|one| one.component_key.as_str()).collect();
        assert_eq!(kept, ["base", "tool"]);
        let kept = inventory::slots_of_client(&mut tx, client).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|one| one.slot_key.as_str()).collect();
        assert_eq!(kept, ["OUR_KEY"]);
        drop(tx);

        for number in 0..3 {
            let components = (0..300).map(|one| component(&format!("made-up-{number}-{one}"))).collect();
            linked.report(ReportBody::Inventory { components, slots: Vec::new() }).await.unwrap();
        }
        let mut tx = app.db.read().await.unwrap();
        let catalog = crate::catalog::current(&mut tx).await.unwrap();
        let found = inventory::findings(&mut tx, catalog.as_ref(), None).await.unwrap();
        let all: Vec<_> = found[0].all().map(|finding| finding.component.as_str()).collect();
        assert_eq!(all, ["base", "tool"], "support's page has no column for what is made up");
    })
    .await;
}

#[tokio::test]
async fn reports_of_a_revoked_device_or_another_identity_are_not_applied() {
    on_both(|db| async move {
        let mut linked = Linked::new(db).await;
        let started = || ReportBody::AttemptStarted { attempt_id: linked.attempt() };
        let right = linked.serial.clone();
        let body = started();
        linked.serial = vec![1; 16];
        assert_eq!(linked.report(body.clone()).await.unwrap_err().public.status, 403);
        linked.serial = right;
        linked.report(body.clone()).await.unwrap();
        revoke(&linked.fixture.app, Fixture::who(), linked.device.id, "It was stolen").await.unwrap();
        assert_eq!(linked.report(body).await.unwrap_err().public.status, 403);
    })
    .await;
}

#[tokio::test]
async fn a_leaving_device_keeps_the_next_authority_and_nothing_else_that_it_says_has_an_effect() {
    on_both(|db| async move {
        let linked = Linked::new(db).await;
        let (fixture, app) = (&linked.fixture, &linked.fixture.app);
        let device = fixture.with_runbook(linked.device.id).await;
        let offer = runbook::next_offer(app, &device, &Carried::default()).await.unwrap().unwrap();
        rotation::begin(app, Who::cli()).await.unwrap();
        offboarding::end(app, Fixture::who(), device.client_id, false).await.unwrap();
        assert!(runbook::next_offer(app, &device, &Carried::default()).await.unwrap().is_none());
        let news = async || rotation::news(&mut app.db.read().await.unwrap(), device.id).await.unwrap();
        let (_, ca) = news().await.expect("it is told of it");
        let pin = sha256(&spki_of(&ca.certificate).unwrap()).to_vec();
        linked.report(ReportBody::CaPinned { pin }).await.unwrap();
        assert!(news().await.is_none(), "acknowledged");
        let attempt_id = offer.attempt_id;
        linked.report(ReportBody::AttemptStarted { attempt_id }).await.unwrap();
        let chunk = OutputChunk { attempt_id, seq: 0, text: "after the end".into() };
        linked.report(ReportBody::Output(chunk)).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        assert_eq!(runbook::output(&mut tx, attempt_id).await.unwrap(), "");
        drop(tx);
        assert_eq!(linked.refused().await, 0, "it says what it did before the end, in good faith");
    })
    .await;
}

#[tokio::test]
async fn a_device_is_told_the_inputs_that_are_not_secret() {
    const WITH_PARAM: &str = r#"
key = "crm"
name = "CRM"
category = "crm"
summary = "x"
platforms = ["linux", "macos"]
[[param]]
key = "SYSTEM"
name = "x"
pattern = "^[a-z]+$"
required = true
"#;
    on_both(|db| async move {
        let linked = Linked::new(db).await;
        linked.fixture.import(2, &[("crm", WITH_PARAM)]).await.unwrap();
        let key = ("crm".to_owned(), "SYSTEM".to_owned());
        let wanted = crate::clients::Scope {
            components: ["crm".to_owned()].into(),
            params: [(key, "ours".to_owned())].into(),
            ..crate::clients::Scope::default()
        };
        let (app, client) = (&linked.fixture.app, linked.device.client_id);
        crate::clients::choose_scope(app, Fixture::who(), client, &wanted).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let told = super::session::scope(&mut tx, &linked.device).await.unwrap();
        assert_eq!(told.params["crm"]["SYSTEM"], "ours");
    })
    .await;
}
