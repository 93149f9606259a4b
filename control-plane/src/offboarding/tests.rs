use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::SigningKey as _;
use shared::ids::{ClientId, DeliveryId, DeviceId};
use shared::protocol::link::Paste;
use shared::protocol::wipe::{Leave, WipeReceipt, WipedSlot};
use shared::random::SystemRandom;
use shared::secret::Secret;

use super::{Rewritten, due, end, hold, purge, purge_due, reactivate, release, rewrite, set_days};
use crate::audit::{self, Action, Who};
use crate::clients::engagement::{EngagementState, engagement};
use crate::clients::{self, CreateError, Scope};
use crate::db::Db;
use crate::db::testing::{on_both, owner_of};
use crate::enrollment::{self, DecideError, DeviceState, EnrollError};
use crate::error::Failure;
use crate::on;
use crate::runbook::{self, plan};
use crate::secrets::{self, SecretError, Way};
use crate::testing::{Fixture, TestDevice};

const DAY: Duration = Duration::from_secs(24 * 3600);
const VALUE: &str = "ours-canary-7f31c2";

async fn client_with_secret(fixture: &Fixture) -> ClientId {
    let id = fixture.client("Example Client", &["tool"]).await;
    put(fixture, id).await.unwrap();
    id
}

async fn put(fixture: &Fixture, id: ClientId) -> Result<u64, SecretError> {
    let (client, slot) = (fixture.get_client(id).await, fixture.our_slot().await);
    secrets::put(&fixture.app, Fixture::who(), &client, &slot, &Secret::new(VALUE.to_owned())).await
}

async fn state(fixture: &Fixture, id: ClientId) -> EngagementState {
    let mut tx = fixture.app.db.read().await.unwrap();
    engagement(&mut tx, id).await.unwrap().state
}

async fn device_state(fixture: &Fixture, id: DeviceId) -> DeviceState {
    let mut tx = fixture.app.db.read().await.unwrap();
    enrollment::get_device(&mut tx, id).await.unwrap().state
}

async fn actions(fixture: &Fixture, action: Action) -> usize {
    let mut tx = fixture.app.db.read().await.unwrap();
    let entries = audit::page(&mut tx, None, 1000).await.unwrap();
    entries.iter().filter(|stored| stored.entry.action == action).count()
}

async fn purge_now(fixture: &Fixture) -> Vec<super::Purged> {
    purge_due(&fixture.app.db, &Who::job("purge"), fixture.app.now(), None).await.unwrap()
}

/// What the database holds of a client that a purge has to erase: the salt and the envelope.
async fn canaries(fixture: &Fixture, id: ClientId) -> [Vec<u8>; 2] {
    let salt = fixture.get_client(id).await.salt.unwrap().to_vec();
    let mut tx = fixture.app.db.read().await.unwrap();
    let of = concat!("SELECT encrypted_value FROM client_credentials WHERE client_id", " = $1");
    let envelope: Vec<u8> =
        on!(&mut tx, conn => sqlx::query_scalar(of).bind(id).fetch_one(conn).await).unwrap();
    [salt, envelope]
}

/// The files that hold this database: all of SQLite's, the purged tables' of PostgreSQL.
async fn files(db: &Db) -> Vec<PathBuf> {
    match db {
        Db::Sqlite(pool) => {
            let main = pool.connect_options().get_filename().to_owned();
            let beside = |ending: &str| PathBuf::from(format!("{}{ending}", main.display()));
            [main.clone(), beside("-wal"), beside("-shm")].into_iter().filter(|file| file.exists()).collect()
        }
        Db::Postgres(_) => postgres_files(db).await,
    }
}

async fn postgres_files(db: &Db) -> Vec<PathBuf> {
    let server = std::env::var("DATABASE_URL_POSTGRES").unwrap();
    let Db::Postgres(admin) = Db::connect(&server).await.unwrap() else { panic!("it is PostgreSQL") };
    sqlx::raw_sql("CHECKPOINT").execute(&admin).await.unwrap();
    let folder: String =
        sqlx::query_scalar(concat!("SHOW ", "data_directory")).fetch_one(&admin).await.unwrap();
    admin.close().await;
    let Db::Postgres(pool) = db else { panic!("it is PostgreSQL") };
    let of = concat!(
        "SELECT pg_relation_filepath(c.oid) FROM pg_class c WHERE c.relname IN ('clients', 'client_credentials') ",
        "UNION ALL SELECT pg_relation_filepath(c.reltoastrelid) FROM pg_class c ",
        "WHERE c.relname IN ('clients', 'client_credentials') AND c.reltoastrelid <> 0"
    );
    let paths: Vec<String> = sqlx::query_scalar(of).fetch_all(pool).await.unwrap();
    assert!(paths.len() >= 2, "{paths:?}");
    paths.iter().map(|path| Path::new(&folder).join(path)).collect()
}

/// How many of the canaries are in the database's files.
async fn found(db: &Db, canaries: &[Vec<u8>; 2]) -> usize {
    let mut bytes = Vec::new();
    for file in files(db).await {
        bytes.extend(std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    canaries.iter().filter(|canary| bytes.windows(canary.len()).any(|window| window == *canary)).count()
}

/// Other tests use the same server: what writes there meanwhile holds a rewrite up.
async fn rewritten(fixture: &Fixture, owner: &Db) -> Rewritten {
    for _ in 0..20 {
        let said = rewrite(&fixture.app.db, owner, &Who::job("purge"), fixture.app.now()).await.unwrap();
        if said != Rewritten::Busy {
            return said;
        }
    }
    Rewritten::Busy
}

#[tokio::test]
async fn after_the_purge_neither_the_envelope_nor_the_salt_is_in_the_databases_files() {
    on_both(|db| async move {
        let fixture = Fixture::new(db.clone()).await;
        let other = fixture.client("Other Client", &["tool"]).await;
        put(&fixture, other).await.unwrap();
        let others = canaries(&fixture, other).await;
        let id = client_with_secret(&fixture).await;
        let canaries = canaries(&fixture, id).await;
        assert_eq!(found(&db, &canaries).await, 2, "the scan finds them before");
        end(&fixture.app, Fixture::who(), id, false).await.unwrap();
        fixture.clock.advance(30 * DAY - Duration::from_secs(1));
        assert!(purge_now(&fixture).await.is_empty(), "not before its day");
        fixture.clock.advance(Duration::from_secs(1));
        let purged = purge_now(&fixture).await;
        assert_eq!((purged.len(), purged[0].client_id, purged[0].secrets), (1, id, 1));
        assert!(purge_now(&fixture).await.is_empty(), "once");
        let job = Who::job("purge");
        if let Db::Postgres(_) = db {
            let kept = rewrite(&db, &db, &job, fixture.app.now()).await.unwrap();
            assert_eq!(kept, Rewritten::NotOwner, "the board's role may not");
            assert!(found(&db, &canaries).await > 0, "dead rows stay until the rewrite");
        }
        let owner = owner_of(&db).await;
        assert_eq!(rewritten(&fixture, &owner).await, Rewritten::Done);
        assert_eq!(rewritten(&fixture, &owner).await, Rewritten::Nothing);
        assert_eq!(found(&db, &canaries).await, 0);
        assert_eq!(found(&db, &others).await, 2, "another client keeps its own");
        assert_eq!(fixture.get_client(id).await.salt, None);
        assert_eq!(actions(&fixture, Action::ClientPurged).await, 1);
        assert_eq!(actions(&fixture, Action::PurgeRewritten).await, 1);
    })
    .await;
}

#[tokio::test]
async fn tables_are_not_rewritten_while_somebody_still_sees_what_was_purged() {
    on_both(|db| async move {
        let Db::Postgres(_) = db else { return };
        let fixture = Fixture::new(db.clone()).await;
        let id = client_with_secret(&fixture).await;
        let canaries = canaries(&fixture, id).await;
        set_days(&fixture.app, Fixture::who(), id, "0").await.unwrap();
        let mut export = db.read().await.unwrap();
        secrets::stored(&mut export, id).await.unwrap();
        end(&fixture.app, Fixture::who(), id, false).await.unwrap();
        assert_eq!(purge_now(&fixture).await.len(), 1);
        let (owner, job, now) = (owner_of(&db).await, Who::job("purge"), fixture.app.now());
        assert_eq!(rewrite(&db, &owner, &job, now).await.unwrap(), Rewritten::Busy);
        assert_eq!(secrets::stored(&mut export, id).await.unwrap().len(), 1, "it reads one moment");
        drop(export);
        assert_eq!(rewritten(&fixture, &owner).await, Rewritten::Done);
        assert_eq!(found(&db, &canaries).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_hold_stops_the_purge_and_a_reactivated_client_has_its_secrets_or_after_the_purge_none() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let id = client_with_secret(&fixture).await;
        let who = Fixture::who;
        let refused = hold(app, who(), id, "Too early").await.unwrap_err();
        assert_eq!(refused.public.status, 409);
        set_days(app, who(), id, "7").await.unwrap();
        for wrong in ["-1", "366", "soon", ""] {
            assert_eq!(set_days(app, who(), id, wrong).await.unwrap_err().public.status, 422, "{wrong}");
        }
        end(app, who(), id, false).await.unwrap();
        assert_eq!(end(app, who(), id, false).await.unwrap_err().public.status, 409, "ends once");
        assert_eq!(set_days(app, who(), id, "9").await.unwrap_err().public.status, 409, "fixed at the end");
        assert!(put(&fixture, id).await.unwrap_err().to_string().contains("has ended"));
        let code = enrollment::make_join_code(app, who(), fixture.user, id).await;
        assert_eq!(code.unwrap_err().public.kind, "urn:board:engagement-ended");
        hold(app, who(), id, "A dispute").await.unwrap();
        fixture.clock.advance(8 * DAY);
        assert!(purge_now(&fixture).await.is_empty());
        release(app, who(), id).await.unwrap();
        assert_eq!(release(app, who(), id).await.unwrap_err().public.status, 409);
        assert_eq!(due(&app.db, app.now(), None).await.unwrap().len(), 1);
        let stranger = fixture.client("Other Client", &["tool"]).await;
        assert!(due(&app.db, app.now(), Some(stranger)).await.unwrap().is_empty());

        reactivate(app, who(), id).await.unwrap();
        assert_eq!(reactivate(app, who(), id).await.unwrap_err().public.status, 409);
        assert_eq!(state(&fixture, id).await, EngagementState::Active);
        let mut tx = app.db.read().await.unwrap();
        assert_eq!(secrets::stored(&mut tx, id).await.unwrap().len(), 1, "not purged: still there");
        drop(tx);
        assert_eq!(put(&fixture, id).await.unwrap(), 2);

        set_days(app, who(), id, "0").await.unwrap();
        end(app, who(), id, true).await.unwrap();
        assert_eq!(purge_now(&fixture).await.len(), 1, "zero days: at once");
        assert_eq!(state(&fixture, id).await, EngagementState::Purged);
        reactivate(app, who(), id).await.unwrap();
        assert!(fixture.get_client(id).await.salt.is_some());
        assert_eq!(put(&fixture, id).await.unwrap(), 1, "empty slots begin anew");
    })
    .await;
}

async fn wiped(fixture: &Fixture, id: DeviceId, device: &TestDevice) -> WipeReceipt {
    let mut tx = fixture.app.db.read().await.unwrap();
    let wipe = enrollment::wipe_for(&mut tx, id).await.unwrap().unwrap();
    let slot = WipedSlot { component: "tool".into(), slot: "OUR_KEY".into() };
    let mut receipt = WipeReceipt {
        wipe_id: wipe.wipe_id,
        removed: vec![slot],
        left: Vec::new(),
        time: fixture.app.now(),
        signature: Vec::new(),
    };
    receipt.signature = device.tls.sign(&receipt.signed_bytes(fixture.app.board_id, id)).unwrap();
    receipt
}

async fn apply(fixture: &Fixture, id: DeviceId, receipt: &WipeReceipt) -> bool {
    let mut tx = fixture.app.db.write().await.unwrap();
    let device = enrollment::get_device(&mut tx, id).await.unwrap();
    let now = fixture.app.now();
    let applied =
        enrollment::apply_wiped(&mut tx, fixture.app.board_id, &device, receipt, "192.0.2.17", now).await;
    tx.commit().await.unwrap();
    applied.is_ok()
}

#[tokio::test]
async fn a_signed_receipt_revokes_the_device_and_without_one_the_purge_does() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let id = client_with_secret(&fixture).await;
        let (device, first) = fixture.enrolled(id, "A-UUID").await;
        let (stranger, second) = fixture.enrolled(id, "B-UUID").await;
        end(app, Fixture::who(), id, false).await.unwrap();
        assert_eq!(device_state(&fixture, first).await, DeviceState::Leaving);
        let receipt = wiped(&fixture, first, &device).await;
        let forged = wiped(&fixture, first, &stranger).await;
        assert!(!apply(&fixture, first, &forged).await, "another key");
        let changed = WipeReceipt { removed: Vec::new(), ..receipt.clone() };
        assert!(!apply(&fixture, first, &changed).await, "another text");
        assert!(!apply(&fixture, second, &receipt).await, "another device");
        assert_eq!(device_state(&fixture, first).await, DeviceState::Leaving);
        assert!(apply(&fixture, first, &receipt).await);
        assert_eq!(device_state(&fixture, first).await, DeviceState::Revoked);
        assert_eq!(actions(&fixture, Action::DeviceWiped).await, 1);
        fixture.clock.advance(30 * DAY);
        purge_now(&fixture).await;
        assert_eq!(device_state(&fixture, second).await, DeviceState::Revoked);
        let mut tx = app.db.read().await.unwrap();
        let asked = enrollment::wipes_of(&mut tx, id).await.unwrap();
        let confirmed: Vec<_> = asked.iter().filter(|asked| asked.confirmed_at.is_some()).collect();
        assert_eq!((asked.len(), confirmed.len(), confirmed[0].device_id), (2, 1, first));
    })
    .await;
}

#[tokio::test]
async fn a_device_that_asks_to_leave_is_leaving_once_and_the_client_stays() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let id = client_with_secret(&fixture).await;
        let (_, device) = fixture.enrolled(id, "A-UUID").await;
        for _ in 0..2 {
            enrollment::ask_to_leave(app, device, &Leave { pasted: true }, "192.0.2.17").await.unwrap();
        }
        assert_eq!(device_state(&fixture, device).await, DeviceState::Leaving);
        assert_eq!(state(&fixture, id).await, EngagementState::Active);
        assert_eq!(actions(&fixture, Action::DeviceLeaving).await, 1);
        let mut tx = app.db.read().await.unwrap();
        assert!(enrollment::wipe_for(&mut tx, device).await.unwrap().unwrap().pasted);
    })
    .await;
}

#[tokio::test]
async fn the_job_purges_by_itself_while_it_has_the_lease() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let id = client_with_secret(&fixture).await;
        purge::round(app, "first").await.unwrap();
        end(app, Fixture::who(), id, false).await.unwrap();
        fixture.clock.advance(30 * DAY);
        purge::round(app, "second").await.unwrap();
        assert_eq!(state(&fixture, id).await, EngagementState::Purged, "the first's lease is over");
        let next = fixture.client("Other Client", &["tool"]).await;
        set_days(app, Fixture::who(), next, "0").await.unwrap();
        end(app, Fixture::who(), next, false).await.unwrap();
        purge::round(app, "first").await.unwrap();
        assert_eq!(state(&fixture, next).await, EngagementState::Ending, "the second has the lease");
        purge::round(app, "second").await.unwrap();
        assert_eq!(state(&fixture, next).await, EngagementState::Purged);
    })
    .await;
}

fn kind(failure: impl Into<Failure>) -> String {
    failure.into().public.kind
}

#[tokio::test]
async fn an_ended_client_gets_nothing_any_more_and_is_told_so() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let (app, who) = (&fixture.app, Fixture::who);
        let id = client_with_secret(&fixture).await;
        let slot = fixture.our_slot().await.id;
        let (_, device_id) = fixture.enrolled(id, "A-UUID").await;
        let device = fixture.with_runbook(device_id).await;
        let _on = app.links.open(device_id, app.now());
        let mut tx = app.db.read().await.unwrap();
        let made = runbook::of_device(&mut tx, device_id).await.unwrap().unwrap();
        let step = runbook::steps(&mut tx, made.id).await.unwrap()[0].id;
        drop(tx);
        let asking = TestDevice::new("B-UUID", app.now());
        let answer = asking.join(app, &fixture.code(id).await).await.unwrap();
        let typed = asking.fingerprint(app, &answer);
        let code = fixture.code(id).await;
        let paste = || Paste {
            delivery_id: DeliveryId::new(&*app.clock, &SystemRandom),
            component: "tool".into(),
            slot: "THEIR_TOKEN".into(),
            expires: app.now().after(Duration::from_secs(60)),
            sealed: vec![1; 64],
        };
        end(app, who(), id, false).await.unwrap();

        let next = Secret::new("ours-another-value".to_owned());
        let scope = Scope { components: ["base".to_owned()].into(), ..Scope::default() };
        let Err(CreateError::Failure(changed)) = clients::choose_scope(app, who(), id, &scope).await else {
            panic!("its scope changed");
        };
        let approved = enrollment::approve(app, who(), fixture.user, answer.enrollment_id, &typed).await;
        let Err(DecideError::Reason(approved)) = approved else { panic!("{approved:?}") };
        let refused = [
            kind(put(&fixture, id).await.unwrap_err()),
            kind(secrets::rotate(app, who(), id, slot, &next, "exposed").await.unwrap_err()),
            kind(*changed),
            kind(*approved),
            kind(runbook::pause(app, who(), &device, "lunch").await.unwrap_err()),
            kind(runbook::resume(app, who(), &device).await.unwrap_err()),
            kind(plan::ask_plan(app, who(), &device).await.unwrap_err()),
            kind(runbook::retry(app, who(), &device, step).await.unwrap_err()),
            kind(runbook::skip(app, who(), &device, step, "not wanted").await.unwrap_err()),
            kind(runbook::undo::undo(app, who(), &device, step, "not wanted").await.unwrap_err()),
            kind(runbook::mark(app, who(), &device, step).await.unwrap_err()),
            kind(secrets::relay(app, who(), Way::Browser, device_id, paste()).await.unwrap_err()),
            kind(secrets::relay(app, who(), Way::CommandLine, device_id, paste()).await.unwrap_err()),
            kind(secrets::recipient(app, device_id).await.unwrap_err()),
            kind(enrollment::make_join_code(app, who(), fixture.user, id).await.unwrap_err()),
        ];
        for (at, kind) in refused.iter().enumerate() {
            assert_eq!(kind, "urn:board:engagement-ended", "number {at}");
        }
        let late = TestDevice::new("C-UUID", app.now()).join(app, &code).await;
        assert!(matches!(late, Err(EnrollError::Code)), "codes of before are void: {late:?}");
        let mut tx = app.db.read().await.unwrap();
        assert_eq!(secrets::stored(&mut tx, id).await.unwrap()[0].version, 1);
        drop(tx);
        assert_eq!(actions(&fixture, Action::SecretDecrypted).await, 0, "nothing was opened to be compared");
    })
    .await;
}

/// Columns with bytes that are nobody's secret, or not one client's; what is derived from a client's salt can't be made
/// again without it.
const NOT_A_CLIENTS: &[&str] = &[
    "api_tokens.token_hash",
    "audit_alarms.hash",
    "audit_log.hash",
    "audit_log.previous",
    "authorities.certificate",
    "authorities.proof",
    "authorities.wrapped_key",
    "board_secrets.encrypted_value",
    "catalog_bundles.payload",
    "catalog_bundles.signature",
    "enrollments.certificate",
    "enrollments.nonce",
    "enrollments.sealing_public_key",
    "enrollments.serial_current",
    "enrollments.serial_issued",
    "enrollments.tls_spki",
    "join_codes.code_hmac",
    "kept_keys.sealed",
    "key_successions.payload",
    "key_successions.signature",
    "passkey_challenges.binding",
    "passkeys.credential_id",
    "rekey_lease.holder",
    "release_pieces.bytes",
    "releases.payload",
    "releases.signature",
    "root_keys.wrapped",
    "sessions.token_hash",
    "sign_in_links.token_hash",
];

const ERASED: &[&str] = &["client_credentials.encrypted_value", "clients.salt"];

#[tokio::test]
async fn every_column_that_can_hold_a_ciphertext_is_erased_by_the_purge_or_is_no_clients() {
    on_both(|db| async move {
        // The types of SQLite don't tell an id from other bytes.
        let Db::Postgres(_) = db else { return };
        let Db::Postgres(owner) = owner_of(&db).await else { panic!("it is PostgreSQL") };
        let columns = concat!(
            "SELECT table_name || '.' || column_name FROM information_schema.columns ",
            "WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_sqlx%' AND (data_type = 'bytea' ",
            "OR (data_type = 'text' AND column_name ~ '(sealed|wrapped|encrypt|cipher|secret_value)')) ORDER BY 1"
        );
        let found: Vec<String> = sqlx::query_scalar(columns).fetch_all(&owner).await.unwrap();
        owner.close().await;
        let listed = |column: &String| NOT_A_CLIENTS.contains(&column.as_str());
        let erased: Vec<&String> = found.iter().filter(|column| !listed(column)).collect();
        assert_eq!(
            erased, ERASED,
            "a new column needs its place: erased by the purge and its table in purge::TABLES, or in NOT_A_CLIENTS"
        );
        for column in NOT_A_CLIENTS {
            assert!(found.iter().any(|found| found == column), "{column} is gone: take it off the list");
        }
        let mut tables: Vec<&str> = erased.iter().map(|column| column.split('.').next().unwrap()).collect();
        tables.dedup();
        assert_eq!(tables, purge::TABLES, "the files of these tables are rewritten");
    })
    .await;
}
