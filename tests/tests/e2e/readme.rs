//! The README is the map: every path and command that it names is there.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use tests::demo::workspace;

use crate::commands::{children, help, leaves};

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

/// The README, those of the packages, and every document of packaging.
fn markdown() -> Vec<(String, String)> {
    let named = ["README.md", "agent/README.md", "control-plane/README.md"].map(ToOwned::to_owned);
    let there = named.into_iter().filter(|path| workspace().join(path).exists());
    let packaging = files("packaging").into_iter().filter(|path| path.ends_with(".md"));
    there.chain(packaging).map(|path| (path.clone(), read(&path))).collect()
}

/// Every file below a folder of the workspace, by its path from there.
fn files(below: &str) -> Vec<String> {
    let mut folders = vec![workspace().join(below)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(workspace()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
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
    let files = files("packaging");
    for name in &files {
        assert!(
            name == "packaging/README.md" || readme.contains(&format!("`{name}`")),
            "packaging/README.md says nothing of {name}"
        );
    }
    assert!(files.len() >= 8, "{files:?}");
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

/// Calls of our programs: which program, and the words behind it. A pipe, a redirection or a comment ends one.
fn calls(quote: &str) -> Vec<(String, Vec<String>)> {
    let call = Regex::new(
        r"^(?:(?:[A-Z_]+=\S+|sudo) )*(?:\./|/opt/board-agent/bin/)?(board|board-agent)(?: (.*))?$",
    )
    .unwrap();
    let parts = quote.split(" | ").flat_map(|part| part.split("; ")).map(str::trim);
    let found = parts.filter_map(|part| call.captures(part)).map(|found| {
        let words = found.get(2).map_or("", |words| words.as_str()).split_whitespace();
        let own = words.take_while(|word| !["#", "--", ">", "<", "\\"].contains(word));
        (found[1].to_owned(), own.map(ToOwned::to_owned).collect())
    });
    found.collect()
}

#[test]
fn every_command_and_every_option_that_the_documents_name_exists() {
    let option = Regex::new(r"^--[a-z][a-z-]*").unwrap();
    let name = Regex::new(r"^[a-z][a-z-]*$").unwrap();
    let mut commands = BTreeSet::new();
    let mut options = 0;
    for (document, text) in markdown() {
        for (program, words) in quoted(&text).iter().flat_map(|quote| calls(quote)) {
            let said = format!("{program} {}", words.join(" "));
            let mut page = help(&program, &[]).unwrap();
            let mut command: Vec<&str> = Vec::new();
            // As long as there are commands below, the next word has to be one of them.
            for word in words.iter().take_while(|word| name.is_match(word)) {
                let below = children(&page);
                if below.is_empty() {
                    break;
                }
                assert!(
                    below.contains(word),
                    "{document} says `{said}`: `{word}` is not a command, {below:?} are"
                );
                command.push(word);
                page = help(&program, &command).unwrap();
            }
            for found in words.iter().filter_map(|word| option.find(word)) {
                let known = Regex::new(&format!(r"(?m)^\s+(?:-\w, )?{}(?:[ =]|$)", found.as_str())).unwrap();
                assert!(
                    known.is_match(&page),
                    "{document} says `{said}`, but `{program} {}` has no {}",
                    command.join(" "),
                    found.as_str()
                );
                options += 1;
            }
            if !command.is_empty() {
                commands.insert(format!("{program} {}", command.join(" ")));
            }
        }
    }
    for expected in ["board audit export", "board ca status", "board-agent status"] {
        assert!(commands.contains(expected), "{commands:?}");
    }
    assert!(commands.len() > 20 && options > 20, "{options} options of {commands:?}");
}

/// Options that a document names by themselves belong to some command of ours, or to a script of packaging.
#[test]
fn every_option_that_the_documents_name_alone_is_one_of_ours() {
    let alone = Regex::new(r"^(--[a-z][a-z-]*)(?: \S+)?$").unwrap();
    let everything: String = ["board", "board-agent"]
        .into_iter()
        .flat_map(|program| leaves(program).into_iter().map(move |command| (program, command)))
        .map(|(program, command)| help(program, &command.split_whitespace().collect::<Vec<_>>()).unwrap())
        .collect();
    let scripts = read("packaging/macos/build-package");
    let mut count = 0;
    for (document, text) in markdown() {
        for found in quoted(&text).iter().filter_map(|quote| alone.captures(quote)) {
            let known = Regex::new(&format!(r"(?m)^\s+(?:-\w, )?{}(?:[ =]|$)", &found[1])).unwrap();
            assert!(
                known.is_match(&everything) || scripts.contains(&format!("{})", &found[1])),
                "{document} names {}, which no command has",
                &found[1]
            );
            count += 1;
        }
    }
    assert!(count > 5, "{count}");
}

#[test]
fn the_commands_of_the_readme_are_those_of_the_project() {
    let readme = read("README.md");
    assert!(readme.contains("cargo demo") && read(".cargo/config.toml").contains("demo = "));
    assert!(readme.contains("tests/run") && read(".ci/run").contains("tests/run"));
    let script = read("tests/run");
    let list = Regex::new(r"(?m)^SUITES=\(([^)]*)\)").unwrap();
    let suites: BTreeSet<String> =
        list.captures(&script).unwrap()[1].split_whitespace().map(ToOwned::to_owned).collect();
    let table = Regex::new(r"(?m)^\| `tests/run (\w+)` \|").unwrap();
    let listed: BTreeSet<String> = table.captures_iter(&readme).map(|found| found[1].to_owned()).collect();
    assert_eq!(listed, suites, "the README's table has the suites of tests/run");
    let named = Regex::new(r"tests/run ([a-z]+)`").unwrap();
    for (document, text) in markdown() {
        for found in named.captures_iter(&text) {
            assert!(listed.contains(&found[1]), "{document}: tests/run has no suite {}", &found[1]);
        }
    }
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
