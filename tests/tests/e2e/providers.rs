//! Root keys with real key services (AWS KMS by moto, Vault's transit engine by OpenBao), and `board rekey` through all of
//! them: a thousand secrets, under load, killed ten times on the way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tests::board::{Board, EMAIL, Layout};
use tests::consultant::Consultant;
use tests::process::{Process, program};
use tokio::process::Command;

use crate::kills::Dice;
use crate::stage::{Database, SOON, Stage, catalog, served_with};

const CLIENTS: usize = 20;
const SLOTS: usize = 50;
const KILLS: usize = 10;
const LIMIT: Duration = Duration::from_secs(90);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} says where a key service is: run these tests with `tests/run providers`")
    })
}

/// What the README tells to allow, and nothing else.
const POLICY: &str = r#"
path "MOUNT/encrypt/board" { capabilities = ["update"] }
path "MOUNT/decrypt/board" { capabilities = ["update"] }
"#;

/// A key of our own in both services.
struct Services {
    kms: String,
    vault: String,
    mount: String,
    environment: Vec<(String, String)>,
}

impl Services {
    async fn new(unique: &Path) -> Self {
        let unique: String = unique.file_name().unwrap().to_str().unwrap().to_lowercase().replace('.', "");
        let (kms, vault) = (variable("BOARD_TEST_KMS"), variable("BOARD_TEST_VAULT"));
        let key =
            aws(&kms, "CreateKey", &json!({})).await["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
        let alias = format!("alias/board-{unique}");
        aws(&kms, "CreateAlias", &json!({ "AliasName": alias, "TargetKeyId": key })).await;
        let mount = format!("transit-{unique}");
        bao(&vault, &format!("sys/mounts/{mount}"), &json!({ "type": "transit" })).await;
        bao(&vault, &format!("{mount}/keys/board"), &json!({ "derived": true })).await;
        bao(&vault, &format!("{mount}/keys/plain"), &json!({ "derived": false })).await;
        let policy = json!({ "policy": POLICY.replace("MOUNT", &mount) });
        bao(&vault, &format!("sys/policies/acl/{mount}"), &policy).await;
        let token = bao(&vault, "auth/token/create", &json!({ "policies": [mount] })).await;
        let environment = [
            ("VAULT_ADDR", vault.as_str()),
            ("VAULT_TOKEN", token["auth"]["client_token"].as_str().unwrap()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "for-tests-only"),
        ];
        Self {
            kms: format!("awskms:{alias}?region=eu-central-1&endpoint={kms}"),
            vault: format!("vault:{mount}/board"),
            mount,
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

fn http() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}

async fn aws(address: &str, action: &str, body: &Value) -> Value {
    let scope = "AWS4-HMAC-SHA256 Credential=x/20260101/eu-central-1/kms/aws4_request, SignedHeaders=host, Signature=0";
    let request = http().post(address).header("x-amz-target", format!("TrentService.{action}"));
    ask(request
        .header("authorization", scope)
        .header("content-type", "application/x-amz-json-1.1")
        .body(body.to_string()))
    .await
}

async fn bao(address: &str, path: &str, body: &Value) -> Value {
    let token = variable("BOARD_TEST_VAULT_TOKEN");
    ask(http().post(format!("{address}/v1/{path}")).header("x-vault-token", token).json(body)).await
}

async fn board(environment: &[(String, String)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program("board").unwrap());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let done = command.args(arguments).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.code(), said)
}

#[tokio::test]
async fn a_board_is_made_with_each_provider_and_opens_with_it_only() {
    let folder = tempfile::tempdir().unwrap();
    let services = Services::new(folder.path()).await;
    let environment = services.environment.as_slice();
    for (name, uri) in [("aws", &services.kms), ("vault", &services.vault)] {
        let data = folder.path().join(name).display().to_string();
        let (code, said) =
            board(environment, &["init", "--data", &data, "--root-key", uri, "--email", EMAIL]).await;
        assert!(code == Some(0) && said.contains(uri.as_str()), "{said}");
        // The database says where the root key is; without the provider's address or rights it isn't had.
        let link = ["user", "link", EMAIL, "--data", &data];
        let (code, said) = board(environment, &link).await;
        assert_eq!(code, Some(0), "{said}");
        let elsewhere =
            [("VAULT_ADDR", "http://127.0.0.1:1"), ("VAULT_TOKEN", "x"), ("HOME", "/nonexistent")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        if name == "vault" {
            let (code, said) = board(&elsewhere, &link).await;
            assert!(
                code == Some(1) && said.contains("doesn't answer") && said.contains("fingerprint"),
                "{said}"
            );
            let stranger = [environment, &[("VAULT_TOKEN".to_owned(), "s.stranger".to_owned())]].concat();
            let (code, said) = board(&stranger, &link).await;
            assert!(code == Some(1) && said.contains("refuses") && said.contains("`update`"), "{said}");
        }
    }
    let data = folder.path().join("plain").display().to_string();
    let root = [environment, &[("VAULT_TOKEN".to_owned(), variable("BOARD_TEST_VAULT_TOKEN"))]].concat();
    let plain = format!("vault:{}/plain", services.mount);
    let (code, said) = board(&root, &["init", "--data", &data, "--root-key", &plain, "--email", EMAIL]).await;
    assert!(code == Some(1) && said.contains("derived=true"), "{said}");
    let none = services.kms.replace("alias/board", "alias/nobody");
    let (code, said) = board(&root, &["init", "--data", &data, "--root-key", &none, "--email", EMAIL]).await;
    assert!(code == Some(1) && said.contains("no such key"), "{said}");
}

/// The end-to-end catalog, and a component with many secrets of ours.
fn write_catalog(folder: &Path) {
    let components = folder.join("components");
    std::fs::create_dir_all(&components).unwrap();
    std::fs::copy(catalog().join("tiers.toml"), folder.join("tiers.toml")).unwrap();
    for entry in std::fs::read_dir(catalog().join("components")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, components.join(path.file_name().unwrap())).unwrap();
    }
    let mut many = String::from(
        "key = \"many\"\nname = \"Many\"\ncategory = \"ai\"\nsummary = \"Many secrets.\"\nplatforms = [\"macos\", \"linux\"]\n",
    );
    for slot in 0..SLOTS {
        many.push_str(&format!(
            "[[slot]]\nkey = \"KEY_{slot}\"\nname = \"Key {slot}\"\ntag = \"our-managed\"\n"
        ));
    }
    many.push_str("[[step]]\nid = \"install\"\nkind = \"auto\"\ntitle = \"Install\"\nas = \"user\"\ncheck = \"true\"\nrun = \"true\"\n");
    many.push_str("[[detect]]\ntype = \"file\"\npath = \"/bin/sh\"\n");
    std::fs::write(components.join("many.toml"), many).unwrap();
}

/// A consultant who stores one secret again and again, each of which a real agent gets, until told to stop.
async fn load(mut consultant: Consultant, client: String, stop: Arc<AtomicBool>) -> (Consultant, usize) {
    let mut stored = 0;
    while !stop.load(Ordering::SeqCst) {
        stored += 1;
        let value = format!("under-load-{stored:06}");
        consultant.rotate_secret(&client, &value, "There has to be load").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (consultant, stored)
}

/// Runs it, killed up to `kills` times on the way, each within `longest` milliseconds, until it says that it is done. Gives how often it was killed.
async fn rekey_killed(
    stage: &Board,
    to: &str,
    kills: usize,
    longest: u64,
    dice: &mut Dice,
    seed: u64,
) -> usize {
    let mut killed = 0;
    for _ in 0..200 {
        let mut process = Process::spawn(&mut stage.rekey(to).unwrap(), &stage.layout.log("rekey")).unwrap();
        if killed < kills {
            let pause = Duration::from_millis(30 + dice.below(longest));
            if process.wait(pause).await.is_err() {
                process.kill().await.unwrap();
                killed += 1;
                continue;
            }
        }
        let ended = process.wait(LIMIT).await.unwrap();
        match ended.code() {
            Some(0) => return killed,
            // The lease of one that was killed.
            Some(4) => tokio::time::sleep(Duration::from_millis(300)).await,
            other => {
                panic!("seed {seed}: rekey to {to} ended with {other:?}; see {:?}", stage.layout.log("rekey"))
            }
        }
    }
    panic!("seed {seed}: rekey to {to} doesn't end");
}

/// How many runs found that a killed one had moved some of the secrets and not all.
async fn begun_halfway(board: &Board) -> usize {
    let sql = "SELECT canonical FROM audit_log WHERE action = 'rekey.started'";
    let script =
        "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(row[0])";
    let mut command = match board.database() {
        Some(url) => {
            let mut command = Command::new("psql");
            command.args([url, "-qAt", "-c", sql]);
            command
        }
        None => {
            let mut command = Command::new("python3");
            command.args(["-c", script]).arg(board.layout.path("board/board.db")).arg(sql);
            command
        }
    };
    let entries = tests::process::output(&mut command).await.unwrap();
    let rows = entries.lines().map(|line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        entry["detail"]["rows"].as_str().unwrap().parse::<usize>().unwrap()
    });
    rows.filter(|rows| (2..CLIENTS * SLOTS).contains(rows)).count()
}

async fn through_every_provider(database: Database) {
    let seed = u64::from(std::process::id());
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().unwrap();
    let services = Services::new(folder.path()).await;
    write_catalog(&folder.path().join("catalog"));
    let (mut board, relay, home) =
        served_with(database, &folder.path().join("catalog"), services.environment.clone()).await;
    let mut consultant = Consultant::welcome(&board.console_url, &board.welcome).await.unwrap();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let id = consultant.create_client(&format!("Client {number}"), &["many"], &[]).await.unwrap();
        consultant.enter_secrets(&id, |slot| format!("value-{number}-{slot}")).await.unwrap();
        clients.push(id);
    }
    let token = board.make_token("before", "support").await.unwrap();
    let mut stage = Stage { board, consultant, relay, folder: home };
    let live = stage.client().await;
    let mut agent = stage.agent("mac");
    let device = stage.enroll(&live, &agent).await;
    agent.start().unwrap();
    stage.consultant.runbook_done(&device, SOON).await.unwrap();
    let Stage { board: served, consultant, relay: _relay, folder: home } = stage;
    board = served;

    let stop = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn(load(consultant, live.clone(), Arc::clone(&stop)));
    let longest = match database {
        Database::Sqlite => 400,
        Database::Postgres => 1200,
    };
    let started = Instant::now();
    let second = format!("file:{}", home.path().join("keys/second.key").display());
    // SQLite moves a thousand in less than a second: kills that come too late are made up for in another round.
    let (mut kills, mut rounds) = (0, 0);
    while kills < KILLS && rounds < 5 {
        rounds += 1;
        for to in [&services.kms, &services.vault, &second] {
            kills += rekey_killed(&board, to, 4.min(KILLS - kills), longest, &mut dice, seed).await;
            eprintln!("{database:?}: at {to} after {:?}, {kills} kills", started.elapsed());
        }
    }
    assert_eq!(kills, KILLS, "seed {seed}");
    stop.store(true, Ordering::SeqCst);
    let (mut consultant, stored) = loading.await.unwrap();
    let halfway = begun_halfway(&board).await;
    assert!(halfway >= 3, "seed {seed}: kills met it at work: {halfway}");
    assert!(stored > 10, "seed {seed}: there was load: {stored}");
    eprintln!(
        "{database:?}: {} secrets, {kills} kills, {halfway} of them halfway, {stored} stored meanwhile, {:?}",
        CLIENTS * SLOTS,
        started.elapsed()
    );
    assert!(started.elapsed() < LIMIT, "seed {seed}: {:?}", started.elapsed());

    // Nothing is left to do; and once more with another key, which opens every secret that there is.
    let mut again = board.rekey(&second).unwrap();
    let again = tests::process::output(&mut again).await.unwrap();
    assert!(again.contains("Nothing to do"), "{again}");
    let mut fresh = board.rekey(&second).unwrap();
    let fresh = tests::process::output(fresh.arg("--fresh")).await.unwrap();
    assert!(fresh.contains(&format!("{} secrets", CLIENTS * SLOTS + 1)), "{fresh}");

    // The device holds what was stored last.
    let file = home.path().join("mac/vault/slot.tool.OUR_KEY");
    let last = format!("under-load-{stored:06}");
    let deadline = Instant::now() + SOON;
    while !std::fs::read(&file).unwrap().windows(last.len()).any(|window| window == last.as_bytes()) {
        assert!(Instant::now() < deadline, "seed {seed}: the device gets {last}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    agent.stop().await.unwrap();

    // A board that starts now needs none of the old providers; sessions and tokens of before go on.
    board.stop().await.unwrap();
    board.reach(Vec::new());
    let address = board.agents_address.clone();
    board.serve(&address).await.unwrap();
    for (number, client) in clients.iter().enumerate().take(5) {
        let copied = consultant.copy_secret(client, "to compare").await.unwrap();
        assert_eq!(copied.status, 200, "{}", copied.text);
        assert!(copied.text.starts_with(&format!("value-{number}-KEY_")), "{}", copied.text);
    }
    let state =
        http().get(format!("{}/api/v1/state", board.console_url)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(state.status(), 200);
    board.stop().await.unwrap();
    assert!(board.verify_audit().await.unwrap().contains("\"holds\":true"), "seed {seed}");
}

#[tokio::test]
async fn a_thousand_secrets_through_every_provider_and_ten_kills_on_sqlite() {
    through_every_provider(Database::Sqlite).await;
}

#[tokio::test]
async fn a_thousand_secrets_through_every_provider_and_ten_kills_on_postgresql() {
    through_every_provider(Database::Postgres).await;
}

#[tokio::test]
async fn a_rekey_beside_another_is_refused_and_one_to_elsewhere_waits_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).unwrap();
    let board_ = Board::init(layout, &catalog(), None).await.unwrap();
    let uri = |name: &str| format!("file:{}", folder.path().join(name).display());
    let said = tests::process::output(&mut board_.rekey(&uri("two.key")).unwrap()).await.unwrap();
    assert!(said.contains("version 2") && said.contains("Keep what"), "{said}");
    let data = folder.path().join("board").display().to_string();
    let (code, said) = board(&[], &["rekey", "--data", &data, "--to", "vault:nowhere"]).await;
    assert!(code == Some(2) && said.contains("file:PATH"), "{said}");
    let (code, said) = board(&[], &["rekey", "--data", &data, "--to", "vault:transit/board"]).await;
    assert!(code == Some(1) && said.contains("VAULT_ADDR"), "{said}");
    let (code, said) = board(&[], &["rekey", "--help"]).await;
    assert!(code == Some(0) && said.contains("Exit codes"), "{said}");
    let database = folder.path().join("board/board.db").display().to_string();
    let hold = "import sqlite3, sys, time\ndb = sqlite3.connect(sys.argv[1])\n\
                db.execute(\"INSERT INTO rekey_lease VALUES (1, x'00', (strftime('%s','now') + 60) * 1000000)\")\ndb.commit()";
    let held = Command::new("python3").args(["-c", hold, &database]).status().await.unwrap();
    assert!(held.success());
    let (code, said) = board(&[], &["rekey", "--data", &data, "--to", &uri("three.key")]).await;
    assert!(code == Some(4) && said.contains("another `board rekey` is at work"), "{said}");
}
