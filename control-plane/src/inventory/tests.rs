use std::time::Duration;

use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotReport, SlotState};

use super::{apply, history, of_device, slots_of_client};
use crate::db::testing::on_both;
use crate::testing::Fixture;

#[tokio::test]
async fn the_latest_look_counts_and_changes_are_kept() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let start = fixture.app.now();
        let at = |minutes: u64| start.after(Duration::from_secs(minutes * 60));
        let component = |presence, version: Option<&str>, minutes| ComponentReport {
            component: "base".into(),
            presence,
            version: version.map(ToOwned::to_owned),
            evidence: vec![Evidence { probe: "command".into(), saw: "exit code 0".into() }],
            observed_at: at(minutes),
        };
        let slot = |state, minutes| SlotReport {
            component: "base".into(),
            slot: "KEY".into(),
            state,
            version: Some(1),
            observed_at: at(minutes),
        };
        let looks = [
            component(Presence::Absent, None, 0),
            component(Presence::Present, Some("1.0"), 1),
            component(Presence::Present, Some("1.0"), 5),
            component(Presence::Absent, None, 2),
        ];
        for look in looks {
            let mut tx = fixture.app.db.write().await.unwrap();
            let slots = [slot(SlotState::Present, 5), slot(SlotState::Empty, 3)];
            apply(&mut tx, device, &[look], &slots, at(60)).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut tx = fixture.app.db.write().await.unwrap();
        let ahead = component(Presence::Present, Some("1.0"), 600);
        apply(&mut tx, device, &[ahead], &[], at(5)).await.unwrap();
        let now = of_device(&mut tx, device).await.unwrap().remove(0);
        assert_eq!((now.presence, now.since, now.observed_at), (Presence::Present, at(1), at(5)));
        assert_eq!(now.evidence.len(), 1);
        let changes = history(&mut tx, device, "base").await.unwrap();
        assert_eq!(
            changes,
            [(Presence::Absent, None, at(0)), (Presence::Present, Some("1.0".to_owned()), at(1))],
            "a late report of an older look changes nothing"
        );
        assert_eq!(slots_of_client(&mut tx, client).await.unwrap()[0].state, SlotState::Present);
    })
    .await;
}
