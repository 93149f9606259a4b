//! Plans: what is looked at, what is only said, and that an attempt comes first.

use shared::protocol::plan::{PlanEnded, PlanRequest, Planned, PlannedStep, StepName};

use super::*;

pub fn request(steps: &[&str]) -> PlanRequest {
    PlanRequest {
        plan_id: PlanId::new(&SystemClock, &SystemRandom),
        bundle_digest: digest(1),
        steps: steps
            .iter()
            .map(|step| StepName { component: "slack".to_owned(), step: (*step).to_owned() })
            .collect(),
        params: BTreeMap::new(),
    }
}

fn begun(effects: &[Effect]) -> Option<&[Looking]> {
    effects.iter().find_map(|effect| {
        if let Effect::StartPlan { steps, .. } = effect { Some(steps.as_slice()) } else { None }
    })
}

fn stopped(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| {
        if let Effect::Report(ReportBody::PlanEnded(ended)) = effect {
            ended.stopped.as_deref()
        } else {
            None
        }
    })
}

pub fn done(plan_id: PlanId) -> Event {
    Event::PlanEnded(PlanEnded { plan_id, stopped: None })
}

#[test]
fn a_plan_looks_where_it_can_and_says_why_not_elsewhere() {
    let table = [
        ("gone", Planned::Unknown, "revoked"),
        ("nothing", Planned::Unknown, "no step slack/nothing"),
        ("person", Planned::Unknown, "a person"),
        ("mac", Planned::Unknown, "not for this platform"),
        ("root", Planned::Unknown, "as root"),
        ("unchecked", Planned::NoCheck, ""),
        ("secret", Planned::NotYet, "may read OURS, and a plan opens no secret"),
        ("wrapped", Planned::NotYet, "a program that reads a secret"),
        ("needy", Planned::NotYet, "log in"),
    ];
    let mut engine = engine();
    // Also with the secret there: a plan doesn't open it.
    let delivery = deliver("OURS", 1);
    let receipt = receipt(&delivery);
    engine.on(Event::Stored { deliver: delivery, result: Ok(receipt) }, Instant::now());
    let gui = Met::No("log in as the managed user".to_owned());
    engine.on(Event::Needs(Needs { fda: Met::Yes, gui, ..Needs::default() }), Instant::now());
    let names: Vec<&str> = table.iter().map(|(name, ..)| *name).chain(["install"]).collect();
    let effects = frame(&mut engine, FromBoard::Plan(request(&names)));
    assert!(plan(&effects).is_none(), "no attempt comes of it");
    let looking = begun(&effects).unwrap();
    for ((name, answer, reason), looking) in table.iter().zip(looking) {
        assert_eq!(&looking.step, name);
        let Todo::Say(said, why) = &looking.todo else { panic!("{name} is looked at") };
        assert_eq!(said, answer, "{name}");
        assert!(why.contains(reason), "{name}: {why}");
    }
    assert!(matches!(looking.last().unwrap().todo, Todo::Look(_)));
}

#[test]
fn bad_inputs_and_bundles_that_ended_start_nothing() {
    let mut engine = engine();
    let mut bad = request(&["install"]);
    let team = BTreeMap::from([("TEAM".to_owned(), "T; rm -rf /".to_owned())]);
    bad.params.insert("slack".to_owned(), team);
    let effects = frame(&mut engine, FromBoard::Plan(bad));
    let [Looking { todo: Todo::Say(Planned::Unknown, why), .. }] = begun(&effects).unwrap() else {
        panic!("{effects:?}")
    };
    assert!(why.contains("parameter TEAM") && !why.contains("rm -rf"), "{why}");

    let mut engine = super::engine();
    engine.board_time = Some((SystemClock.now().after(Duration::from_secs(7200)), Instant::now()));
    let effects = frame(&mut engine, FromBoard::Plan(request(&["install"])));
    let [Looking { todo: Todo::Say(Planned::Unknown, why), .. }] = begun(&effects).unwrap() else {
        panic!("{effects:?}")
    };
    assert!(why.contains("the bundle ended"), "{why}");
}

#[test]
fn while_an_attempt_runs_there_is_no_plan() {
    let mut engine = engine();
    let running = offer("install");
    frame(&mut engine, FromBoard::Offer(running.clone()));
    let effects = frame(&mut engine, FromBoard::Plan(request(&["install"])));
    assert!(begun(&effects).is_none());
    assert!(stopped(&effects).unwrap().contains("comes first"));
    engine.on(Event::AttemptEnded(ended(running.attempt_id)), Instant::now());
    assert!(begun(&frame(&mut engine, FromBoard::Plan(request(&["install"])))).is_some());
}

#[test]
fn an_attempt_starts_when_the_plan_has_given_way_and_not_before() {
    let mut engine = engine();
    let asked = request(&["install"]);
    frame(&mut engine, FromBoard::Plan(asked.clone()));
    assert_eq!(engine.plans(), [asked.plan_id]);
    assert!(frame(&mut engine, FromBoard::Plan(asked.clone())).is_empty(), "it is under way");
    let other = frame(&mut engine, FromBoard::Plan(request(&["install"])));
    assert_eq!(stopped(&other), Some("another plan is under way"));

    let first = offer("install");
    let effects = frame(&mut engine, FromBoard::Offer(first.clone()));
    assert!(matches!(effects.as_slice(), [Effect::StopPlan]), "{effects:?}");
    let planned = PlannedStep {
        plan_id: asked.plan_id,
        component: "slack".to_owned(),
        step: "install".to_owned(),
        answer: Planned::WouldRun,
        found: String::new(),
    };
    let effects = engine.on(Event::Planned(planned), Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::Report(ReportBody::PlanStep(_))]), "{effects:?}");
    let effects = engine.on(done(asked.plan_id), Instant::now());
    assert_eq!(plan(&effects).unwrap().attempt_id, first.attempt_id);
    assert!(engine.plans().is_empty());

    // What was offered on a link that is gone is offered again by the board.
    let mut engine = super::engine();
    let asked = request(&["install"]);
    frame(&mut engine, FromBoard::Plan(asked.clone()));
    frame(&mut engine, FromBoard::Offer(offer("install")));
    engine.on(Event::LinkDown, Instant::now());
    assert!(plan(&engine.on(done(asked.plan_id), Instant::now())).is_none());
}

#[test]
fn a_plan_waits_for_its_bundle() {
    let mut engine = engine();
    let mut asked = request(&["install"]);
    asked.bundle_digest = digest(2);
    let effects = frame(&mut engine, FromBoard::Plan(asked.clone()));
    assert!(matches!(effects.as_slice(), [Effect::Fetch(d)] if *d == digest(2)));
    assert_eq!(engine.plans(), [asked.plan_id], "a hello doesn't deny it");
    let bundle = Event::Bundle { digest: digest(2), result: Ok(catalog(2, 11, &[])) };
    assert!(begun(&engine.on(bundle, Instant::now())).is_some());

    let mut engine = super::engine();
    frame(&mut engine, FromBoard::Plan(asked.clone()));
    let none = Event::Bundle { digest: digest(2), result: Err(Refusal::passing("the board has none")) };
    assert_eq!(stopped(&engine.on(none, Instant::now())), Some("the board has none"));

    let mut engine = super::engine();
    frame(&mut engine, FromBoard::Plan(asked));
    let effects = frame(&mut engine, FromBoard::Offer(offer("install")));
    assert!(stopped(&effects).is_some() && plan(&effects).is_some(), "nothing runs yet that had to end");
}
