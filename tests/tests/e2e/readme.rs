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
    let optional = ["agent/README.md", "control-plane/README.md"].into_iter();
    ["README.md", "packaging/README.md", "packaging/macos/README.md", "packaging/linux/README.md"]
        .into_iter()
        .chain(optional.filter(|path| workspace().join(path).exists()))
        .map(|path| (path.to_owned(), read(path)))
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
fn every_file_of_packaging_is_named_by_its_readme() {
    let readme = read("packaging/README.md");
    let mut folders = vec![workspace().join("packaging")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(workspace()).unwrap().display().to_string();
            assert!(
                name == "packaging/README.md" || readme.contains(&format!("`{name}`")),
                "packaging/README.md says nothing of {name}"
            );
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn the_scripts_of_packages_can_be_parsed_and_started() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in ["build-package", "uninstall", "scripts/preinstall", "scripts/postinstall"] {
        let path = workspace().join("packaging/macos").join(script);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("#!/bin/bash\n"), "{script}");
        assert_ne!(path.metadata().unwrap().permissions().mode() & 0o111, 0, "{script} can't be started");
        let parsed = std::process::Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(parsed.status.success(), "{script}: {}", String::from_utf8_lossy(&parsed.stderr));
    }
}

#[test]
fn every_command_that_the_documents_name_exists() {
    let words =
        Regex::new(r"^(?:sudo )?(?:\./|/opt/board-agent/bin/)?(board|board-agent) ([a-z]+)(?: ([a-z]+))?")
            .unwrap();
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
