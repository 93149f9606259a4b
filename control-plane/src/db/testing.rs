//! A fresh database of each kind for store tests. A PostgreSQL that isn't there is a failure, never a skip.
//!
//! On PostgreSQL the tables belong to one role and the board is another, as in production: every store test runs with
//! the board's rights. What only an owner can do goes through [`owner_of`].

use std::future::Future;

use shared::ids::BoardId;
use shared::random::SystemRandom;
use shared::time::SystemClock;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::Db;

/// Roles are the whole server's, so they stay; their password is no secret.
const OWNER: &str = "board_test_owner";
const BOARD: &str = "board_test";
const PASSWORD: &str = "for-tests-only";

/// Runs the same test on a fresh SQLite file and in a fresh PostgreSQL database, both migrated.
pub async fn on_both<F, Fut>(test: F)
where
    F: Fn(Db) -> Fut,
    Fut: Future<Output = ()>,
{
    on_sqlite(&test).await;
    let empty = empty_postgres().await;
    let owner = Db::connect(&empty.owner).await.unwrap();
    let postgres = Db::connect(&empty.board).await.unwrap();
    owner.migrate_for(&postgres).await.unwrap();
    owner.close().await;
    test(postgres.clone()).await;
    postgres.close().await;
}

/// For what takes long and is the same on both.
pub async fn on_sqlite<F, Fut>(test: F)
where
    F: Fn(Db) -> Fut,
    Fut: Future<Output = ()>,
{
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sqlite = Db::connect(&format!("sqlite:{}", folder.path().join("board.db").display())).await.unwrap();
    sqlite.migrate().await.unwrap();
    test(sqlite.clone()).await;
    sqlite.close().await;
}

/// The same database as who owns it: on SQLite that is who has the file.
pub async fn owner_of(db: &Db) -> Db {
    match db {
        Db::Sqlite(_) => db.clone(),
        Db::Postgres(pool) => {
            let options = pool.connect_options().as_ref().clone();
            Db::postgres(options.username(OWNER).password(PASSWORD)).await.unwrap()
        }
    }
}

/// Addresses of a database without tables.
pub struct Empty {
    /// As the role that owns the database.
    pub owner: String,
    /// As the board's role.
    pub board: String,
}

pub async fn empty_postgres() -> Empty {
    let server = std::env::var("DATABASE_URL_POSTGRES").expect(
        "DATABASE_URL_POSTGRES names a PostgreSQL server for the store tests: run them with `tests/run store`",
    );
    let name = format!("test_{}", BoardId::new(&SystemClock, &SystemRandom).to_string().replace('-', ""));
    let mut admin = PgConnection::connect(&server).await.expect("PostgreSQL answers");
    for role in [OWNER, BOARD] {
        // Other tests make them at the same moment.
        let make = format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        admin.execute(sqlx::AssertSqlSafe(make)).await.unwrap();
    }
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} OWNER {OWNER}"))).await.unwrap();
    admin.close().await.unwrap();
    let place = server.split_once("://").expect("the address has a scheme").1;
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    let (host, _) = host.split_once('/').expect("the address ends with a database name");
    let address = |role: &str| format!("postgres://{role}:{PASSWORD}@{host}/{name}");
    Empty { owner: address(OWNER), board: address(BOARD) }
}
