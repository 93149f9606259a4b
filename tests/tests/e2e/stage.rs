//! What each test starts from: a served board with the small catalog beside this file, and a consultant.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tests::agent::Agent;
use tests::board::{Board, Layout};
use tests::consultant::Consultant;
use tests::process::output;
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

/// A served board whose one-time link nobody has opened.
pub async fn served(database: Database) -> (Board, Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).unwrap();
    let url = match database {
        Database::Sqlite => None,
        Database::Postgres => Some(fresh_postgres(&folder).await),
    };
    let relay = Relay::start().await.unwrap();
    let mut board = Board::init(layout, &catalog(), url).await.unwrap();
    board.announce(format!("https://{}", relay.address));
    board.serve("127.0.0.1:0").await.unwrap();
    relay.point(&board.agents_address);
    (board, relay, folder)
}

pub fn catalog() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/catalog")
}

async fn fresh_postgres(folder: &TempDir) -> String {
    let server = std::env::var("DATABASE_URL_POSTGRES")
        .expect("DATABASE_URL_POSTGRES names a PostgreSQL server: run these tests with `tests/run e2e`");
    let unique = folder.path().file_name().unwrap().to_str().unwrap().to_lowercase().replace(['.', '-'], "_");
    let name = format!("e2e_{unique}");
    let create = format!("CREATE DATABASE \"{name}\"");
    output(Command::new("psql").arg(&server).args(["-q", "-c", &create])).await.unwrap();
    let (base, _) = server.rsplit_once('/').expect("the address ends with a database name");
    format!("{base}/{name}")
}
