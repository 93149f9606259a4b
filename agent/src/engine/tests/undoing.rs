//! What may be undone, and how often.

use super::*;
use crate::undos::Allowed;

fn undo(step: &str) -> Offer {
    Offer { kind: OfferKind::Undo, ..offer(step) }
}

fn with(right: Right) -> Engine {
    let mut engine = engine();
    engine.on(Event::Needs(Needs { undo: right, ..Needs::default() }), Instant::now());
    engine
}

fn allowed(step: &str) -> Right {
    let (component, step, at) = ("slack".to_owned(), step.to_owned(), SystemClock.now());
    Right::Only(Allowed { component, step, at })
}

#[test]
fn what_is_undone_gets_no_secret_and_writes_no_wrapper() {
    let mut engine = with(Right::Free);
    let effects = frame(&mut engine, FromBoard::Offer(undo("secret")));
    let plan = plan(&effects).unwrap_or_else(|| panic!("{effects:?}"));
    assert!(plan.undo && plan.step.secrets.is_empty() && plan.wrappers.is_empty());
}

#[test]
fn a_second_undo_within_the_hour_wants_a_word_for_that_step() {
    for (right, runs) in [(Right::None, false), (allowed("install"), false), (allowed("secret"), true)] {
        let mut engine = with(right);
        let effects = frame(&mut engine, FromBoard::Offer(undo("secret")));
        assert_eq!(plan(&effects).is_some(), runs, "{effects:?}");
        if !runs {
            let reason = refusal(&effects).unwrap();
            assert!(reason.contains("sudo board-agent allow-undo slack/secret"), "{reason}");
            assert!(!is_passing(&effects), "a person asks again");
        }
    }
    let mut engine = with(Right::None);
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer("install")))).is_some(), "only undo is counted");
}

#[test]
fn a_step_without_a_way_back_is_not_undone() {
    let mut engine = with(Right::Free);
    let effects = frame(&mut engine, FromBoard::Offer(undo("install")));
    assert!(refusal(&effects).unwrap().contains("no way to undo"), "{effects:?}");
}

#[test]
fn one_that_a_kill_interrupted_has_its_right_already() {
    let mut engine = with(Right::None);
    let attempt = Attempt { offer: undo("secret"), at: SystemClock.now(), next_chunk: 3, last: None };
    let effects = engine.on(Event::Recover(attempt), Instant::now());
    assert!(plan(&effects).is_some_and(|plan| plan.undo && plan.resume), "{effects:?}");
}
