//! `tests/run secrets`: one line for each rule, with the tests that break it. Exit status 1 when a rule has none, or names
//! one that isn't there.

use std::process::ExitCode;

use tests::rules::{exists, rules};

#[expect(clippy::print_stdout, reason = "the table is this program's output")]
fn main() -> anyhow::Result<ExitCode> {
    let (mut missing, mut wrong) = (0, 0);
    let rules = rules()?;
    for rule in &rules {
        let mut names = Vec::new();
        for test in &rule.tests {
            let there = exists(test)?;
            wrong += u32::from(!there);
            let name = test.split_once(' ').map_or(test.as_str(), |(_, name)| name);
            names.push(if there { name.to_owned() } else { format!("NOT THERE: {test}") });
        }
        if names.is_empty() {
            missing += 1;
            names.push("MISSING".to_owned());
        }
        println!("{:<5} {}  <-  {}", rule.section, rule.text, names.join(", "));
    }
    println!("\n{} rules, {missing} without a test, {wrong} tests that are not there", rules.len());
    Ok(if missing + wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
