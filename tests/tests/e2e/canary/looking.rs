//! What is looked at during and after the job: what pages and answers say, processes, memory, the wire, files.

use tests::consultant::list;
use tests::process::Process;
use tests::scan;

use super::job::Job;
use super::places::{Looked, Server};
use super::values::Owner;

/// What the agent puts in a value's place.
const MASK: &str = "••••";

/// Where programs put what they don't want to keep.
pub const TEMPORARY: &str = "the system's temporary folder";

impl Job {
    /// Every page and every answer of the API that could show one, and what the browser makes of the pages.
    pub async fn read_everything(&mut self) {
        let (client, device) = (self.client.clone(), self.device.clone());
        let runbook = self.consultant.json(&format!("/api/v1/devices/{device}/runbook")).await.unwrap();
        let attempts = list(&runbook, "steps").iter().filter_map(|step| step["attempt"].as_str());
        let outputs: Vec<String> =
            attempts.map(|attempt| format!("/devices/{device}/output/{attempt}")).collect();
        assert!(outputs.len() >= 3, "{runbook:#}");
        let mut masked = 0;
        for path in &outputs {
            masked += self.consultant.get(path).await.unwrap().matches(MASK).count();
        }
        // Seven times by the first step, six by the second, once by the last.
        assert_eq!(masked, 14, "every value that was printed is masked, in each of its forms");
        let pages = [
            "/clients".to_owned(),
            format!("/clients/{client}"),
            format!("/clients/{client}/secrets"),
            format!("/devices/{device}/runbook"),
            format!("/devices/{device}/plan"),
            "/enrollments".to_owned(),
            "/support".to_owned(),
            "/audit".to_owned(),
        ];
        for path in pages.iter().chain(&outputs) {
            self.window.go(path).await;
            self.looked.browser(&self.canaries, &self.window).await;
        }
        let others = [
            "/support.csv".to_owned(),
            "/support.json".to_owned(),
            "/audit.csv".to_owned(),
            "/audit.jsonl".to_owned(),
            "/health".to_owned(),
            "/api/v1/state".to_owned(),
            format!("/api/v1/clients/{client}/state"),
        ];
        for path in pages.iter().chain(&others) {
            self.consultant.get(path).await.unwrap();
        }
    }

    /// The board's for the client's own values, which it never had. What else is left in memory that was given back is
    /// told: of that nothing is promised.
    pub fn look_into_memory(&mut self) -> String {
        let process = |process: &Process| process.id().unwrap();
        let (board, agent) = (process(self.board.process().unwrap()), process(self.agent.process().unwrap()));
        let known = self.board.agents_address.as_bytes();
        assert!(scan::memory_with(board, known).unwrap() > 0, "its memory is really read");
        self.looked.memory(&self.canaries.only(Owner::Theirs), "board, for the client's own", board);
        let mut left = Looked::default();
        left.memory(&self.canaries.only(Owner::Ours), "board", board);
        left.memory(&self.canaries, "agent", agent);
        let left: Vec<String> = left.found.iter().map(ToString::to_string).collect();
        format!(
            "left in memory, of which nothing is promised: {}",
            if left.is_empty() { "none".to_owned() } else { left.join("; ") }
        )
    }

    /// A copy of the database, as an operator makes one beside the running board.
    pub async fn back_up(&self, name: &str) {
        let folder = self.folder.path().join("backups");
        std::fs::create_dir_all(&folder).unwrap();
        let end = if self.board.database().is_some() { "dump" } else { "db" };
        let out = folder.join(name).with_extension(end).display().to_string();
        let made = self.board.beside(&["backup", "--out", &out], "").await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Everywhere, once more: processes, the wire and the browser while the programs run.
    pub async fn look_while_it_runs(&mut self) {
        self.logs_are_complete();
        self.looked.add(self.watch.seen().await);
        self.looked.console(&self.canaries, &self.console);
        self.looked.link(&self.canaries, &self.link);
        self.looked.files(&self.canaries, &self.window.profile(), |_| "browser profile".to_owned());
        for head in self.provider.asked() {
            self.looked.look(
                &self.canaries,
                "asked of the provider, inside TLS",
                "asked of the provider, inside TLS",
                head.as_bytes(),
            );
        }
        self.look_at_files().await;
    }

    /// A log that leaves things out proves nothing.
    fn logs_are_complete(&self) {
        // A command that writes to the database once has nothing finer to say.
        for (name, finest) in
            [("board", "TRACE"), ("mac", "TRACE"), ("paste-from-a-desk", "TRACE"), ("rotate", "DEBUG")]
        {
            let log = std::fs::read_to_string(self.board.layout.log(name)).unwrap();
            assert!(log.contains(finest), "{name} logs everything: {log}");
        }
    }

    /// The folders of both programs, the backup, and the database's own files.
    pub async fn look_at_files(&mut self) {
        self.looked.files(&self.canaries, self.folder.path(), ToOwned::to_owned);
        self.looked.fresh_files_of(&self.canaries, &std::env::temp_dir(), TEMPORARY, self.begun);
        if let Some(url) = self.board.database() {
            self.looked.postgres(&self.canaries, &Server::of(url), self.begun).await;
        }
    }
}
