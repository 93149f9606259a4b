//! The rules as tables: a frame, what is known, what must come of it.

mod authorities;
mod plans;
mod undoing;

use shared::catalog::{Bundle, Need};
use shared::crypto::SEALED_EXTRA;
use shared::protocol::link::Head;
use shared::protocol::steps::{OfferKind, Outcome};
use shared::random::SystemRandom;
use shared::secret::MAX_LEN;
use shared::time::{Clock as _, SystemClock};

use super::*;

const MANIFEST: &str = r#"
key = "slack"
name = "Slack"
category = "integration"
summary = "x"
platforms = ["linux"]
[[slot]]
key = "OURS"
name = "x"
tag = "our-managed"
pattern = "^x.*$"
[[slot]]
key = "THEIRS"
name = "x"
tag = "client-supplied"
[[param]]
key = "TEAM"
name = "x"
pattern = "^T[A-Z]+$|^none$"
[[step]]
id = "install"
kind = "auto"
title = "x"
check = "true"
run = "true"
[[step]]
id = "person"
kind = "manual"
title = "x"
[[step]]
id = "mac"
kind = "auto"
title = "x"
platforms = ["macos"]
run = "true"
[[step]]
id = "root"
kind = "auto"
title = "x"
as = "root"
run = "true"
[[step]]
id = "board"
kind = "auto"
title = "x"
as = "board"
[[step]]
id = "unchecked"
kind = "auto"
title = "x"
run = "true"
[[step]]
id = "wrapped"
kind = "auto"
title = "x"
check = '"$BOARD_WRAPPERS"/slack --version'
run = "true"
[[step]]
id = "needy"
kind = "auto"
title = "x"
needs = ["gui"]
check = "true"
run = "true"
[[step]]
id = "secret"
kind = "auto"
title = "x"
check = "true"
run = "true"
secrets = [{ slot = "OURS", as = "env" }]
undo = "true"
[[step]]
id = "theirs"
kind = "auto"
title = "x"
run = "true"
secrets = [{ slot = "THEIRS", as = "env" }]
[[step]]
id = "gone"
kind = "auto"
title = "x"
run = "true"
"#;

fn digest(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn catalog(n: u8, serial: u64, revoked: &[&str]) -> Arc<Catalog> {
    let bundle = Bundle {
        serial,
        min_serial: 0,
        not_after: SystemClock.now().after(Duration::from_secs(3600)),
        revoked_steps: revoked.iter().map(|&s| s.to_owned()).collect(),
        tiers: String::new(),
        manifests: BTreeMap::from([("slack".to_owned(), MANIFEST.to_owned())]),
    };
    let manifests = bundle.parse_manifests().unwrap();
    Arc::new(Catalog { digest: digest(n), bundle, manifests })
}

fn known() -> Known {
    Known {
        seen: Seen::default(),
        scope: Scope { bundle_digest: None, components: Vec::new(), params: [].into(), look_at: Vec::new() },
        ended: Vec::new(),
        received: Vec::new(),
        held: Vec::new(),
    }
}

/// An engine on Linux without root, that has bundle 1.
fn engine() -> Engine {
    let mut engine = Engine::new(Machine { platform: Platform::Linux, is_root: false }, known());
    let effects = engine
        .on(Event::Bundle { digest: digest(1), result: Ok(catalog(1, 10, &["slack/gone"])) }, Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::SaveSeen(seen)] if seen.serial == 10));
    engine
}

fn offer(step: &str) -> Offer {
    Offer {
        attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
        bundle_digest: digest(1),
        component: "slack".to_owned(),
        step: step.to_owned(),
        kind: OfferKind::Run,
        params: BTreeMap::new(),
        expires_in_ms: 60_000,
    }
}

fn deliver(slot: &str, version: u64) -> Deliver {
    Deliver {
        delivery_id: DeliveryId::new(&SystemClock, &SystemRandom),
        bundle_digest: digest(1),
        component: "slack".to_owned(),
        slot: slot.to_owned(),
        version,
        expires: SystemClock.now().after(Duration::from_secs(60)),
        sealed: vec![0; 100],
    }
}

fn ended(attempt_id: AttemptId) -> AttemptEnded {
    AttemptEnded {
        attempt_id,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        found: String::new(),
        duration_ms: 1,
    }
}

fn frame(engine: &mut Engine, frame: FromBoard) -> Vec<Effect> {
    engine.on(Event::Frame(frame), Instant::now())
}

fn refusal(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| {
        if let Effect::Report(ReportBody::DeliveryRefused { reason, .. })
        | Effect::Report(ReportBody::OfferRefused { reason, .. })
        | Effect::Remember { report: ReportBody::OfferRefused { reason, passing: false, .. }, .. } = effect
        {
            Some(reason.as_str())
        } else {
            None
        }
    })
}

fn is_passing(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Report(
                ReportBody::DeliveryRefused { passing: true, .. }
                    | ReportBody::OfferRefused { passing: true, .. }
            )
        )
    })
}

fn plan(effects: &[Effect]) -> Option<&Plan> {
    effects.iter().find_map(|effect| if let Effect::Start(plan) = effect { Some(&**plan) } else { None })
}

#[test]
fn an_offer_that_fits_is_journalled_reported_and_started_in_this_order() {
    let mut engine = engine();
    let offer = offer("install");
    let effects = frame(&mut engine, FromBoard::Offer(offer.clone()));
    let [Effect::Remember { offer: remembered, report }, Effect::Start(plan)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(remembered, &offer);
    assert_eq!(report, &ReportBody::AttemptStarted { attempt_id: offer.attempt_id });
    assert!(!plan.resume && plan.step.id == "install");
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    type Change = fn(&mut Offer);
    let table: &[(&str, Change, &str)] = &[
        ("install", |o| o.kind = OfferKind::Unknown, "kind of offer"),
        ("install", |o| o.component = "teams".to_owned(), "no component teams"),
        ("nothing", |_| (), "no step slack/nothing"),
        ("gone", |_| (), "revoked"),
        ("person", |_| (), "a person"),
        ("mac", |_| (), "not for this platform"),
        ("root", |_| (), "as root"),
        ("board", |_| (), "board's own"),
        ("needy", |_| (), "needs"),
        ("secret", |_| (), "slack/OURS is not on this device"),
        ("install", |o| drop(o.params.insert("OTHER".to_owned(), "x".to_owned())), "no parameter OTHER"),
        ("install", |o| drop(o.params.insert("TEAM".to_owned(), "T; rm -rf /".to_owned())), "parameter TEAM"),
        ("install", |o| drop(o.params.insert("TEAM".to_owned(), "TA\nnone".to_owned())), "parameter TEAM"),
    ];
    for (step, change, expected) in table {
        let mut engine = engine();
        let mut offer = offer(step);
        change(&mut offer);
        let effects = frame(&mut engine, FromBoard::Offer(offer.clone()));
        let reason = refusal(&effects).unwrap_or_else(|| panic!("{step} was not refused: {effects:?}"));
        assert!(reason.contains(expected), "{step}: {reason}");
        assert!(!reason.contains("rm -rf"), "the value is not repeated");
        assert!(plan(&effects).is_none() && !is_passing(&effects), "{step}");
        let again = frame(&mut engine, FromBoard::Offer(offer.clone()));
        assert!(matches!(again.as_slice(), [Effect::RepeatAttempt(id)] if *id == offer.attempt_id));
    }
}

#[test]
fn a_step_whose_needs_are_not_met_waits_and_runs_when_they_are() {
    let mut engine = engine();
    let offer = offer("needy");
    let log_in = "log in as the managed user";
    let needs =
        |gui| Event::Needs(Needs { fda: Met::No("not asked for".to_owned()), gui, ..Needs::default() });
    assert!(engine.on(needs(Met::No(log_in.to_owned())), Instant::now()).is_empty());
    let effects = frame(&mut engine, FromBoard::Offer(offer.clone()));
    assert_eq!(refusal(&effects), Some(log_in));
    assert!(is_passing(&effects), "the same attempt may be offered again");
    engine.on(needs(Met::Yes), Instant::now());
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer))).is_some());
}

#[test]
fn only_what_a_step_lists_is_looked_at_and_when_it_is_judged() {
    let mut engine = engine();
    let needed = |engine: &Engine, offer: Offer| engine.needed_by(&Event::Frame(FromBoard::Offer(offer)));
    assert_eq!(needed(&engine, offer("install")), []);
    assert_eq!(needed(&engine, offer("needy")), [Need::Gui]);
    let later = Offer { bundle_digest: digest(2), ..offer("needy") };
    assert_eq!(needed(&engine, later.clone()), [], "nobody knows it yet");
    frame(&mut engine, FromBoard::Offer(later));
    let came = |n| Event::Bundle { digest: digest(n), result: Ok(catalog(n, 11, &[])) };
    assert_eq!(engine.needed_by(&came(2)), [Need::Gui]);
    assert_eq!(engine.needed_by(&came(3)), []);
    assert_eq!(engine.needed_by(&Event::LinkDown), []);
}

#[test]
fn root_steps_run_for_root_and_secrets_that_are_held_are_enough() {
    let mut engine = engine();
    engine.machine.is_root = true;
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer("root")))).is_some());

    let mut engine = super::tests::engine();
    let delivery = deliver("OURS", 1);
    let receipt = receipt(&delivery);
    engine.on(Event::Stored { deliver: delivery, result: Ok(receipt) }, Instant::now());
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer("secret")))).is_some());
}

#[test]
fn the_same_attempt_is_never_run_twice() {
    let mut engine = engine();
    let offer = offer("install");
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer.clone()))).is_some());
    assert!(frame(&mut engine, FromBoard::Offer(offer.clone())).is_empty(), "it runs already");
    let effects = engine.on(Event::AttemptEnded(ended(offer.attempt_id)), Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::Report(ReportBody::AttemptEnded(_)), Effect::Probe]));
    for _ in 0..2 {
        let effects = frame(&mut engine, FromBoard::Offer(offer.clone()));
        assert!(matches!(effects.as_slice(), [Effect::RepeatAttempt(id)] if *id == offer.attempt_id));
    }
    let mut known = known();
    known.ended.push(offer.attempt_id);
    let mut restarted = Engine::new(engine.machine, known);
    let effects = frame(&mut restarted, FromBoard::Offer(offer.clone()));
    assert!(matches!(effects.as_slice(), [Effect::RepeatAttempt(_)]), "also after a restart");
}

#[test]
fn one_attempt_at_a_time() {
    let mut engine = engine();
    let first = offer("install");
    frame(&mut engine, FromBoard::Offer(first.clone()));
    let second = offer("install");
    for _ in 0..2 {
        let effects = frame(&mut engine, FromBoard::Offer(second.clone()));
        assert_eq!(refusal(&effects), Some("another attempt is running"));
        assert!(is_passing(&effects));
        assert!(frame(&mut engine, FromBoard::Offer(first.clone())).is_empty(), "it is under way itself");
    }
    engine.on(Event::AttemptEnded(ended(first.attempt_id)), Instant::now());
    assert!(plan(&frame(&mut engine, FromBoard::Offer(second))).is_some(), "the refusal is not remembered");
}

#[test]
fn an_offer_that_came_too_late_runs_when_it_is_offered_afresh() {
    let mut engine = engine();
    let mut offer = offer("install");
    offer.expires_in_ms = 0;
    for _ in 0..2 {
        let effects = frame(&mut engine, FromBoard::Offer(offer.clone()));
        assert_eq!(refusal(&effects), Some("the offer has expired"));
        assert!(is_passing(&effects));
    }
    offer.expires_in_ms = 60_000;
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer))).is_some());
}

#[test]
fn an_offer_waits_for_its_bundle_but_not_longer_than_it_is_good() {
    for (wait, runs) in [(Duration::from_secs(59), true), (Duration::from_secs(61), false)] {
        let mut engine = engine();
        let mut offer = offer("install");
        offer.bundle_digest = digest(2);
        let now = Instant::now();
        let effects = engine.on(Event::Frame(FromBoard::Offer(offer.clone())), now);
        assert!(matches!(effects.as_slice(), [Effect::Fetch(d)] if *d == digest(2)));
        let again = engine.on(Event::Frame(FromBoard::Offer(offer.clone())), now);
        assert!(again.is_empty(), "it waits already");
        let bundle = Event::Bundle { digest: digest(2), result: Ok(catalog(2, 11, &[])) };
        let effects = engine.on(bundle, now + wait);
        assert_eq!(plan(&effects).is_some(), runs);
        assert_eq!(refusal(&effects).is_some(), !runs);
    }
}

#[test]
fn a_bundle_that_can_not_be_had_refuses_what_waits_for_it() {
    let mut engine = engine();
    let (mut offer, mut delivery) = (offer("install"), deliver("OURS", 1));
    offer.bundle_digest = digest(2);
    delivery.bundle_digest = digest(2);
    for (refused, passing) in
        [(Refusal::passing("no answer"), true), (Refusal::verdict("signed by somebody else"), false)]
    {
        let effects = frame(&mut engine, FromBoard::Offer(offer.clone()));
        assert!(matches!(effects.as_slice(), [Effect::Fetch(_)]), "asked for again: {effects:?}");
        frame(&mut engine, FromBoard::Deliver(delivery.clone()));
        let failed = Event::Bundle { digest: digest(2), result: Err(refused.clone()) };
        let effects = engine.on(failed, Instant::now());
        let mine = effects.iter().map(std::slice::from_ref).filter(|e| refusal(e) == Some(&refused.reason));
        assert!(mine.clone().all(|effect| is_passing(effect) == passing));
        assert_eq!(mine.count(), 2);
    }
    let again = frame(&mut engine, FromBoard::Offer(offer.clone()));
    assert!(matches!(again.as_slice(), [Effect::RepeatAttempt(id)] if *id == offer.attempt_id));
    let again = frame(&mut engine, FromBoard::Deliver(delivery));
    assert!(matches!(again.as_slice(), [Effect::Fetch(_)]), "a delivery is judged again");
}

#[test]
fn a_lost_link_forgets_what_waited_and_the_board_offers_again() {
    let mut engine = engine();
    let mut offer = offer("install");
    offer.bundle_digest = digest(2);
    frame(&mut engine, FromBoard::Offer(offer.clone()));
    engine.on(Event::LinkDown, Instant::now());
    let bundle = Event::Bundle { digest: digest(2), result: Ok(catalog(2, 11, &[])) };
    assert!(plan(&engine.on(bundle, Instant::now())).is_none());
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer))).is_some());
}

#[test]
fn an_older_bundle_still_runs_unless_the_newest_says_no() {
    let mut engine = engine();
    engine.on(
        Event::Bundle { digest: digest(2), result: Ok(catalog(2, 11, &["slack/install"])) },
        Instant::now(),
    );
    assert!(refusal(&frame(&mut engine, FromBoard::Offer(offer("install")))).unwrap().contains("revoked"));
    assert_eq!(engine.serial_seen(), 11);

    let mut engine = super::tests::engine();
    let mut newest = catalog(2, 20, &[]);
    Arc::get_mut(&mut newest).unwrap().bundle.min_serial = 11;
    engine.on(Event::Bundle { digest: digest(2), result: Ok(newest) }, Instant::now());
    assert!(refusal(&frame(&mut engine, FromBoard::Offer(offer("install")))).unwrap().contains("too old"));
    assert!(
        refusal(&frame(&mut engine, FromBoard::Deliver(deliver("OURS", 1)))).unwrap().contains("too old")
    );
    let scope = Scope {
        bundle_digest: Some(digest(1)),
        components: Vec::new(),
        params: [].into(),
        look_at: Vec::new(),
    };
    let effects = frame(&mut engine, FromBoard::Scope(scope));
    assert!(
        matches!(effects.as_slice(), [Effect::SaveScope(_), Effect::Refuse(refused)] if refused.what == "bundle")
    );
}

#[test]
fn an_interrupted_attempt_is_taken_up_again_once_and_before_anything_else() {
    let mut engine = Engine::new(Machine { platform: Platform::Linux, is_root: false }, known());
    let attempt = Attempt { offer: offer("install"), at: SystemClock.now(), next_chunk: 4, last: None };
    let effects = engine.on(Event::Recover(attempt.clone()), Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::Fetch(_)]));
    assert!(frame(&mut engine, FromBoard::Offer(attempt.offer.clone())).is_empty(), "it is being recovered");
    let bundle = Event::Bundle { digest: digest(1), result: Ok(catalog(1, 10, &[])) };
    let effects = engine.on(bundle, Instant::now());
    let plan = plan(&effects).unwrap();
    assert!(plan.resume && plan.next_chunk == 4 && plan.attempt_id == attempt.offer.attempt_id);
    assert!(refusal(&frame(&mut engine, FromBoard::Offer(offer("install")))).is_some());
}

#[test]
fn an_interrupted_attempt_that_may_not_run_any_more_is_reported_as_interrupted() {
    let mut engine = engine();
    let attempt = Attempt { offer: offer("gone"), at: SystemClock.now(), next_chunk: 0, last: None };
    let effects = engine.on(Event::Recover(attempt), Instant::now());
    assert!(matches!(
        effects.as_slice(),
        [Effect::Report(ReportBody::AttemptEnded(AttemptEnded { outcome: Outcome::Interrupted, .. }))]
    ));
}

fn receipt(deliver: &Deliver) -> Receipt {
    Receipt {
        delivery_id: deliver.delivery_id,
        component: deliver.component.clone(),
        slot: deliver.slot.clone(),
        version: deliver.version,
        time: SystemClock.now(),
        signature: Vec::new(),
    }
}

#[test]
fn a_delivery_takes_its_tag_from_the_manifest_and_never_goes_back() {
    let mut engine = engine();
    let second = deliver("OURS", 2);
    let effects = frame(&mut engine, FromBoard::Deliver(second.clone()));
    let [Effect::Store { tag: Tag::OurManaged, pattern: Some(pattern), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(pattern, "^x.*$");
    let stored = Event::Stored { deliver: second.clone(), result: Ok(receipt(&second)) };
    let effects = engine.on(stored, Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::Report(ReportBody::Receipt(_)), Effect::Probe]));
    let again = frame(&mut engine, FromBoard::Deliver(second.clone()));
    assert!(matches!(again.as_slice(), [Effect::RepeatDelivery(id)] if *id == second.delivery_id));

    let mut expired = deliver("OURS", 3);
    expired.expires = SystemClock.now().before(Duration::from_secs(60));
    let mut large = deliver("OURS", 3);
    large.sealed = vec![0; MAX_LEN + SEALED_EXTRA + 1];
    welcome(&mut engine);
    for (delivery, expected) in [
        (deliver("OURS", 1), "older"),
        (deliver("THEIRS", 1), "client-supplied"),
        (deliver("NOBODYS", 1), "no slot"),
        (deliver("OURS", 0), "begin with 1"),
        (expired, "expired"),
        (large, "16 KiB"),
    ] {
        for _ in 0..2 {
            let effects = frame(&mut engine, FromBoard::Deliver(delivery.clone()));
            let reason = refusal(&effects).unwrap_or_else(|| panic!("{expected}: {effects:?}"));
            assert!(reason.contains(expected), "{reason}");
            assert_eq!(is_passing(&effects), expected == "expired", "{expected}");
        }
    }
    assert_eq!(engine.held()[0].version, 2);
}

#[test]
fn a_refused_delivery_that_comes_again_is_judged_again() {
    for refused in [Refusal::passing("the disk is full"), Refusal::verdict("it does not fit the pattern")] {
        let mut engine = engine();
        let delivery = deliver("OURS", 1);
        frame(&mut engine, FromBoard::Deliver(delivery.clone()));
        let stored = Event::Stored { deliver: delivery.clone(), result: Err(refused.clone()) };
        let effects = engine.on(stored, Instant::now());
        assert_eq!(
            (refusal(&effects), is_passing(&effects)),
            (Some(refused.reason.as_str()), refused.passing)
        );
        let again = frame(&mut engine, FromBoard::Deliver(delivery.clone()));
        assert!(matches!(again.as_slice(), [Effect::Store { .. }]), "{again:?}");
        let stored = Event::Stored { deliver: delivery.clone(), result: Ok(receipt(&delivery)) };
        engine.on(stored, Instant::now());
        let again = frame(&mut engine, FromBoard::Deliver(delivery));
        assert!(matches!(again.as_slice(), [Effect::RepeatDelivery(_)]), "the receipt is remembered");
    }
}

#[test]
fn a_delivery_that_expired_is_stored_when_it_is_sent_with_time_left() {
    let mut engine = engine();
    welcome(&mut engine);
    let mut delivery = deliver("OURS", 1);
    delivery.expires = SystemClock.now().before(Duration::from_secs(60));
    assert!(is_passing(&frame(&mut engine, FromBoard::Deliver(delivery.clone()))));
    delivery.expires = SystemClock.now().after(Duration::from_secs(60));
    let effects = frame(&mut engine, FromBoard::Deliver(delivery));
    assert!(matches!(effects.as_slice(), [Effect::Store { .. }]), "{effects:?}");
}

#[test]
fn what_a_person_pasted_is_told_at_once_and_is_enough_for_a_step() {
    let mut engine = engine();
    let effects = frame(&mut engine, FromBoard::Offer(offer("theirs")));
    let reason = refusal(&effects).unwrap();
    assert!(reason.contains("slack/THEIRS is not on this device"), "{reason}");
    let pasted = Event::Pasted { component: "slack".to_owned(), slot: "THEIRS".to_owned() };
    let effects = engine.on(pasted, Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::ReportSlots, Effect::Probe]));
    assert!(engine.held().is_empty(), "the board learns no version of it");
    assert!(plan(&frame(&mut engine, FromBoard::Offer(offer("theirs")))).is_some());
}

fn welcome(engine: &mut Engine) -> Vec<Effect> {
    let welcome = Welcome {
        time: SystemClock.now(),
        client_id: shared::ids::ClientId::new(&SystemClock, &SystemRandom),
        device_id: shared::ids::DeviceId::new(&SystemClock, &SystemRandom),
        audit_head: Head { epoch: 1, seq: 1, hash: vec![0; 32] },
        scope: Scope {
            bundle_digest: Some(digest(1)),
            components: vec!["slack".to_owned()],
            params: [].into(),
            look_at: Vec::new(),
        },
    };
    frame(engine, FromBoard::Welcome(welcome))
}

#[test]
fn a_scope_whose_catalog_is_here_is_ready_and_another_one_is_fetched_once() {
    let mut engine = engine();
    let effects = welcome(&mut engine);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Welcomed(_), Effect::SaveScope(_), Effect::ScopeReady(_), Effect::Probe]
    ));
    let scope = Scope {
        bundle_digest: Some(digest(2)),
        components: Vec::new(),
        params: [].into(),
        look_at: Vec::new(),
    };
    let effects = frame(&mut engine, FromBoard::Scope(scope.clone()));
    assert!(matches!(effects.as_slice(), [Effect::SaveScope(_), Effect::Fetch(_)]));
    assert!(matches!(frame(&mut engine, FromBoard::Scope(scope)).as_slice(), [Effect::SaveScope(_)]));
    let bundle = Event::Bundle { digest: digest(2), result: Ok(catalog(2, 11, &[])) };
    let effects = engine.on(bundle, Instant::now());
    assert!(matches!(effects.as_slice(), [Effect::SaveSeen(_), Effect::ScopeReady(_), Effect::Probe]));
}

#[test]
fn a_head_of_the_audit_log_is_kept_as_a_witness() {
    let mut engine = engine();
    let told = Head { epoch: 1, seq: 9, hash: vec![9; 32] };
    let effects = frame(&mut engine, FromBoard::Head(told.clone()));
    assert!(matches!(effects.as_slice(), [Effect::Witness(head)] if *head == told));
}

#[test]
fn a_frame_from_the_future_is_refused_by_name_and_an_ack_is_passed_on() {
    let mut engine = engine();
    let effects = frame(&mut engine, FromBoard::Unknown);
    assert!(matches!(effects.as_slice(), [Effect::Refuse(refused)] if refused.what == "unknown frame"));
    let id = ReportId::new(&SystemClock, &SystemRandom);
    let effects = frame(&mut engine, FromBoard::Ack { reports: vec![id] });
    assert!(matches!(effects.as_slice(), [Effect::Acknowledged(ids)] if *ids == [id]));
}

#[test]
fn catalogs_in_memory_are_bounded_and_the_scopes_one_stays() {
    let mut engine = engine();
    welcome(&mut engine);
    for n in 2..20 {
        engine.on(
            Event::Bundle { digest: digest(n), result: Ok(catalog(n, u64::from(n) + 10, &[])) },
            Instant::now(),
        );
    }
    assert!(engine.catalogs.len() <= catalogs::CATALOGS);
    assert!(engine.catalogs.contains_key(&digest(1)) && engine.catalogs.contains_key(&digest(19)));
}

/// A board that says anything in any order, with repeats: never two attempts at once, never one twice, and none beside
/// a plan.
#[test]
fn whatever_the_board_says_an_attempt_runs_once_and_alone() {
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..300 {
        let mut engine = engine();
        let offers: Vec<Offer> = (0..6)
            .map(|n| {
                let mut offer = offer(if n % 3 == 2 { "gone" } else { "install" });
                offer.bundle_digest = digest(1 + n % 2);
                offer
            })
            .collect();
        let mut running: Option<AttemptId> = None;
        let mut planning: Option<PlanId> = None;
        let mut started = BTreeSet::new();
        for _ in 0..100 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let event = match (dice % 10, running) {
                (0, Some(id)) => {
                    running = None;
                    Event::AttemptEnded(ended(id))
                }
                (1, _) => Event::LinkDown,
                (4, _) => Event::Frame(FromBoard::Plan(plans::request(&["install"]))),
                (5 | 6, _) if planning.is_some() => plans::done(planning.take().unwrap()),
                (2, _) => Event::Bundle { digest: digest(2), result: Ok(catalog(2, 11, &[])) },
                (3, _) => Event::Bundle { digest: digest(2), result: Err(Refusal::passing("no")) },
                _ => Event::Frame(FromBoard::Offer(offers[(dice / 10 % 6) as usize].clone())),
            };
            for effect in engine.on(event, Instant::now()) {
                if let Effect::StartPlan { plan_id, .. } = effect {
                    assert_eq!((running, planning), (None, None), "a plan beside something");
                    planning = Some(plan_id);
                } else if let Effect::Start(plan) = effect {
                    assert_eq!(running, None, "two at once");
                    assert_eq!(planning, None, "beside a plan");
                    assert!(started.insert(plan.attempt_id), "twice");
                    running = Some(plan.attempt_id);
                }
            }
        }
        assert!(!started.is_empty());
    }
}

/// An engine whose scope has the component, that knows the board's time.
fn scoped(components: &[&str]) -> (Engine, Instant) {
    let mut engine = engine();
    let now = Instant::now();
    let welcome = Welcome {
        time: SystemClock.now(),
        client_id: shared::ids::ClientId::new(&SystemClock, &SystemRandom),
        device_id: shared::ids::DeviceId::new(&SystemClock, &SystemRandom),
        audit_head: Head { epoch: 1, seq: 1, hash: Vec::new() },
        scope: Scope {
            look_at: Vec::new(),
            bundle_digest: Some(digest(1)),
            components: components.iter().map(|&key| key.to_owned()).collect(),
            params: [].into(),
        },
    };
    engine.on(Event::Frame(FromBoard::Welcome(welcome)), now);
    (engine, now)
}

fn paste(slot: &str) -> Paste {
    Paste {
        delivery_id: DeliveryId::new(&SystemClock, &SystemRandom),
        component: "slack".to_owned(),
        slot: slot.to_owned(),
        expires: SystemClock.now().after(Duration::from_secs(60)),
        sealed: vec![0; 100],
    }
}

#[test]
fn a_sealed_paste_fits_a_slot_that_the_client_supplies_in_scope_and_in_time() {
    type Change = fn(&mut Paste);
    let refused: &[(&str, Change, &str)] = &[
        ("OURS", |_| (), "delivered by the board"),
        ("NONE", |_| (), "no slot slack/NONE"),
        ("THEIRS", |p| p.component = "teams".to_owned(), "no slot teams/THEIRS"),
        ("THEIRS", |p| p.sealed = vec![0; MAX_LEN + SEALED_EXTRA + 1], "larger than 16 KiB"),
        ("THEIRS", |p| p.expires = SystemClock.now().before(Duration::from_secs(1)), "came too late"),
        ("THEIRS", |p| p.expires = SystemClock.now().after(Duration::from_secs(700)), "longer than a paste"),
    ];
    let told = |effects: &[Effect]| match effects {
        [Effect::TellPasted(Pasted { refused: Some(reason), .. })] => reason.clone(),
        other => panic!("{other:?}"),
    };
    for (slot, change, expected) in refused {
        let (mut engine, now) = scoped(&["slack"]);
        let mut paste = paste(slot);
        change(&mut paste);
        let reason = told(&engine.on(Event::Frame(FromBoard::Paste(paste)), now));
        assert!(reason.contains(expected), "{slot}: {reason}");
    }
    let sent = paste("THEIRS");
    let (mut engine, now) = scoped(&["slack"]);
    let effects = engine.on(Event::Frame(FromBoard::Paste(sent.clone())), now);
    let [Effect::StorePaste { paste: kept, slot }] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(*kept == sent && slot.tag == Tag::ClientSupplied);
    let late = engine.on(Event::Frame(FromBoard::Paste(sent.clone())), now + Duration::from_secs(61));
    assert!(told(&late).contains("came too late"), "by the board's time, which goes on");

    let (mut engine, now) = scoped(&[]);
    let reason = told(&engine.on(Event::Frame(FromBoard::Paste(sent.clone())), now));
    assert!(reason.contains("scope has no slot"), "the bundle has it, the scope doesn't: {reason}");
    let mut fresh = Engine::new(engine.machine, known());
    let reason = told(&frame(&mut fresh, FromBoard::Paste(sent)));
    assert!(reason.contains("no catalog yet"), "{reason}");
}
