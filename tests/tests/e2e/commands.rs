//! What `--help` says of the two programs.

use std::process::Command;

use tests::process::program;

/// The help of a command, the program's own with none; nothing when there is no such command.
pub fn help(name: &str, command: &[&str]) -> Option<String> {
    let done = Command::new(program(name).unwrap()).args(command).arg("--help").output().unwrap();
    done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
}

/// The commands below this one, by what its help says.
pub fn children(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = listed.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
    let names =
        lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(ToOwned::to_owned).collect()
}

/// Every command of a program that has none below it, in words: `ca rotate`.
pub fn leaves(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(command) = open.pop() {
        let words: Vec<&str> = command.split_whitespace().collect();
        let below = children(&help(name, &words).unwrap());
        if below.is_empty() {
            found.push(command);
        } else {
            open.extend(below.iter().map(|child| format!("{command} {child}").trim().to_owned()));
        }
    }
    found.sort();
    found
}
