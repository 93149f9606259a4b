use std::time::Duration;

use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotCheck, SlotReport, SlotState};

use super::{apply, findings, findings_after, history, not_absent, of_device, slots_of_client};
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
            check: None,
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

#[tokio::test]
async fn what_may_be_there_is_everything_that_was_not_seen_absent() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let now = fixture.app.now();
        let looks = [
            ("gone", Presence::Absent),
            ("there", Presence::Present),
            ("old", Presence::Outdated),
            ("unclear", Presence::Unknown),
        ];
        let looks = looks.map(|(key, presence)| ComponentReport {
            component: key.into(),
            presence,
            version: None,
            evidence: Vec::new(),
            observed_at: now,
        });
        let mut tx = fixture.app.db.write().await.unwrap();
        apply(&mut tx, device, &looks, &[], now).await.unwrap();
        assert_eq!(not_absent(&mut tx, device).await.unwrap(), ["old", "there", "unclear"]);
    })
    .await;
}

mod drift {
    use shared::catalog::Platform;
    use shared::ids::DeviceId;
    use shared::protocol::inventory::{Presence, SlotState};
    use shared::random::SystemRandom;
    use shared::time::{SystemClock, Timestamp};

    use crate::catalog::{Catalog, Tiers};
    use crate::clients::Scope;
    use crate::inventory::drift::{Drift, StoredVersions, Tally, Wanted, judge};
    use crate::inventory::{InstalledSlot, Look};
    use crate::testing::MANIFESTS;

    fn catalog() -> Catalog {
        let manifests =
            MANIFESTS.iter().map(|(key, text)| ((*key).to_owned(), toml::from_str(text).unwrap())).collect();
        Catalog { digest: String::new(), serial: 1, manifests, tiers: Tiers::default() }
    }

    fn look(component: &str, presence: Presence, at: i64) -> Look {
        Look {
            device_id: DeviceId::new(&SystemClock, &SystemRandom),
            component_key: component.to_owned(),
            presence,
            version: None,
            observed_at: Timestamp::from_micros(at),
        }
    }

    fn slot(key: &str, state: SlotState, version: Option<i64>) -> InstalledSlot {
        InstalledSlot {
            device_id: DeviceId::new(&SystemClock, &SystemRandom),
            component_key: "tool".to_owned(),
            slot_key: key.to_owned(),
            state,
            version,
            observed_at: Timestamp::from_micros(1),
            check: None,
        }
    }

    fn of(scope: &[&str], looks: &[Look], slots: &[InstalledSlot], stored: i64) -> Vec<(String, Drift)> {
        let scope =
            Scope { components: scope.iter().map(|key| (*key).to_owned()).collect(), ..Scope::default() };
        let stored = StoredVersions::from([(("tool".to_owned(), "OUR_KEY".to_owned()), stored)]);
        let catalog = catalog();
        let wanted = Wanted {
            scope: &scope,
            catalog: Some(&catalog),
            platform: Some(Platform::Linux),
            stored: &stored,
        };
        judge(wanted, looks, slots).into_iter().map(|found| (found.component, found.drift)).collect()
    }

    #[test]
    fn a_component_is_judged_by_scope_look_and_required_slots() {
        use Presence::{Absent, Outdated, Present, Unknown};
        for (presence, drift) in [
            (Present, Drift::AsWanted),
            (Absent, Drift::Missing),
            (Outdated, Drift::Outdated),
            (Unknown, Drift::Unknown),
        ] {
            assert_eq!(of(&["base"], &[look("base", presence, 1)], &[], 1), [("base".into(), drift)]);
        }
        assert_eq!(of(&["base"], &[], &[], 1), [("base".into(), Drift::NeverReported)]);
        assert_eq!(of(&[], &[look("base", Present, 1)], &[], 1), [("base".into(), Drift::Unwanted)]);
        assert_eq!(of(&[], &[look("base", Absent, 1)], &[], 1), []);
    }

    #[test]
    fn a_required_slot_that_is_not_right_is_drift() {
        let theirs = |state| slot("THEIR_TOKEN", state, None);
        let ours = |state, version| slot("OUR_KEY", state, Some(version));
        let there = [look("tool", Presence::Present, 1)];
        use SlotState::{Empty, Present, Rejected, Verified};
        for (slots, drift) in [
            (vec![ours(Verified, 2), theirs(Present)], Drift::AsWanted),
            (vec![ours(Present, 1), theirs(Present)], Drift::SlotOutdated),
            (vec![ours(Present, 2), theirs(Empty)], Drift::SlotEmpty),
            (vec![ours(Present, 2)], Drift::SlotEmpty),
            (vec![ours(Rejected, 2), theirs(Empty)], Drift::SlotRejected),
        ] {
            assert_eq!(of(&["tool"], &there, &slots, 2), [("tool".into(), drift)], "{slots:?}");
        }
    }

    #[test]
    fn a_client_is_counted_by_components_and_the_worst_device_of_each() {
        let scope = Scope { components: ["base".to_owned()].into(), ..Scope::default() };
        let none = StoredVersions::new();
        let wanted = Wanted { scope: &scope, catalog: None, platform: None, stored: &none };
        let good = judge(wanted, &[look("base", Presence::Present, 7)], &[]);
        let bad = judge(wanted, &[look("base", Presence::Absent, 5), look("old", Presence::Present, 1)], &[]);
        let tally = Tally::of(good.iter().chain(&bad));
        let oldest = Some(Timestamp::from_micros(5));
        assert_eq!(tally, Tally { components: 2, differ: 2, open: 0, oldest });
    }
}

#[tokio::test]
async fn what_the_provider_said_is_kept_and_a_refusal_is_news_once() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let start = fixture.app.now();
        let at = |minutes: u64| start.after(Duration::from_secs(minutes * 60));
        let slot = |state, version, minutes, said: Option<&str>| SlotReport {
            component: "base".into(),
            slot: "KEY".into(),
            state,
            version: Some(version),
            observed_at: at(minutes),
            check: said.map(|said| SlotCheck {
                said: said.into(),
                recorded: [("team_id".to_owned(), "T0123456".to_owned())].into(),
                at: at(minutes + 600),
            }),
        };
        let table = [
            (slot(SlotState::Present, 1, 0, None), 0, None),
            (
                slot(SlotState::Rejected, 1, 1, Some("it is refused")),
                1,
                Some("it is refused (team_id T0123456)"),
            ),
            (
                slot(SlotState::Rejected, 1, 2, Some("it is refused")),
                0,
                Some("it is refused (team_id T0123456)"),
            ),
            (slot(SlotState::Verified, 1, 1, Some("late")), 0, Some("it is refused (team_id T0123456)")),
            (
                slot(SlotState::Rejected, 2, 3, Some("this one, too")),
                1,
                Some("this one, too (team_id T0123456)"),
            ),
            (slot(SlotState::Verified, 3, 4, Some("it works")), 0, Some("it works (team_id T0123456)")),
            (slot(SlotState::Empty, 3, 5, None), 0, None),
        ];
        for (report, news, evidence) in table {
            let mut tx = fixture.app.db.write().await.unwrap();
            let refused = apply(&mut tx, device, &[], std::slice::from_ref(&report), at(60)).await.unwrap();
            assert_eq!(refused.len(), news, "{report:?}");
            tx.commit().await.unwrap();
            let mut tx = fixture.app.db.read().await.unwrap();
            let kept = super::slot(&mut tx, device, "base", "KEY").await.unwrap().unwrap();
            assert_eq!(kept.evidence().as_deref(), evidence, "{report:?}");
            assert!(kept.check.is_none_or(|check| check.at == at(60)), "a clock that runs ahead");
            assert_eq!(slots_of_client(&mut tx, client).await.unwrap()[0].evidence().as_deref(), evidence);
        }
        let mut tx = fixture.app.db.read().await.unwrap();
        assert!(super::slot(&mut tx, device, "base", "OTHER").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_component_that_changes_all_the_time_keeps_its_latest_changes() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let start = fixture.app.now();
        let mut tx = fixture.app.db.write().await.unwrap();
        let looks: Vec<ComponentReport> = (0..1100)
            .map(|number| ComponentReport {
                component: "base".into(),
                presence: Presence::Present,
                version: Some(format!("1.{number}")),
                evidence: Vec::new(),
                observed_at: start.after(Duration::from_secs(number)),
            })
            .collect();
        let now = start.after(Duration::from_secs(3600));
        apply(&mut tx, device, &looks, &[], now).await.unwrap();
        let kept = history(&mut tx, device, "base").await.unwrap();
        assert_eq!((kept.len(), kept[0].1.as_deref()), (1000, Some("1.100")));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_always_names_the_same_moment_makes_no_rows_without_end() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let now = fixture.app.now();
        let mut tx = fixture.app.db.write().await.unwrap();
        for number in 0..50 {
            let report = ComponentReport {
                component: "base".into(),
                presence: Presence::Present,
                version: Some(format!("1.{number}")),
                evidence: Vec::new(),
                observed_at: now,
            };
            apply(&mut tx, device, &[report], &[], now).await.unwrap();
        }
        let kept = history(&mut tx, device, "base").await.unwrap();
        assert_eq!(kept, [(Presence::Present, Some("1.49".to_owned()), now)], "the last word counts");
        assert_eq!(of_device(&mut tx, device).await.unwrap()[0].version.as_deref(), Some("1.49"));
    })
    .await;
}

#[tokio::test]
async fn clients_come_in_pages_each_of_them_once() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let mut made = Vec::new();
        for number in 0..5 {
            made.push(fixture.client(&format!("Client {}", 9 - number), &["base", "tool"]).await);
            fixture.clock.advance(Duration::from_millis(2));
        }
        fixture.enrolled(made[3], "A-UUID").await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let whole = findings(&mut tx, None, None).await.unwrap();
        let (mut after, mut seen, mut lengths) = (None, Vec::new(), Vec::new());
        for _ in 0..10 {
            let (found, next) = findings_after(&mut tx, None, after, 2).await.unwrap();
            lengths.push(found.len());
            seen.extend(found);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(lengths, [2, 2, 1]);
        seen.sort_by_cached_key(|client| client.name.clone());
        let said = |all: &[crate::inventory::ClientFindings]| -> Vec<_> {
            all.iter().map(|one| (one.id, one.all().cloned().collect::<Vec<_>>())).collect()
        };
        assert_eq!(said(&seen), said(&whole));
        assert_eq!(whole.iter().map(|one| one.devices.len()).sum::<usize>(), 5);
        let (rest, next) = findings_after(&mut tx, None, made.last().copied(), 2).await.unwrap();
        assert!(rest.is_empty() && next.is_none());
    })
    .await;
}
