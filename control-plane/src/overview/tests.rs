use std::time::Duration;

use askama::Template as _;
use axum::extract::{Path, State};
use shared::protocol::inventory::{ComponentReport, Presence, SlotCheck, SlotReport, SlotState};
use shared::time::Timestamp;

use super::api::get_state;
use super::web::fragment;
use crate::access::Visitor;
use crate::db::testing::on_both;
use crate::inventory::{self, Drift};
use crate::runbook;
use crate::testing::Fixture;
use crate::web::RowState;

fn visitor(now: Timestamp) -> Visitor {
    let (user, session, address) = (None, None, String::new());
    Visitor {
        user,
        session,
        address,
        secure: true,
        pending: 0,
        approvals: 0,
        frozen: false,
        now,
        fresh: true,
        host: String::new(),
        token: None,
    }
}

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
            let visitor = visitor(now);
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

#[tokio::test]
async fn the_sentence_counts_what_differs_and_leads_to_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let says = async |components: &[(&str, Presence)]| {
            let now = fixture.app.now();
            let report = |(key, presence): &(&str, Presence)| ComponentReport {
                component: (*key).to_owned(),
                presence: *presence,
                version: None,
                evidence: Vec::new(),
                observed_at: now,
            };
            let reports: Vec<_> = components.iter().map(report).collect();
            let mut tx = fixture.app.db.write().await.unwrap();
            inventory::apply(&mut tx, device, &reports, &[], now).await.unwrap();
            tx.commit().await.unwrap();
            fixture.clock.advance(Duration::from_secs(12 * 60));
        };
        let shown = async || {
            let record = fixture.get_client(client).await;
            let mut tx = fixture.app.db.read().await.unwrap();
            fragment(&fixture.app, &mut tx, &record, &visitor(fixture.app.now())).await.unwrap()
        };
        let never = shown().await;
        assert_eq!(never.sentence, "The runbook runs; nothing was looked at yet.");
        assert_eq!((never.installed.len(), never.installed[0].presence), (1, "not looked at"));

        says(&[("base", Presence::Present), ("tool", Presence::Absent)]).await;
        let right = shown().await;
        assert_eq!(right.state, RowState::Done);
        assert_eq!(right.sentence, "1 component is as wanted; checked 12 minutes ago.");
        let marks: Vec<_> = right.installed.iter().map(|row| row.drift).collect();
        assert_eq!(marks, [Some(Drift::AsWanted), None], "absent and not wanted is no drift");

        says(&[("base", Presence::Absent), ("tool", Presence::Present)]).await;
        let wrong = shown().await;
        let start = "2 of 2 components differ from the scope";
        assert!(wrong.sentence.starts_with(start) && wrong.state != RowState::Done, "{}", wrong.sentence);
        let html = wrong.render().unwrap();
        for (key, name, word) in [("base", "Base", "missing"), ("tool", "Tool", "not in scope")] {
            let anchor = format!("{device}-{key}");
            assert!(html.contains(&format!("<a href=\"#{anchor}\">{name}</a> {word}")), "{html}");
            assert!(html.contains(&format!("<tr id=\"{anchor}\">")), "{html}");
        }

        let json = get_state(State(fixture.app.clone()), Path(client)).await.unwrap().0;
        let json = serde_json::to_value(json).unwrap();
        let drifts: Vec<_> = json["devices"][0]["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["component"].as_str().unwrap(), one["drift"].as_str().unwrap()))
            .collect();
        assert_eq!(drifts, [("base", "missing"), ("tool", "unwanted")]);
    })
    .await;
}

#[tokio::test]
async fn a_paused_runbook_is_not_said_to_run() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (app, who) = (&fixture.app, Fixture::who);
        let client = fixture.client("Example Client", &["base"]).await;
        let mut devices = Vec::new();
        for uuid in ["A-UUID", "B-UUID"] {
            let (_, id) = fixture.enrolled(client, uuid).await;
            devices.push(fixture.with_runbook(id).await);
        }
        let shown = async || {
            let record = fixture.get_client(client).await;
            let mut tx = app.db.read().await.unwrap();
            fragment(app, &mut tx, &record, &visitor(app.now())).await.unwrap()
        };
        let absent = |app: &crate::app::App| ComponentReport {
            component: "base".into(),
            presence: Presence::Absent,
            version: None,
            evidence: Vec::new(),
            observed_at: app.now(),
        };
        runbook::pause(app, who(), &devices[0], "To look first").await.unwrap();
        let one = shown().await;
        assert_eq!(one.state, RowState::Running, "the other goes on");
        let mut progress: Vec<_> = one.devices.iter().map(|row| row.progress.as_str()).collect();
        progress.sort_unstable();
        assert_eq!(progress, ["0 of 1 done", "paused, 0 of 1 done"]);
        runbook::pause(app, who(), &devices[1], "To look first").await.unwrap();
        let all = shown().await;
        assert_eq!(all.state, RowState::Waiting);
        assert_eq!(all.sentence, "The runbook is paused; nothing was looked at yet.");
        let mut tx = app.db.write().await.unwrap();
        for device in &devices {
            inventory::apply(&mut tx, device.id, &[absent(app)], &[], app.now()).await.unwrap();
        }
        tx.commit().await.unwrap();
        let all = shown().await;
        assert_eq!(all.state, RowState::Waiting);
        assert!(all.sentence.contains("the scope; the runbook is paused; checked"), "{}", all.sentence);
        runbook::resume(app, who(), &devices[0]).await.unwrap();
        let one = shown().await;
        assert_eq!(one.state, RowState::Running);
        assert!(one.sentence.contains("the runbook isn't through"), "{}", one.sentence);
    })
    .await;
}
