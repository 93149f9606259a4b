//! The canary run: one full job with an unmistakable value in every slot, ours and the client's, and then the search for
//! them everywhere. Each place where one is found has to be in `allowed.rs`, with the reason; each place of that list
//! has to be found. At the end leaks are planted, and the same search has to find every one. Run by `tests/run canary`,
//! which brings PostgreSQL and the browser; it needs root, as it reads other users' processes.
//!
//! A new slot of the catalog beside this file needs its name in `values.rs` and its places in `allowed.rs`; a new place
//! its search in `places.rs` and its leak in `planted.rs`.

mod aborted;
mod allowed;
mod job;
mod looking;
mod places;
mod planted;
mod provider;
mod recorder;
mod report;
mod values;

use nix::unistd::Uid;

use crate::stage::Database;
use job::Job;
use planted::Planted;
use report::Report;
use values::Owner;

async fn a_whole_job(name: &'static str, database: Database) {
    assert!(Uid::effective().is_root(), "this test needs root: it looks into all processes");
    aborted::allow_core_files();
    let mut job = Job::begin(database).await;
    job.play().await;
    job.read_everything().await;
    job.back_up("board").await;

    let left = job.look_into_memory();
    job.look_while_it_runs().await;
    aborted::both(&mut job).await;
    job.look_at_files().await;

    let looked = std::mem::take(&mut job.looked);
    let mut report = Report::new(name, &looked);
    let planted = Planted::everywhere(&job).await;
    let found = planted.found(&mut job, &looked).await;
    report.planted(&planted.expected, &found);
    report.note(match planted.cores {
        true => "core files: both programs were aborted and left none; a program of the test's own left one there".to_owned(),
        false => "core files: both programs were aborted and left none; this machine writes none for others either, so their limit of 0 is all that is proved".to_owned(),
    });
    report.note(left);
    planted.end().await;
    report.show();
    assert!(report.problems.is_empty(), "{}", report.problems.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_where_it_may_be_and_nowhere_else_on_sqlite() {
    a_whole_job("sqlite", Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_where_it_may_be_and_nowhere_else_on_postgresql() {
    a_whole_job("postgresql", Database::Postgres).await;
}

#[test]
fn every_slot_has_a_canary_and_every_canary_a_slot() {
    let mut slots = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(job::catalog().join("components")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let manifest: toml::Value = toml::from_str(&text).unwrap();
        for slot in manifest["slot"].as_array().unwrap() {
            let name = format!("{}/{}", manifest["key"].as_str().unwrap(), slot["key"].as_str().unwrap());
            slots.insert((name, slot["tag"].as_str().unwrap().to_owned()));
        }
    }
    let canaries = values::NAMES.map(|(name, owner)| {
        let tag = match owner {
            Owner::Ours => "our-managed",
            Owner::Theirs => "client-supplied",
        };
        (name.split(',').next().unwrap().to_owned(), tag.to_owned())
    });
    assert_eq!(slots, canaries.into());
}
