//! A component leaves the client's scope while its secret, or one of its steps, is on the way; and comes back.

use shared::protocol::steps::{OfferKind, Outcome};

use super::Running;
use super::restarting::{done, rotate};
use crate::audit::{self, Action};
use crate::clients::{Proposal, Scope};
use crate::db::testing::on_both;
use crate::runbook::scope_change::views::{Difference, Steps};
use crate::runbook::scope_change::{Asking, Outcome as Answer, change};
use crate::runbook::{StepState, restart, retry, skip};
use crate::secrets::{self, Delivery, DeliveryState};
use crate::testing::Fixture;

/// A consultant changes the scope, and confirms the difference that is shown.
async fn set_scope(running: &Running, components: &[&str]) -> Difference {
    let scope =
        Scope { components: components.iter().map(|key| (*key).to_owned()).collect(), ..Scope::default() };
    let (app, client) = (&running.fixture.app, running.device.client_id);
    let proposal = Proposal::Scope { scope, package: None };
    let asking = Asking { who: Fixture::who(), now: app.now() };
    let shown = change(app, &asking, client, &proposal, None).await.unwrap();
    let Answer::Differs { difference, basis, .. } = shown else { panic!("it is shown: {shown:?}") };
    let saved = change(app, &asking, client, &proposal, Some(&basis.to_string())).await.unwrap();
    assert!(matches!(saved, Answer::Saved), "{saved:?}");
    running.fixture.with_runbook(running.device.id).await;
    *difference
}

fn titles(steps: &[Steps]) -> Vec<&str> {
    steps.iter().flat_map(|steps| &steps.titles).map(String::as_str).collect()
}

async fn delivery(running: &Running) -> Delivery {
    let mut tx = running.tx().await;
    secrets::for_device(&mut tx, running.device.id).await.unwrap().remove(0)
}

async fn hello(running: &Running) {
    let mut tx = running.tx().await;
    secrets::reconcile(&mut tx, running.device.id, &[]).await.unwrap();
    secrets::plan(&running.fixture.app, &mut tx, running.device.id).await.unwrap();
    tx.commit().await.unwrap();
}

async fn decrypts(running: &Running) -> usize {
    let log = audit::page(&mut running.tx().await, None, 1000).await.unwrap();
    let sealed = |entry: &audit::Entry| {
        entry.action == Action::SecretDecrypted && entry.reason == "sealed to the device"
    };
    log.iter().filter(|stored| sealed(&stored.entry)).count()
}

#[tokio::test]
async fn a_rotated_secret_of_a_component_that_left_is_not_opened_and_comes_back_with_it() {
    on_both(|db| async move {
        let mut running = done(db).await;
        let before = decrypts(&running).await;
        rotate(&running, "ours-second-value").await;
        let planned = delivery(&running).await;
        assert_eq!((planned.version, planned.state), (2, DeliveryState::Pending));
        set_scope(&running, &["base"]).await;
        assert_eq!(delivery(&running).await.state, DeliveryState::Superseded);
        assert!(running.page().await.contains("not delivered: no longer in the client’s scope"));

        // The Mac comes on, with nothing in its store; a link that had read the delivery before seals nothing either.
        hello(&running).await;
        assert_eq!(delivery(&running).await.state, DeliveryState::Superseded);
        let app = running.fixture.app.clone();
        assert!(secrets::seal(&app, &planned, "digest").await.unwrap().is_none());
        assert!(running.offer().await.is_none());
        assert_eq!(decrypts(&running).await, before, "nothing was opened");

        set_scope(&running, &["tool"]).await;
        let again = delivery(&running).await;
        assert_eq!((again.id, again.state), (planned.id, DeliveryState::Pending));
        assert!(running.offer().await.is_none());
        running.deliver().await;
        let offer = running.offer().await.unwrap();
        assert_eq!((offer.step.as_str(), offer.kind), ("configure", OfferKind::Rerun));
    })
    .await;
}

#[tokio::test]
async fn what_an_emptied_device_lost_is_delivered_again_only_when_its_component_is_back() {
    on_both(|db| async move {
        let mut running = done(db).await;
        set_scope(&running, &["base"]).await;
        assert_eq!(delivery(&running).await.state, DeliveryState::Receipted, "the device has it");
        hello(&running).await;
        assert_eq!(delivery(&running).await.state, DeliveryState::Superseded);
        set_scope(&running, &["tool"]).await;
        assert_eq!(delivery(&running).await.state, DeliveryState::Pending);
        running.deliver().await;
        assert!(running.offer().await.is_none(), "the same version is no reason to run again");
    })
    .await;
}

#[tokio::test]
async fn a_sealed_frame_that_arrives_after_its_component_left_makes_nothing_run_until_it_is_back() {
    on_both(|db| async move {
        let mut running = done(db).await;
        rotate(&running, "ours-second-value").await;
        let app = running.fixture.app.clone();
        let frame = secrets::seal(&app, &delivery(&running).await, "digest").await.unwrap().unwrap();
        set_scope(&running, &["base"]).await;
        running.receipt(frame).await;
        assert_eq!(delivery(&running).await.state, DeliveryState::Receipted, "the device says so");
        assert!(running.offer().await.is_none());
        assert_eq!(running.step("configure").await.state, StepState::Succeeded);
        let page = running.page().await;
        assert!(page.contains("runs again for version 2 of tool/OUR_KEY when it is back in scope"), "{page}");
        let difference = set_scope(&running, &["tool"]).await;
        assert_eq!(titles(&difference.devices[0].agent), ["Configure the tool"], "nothing runs unannounced");
        assert_eq!(running.offer().await.unwrap().kind, OfferKind::Rerun);
    })
    .await;
}

#[tokio::test]
async fn a_finished_step_that_waits_to_run_again_is_not_one_that_never_began() {
    on_both(|db| async move {
        let mut running = done(db).await;
        rotate(&running, "ours-second-value").await;
        running.deliver().await;
        assert_eq!(running.step("configure").await.state, StepState::Ready);
        let difference = set_scope(&running, &["base"]).await;
        let device = &difference.devices[0];
        assert_eq!(titles(&device.not_again), ["Configure the tool"]);
        assert!(device.skipped.is_empty(), "{device:?}");
        assert_eq!(device.stays[0].evidence, "2 of 2 steps done");
        assert_eq!(running.step("configure").await.state, StepState::Succeeded);
        assert!(running.offer().await.is_none());
        let difference = set_scope(&running, &["tool"]).await;
        assert_eq!(titles(&difference.devices[0].agent), ["Configure the tool"], "its value is another one");
        assert_eq!(running.offer().await.unwrap().kind, OfferKind::Rerun);
    })
    .await;
}

#[tokio::test]
async fn a_failed_step_that_was_retried_is_a_failed_one_again_and_cannot_be_retried_out_of_scope() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        for outcome in [Outcome::Succeeded, Outcome::Failed] {
            let offer = running.offer().await.unwrap();
            running.ended(offer.attempt_id, outcome).await.unwrap();
        }
        let app = running.fixture.app.clone();
        let failed = running.steps().await.remove(1);
        assert_eq!((failed.component_key.as_str(), failed.state), ("tool", StepState::Failed));
        retry(&app, Fixture::who(), &running.device, failed.id).await.unwrap();
        let difference = set_scope(&running, &["base"]).await;
        assert_eq!(titles(&difference.devices[0].not_again), ["Install the tool"]);
        assert_eq!(titles(&difference.devices[0].skipped), ["Configure the tool"]);
        assert_eq!(running.steps().await[1].state, StepState::Failed);
        let refused = retry(&app, Fixture::who(), &running.device, failed.id).await.unwrap_err();
        assert_eq!(refused.public.kind, "urn:board:out-of-scope");
        let page = running.page_as(crate::access::Role::Consultant).await;
        assert!(
            !page.contains(&format!("{}/retry", failed.id)) && page.contains(&format!("{}/skip", failed.id))
        );
        let difference = set_scope(&running, &["tool"]).await;
        assert_eq!(titles(&difference.devices[0].agent), ["Configure the tool"]);
        assert_eq!(running.steps().await[1].state, StepState::Failed, "its failure stands");
        retry(&app, Fixture::who(), &running.device, failed.id).await.unwrap();
        assert_eq!(running.offer().await.unwrap().step, "install");
    })
    .await;
}

#[tokio::test]
async fn only_steps_that_run_by_themselves_are_named_as_running_again() {
    on_both(|db| async move {
        let mut running = done(db).await;
        let device = running.device.id;
        let again = async |running: &Running, why: &str| {
            let mut tx = running.tx().await;
            let names = restart(&mut tx, device, ("tool", "OUR_KEY"), why).await.unwrap();
            tx.commit().await.unwrap();
            names
        };
        assert_eq!(again(&running, "the first").await, ["tool/configure"]);
        crate::runbook::wake_waiting(&running.fixture.app, &mut running.tx().await, device).await.unwrap();
        rotate(&running, "ours-second-value").await;
        running.deliver().await;
        let offer = running.offer().await.unwrap();
        running.ended(offer.attempt_id, Outcome::Interrupted).await.unwrap();
        assert!(again(&running, "another value").await.is_empty(), "a person decides");
        assert!(running.page().await.contains("runs again for another value when it is retried"));
        let step = running.step("configure").await;
        let app = running.fixture.app.clone();
        skip(&app, Fixture::who(), &running.device, step.id, "They do it").await.unwrap();
        assert!(again(&running, "a third value").await.is_empty());
        assert_eq!(running.step("configure").await.rerun_for.as_deref(), Some("another value"));
        assert!(!running.page().await.contains("runs again"));
    })
    .await;
}
