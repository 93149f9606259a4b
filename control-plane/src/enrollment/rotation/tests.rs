use std::time::Duration;

use shared::crypto::{SuccessionError, sha256, verify_succession};
use shared::ids::DeviceId;
use shared::protocol::link::NewCa;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    AcknowledgeError, RotationError, acknowledge, begin, believed, finish, hold_active, news, status, store,
};
use crate::audit::{self, Action, Who};
use crate::db::Db;
use crate::db::testing::on_both;
use crate::enrollment::ca::{Authority, DEVICE_TTL, spki_of};
use crate::enrollment::{self, EnrollError, get_device};
use crate::error::Failure;
use crate::testing::{Fixture, TestDevice};

async fn told(fixture: &Fixture, device: DeviceId) -> Option<NewCa> {
    news(&mut fixture.app.db.read().await.unwrap(), device).await.unwrap().map(|(_, ca)| ca)
}

async fn keeps(fixture: &Fixture, device: DeviceId, certificate: &[u8]) -> Result<bool, AcknowledgeError> {
    let mut tx = fixture.app.db.write().await.unwrap();
    let device = get_device(&mut tx, device).await.unwrap();
    let pin = sha256(&spki_of(certificate).unwrap_or_default());
    let entry = acknowledge(&mut tx, &device, &pin, "192.0.2.17", fixture.app.now()).await?;
    if let Some(entry) = &entry {
        audit::append(&mut tx, entry).await.unwrap();
    }
    tx.commit().await.unwrap();
    Ok(entry.is_some())
}

/// The SPKI of the authority that a device's next certificate would come from.
async fn issuer(fixture: &Fixture, device: DeviceId) -> Vec<u8> {
    let app = &fixture.app;
    let mut tx = app.db.read().await.unwrap();
    Authority::load_for(&mut tx, &app.root, app.board_id, device).await.unwrap().spki().unwrap()
}

async fn shown(fixture: &Fixture) -> Vec<u8> {
    let app = &fixture.app;
    let mut tx = app.db.read().await.unwrap();
    Authority::load(&mut tx, &app.root, app.board_id).await.unwrap().spki().unwrap()
}

#[tokio::test]
async fn both_are_believed_until_every_living_device_keeps_the_new_one() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, first) = fixture.enrolled(client, "A-UUID").await;
        let (_, second) = fixture.enrolled(client, "B-UUID").await;
        let (_, gone) = fixture.enrolled(client, "C-UUID").await;
        enrollment::revoke(&fixture.app, Fixture::who(), gone, "sold").await.unwrap();
        let app = &fixture.app;
        assert!(told(&fixture, first).await.is_none());
        assert!(matches!(finish(app, Who::cli(), true).await, Err(RotationError::NotBegun)));

        let old = shown(&fixture).await;
        begin(app, Who::cli()).await.unwrap();
        assert!(matches!(begin(app, Who::cli()).await, Err(RotationError::UnderWay)));
        let ca = told(&fixture, first).await.unwrap();
        let succession = verify_succession(&ca.certificate, &ca.issuer, &ca.proof).unwrap();
        assert_eq!(succession.issuer_spki, old);
        assert_eq!(shown(&fixture).await, old, "the listener goes on with the old one");
        let both = believed(&mut app.db.read().await.unwrap(), app.now()).await.unwrap();
        assert_eq!((both.active, both.certificates.len()), (1, 2));

        assert_eq!(issuer(&fixture, first).await, old);
        assert!(matches!(keeps(&fixture, first, b"another").await, Err(AcknowledgeError::Unknown)));
        assert!(keeps(&fixture, first, &ca.certificate).await.unwrap());
        assert!(!keeps(&fixture, first, &ca.certificate).await.unwrap(), "the same again changes nothing");
        assert!(!keeps(&fixture, first, &ca.issuer).await.unwrap(), "nor does an older one");
        assert!(told(&fixture, first).await.is_none());
        assert_eq!(issuer(&fixture, first).await, succession.spki);
        assert_eq!(issuer(&fixture, second).await, old);

        let refused = finish(app, Who::cli(), false).await.unwrap_err();
        assert!(matches!(&refused, RotationError::Waits(who) if who == "reception-mini (Example Client)"));
        keeps(&fixture, second, &ca.certificate).await.unwrap();
        assert!(finish(app, Who::cli(), false).await.unwrap().is_empty());
        assert_eq!(shown(&fixture).await, succession.spki);
        assert_eq!(issuer(&fixture, first).await, succession.spki);

        // Certificates of the old one last a week at most.
        let after = believed(&mut app.db.read().await.unwrap(), app.now()).await.unwrap();
        assert_eq!((after.active, after.certificates.len()), (2, 2));
        fixture.clock.advance(DEVICE_TTL + Duration::from_secs(1));
        let later = believed(&mut app.db.read().await.unwrap(), app.now()).await.unwrap();
        assert_eq!(later.certificates, std::slice::from_ref(&ca.certificate));
        let entries = audit::page(&mut app.db.read().await.unwrap(), None, 100).await.unwrap();
        let count = |action| entries.iter().filter(|stored| stored.entry.action == action).count();
        let all = [Action::CaRotationBegun, Action::CaAcknowledged, Action::CaRotationFinished].map(count);
        assert_eq!(all, [1, 2, 1]);

        begin(app, Who::cli()).await.unwrap();
        let next = told(&fixture, first).await.unwrap();
        assert_eq!(next.issuer, ca.certificate, "and again, from there");
    })
    .await;
}

#[tokio::test]
async fn forced_it_names_who_has_to_join_again_and_open_requests_count() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let app = &fixture.app;
        begin(app, Who::cli()).await.unwrap();
        fixture.clock.advance(Duration::from_secs(1)); // ids are in the order of time
        let asking = TestDevice::new("B-UUID", app.now());
        let answer = asking.join(app, &fixture.code(client).await).await.unwrap();
        let ca = told(&fixture, device).await.unwrap();
        keeps(&fixture, device, &ca.certificate).await.unwrap();
        let refused = finish(app, Who::cli(), false).await.unwrap_err().to_string();
        assert!(refused.contains("1 device that asks to join") && refused.contains("--force"), "{refused}");

        // Joining during a rotation works; the fingerprint names the authority that was pinned.
        let typed = asking.fingerprint(app, &answer);
        let approved =
            enrollment::approve(app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await;
        let joined = approved.unwrap();
        asking.prove(app, &answer).await.unwrap();
        assert_eq!(told(&fixture, joined).await.unwrap(), ca, "it pinned the old one");
        let found = status(&mut app.db.read().await.unwrap(), app.now()).await.unwrap();
        let standings: Vec<_> =
            found.coming.unwrap().devices.into_iter().map(|one| (one.device_id, one.acknowledged)).collect();
        assert_eq!(standings, [(device, true), (joined, false)]);
        let stranded = finish(app, Who::cli(), true).await.unwrap();
        assert_eq!(stranded.iter().map(|one| one.device_id).collect::<Vec<_>>(), [joined]);
        assert!(status(&mut app.db.read().await.unwrap(), app.now()).await.unwrap().coming.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_request_of_before_keeps_the_fingerprint_that_its_device_shows() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let app = &fixture.app;
        let device = TestDevice::new("A-UUID", app.now());
        let answer = device.join(app, &fixture.code(client).await).await.unwrap();
        let typed = device.fingerprint(app, &answer);
        begin(app, Who::cli()).await.unwrap();
        finish(app, Who::cli(), true).await.unwrap();
        let spki = shown(&fixture).await;
        app.show_ca(crate::app::ShownCa { number: 2, spki });
        assert_ne!(device.fingerprint(app, &answer), typed);
        enrollment::approve(app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
        let later = TestDevice::new("B-UUID", app.now());
        let answer = later.join(app, &fixture.code(client).await).await.unwrap();
        let typed = later.fingerprint(app, &answer);
        enrollment::approve(app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_joins_while_the_authority_changes_is_told_to_ask_again() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let app = &fixture.app;
        let code = fixture.code(client).await;
        begin(app, Who::cli()).await.unwrap();
        finish(app, Who::cli(), false).await.unwrap();
        // The listener, and so the device, has the authority that was active a moment ago.
        let device = TestDevice::new("A-UUID", app.now());
        let refused = device.join(app, &code).await.unwrap_err();
        assert!(matches!(refused, EnrollError::NewAuthority), "{refused}");
        assert_eq!(Failure::from(refused).public.status, 503);
        let spki = shown(&fixture).await;
        app.show_ca(crate::app::ShownCa { number: 2, spki });
        let answer = device.join(app, &code).await.unwrap();
        let typed = device.fingerprint(app, &answer);
        enrollment::approve(app, Fixture::who(), fixture.user, answer.enrollment_id, &typed).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_rotation_ends_only_after_who_joins_at_that_moment_was_counted() {
    on_both(|db| async move {
        let Db::Postgres(_) = &db else { return };
        let fixture = Fixture::new(db.clone()).await;
        begin(&fixture.app, Who::cli()).await.unwrap();
        let mut joining = db.write().await.unwrap();
        assert_eq!(hold_active(&mut joining).await.unwrap(), 1);
        let app = fixture.app.clone();
        let ending = tokio::spawn(async move { finish(&app, Who::cli(), false).await.map(|_| ()) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!ending.is_finished(), "it waits for the one who joins");
        joining.commit().await.unwrap();
        ending.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_the_old_authority_did_not_sign_as_an_authority_proves_nothing() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, enrolled) = fixture.enroll(client, "A-UUID").await;
        begin(&fixture.app, Who::cli()).await.unwrap();
        let ca = told(&fixture, enrolled.device_id).await.unwrap();
        finish(&fixture.app, Who::cli(), true).await.unwrap();
        begin(&fixture.app, Who::cli()).await.unwrap();
        let other = told(&fixture, enrolled.device_id).await.unwrap();
        assert!(verify_succession(&other.certificate, &other.issuer, &other.proof).is_ok());

        let refused = |certificate: &[u8], issuer: &[u8], proof: &[u8]| {
            verify_succession(certificate, issuer, proof).unwrap_err()
        };
        assert_eq!(refused(&ca.certificate, &ca.issuer, &other.proof), SuccessionError::OtherKey);
        assert_eq!(refused(&other.certificate, &ca.issuer, &other.proof), SuccessionError::NotSigned);
        assert_eq!(refused(&ca.certificate, &ca.issuer, &ca.certificate), SuccessionError::NotSigned);
        let device = &enrolled.certificate;
        assert_eq!(refused(&ca.certificate, &ca.issuer, device), SuccessionError::NotAuthority);
        assert_eq!(refused(device, &ca.issuer, device), SuccessionError::NotAuthority);
        assert_eq!(refused(&ca.proof, &ca.issuer, &ca.proof), SuccessionError::NotItsOwn);
        assert_eq!(refused(&ca.certificate, &ca.issuer, b"nothing"), SuccessionError::Unreadable);
        // Every byte that is signed counts. Behind them there are some that say the same in another way.
        let good = verify_succession(&ca.certificate, &ca.issuer, &ca.proof).unwrap();
        let (_, parsed) = X509Certificate::from_der(&ca.proof).unwrap();
        let signed = ca.proof.len() - parsed.signature_value.data.len() - 16;
        for index in 0..ca.proof.len() {
            let mut changed = ca.proof.clone();
            changed[index] ^= 1;
            let found = verify_succession(&ca.certificate, &ca.issuer, &changed);
            assert!(found.is_err() || (index >= signed && found == Ok(good.clone())), "byte {index}");
        }
    })
    .await;
}

#[tokio::test]
async fn there_is_one_active_and_one_coming_authority_at_most() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        begin(app, Who::cli()).await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        let active = Authority::load(&mut tx, &app.root, app.board_id).await.unwrap();
        let next = active.successor(&app.root.newest(), app.board_id, app.now(), &*app.random).unwrap();
        assert!(store::insert(&mut tx, 3, &next, app.now()).await.is_err(), "two are coming");
        drop(tx);
        let mut tx = app.db.write().await.unwrap();
        assert!(store::activate_coming(&mut tx).await.is_err(), "two are active");
    })
    .await;
}
