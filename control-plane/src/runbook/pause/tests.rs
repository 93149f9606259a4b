use shared::protocol::steps::Outcome;

use super::{is_paused, pause, pause_of, resume};
use crate::access::Role;
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::enrollment::get_device;
use crate::runbook::tests::Running;
use crate::runbook::{Carried, StepState, apply_started, of_device, retry};
use crate::testing::Fixture;

impl Running {
    async fn pause(&self, reason: &str) -> Result<(), crate::error::Failure> {
        pause(&self.fixture.app, Fixture::who(), &self.device, reason).await
    }

    async fn resume(&self) -> Result<(), crate::error::Failure> {
        resume(&self.fixture.app, Fixture::who(), &self.device).await
    }
}

#[tokio::test]
async fn a_paused_runbook_offers_nothing_until_it_is_resumed() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        running.pause("  The client is on a call ").await.unwrap();
        assert!(running.offer().await.is_none());
        let mut tx = running.tx().await;
        let runbook = of_device(&mut tx, running.device.id).await.unwrap().unwrap();
        let paused = pause_of(&mut tx, runbook.id).await.unwrap().unwrap();
        assert_eq!(paused.reason, "The client is on a call");
        assert_eq!(paused.paused_by, "consultant@example.com");
        assert_eq!(paused.paused_at, running.fixture.app.now());
        drop(tx);
        running.resume().await.unwrap();
        assert_eq!(running.offer().await.unwrap().component, "base");
        let mut tx = running.tx().await;
        assert!(!is_paused(&mut tx, running.device.id).await.unwrap());
        let log = audit::page(&mut tx, None, 100).await.unwrap();
        let entry = |action| log.iter().find(|stored| stored.entry.action == action).unwrap().entry.clone();
        let (began, ended) = (entry(Action::RunbookPaused), entry(Action::RunbookResumed));
        assert_eq!(began.reason, "The client is on a call");
        assert_eq!((began.device, ended.device), (Some(running.device.id), Some(running.device.id)));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_runs_is_let_finish_and_one_that_nobody_took_is_held_back() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        let first = running.offer().await.unwrap();
        // The link broke before the device took it.
        running.carried = Carried::default();
        running.pause("Not now").await.unwrap();
        assert!(running.offer().await.is_none(), "not again, although nobody has it");
        assert!(running.page().await.contains("offered before the pause"));
        running.resume().await.unwrap();
        assert_eq!(running.offer().await.unwrap(), first, "the same one");

        let mut tx = running.tx().await;
        apply_started(&running.fixture.app, &mut tx, running.device.id, first.attempt_id).await.unwrap();
        tx.commit().await.unwrap();
        running.pause("Not now").await.unwrap();
        running.carried = Carried::default();
        assert!(running.offer().await.is_none(), "a repaired device isn't offered it again, either");
        running.ended(first.attempt_id, Outcome::Failed).await.unwrap();
        assert_eq!(running.steps().await[0].state, StepState::Failed, "what it came to counts");
        let failed = running.steps().await[0].id;
        retry(&running.fixture.app, Fixture::who(), &running.device, failed).await.unwrap();
        assert_eq!(running.steps().await[0].state, StepState::Ready);
        assert!(running.offer().await.is_none(), "nothing follows");
        running.resume().await.unwrap();
        assert_ne!(running.offer().await.unwrap().attempt_id, first.attempt_id);
    })
    .await;
}

#[tokio::test]
async fn of_two_who_pause_or_resume_at_once_one_does() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let both = tokio::join!(running.pause("One"), running.pause("Two"));
        let (done, refused) = if both.0.is_ok() { both } else { (both.1, both.0) };
        done.unwrap();
        assert_eq!(refused.unwrap_err().public.kind, "urn:board:paused-already");
        let both = tokio::join!(running.resume(), running.resume());
        let (done, refused) = if both.0.is_ok() { both } else { (both.1, both.0) };
        done.unwrap();
        assert_eq!(refused.unwrap_err().public.kind, "urn:board:not-paused");
        let mut tx = running.tx().await;
        let log = audit::page(&mut tx, None, 100).await.unwrap();
        let count = |action| log.iter().filter(|stored| stored.entry.action == action).count();
        assert_eq!((count(Action::RunbookPaused), count(Action::RunbookResumed)), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_pause_needs_a_reason_that_is_no_secret() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let token = format!("xoxb{}", "-1234567890-abcdef");
        for reason in ["", "  ", token.as_str(), &"x".repeat(501)] {
            assert_eq!(running.pause(reason).await.unwrap_err().public.status, 422);
        }
        let mut tx = running.tx().await;
        assert!(!is_paused(&mut tx, running.device.id).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_mac_that_joins_again_is_still_paused_and_another_is_not() {
    on_both(|db| async move {
        let mut running = Running::new(db).await;
        running.pause("Until Monday").await.unwrap();
        let client = running.device.client_id;
        let (_, again) = running.fixture.enrolled(client, "A-UUID").await;
        assert_eq!(again, running.device.id);
        let (_, other) = running.fixture.enrolled(client, "B-UUID").await;
        let mut tx = running.tx().await;
        running.device = get_device(&mut tx, again).await.unwrap();
        let other = get_device(&mut tx, other).await.unwrap();
        crate::runbook::ensure(&running.fixture.app, &mut tx, &other).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert!(running.offer().await.is_none());
        running.device = other;
        assert!(running.offer().await.is_some());
    })
    .await;
}

#[tokio::test]
async fn the_page_says_who_paused_it_and_why_and_lets_only_consultants_resume() {
    on_both(|db| async move {
        let running = Running::new(db).await;
        let page = running.page_as(Role::Consultant).await;
        assert!(page.contains("The agent takes the steps by itself"), "{page}");
        assert!(page.contains("/runbook/pause\"") && !page.contains("/runbook/resume\""), "{page}");
        running.pause("The <b>client</b> is on a call").await.unwrap();
        let page = running.page_as(Role::Consultant).await;
        assert!(page.contains("Paused by <bdi>consultant@example.com</bdi>"), "{page}");
        assert!(page.contains("The &#60;b&#62;client&#60;/b&#62; is on a call"), "{page}");
        assert!(page.contains("/runbook/resume\"") && !page.contains("/runbook/pause\""), "{page}");
        assert!(page.contains("The runbook is paused"), "{page}");
        assert!(page.contains("when the runbook is resumed"), "{page}");
        let page = running.page_as(Role::Support).await;
        assert!(page.contains("Paused by") && !page.contains("/runbook/resume\""), "{page}");
    })
    .await;
}
