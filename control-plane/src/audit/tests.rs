use shared::time::{Clock as _, SystemClock};
use sqlx::{AssertSqlSafe, Executor as _};

use super::{Action, Entry, Verdict, Watch, Who, append, head, verify};
use crate::db::testing::{on_both, owner_of};
use crate::db::{Cause, Db, Tx};
use crate::on;

async fn written(db: &Db, count: u64) {
    for n in 1..=count {
        written_on(db, n).await;
    }
}

async fn written_on(db: &Db, n: u64) {
    let mut tx = db.write().await.unwrap();
    let entry = Entry::new(SystemClock.now(), Who::cli(), Action::SignedIn).reason("emoji 🙂 and עברית");
    assert_eq!(append(&mut tx, &entry).await.unwrap(), n);
    tx.commit().await.unwrap();
}

async fn tried(db: &Db, sql: &str) -> Result<(), sqlx::Error> {
    let mut tx = db.write().await?;
    on!(&mut tx, conn => conn.execute(AssertSqlSafe(sql.to_owned())).await.map(|_| ()))?;
    tx.commit().await
}

#[tokio::test]
async fn entries_chain_and_the_head_follows() {
    on_both(|db| async move {
        written(&db, 3).await;
        let mut tx = db.read().await.unwrap();
        assert_eq!(verify(&mut tx).await.unwrap(), Verdict::Holds { entries: 3 });
        assert_eq!(head(&mut tx).await.unwrap().seq, 3);
    })
    .await;
}

const COLUMNS: &str = "seq, epoch, previous, hash, canonical, at, action";

/// What changes the log or takes from it, whoever tries.
fn changes(db: &Db) -> Vec<String> {
    let mut changes: Vec<String> = [
        "UPDATE audit_log SET canonical = 'x'",
        "UPDATE audit_log SET seq = 9 WHERE seq = 2",
        "DELETE FROM audit_log WHERE seq = 2",
        "DELETE FROM audit_log",
    ]
    .map(ToOwned::to_owned)
    .into();
    let copied = |verb: &str, seq: &str, canonical: &str, rest: &str| {
        format!(
            "{verb} INTO audit_log ({COLUMNS}) SELECT {seq}, epoch, previous, hash, {canonical}, at, action FROM audit_log WHERE seq = 2 {rest}"
        )
    };
    changes.push(copied("INSERT", "3", "canonical", ""));
    match db {
        Db::Sqlite(_) => {
            changes.push(copied("INSERT OR REPLACE", "2", "'x'", ""));
            let replaced = copied("INSERT OR REPLACE", "1", "'x'", "");
            changes.push(format!("PRAGMA recursive_triggers = OFF; {replaced}"));
        }
        Db::Postgres(_) => {
            changes.push(copied("INSERT", "2", "'x'", "ON CONFLICT (seq) DO UPDATE SET canonical = 'x'"));
            changes.push("TRUNCATE audit_log".to_owned());
            changes.push("TRUNCATE audit_log, audit_head CASCADE".to_owned());
            // Tables that would stand before the real ones in the trigger.
            let shadow = "CREATE TEMP TABLE audit_head (seq BIGINT); INSERT INTO audit_head VALUES (7); \
                          CREATE TEMP TABLE audit_log (seq BIGINT); INSERT INTO pg_temp.audit_log VALUES (6)";
            changes.push(format!(
                "{shadow}; INSERT INTO public.audit_log ({COLUMNS}) SELECT 7, epoch, previous, hash, canonical, at, action FROM public.audit_log WHERE seq = 2"
            ));
        }
    }
    changes
}

#[tokio::test]
async fn nothing_changes_or_goes() {
    on_both(|db| async move {
        written(&db, 2).await;
        for who in [&db, &owner_of(&db).await] {
            for sql in changes(&db) {
                let refused = tried(who, &sql).await;
                assert!(refused.is_err(), "{sql}");
            }
        }
        let mut tx = db.read().await.unwrap();
        assert_eq!(verify(&mut tx).await.unwrap(), Verdict::Holds { entries: 2 });
        drop(tx);
        written_on(&db, 3).await;
    })
    .await;
}

#[tokio::test]
async fn the_boards_role_cannot_take_the_locks_off() {
    on_both(|db| async move {
        let Db::Postgres(_) = &db else { return };
        written(&db, 2).await;
        for sql in [
            "DROP TRIGGER audit_log_refuses_update ON audit_log",
            "ALTER TABLE audit_log DISABLE TRIGGER ALL",
            "ALTER TABLE audit_log ADD COLUMN more TEXT",
            "ALTER TABLE audit_log OWNER TO CURRENT_USER",
            "DROP TABLE audit_log",
            "DROP FUNCTION audit_log_is_append_only() CASCADE",
            "CREATE OR REPLACE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
            "CREATE TRIGGER more AFTER INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()",
            "CREATE RULE more AS ON INSERT TO audit_log DO INSTEAD NOTHING",
            "SET session_replication_role = replica",
            "CREATE TABLE public.more (id BIGINT)",
            "DELETE FROM audit_head",
            "INSERT INTO audit_head (singleton, epoch, seq) VALUES (1, 1, 0)",
            "UPDATE _sqlx_migrations SET version = version",
            "TRUNCATE clients",
        ] {
            let refused = tried(&db, sql).await.expect_err(sql);
            assert_eq!(Cause::of(&refused), Cause::Refused, "{sql}: {refused}");
        }
        // PostgreSQL only warns that nothing was granted.
        tried(&db, "GRANT UPDATE ON audit_log TO CURRENT_USER").await.unwrap();
        let refused = tried(&db, "UPDATE audit_log SET canonical = 'x'").await.unwrap_err();
        assert_eq!(Cause::of(&refused), Cause::Refused, "{refused}");
        let mut tx = db.read().await.unwrap();
        assert_eq!(verify(&mut tx).await.unwrap(), Verdict::Holds { entries: 2 });
    })
    .await;
}

#[tokio::test]
async fn a_changed_byte_is_named() {
    on_both(|db| async move {
        written(&db, 4).await;
        let owner = owner_of(&db).await;
        let drop = match db {
            Db::Sqlite(_) => "DROP TRIGGER audit_log_refuses_update",
            Db::Postgres(_) => "DROP TRIGGER audit_log_refuses_update ON audit_log",
        };
        tried(&owner, drop).await.unwrap();
        tried(
            &owner,
            "UPDATE audit_log SET canonical = replace(canonical, 'signed-in', 'signed-on') WHERE seq = 3",
        )
        .await
        .unwrap();
        let mut tx = db.read().await.unwrap();
        assert!(matches!(verify(&mut tx).await.unwrap(), Verdict::Broken { seq: 3, .. }));
    })
    .await;
}

#[tokio::test]
async fn a_cut_end_and_a_changed_column_are_named() {
    on_both(|db| async move {
        written(&db, 3).await;
        let owner = owner_of(&db).await;
        let (update, delete) = match db {
            Db::Sqlite(_) => {
                ("DROP TRIGGER audit_log_refuses_update", "DROP TRIGGER audit_log_refuses_delete")
            }
            Db::Postgres(_) => (
                "DROP TRIGGER audit_log_refuses_update ON audit_log",
                "DROP TRIGGER audit_log_refuses_delete ON audit_log",
            ),
        };
        tried(&owner, update).await.unwrap();
        tried(&owner, delete).await.unwrap();
        tried(&owner, "UPDATE audit_log SET action = 'signed-out' WHERE seq = 2").await.unwrap();
        let mut tx = db.read().await.unwrap();
        assert!(matches!(verify(&mut tx).await.unwrap(), Verdict::Broken { seq: 2, .. }));
        drop(tx);
        tried(&owner, "UPDATE audit_log SET action = 'signed-in' WHERE seq = 2").await.unwrap();
        tried(&owner, "DELETE FROM audit_log WHERE seq = 3").await.unwrap();
        let mut tx = db.read().await.unwrap();
        assert!(matches!(verify(&mut tx).await.unwrap(), Verdict::Broken { seq: 3, .. }));
    })
    .await;
}

#[tokio::test]
async fn writers_at_the_same_time_come_one_after_another() {
    on_both(|db| async move {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let db = db.clone();
            writers.spawn(async move {
                let mut tx: Tx = db.write().await.unwrap();
                append(&mut tx, &Entry::new(SystemClock.now(), Who::job("test"), Action::SignedIn))
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        let mut tx = db.read().await.unwrap();
        assert_eq!(verify(&mut tx).await.unwrap(), Verdict::Holds { entries: 20 });
    })
    .await;
}

#[tokio::test]
async fn a_view_answers_while_the_whole_chain_is_walked() {
    on_both(|db| async move {
        let mut tx = db.write().await.unwrap();
        for _ in 0..6000 {
            append(&mut tx, &Entry::new(SystemClock.now(), Who::cli(), Action::SignedIn)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let watch = Watch::default();
        let job = tokio::spawn({
            let (watch, db) = (watch.clone(), db.clone());
            async move { watch.walk_to_the_end(&db, SystemClock.now()).await.unwrap() }
        });
        while watch.mark().try_lock().is_ok() {
            assert!(!job.is_finished());
            tokio::task::yield_now().await;
        }
        let view = watch.walk_on(&db, SystemClock.now(), 500).await.unwrap();
        assert!(!job.is_finished() && view.up_to < view.of / 2, "it waits for a slice: {view:?}");
        let walked = job.await.unwrap();
        assert_eq!((walked.up_to, walked.read, walked.broken), (6000, 6000, None), "each entry once");
    })
    .await;
}
