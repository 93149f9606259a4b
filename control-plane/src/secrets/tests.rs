mod rotating;
mod second_person;
mod wanted;

use rcgen::SigningKey as _;
use shared::crypto::{DeliveryContext, open_delivery};
use shared::ids::{ClientId, DeviceId, SlotId, UserId};
use shared::protocol::link::{Deliver, HeldSecret, Receipt};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::Clock as _;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{
    CopyError, DeliveryState, EnvelopeError, Place, ReceiptError, SecretError, apply_receipt, apply_refusal,
    copy, envelope, for_device, open, plan, put, reconcile, seal, store,
};
use crate::audit::{self, Action};
use crate::db::testing::{on_both, owner_of};
use crate::on;
use crate::testing::{Fixture, MANIFESTS, TestDevice};

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
        let key = fixture.app.root.newest().client_key(&salt, client);
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
        let other_key = fixture.app.root.newest().client_key(&other_salt, other_client);
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
async fn a_database_that_fails_is_not_taken_for_a_secret_that_does_not_open() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        let (_, place) = stored(&fixture).await;
        let mut tx = owner_of(&db).await.write().await.unwrap();
        on!(&mut tx, conn => conn.execute("ALTER TABLE clients RENAME COLUMN salt TO elsewhere").await.map(|_| ()))
            .unwrap();
        tx.commit().await.unwrap();
        let mut tx = fixture.app.db.read().await.unwrap();
        let refused = open(&fixture.app, &mut tx, place).await.unwrap_err();
        assert!(matches!(refused, SecretError::Database(_)), "{refused}");
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
            store::upsert(&mut tx, place, 0, &sealed, fixture.app.now()).await.unwrap(),
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
    let received = apply_receipt(&mut tx, board, device_id, receipt, "192.0.2.17", fixture.app.now()).await?;
    if let Some(received) = received {
        audit::append(&mut tx, &received.entry).await.unwrap();
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

const WHY: &str = "The vendor wants it typed into their own page";

async fn copied(fixture: &Fixture, place: Place, reason: &str) -> Result<Secret<Vec<u8>>, CopyError> {
    copy(&fixture.app, Fixture::who(), fixture.user, place.client_id, place.slot_id, reason).await
}

async fn copies_in_the_log(fixture: &Fixture) -> Vec<audit::Entry> {
    let entries = audit::page(&mut fixture.app.db.read().await.unwrap(), None, 100).await.unwrap();
    let entries = entries.into_iter().map(|stored| stored.entry);
    entries.filter(|entry| entry.action == Action::SecretCopied).collect()
}

#[tokio::test]
async fn a_copy_is_in_the_log_with_its_reason() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (client, place) = stored(&fixture).await;
        for bad in ["", "  ", "for sk-ant-api03-abcdefghijklmnop"] {
            let refused = copied(&fixture, place, bad).await.unwrap_err();
            assert!(matches!(refused, CopyError::Refused(_)), "{bad}: {refused}");
            assert!(!refused.to_string().contains("sk-ant"));
        }
        assert!(copies_in_the_log(&fixture).await.is_empty());
        let value = copied(&fixture, place, WHY).await.unwrap();
        assert_eq!(value.expose(), VALUE.as_bytes());
        let entries = copies_in_the_log(&fixture).await;
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!(
            (entry.client, entry.slot, entry.reason.as_str()),
            (Some(client), Some(place.slot_id), WHY)
        );
        assert_eq!((entry.detail["slot"].as_str(), entry.detail["version"].as_str()), ("tool/OUR_KEY", "1"));
        assert_eq!(entry.who, Fixture::who());
        assert!(!format!("{entry:?}").contains(VALUE));
    })
    .await;
}

#[tokio::test]
async fn only_what_is_stored_of_ours_for_this_client_is_copied() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, place) = stored(&fixture).await;
        let other = fixture.client("Other Client", &["base", "tool"]).await;
        let empty = copied(&fixture, Place { client_id: other, ..place }, WHY).await;
        assert!(matches!(empty, Err(CopyError::Empty)));
        let without = fixture.client("Without", &["base"]).await;
        let mut tx = fixture.app.db.read().await.unwrap();
        let Some(crate::catalog::AnySlot::Theirs(theirs)) =
            crate::catalog::slot(&mut tx, "tool", "THEIR_TOKEN").await.unwrap()
        else {
            panic!("the slot is theirs")
        };
        drop(tx);
        let unknown = SlotId::new(&*fixture.clock, &SystemRandom);
        for place in [
            Place { client_id: without, ..place },
            Place { slot_id: theirs.id, ..place },
            Place { slot_id: unknown, ..place },
        ] {
            assert!(matches!(copied(&fixture, place, WHY).await, Err(CopyError::NotOurs)));
        }

        let forbidding: Vec<(&str, String)> = MANIFESTS
            .iter()
            .map(|(key, text)| (*key, text.replace("name = \"Our key\"", "name = \"Our key\"\ncopy = false")))
            .collect();
        let forbidding: Vec<_> = forbidding.iter().map(|(key, text)| (*key, text.as_str())).collect();
        fixture.import(2, &forbidding).await.unwrap();
        assert!(matches!(copied(&fixture, place, WHY).await, Err(CopyError::Forbidden)));
        assert!(copies_in_the_log(&fixture).await.is_empty(), "none of these was opened");
    })
    .await;
}

#[tokio::test]
async fn ten_copies_an_hour_and_many_at_once_are_no_more() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, place) = stored(&fixture).await;
        for _ in 0..8 {
            copied(&fixture, place, WHY).await.unwrap();
        }
        let once = || copied(&fixture, place, WHY);
        let done = tokio::join!(once(), once(), once(), once(), once(), once());
        let done = [done.0, done.1, done.2, done.3, done.4, done.5];
        let taken = done.iter().filter(|done| done.is_ok()).count();
        assert!((1..=2).contains(&taken), "{done:?}");
        for _ in taken..2 {
            copied(&fixture, place, WHY).await.unwrap();
        }
        assert!(matches!(copied(&fixture, place, WHY).await, Err(CopyError::TooMany)));
        assert_eq!(copies_in_the_log(&fixture).await.len(), 10);

        let mut tx = fixture.app.db.write().await.unwrap();
        let app = &fixture.app;
        let (clock, random) = (&*app.clock, &*app.random);
        let roles = [crate::access::Role::Consultant];
        crate::access::create_user(&mut tx, &app.root, clock, random, "b@example.com", &roles).await.unwrap();
        tx.commit().await.unwrap();
        let users = crate::access::users::list(&mut app.db.read().await.unwrap()).await.unwrap();
        let other: UserId = users.iter().find(|user| user.email == "b@example.com").unwrap().id;
        copy(app, Fixture::who(), other, place.client_id, place.slot_id, WHY).await.unwrap();
        fixture.clock.advance(std::time::Duration::from_secs(3600));
        copied(&fixture, place, WHY).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn nothing_is_copied_when_the_audit_log_cannot_be_written() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (_, place) = stored(&fixture).await;
        sql(&fixture, "UPDATE audit_head SET seq = seq + 5").await;
        let refused = copied(&fixture, place, WHY).await.unwrap_err();
        assert!(matches!(refused, CopyError::Secret(SecretError::Audit(_))), "{refused}");
        let now = fixture.app.now();
        let mut tx = fixture.app.db.read().await.unwrap();
        let since = now.before(std::time::Duration::from_secs(1));
        assert_eq!(store::copies(&mut tx, fixture.user, since).await.unwrap(), (0, 0), "it doesn't count");
    })
    .await;
}
