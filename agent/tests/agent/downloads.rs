//! Downloads, from a real HTTPS server on this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent::downloads::{DownloadError, Downloads, LARGEST, Provided};
use agent::outbound::Outbound;
use shared::catalog::{Download, Platform};
use shared::crypto::{hex, sha256};
use shared::ids::AttemptId;
use shared::protocol::link::{FromBoard, ReportBody};
use shared::protocol::steps::{AttemptEnded, Offer, OfferKind, Outcome};
use shared::random::SystemRandom;
use shared::time::SystemClock;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::support::{Asked, Board, Device, Link, Outside, Reply, within};

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn files(asked: &Asked) -> Reply {
    match asked.line.split(' ').nth(1).unwrap() {
        "/good" => Reply::file(&content()),
        "/moved" => Reply::redirect("https://files.example.com/good"),
        path if path.starts_with("/downgrade/") => {
            Reply::redirect(&format!("http://127.0.0.1:{}/good", &path["/downgrade/".len()..]))
        }
        "/round" => Reply::redirect("https://files.example.com/round"),
        "/short" => Reply::CutShort(content()),
        "/other" => Reply::file(b"something else"),
        _ => Reply::json(404, "{}"),
    }
}

struct Site {
    folder: tempfile::TempDir,
    outbound: Outbound,
    outside: Outside,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let outside = Outside::start(folder.path(), files).await;
        std::fs::create_dir(folder.path().join("cache")).unwrap();
        Self { folder, outbound: outside.outbound(), outside }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    async fn provide(&self, download: &Download, largest: u64) -> Result<Provided, DownloadError> {
        let (outbound, folder) = (&self.outbound, self.cache());
        let downloads = Downloads { outbound, folder: &folder, platform: Platform::Linux, largest };
        within(downloads.provide(download)).await
    }

    fn in_cache(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.cache()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Serves the right file without TLS, to whoever comes.
struct Plain {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Plain {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let head = format!("HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n", content().len());
                // Whoever leaves early has come all the same.
                let _ = stream.write_all(&[head.as_bytes(), &content()].concat()).await;
            }
        });
        Self { port, connections }
    }
}

fn download(path: &str) -> Download {
    Download {
        name: "Example.tar.gz".to_owned(),
        url: format!("https://files.example.com{path}"),
        sha256: hex(&sha256(&content())),
        team: None,
        platforms: Vec::new(),
    }
}

#[tokio::test]
async fn a_file_is_fetched_once_and_again_when_it_was_changed() {
    let site = Site::new().await;
    let file = site.cache().join("Example.tar.gz");
    let size = content().len() as u64;
    for path in ["/good", "/moved"] {
        let provided = site.provide(&download(path), LARGEST).await.unwrap();
        assert_eq!(provided, Provided::Fetched(size), "{path}");
        assert_eq!(std::fs::read(&file).unwrap(), content());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(site.in_cache(), ["Example.tar.gz"]);
        site.outside.asked();
        assert_eq!(site.provide(&download(path), LARGEST).await.unwrap(), Provided::AlreadyThere);
        assert!(site.outside.asked().is_empty(), "what is there is not fetched");
        std::fs::write(&file, "changed").unwrap();
    }
    std::fs::remove_file(&file).unwrap();
    let elsewhere = site.folder.path().join("elsewhere");
    std::fs::write(&elsewhere, content()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    assert_eq!(site.provide(&download("/good"), LARGEST).await.unwrap(), Provided::Fetched(size));
    assert!(std::fs::symlink_metadata(&file).unwrap().is_file(), "a link is not believed");
}

#[tokio::test]
async fn what_is_not_the_declared_file_never_gets_its_name() {
    let site = Site::new().await;
    let refused = async |download: &Download, largest: u64| {
        let error = site.provide(download, largest).await.unwrap_err();
        assert_eq!(site.in_cache(), [""; 0], "{error}");
        error.to_string()
    };
    let said = refused(&download("/other"), LARGEST).await;
    let (expected, got) = (hex(&sha256(&content())), hex(&sha256(b"something else")));
    assert!(said.contains(&format!("expected SHA-256 {expected}, got {got}")), "{said}");
    assert!(said.ends_with("nothing was run"), "{said}");
    let said = refused(&download("/short"), LARGEST).await;
    assert!(said.contains("files.example.com broke off"), "{said}");
    let said = refused(&download("/missing"), LARGEST).await;
    assert_eq!(said, "Example.tar.gz can't be fetched: files.example.com answered 404. Nothing was run");
    let plain = Plain::start().await;
    let said = refused(&download(&format!("/downgrade/{}", plain.port)), LARGEST).await;
    assert!(said.contains("can't be fetched"), "{said}");
    assert_eq!(plain.connections.load(Ordering::SeqCst), 0, "nobody asks without TLS");
    assert!(refused(&download("/round"), LARGEST).await.contains("sends to another address, and too often"));
    let said = refused(&download("/good"), content().len() as u64 - 1).await;
    assert!(said.contains("is larger than 1199999 bytes"), "{said}");

    site.outside.asked();
    let plain = Download { url: "http://files.example.com/good".to_owned(), ..download("/good") };
    let named = |name: &str| Download { name: name.to_owned(), ..download("/good") };
    let short = Download { sha256: "ab".to_owned(), ..download("/good") };
    for malformed in [plain, named("../x"), named(""), named(".hidden"), named("a/b"), short] {
        assert!(refused(&malformed, LARGEST).await.contains("malformed"));
    }
    assert!(site.outside.asked().is_empty());
}

#[tokio::test]
async fn a_team_that_can_not_be_checked_here_is_a_refusal() {
    let site = Site::new().await;
    let signed = Download { team: Some("ABCDE12345".to_owned()), ..download("/good") };
    std::fs::write(site.cache().join(&signed.name), content()).unwrap();
    let refused = site.provide(&signed, LARGEST).await.unwrap_err();
    assert!(matches!(&refused, DownloadError::Unsupported { .. }), "{refused}");
    assert!(refused.to_string().contains("not supported on this system"), "{refused}");
    assert!(site.outside.asked().is_empty());
}

fn manifest() -> String {
    let good = hex(&sha256(&content()));
    format!(
        r#"
key = "tool"
name = "Tool"
category = "system"
summary = "x"
platforms = ["linux", "macos"]
[[download]]
name = "Example.tar.gz"
url = "https://files.example.com/good"
sha256 = "{good}"
[[download]]
name = "other.bin"
url = "https://files.example.com/other"
sha256 = "{good}"
[[download]]
name = "unused.bin"
url = "https://files.example.com/unused"
sha256 = "{good}"
[[step]]
id = "install"
kind = "auto"
title = "x"
as = "user"
check = 'test -e "$HOME/installed"'
run = 'cp "$BOARD_CACHE/Example.tar.gz" "$HOME/installed"; echo copied'
verify = 'cmp "$BOARD_CACHE/Example.tar.gz" "$HOME/installed"'
[[step]]
id = "spoiled"
kind = "auto"
title = "x"
as = "user"
run = 'touch "$HOME/ran"; cat "$BOARD_CACHE"/other.bin'
verify = 'true'
"#
    )
}

async fn attempt(link: &mut Link, digest: &str, step: &str) -> (String, AttemptEnded) {
    link.send(FromBoard::Offer(Offer {
        attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
        bundle_digest: digest.to_owned(),
        component: "tool".to_owned(),
        step: step.to_owned(),
        kind: OfferKind::Run,
        params: [].into(),
        expires_in_ms: 60_000,
    }));
    let mut output = String::new();
    loop {
        let report = link.report().await;
        link.acknowledge(&report);
        if let ReportBody::Output(chunk) = &report.body {
            output.push_str(&chunk.text);
        } else if let ReportBody::AttemptEnded(ended) = report.body {
            return (output, ended);
        } else {
            assert!(matches!(report.body, ReportBody::AttemptStarted { .. }), "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_step_finds_what_it_names_or_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::start(folder.path(), files).await;
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("tool", &manifest())]);
    let _agent = device.run_outside(&folder.path().join("agent.log"), &outside);
    let (mut link, _) = board.welcome(&digest, &["tool"]).await;

    let (output, ended) = attempt(&mut link, &digest, "install").await;
    assert_eq!(ended.outcome, Outcome::Succeeded, "{}", ended.found);
    assert!(output.starts_with("[fetched Example.tar.gz: 1200000 bytes, SHA-256 "), "{output}");
    assert!(output.ends_with("]\ncopied\n"), "{output}");
    let asked: Vec<String> = outside.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(asked, ["GET /good HTTP/1.1"], "only what the step names");
    let cache = std::fs::metadata(device.data.join("cache")).unwrap();
    assert_eq!(cache.permissions().mode() & 0o7777, 0o755);

    let (_, ended) = attempt(&mut link, &digest, "install").await;
    assert_eq!(ended.outcome, Outcome::AlreadySo);
    assert!(outside.asked().is_empty());

    let (_, ended) = attempt(&mut link, &digest, "spoiled").await;
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::Failed, None));
    assert!(
        ended.found.starts_with("other.bin is not the file that the publisher signed for"),
        "{}",
        ended.found
    );
    assert!(!device.data.join("home/ran").exists(), "nothing was run");
}
