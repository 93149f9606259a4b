mod leaving;
mod restarting;

use std::time::Duration;

use askama::Template as _;

use rcgen::SigningKey as _;
use shared::ids::AttemptId;
use shared::protocol::inventory::{SlotCheck, SlotReport, SlotState};
use shared::protocol::link::{Deliver, Receipt};
use shared::protocol::steps::{AttemptEnded, Offer, Outcome, OutputChunk};
use shared::secret::Secret;
use shared::time::Clock as _;

use super::{
    ApplyError, AttemptState, Carried, Step, StepState, apply_ended, apply_offer_refused, apply_output,
    apply_started, confirm_manual, ensure, mark, next_offer, of_device, output, progress, reopen_refused,
    restart, retry, skip, steps, tail, wake_waiting,
};
use crate::access::{Role, User};
use crate::audit;
use crate::db::Tx;
use crate::db::testing::on_both;
use crate::enrollment::Device;
use crate::secrets;
use crate::testing::{Fixture, TestDevice};

pub(super) struct Running {
    pub fixture: Fixture,
    pub device: Device,
    keys: TestDevice,
    pub carried: Carried,
}

impl Running {
    pub async fn new(db: crate::db::Db) -> Self {
        Self::with(Fixture::new(db).await).await
    }

    /// With the catalog that the fixture has.
    async fn with(fixture: Fixture) -> Self {
        let client = fixture.client("Example Client", &["tool", "base"]).await;
        let value = Secret::new("ours-some-value".to_owned());
        let slot = fixture.our_slot().await;
        secrets::put(&fixture.app, Fixture::who(), &fixture.get_client(client).await, &slot, &value)
            .await
            .unwrap();
        let (keys, device_id) = fixture.enrolled(client, "A-UUID").await;
        let device = fixture.with_runbook(device_id).await;
        Self { fixture, device, keys, carried: Carried::default() }
    }

    pub async fn offer(&mut self) -> Option<Offer> {
        let offer = next_offer(&self.fixture.app, &self.device, &self.carried).await.unwrap();
        self.carried.sent.extend(offer.as_ref().map(|offer| offer.attempt_id));
        offer
    }

    pub async fn tx(&self) -> Tx {
        self.fixture.app.db.write().await.unwrap()
    }

    pub async fn ended(&self, attempt_id: AttemptId, outcome: Outcome) -> Result<(), ApplyError> {
        let mut tx = self.tx().await;
        let ended =
            AttemptEnded { attempt_id, outcome, exit_code: Some(0), found: "so".into(), duration_ms: 5 };
        apply_ended(&self.fixture.app, &mut tx, &self.device, &ended).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    pub async fn steps(&self) -> Vec<Step> {
        let mut tx = self.tx().await;
        let runbook = of_device(&mut tx, self.device.id).await.unwrap().unwrap();
        steps(&mut tx, runbook.id).await.unwrap()
    }

    async fn states(&self) -> Vec<(String, StepState)> {
        let name = |step: Step| (format!("{}/{}", step.component_key, step.step_key), step.state);
        self.steps().await.into_iter().map(name).collect()
    }

    pub async fn deliver(&self) {
        let app = &self.fixture.app;
        let mut tx = self.tx().await;
        secrets::plan(app, &mut tx, self.device.id).await.unwrap();
        let delivery = secrets::for_device(&mut tx, self.device.id).await.unwrap().remove(0);
        tx.commit().await.unwrap();
        let frame = secrets::seal(app, &delivery, "digest").await.unwrap().unwrap();
        self.receipt(frame).await;
    }

    /// The device has it, and says so.
    async fn receipt(&self, frame: Deliver) {
        let app = &self.fixture.app;
        let mut receipt = Receipt {
            delivery_id: frame.delivery_id,
            component: frame.component,
            slot: frame.slot,
            version: frame.version,
            time: self.fixture.clock.now(),
            signature: Vec::new(),
        };
        receipt.signature = self.keys.tls.sign(&receipt.signed_bytes(app.board_id, self.device.id)).unwrap();
        let mut tx = self.tx().await;
        let (board, device) = (app.board_id, self.device.id);
        let received = secrets::apply_receipt(&mut tx, board, device, &receipt, "192.0.2.17", app.now());
        if received.await.unwrap().unwrap().is_new {
            let Receipt { version, component, slot, .. } = &receipt;
            let reason = format!("version {version} of {component}/{slot}");
            restart(&mut tx, device, (component, slot), &reason).await.unwrap();
        }
        wake_waiting(app, &mut tx, device).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn steps_come_in_the_order_of_dependencies_one_at_a_time() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let names: Vec<_> = running.states().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["base/install", "tool/install", "tool/configure"], "without the step for macOS");
        let first = running.offer().await.unwrap();
        assert_eq!((first.component.as_str(), first.step.as_str()), ("base", "install"));
        assert!(running.offer().await.is_none(), "one attempt at a time");
        let mut tx = running.tx().await;
        apply_started(&running.fixture.app, &mut tx, running.device.id, first.attempt_id).await.unwrap();
        tx.commit().await.unwrap();
        assert!(running.offer().await.is_none());
        running.ended(first.attempt_id, Outcome::AlreadySo).await.unwrap();
        assert_eq!(running.steps().await[0].attempt_state, Some(AttemptState::AlreadySo));
        let second = running.offer().await.unwrap();
        assert_eq!(second.component, "tool");
        running.ended(second.attempt_id, Outcome::Succeeded).await.unwrap();
        let (_, state) = running.states().await.remove(2);
        assert_eq!(state, StepState::Waiting, "for the delivery of its secret");
        assert!(running.offer().await.is_none());
        running.deliver().await;
        let third = running.offer().await.unwrap();
        assert_eq!(third.step, "configure");
        running.ended(third.attempt_id, Outcome::Succeeded).await.unwrap();
        let mut tx = running.tx().await;
        assert_eq!(progress(&mut tx, running.device.id).await.unwrap(), Some((3, 3)));
    })
    .await;
}

#[tokio::test]
async fn an_offer_is_made_again_under_the_same_id_until_the_device_says_how_it_ended() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let first = running.offer().await.unwrap();
        assert!(running.offer().await.is_none(), "this link carried it");
        running.carried.sent.clear();
        assert_eq!(running.offer().await.unwrap(), first, "a new link carries it again");
        running.fixture.clock.advance(Duration::from_secs(7 * 24 * 3600));
        assert_eq!(running.offer().await.unwrap(), first, "its time was over; the time left is whole again");
        assert!(running.offer().await.is_none());

        // The device has it in its journal: it is under way there, however long ago it was offered.
        running.carried.sent.clear();
        running.carried.in_journal.insert(first.attempt_id);
        running.fixture.clock.advance(Duration::from_secs(7 * 24 * 3600));
        assert!(running.offer().await.is_none());
        let mut tx = running.tx().await;
        apply_started(&running.fixture.app, &mut tx, running.device.id, first.attempt_id).await.unwrap();
        tx.commit().await.unwrap();

        // A repaired device doesn't know the attempt that the board believes to be running.
        running.carried = Carried::default();
        assert_eq!(running.offer().await.unwrap(), first);
        running.ended(first.attempt_id, Outcome::Succeeded).await.unwrap();
        assert_ne!(running.offer().await.unwrap().attempt_id, first.attempt_id);
    })
    .await;
}

#[tokio::test]
async fn an_end_counts_once_and_foreign_attempts_do_not_count() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let first = running.offer().await.unwrap();
        running.ended(first.attempt_id, Outcome::Succeeded).await.unwrap();
        running.ended(first.attempt_id, Outcome::Failed).await.unwrap();
        assert_eq!(running.states().await[0].1, StepState::Succeeded);
        let unknown = running.ended(
            AttemptId::new(&*running.fixture.clock, &shared::random::SystemRandom),
            Outcome::Succeeded,
        );
        assert!(matches!(unknown.await, Err(ApplyError::UnknownAttempt)));
        let second = running.offer().await.unwrap();
        let odd = running.ended(second.attempt_id, Outcome::Unknown).await;
        assert!(matches!(odd, Err(ApplyError::UnknownOutcome)));
        let client = running.fixture.client("Other", &["base"]).await;
        let (_, other) = running.fixture.enrolled(client, "B-UUID").await;
        let mut tx = running.tx().await;
        let stolen = apply_started(&running.fixture.app, &mut tx, other, second.attempt_id).await;
        assert!(matches!(stolen, Err(ApplyError::UnknownAttempt)));
    })
    .await;
}

#[tokio::test]
async fn a_failed_step_blocks_what_depends_on_it_until_it_is_tried_again() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let first = running.offer().await.unwrap();
        running.ended(first.attempt_id, Outcome::Failed).await.unwrap();
        assert!(running.offer().await.is_none());
        let states = running.states().await;
        assert_eq!((states[0].1, states[1].1), (StepState::Failed, StepState::Blocked));
        let step_id = running.steps().await[0].id;
        retry(&running.fixture.app, Fixture::who(), &running.device, step_id).await.unwrap();
        let twice = retry(&running.fixture.app, Fixture::who(), &running.device, step_id).await;
        assert_eq!(twice.unwrap_err().public.status, 409);
        let second = running.offer().await.unwrap();
        assert_ne!(second.attempt_id, first.attempt_id);
        let mut tx = running.tx().await;
        let (app, reason) = (&running.fixture.app, "this step is not in the bundle");
        apply_offer_refused(app, &mut tx, &running.device, second.attempt_id, reason).await.unwrap();
        tx.commit().await.unwrap();
        let step = running.steps().await.remove(0);
        assert_eq!((step.state, step.attempt_state), (StepState::Failed, Some(AttemptState::Refused)));
        assert_eq!(step.found.as_deref(), Some(reason));
    })
    .await;
}

#[tokio::test]
async fn output_is_kept_once_and_in_order() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let attempt_id = running.offer().await.unwrap().attempt_id;
        let mut tx = running.tx().await;
        for (seq, text) in [(1, "two\nthr"), (0, "one\n"), (1, "two again"), (2, "ee\0 🙂\n")] {
            let chunk = OutputChunk { attempt_id, seq, text: text.to_owned() };
            apply_output(&mut tx, running.device.id, &chunk).await.unwrap();
        }
        assert_eq!(output(&mut tx, attempt_id).await.unwrap(), "one\ntwo\nthree\u{fffd} 🙂\n");
        assert_eq!(tail(&mut tx, attempt_id, 2).await.unwrap(), ["two", "three\u{fffd} 🙂"]);
    })
    .await;
}

const MANUAL: &str = r#"
key = "manual"
name = "Manual"
category = "integration"
summary = "A person does the first step."
platforms = ["macos", "linux"]
[[slot]]
key = "TOKEN"
name = "Token"
tag = "client-supplied"
hint = "op://{vault}/Manual/token"
[[slot]]
key = "EXTRA"
name = "Extra token"
tag = "client-supplied"
required = false
hint = "op://{vault}/Manual/extra"
[[param]]
key = "MODE"
name = "Mode"
pattern = "^[a-z]+$"
[[step]]
id = "app"
kind = "manual"
title = "Put the token on the Mac"
text = "Take it from the vault."
slots = ["TOKEN"]
[[step]]
id = "install"
kind = "auto"
title = "Install"
as = "user"
check = "false"
run = "true"
secrets = [{ slot = "TOKEN", as = "env" }]
[[step]]
id = "fast"
kind = "auto"
title = "Only in fast mode"
as = "user"
when = "param:MODE=fast"
check = "false"
run = "true"
[[step]]
id = "slow"
kind = "auto"
title = "Only in slow mode"
as = "user"
when = "param:MODE=slow"
check = "false"
run = "true"
[[step]]
id = "extra"
kind = "auto"
title = "Only with the extra token"
as = "user"
when = "slot:EXTRA"
check = "false"
run = "true"
[[step]]
id = "look"
kind = "manual"
title = "Look at it"
text = "Does it answer?"
"#;

async fn with_manual_steps(db: crate::db::Db) -> Running {
    let fixture = Fixture::new(db).await;
    fixture.import(2, &[("manual", MANUAL)]).await.unwrap();
    let client = fixture.client("Example Client", &["manual"]).await;
    let scope = crate::clients::Scope {
        components: ["manual".to_owned()].into(),
        params: [(("manual".to_owned(), "MODE".to_owned()), "fast".to_owned())].into(),
        ..crate::clients::Scope::default()
    };
    crate::clients::choose_scope(&fixture.app, Fixture::who(), client, &scope).await.unwrap();
    let (keys, device_id) = fixture.enrolled(client, "A-UUID").await;
    let device = fixture.with_runbook(device_id).await;
    Running { fixture, device, keys, carried: Carried::default() }
}

impl Running {
    async fn reports_slot(&self, slot: &str, state: SlotState) {
        let report = SlotReport {
            component: "manual".into(),
            slot: slot.into(),
            state,
            version: None,
            observed_at: self.fixture.clock.now(),
            check: (state == SlotState::Rejected).then(|| SlotCheck {
                said: "example.com answered 401".into(),
                recorded: [].into(),
                at: self.fixture.clock.now(),
            }),
        };
        let mut tx = self.tx().await;
        let now = self.fixture.app.now();
        let refused = crate::inventory::apply(&mut tx, self.device.id, &[], &[report], now).await.unwrap();
        let app = &self.fixture.app;
        let reopened = reopen_refused(app, &mut tx, &self.device, &refused).await.unwrap();
        let confirmed = confirm_manual(app, &mut tx, &self.device).await.unwrap();
        for entry in reopened.iter().chain(&confirmed) {
            audit::append(&mut tx, entry).await.unwrap();
        }
        tx.commit().await.unwrap();
        self.fixture.clock.advance(Duration::from_secs(1));
    }

    /// The runbook's live part, as anybody sees it.
    pub async fn page(&self) -> String {
        self.page_of(None).await
    }

    /// The same, as a user with one role sees it.
    pub async fn page_as(&self, role: Role) -> String {
        let (id, email) = (self.fixture.user, "somebody@example.com".to_owned());
        self.page_of(Some(User { id, email, roles: vec![role] })).await
    }

    async fn page_of(&self, user: Option<User>) -> String {
        let now = self.fixture.app.now();
        let (session, address) = (None, String::new());
        let visitor = crate::access::Visitor {
            user,
            session,
            address,
            secure: true,
            pending: 0,
            approvals: 0,
            frozen: false,
            now,
            fresh: true,
            host: String::new(),
            token: None,
        };
        let mut tx = self.tx().await;
        let fragment = super::lines::fragment(&self.fixture.app, &mut tx, &self.device, &visitor).await;
        fragment.unwrap().render().unwrap()
    }

    pub async fn step(&self, key: &str) -> Step {
        self.steps().await.into_iter().find(|step| step.step_key == key).unwrap()
    }
}

#[tokio::test]
async fn a_manual_step_is_done_when_the_device_says_so() {
    on_both(|db| async move {
        let mut running = with_manual_steps(db).await;
        let keys: Vec<_> = running.steps().await.into_iter().map(|step| step.step_key).collect();
        assert_eq!(keys, ["app", "install", "fast", "extra", "look"], "`when` decided about a param");
        assert_eq!(running.step("app").await.state, StepState::Waiting);
        assert!(running.offer().await.is_none(), "the steps after it wait");
        running.reports_slot("TOKEN", SlotState::Empty).await;
        assert_eq!(running.step("app").await.state, StepState::Waiting);
        running.reports_slot("TOKEN", SlotState::Present).await;
        let done = running.step("app").await;
        assert_eq!((done.state, done.note), (StepState::Succeeded, None));
        let install = running.offer().await.unwrap();
        assert_eq!((install.step.as_str(), install.params["MODE"].as_str()), ("install", "fast"));
        running.ended(install.attempt_id, Outcome::Succeeded).await.unwrap();
        let fast = running.offer().await.unwrap();
        running.ended(fast.attempt_id, Outcome::Succeeded).await.unwrap();
        assert_eq!(running.step("extra").await.state, StepState::Skipped, "the device has no extra token");
        let look = running.step("look").await;
        assert_eq!(look.state, StepState::Waiting);
        mark(&running.fixture.app, Fixture::who(), &running.device, look.id).await.unwrap();
        let mut tx = running.tx().await;
        assert_eq!(progress(&mut tx, running.device.id).await.unwrap(), Some((5, 5)));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_says_one_thing_and_then_the_other_does_not_fill_the_audit_log() {
    on_both(|db| async move {
        let running = with_manual_steps(db).await;
        let written = async || {
            let mut tx = running.fixture.app.db.read().await.unwrap();
            let entries = audit::page(&mut tx, None, 1000).await.unwrap();
            let by_probe =
                |action| matches!(action, audit::Action::StepReopened | audit::Action::StepConfirmed);
            entries.iter().filter(|stored| by_probe(stored.entry.action)).count()
        };
        for _ in 0..20 {
            running.reports_slot("TOKEN", SlotState::Verified).await;
            assert_eq!(running.step("app").await.state, StepState::Succeeded);
            running.reports_slot("TOKEN", SlotState::Rejected).await;
            assert_eq!(running.step("app").await.state, StepState::Waiting);
        }
        assert_eq!(written().await, 6, "six an hour");
        running.fixture.clock.advance(Duration::from_secs(3601));
        running.reports_slot("TOKEN", SlotState::Verified).await;
        assert_eq!(written().await, 7);
    })
    .await;
}

#[tokio::test]
async fn a_refused_credential_brings_its_step_back_until_a_good_one_is_there() {
    on_both(|db| async move {
        let mut running = with_manual_steps(db).await;
        let app = running.fixture.app.clone();
        running.reports_slot("TOKEN", SlotState::Rejected).await;
        assert_eq!(running.step("app").await.state, StepState::Waiting, "it is there and doesn't work");
        let shown = running.page().await;
        assert!(shown.contains("The provider refused this credential: example.com answered 401."), "{shown}");
        assert!(running.offer().await.is_none());
        running.reports_slot("TOKEN", SlotState::Unverifiable).await;
        assert_eq!(running.step("app").await.state, StepState::Succeeded, "nobody says that it doesn't");
        running.reports_slot("TOKEN", SlotState::Rejected).await;
        let back = running.step("app").await;
        assert_eq!((back.state, back.note), (StepState::Waiting, None));
        mark(&app, Fixture::who(), &running.device, back.id).await.unwrap();
        running.reports_slot("TOKEN", SlotState::Rejected).await;
        let marked = running.step("app").await;
        assert_eq!(
            marked.state,
            StepState::Succeeded,
            "the consultant knows, and the device says nothing new"
        );
        assert!(marked.note.is_some(), "nor does it confirm anything");
        running.reports_slot("TOKEN", SlotState::Verified).await;
        let done = running.step("app").await;
        assert_eq!((done.state, done.note), (StepState::Succeeded, None));
        let mut tx = running.tx().await;
        let entries = crate::audit::page(&mut tx, None, 100).await.unwrap();
        let reopened =
            entries.iter().filter(|stored| stored.entry.action == crate::audit::Action::StepReopened);
        assert_eq!(reopened.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn marking_by_hand_is_unverifiable_until_the_device_confirms_it() {
    on_both(|db| async move {
        let mut running = with_manual_steps(db).await;
        let app = &running.fixture.app;
        let step = running.step("app").await;
        mark(app, Fixture::who(), &running.device, step.id).await.unwrap();
        assert!(running.step("app").await.note.unwrap().contains("unverifiable"));
        let twice = mark(app, Fixture::who(), &running.device, step.id).await.unwrap_err();
        assert_eq!(twice.public.status, 409);
        let install = running.step("install").await;
        let automatic = mark(app, Fixture::who(), &running.device, install.id).await.unwrap_err();
        assert_eq!(automatic.public.status, 404, "only manual steps are marked");
        running.reports_slot("TOKEN", SlotState::Present).await;
        assert_eq!(running.step("app").await.note, None);
        assert_eq!(running.offer().await.unwrap().step, "install");
    })
    .await;
}

#[tokio::test]
async fn skipping_wants_a_reason_and_lets_the_rest_go_on() {
    on_both(|db| async move {
        let mut running = with_manual_steps(db).await;
        let step = running.step("app").await;
        let token = format!("ghp_{}", "abcdefghijklmnopqrstuvwx");
        for reason in ["", "   ", token.as_str()] {
            let refused = skip(&running.fixture.app, Fixture::who(), &running.device, step.id, reason)
                .await
                .unwrap_err();
            assert_eq!(refused.public.status, 422);
            assert!(!refused.public.detail.contains(&token));
        }
        let reason = "the client has no account yet";
        skip(&running.fixture.app, Fixture::who(), &running.device, step.id, reason).await.unwrap();
        let skipped = running.step("app").await;
        assert_eq!(skipped.state, StepState::Skipped);
        assert!(skipped.note.unwrap().ends_with(reason));
        assert_eq!(running.offer().await.unwrap().step, "install");
        let running_one = running.step("install").await;
        let late = skip(&running.fixture.app, Fixture::who(), &running.device, running_one.id, reason).await;
        assert_eq!(late.unwrap_err().public.status, 409, "what the device was offered can't be skipped");
    })
    .await;
}

#[tokio::test]
async fn a_changed_scope_adds_steps_and_skips_those_that_left_before_they_began() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let first = running.offer().await.unwrap();
        let fit = |components: &'static [&'static str]| {
            let (app, device) = (running.fixture.app.clone(), running.device.clone());
            async move {
                let scope = crate::clients::Scope {
                    components: components.iter().map(|key| (*key).to_owned()).collect(),
                    ..crate::clients::Scope::default()
                };
                crate::clients::choose_scope(&app, Fixture::who(), device.client_id, &scope).await.unwrap();
                let mut tx = app.db.write().await.unwrap();
                ensure(&app, &mut tx, &device).await.unwrap();
                ensure(&app, &mut tx, &device).await.unwrap();
                tx.commit().await.unwrap();
            }
        };
        fit(&["base"]).await;
        let states = running.states().await;
        let expected = [
            ("base/install".to_owned(), StepState::Offered),
            ("tool/install".to_owned(), StepState::Skipped),
            ("tool/configure".to_owned(), StepState::Skipped),
        ];
        assert_eq!(states, expected);
        assert_eq!(running.step("configure").await.note.as_deref(), Some("no longer in the client's scope"));
        running.ended(first.attempt_id, Outcome::Succeeded).await.unwrap();
        assert!(running.offer().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_component_that_comes_later_is_added_at_the_end() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (keys, device_id) = fixture.enrolled(client, "A-UUID").await;
        let device = fixture.with_runbook(device_id).await;
        let mut running = Running { fixture, device, keys, carried: Carried::default() };
        let first = running.offer().await.unwrap();
        running.ended(first.attempt_id, Outcome::Succeeded).await.unwrap();
        let scope = crate::clients::Scope {
            components: ["tool".to_owned()].into(),
            ..crate::clients::Scope::default()
        };
        let app = running.fixture.app.clone();
        crate::clients::choose_scope(&app, Fixture::who(), client, &scope).await.unwrap();
        running.fixture.with_runbook(running.device.id).await;
        let names: Vec<_> = running.states().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["base/install", "tool/install", "tool/configure"]);
        assert_eq!(running.offer().await.unwrap().component, "tool");
    })
    .await;
}
