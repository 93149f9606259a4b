//! The table of a run: each value by its name, where it was found, how it was written, and why that is allowed. It is
//! printed, and kept below the target folder as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;
use tests::process::program;

use super::allowed::allowed;
use super::places::{Finding, Looked};

pub struct Report {
    database: &'static str,
    rows: Vec<(Finding, String)>,
    looked: Vec<String>,
    planted: Vec<Finding>,
    notes: Vec<String>,
    /// What is not as it has to be; none is what a run is for.
    pub problems: Vec<String>,
}

impl Report {
    pub fn new(database: &'static str, looked: &Looked) -> Self {
        let allowed: BTreeMap<Finding, &str> =
            allowed().into_iter().map(|one| (one.finding, one.because)).collect();
        let mut problems = Vec::new();
        let mut rows = Vec::new();
        for finding in &looked.found {
            let because = allowed.get(finding).copied().unwrap_or("NOT ALLOWED");
            if !allowed.contains_key(finding) {
                problems.push(format!("a leak: {finding}"));
            }
            rows.push((finding.clone(), because.to_owned()));
        }
        for finding in allowed.keys().filter(|finding| !looked.found.contains(*finding)) {
            problems.push(format!("the search is blind, or the value no longer goes there: {finding}"));
        }
        rows.sort_by(|(one, _), (other, _)| (one.value, &one.place).cmp(&(other.value, &other.place)));
        let looked = looked.at.iter().map(|(area, (number, bytes))| match bytes {
            0 => format!("{area}: {number}"),
            _ => format!("{area}: {number}, {} KiB", bytes.div_ceil(1024)),
        });
        Self { database, rows, looked: looked.collect(), planted: Vec::new(), notes: Vec::new(), problems }
    }

    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// What was planted has to be found, and nothing else on the way.
    pub fn planted(&mut self, planted: &BTreeSet<Finding>, found: &BTreeSet<Finding>) {
        for finding in planted.difference(found) {
            self.problems.push(format!("planted and not found: {finding}"));
        }
        for finding in found.difference(planted) {
            self.problems.push(format!("not planted, and found: {finding}"));
        }
        self.planted = planted.intersection(found).cloned().collect();
    }

    /// Prints it, and keeps it.
    #[expect(clippy::print_stdout, reason = "the table is what this suite is for")]
    pub fn show(&self) {
        let text = self.text();
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{}.txt", self.database)), &text).unwrap();
        let rows = self.rows.iter().map(|(finding, because)| {
            json!({ "value": finding.value, "place": finding.place, "form": finding.form.to_string(), "because": because })
        });
        let planted = self.planted.iter().map(|finding| {
            json!({ "value": finding.value, "place": finding.place, "form": finding.form.to_string() })
        });
        let whole = json!({
            "database": self.database,
            "found": rows.collect::<Vec<_>>(),
            "planted": planted.collect::<Vec<_>>(),
            "looked": self.looked,
            "notes": self.notes,
            "problems": self.problems,
        });
        std::fs::write(folder.join(format!("{}.json", self.database)), format!("{whole:#}\n")).unwrap();
        println!("{text}\nkept as {} in {}", self.database, folder.display());
    }

    fn text(&self) -> String {
        let mut text = format!("The canary run on {}\n\n", self.database);
        let width = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
        let value = width(&mut self.rows.iter().map(|(one, _)| one.value.len()));
        let place = width(&mut self.rows.iter().map(|(one, _)| one.place.len()));
        let mut line = |one: &str, where_: &str, form: &str, because: &str| {
            writeln!(text, "{one:value$}  {where_:place$}  {form:12}  {because}").unwrap();
        };
        line("value", "found", "form", "allowed because");
        for (finding, because) in &self.rows {
            line(finding.value, &finding.place, &finding.form.to_string(), because);
        }
        text.push_str("\nPlanted, and found:\n");
        for finding in &self.planted {
            writeln!(text, "  {finding}").unwrap();
        }
        text.push_str("\nLooked at (how many, how much):\n");
        for line in self.looked.iter().chain(&self.notes) {
            writeln!(text, "  {line}").unwrap();
        }
        if !self.problems.is_empty() {
            writeln!(text, "\nPROBLEMS:\n  {}", self.problems.join("\n  ")).unwrap();
        }
        text
    }
}

/// Below the target folder, wherever that is.
fn folder() -> PathBuf {
    program("board").unwrap().parent().unwrap().with_file_name("canary")
}
