//! What a request answers, and what the health page says, when the database can't be written or doesn't answer. Nothing
//! is decrypted then, nothing is lost, and everything goes on when the trouble is over.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use regex::Regex;
use shared::ids::{ApprovalId, ClientId, SlotId};
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::access_routes::{self, SCRIPT};
use super::{ask, post, read, signed_in};
use crate::access::{Role, approvals};
use crate::audit::{self, Action, AuditError, Entry, Verdict, Who};
use crate::clients;
use crate::db::testing::{empty_postgres, on_both, owner_of};
use crate::db::{Cause, Db};
use crate::error::Failure;
use crate::on;
use crate::secrets::{self, BoardSecret, Delivery, DeliveryState, SecretError};
use crate::testing::Fixture;

async fn run(db: &Db, sql: &str) {
    let mut tx = db.write().await.unwrap();
    on!(&mut tx, conn => conn.execute(AssertSqlSafe(sql.to_owned())).await.map(|_| ())).unwrap();
    tx.commit().await.unwrap();
}

/// Some settings are a connection's: this sets them on every one of the pool.
async fn on_every_connection(db: &Db, sqlite: &str, postgres: &str) {
    match db {
        Db::Sqlite(pool) => {
            let mut held = Vec::new();
            for _ in 0..pool.options().get_max_connections() {
                let mut connection = pool.acquire().await.unwrap();
                connection.execute(AssertSqlSafe(sqlite.to_owned())).await.unwrap();
                held.push(connection);
            }
        }
        Db::Postgres(pool) => {
            let mut held = Vec::new();
            for _ in 0..pool.options().get_max_connections() {
                let mut connection = pool.acquire().await.unwrap();
                connection.execute(AssertSqlSafe(postgres.to_owned())).await.unwrap();
                held.push(connection);
            }
        }
    }
}

const VALUE: &str = "ours-canary-77aa";
const MANAGEMENT: &str = "sk-or-v1-management-canary-0123456789abcdef";
const BOARDS: BoardSecret = BoardSecret::OpenRouterManagement;
const WHY: &str = "reason=The+vendor+wants+it+typed";

/// Every function that opens an envelope, by file: [`InUse::refuses`] and [`InUse::goes_on`] ask each of them.
const DECRYPTS: &[&str] =
    &["secrets/board.rs", "secrets/copy.rs", "secrets/deliveries.rs", "secrets/rotate.rs"];

#[test]
fn every_decrypt_is_tried_without_its_entry() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    super::rust_files(&source, &mut files);
    let opens =
        Regex::new(r"(?:^|[^:_a-z])open\(\s*app,|secrets::open\(|envelope::open(?:_board)?\(").unwrap();
    let mut found: Vec<String> = Vec::new();
    for file in files {
        let name = file.strip_prefix(&source).unwrap().display().to_string();
        let inner = name.starts_with("tests/") || name == "secrets/mod.rs" || name == "secrets/envelope.rs";
        if !inner && opens.is_match(&std::fs::read_to_string(&file).unwrap()) {
            found.push(name);
        }
    }
    found.sort();
    assert_eq!(found, DECRYPTS, "a decrypt needs its place in InUse::refuses and its file in DECRYPTS");
}

/// A board in use: a client with a secret that is on its way to a device.
struct InUse {
    fixture: Fixture,
    cookie: String,
    delivery: Delivery,
    client: ClientId,
    slot: SlotId,
    /// Where the secret is copied.
    copy: String,
    /// One more copy, which a second person approved.
    approved: ApprovalId,
}

impl InUse {
    async fn new(db: Db) -> Self {
        let fixture = Fixture::new(db).await;
        let cookie = signed_in(&fixture, Role::Consultant).await;
        let client = fixture.client("Example Client", &["base", "tool"]).await;
        let (_, device_id) = fixture.enrolled(client, "A-UUID").await;
        let slot = fixture.our_slot().await;
        let value = Secret::new(VALUE.to_owned());
        let stored = fixture.get_client(client).await;
        secrets::put(&fixture.app, Fixture::who(), &stored, &slot, &value).await.unwrap();
        let made_of = (&*fixture.app.clock, &*fixture.app.random);
        let (db, root, value) = (&fixture.app.db, &fixture.app.root, Secret::new(MANAGEMENT.to_owned()));
        secrets::put_board(db, root, made_of, Fixture::who(), BOARDS, &value).await.unwrap();
        let mut tx = fixture.app.db.read().await.unwrap();
        let delivery = secrets::for_device(&mut tx, device_id).await.unwrap().remove(0);
        drop(tx);
        let copy = format!("/clients/{client}/secrets/{}/copy", slot.id);
        let approved = approved(&fixture, &cookie, client, slot.id).await;
        let in_use = Self { fixture, cookie, delivery, client, slot: slot.id, copy, approved };
        let (status, page) = in_use.health().await;
        assert_eq!((status, page.as_str()), (StatusCode::OK, "ok"));
        in_use
    }

    async fn health(&self) -> (StatusCode, String) {
        let (parts, page) =
            read(ask(&self.fixture, Method::GET, "/health", None, "http://board.test").await).await;
        (parts.status, page)
    }

    async fn create_client(&self, name: &str) -> (axum::http::response::Parts, String) {
        let form = [("name", name), ("vault_name", "Vault")];
        post(&self.fixture, "/clients/new", &self.cookie, &form).await
    }

    /// While there is trouble: the form, the health page and the decrypt all refuse, for this reason.
    async fn refuses(&self, cause: Cause) {
        let (parts, page) = self.create_client("Refused Client").await;
        assert_eq!(parts.status, StatusCode::SERVICE_UNAVAILABLE, "{page}");
        assert!(page.contains(&escaped(cause.what())) && page.contains(&escaped(cause.remedy())), "{page}");
        let stops = cause.stops_writing() || cause == Cause::Other;
        assert_eq!(page.contains("audit log"), stops, "{page}");
        let retry = parts.headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(retry, cause.retry_after().map(|seconds| seconds.to_string()));
        for _ in 0..2 {
            let (status, page) = self.health().await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{page}");
            assert!(page.contains("audit log") && page.contains(cause.what()), "{page}");
        }
        let refused = secrets::seal(&self.fixture.app, &self.delivery, "digest").await.unwrap_err();
        assert_eq!(behind(&refused), cause);
        let refused = self.open_board().await.unwrap_err();
        assert_eq!(behind(&refused), cause);
        let (status, said) = access_routes::post(&self.fixture, &self.cookie, &self.copy, WHY, SCRIPT).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
        assert!(!said.contains(VALUE) && said.contains(cause.what()), "{said}");
        assert_eq!(said.contains("audit log"), stops, "{said}");
        let approved = format!("/approvals/{}/copy", self.approved);
        let (status, said) = access_routes::post(&self.fixture, &self.cookie, &approved, "", SCRIPT).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
        assert!(!said.contains(VALUE) && said.contains(cause.what()), "{said}");
        let another = Secret::new("ours-another-88bb".to_owned());
        let who = Fixture::who();
        let rotated =
            secrets::rotate(&self.fixture.app, who, self.client, self.slot, &another, "it leaked").await;
        let failure = Failure::from(rotated.unwrap_err());
        assert_eq!(failure.public.status, 503, "{:?}", failure.public);
    }

    async fn open_board(&self) -> Result<Option<Secret<String>>, SecretError> {
        secrets::open_board(&self.fixture.app, Who::job("t"), BOARDS, "a test").await
    }

    /// When it is over: nothing was done meanwhile, the log holds, and the same is done.
    async fn goes_on(&self) {
        let app = &self.fixture.app;
        let mut tx = app.db.read().await.unwrap();
        let names: Vec<_> =
            crate::clients::list(&mut tx).await.unwrap().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["Example Client"]);
        let state = secrets::for_device(&mut tx, self.delivery.device_id).await.unwrap()[0].state;
        assert_eq!(state, DeliveryState::Pending);
        let log = audit::page(&mut tx, None, 1000).await.unwrap();
        let decrypts = [Action::SecretDecrypted, Action::SecretCopied, Action::BoardSecretDecrypted];
        assert!(log.iter().all(|stored| !decrypts.contains(&stored.entry.action)));
        assert!(log.iter().all(|stored| stored.entry.action != Action::LogTried));
        drop(tx);
        self.fixture.clock.advance(Duration::from_secs(11));
        let (status, page) = self.health().await;
        assert_eq!(status, StatusCode::OK, "{page}");
        secrets::seal(app, &self.delivery, "digest").await.unwrap().unwrap();
        assert_eq!(self.open_board().await.unwrap().unwrap().expose(), MANAGEMENT);
        let (status, said) = access_routes::post(&self.fixture, &self.cookie, &self.copy, WHY, SCRIPT).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, VALUE));
        let approved = format!("/approvals/{}/copy", self.approved);
        let (status, said) = access_routes::post(&self.fixture, &self.cookie, &approved, "", SCRIPT).await;
        assert_eq!((status, said.as_str()), (StatusCode::OK, VALUE));
        assert_eq!(self.create_client("Later Client").await.0.status, StatusCode::SEE_OTHER);
        let mut tx = app.db.read().await.unwrap();
        assert!(matches!(audit::verify(&mut tx).await.unwrap(), Verdict::Holds { .. }));
    }
}

/// Has the other consultant approve a copy, and the client's rule switched off again.
async fn approved(fixture: &Fixture, cookie: &str, client: ClientId, slot: SlotId) -> ApprovalId {
    let app = &fixture.app;
    clients::set_second_person(app, Fixture::who(), client, true, "").await.unwrap();
    let ask = format!("/clients/{client}/secrets/{slot}/ask");
    let (status, page) = access_routes::post(fixture, cookie, &ask, WHY, "text/html").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let mut tx = app.db.read().await.unwrap();
    let waiting = approvals::to_decide(&mut tx, fixture.user, app.now()).await.unwrap().remove(0).id;
    drop(tx);
    secrets::decide(app, Fixture::who(), fixture.user, waiting, true).await.unwrap();
    clients::set_second_person(app, Fixture::who(), client, false, "a test").await.unwrap();
    waiting
}

fn behind(refused: &SecretError) -> Cause {
    if let SecretError::Database(error) = refused {
        Cause::of(error)
    } else if let SecretError::Audit(error) = refused {
        error.cause()
    } else {
        panic!("refused for another reason: {refused}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('\'', "&#39;").replace('<', "&#60;").replace('>', "&#62;")
}

#[tokio::test]
async fn a_locked_database() {
    on_both(|db| async move {
        let board = InUse::new(db.clone()).await;
        let other = match &db {
            Db::Sqlite(pool) => {
                let path = pool.connect_options().get_filename().display().to_string();
                Db::connect(&format!("sqlite:{path}")).await.unwrap()
            }
            Db::Postgres(_) => owner_of(&db).await,
        };
        let mut lock = other.write().await.unwrap();
        on!(&mut lock, conn => conn.execute("UPDATE audit_head SET seq = seq").await.map(|_| ())).unwrap();
        board.refuses(Cause::Locked).await;
        drop(lock);
        // A rollback is done by the connection's own task.
        other.close().await;
        board.goes_on().await;
    })
    .await;
}

#[tokio::test]
async fn a_full_database() {
    on_both(|db| async move {
        let board = InUse::new(db.clone()).await;
        let owner = owner_of(&db).await;
        match &db {
            Db::Sqlite(_) => {
                on_every_connection(&db, "PRAGMA max_page_count = 1", "").await;
                // Fill what the file has left, down to where the smallest entry has no room.
                for size in [4096, 512, 64, 0] {
                    let mut written = 0;
                    let full = loop {
                        let mut tx = db.write().await.unwrap();
                        let entry = Entry::new(SystemClock.now(), Who::job("t"), Action::SignedIn)
                            .reason(&"x".repeat(size));
                        if let Err(error) = audit::append(&mut tx, &entry).await {
                            break error;
                        }
                        tx.commit().await.unwrap();
                        written += 1;
                        assert!(written < 1000, "it gets full");
                    };
                    assert_eq!(full.cause(), Cause::Full, "{full}");
                }
            }
            Db::Postgres(_) => {
                run(
                    &owner,
                    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$; \
                     CREATE TRIGGER full_disk BEFORE INSERT ON audit_log \
                     FOR EACH ROW EXECUTE FUNCTION full_disk()",
                )
                .await;
            }
        }
        board.refuses(Cause::Full).await;
        match &db {
            Db::Sqlite(_) => on_every_connection(&db, "PRAGMA max_page_count = 1000000", "").await,
            Db::Postgres(_) => run(&owner, "DROP TRIGGER full_disk ON audit_log").await,
        }
        board.goes_on().await;
    })
    .await;
}

#[tokio::test]
async fn a_read_only_database() {
    on_both(|db| async move {
        let board = InUse::new(db.clone()).await;
        let token = super::access_routes::token(&board.fixture, &[Role::Support], 1).await;
        on_every_connection(&db, "PRAGMA query_only = ON", "SET default_transaction_read_only = on").await;
        board.refuses(Cause::ReadOnly).await;
        // Reading goes on.
        let page =
            ask(&board.fixture, Method::GET, "/clients", Some(&board.cookie), "http://board.test").await;
        assert_eq!(page.status(), StatusCode::OK);
        let path = "/api/v1/state";
        let answer =
            super::access_routes::with_token(&board.fixture, Method::GET, path, &token, &board.cookie).await;
        assert_eq!(answer.status(), StatusCode::OK);
        on_every_connection(&db, "PRAGMA query_only = OFF", "SET default_transaction_read_only = off").await;
        board.goes_on().await;
    })
    .await;
}

#[tokio::test]
async fn a_role_without_its_rights() {
    on_both(|db| async move {
        let Db::Postgres(_) = &db else { return };
        let board = InUse::new(db.clone()).await;
        let owner = owner_of(&db).await;
        run(&owner, "REVOKE INSERT ON audit_log FROM PUBLIC, board_test").await;
        board.refuses(Cause::Refused).await;
        owner.migrate_for(&db).await.unwrap();
        board.goes_on().await;
    })
    .await;
}

#[tokio::test]
async fn a_head_that_disagrees_with_the_log() {
    on_both(|db| async move {
        let board = InUse::new(db.clone()).await;
        let owner = owner_of(&db).await;
        run(&owner, "UPDATE audit_head SET seq = seq + 5").await;
        // Nobody asked for anything yet: the health page finds it by its own look.
        board.fixture.clock.advance(Duration::from_secs(11));
        let (status, page) = board.health().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{page}");
        board.refuses(Cause::Other).await;
        run(&owner, "UPDATE audit_head SET seq = seq - 5").await;
        board.goes_on().await;
    })
    .await;
}

#[test]
fn a_fault_that_is_no_ones_but_the_boards_counts_when_it_keeps_the_log_from_being_written() {
    assert_eq!(Failure::unwritten(Cause::Other, None).trouble(), Some(Cause::Other));
    assert_eq!(Failure::from(AuditError::Write(sqlx::Error::RowNotFound)).trouble(), Some(Cause::Other));
    assert_eq!(Failure::from(sqlx::Error::RowNotFound).trouble(), None);
}

/// A way to the server that can be cut.
struct Way {
    listener: Arc<TcpListener>,
    server: String,
    open: JoinSet<()>,
}

impl Way {
    fn open(&mut self) {
        let (listener, server) = (Arc::clone(&self.listener), self.server.clone());
        self.open.spawn(async move {
            let mut both = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                let mut there = TcpStream::connect(&server).await.unwrap();
                both.spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
    }
}

#[tokio::test]
async fn a_lost_connection() {
    let empty = empty_postgres().await;
    let owner = Db::connect(&empty.owner).await.unwrap();
    let (user, place) = empty.board.rsplit_once('@').unwrap();
    let (server, name) = place.split_once('/').unwrap();
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = format!("{user}@{}/{name}", listener.local_addr().unwrap());
    let mut way = Way { listener, server: server.to_owned(), open: JoinSet::new() };
    way.open();
    let db = Db::connect(&address).await.unwrap();
    owner.migrate_for(&db).await.unwrap();
    let board = InUse::new(db.clone()).await;
    way.open.shutdown().await;
    board.refuses(Cause::Unreachable).await;
    way.open();
    board.goes_on().await;
    db.close().await;
}

/// A failover or a restart of the server ends the connections that the pool holds; the next request needs a new one.
#[tokio::test]
async fn ended_connections_are_made_anew_and_nothing_leaves_meanwhile() {
    on_both(|db| async move {
        let Db::Postgres(_) = &db else { return };
        let board = InUse::new(db.clone()).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                   AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        for _ in 0..3 {
            run(&db, end).await;
            let (status, said) =
                access_routes::post(&board.fixture, &board.cookie, &board.copy, WHY, SCRIPT).await;
            let copied = status == StatusCode::OK;
            assert!(copied || status == StatusCode::SERVICE_UNAVAILABLE, "{status} {said}");
            assert!(copied || !said.contains(VALUE), "{said}");
            let mut tx = db.read().await.unwrap();
            let log = audit::page(&mut tx, None, 1000).await.unwrap();
            let entries = log.iter().filter(|stored| stored.entry.action == Action::SecretCopied).count();
            assert!(!copied || entries > 0, "no value without its entry");
        }
        board.fixture.clock.advance(Duration::from_secs(11));
        assert_eq!(board.health().await.0, StatusCode::OK);
        secrets::seal(&board.fixture.app, &board.delivery, "digest").await.unwrap().unwrap();
    })
    .await;
}
