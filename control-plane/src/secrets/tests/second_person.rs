//! Copying where a client wants a second person.

use shared::ids::{ApprovalId, UserId};

use super::*;
use crate::access::approvals::tests::another;
use crate::access::approvals::{ApprovalError, ApprovalState};
use crate::clients;
use crate::secrets::{ask_for_copy, copy_approved, decide};

const OTHER: &str = "other@example.com";

/// A stored secret of a client that wants a second person, and who that is.
async fn guarded(fixture: &Fixture) -> (Place, UserId) {
    let (client, place) = stored(fixture).await;
    clients::set_second_person(&fixture.app, Fixture::who(), client, true, "").await.unwrap();
    (place, another(fixture, OTHER).await)
}

async fn asked(fixture: &Fixture, place: Place) -> Result<ApprovalId, CopyError> {
    ask_for_copy(&fixture.app, Fixture::who(), fixture.user, place.client_id, place.slot_id, WHY).await
}

async fn used(fixture: &Fixture, id: ApprovalId) -> Result<Secret<Vec<u8>>, CopyError> {
    copy_approved(&fixture.app, Fixture::who(), fixture.user, id).await
}

fn other() -> audit::Who {
    audit::Who::user(OTHER, "192.0.2.7")
}

#[tokio::test]
async fn a_copy_that_another_approved_is_made_once_and_its_entry_names_both() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (place, second) = guarded(&fixture).await;
        assert!(matches!(copied(&fixture, place, WHY).await, Err(CopyError::SecondPerson)));
        let id = asked(&fixture, place).await.unwrap();
        let early = used(&fixture, id).await;
        assert!(matches!(early, Err(CopyError::Approval(ApprovalError::Waiting))));
        let own = decide(&fixture.app, Fixture::who(), fixture.user, id, true).await;
        assert!(matches!(own, Err(ApprovalError::Own)));
        decide(&fixture.app, other(), second, id, true).await.unwrap();
        assert!(copies_in_the_log(&fixture).await.is_empty(), "none of these was opened");

        let once = || used(&fixture, id);
        let done = tokio::join!(once(), once(), once());
        let mut done: Vec<_> = [done.0, done.1, done.2].into_iter().filter_map(Result::ok).collect();
        assert_eq!(done.len(), 1, "at once, too");
        assert_eq!(done.remove(0).expose(), VALUE.as_bytes());
        assert!(matches!(used(&fixture, id).await, Err(CopyError::Approval(ApprovalError::Used))));
        let entries = copies_in_the_log(&fixture).await;
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!((&entry.who, entry.reason.as_str()), (&Fixture::who(), WHY));
        assert_eq!(entry.detail["approved_by"], OTHER);
        assert_eq!(entry.detail["approval"], id.to_string());
        assert!(matches!(copied(&fixture, place, WHY).await, Err(CopyError::SecondPerson)));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_opened_after_a_no_or_after_ten_minutes() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (place, second) = guarded(&fixture).await;
        let id = asked(&fixture, place).await.unwrap();
        decide(&fixture.app, other(), second, id, false).await.unwrap();
        let declined = used(&fixture, id).await.unwrap_err();
        assert!(declined.to_string().contains("declined this"), "{declined}");
        let id = asked(&fixture, place).await.unwrap();
        decide(&fixture.app, other(), second, id, true).await.unwrap();
        fixture.clock.advance(crate::access::approvals::TTL);
        assert!(matches!(used(&fixture, id).await, Err(CopyError::Approval(ApprovalError::Expired))));
        assert!(copies_in_the_log(&fixture).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_approval_stays_when_the_copy_is_refused_for_another_reason() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, place) = stored(&fixture).await;
        for _ in 0..10 {
            copied(&fixture, place, WHY).await.unwrap();
        }
        clients::set_second_person(&fixture.app, Fixture::who(), place.client_id, true, "").await.unwrap();
        let second = another(&fixture, OTHER).await;
        fixture.clock.advance(std::time::Duration::from_secs(3599));
        let id = asked(&fixture, place).await.unwrap();
        decide(&fixture.app, other(), second, id, true).await.unwrap();
        assert!(matches!(used(&fixture, id).await, Err(CopyError::TooMany)), "ten an hour hold");
        fixture.clock.advance(std::time::Duration::from_secs(1));
        sql(&fixture, "UPDATE audit_head SET seq = seq + 5").await;
        let unwritten = used(&fixture, id).await.unwrap_err();
        assert!(matches!(unwritten, CopyError::Secret(SecretError::Audit(_))), "{unwritten}");
        sql(&fixture, "UPDATE audit_head SET seq = seq - 5").await;
        assert_eq!(used(&fixture, id).await.unwrap().expose(), VALUE.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn only_what_can_be_copied_and_wants_a_second_person_is_asked_for() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        assert!(matches!(asked(&fixture, place).await, Err(CopyError::Alone)));
        clients::set_second_person(&fixture.app, Fixture::who(), client, true, "").await.unwrap();
        let unknown = SlotId::new(&*fixture.clock, &SystemRandom);
        let refused = asked(&fixture, Place { slot_id: unknown, ..place }).await;
        assert!(matches!(refused, Err(CopyError::NotOurs)));
        let twice = (asked(&fixture, place).await, asked(&fixture, place).await);
        assert!(matches!(twice, (Ok(_), Err(CopyError::Approval(ApprovalError::Asked)))));
    })
    .await;
}

#[tokio::test]
async fn a_consultant_alone_never_switches_it_off() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let (place, second) = guarded(&fixture).await;
        let client = place.client_id;
        let is_on = async || clients::second_person(&mut app.db.read().await.unwrap(), client).await.unwrap();
        clients::ask_to_switch_off(app, Fixture::who(), fixture.user, client, WHY).await.unwrap();
        let waiting = async || {
            let mut tx = app.db.read().await.unwrap();
            crate::access::approvals::to_decide(&mut tx, second, app.now()).await.unwrap().remove(0)
        };
        let approval = waiting().await;
        assert!(decide(app, Fixture::who(), fixture.user, approval.id, true).await.is_err());
        assert!(is_on().await);
        decide(app, other(), second, approval.id, false).await.unwrap();
        assert!(is_on().await, "a no changes nothing");
        fixture.clock.advance(std::time::Duration::from_secs(1));
        clients::ask_to_switch_off(app, Fixture::who(), fixture.user, client, WHY).await.unwrap();
        let approval = waiting().await;
        decide(app, other(), second, approval.id, true).await.unwrap();
        assert!(!is_on().await);
        let none = used(&fixture, approval.id).await;
        assert!(matches!(none, Err(CopyError::Approval(ApprovalError::Used))), "it opens nothing");
        let entry = audit::page(&mut app.db.read().await.unwrap(), None, 1).await.unwrap().remove(0).entry;
        assert_eq!((entry.action, entry.who.id.as_str()), (Action::SecondPersonChanged, OTHER));
        assert_eq!(entry.detail["asked_by"], approval.asker);
        assert_eq!(entry.detail["second_person"], "off");
        copied(&fixture, place, WHY).await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let day_ago = app.now().before(std::time::Duration::from_secs(86400));
        let own = crate::access::approvals::asked(&mut tx, fixture.user, day_ago, app.now()).await.unwrap();
        assert_eq!(own[0].state, ApprovalState::Used);
    })
    .await;
}
