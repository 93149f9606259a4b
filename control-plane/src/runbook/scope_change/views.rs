//! The page between a changed scope and its saving.

use askama::Template;

use crate::clients::views::ClientRef;
use crate::web::{Moment, Shell};

/// POST to `action` with `fields`, which hold what was typed, and `difference`: confirms. With `back` instead: shows the
/// form again.
#[derive(Template)]
#[template(path = "runbook/scope_change.html")]
pub struct ScopeChangePage {
    pub shell: Shell,
    pub client: ClientRef,
    /// "package" or "integrations": where it comes from.
    pub step: &'static str,
    pub action: String,
    pub fields: Vec<(String, String)>,
    /// The basis of the difference, as it has to come back.
    pub basis: String,
    /// Why what was confirmed is shown again.
    pub again: Option<&'static str>,
    pub difference: Difference,
}

/// What a scope changes, over all devices of the client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Names of components.
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Those that stay, with another choice or input.
    pub edited: Vec<String>,
    pub devices: Vec<DeviceDifference>,
    /// To enter; `stored` when an earlier scope had it already.
    pub ours: Vec<NewSlot>,
    /// Where the client keeps it.
    pub theirs: Vec<NewSlot>,
    /// Filled slots that nothing uses any more.
    pub unused: Vec<UnusedSlot>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeviceDifference {
    pub name: String,
    pub href: String,
    pub on: bool,
    pub is_paused: bool,
    /// On since, or last seen.
    pub since: Option<Moment>,
    /// Steps that the agent runs by itself.
    pub agent: Vec<Steps>,
    /// Steps for a consultant.
    pub you: Vec<Steps>,
    /// Not begun, skipped.
    pub skipped: Vec<Steps>,
    /// They were to run again, and stay as they last ended.
    pub not_again: Vec<Steps>,
    /// Out of scope and under way: let finish.
    pub under_way: Vec<Steps>,
    /// Out of scope and failed: left as they are.
    pub unfinished: Vec<Steps>,
    pub stays: Vec<Stays>,
    pub params: Vec<ParamChange>,
    /// Components that come into scope and are not set up here.
    pub not_here: Vec<NotHere>,
}

/// Steps of one component, by title.
#[derive(Debug, PartialEq, Eq)]
pub struct Steps {
    pub component: String,
    pub titles: Vec<String>,
}

/// A component that leaves the scope and stays on the device.
#[derive(Debug, PartialEq, Eq)]
pub struct Stays {
    pub component: String,
    /// "seen installed, version 1.3.0" or "2 of its 3 steps are done".
    pub evidence: String,
    pub seen: Option<Moment>,
}

/// An input with another value.
#[derive(Debug, PartialEq, Eq)]
pub struct ParamChange {
    pub component: String,
    pub name: String,
    /// Empty when there was none.
    pub before: String,
    pub after: String,
    /// Titles of finished steps that read it.
    pub done: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct NotHere {
    pub component: String,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is for another platform.
    Platform,
    /// The runbook's catalog is older than the component.
    Catalog,
}

#[derive(Debug, PartialEq, Eq)]
pub struct NewSlot {
    pub component: String,
    pub name: String,
    pub key: String,
    pub hint: String,
    pub stored: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct UnusedSlot {
    pub component: String,
    pub name: String,
    pub ours: bool,
    /// Ours, encrypted on the board.
    pub stored: bool,
    /// Names of devices that hold it.
    pub on: Vec<String>,
}

impl ScopeChangePage {
    fn number(&self, steps: &[Steps]) -> usize {
        count(steps)
    }
}

impl Difference {
    /// Whether nobody has to see it: nothing runs, nothing is skipped, nothing is left behind.
    pub fn is_empty(&self) -> bool {
        self.devices.iter().all(DeviceDifference::is_empty)
            && self.ours.is_empty()
            && self.theirs.is_empty()
            && self.unused.is_empty()
    }

    /// Whether a secret of ours is still to be entered: steps that need it wait.
    fn waits_for_ours(&self) -> bool {
        self.ours.iter().any(|slot| !slot.stored)
    }

    fn names_components(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.edited.is_empty())
    }

    /// What follows when it is confirmed, in one sentence.
    fn follows(&self) -> String {
        let sum = |steps: fn(&DeviceDifference) -> &[Steps]| {
            self.devices.iter().map(|device| count(steps(device))).sum::<usize>()
        };
        let runs = |begins: Begins| {
            let devices = self.devices.iter().filter(|device| device.begins() == begins);
            devices.map(|device| count(&device.agent)).sum::<usize>()
        };
        let mut parts = Vec::new();
        match (runs(Begins::AtOnce), runs(Begins::WhenOn), runs(Begins::WhenResumed)) {
            (0, 0, 0) => {}
            (now, 0, 0) => parts.push(format!("the agent gets {} and begins at once", steps(now))),
            (0, later, 0) => {
                parts.push(format!("the agent gets {} and begins when its device is on", steps(later)));
            }
            (0, 0, held) => {
                parts.push(format!("the agent gets {} and begins when the runbook is resumed", steps(held)));
            }
            (now, later, held) => {
                let all = steps(now + later + held);
                let unless = if held > 0 { " and its runbook isn’t paused" } else { "" };
                parts.push(format!("the agents get {all} and begin at once where the device is on{unless}"));
            }
        }
        match sum(|device| &device.you) {
            0 => {}
            you => parts.push(format!("you get {}", steps(you))),
        }
        match sum(|device| &device.skipped) {
            0 => {}
            1 => parts.push("1 step is skipped".to_owned()),
            skipped => parts.push(format!("{skipped} steps are skipped")),
        }
        match parts.as_slice() {
            [] => "Then no step runs and none is skipped.".to_owned(),
            [one] => format!("Then {one}."),
            [rest @ .., last] => format!("Then {}, and {last}.", rest.join(", ")),
        }
    }
}

/// When the agent begins with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    AtOnce,
    WhenOn,
    WhenResumed,
}

impl DeviceDifference {
    fn begins(&self) -> Begins {
        match (self.is_paused, self.on) {
            (true, _) => Begins::WhenResumed,
            (false, true) => Begins::AtOnce,
            (false, false) => Begins::WhenOn,
        }
    }

    fn begins_in_words(&self) -> &'static str {
        match self.begins() {
            Begins::AtOnce => "The agent begins as soon as you confirm.",
            Begins::WhenOn => "The agent begins when the device is on.",
            Begins::WhenResumed if self.on => {
                "The runbook is paused: the agent begins when the runbook is resumed."
            }
            Begins::WhenResumed => {
                "The runbook is paused: the agent begins when the runbook is resumed and the device is on."
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        let steps =
            [&self.agent, &self.you, &self.skipped, &self.not_again, &self.under_way, &self.unfinished];
        steps.iter().all(|steps| steps.is_empty())
            && self.stays.is_empty()
            && self.params.is_empty()
            && self.not_here.iter().all(|one| one.why == Why::Platform)
    }

    fn has_nothing_to_say(&self) -> bool {
        self.is_empty() && self.not_here.is_empty()
    }
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Self::Platform => "not for this platform",
            Self::Catalog => "not in the catalog that this runbook was composed from",
        }
    }
}

fn count(steps: &[Steps]) -> usize {
    steps.iter().map(|steps| steps.titles.len()).sum()
}

fn steps(number: usize) -> String {
    crate::web::count(number, "step", "steps")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(on: bool, agent: usize, you: usize, skipped: usize) -> DeviceDifference {
        let steps = |number: usize| {
            let titles = vec!["Do it".to_owned(); number];
            if number == 0 { Vec::new() } else { vec![Steps { component: "Tool".to_owned(), titles }] }
        };
        let (agent, you, skipped) = (steps(agent), steps(you), steps(skipped));
        DeviceDifference { on, agent, you, skipped, ..DeviceDifference::default() }
    }

    #[test]
    fn the_last_sentence_says_what_follows() {
        let cases = [
            (vec![device(true, 0, 0, 0)], "Then no step runs and none is skipped."),
            (vec![device(true, 2, 0, 0)], "Then the agent gets 2 steps and begins at once."),
            (
                vec![device(false, 1, 1, 1)],
                "Then the agent gets 1 step and begins when its device is on, you get 1 step, and 1 step is skipped.",
            ),
            (
                vec![device(true, 2, 0, 2), device(false, 2, 0, 1)],
                "Then the agents get 4 steps and begin at once where the device is on, and 3 steps are skipped.",
            ),
        ];
        let paused = |on: bool| DeviceDifference { is_paused: true, ..device(on, 2, 0, 0) };
        let held = [
            (vec![paused(true)], "Then the agent gets 2 steps and begins when the runbook is resumed."),
            (
                vec![device(true, 1, 0, 0), paused(false)],
                "Then the agents get 3 steps and begin at once where the device is on and its runbook isn’t paused.",
            ),
        ];
        for (devices, sentence) in cases.into_iter().chain(held) {
            assert_eq!(Difference { devices, ..Difference::default() }.follows(), sentence);
        }
    }
}
