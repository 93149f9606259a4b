//! Each thing that can stand in the way, put there, and named.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use shared::catalog::{PublisherKey, generate_publisher_key};
use shared::protocol::link::Head;
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, Timestamp};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{Finding, Patient, Report, State, authority, examine, files};
use crate::audit;
use crate::db::Db;
use crate::db::testing::{empty_postgres, on_both, owner_of};
use crate::enrollment::rotation;
use crate::keys::{NewVersion, Outside, Source};
use crate::testing::{Fixture, MANIFESTS};
use crate::{link, on, router, secrets};

const VALUE: &str = "ours-canary-2a88";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Ward {
    fixture: Fixture,
    patient: Patient,
    _data: tempfile::TempDir,
}

/// A board with everything in it, that doesn't run.
async fn ward(db: Db) -> Ward {
    let data = tempfile::tempdir().unwrap();
    let database = match &db {
        Db::Sqlite(pool) => format!("sqlite:{}", pool.connect_options().get_filename().display()),
        Db::Postgres(pool) => pool.connect_options().to_url_lossy().to_string(),
    };
    let fixture = Fixture::new(db).await;
    let client = fixture.client("Example Client", &["tool"]).await;
    let (record, slot) = (fixture.get_client(client).await, fixture.our_slot().await);
    let value = Secret::new(VALUE.to_owned());
    secrets::put(&fixture.app, Fixture::who(), &record, &slot, &value).await.unwrap();
    fixture.enrolled(client, "A-UUID").await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let patient = Patient {
        database,
        data: data.path().to_owned(),
        root_key: None,
        console: any,
        proxy: None,
        agents: any,
        agents_url: Some("https://127.0.0.1:8443".into()),
        console_url: None,
        publisher: None,
        outside: Outside::of(fixture.clock.clone(), &[]),
    };
    Ward { fixture, patient, _data: data }
}

impl Ward {
    async fn look(&self) -> Report {
        let report = examine(&self.patient).await;
        let text = format!("{report}\n{}", serde_json::to_string(&report).unwrap());
        assert!(!text.contains("canary") && !text.contains("for-tests-only"), "{text}");
        report
    }

    /// What one check finds, in these words.
    async fn finds(&self, check: &str, state: State, words: &str) -> Report {
        let report = self.look().await;
        let fits = |one: &&Finding| one.check == check && one.state == state && one.saw.contains(words);
        let found = report.findings.iter().find(fits).unwrap_or_else(|| panic!("{check}, {words}: {report}"));
        assert!(state == State::Ok || found.advice.is_some(), "{report}");
        report
    }

    async fn head(&self) -> Head {
        audit::head(&mut self.fixture.app.db.read().await.unwrap()).await.unwrap()
    }

    async fn sql(&self, text: &str) {
        run(&self.fixture.app.db, text).await;
    }

    fn key(&self) -> std::path::PathBuf {
        self.fixture.keys.path().join("root.key")
    }
}

fn one<'a>(report: &'a Report, check: &str, state: State) -> &'a Finding {
    let mut found = report.findings.iter().filter(|finding| finding.check == check && finding.state == state);
    found.next().unwrap_or_else(|| panic!("no {state:?} of {check}: {report}"))
}

async fn run(db: &Db, sql: &str) {
    let mut tx = db.write().await.unwrap();
    on!(&mut tx, conn => conn.execute(AssertSqlSafe(sql.to_owned())).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn on_ward<F, Fut>(test: F)
where
    F: Fn(Ward) -> Fut,
    Fut: Future<Output = ()>,
{
    on_both(async |db| test(ward(db).await).await).await;
}

#[tokio::test]
async fn a_healthy_board_has_no_problem_and_nothing_is_changed() {
    on_ward(|ward| async move {
        let before = ward.head().await;
        let report = ward.look().await;
        assert_eq!(report.count(State::Problem), 0, "{report}");
        for check in [
            "database",
            "root key",
            "key file",
            "secrets",
            "audit log",
            "audit chain",
            "authority",
            "publisher",
        ] {
            one(&report, check, State::Ok);
        }
        assert!(one(&report, "secrets", State::Ok).saw.starts_with("1 stored"), "{report}");
        let on_postgres = matches!(ward.fixture.app.db, Db::Postgres(_));
        for (check, there) in [("rights", on_postgres), ("files", !on_postgres), ("disk", !on_postgres)] {
            assert_eq!(
                report.findings.iter().any(|finding| finding.check == check),
                there,
                "{check}: {report}"
            );
        }
        assert_eq!(ward.head().await, before, "no entry is left, and nothing was opened");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_there_or_not_ours_is_named_and_left_alone() {
    on_ward(|mut ward| async move {
        let owner = owner_of(&ward.fixture.app.db).await;
        run(&owner, "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, '', 0)").await;
        let report = ward.finds("database", State::Problem, "migration 9999 is not known").await;
        assert!(report.findings.iter().all(|finding| finding.check != "root key"), "{report}");
        run(&owner, "DELETE FROM _sqlx_migrations WHERE version IN (9999, 17)").await;
        ward.finds("database", State::Problem, "migration 17 is missing").await;
        ward.patient.database = match &ward.fixture.app.db {
            Db::Sqlite(_) => {
                let nowhere = ward.patient.data.join("none.db");
                let address = format!("sqlite:{}", nowhere.display());
                ward.patient.database = address.clone();
                ward.finds("database", State::Problem, "there is no board at").await;
                assert!(!nowhere.exists(), "nothing is made");
                std::fs::write(&nowhere, "").unwrap();
                address
            }
            Db::Postgres(_) => empty_postgres().await.board,
        };
        ward.finds("database", State::Problem, "it holds no board").await;
        ward.patient.database = "postgres://nobody:for-tests-only@127.0.0.1:1/none".into();
        ward.finds("database", State::Problem, "doesn't answer").await;
        ward.patient.database = "mysql://nobody:for-tests-only@127.0.0.1/none".into();
        ward.finds("database", State::Problem, "no database address").await;
    })
    .await;
}

#[tokio::test]
async fn a_role_that_may_do_too_much_is_named() {
    on_ward(|mut ward| async move {
        let owner = owner_of(&ward.fixture.app.db).await;
        let Db::Postgres(pool) = &owner else { return };
        run(&owner, "GRANT UPDATE ON audit_log TO board_test").await;
        ward.finds("rights", State::Problem, "may change what stands in the audit log").await;
        ward.patient.database = pool.connect_options().to_url_lossy().to_string();
        ward.finds("rights", State::Warning, "owns the tables").await;
    })
    .await;
}

#[tokio::test]
async fn clocks_that_differ_are_named() {
    on_ward(|mut ward| async move {
        let now = ward.fixture.clock.now();
        let at = |at: Timestamp| Outside::of(std::sync::Arc::new(shared::time::ManualClock::at(at)), &[]);
        ward.patient.outside = at(now.before(HOUR));
        ward.finds("clock", State::Problem, "the audit log's last entry is of").await;
        if matches!(ward.fixture.app.db, Db::Postgres(_)) {
            ward.patient.outside = at(now.after(HOUR));
            ward.finds("clock", State::Problem, "on the database's server").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_root_key_that_is_gone_wrong_or_lies_badly_is_named() {
    on_ward(|mut ward| async move {
        let key = ward.key();
        mode(&key, 0o644);
        ward.finds("root key", State::Problem, "can be read by others").await;
        mode(&key, 0o600);
        mode(ward.fixture.keys.path(), 0o777);
        ward.finds("key file", State::Problem, "others may write").await;
        mode(ward.fixture.keys.path(), 0o700);
        ward.patient.data = ward.fixture.keys.path().to_owned();
        ward.finds("key file", State::Warning, "lies in the data folder").await;
        let good = std::fs::read(&key).unwrap();
        std::fs::write(&key, [7; 32]).unwrap();
        ward.finds("root key", State::Problem, "this database was made with").await;
        std::fs::remove_file(&key).unwrap();
        let report = ward.finds("root key", State::Problem, "root.key").await;
        assert!(report.findings.iter().all(|finding| finding.check != "authority"), "{report}");
        one(&report, "audit log", State::Ok);
        let moved = ward.fixture.keys.path().join("moved.key");
        std::fs::write(&moved, good).unwrap();
        mode(&moved, 0o600);
        ward.patient.root_key = Some(Source::File(moved));
        one(&ward.look().await, "root key", State::Ok);
    })
    .await;
}

#[tokio::test]
async fn a_rekey_and_a_rotation_in_the_middle_are_named() {
    on_ward(|ward| async move {
        let app = &ward.fixture.app;
        rotation::begin(app, Fixture::who()).await.unwrap();
        ward.finds("rotation", State::Warning, "1 Mac has not said").await;
        let source = Source::File(ward.fixture.keys.path().join("next.key"));
        let provider = source.open_or_create(&ward.patient.outside, &SystemRandom).unwrap();
        let new = NewVersion::make(&source, &*provider, app.board_id, 2, &SystemRandom).await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        assert!(new.store(&mut tx, app.now()).await.unwrap());
        tx.commit().await.unwrap();
        ward.finds("rekey", State::Warning, "1 secret is under the one before").await;
    })
    .await;
}

#[tokio::test]
async fn secrets_that_do_not_open_are_counted_without_being_opened() {
    on_ward(|ward| async move {
        let before = ward.head().await;
        let mut tx = ward.fixture.app.db.write().await.unwrap();
        let envelope = [b"BSE1".as_slice(), &9_u32.to_be_bytes(), &[0; 40]].concat();
        on!(&mut tx, conn => sqlx::query("UPDATE client_credentials SET encrypted_value = $1").bind(envelope).execute(conn).await.map(|_| ())).unwrap();
        tx.commit().await.unwrap();
        ward.finds("secrets", State::Problem, "1 secret of 1 client don't open: under version 9").await;
        ward.sql("UPDATE clients SET salt = NULL").await;
        let report = ward.look().await;
        assert!(report.findings.iter().any(|finding| finding.saw.contains("1 secret is left of clients")), "{report}");
        assert_eq!(ward.head().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_audit_log_that_cannot_be_written_is_broken_or_doubted_is_named() {
    on_ward(|ward| async move {
        let db = &ward.fixture.app.db;
        let mut tx = db.write().await.unwrap();
        on!(&mut tx, conn => sqlx::query("INSERT INTO audit_alarms (entry, epoch, seq, hash, why, raised_at) VALUES (1, 1, 1, $1, 'it ends before', $2)")
            .bind(vec![1_u8; 32])
            .bind(ward.fixture.app.now())
            .execute(conn)
            .await
            .map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        ward.finds("audit alarms", State::Warning, "1 alarm stands open").await;
        let owner = owner_of(db).await;
        let on = if matches!(db, Db::Postgres(_)) { " ON audit_log" } else { "" };
        run(&owner, &format!("DROP TRIGGER audit_log_refuses_update{on}")).await;
        run(&owner, "UPDATE audit_log SET canonical = '{}' WHERE seq = 3").await;
        ward.finds("audit chain", State::Problem, "it breaks at entry 3").await;
        ward.sql("UPDATE audit_head SET seq = seq + 5").await;
        ward.finds("audit log", State::Problem, "the board does nothing").await;
    })
    .await;
}

#[tokio::test]
async fn an_authority_that_does_not_open_or_ends_is_named() {
    on_ward(|mut ward| async move {
        let ten_years = DAY * 365 * 10;
        let later = ward.fixture.clock.now().after(ten_years.saturating_sub(DAY * 30));
        ward.patient.outside = Outside::of(std::sync::Arc::new(shared::time::ManualClock::at(later)), &[]);
        ward.finds("authority", State::Warning, "good until").await;
        let ended = later.after(DAY * 31);
        assert_eq!(authority::until(later, ended).state, State::Problem);
        let mut tx = ward.fixture.app.db.write().await.unwrap();
        on!(&mut tx, conn => sqlx::query("UPDATE authorities SET wrapped_key = $1").bind(vec![0_u8; 64]).execute(conn).await.map(|_| ())).unwrap();
        tx.commit().await.unwrap();
        ward.finds("authority", State::Problem, "doesn't open under this root key").await;
    })
    .await;
}

#[tokio::test]
async fn a_catalog_that_is_over_changed_unsigned_or_missing_is_named() {
    on_ward(|mut ward| async move {
        ward.finds("catalog", State::Warning, "serial 1, good until").await;
        let (_, other) = generate_publisher_key(&SystemRandom).unwrap();
        ward.patient.publisher = Some(PublisherKey::from_pem(&other).unwrap());
        ward.finds("publisher", State::Problem, "signature").await;
        ward.fixture.import(2, MANIFESTS).await.unwrap();
        let later = ward.fixture.clock.now().after(HOUR * 2);
        ward.patient.outside = Outside::of(std::sync::Arc::new(shared::time::ManualClock::at(later)), &[]);
        ward.finds("catalog", State::Problem, "serial 2, good until").await;
        let mut tx = ward.fixture.app.db.write().await.unwrap();
        on!(&mut tx, conn => sqlx::query("UPDATE catalog_bundles SET payload = $1 WHERE serial = 2").bind(b"{}".to_vec()).execute(conn).await.map(|_| ())).unwrap();
        tx.commit().await.unwrap();
        ward.finds("catalog", State::Problem, "its digest differs").await;
        ward.sql("DELETE FROM catalog_bundles").await;
        ward.finds("catalog", State::Problem, "none yet").await;
    })
    .await;
}

#[tokio::test]
async fn files_that_others_may_write_and_a_full_disk_are_named() {
    on_ward(|ward| async move {
        if let Some(file) = ward.patient.file() {
            mode(&file, 0o666);
            ward.finds("files", State::Problem, "others may write").await;
            mode(&file, 0o600);
            mode(file.parent().unwrap(), 0o777);
            ward.finds("files", State::Problem, "mode 0777").await;
            mode(file.parent().unwrap(), 0o700);
            ward.finds("files", State::Ok, "only their owner").await;
        }
    })
    .await;
    const MIB: u128 = 1024 * 1024;
    for (free, state) in [(199 * MIB, State::Problem), (2000 * MIB, State::Warning), (4000 * MIB, State::Ok)]
    {
        assert_eq!(files::room(free, Path::new("/")).state, state);
    }
}

#[tokio::test]
async fn ports_are_free_another_program_s_or_ours() {
    on_ward(|mut ward| async move {
        ward.finds("console port", State::Ok, "no board runs here").await;
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let answers = tokio::spawn(async move {
            for _ in 0..4 {
                let (mut stream, _) = taken.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
            }
        });
        ward.patient.console = address;
        ward.finds("console port", State::Problem, "not as a board does").await;
        (ward.patient.console, ward.patient.agents) = (ward.patient.agents, address);
        ward.finds("agents' port", State::Problem, "it is not this board").await;
        answers.abort();

        let console = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agents = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (ward.patient.console, ward.patient.agents) =
            (console.local_addr().unwrap(), agents.local_addr().unwrap());
        let app = ward.fixture.app.clone();
        let pages = router::console(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let serving = tokio::spawn(axum::serve(console, pages).into_future());
        // The console runs, and its agents' port is elsewhere.
        let elsewhere = std::mem::replace(&mut ward.patient.agents, SocketAddr::from(([127, 0, 0, 1], 1)));
        let report = ward.finds("agents' port", State::Problem, "127.0.0.1:1").await;
        assert!(one(&report, "console port", State::Ok).saw.contains("is well"), "{report}");
        ward.patient.agents = elsewhere;
        let (stop, stopped) = oneshot::channel::<()>();
        let listening = link::serve(app.clone(), agents, router::agents(app), 8, async {
            let _ = stopped.await;
        });
        let listening = tokio::spawn(listening);
        ward.finds("agents' port", State::Ok, "this board answers, with a certificate until").await;
        let later = ward.fixture.clock.now().after(DAY * 20);
        ward.patient.outside = Outside::of(std::sync::Arc::new(shared::time::ManualClock::at(later)), &[]);
        ward.finds("agents' port", State::Warning, "was not renewed").await;
        ward.patient.outside = Outside::of(ward.fixture.clock.clone(), &[]);
        ward.patient.console_url = Some(format!("http://{}", ward.patient.console));
        ward.finds("console address", State::Ok, "leads to a board").await;
        ward.sql("UPDATE audit_head SET seq = seq + 5").await;
        ward.fixture.clock.advance(DAY);
        ward.finds("console port", State::Problem, "can't work").await;
        stop.send(()).unwrap();
        listening.await.unwrap().unwrap();
        serving.abort();
    })
    .await;
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_named() {
    on_ward(|mut ward| async move {
        ward.patient.console = SocketAddr::from(([192, 0, 2, 1], 8080));
        ward.finds("console port", State::Problem, "without TLS").await;
        ward.patient.console = SocketAddr::from(([127, 0, 0, 1], 0));
        for (url, state, words) in [
            ("http://board.test:8443", State::Problem, "no address that agents take"),
            ("nonsense", State::Problem, "no address that agents take"),
            ("https://board.invalid:8443", State::Warning, "has no address"),
        ] {
            ward.patient.agents_url = Some(url.into());
            ward.finds("agents' address", state, words).await;
        }
        ward.patient.agents_url = None;
        ward.finds("agents' address", State::Warning, "only this machine can join").await;
        for (url, words) in [
            ("http://board.test", "is not https"),
            ("board", "is no address"),
            ("https://127.0.0.1:1", "127.0.0.1:1"),
        ] {
            ward.patient.console_url = Some(url.into());
            ward.finds("console address", State::Problem, words).await;
        }
    })
    .await;
}
