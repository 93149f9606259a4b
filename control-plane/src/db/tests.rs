use std::path::{Path, PathBuf};

use regex::Regex;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use super::testing::{empty_postgres, on_both, on_sqlite, owner_of};
use super::{Cause, ConnectError, Db, Ownership, Tx, without_password};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The SQL texts of all `query…("…")` calls, with the file that holds each.
fn statements() -> Vec<(PathBuf, String)> {
    let call = Regex::new(r#"(?s)query(?:_as|_scalar)?(?:::<[^(]*>)?\(\s*"((?:[^"\\]|\\.)*)""#).unwrap();
    let comment = Regex::new(r"(?m)^\s*//.*$").unwrap();
    let continued = Regex::new(r"\\\n\s*").unwrap();
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut found = Vec::new();
    for file in files {
        let text = comment.replace_all(&std::fs::read_to_string(&file).unwrap(), "").into_owned();
        for capture in call.captures_iter(&text) {
            found.push((file.clone(), continued.replace_all(&capture[1], "").into_owned()));
        }
    }
    found
}

#[tokio::test]
async fn every_statement_prepares_on_both_databases() {
    let statements = statements();
    assert!(statements.len() > 150, "the search finds the statements: {}", statements.len());
    on_both(|db| {
        let statements = statements.clone();
        async move {
            for (file, sql) in statements {
                let mut tx = db.read().await.unwrap();
                let prepared = match &mut tx {
                    Tx::Sqlite(tx) => tx.prepare(AssertSqlSafe(sql.clone()).into_sql_str()).await.map(|_| ()),
                    Tx::Postgres(tx) => {
                        tx.prepare(AssertSqlSafe(sql.clone()).into_sql_str()).await.map(|_| ())
                    }
                };
                assert!(prepared.is_ok(), "{}: {sql}\n{prepared:?}", file.display());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_every_page_counts_is_found_by_indexes() {
    on_sqlite(|db| async move {
        let (_, count) = statements()
            .into_iter()
            .find(|(_, sql)| sql.contains("count(*)") && sql.contains("'quarantined'"))
            .expect("the count of what waits for a decision");
        let mut tx = db.read().await.unwrap();
        let Tx::Sqlite(connection) = &mut tx else { panic!("SQLite") };
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {count}")))
                .bind(0)
                .fetch_all(&mut **connection)
                .await
                .unwrap();
        let read: Vec<&String> = plan
            .iter()
            .map(|(.., step)| step)
            .filter(|step| step.contains("enrollments") || step.contains("devices"))
            .collect();
        assert_eq!(read.len(), 3, "{plan:?}");
        assert!(read.iter().all(|step| step.contains("INDEX")), "{read:?}");
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_second_person_is_found_by_its_index() {
    on_sqlite(|db| async move {
        let mut counts = statements().into_iter().filter(|(_, sql)| sql.contains("count(*) FROM approvals"));
        let (_, count) = counts.next().expect("every page counts what waits for a second person");
        let mut tx = db.read().await.unwrap();
        let Tx::Sqlite(connection) = &mut tx else { panic!("SQLite") };
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {count}")))
                .bind(0)
                .bind(0)
                .fetch_all(&mut **connection)
                .await
                .unwrap();
        assert!(plan.iter().all(|(.., step)| step.contains("approvals_that_wait")), "{plan:?}");
    })
    .await;
}

#[test]
fn sql_stands_in_stores_only() {
    for (file, sql) in statements() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let allowed = name == "store.rs"
            || file.components().any(|part| part.as_os_str() == "db" || part.as_os_str() == "store");
        assert!(allowed, "{} holds SQL: {sql}", file.display());
    }
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |kind: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(kind);
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

async fn run(db: &Db, sql: &str) -> Result<(), sqlx::Error> {
    let mut tx = db.write().await?;
    crate::on!(&mut tx, conn => conn.execute(AssertSqlSafe(sql.to_owned())).await.map(|_| ()))?;
    tx.commit().await
}

#[tokio::test]
async fn a_transaction_that_the_database_ended_by_itself_spoils_no_later_one() {
    on_both(|db| async move {
        for _ in 0..20 {
            // As SQLite does when the disk is full.
            let mut tx = db.write().await.unwrap();
            crate::on!(&mut tx, conn => conn.execute("ROLLBACK").await.map(|_| ())).unwrap();
            drop(tx);
        }
        for _ in 0..20 {
            run(&db, "UPDATE audit_head SET seq = seq").await.unwrap();
        }
    })
    .await;
}

fn later(db: &Db) -> String {
    let checksum = if matches!(db, Db::Sqlite(_)) { "x'00'" } else { "'\\x00'" };
    format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, {checksum}, 1)"
    )
}

#[tokio::test]
async fn a_database_of_a_newer_board_is_refused() {
    on_both(|db| async move {
        let owner = owner_of(&db).await;
        run(&owner, &later(&db)).await.unwrap();
        for who in [&db, &owner] {
            let refused = who.prepare().await.unwrap_err();
            assert!(matches!(refused, ConnectError::Newer(9999)), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_owner_migrates_and_the_boards_role_only_checks() {
    let empty = empty_postgres().await;
    let (owner, board) = (Db::connect(&empty.owner).await.unwrap(), Db::connect(&empty.board).await.unwrap());
    let refused = board.prepare().await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::Empty) && refused.to_string().contains("--owner-url"),
        "{refused}"
    );
    let refused = owner.migrate_for(&owner).await.unwrap_err();
    assert!(matches!(refused, ConnectError::SameRole { .. }), "{refused}");

    owner.migrate().await.unwrap();
    let refused = board.prepare().await.unwrap_err();
    assert!(matches!(refused, ConnectError::NotGranted), "{refused}");
    for _ in 0..2 {
        owner.migrate_for(&board).await.unwrap();
        assert_eq!(board.prepare().await.unwrap(), Ownership::Apart);
    }
    assert_eq!(owner.prepare().await.unwrap(), Ownership::Board);
    let refused = board.migrate().await.unwrap_err();
    assert!(matches!(refused, ConnectError::NotOwner { .. }), "{refused}");

    // A table of a later migration gets its grants at the next migrate; a right too many is taken back.
    run(&owner, "CREATE TABLE later (id BIGINT)").await.unwrap();
    run(&owner, "GRANT ALL ON audit_log TO PUBLIC").await.unwrap();
    assert!(run(&board, "INSERT INTO later VALUES (1)").await.is_err());
    owner.migrate_for(&board).await.unwrap();
    run(&board, "INSERT INTO later VALUES (1); UPDATE later SET id = 2; DELETE FROM later").await.unwrap();
    let refused = run(&board, "DELETE FROM audit_log").await.unwrap_err();
    assert_eq!(Cause::of(&refused), Cause::Refused, "{refused}");

    run(&owner, "DELETE FROM _sqlx_migrations").await.unwrap();
    let refused = board.prepare().await.unwrap_err();
    assert!(matches!(refused, ConnectError::Older(1)), "{refused}");
    assert!(refused.to_string().contains("board migrate --owner-url"), "{refused}");
    owner.close().await;
    board.close().await;
}

#[tokio::test]
async fn an_owner_of_another_database_is_refused_before_anything_changes() {
    let (here, there) = (empty_postgres().await, empty_postgres().await);
    let board = Db::connect(&here.board).await.unwrap();
    let other_schema = format!("{}?options=-c%20search_path%3Dapart", here.owner);
    let owner = Db::connect(&here.owner).await.unwrap();
    run(&owner, "CREATE SCHEMA apart").await.unwrap();
    for wrong in [there.owner.clone(), other_schema] {
        let wrong = Db::connect(&wrong).await.unwrap();
        let refused = wrong.migrate_for(&board).await.unwrap_err();
        assert!(matches!(refused, ConnectError::OtherDatabase { .. }), "{refused}");
        assert!(refused.to_string().contains("nothing was changed"), "{refused}");
        assert!(run(&wrong, "SELECT count(*) FROM clients").await.is_err(), "no table was made");
        wrong.close().await;
    }
    owner.migrate_for(&board).await.unwrap();
    owner.close().await;
    board.close().await;
}

#[test]
fn no_part_of_a_password_is_shown() {
    for (url, shown) in [
        ("postgres://board@db/board", "postgres://…@db/board"),
        ("postgres://db/board", "postgres://db/board"),
        ("postgres://board:very-secret@db/board?sslmode=require", "postgres://…@db/board"),
        ("postgres://db/board?user=board&password=very-secret", "postgres://db/board"),
        ("postgres://db/board?password=very@secret", "postgres://…"),
        ("postgres://board:very?secret@db/board", "postgres://…"),
        ("postgres://board:very@secret@db/board#secret", "postgres://…@db/board"),
        ("sqlite:/data/board.db", "sqlite:/data/board.db"),
    ] {
        assert_eq!(without_password(url), shown);
    }
}

#[tokio::test]
async fn an_unknown_address_is_refused_without_its_password() {
    let refused = Db::connect("mysql://somebody:very-secret@host/db").await.unwrap_err().to_string();
    assert!(refused.contains("sqlite:PATH") && !refused.contains("very-secret"), "{refused}");
}

#[tokio::test]
async fn a_slot_keeps_its_tag_and_a_credential_is_our_managed() {
    on_both(|db| async move {
        let run = |sql: &'static str| {
            let db = db.clone();
            async move {
                let mut tx = db.write().await.unwrap();
                let done = crate::on!(&mut tx, conn => conn.execute(sql).await.map(|_| ()));
                if done.is_ok() {
                    tx.commit().await.unwrap();
                }
                done
            }
        };
        let (id, now) = match &db {
            Db::Sqlite(_) => ("x'01990000000070008000000000000001'", "1"),
            Db::Postgres(_) => ("'01990000-0000-7000-8000-000000000001'", "now()"),
        };
        let sql = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        run(sql(format!("INSERT INTO component_credential_slots (id, component_key, slot_key, display_name, tag) VALUES ({id}, 'slack', 'TOKEN', 'Token', 'client-supplied')"))).await.unwrap();
        for change in ["tag = 'our-managed'", "slot_key = 'OTHER'", "component_key = 'other'"] {
            let refused = run(sql(format!("UPDATE component_credential_slots SET {change}"))).await;
            assert!(refused.is_err(), "{change}");
        }
        run("UPDATE component_credential_slots SET display_name = 'Bot token'").await.unwrap();
        run(sql(format!("INSERT INTO users (id, email, created_at) VALUES ({id}, 'a@example.com', {now})"))).await.unwrap();
        run(sql(format!("INSERT INTO clients (id, name, vault_name, notes, created_by, created_at) VALUES ({id}, 'Client', 'Client', '', {id}, {now})"))).await.unwrap();
        for tag in ["client-supplied", "our-managed"] {
            let value = if matches!(db, Db::Sqlite(_)) { "x'00'" } else { "'\\x00'" };
            let refused = run(sql(format!("INSERT INTO client_credentials (client_id, slot_id, tag, version, encrypted_value, created_at, last_rotated_at) VALUES ({id}, {id}, '{tag}', 1, {value}, {now}, {now})"))).await;
            assert!(refused.is_err(), "a value for a client-supplied slot, tagged {tag}");
        }
    })
    .await;
}
