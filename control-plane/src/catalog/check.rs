//! `board catalog check`: what a manifest must be before it is signed or imported.

mod credentials;
mod downloads;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;
use shared::catalog::{As, Bundle, Detect, Manifest, Step, StepKind, Tag, parse_duration};

use super::tiers::Tiers;

const CATEGORIES: &[&str] =
    &["system", "runtime", "remote", "secrets", "ai", "crm", "commerce", "real-estate", "integration"];

/// Where, what is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub place: String,
    pub text: String,
}

pub fn report(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{}: {}\n", finding.place, finding.text)).collect()
}

/// Reads and checks `components/*.toml` and `tiers.toml` of a catalog folder.
pub fn folder(path: &Path) -> std::io::Result<(BTreeMap<String, String>, String, Vec<Finding>)> {
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(path.join("components"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            texts.insert(name, std::fs::read_to_string(&file)?);
        }
    }
    let tiers = std::fs::read_to_string(path.join("tiers.toml"))?;
    let findings = texts_of(&texts, &tiers);
    Ok((texts, tiers, findings))
}

pub fn bundle(bundle: &Bundle) -> Vec<Finding> {
    texts_of(&bundle.manifests, &bundle.tiers)
}

fn texts_of(texts: &BTreeMap<String, String>, tiers: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut manifests = BTreeMap::new();
    for (name, text) in texts {
        match toml::from_str::<Manifest>(text) {
            Ok(manifest) => {
                manifests.insert(name.clone(), manifest);
            }
            Err(error) => findings.push(unreadable(&format!("components/{name}.toml"), text, &error)),
        }
    }
    for (name, manifest) in &manifests {
        Checker { place: format!("components/{name}.toml"), manifest, all: texts, findings: &mut findings }
            .run(name);
    }
    check_cycles(&manifests, &mut findings);
    downloads::across(&manifests, &mut findings);
    check_tiers(tiers, texts, &mut findings);
    findings
}

fn unreadable(file: &str, text: &str, error: &toml::de::Error) -> Finding {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    Finding { place: format!("{file}:{line}"), text: error.message().to_owned() }
}

struct Checker<'a> {
    place: String,
    manifest: &'a Manifest,
    all: &'a BTreeMap<String, String>,
    findings: &'a mut Vec<Finding>,
}

impl Checker<'_> {
    fn say(&mut self, what: &str, text: impl Into<String>) {
        let place = if what.is_empty() { self.place.clone() } else { format!("{} {what}", self.place) };
        self.findings.push(Finding { place, text: text.into() });
    }

    fn run(mut self, name: &str) {
        let manifest = self.manifest;
        if manifest.key != name {
            self.say(
                "key",
                format!("is {:?}, but the file is named after its key: rename one of them", manifest.key),
            );
        }
        if !is_key(&manifest.key) {
            self.say("key", "must be a lower-case letter, then up to 39 of a-z, 0-9 and _");
        }
        if !CATEGORIES.contains(&manifest.category.as_str()) {
            self.say("category", format!("is {:?}; use one of {}", manifest.category, CATEGORIES.join(", ")));
        }
        if manifest.platforms.is_empty() {
            self.say("platforms", "is empty: name macos, linux or both");
        }
        for other in manifest.depends_on.iter().chain(&manifest.conflicts_with) {
            if !self.all.contains_key(other) {
                self.say("depends_on/conflicts_with", format!("there is no component {other:?}"));
            }
        }
        self.slots();
        for param in &manifest.params {
            self.pattern(&format!("param {}", param.key), &param.pattern);
        }
        let mut ids = std::collections::BTreeSet::new();
        for step in &manifest.steps {
            if !ids.insert(&step.id) {
                self.say(&format!("step {}", step.id), "stands there twice: step ids are unique");
            }
            self.step(step);
        }
        for wrapper in &manifest.wrappers {
            let what = format!("wrapper {}", wrapper.name);
            if wrapper.command.is_empty() {
                self.say(&what, "has no command");
            }
            for slot in wrapper.slots.values() {
                self.known_slot(&what, slot);
            }
            for param in wrapper.params.values() {
                if !manifest.params.iter().any(|known| known.key == *param) {
                    self.say(&what, format!("names the param {param:?}, which the component doesn't have"));
                }
            }
        }
        for detect in &manifest.detects {
            if let Detect::Secret { slot } = detect {
                self.known_slot("detect secret", slot);
            }
        }
        self.credentials();
        self.downloads();
    }

    fn slots(&mut self) {
        for slot in &self.manifest.slots {
            let what = format!("slot {}", slot.key);
            match (slot.tag, &slot.hint) {
                (Tag::OurManaged, Some(_)) => {
                    self.say(&what, "has a hint, but our-managed secrets live on the board: remove it");
                }
                (Tag::ClientSupplied, None) => {
                    self.say(&what, "needs a hint: where the client keeps it, like op://{vault}/Item/field");
                }
                (Tag::ClientSupplied, Some(hint)) if !hint.starts_with("op://{vault}/") => {
                    self.say(&what, format!("hint {hint:?} must start with op://{{vault}}/"));
                }
                (Tag::ClientSupplied, Some(_)) | (Tag::OurManaged, None) => {}
            }
            if slot.tag == Tag::ClientSupplied && !slot.copy {
                self.say(&what, "copy is for our-managed slots only: remove it");
            }
            if let Some(pattern) = &slot.pattern {
                self.pattern(&what, pattern);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let what = format!("step {}", step.id);
        if let Some(timeout) = &step.timeout
            && parse_duration(timeout).is_none()
        {
            self.say(&what, format!("timeout {timeout:?} must be like 30s, 5m or 2h, at most a day"));
        }
        match step.kind {
            StepKind::Manual => {
                if step.text.is_none() {
                    self.say(&what, "is manual and needs a text: what the consultant does");
                }
                if step.run.is_some() {
                    self.say(&what, "is manual and can't have run");
                }
            }
            StepKind::Auto => {
                if step.run.is_none() {
                    self.say(&what, "is auto and needs run");
                }
                if step.verify.is_none() && step.check.is_none() {
                    self.say(&what, "needs verify (or at least check): the exit code of run proves nothing");
                }
                if step.run_as.is_none() {
                    self.say(&what, "needs as: user, root or board");
                }
            }
        }
        if step.restart_on_secret
            && (step.kind == StepKind::Manual || self.manifest.slots_read_by(step).is_empty())
        {
            self.say(&what, "has restart_on_secret, but reads no slot: list the slot in secrets, or start a wrapper that gets it");
        }
        for slot in step.slots.iter().chain(step.secrets.iter().map(|secret| &secret.slot)) {
            self.known_slot(&what, slot);
        }
        let scripts =
            [("check", &step.check), ("run", &step.run), ("verify", &step.verify), ("undo", &step.undo)];
        for (name, script) in scripts {
            if let Some(script) = script {
                self.script(&format!("{what} {name}"), script, step.run_as == Some(As::Root));
            }
        }
    }

    fn script(&mut self, what: &str, script: &str, root: bool) {
        if script.contains("{{") {
            self.say(what, "holds {{: nothing is ever put into a script's text; use BOARD_PARAM_… variables");
        }
        if has_word(script, "sudo") {
            self.say(what, "calls sudo: say as = \"root\" instead");
        }
        if Regex::new(r"(curl|wget)[^|;\n]*\|\s*(ba|z)?sh\b").is_ok_and(|pipe| pipe.is_match(script)) {
            self.say(what, "pipes a download into a shell: declare a [[download]] with its SHA-256");
        }
        if let Some(package) = unpinned(script) {
            self.say(what, format!("installs {package:?} without a version: pin it"));
        }
        if root
            && ["/opt/homebrew", "/usr/local", "/Users/", "/home/", "$HOME"]
                .iter()
                .any(|p| script.contains(p))
        {
            self.say(what, "runs as root and names a folder that users can write to");
        }
        if root && script.contains("BOARD_PARAM_") && script.contains('/') {
            self.say(what, "runs as root with a client's param beside a path");
        }
        if let Err(error) = shell_syntax(script) {
            self.say(what, format!("is not valid for /bin/sh: {error}"));
        }
    }

    fn pattern(&mut self, what: &str, pattern: &str) {
        if !(pattern.starts_with('^') && pattern.ends_with('$')) {
            self.say(what, format!("pattern {pattern:?} must be anchored: ^…$"));
        }
        if let Err(error) = Regex::new(pattern) {
            self.say(what, format!("pattern can't be read: {error}"));
        }
    }

    fn known_slot(&mut self, what: &str, slot: &str) {
        if self.manifest.slot(slot).is_none() {
            self.say(what, format!("names the slot {slot:?}, which the component doesn't have"));
        }
    }
}

fn is_key(key: &str) -> bool {
    key.len() <= 40
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn has_word(script: &str, word: &str) -> bool {
    script.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).any(|part| part == word)
}

/// A package that `npm install`, `brew`-less `uv tool install` or `pip install` would take in any version.
fn unpinned(script: &str) -> Option<String> {
    for command in script.split(['\n', ';', '|', '&']) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (packages, mark) = match words.as_slice() {
            ["npm", "install" | "i", rest @ ..] => (rest, '@'),
            ["uv", "tool", "install", rest @ ..] | ["pip" | "pip3", "install", rest @ ..] => (rest, '='),
            _ => continue,
        };
        let package = packages.iter().find(|word| !word.starts_with('-') && !word[1..].contains(mark));
        if let Some(package) = package {
            return Some((*package).to_owned());
        }
    }
    None
}

fn shell_syntax(script: &str) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut input) = shell.stdin.take() {
        input.write_all(script.as_bytes()).map_err(|error| error.to_string())?;
    }
    let done = shell.wait_with_output().map_err(|error| error.to_string())?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
}

fn check_cycles(manifests: &BTreeMap<String, Manifest>, findings: &mut Vec<Finding>) {
    for start in manifests.keys() {
        let mut seen = std::collections::BTreeSet::new();
        let mut open: Vec<&String> = manifests[start].depends_on.iter().collect();
        while let Some(key) = open.pop() {
            if key == start {
                findings.push(Finding {
                    place: format!("components/{start}.toml depends_on"),
                    text: "comes back to the component itself: a cycle can't be installed in any order"
                        .into(),
                });
                break;
            }
            if seen.insert(key)
                && let Some(manifest) = manifests.get(key)
            {
                open.extend(&manifest.depends_on);
            }
        }
    }
}

fn check_tiers(text: &str, components: &BTreeMap<String, String>, findings: &mut Vec<Finding>) {
    let tiers: Tiers = match toml::from_str(text) {
        Ok(tiers) => tiers,
        Err(error) => return findings.push(unreadable("tiers.toml", text, &error)),
    };
    let lists = tiers.tiers.iter().map(|tier| (&tier.key, &tier.components));
    for (key, listed) in lists.chain(tiers.addons.iter().map(|addon| (&addon.key, &addon.components))) {
        for component in listed.iter().filter(|component| !components.contains_key(*component)) {
            findings.push(Finding {
                place: format!("tiers.toml {key}"),
                text: format!("there is no component {component:?}"),
            });
        }
    }
    for tier in &tiers.tiers {
        for other in tier.includes.iter().filter(|other| tiers.tiers.iter().all(|tier| tier.key != **other)) {
            findings.push(Finding {
                place: format!("tiers.toml {}", tier.key),
                text: format!("there is no tier {other:?}"),
            });
        }
    }
}
