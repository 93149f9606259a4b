//! The README is the map: every path and command that it names is there.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use tests::demo::workspace;
use tests::process::program;

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

fn markdown() -> Vec<(String, String)> {
    ["README.md", "agent/README.md", "control-plane/README.md", "packaging/README.md"]
        .iter()
        .filter(|path| workspace().join(path).exists())
        .map(|path| ((*path).to_owned(), read(path)))
        .collect()
}

/// What stands between backticks, and the lines of code blocks.
fn quoted(text: &str) -> Vec<String> {
    let inline = Regex::new(r"`([^`\n]+)`").unwrap();
    let blocks = Regex::new(r"(?s)```\w*\n(.*?)```").unwrap();
    let rest = blocks.replace_all(text, "");
    let mut found: Vec<String> = inline.captures_iter(&rest).map(|c| c[1].to_owned()).collect();
    for block in blocks.captures_iter(text) {
        found.extend(block[1].lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
    }
    found
}

#[test]
fn every_path_that_the_documents_name_is_there() {
    let path = Regex::new(
        r"^(?:control-plane|agent|shared|migrations|packaging|tests|\.ci|\.cargo)(?:/[\w.\-/]*)?$",
    )
    .unwrap();
    let mut count = 0;
    for (document, text) in markdown() {
        for quote in quoted(&text).iter().filter(|quote| path.is_match(quote)) {
            assert!(workspace().join(quote).exists(), "{document} names {quote}, which is not there");
            count += 1;
        }
    }
    assert!(count > 20, "the README names the rooms: {count}");
}

#[test]
fn every_command_that_the_documents_name_exists() {
    let words = Regex::new(r"^(?:sudo )?(board|board-agent) ([a-z]+)(?: ([a-z]+))?").unwrap();
    let mut seen = BTreeSet::new();
    for (document, text) in markdown() {
        for quote in quoted(&text) {
            let Some(found) = words.captures(&quote) else { continue };
            let command = (found[1].to_owned(), found[2].to_owned());
            if !seen.insert(command.clone()) {
                continue;
            }
            let help = std::process::Command::new(program(&command.0).unwrap())
                .args([command.1.as_str(), "--help"])
                .output()
                .unwrap();
            assert!(
                help.status.success(),
                "{document} names `{} {}`, which is not a command",
                command.0,
                command.1
            );
        }
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn the_commands_of_the_readme_are_those_of_the_project() {
    let readme = read("README.md");
    assert!(readme.contains("cargo demo") && read(".cargo/config.toml").contains("demo = "));
    assert!(readme.contains("tests/run") && read(".ci/run").contains("tests/run"));
    let suites = read("tests/run");
    let table = Regex::new(r"(?m)^\| `tests/run (\w+)` \|").unwrap();
    let mut count = 0;
    for found in table.captures_iter(&readme) {
        assert!(suites.contains(&found[1]), "tests/run has no suite {}", &found[1]);
        count += 1;
    }
    assert!(count >= 5, "the README lists the suites");
}

#[test]
fn top_level_is_as_the_design_says() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "control-plane",
        "agent",
        "shared",
        "migrations",
        "packaging",
        "tests",
        "README.md",
        "target",
    ];
    for entry in std::fs::read_dir(workspace()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} doesn't belong at the top"
        );
    }
    assert!(Path::new(&workspace()).join("packaging").is_dir());
}
