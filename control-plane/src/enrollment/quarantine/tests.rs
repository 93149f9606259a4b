use super::{Release, Stopped, quarantine, quarantined, release};
use crate::audit::{self, Action};
use crate::db::testing::on_both;
use crate::enrollment::{DeviceState, check_certificate, get_device, is_enrolled, revoke};
use crate::testing::Fixture;

const ADDRESS: &str = "192.0.2.17";

#[tokio::test]
async fn a_quarantined_device_gets_nothing_until_it_is_released_as_one_mac_or_the_other() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, enrolled) = fixture.enroll(client, "A-UUID").await;
        let (_, certificate) = x509_parser::parse_x509_certificate(&enrolled.certificate).unwrap();
        let serial = certificate.raw_serial().to_vec();
        let ways = [(Release::Enrolled, "C-UUID", "A-UUID"), (Release::Other, "B-UUID", "B-UUID")];
        for (how, came, goes_on_as) in ways {
            let mut tx = app.db.read().await.unwrap();
            let device = get_device(&mut tx, enrolled.device_id).await.unwrap();
            drop(tx);
            quarantine(app, &device, came, ADDRESS).await.unwrap();
            assert!(check_certificate(app, device.id, &serial, ADDRESS).await.is_err());
            let mut tx = app.db.read().await.unwrap();
            assert!(!is_enrolled(&mut tx, device.id).await.unwrap());
            let waiting = quarantined(&mut tx).await.unwrap();
            drop(tx);
            assert_eq!((waiting.len(), waiting[0].other_hardware_uuid.as_str()), (1, came));

            let unseen = release(app, Fixture::who(), device.id, "D-UUID", how).await;
            assert_eq!(unseen.unwrap_err().public.status, 409, "only what was shown is decided");
            release(app, Fixture::who(), device.id, came, how).await.unwrap();
            let twice = release(app, Fixture::who(), device.id, came, how).await;
            assert_eq!(twice.unwrap_err().public.status, 409);
            let mut tx = app.db.read().await.unwrap();
            let device = get_device(&mut tx, device.id).await.unwrap();
            assert_eq!((device.state, device.hardware_uuid.as_str()), (DeviceState::Enrolled, goes_on_as));
            drop(tx);
            assert!(check_certificate(app, device.id, &serial, ADDRESS).await.is_ok());
        }
    })
    .await;
}

#[tokio::test]
async fn a_clone_of_another_device_cannot_take_its_place_and_hostile_uuids_are_refused() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, id) = fixture.enrolled(client, "A-UUID").await;
        fixture.enrolled(client, "B-UUID").await;
        let mut tx = app.db.read().await.unwrap();
        let device = get_device(&mut tx, id).await.unwrap();
        drop(tx);
        for hostile in ["", "nul\0", &"x".repeat(256)] {
            assert_eq!(quarantine(app, &device, hostile, ADDRESS).await.unwrap(), Stopped::Unreadable);
        }
        quarantine(app, &device, "B-UUID", ADDRESS).await.unwrap();
        let taken = release(app, Fixture::who(), id, "B-UUID", Release::Other).await.unwrap_err();
        assert_eq!(taken.public.kind, "urn:board:known-hardware");
        revoke(app, Fixture::who(), id, "A clone").await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        assert!(quarantined(&mut tx).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_mac_that_was_turned_away_stays_away_and_a_third_one_is_asked_about() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let client = fixture.client("Example Client", &["base"]).await;
        let (_, id) = fixture.enrolled(client, "A-UUID").await;
        let device = async || {
            let mut tx = app.db.read().await.unwrap();
            get_device(&mut tx, id).await.unwrap()
        };
        let alarms = async || {
            let mut tx = app.db.read().await.unwrap();
            let entries = audit::page(&mut tx, None, 1000).await.unwrap();
            entries.iter().filter(|stored| stored.entry.action == Action::DeviceRefused).count()
        };
        let comes = async |uuid: &str| quarantine(app, &device().await, uuid, ADDRESS).await.unwrap();
        assert_eq!(comes("B-UUID").await, Stopped::Quarantined);
        assert_eq!(comes("B-UUID").await, Stopped::Quarantined, "nobody decided yet");
        release(app, Fixture::who(), id, "B-UUID", Release::Enrolled).await.unwrap();
        for _ in 0..5 {
            assert_eq!(comes("B-UUID").await, Stopped::TurnedAway);
            assert_eq!(device().await.state, DeviceState::Enrolled, "the enrolled Mac goes on");
        }
        assert_eq!(alarms().await, 1, "once an hour");
        fixture.clock.advance(std::time::Duration::from_secs(3601));
        assert_eq!(comes("B-UUID").await, Stopped::TurnedAway);
        assert_eq!(alarms().await, 2);

        assert_eq!(comes("C-UUID").await, Stopped::Quarantined);
        assert_eq!(device().await.state, DeviceState::Quarantined);
        release(app, Fixture::who(), id, "C-UUID", Release::Enrolled).await.unwrap();
        for uuid in ["B-UUID", "C-UUID"] {
            assert_eq!(comes(uuid).await, Stopped::TurnedAway, "each of them stays away");
        }
        assert_eq!(device().await.state, DeviceState::Enrolled);
    })
    .await;
}
