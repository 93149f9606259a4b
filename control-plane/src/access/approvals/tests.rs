use std::time::Duration;

use shared::ids::{ApprovalId, ClientId, UserId};
use sqlx::{AssertSqlSafe, Executor as _};

use super::{
    Approval, ApprovalError, ApprovalState, Subject, TTL, ask, asked, count, decide, to_decide, use_up,
};
use crate::access::{self, Role};
use crate::db::testing::on_both;
use crate::on;
use crate::testing::Fixture;

/// Two consultants, and a client with a slot of ours.
struct Desk {
    fixture: Fixture,
    client: ClientId,
    copy: Subject,
    asker: UserId,
    other: UserId,
}

impl Desk {
    async fn new(fixture: Fixture) -> Self {
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let copy = Subject::Copy(fixture.our_slot().await.id);
        let other = another(&fixture, "other@example.com").await;
        Self { asker: fixture.user, other, client, copy, fixture }
    }

    async fn ask(&self, subject: Subject) -> Result<ApprovalId, ApprovalError> {
        let app = &self.fixture.app;
        let mut tx = app.db.write().await.unwrap();
        let id = ask(app, &mut tx, self.asker, self.client, subject, "it is typed").await?;
        tx.commit().await.unwrap();
        Ok(id)
    }

    async fn decide(&self, by: UserId, id: ApprovalId, yes: bool) -> Result<Approval, ApprovalError> {
        let app = &self.fixture.app;
        let mut tx = app.db.write().await.unwrap();
        let approval = decide(app, &mut tx, by, id, yes).await?;
        tx.commit().await.unwrap();
        Ok(approval)
    }

    async fn use_up(&self, by: UserId, id: ApprovalId) -> Result<Approval, ApprovalError> {
        let app = &self.fixture.app;
        let mut tx = app.db.write().await.unwrap();
        let approval = use_up(app, &mut tx, by, id).await?;
        tx.commit().await.unwrap();
        Ok(approval)
    }

    /// How many wait for the other one, by the list and by the count.
    async fn waiting(&self) -> usize {
        let app = &self.fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let listed = to_decide(&mut tx, self.other, app.now()).await.unwrap().len();
        assert_eq!(count(&mut tx, self.other, app.now()).await.unwrap() as usize, listed);
        assert_eq!(count(&mut tx, self.asker, app.now()).await.unwrap(), 0, "nobody is asked by themselves");
        listed
    }

    async fn states(&self) -> Vec<ApprovalState> {
        let app = &self.fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let day_ago = app.now().before(Duration::from_secs(24 * 3600));
        let all = asked(&mut tx, self.asker, day_ago, app.now()).await.unwrap();
        all.into_iter().map(|approval| approval.state).collect()
    }
}

pub async fn another(fixture: &Fixture, email: &str) -> UserId {
    let app = &fixture.app;
    let mut tx = app.db.write().await.unwrap();
    let roles = [Role::Consultant];
    access::create_user(&mut tx, &app.root, &*app.clock, &*app.random, email, &roles).await.unwrap();
    tx.commit().await.unwrap();
    let users = access::users::list(&mut app.db.read().await.unwrap()).await.unwrap();
    users.into_iter().find(|user| user.email == email).unwrap().id
}

#[tokio::test]
async fn another_person_approves_and_it_is_good_once_for_who_asked() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let id = desk.ask(desk.copy).await.unwrap();
        assert_eq!(desk.waiting().await, 1);
        assert!(matches!(desk.use_up(desk.asker, id).await, Err(ApprovalError::Waiting)));
        assert!(matches!(desk.decide(desk.asker, id, true).await, Err(ApprovalError::Own)));
        assert!(matches!(desk.decide(desk.asker, id, false).await, Err(ApprovalError::Own)));
        desk.decide(desk.other, id, true).await.unwrap();
        assert_eq!(desk.waiting().await, 0);
        let again = desk.decide(desk.other, id, false).await.unwrap_err();
        assert!(matches!(&again, ApprovalError::Decided(by) if by == "other@example.com"), "{again}");
        assert!(matches!(desk.use_up(desk.other, id).await, Err(ApprovalError::NotYours)));
        let used = desk.use_up(desk.asker, id).await.unwrap();
        assert_eq!(used.decider.as_deref(), Some("other@example.com"));
        assert!(matches!(desk.use_up(desk.asker, id).await, Err(ApprovalError::Used)));
        assert_eq!(desk.states().await, [ApprovalState::Used]);
        let unknown = ApprovalId::new(&*desk.fixture.clock, &*desk.fixture.app.random);
        assert!(matches!(desk.use_up(desk.asker, unknown).await, Err(ApprovalError::Unknown)));
        assert!(matches!(desk.decide(desk.other, unknown, true).await, Err(ApprovalError::Unknown)));
    })
    .await;
}

#[tokio::test]
async fn what_was_declined_stays_declined() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let id = desk.ask(desk.copy).await.unwrap();
        desk.decide(desk.other, id, false).await.unwrap();
        assert!(matches!(desk.decide(desk.other, id, true).await, Err(ApprovalError::Decided(_))));
        let refused = desk.use_up(desk.asker, id).await.unwrap_err();
        assert!(refused.to_string().starts_with("other@example.com declined"), "{refused}");
        desk.ask(desk.copy).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn ten_minutes_are_the_end_whatever_was_decided() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let waits = desk.ask(desk.copy).await.unwrap();
        let approved = desk.ask(Subject::SwitchOff).await.unwrap();
        assert!(matches!(desk.ask(desk.copy).await, Err(ApprovalError::Asked)), "one at a time");
        desk.fixture.clock.advance(TTL - Duration::from_secs(1));
        assert_eq!(desk.waiting().await, 2);
        desk.fixture.clock.advance(Duration::from_secs(1));
        assert_eq!(desk.waiting().await, 0);
        for id in [waits, approved] {
            assert!(matches!(desk.decide(desk.other, id, true).await, Err(ApprovalError::Expired)));
        }
        assert_eq!(desk.states().await, [ApprovalState::Expired; 2]);

        let again = desk.ask(desk.copy).await.unwrap();
        desk.fixture.clock.advance(TTL - Duration::from_secs(1));
        desk.decide(desk.other, again, true).await.unwrap();
        desk.fixture.clock.advance(Duration::from_secs(1));
        assert!(matches!(desk.use_up(desk.asker, again).await, Err(ApprovalError::Expired)));
        desk.ask(desk.copy).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_of_several_at_once_decides_and_one_uses() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        let third = another(&desk.fixture, "third@example.com").await;
        let asked = tokio::join!(desk.ask(desk.copy), desk.ask(desk.copy), desk.ask(desk.copy));
        let ids: Vec<_> = [asked.0, asked.1, asked.2].into_iter().filter_map(Result::ok).collect();
        assert_eq!(ids.len(), 1);
        let decided = tokio::join!(desk.decide(desk.other, ids[0], true), desk.decide(third, ids[0], true));
        assert!(decided.0.is_ok() != decided.1.is_ok(), "{decided:?}");
        let once = || desk.use_up(desk.asker, ids[0]);
        let used = tokio::join!(once(), once(), once(), once());
        let used = [used.0, used.1, used.2, used.3];
        assert_eq!(used.iter().filter(|used| used.is_ok()).count(), 1, "{used:?}");
    })
    .await;
}

#[tokio::test]
async fn the_database_itself_refuses_that_somebody_decides_for_themselves() {
    on_both(|db| async move {
        let desk = Desk::new(Fixture::new(db).await).await;
        desk.ask(desk.copy).await.unwrap();
        for change in [
            "UPDATE approvals SET state = 'approved', decided_by = asked_by",
            "UPDATE approvals SET state = 'approved'",
        ] {
            let mut tx = desk.fixture.app.db.write().await.unwrap();
            let done = on!(&mut tx, conn => conn.execute(AssertSqlSafe(change.to_owned())).await.map(|_| ()));
            assert!(done.unwrap_err().to_string().to_lowercase().contains("check"), "{change}");
        }
    })
    .await;
}
