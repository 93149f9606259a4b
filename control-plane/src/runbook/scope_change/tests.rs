use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::ids::{ClientId, DeviceId};
use shared::protocol::inventory::{ComponentReport, Evidence, Presence, SlotReport, SlotState};
use shared::secret::Secret;

use super::views::{DeviceDifference, Difference, Why};
use super::{Asking, Basis, Moved, Outcome, change};
use crate::audit::{self, Action};
use crate::clients::{self, CreateError, Package, Proposal, Scope, choose_scope};
use crate::db::testing::on_both;
use crate::enrollment;
use crate::inventory;
use crate::runbook::{self, StepState};
use crate::secrets;
use crate::testing::Fixture;

/// `sign` has a slot of each tag, of which one is chosen, and a step for each; `mode` an input that decides between steps
/// and one that a script reads; `mac` is for another platform.
const MORE: &[(&str, &str)] = &[
    (
        "sign",
        r#"
key = "sign"
name = "Sign-in"
category = "ai"
summary = "One of two."
platforms = ["linux", "macos"]
depends_on = ["base"]
[[slot]]
key = "OUR_SIGN"
name = "Our sign-in key"
tag = "our-managed"
required = false
one_of = "auth"
[[slot]]
key = "THEIR_SIGN"
name = "Their sign-in token"
tag = "client-supplied"
required = false
one_of = "auth"
hint = "op://{vault}/Sign/token"
[[step]]
id = "ours"
kind = "auto"
title = "Sign in with ours"
as = "user"
when = "slot:OUR_SIGN"
check = "false"
run = "true"
[[step]]
id = "theirs"
kind = "manual"
title = "Put their token on the Mac"
text = "From the vault."
when = "slot:THEIR_SIGN"
slots = ["THEIR_SIGN"]
[[step]]
id = "test"
kind = "auto"
title = "Test the sign-in"
as = "user"
check = "false"
run = "true"
"#,
    ),
    (
        "mode",
        r#"
key = "mode"
name = "Mode"
category = "ai"
summary = "Has inputs."
platforms = ["linux", "macos"]
[[param]]
key = "MODE"
name = "Mode"
pattern = "^[a-z]+$"
[[param]]
key = "TEAM"
name = "Team id"
pattern = "^T[0-9]+$"
required = true
[[step]]
id = "team"
kind = "auto"
title = "Write the team"
as = "user"
check = "false"
run = 'echo "$BOARD_PARAM_TEAM"'
[[step]]
id = "fast"
kind = "auto"
title = "Only in fast mode"
as = "user"
when = "param:MODE=fast"
check = "false"
run = "true"
"#,
    ),
    (
        "mac",
        r#"
key = "mac"
name = "For macOS"
category = "ai"
summary = "Not for Linux."
platforms = ["macos"]
[[step]]
id = "install"
kind = "auto"
title = "Install on macOS"
as = "user"
check = "false"
run = "true"
"#,
    ),
];

const TIERS: &str = r#"
[[tier]]
key = "small"
name = "Small"
components = ["base"]
[[tier]]
key = "large"
name = "Large"
components = ["base", "tool", "mode"]
"#;

struct Desk {
    fixture: Fixture,
    client: ClientId,
    device: DeviceId,
}

fn scope(components: &[&str], more: &[(&str, &str, &str)]) -> Scope {
    let mut scope =
        Scope { components: components.iter().map(|key| (*key).to_owned()).collect(), ..Scope::default() };
    for (component, key, value) in more {
        let place = ((*component).to_owned(), (*key).to_owned());
        let kind = if *key == "auth" { &mut scope.choices } else { &mut scope.params };
        kind.insert(place, (*value).to_owned());
    }
    scope
}

fn proposal(scope: &Scope) -> Proposal {
    Proposal::Scope { scope: scope.clone(), package: None }
}

impl Desk {
    /// A client with this scope, and a device whose runbook was composed from it.
    async fn new(db: crate::db::Db, start: &Scope) -> Self {
        let fixture = Fixture::new(db).await;
        let manifests = [crate::testing::MANIFESTS, MORE].concat();
        fixture.import_with_tiers(2, &manifests, TIERS).await.unwrap();
        let client = fixture.client("Example Client", &["base"]).await;
        choose_scope(&fixture.app, Fixture::who(), client, start).await.unwrap();
        let (_, device) = fixture.enrolled(client, "A-UUID").await;
        let desk = Self { fixture, client, device };
        desk.fixture.with_runbook(device).await;
        desk
    }

    async fn ask(&self, proposal: &Proposal, seen: Option<&str>) -> Result<Outcome, CreateError> {
        let asking = Asking { who: Fixture::who(), now: self.fixture.app.now() };
        change(&self.fixture.app, &asking, self.client, proposal, seen).await
    }

    async fn differs(&self, proposal: &Proposal) -> (Difference, Basis) {
        let outcome = self.ask(proposal, None).await.unwrap();
        let Outcome::Differs { difference, basis, moved: None } = outcome else {
            panic!("a difference is shown: {outcome:?}")
        };
        (*difference, basis)
    }

    async fn confirm(&self, proposal: &Proposal, basis: &Basis) {
        let outcome = self.ask(proposal, Some(&basis.to_string())).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved), "{outcome:?}");
    }

    async fn steps(&self) -> Vec<runbook::Step> {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let made = runbook::of_device(&mut tx, self.device).await.unwrap().unwrap();
        runbook::steps(&mut tx, made.id).await.unwrap()
    }

    /// (component, title) of every step, with its state.
    async fn states(&self) -> BTreeMap<(String, String), StepState> {
        let name = |step: runbook::Step| ((step.component_key, step.title), step.state);
        self.steps().await.into_iter().map(name).collect()
    }

    /// Puts a step where a device would have brought it.
    async fn put(&self, title: &str, state: StepState) {
        let step = self.steps().await.into_iter().find(|step| step.title == title).unwrap();
        let mut tx = self.fixture.app.db.write().await.unwrap();
        let now = self.fixture.app.now();
        let moved =
            runbook::store::move_own_step(&mut tx, self.device, step.id, step.state, state, None, now).await;
        assert_eq!(moved.unwrap(), 1);
        tx.commit().await.unwrap();
    }

    async fn scope(&self) -> Scope {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        clients::scope(&mut tx, self.client).await.unwrap()
    }

    async fn looked(&self, component: &str, presence: Presence, version: Option<&str>) {
        let report = ComponentReport {
            component: component.to_owned(),
            presence,
            version: version.map(ToOwned::to_owned),
            evidence: vec![Evidence { probe: "command".into(), saw: "it".into() }],
            observed_at: self.fixture.app.now(),
        };
        let slot = SlotReport {
            component: "tool".into(),
            slot: "THEIR_TOKEN".into(),
            state: SlotState::Present,
            version: None,
            observed_at: self.fixture.app.now(),
            check: None,
        };
        let mut tx = self.fixture.app.db.write().await.unwrap();
        inventory::apply(&mut tx, self.device, &[report], &[slot], self.fixture.app.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn entries(&self, action: Action) -> Vec<audit::Entry> {
        let mut tx = self.fixture.app.db.read().await.unwrap();
        let stored = audit::page(&mut tx, None, 1000).await.unwrap();
        stored.into_iter().map(|stored| stored.entry).filter(|entry| entry.action == action).collect()
    }
}

fn titles(steps: &[super::views::Steps]) -> Vec<&str> {
    steps.iter().flat_map(|steps| &steps.titles).map(String::as_str).collect()
}

fn only(difference: &Difference) -> &DeviceDifference {
    assert_eq!(difference.devices.len(), 1);
    &difference.devices[0]
}

#[tokio::test]
async fn without_a_runbook_and_without_a_difference_a_scope_is_saved_at_once() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["base"], &[])).await;
        let other = desk.fixture.client("Other", &["base"]).await;
        let asking = Asking { who: Fixture::who(), now: desk.fixture.app.now() };
        let more = proposal(&scope(&["tool"], &[]));
        let outcome = change(&desk.fixture.app, &asking, other, &more, None).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved), "it has no device");
        let before = desk.entries(Action::ScopeChanged).await.len();
        let outcome = desk.ask(&proposal(&scope(&["base"], &[])), None).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved));
        assert_eq!(desk.entries(Action::ScopeChanged).await.len(), before, "nothing was there to save");
        let outcome = desk.ask(&proposal(&scope(&["base", "mac"], &[])), None).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved), "it reaches no device of another platform: {outcome:?}");
        assert!(desk.scope().await.components.contains("mac"));

        enrollment::revoke(&desk.fixture.app, Fixture::who(), desk.device, "Lost").await.unwrap();
        let outcome = desk.ask(&more, None).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved), "its only device was revoked");
    })
    .await;
}

#[tokio::test]
async fn what_comes_is_shown_and_nothing_is_saved_until_it_is_confirmed() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["base"], &[])).await;
        let wanted = proposal(&scope(&["tool", "sign"], &[("sign", "auth", "THEIR_SIGN")]));
        let (difference, basis) = desk.differs(&wanted).await;
        assert_eq!(difference.added, ["Sign-in", "Tool"]);
        let device = only(&difference);
        assert_eq!(titles(&device.agent), ["Test the sign-in", "Install the tool", "Configure the tool"]);
        assert_eq!(titles(&device.you), ["Put their token on the Mac"]);
        assert!(!device.on && device.skipped.is_empty() && device.stays.is_empty());
        let names = |slots: &[super::views::NewSlot]| {
            slots.iter().map(|slot| (slot.key.clone(), slot.hint.clone(), slot.stored)).collect::<Vec<_>>()
        };
        assert_eq!(names(&difference.ours), [("OUR_KEY".into(), String::new(), false)]);
        let theirs = [
            ("THEIR_SIGN".into(), "op://Example Client/Sign/token".into(), false),
            ("THEIR_TOKEN".into(), "op://Example Client/Tool/token".into(), false),
        ];
        assert_eq!(names(&difference.theirs), theirs);
        assert_eq!(desk.scope().await.components, scope(&["base"], &[]).components);
        assert_eq!(desk.steps().await.len(), 1);

        desk.confirm(&wanted, &basis).await;
        assert_eq!(desk.steps().await.len(), 5, "fitted in the same transaction");
        let changed = desk.entries(Action::ScopeChanged).await.remove(0);
        assert_eq!(changed.detail["added"], "sign tool");
        assert!(!changed.detail.contains_key("removed"));
        let composed = desk.entries(Action::RunbookComposed).await.remove(0);
        assert_eq!(
            (composed.who.id.as_str(), composed.detail["added"].as_str()),
            ("consultant@example.com", "4")
        );
        let steps = desk.states().await;
        desk.fixture.with_runbook(desk.device).await;
        assert_eq!(desk.states().await, steps, "the link finds nothing left to do");
        let again = desk.ask(&wanted, Some(&basis.to_string())).await.unwrap();
        assert!(matches!(again, Outcome::Saved), "sent twice, it is done once");
        assert_eq!(desk.entries(Action::RunbookComposed).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_leaves_says_what_is_skipped_let_finish_and_left_on_the_device() {
    on_both(|db| async move {
        let start =
            scope(&["tool", "sign", "mode"], &[("sign", "auth", "THEIR_SIGN"), ("mode", "TEAM", "T1")]);
        let desk = Desk::new(db, &start).await;
        let value = Secret::new("ours-some-value".to_owned());
        let client = desk.fixture.get_client(desk.client).await;
        let slot = desk.fixture.our_slot().await;
        secrets::put(&desk.fixture.app, Fixture::who(), &client, &slot, &value).await.unwrap();
        desk.put("Install the tool", StepState::Succeeded).await;
        desk.put("Test the sign-in", StepState::Failed).await;
        desk.put("Write the team", StepState::Running).await;
        desk.looked("tool", Presence::Present, Some("1.3.0")).await;
        let wanted = proposal(&scope(&["base"], &[]));
        let (difference, basis) = desk.differs(&wanted).await;
        assert_eq!(difference.removed, ["Mode", "Sign-in", "Tool"]);
        let device = only(&difference);
        assert_eq!(titles(&device.skipped), ["Put their token on the Mac", "Configure the tool"]);
        assert_eq!(titles(&device.under_way), ["Write the team"]);
        assert_eq!(titles(&device.unfinished), ["Test the sign-in"]);
        let stays: Vec<_> =
            device.stays.iter().map(|one| (one.component.as_str(), one.evidence.as_str())).collect();
        assert_eq!(stays, [("Tool", "seen installed, version 1.3.0")]);
        let unused: Vec<_> =
            difference.unused.iter().map(|slot| (slot.name.as_str(), slot.stored, slot.on.len())).collect();
        assert_eq!(unused, [("Our key", true, 0), ("Their token", false, 1)]);
        desk.confirm(&wanted, &basis).await;
        let changed = desk.entries(Action::ScopeChanged).await.remove(0);
        assert_eq!(changed.detail["removed"], "mode sign tool");
        let states = desk.states().await;
        let state = |component: &str, title: &str| states[&(component.to_owned(), title.to_owned())];
        assert_eq!(state("tool", "Configure the tool"), StepState::Skipped);
        assert_eq!(state("tool", "Install the tool"), StepState::Succeeded);
        assert_eq!(state("mode", "Write the team"), StepState::Running);

        // It comes back: what was skipped for that reason only is to be done, what is done stays done.
        let back = proposal(&scope(&["tool"], &[]));
        let (difference, basis) = desk.differs(&back).await;
        assert_eq!(titles(&only(&difference).agent), ["Configure the tool"]);
        assert!(difference.ours[0].stored, "its secret was kept");
        desk.confirm(&back, &basis).await;
        let configure =
            desk.steps().await.into_iter().find(|step| step.title == "Configure the tool").unwrap();
        assert_ne!(configure.state, StepState::Skipped);
        assert_eq!(configure.note, None);
    })
    .await;
}

#[tokio::test]
async fn a_choice_that_changes_tags_and_an_input_are_differences_too() {
    on_both(|db| async move {
        let theirs = scope(&["sign", "mode"], &[("sign", "auth", "THEIR_SIGN"), ("mode", "TEAM", "T1")]);
        let desk = Desk::new(db, &theirs).await;
        desk.put("Write the team", StepState::Succeeded).await;
        let ours = scope(
            &["sign", "mode"],
            &[("sign", "auth", "OUR_SIGN"), ("mode", "TEAM", "T2"), ("mode", "MODE", "fast")],
        );
        let wanted = proposal(&ours);
        let (difference, basis) = desk.differs(&wanted).await;
        assert!(difference.added.is_empty() && difference.removed.is_empty());
        let device = only(&difference);
        assert_eq!(titles(&device.agent), ["Only in fast mode", "Sign in with ours"]);
        assert_eq!(titles(&device.skipped), ["Put their token on the Mac"]);
        assert_eq!(difference.ours.len(), 1);
        assert!(difference.theirs.is_empty());
        let params: Vec<_> = device
            .params
            .iter()
            .map(|one| (one.name.as_str(), one.before.as_str(), one.after.as_str(), one.done.len()))
            .collect();
        assert_eq!(params, [("Mode", "", "fast", 0), ("Team id", "T1", "T2", 1)]);
        desk.confirm(&wanted, &basis).await;
        assert_eq!(desk.entries(Action::ScopeChanged).await[0].detail["edited"], "mode sign");

        // Inputs of a component that isn't in scope change nothing.
        let only_base = scope(&["sign"], &[("sign", "auth", "OUR_SIGN")]);
        let (_, basis) = desk.differs(&proposal(&only_base)).await;
        desk.confirm(&proposal(&only_base), &basis).await;
        let idle = scope(&["sign"], &[("sign", "auth", "OUR_SIGN"), ("mode", "TEAM", "T9")]);
        assert!(matches!(desk.ask(&proposal(&idle), None).await.unwrap(), Outcome::Saved));
    })
    .await;
}

#[tokio::test]
async fn of_two_consultants_the_second_sees_the_difference_to_the_first() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["base"], &[])).await;
        let (one, other) =
            (proposal(&scope(&["tool"], &[])), proposal(&scope(&["mode"], &[("mode", "TEAM", "T1")])));
        let (_, first) = desk.differs(&one).await;
        let (_, second) = desk.differs(&other).await;
        let seen = (first.to_string(), second.to_string());
        let (left, right) = tokio::join!(desk.ask(&one, Some(&seen.0)), desk.ask(&other, Some(&seen.1)));
        let outcomes = [left.unwrap(), right.unwrap()];
        let saved = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Saved)).count();
        assert_eq!(saved, 1, "{outcomes:?}");
        let beaten = outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Differs { difference, moved, .. } => Some((difference, moved)),
            Outcome::Saved | Outcome::Open(_) => None,
        });
        let (difference, moved) = beaten.unwrap();
        assert_eq!(moved, Some(Moved::Scope));
        let theirs = difference.removed.iter().any(|name| name == "Tool" || name == "Mode");
        assert!(theirs, "it would take the other's component away: {difference:?}");
        assert_eq!(desk.entries(Action::RunbookComposed).await.len(), 2, "composed, and changed once");
    })
    .await;
}

#[tokio::test]
async fn a_change_waits_for_one_that_is_being_saved_and_then_sees_it() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["base"], &[])).await;
        let app = &desk.fixture.app;
        let other = proposal(&scope(&["mode"], &[("mode", "TEAM", "T1")]));
        let (_, seen) = desk.differs(&other).await;
        let seen = seen.to_string();
        let mut tx = app.db.write().await.unwrap();
        let first = clients::propose(&mut tx, desk.client, &proposal(&scope(&["tool"], &[]))).await.unwrap();
        let entry = first.write(&mut tx, Fixture::who(), app.now()).await.unwrap();
        let mut second = std::pin::pin!(desk.ask(&other, Some(&seen)));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
        assert!(early.is_err(), "it waits for its turn: {early:?}");
        audit::append(&mut tx, &entry).await.unwrap();
        tx.commit().await.unwrap();
        let outcome = second.await.unwrap();
        assert!(matches!(outcome, Outcome::Differs { moved: Some(Moved::Scope), .. }), "{outcome:?}");
        assert!(desk.scope().await.components.contains("tool"));
    })
    .await;
}

#[tokio::test]
async fn what_moved_on_since_is_named_and_shown_again() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["tool"], &[])).await;
        let wanted = proposal(&scope(&["base"], &[]));
        let moved = async |proposal: &Proposal, seen: &str| {
            let outcome = desk.ask(proposal, Some(seen)).await.unwrap();
            let Outcome::Differs { moved: Some(moved), basis, .. } = outcome else {
                panic!("it is shown again: {outcome:?}")
            };
            (moved, basis.to_string())
        };
        let (_, basis) = desk.differs(&wanted).await;
        desk.put("Install the tool", StepState::Running).await;
        let (why, seen) = moved(&wanted, &basis.to_string()).await;
        assert_eq!(why, Moved::Runbooks, "a step that was to be skipped began");
        let other = proposal(&scope(&["base", "mode"], &[("mode", "TEAM", "T1")]));
        assert_eq!(moved(&other, &seen).await.0, Moved::Form);
        for odd in ["", "-", "a-b-c-d-e", "nonsense"] {
            let (_, again) = moved(&wanted, odd).await;
            assert_eq!(again, seen);
        }
        let manifests = [crate::testing::MANIFESTS, MORE].concat();
        desk.fixture.import_with_tiers(3, &manifests, TIERS).await.unwrap();
        let (why, seen) = moved(&wanted, &seen).await;
        assert_eq!(why, Moved::Catalog);
        let (_, second) = desk.fixture.enrolled(desk.client, "B-UUID").await;
        desk.fixture.with_runbook(second).await;
        let (why, seen) = moved(&wanted, &seen).await;
        assert_eq!(why, Moved::Runbooks, "a second device joined");
        assert_eq!(desk.scope().await.components.len(), 2, "nothing was saved by any of this");
        let outcome = desk.ask(&wanted, Some(&seen)).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved), "{outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn a_component_newer_than_the_runbooks_catalog_says_that_it_is_not_set_up() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["base"], &[])).await;
        let late = r#"
key = "late"
name = "Late"
category = "ai"
summary = "Came later."
platforms = ["linux", "macos"]
[[step]]
id = "install"
kind = "auto"
title = "Install what came late"
as = "user"
check = "false"
run = "true"
"#;
        let manifests = [crate::testing::MANIFESTS, MORE, &[("late", late)]].concat();
        desk.fixture.import_with_tiers(3, &manifests, TIERS).await.unwrap();
        let (difference, _) = desk.differs(&proposal(&scope(&["base", "late", "mac"], &[]))).await;
        let device = only(&difference);
        assert!(device.agent.is_empty());
        let not_here: Vec<_> = device.not_here.iter().map(|one| (one.component.as_str(), one.why)).collect();
        assert_eq!(not_here, [("Late", Why::Catalog), ("For macOS", Why::Platform)]);
    })
    .await;
}

#[tokio::test]
async fn a_package_that_leaves_inputs_open_is_not_begun_without_them() {
    on_both(|db| async move {
        let desk = Desk::new(db, &scope(&["base"], &[])).await;
        let large = Package { tier: Some("large".into()), addons: BTreeSet::new() };
        let outcome = desk.ask(&Proposal::Package(large.clone()), None).await.unwrap();
        let Outcome::Open(open) = outcome else { panic!("{outcome:?}") };
        assert_eq!(
            open.missing.iter().map(|error| error.field.as_ref()).collect::<Vec<_>>(),
            ["param-mode-TEAM"]
        );
        assert_eq!(desk.scope().await.components.len(), 1);

        let filled = scope(&["base", "tool", "mode"], &[("mode", "TEAM", "T1")]);
        let with = Proposal::Scope { scope: filled, package: Some(large.clone()) };
        let (_, basis) = desk.differs(&with).await;
        desk.confirm(&with, &basis).await;
        let mut tx = desk.fixture.app.db.read().await.unwrap();
        assert_eq!(clients::package(&mut tx, desk.client).await.unwrap(), large);
        drop(tx);
        assert_eq!(desk.entries(Action::ScopeChanged).await[0].detail["tier"], "large");

        let small = Proposal::Package(Package { tier: Some("small".into()), addons: BTreeSet::new() });
        let (difference, basis) = desk.differs(&small).await;
        assert_eq!(difference.removed, ["Mode", "Tool"]);
        desk.confirm(&small, &basis).await;
    })
    .await;
}

/// Every pair of scopes out of a number of them, from every mixture of step states: what the page shows is what the
/// runbook does.
#[tokio::test]
async fn what_is_shown_is_what_is_done() {
    on_both(|db| async move {
        let scopes = [
            scope(&["base"], &[]),
            scope(&["tool"], &[]),
            scope(&["sign"], &[("sign", "auth", "OUR_SIGN")]),
            scope(&["sign", "tool"], &[("sign", "auth", "THEIR_SIGN")]),
            scope(&["mode", "sign"], &[("sign", "auth", "THEIR_SIGN"), ("mode", "TEAM", "T1")]),
            scope(&["mode", "mac"], &[("mode", "TEAM", "T2"), ("mode", "MODE", "fast")]),
        ];
        let desk = Desk::new(db, &scopes[0]).await;
        let (mut dice, mut done) = (7_u32, 0);
        for from in &scopes {
            for to in scopes.iter().filter(|to| *to != from) {
                for next in [from, to] {
                    let wanted = proposal(next);
                    let before = desk.states().await;
                    match desk.ask(&wanted, None).await.unwrap() {
                        Outcome::Saved => assert_eq!(desk.states().await, before),
                        Outcome::Open(_) => panic!("these scopes are whole"),
                        Outcome::Differs { difference, basis, .. } => {
                            desk.confirm(&wanted, &basis).await;
                            agree(&difference, &before, &desk.states().await);
                            done += 1;
                        }
                    }
                    // Some of what is open begins, or ends.
                    for step in desk.steps().await {
                        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let open =
                            matches!(step.state, StepState::Blocked | StepState::Ready | StepState::Waiting);
                        match dice >> 29 {
                            0 if open => desk.put(&step.title, StepState::Succeeded).await,
                            1 if open => desk.put(&step.title, StepState::Failed).await,
                            2 if open => desk.put(&step.title, StepState::Running).await,
                            _ => {}
                        }
                    }
                }
            }
        }
        assert!(done >= 25, "{done} differences");
    })
    .await;
}

/// New steps and steps that came back are those for the agent and for you; those skipped are those that were to be.
fn agree(
    difference: &Difference,
    before: &BTreeMap<(String, String), StepState>,
    after: &BTreeMap<(String, String), StepState>,
) {
    let device = only(difference);
    let shown: BTreeSet<&str> = titles(&device.agent).into_iter().chain(titles(&device.you)).collect();
    let came: BTreeSet<&str> = after
        .iter()
        .filter(|(key, state)| match before.get(*key) {
            None => true,
            Some(StepState::Skipped) => **state != StepState::Skipped,
            Some(_) => false,
        })
        .map(|((_, title), _)| title.as_str())
        .collect();
    assert_eq!(shown, came);
    let skipped: BTreeSet<&str> = titles(&device.skipped).into_iter().collect();
    let left: BTreeSet<&str> = after
        .iter()
        .filter(|(key, state)| {
            **state == StepState::Skipped
                && before.get(*key).is_some_and(|state| *state != StepState::Skipped)
        })
        .map(|((_, title), _)| title.as_str())
        .collect();
    assert_eq!(skipped, left);
    for title in titles(&device.under_way).into_iter().chain(titles(&device.unfinished)) {
        let key = before.keys().find(|(_, one)| one == title).unwrap();
        assert_eq!(before[key], after[key], "{title} stays as it is");
    }
}
