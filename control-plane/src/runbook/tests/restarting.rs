use axum::http::Method;
use shared::protocol::steps::{OfferKind, Outcome};
use shared::secret::Secret;

use super::Running;
use crate::access::Role;
use crate::db::Db;
use crate::db::testing::on_both;
use crate::runbook::{StepState, pause, retry, would_restart};
use crate::secrets;
use crate::secrets::views::RunsAgain;
use crate::testing::{Fixture, MANIFESTS};
use crate::tests::{ask, read, signed_in};

/// A device whose runbook is through, with a step that runs again when its secret changes.
pub(super) async fn done(db: Db) -> Running {
    let fixture = Fixture::new(db).await;
    let marked: Vec<(&str, String)> = MANIFESTS
        .iter()
        .map(|(key, text)| {
            let secrets = "secrets = [{ slot = \"OUR_KEY\", as = \"env\" }]";
            (*key, text.replace(secrets, &format!("{secrets}\nrestart_on_secret = true")))
        })
        .collect();
    let marked: Vec<_> = marked.iter().map(|(key, text)| (*key, text.as_str())).collect();
    fixture.import(2, &marked).await.unwrap();
    let mut running = Running::with(fixture).await;
    running.deliver().await;
    for step in ["install", "install", "configure"] {
        let offer = running.offer().await.unwrap();
        assert_eq!((offer.step.as_str(), offer.kind), (step, OfferKind::Run));
        running.ended(offer.attempt_id, Outcome::Succeeded).await.unwrap();
    }
    assert!(running.offer().await.is_none());
    running
}

pub(super) async fn rotate(running: &Running, value: &str) {
    let (app, slot) = (&running.fixture.app, running.fixture.our_slot().await);
    let value = Secret::new(value.to_owned());
    let client = running.device.client_id;
    secrets::rotate(app, Fixture::who(), client, slot.id, &value, "a year is over").await.unwrap();
}

#[tokio::test]
async fn a_step_that_reads_a_secret_runs_again_after_the_receipt_of_its_new_version() {
    on_both(|db| async move {
        let mut running = done(db).await;
        rotate(&running, "ours-second-value").await;
        assert!(running.offer().await.is_none(), "nothing runs again before the device has it");
        running.deliver().await;
        assert_eq!(running.step("configure").await.state, StepState::Ready);
        let again = running.offer().await.unwrap();
        assert_eq!((again.step.as_str(), again.kind), ("configure", OfferKind::Rerun), "whatever check says");
        assert!(running.page().await.contains("ran again for version 2 of tool/OUR_KEY"));
        running.ended(again.attempt_id, Outcome::Succeeded).await.unwrap();
        assert!(running.offer().await.is_none(), "once");
        let states = running.states().await;
        assert!(states.iter().all(|(_, state)| *state == StepState::Succeeded), "{states:?}");
    })
    .await;
}

#[tokio::test]
async fn a_version_that_comes_while_the_step_runs_makes_it_run_once_more() {
    on_both(|db| async move {
        let mut running = done(db).await;
        rotate(&running, "ours-second-value").await;
        running.deliver().await;
        let second = running.offer().await.unwrap();
        rotate(&running, "ours-third-value").await;
        running.deliver().await;
        assert!(running.offer().await.is_none(), "one attempt at a time");
        running.ended(second.attempt_id, Outcome::Succeeded).await.unwrap();
        let third = running.offer().await.unwrap();
        assert_eq!(third.kind, OfferKind::Rerun);
        assert_ne!(third.attempt_id, second.attempt_id);
        running.ended(third.attempt_id, Outcome::Succeeded).await.unwrap();
        assert!(running.offer().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn what_a_device_lost_and_got_again_is_not_new() {
    on_both(|db| async move {
        let mut running = done(db).await;
        let mut tx = running.tx().await;
        secrets::reconcile(&mut tx, running.device.id, &[]).await.unwrap();
        tx.commit().await.unwrap();
        running.deliver().await;
        assert!(running.offer().await.is_none(), "the same version, delivered again");
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_failed_to_run_again_stays_one_until_it_succeeds() {
    on_both(|db| async move {
        let mut running = done(db).await;
        rotate(&running, "ours-second-value").await;
        running.deliver().await;
        let offer = running.offer().await.unwrap();
        running.ended(offer.attempt_id, Outcome::Failed).await.unwrap();
        assert!(running.offer().await.is_none(), "a person decides");
        let failed = running.step("configure").await;
        assert_eq!(failed.state, StepState::Failed);
        retry(&running.fixture.app, Fixture::who(), &running.device, failed.id).await.unwrap();
        let retried = running.offer().await.unwrap();
        assert_eq!(retried.kind, OfferKind::Rerun, "its effect from before the rotation must not count");
        running.ended(retried.attempt_id, Outcome::Interrupted).await.unwrap();
        rotate(&running, "ours-third-value").await;
        running.deliver().await;
        assert!(running.offer().await.is_none(), "what was interrupted waits for a person");
        let step = running.step("configure").await;
        retry(&running.fixture.app, Fixture::who(), &running.device, step.id).await.unwrap();
        assert_eq!(running.offer().await.unwrap().kind, OfferKind::Rerun);
    })
    .await;
}

#[tokio::test]
async fn the_page_of_a_rotation_says_what_runs_again_by_each_runbooks_own_catalog_and_its_pause() {
    on_both(|db| async move {
        let running = done(db).await;
        // A newer catalog in which no step is marked; this runbook goes on with its own.
        running.fixture.import(3, MANIFESTS).await.unwrap();
        let client = running.device.client_id;
        let (_, fresh) = running.fixture.enrolled(client, "B-UUID").await;
        running.fixture.with_runbook(fresh).await;
        let told = async || {
            let mut tx = running.tx().await;
            would_restart(&mut tx, client, ("tool", "OUR_KEY")).await.unwrap()
        };
        let of = |is_paused| RunsAgain {
            device: "reception-mini".into(),
            titles: vec!["Configure the tool".into()],
            is_paused,
        };
        assert_eq!(told().await, [of(false)]);
        pause(&running.fixture.app, Fixture::who(), &running.device, "A demo").await.unwrap();
        assert_eq!(told().await, [of(true)]);

        let cookie = signed_in(&running.fixture, Role::Consultant).await;
        let slot = running.fixture.our_slot().await;
        let path = format!("/clients/{client}/secrets/{}/rotate", slot.id);
        let shown = ask(&running.fixture, Method::GET, &path, Some(&cookie), "http://board.test").await;
        let (_, page) = read(shown).await;
        assert!(page.contains("Configure the tool; its runbook is paused: when it is resumed"), "{page}");
    })
    .await;
}
