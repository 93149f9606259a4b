use shared::protocol::inventory::{ComponentReport, Presence};
use shared::protocol::link::Receipt;
use shared::protocol::steps::{AttemptEnded, OfferKind, Outcome, OutputChunk};
use shared::random::SystemRandom;
use shared::time::{Clock as _, SystemClock};

use super::*;

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    Place { _folder: folder, path }
}

fn report(body: ReportBody) -> Report {
    Report { id: ReportId::new(&SystemClock, &SystemRandom), at: SystemClock.now(), body }
}

fn attempt_id() -> AttemptId {
    AttemptId::new(&SystemClock, &SystemRandom)
}

fn started() -> Report {
    report(ReportBody::AttemptStarted { attempt_id: attempt_id() })
}

fn inventory(component: &str) -> Report {
    let component = ComponentReport {
        component: component.to_owned(),
        presence: Presence::Present,
        version: None,
        evidence: Vec::new(),
        observed_at: SystemClock.now(),
    };
    report(ReportBody::Inventory { components: vec![component], slots: Vec::new() })
}

fn attempt(id: AttemptId) -> Attempt {
    let offer = Offer {
        attempt_id: id,
        bundle_digest: "00".repeat(32),
        component: "slack".to_owned(),
        step: "install".to_owned(),
        kind: OfferKind::Run,
        params: BTreeMap::new(),
        expires_in_ms: 1000,
    };
    Attempt { offer, at: SystemClock.now(), next_chunk: 0, last: None }
}

fn waiting(journal: &Journal) -> Vec<Report> {
    journal.waiting(None, 1000).unwrap().into_iter().map(|(_, report)| report).collect()
}

#[test]
fn reports_wait_in_order_until_they_are_acknowledged_also_over_a_restart() {
    let place = place();
    let reports: Vec<Report> = (0..5).map(|_| started()).collect();
    {
        let journal = Journal::open(&place.path).unwrap();
        journal.record(&reports[..2]).unwrap();
        journal.record(&reports[2..]).unwrap();
        journal.acknowledged(&[reports[1].id, reports[3].id]).unwrap();
    }
    let journal = Journal::open(&place.path).unwrap();
    assert_eq!(waiting(&journal), [reports[0].clone(), reports[2].clone(), reports[4].clone()]);
    journal.acknowledged(&[reports[0].id, reports[0].id, reports[1].id]).unwrap();
    assert_eq!(waiting(&journal).len(), 2, "an ack again changes nothing");
}

#[test]
fn a_place_is_never_used_twice() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let first = started();
    journal.record(std::slice::from_ref(&first)).unwrap();
    let (before, _) = journal.waiting(None, 1).unwrap().remove(0);
    journal.acknowledged(&[first.id]).unwrap();
    let second = started();
    journal.record(std::slice::from_ref(&second)).unwrap();
    let (after, report) = journal.waiting(Some(before), 1).unwrap().remove(0);
    assert!(after > before && report == second);
}

#[test]
fn the_same_report_again_is_one_report_and_after_its_ack_it_waits_again() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let once = started();
    journal.record(&[once.clone(), once.clone()]).unwrap();
    journal.record(std::slice::from_ref(&once)).unwrap();
    assert_eq!(waiting(&journal), std::slice::from_ref(&once));
    journal.acknowledged(&[once.id]).unwrap();
    journal.record(std::slice::from_ref(&once)).unwrap();
    assert_eq!(waiting(&journal), [once]);
}

#[test]
fn an_attempt_remembers_its_output_and_its_end() {
    let place = place();
    let id = attempt_id();
    let begin = report(ReportBody::AttemptStarted { attempt_id: id });
    let end = report(ReportBody::AttemptEnded(AttemptEnded {
        attempt_id: id,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        found: "so".to_owned(),
        duration_ms: 1,
    }));
    {
        let journal = Journal::open(&place.path).unwrap();
        journal.offered(&attempt(id), &begin).unwrap();
        let chunk =
            |seq| report(ReportBody::Output(OutputChunk { attempt_id: id, seq, text: "x".to_owned() }));
        journal.record(&[chunk(0), chunk(1)]).unwrap();
        assert_eq!(journal.attempt(id).unwrap().unwrap().next_chunk, 2);
        journal.record(std::slice::from_ref(&end)).unwrap();
    }
    let journal = Journal::open(&place.path).unwrap();
    journal.offered(&attempt(id), &begin).unwrap();
    assert_eq!(journal.attempt(id).unwrap().unwrap().last, Some(end), "an offer again changes nothing");
}

#[test]
fn a_receipt_is_found_by_its_delivery() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let delivery_id = DeliveryId::new(&SystemClock, &SystemRandom);
    for passing in [true, false] {
        let reason = "expired".to_owned();
        journal.record(&[report(ReportBody::DeliveryRefused { delivery_id, reason, passing })]).unwrap();
        assert_eq!(journal.receipt(delivery_id).unwrap(), None, "a refusal is not the last word");
        assert!(journal.receipts().unwrap().is_empty());
    }
    let receipt = report(ReportBody::Receipt(Receipt {
        delivery_id,
        component: "slack".to_owned(),
        slot: "TOKEN".to_owned(),
        version: 1,
        time: SystemClock.now(),
        signature: Vec::new(),
    }));
    journal.record(std::slice::from_ref(&receipt)).unwrap();
    assert_eq!(journal.receipt(delivery_id).unwrap(), Some(receipt));
    assert_eq!(journal.receipts().unwrap(), [delivery_id]);
}

#[test]
fn refused_deliveries_of_earlier_agents_are_not_answers() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let delivery_id = DeliveryId::new(&SystemClock, &SystemRandom);
    let reason = "expired".to_owned();
    let refused = report(ReportBody::DeliveryRefused { delivery_id, reason, passing: false });
    let transaction = journal.database.begin_write().unwrap();
    let bytes = serde_json::to_vec(&refused).unwrap();
    transaction.open_table(DELIVERIES).unwrap().insert(*delivery_id.as_bytes(), bytes.as_slice()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(journal.receipt(delivery_id).unwrap(), None);
    assert!(journal.receipts().unwrap().is_empty());
}

#[test]
fn only_a_refusal_for_good_ends_an_attempt() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    for (passing, remembered) in [(true, false), (false, true)] {
        let id = attempt_id();
        let reason = "x".to_owned();
        let refused = report(ReportBody::OfferRefused { attempt_id: id, reason, passing });
        journal.offered(&attempt(id), &refused).unwrap();
        assert_eq!(journal.attempt(id).unwrap().unwrap().last.is_some(), remembered);
    }
}

#[test]
fn only_the_newest_inventory_waits() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let (first, other, second) = (inventory("a"), started(), inventory("b"));
    journal.record(&[first]).unwrap();
    journal.record(std::slice::from_ref(&other)).unwrap();
    journal.record(std::slice::from_ref(&second)).unwrap();
    assert_eq!(waiting(&journal), [other, second]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let reading = Reading {
        at: SystemClock.now(),
        uid: 501,
        component: "slack".to_owned(),
        wrapper: "slack".to_owned(),
        slots: vec!["A".to_owned()],
    };
    for _ in 0..KEPT + 3 {
        journal.read_by(&reading).unwrap();
    }
    assert_eq!(journal.readings().unwrap().len() as u64, KEPT);
}

#[test]
fn a_second_daemon_is_told_who_is_in_the_way() {
    let place = place();
    let _first = Journal::open(&place.path).unwrap();
    assert!(matches!(Journal::open(&place.path), Err(JournalError::InUse(_))));
}

#[test]
fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    drop(Journal::open(&place.path).unwrap());
    assert_eq!(std::fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_paste_is_good_once_also_when_it_was_forgotten() {
    let place = place();
    let journal = Journal::open(&place.path).unwrap();
    let note = |slot: &str| PasteNote {
        at: SystemClock.now(),
        component: "slack".to_owned(),
        slot: slot.to_owned(),
    };
    let id = |number: u64| format!("{number:08x}-0000-7000-8000-000000000000").parse::<DeliveryId>().unwrap();
    assert!(journal.first_paste(id(1), &note("A")).unwrap());
    assert!(!journal.first_paste(id(1), &note("B")).unwrap(), "for whatever slot");
    assert_eq!(journal.pastes().unwrap().len(), 1);
    drop(journal);
    let journal = Journal::open(&place.path).unwrap();
    assert!(!journal.first_paste(id(1), &note("A")).unwrap(), "also after a restart");
    for number in 2..=KEPT + 5 {
        assert!(journal.first_paste(id(number), &note("A")).unwrap());
    }
    assert_eq!(journal.pastes().unwrap().len() as u64, KEPT);
    assert!(!journal.first_paste(id(1), &note("A")).unwrap(), "forgotten, and too old to be taken again");
    assert!(journal.first_paste(id(KEPT + 6), &note("A")).unwrap());
}
