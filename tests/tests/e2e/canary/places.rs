//! Where a value could be: files, databases, processes, the browser and the wire. Each search gives what it found and
//! how much it looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use regex::Regex;
use serde_json::Value;
use tests::process::output;
use tests::scan;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::recorder::Recorder;
use super::values::{Canaries, Form};
use crate::browser::window::Window;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub place: String,
    pub value: &'static str,
    pub form: Form,
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} in {}, {}", self.value, self.place, self.form)
    }
}

/// What was found, and what was looked at: files or messages, and bytes.
#[derive(Clone, Default)]
pub struct Looked {
    pub found: BTreeSet<Finding>,
    pub at: BTreeMap<String, (u64, u64)>,
}

impl Looked {
    /// Searches one more thing at `place`, which is counted as part of `area`.
    pub fn look(&mut self, canaries: &Canaries, area: &str, place: &str, bytes: &[u8]) {
        self.count(area, bytes.len());
        for (value, form) in canaries.find(bytes) {
            self.found.insert(Finding { place: place.to_owned(), value, form });
        }
    }

    fn count(&mut self, area: &str, bytes: usize) {
        let count = self.at.entry(area.to_owned()).or_default();
        *count = (count.0 + 1, count.1 + bytes as u64);
    }

    pub fn add(&mut self, other: Self) {
        self.found.extend(other.found);
        for (area, (number, bytes)) in other.at {
            let count = self.at.entry(area).or_default();
            *count = (count.0 + number, count.1 + bytes);
        }
    }

    /// Every file below a folder; `place` makes of a path inside it, with `{id}` for what differs from run to run, its place.
    pub fn files(&mut self, canaries: &Canaries, root: &Path, place: impl Fn(&str) -> String) {
        self.these_files(canaries, root, place, |_| true);
    }

    fn these_files(
        &mut self,
        canaries: &Canaries,
        root: &Path,
        place: impl Fn(&str) -> String,
        wanted: impl Fn(&Path) -> bool,
    ) {
        let ids = Regex::new("[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}").unwrap();
        for path in regular_files(root).into_iter().filter(|path| wanted(path)) {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                // A running program took it away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => panic!("{}: {error}", path.display()),
            };
            let inside = path.strip_prefix(root).unwrap().display().to_string();
            let place = place(&ids.replace_all(&inside, "{id}"));
            let area = place.split_once('/').map_or(place.as_str(), |(area, _)| area).to_owned();
            self.look(canaries, &area, &place, &bytes);
            if bytes.starts_with(b"PGDMP") {
                self.look(canaries, &area, &place, &opened_dump(&path));
            }
        }
    }

    /// What went to and from the console.
    pub fn console(&mut self, canaries: &Canaries, recorder: &Recorder) {
        for exchange in recorder.exchanges() {
            self.look(canaries, "requests", &format!("request {}", exchange.name), &exchange.request);
            self.look(canaries, "responses", &format!("response to {}", exchange.name), &exchange.response);
        }
    }

    /// What went between the devices and the board, as it was on the wire.
    pub fn link(&mut self, canaries: &Canaries, recorder: &Recorder) {
        for bytes in recorder.bytes().iter().flatten() {
            self.look(canaries, "the agents' connections", "the agents' connections", bytes);
        }
    }

    /// All of a running program's memory.
    pub fn memory(&mut self, canaries: &Canaries, name: &str, process: u32) {
        let place = format!("memory of the {name}");
        let mut found = BTreeSet::new();
        let read =
            scan::memory(process, canaries.longest(), |piece| found.extend(canaries.find(piece))).unwrap();
        self.count(&place, usize::try_from(read).unwrap());
        self.found.extend(found.into_iter().map(|(value, form)| Finding {
            place: place.clone(),
            value,
            form,
        }));
    }

    /// The page that is open, with what its fields hold, and all storage of its origin.
    pub async fn browser(&mut self, canaries: &Canaries, window: &Window) {
        let page = window
            .eval("return document.documentElement.outerHTML + JSON.stringify([location.href, history.state, [...document.querySelectorAll('input, textarea')].map((field) => field.value)])")
            .await;
        let path = plain(&window.path().await);
        self.look(
            canaries,
            "pages in the browser",
            &format!("page {path}"),
            page.as_str().unwrap().as_bytes(),
        );
        // What a page has no right to use holds nothing.
        let script = "
            const where = async (look) => { try { return await look(); } catch (error) { return error.name; } };
            const cached = async () => {
                const stored = [];
                for (const name of await caches.keys()) {
                    const cache = await caches.open(name);
                    for (const request of await cache.keys()) stored.push(request.url, await (await cache.match(request)).text());
                }
                return stored;
            };
            return JSON.stringify([
                { ...localStorage }, { ...sessionStorage }, document.cookie, window.name,
                await where(() => indexedDB.databases()), await where(cached),
                await where(async () => (await navigator.serviceWorker.getRegistrations()).length),
            ]);";
        let storage: Value = window.settle(script, []).await;
        self.look(canaries, "browser storage", "browser storage", storage.as_str().unwrap().as_bytes());
    }

    /// A database's files on its server, which has to be on this machine, with the write-ahead log since `begun`.
    pub async fn postgres(&mut self, canaries: &Canaries, server: &Server, begun: SystemTime) {
        server.ask("CHECKPOINT").await;
        let data = PathBuf::from(server.ask("SHOW data_directory").await);
        assert!(data.is_dir(), "{} is not on this machine, or needs root to be looked into", data.display());
        let own = server.ask("SELECT oid FROM pg_database WHERE datname = current_database()").await;
        let fresh = |path: &Path| {
            std::fs::metadata(path).and_then(|data| data.modified()).is_ok_and(|changed| changed >= begun)
        };
        let place = |folder: &str| format!("PostgreSQL: {folder}");
        self.these_files(canaries, &data.join("base").join(own), |_| place("base"), |_| true);
        self.these_files(canaries, &data.join("pg_wal"), |_| place("pg_wal"), fresh);
        self.these_files(canaries, &data.join("global"), |_| place("global"), fresh);
        // The server's log lies in its folder or beside it.
        for folder in [data.join("log"), data.parent().unwrap().to_owned()] {
            self.fresh_files_of(canaries, &folder, &place("log"), begun);
        }
    }

    /// The files right in a folder, not those below, that were written since `begun`.
    pub fn fresh_files_of(&mut self, canaries: &Canaries, folder: &Path, place: &str, begun: SystemTime) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            if data.is_file() && data.modified().is_ok_and(|changed| changed >= begun) {
                // Others use the folder too: what they took away meanwhile is gone.
                if let Ok(bytes) = std::fs::read(entry.path()) {
                    self.look(canaries, place, place, &bytes);
                }
            }
        }
    }
}

/// The tests' PostgreSQL server, asked as its superuser in the board's own database.
pub struct Server(String);

impl Server {
    /// `board` is the address that the board uses.
    pub fn of(board: &str) -> Self {
        let server = std::env::var("DATABASE_URL_POSTGRES").unwrap();
        let (place, _) = server.rsplit_once('/').unwrap();
        let (_, name) = board.rsplit_once('/').unwrap();
        Self(format!("{place}/{name}"))
    }

    pub async fn ask(&self, sql: &str) -> String {
        output(Command::new("psql").args([&self.0, "-qAt", "-c", sql])).await.unwrap().trim().to_owned()
    }

    /// Keeps all of the write-ahead log from here on, as long as the handle lives: others may use this server too, and
    /// a checkpoint gives old segments to what comes next.
    pub async fn keep_log(&self) -> Child {
        let mut command = Command::new("psql");
        command.args([&self.0, "-qAt"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut psql = command.spawn().unwrap();
        let (_, name) = self.0.rsplit_once('/').unwrap();
        let slot = format!("SELECT pg_create_physical_replication_slot('{name}', true, true);\n");
        psql.stdin.as_mut().unwrap().write_all(slot.as_bytes()).await.unwrap();
        let mut said = String::new();
        BufReader::new(psql.stdout.as_mut().unwrap()).read_line(&mut said).await.unwrap();
        assert!(said.contains(name), "the server keeps its log: {said}");
        psql
    }

    /// Runs a statement of which nothing is in a command line.
    pub async fn run(&self, sql: &str) {
        let mut command = Command::new("psql");
        let mut psql = command.args([&self.0, "-q"]).stdin(Stdio::piped()).spawn().unwrap();
        psql.stdin.take().unwrap().write_all(sql.as_bytes()).await.unwrap();
        assert!(psql.wait().await.unwrap().success());
    }
}

/// Looks at every process's command line and environment, again and again, until it is asked what it saw.
pub struct Watch {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    found: Arc<Mutex<BTreeSet<Finding>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    const PAUSE: Duration = Duration::from_millis(60);

    pub fn begin(canaries: &Arc<Canaries>) -> Self {
        let mut watch =
            Self { over: Arc::default(), rounds: Arc::default(), found: Arc::default(), thread: None };
        let (over, rounds) = (Arc::clone(&watch.over), Arc::clone(&watch.rounds));
        let (found, canaries) = (Arc::clone(&watch.found), Arc::clone(canaries));
        watch.thread = Some(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let seen = processes(&canaries);
                found.lock().unwrap().extend(seen);
                rounds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Self::PAUSE);
            }
        }));
        watch
    }

    /// What was seen so far, after at least one more look that began later than this call.
    pub async fn seen(&self) -> Looked {
        let now = self.rounds.load(Ordering::Relaxed);
        while self.rounds.load(Ordering::Relaxed) < now + 2 {
            tokio::time::sleep(Self::PAUSE).await;
        }
        let rounds = self.rounds.load(Ordering::Relaxed);
        let found = self.found.lock().unwrap().clone();
        Looked { found, at: BTreeMap::from([("looks at /proc".to_owned(), (rounds, 0))]) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has told what it saw, and why it ended.
            let _ = thread.join();
        }
    }
}

fn processes(canaries: &Canaries) -> Vec<Finding> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process may be gone, or not ours to read.
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (command_line, environment) = (read("cmdline"), read("environ"));
        let who = || {
            let has = |text: &str| scan::contains(&environment, text.as_bytes());
            if has("BOARD_WRAPPERS=") {
                "a step's programs".to_owned()
            } else if has("CANARY_STARTED_BY=wrapper") {
                "the program behind a wrapper".to_owned()
            } else if has("CANARY_STARTED_BY=exec") {
                "the program that `board-agent exec` became".to_owned()
            } else {
                match String::from_utf8_lossy(&read("comm")).trim() {
                    "" => "a program that is gone".to_owned(),
                    name => name.to_owned(),
                }
            }
        };
        for (what, bytes) in [("command line", &command_line), ("environment", &environment)] {
            for (value, form) in canaries.find(bytes) {
                found.push(Finding { place: format!("{what} of {}", who()), value, form });
            }
        }
    }
    found
}

/// PostgreSQL's own format of a dump is compressed inside.
fn opened_dump(path: &Path) -> Vec<u8> {
    let done = std::process::Command::new("pg_restore").arg("--file=-").arg(path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn regular_files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        let entries: io::Result<Vec<_>> = std::fs::read_dir(&folder).and_then(Iterator::collect);
        for entry in entries.into_iter().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}

/// A path of the console with `{id}` for what differs from run to run.
pub fn plain(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    if path.starts_with("/welcome/") {
        return "/welcome/{token}".to_owned();
    }
    Regex::new("[0-9a-f]{8}-[0-9a-f-]{27}").unwrap().replace_all(path, "{id}").into_owned()
}
