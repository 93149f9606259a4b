use shared::protocol::steps::{OfferKind, Outcome};

use super::{keep, undo};
use crate::audit::{self, Action};
use crate::clients;
use crate::db::Db;
use crate::db::testing::on_both;
use crate::runbook::tests::Running;
use crate::runbook::{StepState, apply_offer_refused, retry, skip, store, wake_waiting};
use crate::testing::Fixture;

/// A device whose runbook is through.
async fn done(db: Db) -> Running {
    let mut running = Running::new(db).await;
    running.deliver().await;
    for _ in 0..3 {
        let offer = running.offer().await.unwrap();
        running.ended(offer.attempt_id, Outcome::Succeeded).await.unwrap();
    }
    running
}

async fn ask(running: &Running, step: &str, reason: &str) -> Result<(), u16> {
    let id = running.step(step).await.id;
    let asked = undo(&running.fixture.app, Fixture::who(), &running.device, id, reason).await;
    asked.map_err(|failure| failure.public.status)
}

#[tokio::test]
async fn what_a_person_wants_undone_is_offered_so_and_can_be_set_up_again() {
    on_both(|db| async move {
        let mut running = done(db).await;
        assert!(running.offer().await.is_none(), "nobody asked for anything");
        assert_eq!(ask(&running, "configure", " ").await, Err(422), "without a reason");
        assert_eq!(ask(&running, "install", "not needed").await, Err(409), "the manifest has no way back");
        ask(&running, "configure", "wrong account").await.unwrap();
        assert_eq!(ask(&running, "configure", "once more").await, Err(409));
        let page = running.page().await;
        assert!(page.contains("to be undone; consultant@example.com: wrong account"), "{page}");

        let offer = running.offer().await.unwrap();
        assert_eq!((offer.step.as_str(), offer.kind), ("configure", OfferKind::Undo));
        running.carried = Default::default();
        assert_eq!(running.offer().await.unwrap(), offer, "offered again as what it is");
        running.ended(offer.attempt_id, Outcome::Succeeded).await.unwrap();
        let step = running.step("configure").await;
        assert_eq!(step.state, StepState::Skipped);
        assert_eq!(step.note.as_deref(), Some("undone; consultant@example.com: wrong account"));
        assert!(running.offer().await.is_none());
        assert_eq!(ask(&running, "configure", "once more").await, Err(409), "it is gone");

        retry(&running.fixture.app, Fixture::who(), &running.device, step.id).await.unwrap();
        let again = running.offer().await.unwrap();
        assert_eq!((again.step.as_str(), again.kind), ("configure", OfferKind::Run));
        running.ended(again.attempt_id, Outcome::Succeeded).await.unwrap();
        assert_eq!(running.step("configure").await.state, StepState::Succeeded);
        let mut tx = running.tx().await;
        let asked = audit::page(&mut tx, None, 100).await.unwrap();
        let asked = asked.iter().filter(|entry| entry.entry.action == Action::StepUndoAsked).count();
        assert_eq!(asked, 1);
    })
    .await;
}

#[tokio::test]
async fn what_was_skipped_by_a_person_is_not_set_up_again_by_trying() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        running.deliver().await;
        for outcome in [Outcome::Succeeded, Outcome::Succeeded, Outcome::Failed] {
            let offer = running.offer().await.unwrap();
            running.ended(offer.attempt_id, outcome).await.unwrap();
        }
        let failed = running.step("configure").await.id;
        skip(&running.fixture.app, Fixture::who(), &running.device, failed, "not wanted").await.unwrap();
        let refused = retry(&running.fixture.app, Fixture::who(), &running.device, failed).await.unwrap_err();
        assert_eq!(refused.public.status, 409);
    })
    .await;
}

#[tokio::test]
async fn a_refused_undo_changes_nothing_and_a_failed_one_is_shown() {
    on_both(|db| async move {
        let mut running = done(db).await;
        ask(&running, "configure", "wrong account").await.unwrap();
        let offer = running.offer().await.unwrap();
        let mut tx = running.tx().await;
        let reason = "somebody at the device has to allow it";
        let app = &running.fixture.app;
        apply_offer_refused(app, &mut tx, &running.device, offer.attempt_id, reason).await.unwrap();
        tx.commit().await.unwrap();
        let step = running.step("configure").await;
        assert_eq!(step.state, StepState::Succeeded);
        assert!(step.note.unwrap().contains(reason));

        ask(&running, "configure", "it is allowed now").await.unwrap();
        let offer = running.offer().await.unwrap();
        assert_eq!(offer.kind, OfferKind::Undo);
        running.ended(offer.attempt_id, Outcome::Failed).await.unwrap();
        assert_eq!(running.step("configure").await.state, StepState::Failed);
        assert!(running.page().await.contains("undoing it: failed"));
        let failed = running.step("configure").await.id;
        let mut tx = running.tx().await;
        store::set_rerun(&mut tx, failed, Some("version 2")).await.unwrap();
        wake_waiting(&running.fixture.app, &mut tx, running.device.id).await.unwrap();
        tx.commit().await.unwrap();
        assert!(running.offer().await.is_none(), "a new secret doesn't set up what a person wanted gone");
        ask(&running, "configure", "try to undo it again").await.unwrap();
        assert_eq!(running.offer().await.unwrap().kind, OfferKind::Undo);
    })
    .await;
}

#[tokio::test]
async fn a_wish_that_nobody_has_any_more_leaves_the_step_as_it_was() {
    on_both(|db| async move {
        let mut running = done(db).await;
        let step = running.step("configure").await;
        let app = running.fixture.app.clone();
        assert!(keep(&app, Fixture::who(), &running.device, step.id).await.is_err(), "nobody asked");
        ask(&running, "configure", "wrong account").await.unwrap();
        keep(&app, Fixture::who(), &running.device, step.id).await.unwrap();
        assert_eq!(running.step("configure").await.state, StepState::Succeeded);
        assert!(running.offer().await.is_none());

        ask(&running, "configure", "wrong account").await.unwrap();
        running.offer().await.unwrap();
        let late = keep(&app, Fixture::who(), &running.device, step.id).await.unwrap_err();
        assert_eq!(late.public.status, 409, "the device has it");
    })
    .await;
}

#[tokio::test]
async fn what_was_undone_out_of_scope_comes_back_with_its_component() {
    on_both(|db| async move {
        let mut running = done(db).await;
        let scope = |components: &[&str]| clients::Scope {
            components: components.iter().map(|key| (*key).to_owned()).collect(),
            ..clients::Scope::default()
        };
        let (app, client) = (running.fixture.app.clone(), running.device.client_id);
        clients::choose_scope(&app, Fixture::who(), client, &scope(&["base"])).await.unwrap();
        running.fixture.with_runbook(running.device.id).await;
        ask(&running, "configure", "the engagement is smaller now").await.unwrap();
        let offer = running.offer().await.unwrap();
        running.ended(offer.attempt_id, Outcome::Succeeded).await.unwrap();
        assert!(running.offer().await.is_none());
        clients::choose_scope(&app, Fixture::who(), client, &scope(&["base", "tool"])).await.unwrap();
        running.fixture.with_runbook(running.device.id).await;
        let back = running.offer().await.unwrap();
        assert_eq!((back.step.as_str(), back.kind), ("configure", OfferKind::Run));
    })
    .await;
}
