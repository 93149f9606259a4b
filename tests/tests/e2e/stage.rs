//! What each test starts from: a served board with the small catalog beside this file, and a consultant.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::agent::Agent;
use tests::board::{Board, Layout};
use tests::consultant::Consultant;
use tests::process::{output, program};
use tests::relay::Relay;
use tokio::process::Command;

pub const SOON: Duration = Duration::from_secs(60);
pub const VALUE: &str = "canary-4b1f77-value";

pub struct Stage {
    pub board: Board,
    pub consultant: Consultant,
    pub relay: Relay,
    pub folder: TempDir,
}

/// Roles are the whole server's, so they stay; their password is no secret.
const OWNER: &str = "board_test_owner";
const BOARD: &str = "board_test";
const PASSWORD: &str = "for-tests-only";

#[derive(Clone, Copy, Debug)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Stage {
    pub async fn new(database: Database) -> Self {
        let (board, relay, folder) = served(database).await;
        let consultant = Consultant::welcome(&board.console_url, &board.welcome).await.unwrap();
        Self { board, consultant, relay, folder }
    }

    /// A client with both components and our secret entered.
    pub async fn client(&mut self) -> String {
        let client = self.consultant.create_client("Example Client", &["tool"], &[]).await.unwrap();
        self.consultant.enter_secrets(&client, |_| VALUE.to_owned()).await.unwrap();
        client
    }

    pub fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.board.layout, name, &format!("UUID-OF-{name}"))
    }

    /// Joins and approves; the agent is not started. Gives the device's id.
    pub async fn enroll(&mut self, client: &str, agent: &Agent) -> String {
        let join = self.consultant.join_command(client).await.unwrap();
        let mut joining = agent.join(&join).await.unwrap();
        let enrollment = self.consultant.pending(SOON).await.unwrap();
        let device = self.consultant.approve_device(&enrollment, &joining.fingerprint).await.unwrap();
        let ended = joining.process.wait(SOON).await.unwrap();
        assert!(ended.success(), "{ended}");
        device
    }
}

/// Asks until the answer fits, and gives that one. What was heard last is said when none does within [`SOON`].
pub async fn heard<T: Debug>(what: &str, mut ask: impl AsyncFnMut() -> T, fits: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let answer = ask().await;
        if fits(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < SOON, "not in time: {what}; it is {answer:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until this is so.
pub async fn until(what: &str, so: impl AsyncFnMut() -> bool) {
    heard(what, so, |so| *so).await;
}

/// A served board whose one-time link nobody has opened.
pub async fn served(database: Database) -> (Board, Relay, TempDir) {
    served_with(database, &catalog(), Vec::new()).await
}

/// The same with another catalog, and with more environment for the board's commands.
pub async fn served_with(
    database: Database,
    catalog: &Path,
    environment: Vec<(String, String)>,
) -> (Board, Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).unwrap();
    let url = match database {
        Database::Sqlite => None,
        Database::Postgres => Some(fresh_postgres(&folder).await),
    };
    let relay = Relay::start().await.unwrap();
    let mut board = Board::init(layout, catalog, url).await.unwrap();
    board.reach(environment);
    board.announce(format!("https://{}", relay.address));
    board.serve("127.0.0.1:0").await.unwrap();
    relay.point(&board.agents_address);
    (board, relay, folder)
}

pub fn catalog() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/catalog")
}

/// A database whose tables belong to one role; gives the address of another, the board's, as in production.
async fn fresh_postgres(folder: &TempDir) -> String {
    let Empty { owner, board } = empty_postgres(folder).await;
    let mut migrate = Command::new(program("board").unwrap());
    output(migrate.args(["migrate", "--database", &board, "--owner-url", &owner])).await.unwrap();
    board
}

/// Addresses of a database without tables: as the role that owns it, and as the board's role.
pub struct Empty {
    pub owner: String,
    pub board: String,
}

pub async fn empty_postgres(folder: &TempDir) -> Empty {
    let server = std::env::var("DATABASE_URL_POSTGRES")
        .expect("DATABASE_URL_POSTGRES names a PostgreSQL server: run these tests with `tests/run e2e`");
    let unique = folder.path().file_name().unwrap().to_str().unwrap().to_lowercase().replace(['.', '-'], "_");
    let name = format!("e2e_{unique}");
    let role = |role: &str| {
        format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    };
    let create = format!("CREATE DATABASE \"{name}\" OWNER {OWNER}");
    for sql in [role(OWNER), role(BOARD), create] {
        output(Command::new("psql").arg(&server).args(["-q", "-c", &sql])).await.unwrap();
    }
    let place = server.split_once("://").expect("the address has a scheme").1;
    let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
    let (host, _) = host.split_once('/').expect("the address ends with a database name");
    let address = |role: &str| format!("postgres://{role}:{PASSWORD}@{host}/{name}");
    Empty { owner: address(OWNER), board: address(BOARD) }
}
