//! Leaks on purpose, one of each kind: a search that doesn't find them proves nothing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use data_encoding::{BASE64, HEXUPPER};
use tempfile::NamedTempFile;
use tests::process::output;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::job::Job;
use super::looking::TEMPORARY;
use super::places::{Finding, Looked, Server};
use super::values::Form;

/// The client's own: it may be nowhere near the board.
const VALUE: &str = "theirs/ON_DEVICE";
/// Ends by itself, should nobody end it.
const A_WHILE: &str = "120";

pub struct Planted {
    /// What a search has to find of it.
    pub expected: BTreeSet<Finding>,
    /// Programs that have it, while the search looks.
    running: Vec<Child>,
    holder: u32,
    temporary: Option<NamedTempFile>,
    /// Whether this machine writes a core file for a program that allows one.
    pub cores: bool,
}

impl Planted {
    pub async fn everywhere(job: &Job) -> Self {
        let mut planted =
            Self { expected: BTreeSet::new(), running: Vec::new(), holder: 0, temporary: None, cores: false };
        let value = job.canaries.value(VALUE);
        planted.in_files(job, value);
        planted.in_the_database(job, value).await;
        planted.in_a_response(job, value).await;
        planted.in_processes(value).await;
        planted.in_the_browser(job, value).await;
        planted.in_a_core_file(job.folder.path(), value).await;
        planted
    }

    /// The same search as before, where something was planted.
    pub async fn found(&self, job: &mut Job, before: &Looked) -> BTreeSet<Finding> {
        job.looked = Looked::default();
        job.look_while_it_runs().await;
        job.looked.browser(&job.canaries, &job.window).await;
        job.looked.memory(&job.canaries, "planted program", self.holder);
        job.looked.found.difference(&before.found).cloned().collect()
    }

    pub async fn end(self) {
        for mut child in self.running {
            child.kill().await.unwrap();
        }
    }

    fn expect(&mut self, place: &str, form: Form) {
        self.expected.insert(Finding { place: place.to_owned(), value: VALUE, form });
    }

    fn in_files(&mut self, job: &Job, value: &str) {
        let (root, profile) = (job.folder.path(), job.window.profile());
        let wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        zipped.write_all(HEXUPPER.encode(value.as_bytes()).as_bytes()).unwrap();
        for (file, bytes, form) in [
            ("logs/board.log", format!("TRACE a value: {value}\n").into_bytes(), Form::Raw),
            ("logs/mac.log", format!("TRACE half of it: {}\n", &value[..15]).into_bytes(), Form::Half),
            ("mac/planted", wide, Form::Utf16),
            ("backups/planted.gz", zipped.finish().unwrap(), Form::Hex),
        ] {
            let mut open = std::fs::OpenOptions::new();
            open.create(true).append(true).open(root.join(file)).unwrap().write_all(&bytes).unwrap();
            self.expect(file, form);
        }
        std::fs::write(profile.join("planted"), value).unwrap();
        self.expect("browser profile", Form::Raw);
        self.temporary = Some(tempfile::NamedTempFile::new().unwrap());
        self.temporary.as_mut().unwrap().write_all(value.as_bytes()).unwrap();
        self.expect(TEMPORARY, Form::Raw);
    }

    /// In a page of a table, and in the write-ahead log.
    async fn in_the_database(&mut self, job: &Job, value: &str) {
        if let Some(url) = job.board.database() {
            let value = value.replace('\'', "''");
            Server::of(url)
                .run(&format!(
                    "CREATE TABLE planted AS SELECT '{value}' AS value; GRANT SELECT ON planted TO PUBLIC"
                ))
                .await;
            self.expect("PostgreSQL: base", Form::Raw);
            self.expect("PostgreSQL: pg_wal", Form::Raw);
            job.back_up("planted").await;
            // In the text of a dump a backslash stands twice.
            self.expect("backups/planted.dump", Form::Part);
            return;
        }
        let database = job.board.layout.path("board/board.db");
        insert(&database, value, "db.close()").await;
        self.expect("board/board.db", Form::Raw);
        job.back_up("planted").await;
        self.expect("backups/planted.db", Form::Raw);
        // The write-ahead log stays when the last program is killed.
        insert(&database, value, "os._exit(0)").await;
        self.expect("board/board.db-wal", Form::Raw);
    }

    /// Base64 inside gzip inside pieces.
    async fn in_a_response(&mut self, job: &Job, value: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        job.console.point(&listener.local_addr().unwrap().to_string());
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        write!(zipped, "<p>{}</p>", BASE64.encode(format!("it is {value}").as_bytes())).unwrap();
        let zipped = zipped.finish().unwrap();
        let (first, second) = zipped.split_at(zipped.len() / 2);
        let mut answer =
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in [first, second, &[]] {
            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).await.unwrap() > 0);
            stream.write_all(&answer).await.unwrap();
        };
        let ask =
            async { reqwest::get(format!("{}/planted", job.console.url())).await.unwrap().bytes().await };
        let ((), received) = tokio::join!(serve, ask);
        assert_eq!(received.unwrap(), zipped);
        self.expect("response to GET /planted", Form::Base64);
    }

    /// In an environment, in a command line and in memory.
    async fn in_processes(&mut self, value: &str) {
        let mut environment = Command::new("sleep");
        environment.arg(A_WHILE).env("PLANTED", value);
        self.running.push(environment.kill_on_drop(true).spawn().unwrap());
        self.expect("environment of sleep", Form::Raw);
        let mut line = Command::new("tail");
        line.args(["--retry", "--follow=name", "--quiet", "--lines=0", "--sleep-interval=1", "/dev/null"]);
        let mut line =
            line.arg(format!("/nowhere/{value}")).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        self.expect("command line of tail", Form::Raw);
        assert!(line.try_wait().unwrap().is_none());
        self.running.push(line);
        let script = "import sys\nvalue = sys.stdin.readline()\nprint('held', flush=True)\nsys.stdin.read()\nsys.exit(value == '')";
        let mut holder = Command::new("python3");
        holder.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut holder = holder.spawn().unwrap();
        holder.stdin.as_mut().unwrap().write_all(format!("{value}\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).await.unwrap();
        assert_eq!(said.trim(), "held");
        self.holder = holder.id().unwrap();
        self.expect("memory of the planted program", Form::Raw);
        self.running.push(holder);
    }

    async fn in_the_browser(&mut self, job: &Job, value: &str) {
        job.window.call("localStorage.planted = arguments[0]", [value.into()]).await;
        self.expect("browser storage", Form::JsonEscaped);
        job.window.call("document.body.append(arguments[0])", [value.into()]).await;
        let page = super::places::plain(&job.window.path().await);
        self.expect(&format!("page {page}"), Form::HtmlEscaped);
    }

    /// What aborts where both programs were aborted leaves its memory there, if the machine writes core files at all.
    async fn in_a_core_file(&mut self, root: &Path, value: &str) {
        let script = "import os, sys; value = sys.stdin.read(); os.abort()";
        let mut program = Command::new("python3");
        let mut child = program.args(["-c", script]).current_dir(root).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).await.unwrap();
        self.cores = child.wait().await.unwrap().core_dumped();
        let pattern = output(Command::new("cat").arg("/proc/sys/kernel/core_pattern")).await.unwrap();
        if self.cores && pattern.trim() == "core" {
            let written = super::aborted::core_files(root);
            let [name] = written.as_slice() else { panic!("one core file is written: {written:?}") };
            self.expect(name, Form::Raw);
        }
    }
}

async fn insert(database: &Path, value: &str, end: &str) {
    let script = format!(
        "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('CREATE TABLE IF NOT EXISTS planted (value TEXT)')
db.execute('INSERT INTO planted VALUES (?)', [sys.stdin.read()])
{end}
"
    );
    let mut plant = Command::new("python3");
    let mut child = plant.args(["-c", &script]).arg(database).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).await.unwrap();
    assert!(child.wait().await.unwrap().success());
}
