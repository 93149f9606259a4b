//! From a plan's rows to what the page shows: a sentence in the head, a word at each step, and the whole list.

use std::collections::BTreeMap;

use super::views::{Actions, Control, PauseShown, PlanLine, PlanShown, PlannedWord};
use super::{Answer, Plan, PlanState, PlanStep, latest};
use crate::access::{Role, Visitor};
use crate::catalog::Catalog;
use crate::db::Tx;
use crate::enrollment::Device;
use crate::runbook::{AttemptState, Runbook, Step, StepState, pause_of};
use crate::web::{Moment, RowState, count};

/// The head's part, and the word of each step that the latest plan still says something about.
pub async fn shown(
    tx: &mut Tx,
    device: &Device,
    runbook: &Runbook,
    steps: &[Step],
    catalog: Option<&Catalog>,
    on: bool,
    visitor: &Visitor,
) -> Result<(Control, BTreeMap<String, PlannedWord>), sqlx::Error> {
    let pause = pause_of(tx, runbook.id).await?.map(|pause| PauseShown {
        by: pause.paused_by,
        at: Moment { at: pause.paused_at, now: visitor.now },
        reason: pause.reason,
    });
    let latest = latest(tx, runbook.id).await?;
    let open = latest.as_ref().is_some_and(|(plan, _)| plan.standing(visitor.now).is_open());
    let action = |name: &str| format!("/devices/{}/runbook/{name}", device.id);
    let mut words = BTreeMap::new();
    let plan = latest.map(|(plan, looked)| {
        let state = plan.standing(visitor.now);
        let looks = looks(&plan, state, &looked, steps);
        words = looks.iter().filter(|look| !look.is_outdated).map(Look::at_its_step).collect();
        let running = steps.iter().any(|step| step.attempt_state == Some(AttemptState::Running));
        plan_shown(device, &plan, state, &looks, running, catalog, visitor)
    });
    let control = Control {
        pause,
        plan,
        actions: visitor.can(Role::Consultant).then(|| Actions {
            pause: action("pause"),
            resume: action("resume"),
            plan: action("plan"),
        }),
        plan_waits: match (on, open) {
            (false, _) => Some("The Mac is off; it can plan when it is on."),
            (true, true) => Some("A plan is under way."),
            (true, false) => None,
        },
    };
    Ok((control, words))
}

/// A step that was planned, as it was then.
struct Look<'a> {
    step: &'a Step,
    planned: &'a PlanStep,
    /// It was done before the plan was asked for.
    was_done: bool,
    /// It ran since, so the plan says nothing of it any more.
    is_outdated: bool,
    word: PlannedWord,
}

impl Look<'_> {
    fn at_its_step(&self) -> (String, PlannedWord) {
        (self.step.id.to_string(), self.word)
    }
}

fn looks<'a>(plan: &Plan, state: PlanState, looked: &'a [PlanStep], steps: &'a [Step]) -> Vec<Look<'a>> {
    let look = |planned: &'a PlanStep| {
        let step = steps.iter().find(|step| step.id == planned.step_id)?;
        let since = step.changed_at > plan.asked_at;
        let still_open = matches!(step.state, StepState::Blocked | StepState::Ready | StepState::Waiting);
        let was_done = step.state == StepState::Succeeded && !since;
        let word = word(planned.answer, was_done, state.is_open());
        Some(Look { step, planned, was_done, is_outdated: since && !still_open, word })
    };
    looked.iter().filter_map(look).collect()
}

fn word(answer: Option<Answer>, was_done: bool, open: bool) -> PlannedWord {
    let state = |state: RowState, word| PlannedWord { class: state.class(), word };
    let would_run = |word| state(RowState::Running, word);
    match (answer, was_done) {
        (Some(Answer::AlreadySo), true) => state(RowState::Done, "still so"),
        (Some(Answer::AlreadySo), false) => state(RowState::Done, "already so"),
        (Some(Answer::WouldRun), true) => state(RowState::NeedsYou, "not so any more"),
        (Some(Answer::WouldRun), false) => would_run("would run"),
        (Some(Answer::NoCheck), true) => state(RowState::Waiting, "has no check"),
        (Some(Answer::NoCheck), false) => would_run("no check: would run"),
        (Some(Answer::NotYet), _) => state(RowState::Waiting, "can't be checked yet"),
        (Some(Answer::Unknown), _) => state(RowState::NeedsYou, "unknown"),
        (None, _) if open => state(RowState::Waiting, "not looked at yet"),
        (None, _) => state(RowState::Waiting, "not looked at"),
    }
}

fn plan_shown(
    device: &Device,
    plan: &Plan,
    state: PlanState,
    looks: &[Look<'_>],
    running: bool,
    catalog: Option<&Catalog>,
    visitor: &Visitor,
) -> PlanShown {
    let done = looks.iter().filter(|look| look.planned.answer.is_some()).count();
    let so_far = format!("{done} of {} looked at", looks.len());
    let because = plan.silence();
    let (row, words) = match state {
        PlanState::Asked if running => {
            (RowState::Waiting, "Asked for; it begins when no step runs".to_owned())
        }
        PlanState::Asked => (RowState::Waiting, "Asked for".to_owned()),
        PlanState::Sent => (RowState::Running, so_far),
        PlanState::Done => (RowState::Done, summary(looks)),
        PlanState::Stopped => (RowState::NeedsYou, format!("Ended early, {so_far}: {because}")),
        PlanState::Unanswered => (RowState::NeedsYou, format!("Not answered, {so_far}: {because}")),
        PlanState::TooOld => {
            (RowState::NeedsYou, "This Mac’s agent is too old to plan; update it first".to_owned())
        }
    };
    let line = |look: &Look<'_>| PlanLine {
        anchor: format!("step-{}", look.step.id),
        component: catalog.map_or_else(
            || look.step.component_key.clone(),
            |catalog| catalog.name_of(&look.step.component_key),
        ),
        title: look.step.title.clone(),
        word: look.word,
        found: look.planned.found.clone(),
    };
    PlanShown {
        href: format!("/devices/{}/plan", device.id),
        class: row.class(),
        icon: row.glyph(),
        words,
        at: Moment { at: plan.ended_at.unwrap_or(plan.asked_at), now: visitor.now },
        by: plan.asked_by.clone(),
        open: state.is_open(),
        lines: looks.iter().map(line).collect(),
    }
}

/// What would change first: "3 would run, 1 not so any more, 9 already so, 1 not known".
fn summary(looks: &[Look<'_>]) -> String {
    let number = |fits: &dyn Fn(&Look<'_>) -> bool| looks.iter().filter(|look| fits(look)).count();
    let would = |look: &Look<'_>| matches!(look.planned.answer, Some(Answer::WouldRun | Answer::NoCheck));
    let so = |look: &Look<'_>| look.planned.answer == Some(Answer::AlreadySo);
    let drifted = |look: &Look<'_>| look.was_done && look.planned.answer == Some(Answer::WouldRun);
    let counts = [
        (number(&|look| would(look) && !look.was_done), "would run"),
        (number(&drifted), "not so any more"),
        (number(&so), "already so"),
        (number(&|look| !so(look) && !drifted(look) && (look.was_done || !would(look))), "not known"),
    ];
    let parts: Vec<String> = counts
        .into_iter()
        .enumerate()
        .filter(|(place, (number, _))| *place == 0 || *number > 0)
        .map(|(_, (number, words))| count(number, words, words))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_step_that_is_not_so_has_drifted_and_is_not_said_to_run() {
        let said = |answer, done| word(Some(answer), done, false).word;
        assert_eq!(said(Answer::WouldRun, false), "would run");
        assert_eq!(said(Answer::WouldRun, true), "not so any more");
        assert_eq!(said(Answer::NoCheck, false), "no check: would run");
        assert_eq!(said(Answer::NotYet, false), "can't be checked yet");
        assert_eq!(
            (word(None, false, true).word, word(None, false, false).word),
            ("not looked at yet", "not looked at")
        );
    }
}
