use std::time::Duration;

use shared::ids::{DeviceId, PlanId};
use shared::protocol::plan::{PlanEnded, PlanRequest, Planned, PlannedStep};
use shared::protocol::steps::Outcome;
use shared::random::SystemRandom;

use super::{
    Answer, Due, Plan, PlanState, PlanStep, SILENCE, UNSENT, apply_plan_ended, apply_step, ask_plan, latest,
    next_plan, reconcile,
};
use crate::access::Role;
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::error::Failure;
use crate::links::OpenLink;
use crate::runbook::run::ApplyError;
use crate::runbook::tests::Running;
use crate::runbook::{apply_started, of_device, pause, skip};
use crate::testing::Fixture;

impl Running {
    /// The device is on as long as the link is held.
    fn on(&self) -> OpenLink {
        self.fixture.app.links.open(self.device.id, self.fixture.app.now())
    }

    async fn ask(&self) -> Result<PlanId, Failure> {
        ask_plan(&self.fixture.app, Fixture::who(), &self.device).await
    }

    async fn due(&self, knows_plans: bool) -> Option<Due> {
        next_plan(&self.fixture.app, &self.device, knows_plans).await.unwrap()
    }

    async fn sent(&self) -> PlanRequest {
        self.ask().await.unwrap();
        match self.due(true).await.unwrap() {
            Due::Send(request) => request,
            Due::Ended => panic!("it is to be sent"),
        }
    }

    async fn plan(&self) -> (Plan, Vec<PlanStep>) {
        let mut tx = self.tx().await;
        let runbook = of_device(&mut tx, self.device.id).await.unwrap().unwrap();
        latest(&mut tx, runbook.id).await.unwrap().unwrap()
    }

    async fn says(&self, plan_id: PlanId, step: &str, answer: Planned) -> Result<(), ApplyError> {
        let (component, step) = step.split_once('/').unwrap();
        let found = format!("about {component}/{step}");
        let planned = PlannedStep { plan_id, component: component.into(), step: step.into(), answer, found };
        let mut tx = self.tx().await;
        apply_step(&self.fixture.app, &mut tx, &self.device, &planned).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn plan_ends(&self, plan_id: PlanId, stopped: Option<&str>) -> Result<(), ApplyError> {
        let ended = PlanEnded { plan_id, stopped: stopped.map(ToOwned::to_owned) };
        let mut tx = self.tx().await;
        apply_plan_ended(&self.fixture.app, &mut tx, &self.device, &ended).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn hello(&self, known: Option<&[PlanId]>) {
        let mut tx = self.tx().await;
        reconcile(&self.fixture.app, &mut tx, &self.device, known).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_plan_asks_for_every_automatic_step_once_and_keeps_what_the_device_says() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let _on = running.on();
        let request = running.sent().await;
        let names: Vec<_> =
            request.steps.iter().map(|name| format!("{}/{}", name.component, name.step)).collect();
        assert_eq!(names, ["base/install", "tool/install", "tool/configure"]);
        assert!(running.due(true).await.is_none(), "it is sent once");
        let (plan, steps) = running.plan().await;
        assert_eq!((plan.id, plan.state), (request.plan_id, PlanState::Sent));
        assert!(steps.iter().all(|step| step.answer.is_none()));

        running.says(plan.id, "base/install", Planned::AlreadySo).await.unwrap();
        running.says(plan.id, "base/install", Planned::WouldRun).await.unwrap();
        running.says(plan.id, "tool/install", Planned::WouldRun).await.unwrap();
        running.says(plan.id, "tool/configure", Planned::NotYet).await.unwrap();
        running.plan_ends(plan.id, None).await.unwrap();
        running.plan_ends(plan.id, Some("too late")).await.unwrap();
        let (plan, steps) = running.plan().await;
        assert_eq!((plan.state, plan.reason), (PlanState::Done, None));
        let answers: Vec<_> = steps.iter().map(|step| step.answer).collect();
        assert_eq!(answers, [Some(Answer::AlreadySo), Some(Answer::WouldRun), Some(Answer::NotYet)]);
        assert_eq!(steps[2].found, "about tool/configure");
        let page = running.page().await;
        assert!(page.contains("1 would run, 1 already so, 1 not known"), "{page}");
        assert!(page.contains("can&#39;t be checked yet") && page.contains("/plan\">Plan</a>"), "{page}");
        let mut tx = running.tx().await;
        let log = audit::page(&mut tx, None, 100).await.unwrap();
        assert_eq!(log.iter().filter(|stored| stored.entry.action == Action::PlanAsked).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn only_a_device_that_is_on_is_asked_and_for_one_plan_at_a_time() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        assert_eq!(running.ask().await.unwrap_err().public.kind, "urn:board:device-off");
        let page = running.page_as(Role::Consultant).await;
        assert!(page.contains("The Mac is off; it can plan when it is on."), "{page}");
        let _on = running.on();
        let both = tokio::join!(running.ask(), running.ask());
        let (done, refused) = if both.0.is_ok() { both } else { (both.1, both.0) };
        done.unwrap();
        assert_eq!(refused.unwrap_err().public.kind, "urn:board:planning-already");
        let page = running.page_as(Role::Consultant).await;
        assert!(page.contains("Asked for") && page.contains("A plan is under way."), "{page}");
        let both = tokio::join!(running.due(true), running.due(true));
        let sent = [both.0, both.1].into_iter().flatten().count();
        assert_eq!(sent, 1, "two links at once carry it once");
    })
    .await;
}

#[tokio::test]
async fn what_was_skipped_is_not_planned() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let _on = running.on();
        let first = running.steps().await[0].id;
        skip(&running.fixture.app, Fixture::who(), &running.device, first, "They have it").await.unwrap();
        let names: Vec<_> = running.sent().await.steps.into_iter().map(|name| name.component).collect();
        assert_eq!(names, ["tool", "tool"]);
    })
    .await;
}

#[tokio::test]
async fn a_plan_waits_while_a_step_runs_and_is_made_in_a_pause() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let _on = running.on();
        let offer = running.offer().await.unwrap();
        let mut tx = running.tx().await;
        apply_started(&running.fixture.app, &mut tx, running.device.id, offer.attempt_id).await.unwrap();
        tx.commit().await.unwrap();
        running.ask().await.unwrap();
        assert!(running.due(true).await.is_none());
        assert!(running.page().await.contains("it begins when no step runs"));
        pause(&running.fixture.app, Fixture::who(), &running.device, "To look first").await.unwrap();
        running.ended(offer.attempt_id, Outcome::Succeeded).await.unwrap();
        assert!(running.offer().await.is_none());
        let Some(Due::Send(request)) = running.due(true).await else { panic!("it is to be sent") };
        assert_eq!(request.steps.len(), 3, "what is done is looked at, too");

        running.fixture.clock.advance(Duration::from_secs(1));
        let plan = {
            running.plan_ends(request.plan_id, None).await.unwrap();
            running.sent().await.plan_id
        };
        running.says(plan, "base/install", Planned::WouldRun).await.unwrap();
        running.plan_ends(plan, Some("a step had to run")).await.unwrap();
        let page = running.page().await;
        assert!(page.contains("Ended early, 1 of 3 looked at: a step had to run"), "{page}");
        assert!(page.contains("not so any more"), "it drifted: {page}");
    })
    .await;
}

#[tokio::test]
async fn a_step_that_ran_since_is_not_said_to_run() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let _on = running.on();
        let plan = running.sent().await.plan_id;
        for step in ["base/install", "tool/install", "tool/configure"] {
            running.says(plan, step, Planned::WouldRun).await.unwrap();
        }
        running.plan_ends(plan, None).await.unwrap();
        let said = |page: &str| page.matches("<span class=\"vh\">Plan: </span>").count();
        assert_eq!(said(&running.page().await), 3);
        running.fixture.clock.advance(Duration::from_secs(1));
        let offer = running.offer().await.unwrap();
        running.ended(offer.attempt_id, Outcome::Succeeded).await.unwrap();
        let page = running.page().await;
        assert_eq!(said(&page), 2, "nothing about the step that is done: {page}");
    })
    .await;
}

#[tokio::test]
async fn a_device_that_forgot_it_or_says_nothing_has_not_answered_and_may_still_come_back() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let _on = running.on();
        let plan = running.sent().await.plan_id;
        running.hello(Some(&[plan])).await;
        assert_eq!(running.plan().await.0.state, PlanState::Sent, "the link broke, the plan goes on");
        running.says(plan, "base/install", Planned::AlreadySo).await.unwrap();
        running.hello(Some(&[])).await;
        assert_eq!(running.plan().await.0.state, PlanState::Unanswered);
        assert!(
            running
                .page()
                .await
                .contains("Not answered, 1 of 3 looked at: the device doesn&#39;t know of it")
        );

        // Its last words waited in the agent's journal.
        running.says(plan, "tool/install", Planned::AlreadySo).await.unwrap();
        running.plan_ends(plan, None).await.unwrap();
        assert_eq!(running.plan().await.0.state, PlanState::Done);

        running.fixture.clock.advance(Duration::from_secs(1));
        let silent = running.sent().await.plan_id;
        running.fixture.clock.advance(SILENCE - Duration::from_secs(1));
        assert!(running.due(true).await.is_none());
        running.says(silent, "base/install", Planned::AlreadySo).await.unwrap();
        running.fixture.clock.advance(Duration::from_secs(1));
        assert_eq!(running.plan().await.0.standing(running.fixture.app.now()), PlanState::Sent);
        running.fixture.clock.advance(SILENCE);
        let (plan, _) = running.plan().await;
        assert_eq!(plan.standing(running.fixture.app.now()), PlanState::Unanswered, "whoever looks");
        assert!(matches!(running.due(true).await, Some(Due::Ended)));
        assert_eq!(running.plan().await.0.state, PlanState::Unanswered);

        // One that nobody cleaned up doesn't stand in the way of the next.
        let forgotten = running.sent().await.plan_id;
        running.fixture.clock.advance(SILENCE);
        assert_ne!(running.sent().await.plan_id, forgotten);
        running.plan_ends(forgotten, None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_never_arrived_is_sent_again() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let _on = running.on();
        let lost = running.sent().await;
        running.hello(Some(&[])).await;
        assert_eq!(running.plan().await.0.state, PlanState::Asked);
        let Some(Due::Send(again)) = running.due(true).await else { panic!("it is sent again") };
        assert_eq!(again, lost);

        // Its whole answer had been on the way: that counts, and nothing is asked for once more.
        running.hello(Some(&[])).await;
        running.says(lost.plan_id, "base/install", Planned::AlreadySo).await.unwrap();
        running.plan_ends(lost.plan_id, None).await.unwrap();
        assert_eq!(running.plan().await.0.state, PlanState::Done);
        assert!(running.due(true).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn the_last_plans_are_kept_and_no_more() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let _on = running.on();
        let mut made = Vec::new();
        for _ in 0..14 {
            running.fixture.clock.advance(Duration::from_secs(1));
            made.push(running.sent().await.plan_id);
            running.plan_ends(made[made.len() - 1], None).await.unwrap();
        }
        let mut kept = 0;
        for plan in &made {
            let mut tx = running.tx().await;
            let found = super::store::of_device(&mut tx, running.device.id, *plan).await.unwrap();
            let steps = super::store::steps(&mut tx, *plan).await.unwrap();
            assert_eq!(found.is_some(), !steps.is_empty());
            kept += usize::from(found.is_some());
        }
        assert_eq!(kept, 10, "of {}", made.len());
        assert_eq!(running.plan().await.0.id, made[13]);
        let gone = running.says(made[0], "base/install", Planned::AlreadySo).await;
        assert!(matches!(gone, Err(ApplyError::UnknownPlan)));
    })
    .await;
}

#[tokio::test]
async fn an_old_agent_is_never_sent_one_and_one_that_waited_too_long_neither() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let _on = running.on();
        running.ask().await.unwrap();
        assert!(matches!(running.due(false).await, Some(Due::Ended)));
        assert_eq!(running.plan().await.0.state, PlanState::TooOld);
        assert!(running.page().await.contains("agent is too old to plan"));
        running.fixture.clock.advance(Duration::from_secs(1));
        running.ask().await.unwrap();
        running.fixture.clock.advance(UNSENT);
        let why = "it was never sent, as the device was busy or off";
        assert!(running.page().await.contains(why), "before anybody wrote it down");
        assert!(matches!(running.due(true).await, Some(Due::Ended)));
        assert_eq!(running.plan().await.0.state, PlanState::Unanswered);
        assert!(running.page().await.contains(why));
    })
    .await;
}

#[tokio::test]
async fn a_device_speaks_of_its_own_plans_and_steps_only() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let _on = running.on();
        let plan = running.sent().await.plan_id;
        let unknown = |result| matches!(result, Err(ApplyError::UnknownPlan));
        let nobodys = PlanId::new(&*running.fixture.clock, &SystemRandom);
        assert!(unknown(running.says(nobodys, "base/install", Planned::AlreadySo).await));
        assert!(unknown(running.says(plan, "base/other", Planned::AlreadySo).await));
        assert!(unknown(running.plan_ends(nobodys, None).await));
        running.device.id = DeviceId::new(&*running.fixture.clock, &SystemRandom);
        assert!(unknown(running.says(plan, "base/install", Planned::AlreadySo).await));
        assert!(unknown(running.plan_ends(plan, None).await));
    })
    .await;
}
