//! What the operator meets: starting over, wrong keys, public addresses, and a database that somebody tries to change.

use tests::process::program;
use tokio::process::Command;

use crate::stage::{Database, SOON, Stage};

async fn board(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program("board").unwrap());
    let done = tokio::time::timeout(SOON, command.args(arguments).kill_on_drop(true).output()).await;
    let done = done.unwrap_or_else(|_| panic!("board {arguments:?} goes on")).unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.success(), said)
}

#[tokio::test]
async fn init_overwrites_nothing_and_serve_refuses_what_is_unsafe() {
    let mut stage = Stage::new(Database::Sqlite).await;
    stage.board.stop().await.unwrap();
    let path = |relative: &str| stage.board.layout.path(relative).display().to_string();
    let (data, key) = (path("board"), format!("file:{}", path("keys/root.key")));
    let before = std::fs::read(path("keys/root.key")).unwrap();
    let (ok, said) = board(&["init", "--data", &data, "--root-key", &key, "--email", "x@example.com"]).await;
    assert!(!ok && said.contains("nothing was changed"), "{said}");
    assert_eq!(std::fs::read(path("keys/root.key")).unwrap(), before);

    let other = tempfile::tempdir().unwrap();
    let place = other.path().display().to_string();
    let other_key = format!("file:{place}/other.key");
    let (ok, said) =
        board(&["init", "--data", &place, "--root-key", &other_key, "--email", "x@example.com"]).await;
    assert!(ok && said.contains("Warning: the root key lies in the data folder"), "{said}");
    let serve = |key: String, console: &'static str| {
        let data = data.clone();
        async move {
            board(&[
                "serve",
                "--data",
                &data,
                "--root-key",
                &key,
                "--console",
                console,
                "--agents",
                "127.0.0.1:0",
            ])
            .await
        }
    };
    let (ok, said) = serve(other_key, "127.0.0.1:0").await;
    assert!(!ok && said.contains("root key") && said.contains("nothing was changed"), "{said}");
    let (ok, said) = serve(key.clone(), "0.0.0.0:0").await;
    assert!(!ok && said.contains("without TLS"), "{said}");
    let (ok, said) = serve("vault:nowhere".into(), "127.0.0.1:0").await;
    assert!(!ok && said.contains("file:PATH"), "{said}");
    let (ok, said) = board(&["serve", "--data", "/nonexistent/board"]).await;
    assert!(!ok && said.contains("board init"), "{said}");
}

#[tokio::test]
async fn doctor_says_what_is_in_the_way_whether_the_board_runs_or_not() {
    for database in [Database::Sqlite, Database::Postgres] {
        let mut stage = Stage::new(database).await;
        let console = stage.board.console_url.strip_prefix("http://").unwrap().to_owned();
        let agents = stage.board.agents_address.clone();
        let asked = [
            "doctor",
            "--json",
            "--console",
            &console,
            "--agents",
            &agents,
            "--agents-url",
            "https://127.0.0.1:1",
        ];
        let looked = async |stage: &Stage| {
            let done = stage.board.beside(&asked, "").await.unwrap();
            let text = String::from_utf8(done.stdout).unwrap();
            let report: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let all = report["findings"].as_array().unwrap().clone();
            let saw = |check: &str| {
                let found =
                    all.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("{check}: {text}"));
                format!("{}: {}", found["state"].as_str().unwrap(), found["saw"].as_str().unwrap())
            };
            let seen = ["console port", "agents' port", "database", "root key", "audit chain"].map(saw);
            (done.status.code(), seen, text)
        };
        let (code, [console, agents, database, key, chain], text) = looked(&stage).await;
        assert_eq!(code, Some(0), "{text}");
        assert!(console.starts_with("ok: a board answers") && console.ends_with("is well"), "{console}");
        assert!(agents.starts_with("ok: this board answers"), "{agents}");
        assert!(database.contains("at this board's version") && key.starts_with("ok: version 1"), "{text}");
        assert!(chain.starts_with("ok: whole; it ends with entry"), "{chain}");
        stage.board.stop().await.unwrap();
        let (code, [console, agents, ..], text) = looked(&stage).await;
        assert_eq!(code, Some(0), "{text}");
        assert!(console.contains("is free: no board runs here") && agents.contains("is free"), "{text}");
        std::fs::remove_file(stage.board.layout.path("keys/root.key")).unwrap();
        let (code, [.., key, _], text) = looked(&stage).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(key.starts_with("problem: "), "{key}");
    }
}

/// Python's SQLite module is as plain a client as the `sqlite3` shell: `recursive_triggers` is off in it.
async fn python(script: &str, database: &str) -> (bool, String) {
    let done = Command::new("python3").args(["-c", script, database]).output().await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.success(), said)
}

#[tokio::test]
async fn the_audit_log_refuses_a_plain_client_and_a_changed_copy_is_found_out() {
    let mut stage = Stage::new(Database::Sqlite).await;
    stage.client().await;
    stage.board.stop().await.unwrap();
    let database = stage.board.layout.path("board/board.db").display().to_string();
    let refused = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for sql in ['UPDATE audit_log SET canonical = 1', 'DELETE FROM audit_log',
            'INSERT OR REPLACE INTO audit_log SELECT seq, epoch, previous, hash, \'x\', at, action, client_id, slot_id, device_id, actor FROM audit_log WHERE seq = 2',
            'INSERT INTO audit_log SELECT seq + 100, epoch, previous, hash, canonical, at, action, client_id, slot_id, device_id, actor FROM audit_log WHERE seq = 2']:
    try:
        db.execute(sql)
        sys.exit('accepted: ' + sql)
    except sqlite3.IntegrityError as error:
        print(error)
";
    let (ok, said) = python(refused, &database).await;
    assert!(ok && said.lines().count() == 4, "{said}");
    assert!(stage.board.verify_audit().await.unwrap().contains("\"holds\":true"));
    let change = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for (name,) in db.execute('SELECT name FROM sqlite_master WHERE type = \'trigger\'').fetchall():
    db.execute('DROP TRIGGER ' + name)
db.execute('UPDATE audit_log SET canonical = replace(canonical, \'consultant\', \'Consultant\') WHERE seq = 4')
db.commit()
";
    let (ok, said) = python(change, &database).await;
    assert!(ok, "{said}");
    let (ok, said) =
        board(&["audit", "verify", "--data", &stage.board.layout.path("board").display().to_string()]).await;
    assert!(!ok && said.contains("entry 4"), "{said}");
}
