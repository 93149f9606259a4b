use shared::protocol::inventory::{SlotCheck, SlotReport, SlotState};

use super::web::fragment;
use crate::access::Visitor;
use crate::db::testing::on_both;
use crate::inventory;
use crate::testing::Fixture;
use crate::web::RowState;

#[tokio::test]
async fn a_refused_credential_needs_somebody_and_says_on_which_device_it_is() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["tool"]).await;
        let (_, first) = fixture.enrolled(client, "A-UUID").await;
        let (_, second) = fixture.enrolled(client, "B-UUID").await;
        let now = fixture.app.now();
        let report = |state, said: &str| SlotReport {
            component: "tool".into(),
            slot: "THEIR_TOKEN".into(),
            state,
            version: None,
            observed_at: now,
            check: Some(SlotCheck { said: said.into(), recorded: [].into(), at: now }),
        };
        let shown = async || {
            let (user, session, address) = (None, None, String::new());
            let visitor = Visitor {
                user,
                session,
                address,
                secure: true,
                pending: 0,
                now,
                fresh: true,
                host: String::new(),
                token: None,
            };
            let record = fixture.get_client(client).await;
            let mut tx = fixture.app.db.read().await.unwrap();
            let mut fragment = fragment(&fixture.app, &mut tx, &record, &visitor).await.unwrap();
            let place = fragment.slots.iter().position(|slot| slot.name == "Their token").unwrap();
            fragment.slots.remove(place)
        };
        let says = async |device, slot| {
            let mut tx = fixture.app.db.write().await.unwrap();
            inventory::apply(&mut tx, device, &[], &[slot], now).await.unwrap();
            tx.commit().await.unwrap();
        };
        assert_eq!(shown().await.state_word, "empty");
        says(first, report(SlotState::Verified, "it works")).await;
        says(second, report(SlotState::Rejected, "it is refused")).await;
        let slot = shown().await;
        assert_eq!((slot.state, slot.state_word.as_str()), (RowState::NeedsYou, "rejected"));
        assert!(
            slot.sentence.contains(": it works.") && slot.sentence.contains(": it is refused."),
            "{}",
            slot.sentence
        );
        says(second, report(SlotState::Verified, "it works, too")).await;
        let slot = shown().await;
        assert_eq!((slot.state, slot.state_word.as_str()), (RowState::Done, "verified"));
    })
    .await;
}
