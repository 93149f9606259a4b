use rcgen::SigningKey as _;
use shared::crypto::{DeliveryContext, open_delivery};
use shared::ids::{ClientId, DeviceId};
use shared::protocol::link::{Deliver, HeldSecret, Receipt};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::Clock as _;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{
    DeliveryState, EnvelopeError, Place, ReceiptError, SecretError, apply_receipt, apply_refusal, envelope,
    for_device, open, plan, put, reconcile, seal, store,
};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::on;
use crate::testing::{Fixture, TestDevice};

const VALUE: &str = "ours-canary-5d1e";

fn value() -> Secret<String> {
    Secret::new(VALUE.to_owned())
}

async fn stored(fixture: &Fixture) -> (ClientId, Place) {
    let client = fixture.client("Example Client", &["base", "tool"]).await;
    let slot = fixture.our_slot().await;
    let version =
        put(&fixture.app, Fixture::who(), &fixture.get_client(client).await, &slot, &value()).await.unwrap();
    (client, Place { client_id: client, slot_id: slot.id, version })
}

async fn sql(fixture: &Fixture, text: &str) {
    let mut tx = fixture.app.db.write().await.unwrap();
    on!(&mut tx, conn => conn.execute(AssertSqlSafe(text.to_owned())).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_value_is_stored_as_an_envelope_and_opens_in_its_place_only() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let sealed = store::envelope(&mut tx, place).await.unwrap().unwrap();
        assert!(sealed.starts_with(b"BSE1\0\0\0\x01"));
        assert_eq!(sealed.len(), 4 + 4 + 12 + VALUE.len() + 16);
        assert!(!sealed.windows(6).any(|window| VALUE.as_bytes().starts_with(window)));
        assert_eq!(open(&fixture.app, &mut tx, place).await.unwrap().expose(), VALUE.as_bytes());
        drop(tx);

        let salt = fixture.get_client(client).await.salt.unwrap();
        let key = fixture.app.root.client_key(&salt, client);
        let other_client = fixture.client("Other Client", &["tool"]).await;
        let other_slot = shared::ids::SlotId::new(&*fixture.clock, &SystemRandom);
        let places = [
            Place { client_id: other_client, ..place },
            Place { slot_id: other_slot, ..place },
            Place { version: 2, ..place },
        ];
        for moved in places {
            assert_eq!(envelope::open(&key, moved, &sealed).unwrap_err(), EnvelopeError::Closed);
        }
        let other_salt = fixture.get_client(other_client).await.salt.unwrap();
        let other_key = fixture.app.root.client_key(&other_salt, other_client);
        assert_eq!(envelope::open(&other_key, place, &sealed).unwrap_err(), EnvelopeError::Closed);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(envelope::open(&key, place, &changed).is_err(), "byte {index}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_older_envelope_put_back_is_not_opened() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        let sealed = {
            let mut tx = fixture.app.db.read().await.unwrap();
            store::envelope(&mut tx, place).await.unwrap().unwrap()
        };
        let slot = fixture.our_slot().await;
        let newer = Secret::new("ours-second-value".to_owned());
        let version = put(&fixture.app, Fixture::who(), &fixture.get_client(client).await, &slot, &newer)
            .await
            .unwrap();
        assert_eq!(version, 2);
        let mut tx = fixture.app.db.write().await.unwrap();
        assert_eq!(
            store::upsert(&mut tx, place, &sealed, fixture.app.now()).await.unwrap(),
            0,
            "no version twice"
        );
        let back = "UPDATE client_credentials SET version = 1, encrypted_value = ";
        let hex = shared::crypto::hex(&sealed);
        let value = match &tx {
            crate::db::Tx::Sqlite(_) => format!("x'{hex}'"),
            crate::db::Tx::Postgres(_) => format!("'\\x{hex}'"),
        };
        on!(&mut tx, conn => conn.execute(AssertSqlSafe(format!("{back}{value}"))).await.map(|_| ()))
            .unwrap();
        let refused = open(&fixture.app, &mut tx, place).await;
        assert!(matches!(refused, Err(SecretError::NotLatest(_))));
    })
    .await;
}

#[tokio::test]
async fn values_are_checked_without_being_repeated() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let catalog = crate::catalog::current(&mut tx).await.unwrap().unwrap();
        let manifest = &catalog.manifests["tool"];
        let long = format!("ours-{}", "a".repeat(16 * 1024));
        for bad in ["", "sk-somebody-elses", "ours-x\n", &long] {
            let refused = super::check_value(manifest, "OUR_KEY", &Secret::new(bad.to_owned())).unwrap_err();
            assert!(bad.is_empty() || !refused.to_string().contains(bad), "{refused}");
        }
        assert!(super::check_value(manifest, "OUR_KEY", &value()).is_ok());
        assert_eq!(format!("{:?}", value()), "Secret(…)");
    })
    .await;
}

/// A device with its delivery sealed and sent.
async fn sent(fixture: &Fixture) -> (TestDevice, DeviceId, ClientId, Deliver) {
    let (client, _) = stored(fixture).await;
    let (device, device_id) = fixture.enrolled(client, "A-UUID").await;
    let mut tx = fixture.app.db.write().await.unwrap();
    plan(&fixture.app, &mut tx, device_id).await.unwrap();
    plan(&fixture.app, &mut tx, device_id).await.unwrap();
    let deliveries = for_device(&mut tx, device_id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(deliveries.len(), 1, "planning twice makes one delivery");
    let frame = seal(&fixture.app, &deliveries[0], "digest").await.unwrap().unwrap();
    (device, device_id, client, frame)
}

fn receipt(fixture: &Fixture, device: &TestDevice, device_id: DeviceId, frame: &Deliver) -> Receipt {
    let mut receipt = Receipt {
        delivery_id: frame.delivery_id,
        component: frame.component.clone(),
        slot: frame.slot.clone(),
        version: frame.version,
        time: fixture.clock.now(),
        signature: Vec::new(),
    };
    receipt.signature = device.tls.sign(&receipt.signed_bytes(fixture.app.board_id, device_id)).unwrap();
    receipt
}

async fn apply(fixture: &Fixture, device_id: DeviceId, receipt: &Receipt) -> Result<(), ReceiptError> {
    let mut tx = fixture.app.db.write().await.unwrap();
    let board = fixture.app.board_id;
    let entry = apply_receipt(&mut tx, board, device_id, receipt, "192.0.2.17", fixture.app.now()).await?;
    if let Some(entry) = entry {
        audit::append(&mut tx, &entry).await.unwrap();
    }
    tx.commit().await.unwrap();
    Ok(())
}

#[tokio::test]
async fn a_delivery_opens_on_its_device_and_its_receipt_points_at_the_decrypt() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (device, device_id, client, frame) = sent(&fixture).await;
        let context = DeliveryContext {
            client_id: client,
            device_id,
            component_key: "tool",
            slot_key: "OUR_KEY",
            tag: shared::catalog::Tag::OurManaged,
            version: 1,
            delivery_id: frame.delivery_id,
            expires: frame.expires,
        };
        let opened = open_delivery(&device.sealing, &context, &frame.sealed).unwrap();
        assert_eq!(opened.expose(), VALUE.as_bytes());
        assert!(
            open_delivery(&TestDevice::new("B", fixture.app.now()).sealing, &context, &frame.sealed).is_err()
        );

        let good = receipt(&fixture, &device, device_id, &frame);
        apply(&fixture, device_id, &good).await.unwrap();
        apply(&fixture, device_id, &good).await.unwrap();
        let mut tx = fixture.app.db.read().await.unwrap();
        assert_eq!(for_device(&mut tx, device_id).await.unwrap()[0].state, DeliveryState::Receipted);
        let entries = audit::page(&mut tx, None, 100).await.unwrap();
        let of = |action| entries.iter().filter(|stored| stored.entry.action == action).collect::<Vec<_>>();
        let (decrypts, receipts) = (of(Action::SecretDecrypted), of(Action::DeliveryReceipt));
        assert_eq!((decrypts.len(), receipts.len()), (1, 1), "the same receipt again adds nothing");
        assert_eq!(receipts[0].entry.detail["decrypt"], decrypts[0].seq.to_string());
    })
    .await;
}

#[tokio::test]
async fn receipts_that_do_not_fit_are_refused() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (device, device_id, _, frame) = sent(&fixture).await;
        let good = receipt(&fixture, &device, device_id, &frame);
        let other = TestDevice::new("B-UUID", fixture.app.now());
        let forged = receipt(&fixture, &other, device_id, &frame);
        assert!(matches!(apply(&fixture, device_id, &forged).await, Err(ReceiptError::Signature)));
        let later = Receipt { version: 2, ..good.clone() };
        assert!(matches!(apply(&fixture, device_id, &later).await, Err(ReceiptError::Mismatch)));
        let moved =
            Receipt { time: fixture.clock.now().after(std::time::Duration::from_secs(1)), ..good.clone() };
        assert!(matches!(apply(&fixture, device_id, &moved).await, Err(ReceiptError::Signature)));
        let (_, other_device) = fixture.enrolled(fixture.client("Other", &["base"]).await, "C-UUID").await;
        assert!(matches!(apply(&fixture, other_device, &good).await, Err(ReceiptError::Unknown)));
        apply(&fixture, device_id, &good).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_refused_delivery_says_why_and_a_new_version_replaces_it() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, device_id, client, frame) = sent(&fixture).await;
        let mut tx = fixture.app.db.write().await.unwrap();
        let now = fixture.app.now();
        apply_refusal(&mut tx, device_id, frame.delivery_id, "no such slot", "192.0.2.17", now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let slot = fixture.our_slot().await;
        let newer = Secret::new("ours-second-value".to_owned());
        put(&fixture.app, Fixture::who(), &fixture.get_client(client).await, &slot, &newer).await.unwrap();
        let mut tx = fixture.app.db.read().await.unwrap();
        let states: Vec<_> =
            for_device(&mut tx, device_id).await.unwrap().into_iter().map(|d| (d.version, d.state)).collect();
        assert_eq!(states, [(2, DeliveryState::Pending)], "the newest version counts");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_decrypted_when_the_audit_log_cannot_be_written() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, _) = stored(&fixture).await;
        let (_, device_id) = fixture.enrolled(client, "A-UUID").await;
        let mut tx = fixture.app.db.write().await.unwrap();
        plan(&fixture.app, &mut tx, device_id).await.unwrap();
        let delivery = for_device(&mut tx, device_id).await.unwrap().remove(0);
        tx.commit().await.unwrap();
        // A head that disagrees with the log: the trigger refuses every entry.
        sql(&fixture, "UPDATE audit_head SET seq = seq + 5").await;
        let refused = seal(&fixture.app, &delivery, "digest").await.unwrap_err();
        assert!(matches!(refused, SecretError::Audit(_)), "{refused}");
        let slot = fixture.our_slot().await;
        let refused =
            put(&fixture.app, Fixture::who(), &fixture.get_client(client).await, &slot, &value()).await;
        assert!(matches!(refused, Err(SecretError::Audit(_))));
        let mut tx = fixture.app.db.read().await.unwrap();
        assert_eq!(for_device(&mut tx, device_id).await.unwrap()[0].state, DeliveryState::Pending);
    })
    .await;
}

#[tokio::test]
async fn what_a_device_lost_or_refused_is_delivered_again() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (device, device_id, _, frame) = sent(&fixture).await;
        apply(&fixture, device_id, &receipt(&fixture, &device, device_id, &frame)).await.unwrap();
        let state = |held: Vec<HeldSecret>| {
            let db = fixture.app.db.clone();
            async move {
                let mut tx = db.write().await.unwrap();
                reconcile(&mut tx, device_id, &held).await.unwrap();
                tx.commit().await.unwrap();
                let mut tx = db.read().await.unwrap();
                for_device(&mut tx, device_id).await.unwrap()[0].state
            }
        };
        let held = HeldSecret { component: "tool".into(), slot: "OUR_KEY".into(), version: 1 };
        assert_eq!(state(vec![held.clone()]).await, DeliveryState::Receipted);
        assert_eq!(state(Vec::new()).await, DeliveryState::Pending, "a fresh agent has nothing");
        let mut tx = fixture.app.db.read().await.unwrap();
        let again = for_device(&mut tx, device_id).await.unwrap().remove(0);
        drop(tx);
        seal(&fixture.app, &again, "digest").await.unwrap().unwrap();
        let mut tx = fixture.app.db.write().await.unwrap();
        let now = fixture.app.now();
        apply_refusal(&mut tx, device_id, again.id, "no such slot", "192.0.2.17", now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(state(vec![held]).await, DeliveryState::Pending, "each link tries what was refused");
    })
    .await;
}
