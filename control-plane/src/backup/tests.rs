use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::SigningKey as _;
use shared::protocol::enroll::{Enrolled, JoinAnswer, RenewRequest, renewal_bytes};
use shared::protocol::link::{Head, HeldSecret};
use shared::random::SystemRandom;
use shared::secret::Secret;

use super::{BackupError, Kind, Place, make, manifest_of, restore, verify};
use crate::app::App;
use crate::audit::{self, Action, AlarmKind, Standing, Verdict, Who};
use crate::clients;
use crate::db::Db;
use crate::db::testing::empty_postgres;
use crate::enrollment::api::{Peer, PeerCertificate};
use crate::enrollment::{self, CertificateRefused, Channel, DeviceState, RenewError};
use crate::keys::{KeyError, Outside, Source};
use crate::offboarding::{self, Rewritten};
use crate::on;
use crate::testing::{Fixture, TestDevice};
use crate::{access, board, secrets};

const VALUE: &str = "ours-canary-3c1e";

/// Addresses of a database: as its owner and as the board.
struct Addresses {
    owner: Option<String>,
    board: String,
    folder: tempfile::TempDir,
}

impl Addresses {
    async fn fresh(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        match kind {
            Kind::Sqlite => {
                let board = format!("sqlite:{}", folder.path().join("board.db").display());
                Self { owner: None, board, folder }
            }
            Kind::Postgres => {
                let empty = empty_postgres().await;
                Self { owner: Some(empty.owner), board: empty.board, folder }
            }
        }
    }

    async fn migrated(&self) -> Db {
        let db = Db::connect(&self.board).await.unwrap();
        match &self.owner {
            Some(owner) => {
                let owner = Db::connect(owner).await.unwrap();
                owner.migrate_for(&db).await.unwrap();
                owner.close().await;
            }
            None => db.migrate().await.unwrap(),
        }
        db
    }

    fn place(&self, replace: bool) -> Place<'_> {
        Place { url: &self.board, owner_url: self.owner.as_deref(), replace }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn outside(fixture: &Fixture) -> Outside {
    Outside::of(fixture.clock.clone(), &[])
}

async fn opened(fixture: &Fixture, addresses: &Addresses) -> App {
    let db = Db::connect(&addresses.board).await.unwrap();
    let random = Arc::new(SystemRandom);
    board::open(db, None, outside(fixture), "https://agents.test".into(), None, random).await.unwrap()
}

async fn head(app: &App) -> Head {
    audit::head(&mut app.db.read().await.unwrap()).await.unwrap()
}

/// A board with a client, a secret of ours and a device.
async fn board_in_use(addresses: &Addresses) -> (Fixture, enrollment::Device) {
    let fixture = Fixture::new(addresses.migrated().await).await;
    let client = fixture.client("Example Client", &["base", "tool"]).await;
    let (_, device) = fixture.enrolled(client, "A-UUID").await;
    let stored = fixture.get_client(client).await;
    let value = Secret::new(VALUE.to_owned());
    secrets::put(&fixture.app, Fixture::who(), &stored, &fixture.our_slot().await, &value).await.unwrap();
    let device = enrollment::get_device(&mut fixture.app.db.read().await.unwrap(), device).await.unwrap();
    (fixture, device)
}

#[tokio::test]
async fn a_backup_of_a_board_in_use_is_put_back_elsewhere_in_a_new_epoch() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (from, to) = (Addresses::fresh(kind).await, Addresses::fresh(kind).await);
        let (fixture, device) = board_in_use(&from).await;
        let out = to.file("backup");
        let made = make(&fixture.app.db, &from.board, &out, &*fixture.clock).await.unwrap();
        assert_eq!((made.database, made.board_id), (kind, fixture.app.board_id));
        for file in [out.clone(), manifest_of(&out)] {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
            let bytes = std::fs::read(&file).unwrap();
            assert!(
                !bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()),
                "in the clear: {file:?}"
            );
        }
        let again = make(&fixture.app.db, &from.board, &out, &*fixture.clock).await;
        assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
        assert_eq!(verify(&out, None, outside(&fixture)).await.unwrap(), made);

        // What happens after the backup is gone with the restore; a device remembers the head of it.
        let lost = fixture.client("Lost Client", &["base"]).await;
        let after = head(&fixture.app).await;
        let session = Secret::new("a long test passphrase".to_owned());
        access::sign_in(&fixture.app, "consultant@example.com", &session, "192.0.2.1").await.unwrap();

        let restored = restore(&out, &to.place(false), None, outside(&fixture)).await.unwrap();
        assert_eq!((restored.epoch, restored.ended.sessions, restored.ended.devices), (2, 1, 1));
        assert!(restored.aside.is_none());
        let app = opened(&fixture, &to).await;
        let mut tx = app.db.read().await.unwrap();
        assert!(matches!(audit::verify(&mut tx).await.unwrap(), Verdict::Holds { .. }));
        let entry = audit::page(&mut tx, None, 1).await.unwrap().remove(0);
        assert_eq!((entry.seq, entry.entry.action), (restored.entry, Action::BoardRestored));
        assert!(crate::clients::get(&mut tx, lost).await.is_err());
        assert_eq!(audit::standing(&mut tx, &after).await.unwrap(), Standing::Dropped);
        let alarms = audit::alarms(&mut tx).await.unwrap();
        assert_eq!((alarms.len(), alarms[0].kind), (1, AlarmKind::Restore));
        drop(tx);
        let mut tx = app.db.write().await.unwrap();
        assert!(
            audit::acknowledge(&mut tx, restored.entry, Who::cli(), "the disk died", app.now())
                .await
                .unwrap()
        );
        tx.commit().await.unwrap();

        // The next version is above what the device says it holds, and it opens.
        let held = HeldSecret { component: "tool".into(), slot: "OUR_KEY".into(), version: 5 };
        let mut tx = app.db.write().await.unwrap();
        secrets::note_held(&mut tx, device.id, &[held], app.now()).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = app.db.read().await.unwrap();
        let client = crate::clients::get(&mut tx, device.client_id).await.unwrap();
        drop(tx);
        let next = Secret::new("ours-second-value".to_owned());
        let version = secrets::put(&app, Fixture::who(), &client, &fixture.our_slot().await, &next).await;
        assert_eq!(version.unwrap(), 6);
        app.db.close().await;
        fixture.app.db.close().await;

        // A second time: only with --replace, and what was there stays.
        let occupied = restore(&out, &to.place(false), None, outside(&fixture)).await;
        assert!(matches!(occupied, Err(BackupError::Occupied(_))), "{occupied:?}");
        let replaced = restore(&out, &to.place(true), None, outside(&fixture)).await.unwrap();
        let aside = replaced.aside.unwrap();
        if kind == Kind::Sqlite {
            assert!(Path::new(&aside).exists(), "{aside}");
        }
        let app = opened(&fixture, &to).await;
        app.db.close().await;
    }
}

#[tokio::test]
async fn a_database_that_is_open_elsewhere_is_not_replaced() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let from = Addresses::fresh(kind).await;
        let (fixture, _) = board_in_use(&from).await;
        let out = from.file("backup");
        make(&fixture.app.db, &from.board, &out, &*fixture.clock).await.unwrap();
        let refused = restore(&out, &from.place(true), None, outside(&fixture)).await;
        assert!(matches!(refused, Err(BackupError::InUse(_))), "{refused:?}");
        assert!(head(&fixture.app).await.seq > 0, "it goes on");
    }
}

#[tokio::test]
async fn a_backup_that_was_changed_or_needs_another_key_is_refused_before_anything_is_touched() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (from, to) = (Addresses::fresh(kind).await, Addresses::fresh(kind).await);
        let (fixture, _) = board_in_use(&from).await;
        let out = to.file("backup");
        let made = make(&fixture.app.db, &from.board, &out, &*fixture.clock).await.unwrap();

        let other = tempfile::tempdir().unwrap();
        let other = Source::File(other.path().join("other.key"));
        other.open_or_create(&outside(&fixture), &SystemRandom).unwrap();
        let refused = restore(&out, &to.place(false), Some(&other), outside(&fixture)).await.unwrap_err();
        assert!(refused.to_string().contains(&made.root_keys[0].fingerprint), "{refused}");
        assert!(
            matches!(&refused, BackupError::RootKey { error, .. } if matches!(**error, KeyError::WrongKey { .. } | KeyError::Unusable { .. })),
            "{refused:?}"
        );

        let mut bytes = std::fs::read(&out).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&out, &bytes).unwrap();
        let refused = restore(&out, &to.place(false), None, outside(&fixture)).await;
        assert!(matches!(refused, Err(BackupError::Differs { .. })), "{refused:?}");
        if kind == Kind::Sqlite {
            assert!(!to.file("board.db").exists());
        }
        fixture.app.db.close().await;
    }
}

#[tokio::test]
async fn a_backup_beside_the_root_key_is_refused() {
    let from = Addresses::fresh(Kind::Sqlite).await;
    let (fixture, _) = board_in_use(&from).await;
    let out = fixture.keys.path().join("backup");
    let refused = make(&fixture.app.db, &from.board, &out, &*fixture.clock).await;
    assert!(matches!(refused, Err(BackupError::Together { .. })), "{refused:?}");
    assert!(!out.exists());
}

#[tokio::test]
async fn after_a_restore_an_unknown_certificate_is_no_alarm_until_the_device_has_renewed() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (from, to) = (Addresses::fresh(kind).await, Addresses::fresh(kind).await);
        let (fixture, device) = board_in_use(&from).await;
        let out = to.file("backup");
        make(&fixture.app.db, &from.board, &out, &*fixture.clock).await.unwrap();
        let stale = enrollment::check_certificate(&fixture.app, device.id, b"another", "192.0.2.17").await;
        assert!(matches!(stale, Err(CertificateRefused::Stale)), "{stale:?}");
        restore(&out, &to.place(false), None, outside(&fixture)).await.unwrap();
        let app = opened(&fixture, &to).await;
        let before = head(&app).await;
        let newer = enrollment::check_certificate(&app, device.id, b"another", "192.0.2.17").await;
        assert!(matches!(newer, Err(CertificateRefused::Restored)), "{newer:?}");
        assert_eq!(head(&app).await, before, "it is no alarm");
        app.db.close().await;
        fixture.app.db.close().await;
    }
}

async fn actions(app: &App) -> Vec<(u64, Action)> {
    let mut tx = app.db.read().await.unwrap();
    let mut found = audit::page(&mut tx, None, 1000).await.unwrap();
    found.reverse();
    found.into_iter().map(|stored| (stored.seq, stored.entry.action)).collect()
}

#[tokio::test]
async fn every_purge_that_is_due_is_done_again_before_the_restored_board_is_ready() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (from, to) = (Addresses::fresh(kind).await, Addresses::fresh(kind).await);
        let (fixture, device) = board_in_use(&from).await;
        let (app, who) = (&fixture.app, Fixture::who);
        let due = device.client_id;
        let waits = fixture.client("Other Client", &["tool"]).await;
        let stored = fixture.get_client(waits).await;
        let value = Secret::new(VALUE.to_owned());
        secrets::put(app, who(), &stored, &fixture.our_slot().await, &value).await.unwrap();
        offboarding::set_days(app, who(), due, "1").await.unwrap();
        for client in [due, waits] {
            offboarding::end(app, who(), client, false).await.unwrap();
        }
        let mut tx = app.db.read().await.unwrap();
        let of = concat!("SELECT encrypted_value FROM client_credentials WHERE client_id", " = $1");
        let envelope: Vec<u8> =
            on!(&mut tx, conn => sqlx::query_scalar(of).bind(due).fetch_one(conn).await).unwrap();
        drop(tx);
        let salt = fixture.get_client(due).await.salt.unwrap();
        let out = to.file("backup");
        make(&app.db, &from.board, &out, &*fixture.clock).await.unwrap();
        let holds = |file: &Path, part: &[u8]| {
            std::fs::read(file).unwrap().windows(part.len()).any(|window| window == part)
        };
        if kind == Kind::Sqlite {
            assert!(holds(&out, &envelope) && holds(&out, &salt), "the backup holds it");
        }
        fixture.clock.advance(Duration::from_secs(2 * 24 * 3600));

        let restored = restore(&out, &to.place(false), None, outside(&fixture)).await.unwrap();
        assert_eq!((restored.purged.len(), restored.purged[0].client_id), (1, due));
        // Other tests use the same server of PostgreSQL: what writes there meanwhile holds a rewrite up.
        let is_written = restored.rewritten == Rewritten::Done;
        assert!(is_written || (kind == Kind::Postgres && restored.rewritten == Rewritten::Busy));
        assert_eq!(restored.epoch, 2);
        let first = restored.entry;
        if kind == Kind::Sqlite {
            let file = to.file("board.db");
            assert!(!holds(&file, &envelope) && !holds(&file, &salt), "nothing of it in the restored file");
        }
        let restored = opened(&fixture, &to).await;
        let mut tx = restored.db.read().await.unwrap();
        assert_eq!(clients::get(&mut tx, due).await.unwrap().salt, None);
        assert!(secrets::stored(&mut tx, due).await.unwrap().is_empty());
        assert_eq!(secrets::stored(&mut tx, waits).await.unwrap().len(), 1, "another's day has not come");
        let device = enrollment::get_device(&mut tx, device.id).await.unwrap();
        assert_eq!(device.state, DeviceState::Revoked);
        drop(tx);
        let log = actions(&restored).await;
        let new: Vec<Action> =
            log.iter().filter(|(seq, _)| *seq >= first).map(|(_, action)| *action).collect();
        let mut expected = vec![Action::BoardRestored, Action::DeviceRevoked, Action::ClientPurged];
        expected.extend(is_written.then_some(Action::PurgeRewritten));
        assert_eq!(new, expected, "behind the first entry of the new epoch");
        restored.db.close().await;
        fixture.app.db.close().await;
    }
}

/// The device renews on a connection that shows this certificate.
async fn renews(
    app: &App,
    device: &TestDevice,
    answer: &JoinAnswer,
    shown: &Enrolled,
) -> Result<Enrolled, RenewError> {
    let certificate = Some(PeerCertificate { device_id: shown.device_id, serial: serial(shown) });
    let channel = Arc::new(Channel::new([3; 32]));
    let peer = Peer { address: "192.0.2.17".into(), certificate, channel, authority: 1 };
    let nonce = peer.channel.challenge(&SystemRandom);
    let signed = renewal_bytes(app.board_id, answer.enrollment_id, &nonce, &[3; 32]);
    let signature = device.tls.sign(&signed).unwrap();
    let request = RenewRequest { enrollment_id: answer.enrollment_id, signature };
    enrollment::renew(app, &request, &peer).await
}

fn serial(enrolled: &Enrolled) -> Vec<u8> {
    x509_parser::parse_x509_certificate(&enrolled.certificate).unwrap().1.raw_serial().to_vec()
}

async fn used(app: &App, enrolled: &Enrolled) -> Result<(), CertificateRefused> {
    enrollment::check_certificate(app, enrolled.device_id, &serial(enrolled), "192.0.2.17").await.map(|_| ())
}

#[tokio::test]
async fn after_a_restore_the_device_renews_by_its_key_and_the_rule_of_serials_holds_again() {
    for (kind, days) in [(Kind::Sqlite, 0), (Kind::Sqlite, 4), (Kind::Postgres, 4)] {
        let (from, to) = (Addresses::fresh(kind).await, Addresses::fresh(kind).await);
        let fixture = Fixture::new(from.migrated().await).await;
        let client = fixture.client("Example Client", &["base"]).await;
        let device = TestDevice::new("A-UUID", fixture.app.now());
        let answer = device.join(&fixture.app, &fixture.code(client).await).await.unwrap();
        let typed = device.fingerprint(&fixture.app, &answer);
        enrollment::approve(&fixture.app, Fixture::who(), fixture.user, answer.enrollment_id, &typed)
            .await
            .unwrap();
        let mut held = device.prove(&fixture.app, &answer).await.unwrap();
        used(&fixture.app, &held).await.unwrap();
        let out = to.file("backup");
        make(&fixture.app.db, &from.board, &out, &*fixture.clock).await.unwrap();
        if days > 0 {
            fixture.clock.advance(Duration::from_secs(days * 24 * 3600));
            held = renews(&fixture.app, &device, &answer, &held).await.unwrap();
            used(&fixture.app, &held).await.unwrap();
        }
        fixture.app.db.close().await;
        restore(&out, &to.place(false), None, outside(&fixture)).await.unwrap();
        let app = opened(&fixture, &to).await;
        if days > 0 {
            let refused = used(&app, &held).await;
            assert!(matches!(refused, Err(CertificateRefused::Restored)), "{refused:?}");
        }
        let stranger = TestDevice::new("A-UUID", fixture.app.now());
        let forged = renews(&app, &stranger, &answer, &held).await;
        assert!(matches!(forged, Err(RenewError::Signature)), "the key decides: {forged:?}");
        let next = renews(&app, &device, &answer, &held).await.unwrap();
        assert_ne!(serial(&next), serial(&held), "a new one, however young the old one is");
        assert_eq!(renews(&app, &device, &answer, &held).await.unwrap(), next, "a lost answer costs nothing");
        used(&app, &next).await.unwrap();
        let refusals = async || {
            actions(&app).await.iter().filter(|(_, action)| *action == Action::DeviceRefused).count()
        };
        assert_eq!(refusals().await, 0);
        let stale = used(&app, &held).await;
        assert!(matches!(stale, Err(CertificateRefused::Stale)), "{stale:?}");
        assert_eq!(refusals().await, 1, "it is an alarm again");
        let stale = renews(&app, &device, &answer, &held).await;
        assert!(matches!(stale, Err(RenewError::Certificate(CertificateRefused::Stale))), "{stale:?}");
        app.db.close().await;
    }
}
