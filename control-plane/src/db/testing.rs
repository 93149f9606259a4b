//! A fresh database of each kind for store tests. A PostgreSQL that isn't there is a failure, never a skip.

use std::future::Future;

use shared::ids::BoardId;
use shared::random::SystemRandom;
use shared::time::SystemClock;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::Db;

/// Runs the same test on a fresh SQLite file and in a fresh PostgreSQL database, both migrated.
pub async fn on_both<F, Fut>(test: F)
where
    F: Fn(Db) -> Fut,
    Fut: Future<Output = ()>,
{
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sqlite = Db::connect(&format!("sqlite:{}", folder.path().join("board.db").display())).await.unwrap();
    sqlite.migrate().await.unwrap();
    test(sqlite.clone()).await;
    sqlite.close().await;

    let postgres = fresh_postgres().await;
    test(postgres.clone()).await;
    postgres.close().await;
}

async fn fresh_postgres() -> Db {
    let server = std::env::var("DATABASE_URL_POSTGRES").expect(
        "DATABASE_URL_POSTGRES names a PostgreSQL server for the store tests: run them with `tests/run store`",
    );
    let name = format!("test_{}", BoardId::new(&SystemClock, &SystemRandom).to_string().replace('-', ""));
    let mut admin = PgConnection::connect(&server).await.expect("PostgreSQL answers");
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    admin.close().await.unwrap();
    let (base, _) = server.rsplit_once('/').expect("the address ends with a database name");
    let db = Db::connect(&format!("{base}/{name}")).await.unwrap();
    db.migrate().await.unwrap();
    db
}
