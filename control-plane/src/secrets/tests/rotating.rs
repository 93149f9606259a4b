use std::time::Duration;

use data_encoding::HEXLOWER;
use shared::crypto::sha256;
use shared::ids::DeviceId;
use shared::protocol::link::HeldSecret;
use shared::secret::Secret;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{VALUE, apply, receipt, sent, sql, stored, value};
use crate::audit::{self, Action, Entry};
use crate::db::Db;
use crate::db::testing::{on_both, owner_of};
use crate::on;
use crate::secrets::{
    DeliveryState, Place, RotateError, Rotated, SecretError, Spread, apply_refusal, first, for_device,
    note_held, open, put_after, rotate, seal, spread,
};
use crate::testing::Fixture;

const NEW: &str = "ours-canary-new-77";
const WHY: &str = "A laptop was stolen";

async fn rotated(fixture: &Fixture, place: Place, value: &str, reason: &str) -> Result<Rotated, RotateError> {
    let value = Secret::new(value.to_owned());
    rotate(&fixture.app, Fixture::who(), place.client_id, place.slot_id, &value, reason).await
}

async fn entries(fixture: &Fixture, action: Action) -> Vec<Entry> {
    let page = audit::page(&mut fixture.app.db.read().await.unwrap(), None, 100).await.unwrap();
    page.into_iter().map(|stored| stored.entry).filter(|entry| entry.action == action).collect()
}

async fn one_spread(fixture: &Fixture, place: Place, device: DeviceId) -> Spread {
    let found = spread(&mut fixture.app.db.read().await.unwrap(), place.client_id).await.unwrap();
    found.into_iter().find(|one| one.device_id == device && one.slot_id == place.slot_id).unwrap()
}

async fn says(fixture: &Fixture, device: DeviceId, version: Option<u64>) {
    let held =
        version.map(|version| HeldSecret { component: "tool".into(), slot: "OUR_KEY".into(), version });
    let mut tx = fixture.app.db.write().await.unwrap();
    note_held(&mut tx, device, held.as_slice(), fixture.app.now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_new_value_gets_a_version_a_reason_and_a_delivery_for_each_device() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        let mut devices = Vec::new();
        for uuid in ["A-UUID", "B-UUID"] {
            devices.push(fixture.enrolled(client, uuid).await.1);
        }
        let (_, gone) = fixture.enrolled(client, "C-UUID").await;
        crate::enrollment::revoke(&fixture.app, Fixture::who(), gone, "sold").await.unwrap();
        let done = rotated(&fixture, place, NEW, WHY).await.unwrap();
        assert_eq!(done, Rotated { version: 2, devices: 2 });
        let mut tx = fixture.app.db.read().await.unwrap();
        for device in devices {
            let planned = for_device(&mut tx, device).await.unwrap();
            assert_eq!((planned.len(), planned[0].version, planned[0].state), (1, 2, DeliveryState::Pending));
        }
        assert!(for_device(&mut tx, gone).await.unwrap().iter().all(|one| one.version == 1));
        let place = Place { version: 2, ..place };
        assert_eq!(open(&fixture.app, &mut tx, place).await.unwrap().expose(), NEW.as_bytes());
        drop(tx);

        let compared = entries(&fixture, Action::SecretDecrypted).await;
        assert_eq!(compared.len(), 1, "the stored value was opened once, to be compared");
        assert_eq!(compared[0].who, Fixture::who());
        let kept = &entries(&fixture, Action::SecretStored).await[0];
        assert_eq!((kept.reason.as_str(), kept.detail["version"].as_str()), (WHY, "2"));
        for entry in entries(&fixture, Action::SecretStored).await.iter().chain(&compared) {
            assert!(!format!("{entry:?}").contains("canary"), "{entry:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_same_value_an_empty_slot_and_a_missing_reason_are_refused_and_change_nothing() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, place) = stored(&fixture).await;
        assert!(matches!(rotated(&fixture, place, VALUE, WHY).await, Err(RotateError::Same)));
        for reason in ["", " ", "for sk-ant-api03-abcdefghijklmnop"] {
            let refused = rotated(&fixture, place, NEW, reason).await.unwrap_err();
            assert!(matches!(refused, RotateError::Refused(_)), "{refused}");
        }
        for (bad, expected) in [("", "empty"), ("sk-canary", "form"), (&"x".repeat(16 * 1024 + 1), "longer")]
        {
            let refused = rotated(&fixture, place, bad, WHY).await.unwrap_err().to_string();
            assert!(refused.contains(expected) && !refused.contains("canary"), "{refused}");
        }
        let other = fixture.client("Other Client", &["base", "tool"]).await;
        let empty = rotated(&fixture, Place { client_id: other, ..place }, NEW, WHY).await;
        assert!(matches!(empty, Err(RotateError::Empty)));
        let without = fixture.client("Without", &["base"]).await;
        let none = rotated(&fixture, Place { client_id: without, ..place }, NEW, WHY).await;
        assert!(matches!(none, Err(RotateError::NotOurs)));
        assert_eq!(entries(&fixture, Action::SecretStored).await.len(), 1);
        assert_eq!(entries(&fixture, Action::SecretDecrypted).await.len(), 1, "the one that was compared");
    })
    .await;
}

#[tokio::test]
async fn what_does_not_open_any_more_is_replaced() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        let (_, place) = stored(&fixture).await;
        let owner = owner_of(&db).await;
        let hex = |bytes: &str| match &db {
            Db::Sqlite(_) => format!("X'{bytes}'"),
            Db::Postgres(_) => format!("'\\x{bytes}'::bytea"),
        };
        // Another row's bytes, no envelope, one of a root key that is gone, and one that was changed. The log knows all but
        // the first.
        let gone = format!("4253453100000063{}", "00".repeat(40));
        let changed = format!("4253453100000001{}", "00".repeat(40));
        let cases = [("00", false), ("00", true), (gone.as_str(), true), (changed.as_str(), true)];
        for (version, (bytes, logged)) in (2..).zip(cases) {
            let mut tx = owner.write().await.unwrap();
            let text = format!("UPDATE client_credentials SET encrypted_value = {}", hex(bytes));
            on!(&mut tx, conn => conn.execute(AssertSqlSafe(text)).await.map(|_| ())).unwrap();
            tx.commit().await.unwrap();
            if logged {
                let sha256 = sha256(&HEXLOWER.decode(bytes.as_bytes()).unwrap());
                let entry = Entry::new(fixture.app.now(), Fixture::who(), Action::SecretRekeyed)
                    .client(place.client_id)
                    .slot(place.slot_id)
                    .detail("envelope_sha256", HEXLOWER.encode(&sha256));
                let mut tx = fixture.app.db.write().await.unwrap();
                audit::append(&mut tx, &entry).await.unwrap();
                tx.commit().await.unwrap();
            }
            let old = Place { version: version - 1, ..place };
            let refused =
                open(&fixture.app, &mut fixture.app.db.read().await.unwrap(), old).await.unwrap_err();
            assert_eq!(matches!(refused, SecretError::NotLatest(_)), !logged, "{refused}");
            let value = format!("{NEW}-{version}");
            assert_eq!(rotated(&fixture, place, &value, WHY).await.unwrap().version, version);
            let place = Place { version, ..place };
            let mut tx = fixture.app.db.read().await.unwrap();
            assert_eq!(open(&fixture.app, &mut tx, place).await.unwrap().expose(), value.as_bytes());
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_compared_when_the_audit_log_cannot_be_written() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, place) = stored(&fixture).await;
        sql(&fixture, "UPDATE audit_head SET seq = seq + 5").await;
        for value in [NEW, VALUE] {
            let refused = rotated(&fixture, place, value, WHY).await;
            assert!(matches!(refused, Err(RotateError::Secret(SecretError::Audit(_)))), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_somebody_else_stored_meanwhile_is_not_overwritten() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        rotated(&fixture, place, NEW, WHY).await.unwrap();
        let (client, slot) = (fixture.get_client(client).await, fixture.our_slot().await);
        let late = put_after(&fixture.app, Fixture::who(), &client, &slot, &value(), Some(1), WHY).await;
        assert!(matches!(late, Err(SecretError::Raced)));
        let first = first(&fixture.app, Fixture::who(), &client, &slot, &value()).await;
        assert!(matches!(first, Err(SecretError::Raced)));
        assert_eq!(entries(&fixture, Action::SecretStored).await.len(), 2);
        rotated(&fixture, place, "ours-third", WHY).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn after_a_restore_the_next_version_is_above_what_devices_hold() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let (_, other) = fixture.enrolled(client, "B-UUID").await;
        let (_, elsewhere) =
            fixture.enrolled(fixture.client("Other", &["base", "tool"]).await, "C-UUID").await;
        says(&fixture, device, Some(7)).await;
        says(&fixture, other, Some(3)).await;
        says(&fixture, elsewhere, Some(50)).await;
        assert_eq!(rotated(&fixture, place, NEW, WHY).await.unwrap().version, 8);
        assert_eq!(rotated(&fixture, place, "ours-third", WHY).await.unwrap().version, 9);
        for hostile in [u64::MAX, 1 << 40, 9 + (1 << 20) + 1] {
            says(&fixture, device, Some(hostile)).await;
        }
        assert_eq!(rotated(&fixture, place, "ours-fourth", WHY).await.unwrap().version, 10, "not believed");
        says(&fixture, device, Some(20)).await;
        let ahead = one_spread(&fixture, place, device).await;
        assert_eq!((ahead.version, ahead.ahead(), ahead.in_place()), (10, Some(20), None));
        says(&fixture, device, None).await;
        assert_eq!(one_spread(&fixture, place, device).await.held, None, "it lost all");
        assert_eq!(rotated(&fixture, place, "ours-fifth", WHY).await.unwrap().version, 11);
    })
    .await;
}

#[tokio::test]
async fn a_device_that_lies_takes_no_belief_from_honest_ones() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        let (_, rogue) = fixture.enrolled(client, "A-UUID").await;
        let (_, honest) = fixture.enrolled(client, "B-UUID").await;
        let mut own = place.version;
        for _ in 0..3 {
            says(&fixture, rogue, Some(own + (1 << 20))).await;
            let next = rotated(&fixture, place, &format!("ours-after-{own}"), WHY).await.unwrap().version;
            says(&fixture, honest, Some(next)).await;
            let spread = one_spread(&fixture, place, honest).await;
            assert_eq!(spread.held, i64::try_from(next).ok(), "{spread:?}");
            own = next;
        }
    })
    .await;
}

#[tokio::test]
async fn the_older_version_stays_in_place_until_the_receipt_or_a_refusal() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (device, id, client, frame) = sent(&fixture).await;
        let slot_id = fixture.our_slot().await.id;
        let place = Place { client_id: client, slot_id, version: 1 };
        assert_eq!(one_spread(&fixture, place, id).await.held, None);
        apply(&fixture, id, &receipt(&fixture, &device, id, &frame)).await.unwrap();
        assert!(one_spread(&fixture, place, id).await.arrived());
        fixture.clock.advance(Duration::from_secs(1));
        rotated(&fixture, place, NEW, WHY).await.unwrap();
        let waiting = one_spread(&fixture, place, id).await;
        assert_eq!(
            (waiting.version, waiting.arrived(), waiting.in_place()),
            (2, false, Some(1)),
            "{waiting:?}"
        );
        let planned = for_device(&mut fixture.app.db.read().await.unwrap(), id).await.unwrap().remove(0);
        let frame = seal(&fixture.app, &planned, "digest").await.unwrap().unwrap();
        let mut tx = fixture.app.db.write().await.unwrap();
        let now = fixture.app.now();
        apply_refusal(&mut tx, id, frame.delivery_id, "the store is full", "192.0.2.17", now).await.unwrap();
        tx.commit().await.unwrap();
        let refused = one_spread(&fixture, place, id).await;
        assert_eq!((refused.state, refused.in_place()), (DeliveryState::Refused, Some(1)));
        assert_eq!(refused.reason.as_deref(), Some("the store is full"));
        apply(&fixture, id, &receipt(&fixture, &device, id, &frame)).await.unwrap();
        let there = one_spread(&fixture, place, id).await;
        assert_eq!((there.arrived(), there.held, there.in_place()), (true, Some(2), None));
    })
    .await;
}
