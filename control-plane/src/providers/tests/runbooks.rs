//! The board's own step beside the agent's: pauses, plans, reruns, reports, and a scope that changes.

use std::collections::BTreeSet;

use shared::protocol::steps::{AttemptEnded, Outcome};

use super::*;
use crate::clients::{Proposal, Scope};
use crate::enrollment::Device;
use crate::runbook::plan::{self, Due, ask_plan};
use crate::runbook::scope_change::{self, Asking};
use crate::runbook::{ApplyError, Carried, apply_ended, apply_started, pause, resume};

impl Desk {
    async fn mac(&self) -> Device {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        enrollment::get_device(&mut tx, self.device).await.unwrap()
    }

    async fn rescope(&self, components: &[&str], seen: Option<&str>) -> scope_change::Outcome {
        let components = components.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        let scope = Scope { components, ..Scope::default() };
        let asking = Asking { who: Fixture::who(), now: self.fixture.app.now() };
        let proposal = Proposal::Scope { scope, package: None };
        scope_change::change(&self.fixture.app, &asking, self.client, &proposal, seen).await.unwrap()
    }

    /// Its turn has come, and the key is planned; nobody is at it yet.
    async fn begun(&self) {
        let app = &self.fixture.app;
        let mut tx = app.db.write().await.unwrap();
        runbook::wake_waiting(app, &mut tx, self.device).await.unwrap();
        let step = runbook::boards_steps(&mut tx).await.unwrap().remove(0);
        assert!(runbook::begin_boards(app, &mut tx, &step).await.unwrap());
        store::plan(&mut tx, self.client, DEFAULT_LIMIT_MICROS, app.now()).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_holds_the_boards_step_back_and_lets_finish_what_runs() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let (app, mac) = (&desk.fixture.app, desk.mac().await);
        desk.work().await;
        pause(app, Fixture::who(), &mac, "The client is on a call").await.unwrap();
        desk.manage(MANAGEMENT).await;
        let mut tx = app.db.write().await.unwrap();
        runbook::wake_waiting(app, &mut tx, mac.id).await.unwrap();
        let ready = runbook::of_device(&mut tx, mac.id).await.unwrap().unwrap();
        let ready = runbook::steps(&mut tx, ready.id).await.unwrap().remove(0);
        let step = runbook::BoardStep {
            id: ready.id,
            device_id: mac.id,
            client_id: desk.client,
            component_key: ready.component_key,
            step_key: ready.step_key,
            state: ready.state,
        };
        assert!(!runbook::begin_boards(app, &mut tx, &step).await.unwrap(), "also not by who saw it before");
        tx.commit().await.unwrap();
        desk.work().await;
        assert_eq!(desk.step().await.state, StepState::Ready);
        assert!(desk.provider.inside().asked.is_empty(), "no key is asked for");

        resume(app, Fixture::who(), &mac).await.unwrap();
        desk.begun().await;
        pause(app, Fixture::who(), &mac, "Not now").await.unwrap();
        desk.work().await;
        desk.holds_the_one_that_works("it ran already").await;
    })
    .await;
}

#[tokio::test]
async fn another_macs_pause_holds_only_its_own_step() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let second = Desk::device(&desk.fixture, desk.client, "B-UUID").await;
        pause(&desk.fixture.app, Fixture::who(), &desk.mac().await, "Not now").await.unwrap();
        desk.work().await;
        assert_eq!(desk.step_of(second).await.state, StepState::Succeeded);
        assert_ne!(desk.step().await.state, StepState::Succeeded, "nobody looked at it");
        resume(&desk.fixture.app, Fixture::who(), &desk.mac().await).await.unwrap();
        desk.work().await;
        desk.holds_the_one_that_works("resumed").await;
        assert_eq!(desk.actions(Action::ProviderKeyMade).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_plan_asks_the_agent_nothing_about_the_boards_step_and_does_not_wait_for_it() {
    on_both(|db| async move {
        let desk = Desk::managed(db).await;
        let (app, mac) = (&desk.fixture.app, desk.mac().await);
        let _on = app.links.open(mac.id, app.now());
        let refused = ask_plan(app, Fixture::who(), &mac).await.unwrap_err();
        assert_eq!(refused.public.kind, "urn:board:nothing-to-plan");
        let scope_change::Outcome::Differs { basis, difference, .. } =
            desk.rescope(&["openrouter", "base"], None).await
        else {
            panic!("a step comes")
        };
        assert_eq!(difference.devices[0].agent.len(), 1);
        assert!(difference.devices[0].board.is_empty(), "it was there before");
        desk.rescope(&["openrouter", "base"], Some(&basis.to_string())).await;
        desk.begun().await;
        ask_plan(app, Fixture::who(), &mac).await.unwrap();
        let Some(Due::Send(request)) = plan::next_plan(app, &mac, true).await.unwrap() else {
            panic!("it is sent while the board's step runs")
        };
        let asked: Vec<_> = request.steps.iter().map(|step| step.component.as_str()).collect();
        assert_eq!(asked, ["base"]);
    })
    .await;
}

#[tokio::test]
async fn the_device_neither_gets_nor_reports_the_boards_step() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        desk.manage(MANAGEMENT).await;
        let (app, mac) = (&desk.fixture.app, desk.mac().await);
        desk.begun().await;
        let attempt_id = desk.step().await.attempt_id.unwrap();
        assert!(runbook::next_offer(app, &mac, &Carried::default()).await.unwrap().is_none());
        let mut tx = app.db.write().await.unwrap();
        let ended = AttemptEnded {
            attempt_id,
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            found: "so".into(),
            duration_ms: 5,
        };
        let refused = apply_ended(app, &mut tx, &mac, &ended).await.unwrap_err();
        assert!(matches!(refused, ApplyError::UnknownAttempt), "{refused}");
        let refused = apply_started(app, &mut tx, mac.id, attempt_id).await.unwrap_err();
        assert!(matches!(refused, ApplyError::UnknownAttempt), "{refused}");
        drop(tx);
        desk.work().await;
        assert_eq!(desk.step().await.state, StepState::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_scope_without_openrouter_skips_what_has_not_begun_and_lets_a_key_be_as_it_is() {
    on_both(|db| async move {
        let desk = Desk::new(db).await;
        let outcome = desk.rescope(&["base"], None).await;
        let scope_change::Outcome::Differs { basis, difference, .. } = outcome else { panic!("{outcome:?}") };
        assert!(difference.unused.is_empty(), "no key is there");
        desk.rescope(&["base"], Some(&basis.to_string())).await;
        desk.manage(MANAGEMENT).await;
        desk.work().await;
        assert_eq!(desk.step().await.state, StepState::Skipped);
        assert!(desk.provider.inside().asked.is_empty(), "nothing is made for it");

        let outcome = desk.rescope(&["base", "openrouter"], None).await;
        let scope_change::Outcome::Differs { basis, difference, .. } = outcome else { panic!("{outcome:?}") };
        let mac = &difference.devices[0];
        assert_eq!((mac.board.len(), mac.agent.len()), (1, 0), "it comes back, and it isn't the agent's");
        desk.rescope(&["base", "openrouter"], Some(&basis.to_string())).await;
        desk.work().await;
        desk.holds_the_one_that_works("back in scope").await;

        let outcome = desk.rescope(&["base"], None).await;
        let scope_change::Outcome::Differs { basis, difference, .. } = outcome else { panic!("{outcome:?}") };
        let unused = &difference.unused[0];
        assert!(unused.ours && unused.stored && unused.boards, "{unused:?}");
        let asked = desk.provider.inside().asked.len();
        desk.rescope(&["base"], Some(&basis.to_string())).await;
        desk.work().await;
        assert_eq!(desk.provider.inside().asked.len(), asked, "OpenRouter isn't asked to change anything");
        assert_eq!((desk.provider.working(&desk.name).len(), desk.key().await.state), (1, KeyState::Stored));
        assert!(disable_for(&desk.fixture.app, Fixture::who(), desk.client).await.unwrap());
        assert!(desk.provider.working(&desk.name).is_empty(), "the end of the engagement finds it");
    })
    .await;
}
