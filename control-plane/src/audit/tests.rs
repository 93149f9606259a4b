use shared::time::{Clock as _, SystemClock};
use sqlx::{AssertSqlSafe, Executor as _};

use super::{Action, Entry, Verdict, Who, append, head, verify};
use crate::db::testing::on_both;
use crate::db::{Db, Tx};
use crate::on;

async fn written(db: &Db, count: u64) {
    for n in 1..=count {
        let mut tx = db.write().await.unwrap();
        let entry = Entry::new(SystemClock.now(), Who::cli(), Action::SignedIn).reason("emoji 🙂 and עברית");
        assert_eq!(append(&mut tx, &entry).await.unwrap(), n);
        tx.commit().await.unwrap();
    }
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

#[tokio::test]
async fn nothing_changes_or_goes() {
    on_both(|db| async move {
        written(&db, 2).await;
        let columns = "seq, epoch, previous, hash, canonical, at, action";
        let mut attempts = vec![
            "UPDATE audit_log SET canonical = 'x'".to_owned(),
            "UPDATE audit_log SET seq = 9 WHERE seq = 2".to_owned(),
            "DELETE FROM audit_log WHERE seq = 2".to_owned(),
            "DELETE FROM audit_log".to_owned(),
            format!("INSERT INTO audit_log ({columns}) SELECT 3, epoch, previous, hash, canonical, at, action FROM audit_log WHERE seq = 2"),
        ];
        match db {
            Db::Sqlite(_) => {
                attempts.push(format!("INSERT OR REPLACE INTO audit_log ({columns}) SELECT 2, epoch, previous, hash, 'x', at, action FROM audit_log WHERE seq = 2"));
                attempts.push(format!("PRAGMA recursive_triggers = OFF; INSERT OR REPLACE INTO audit_log ({columns}) SELECT 1, epoch, previous, hash, 'x', at, action FROM audit_log WHERE seq = 2"));
            }
            Db::Postgres(_) => {
                attempts.push(format!("INSERT INTO audit_log ({columns}) SELECT 2, epoch, previous, hash, 'x', at, action FROM audit_log WHERE seq = 2 ON CONFLICT (seq) DO UPDATE SET canonical = 'x'"));
                attempts.push("TRUNCATE audit_log".to_owned());
            }
        }
        for sql in attempts {
            let refused = tried(&db, &sql).await;
            assert!(refused.is_err(), "{sql}");
        }
        let mut tx = db.read().await.unwrap();
        assert_eq!(verify(&mut tx).await.unwrap(), Verdict::Holds { entries: 2 });
    })
    .await;
}

#[tokio::test]
async fn a_changed_byte_is_named() {
    on_both(|db| async move {
        written(&db, 4).await;
        let drop = match db {
            Db::Sqlite(_) => "DROP TRIGGER audit_log_refuses_update",
            Db::Postgres(_) => "DROP TRIGGER audit_log_refuses_update ON audit_log",
        };
        tried(&db, drop).await.unwrap();
        tried(
            &db,
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
        let (update, delete) = match db {
            Db::Sqlite(_) => {
                ("DROP TRIGGER audit_log_refuses_update", "DROP TRIGGER audit_log_refuses_delete")
            }
            Db::Postgres(_) => (
                "DROP TRIGGER audit_log_refuses_update ON audit_log",
                "DROP TRIGGER audit_log_refuses_delete ON audit_log",
            ),
        };
        tried(&db, update).await.unwrap();
        tried(&db, delete).await.unwrap();
        tried(&db, "UPDATE audit_log SET action = 'signed-out' WHERE seq = 2").await.unwrap();
        let mut tx = db.read().await.unwrap();
        assert!(matches!(verify(&mut tx).await.unwrap(), Verdict::Broken { seq: 2, .. }));
        drop(tx);
        tried(&db, "UPDATE audit_log SET action = 'signed-in' WHERE seq = 2").await.unwrap();
        tried(&db, "DELETE FROM audit_log WHERE seq = 3").await.unwrap();
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
