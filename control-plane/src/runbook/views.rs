//! A device's runbook, live, and the whole output of one step.

use askama::Template;
use askama::filters::HtmlSafe;

use super::plan::views::{Control, PlannedWord};
use crate::clients::views::ClientRef;
use crate::secrets::views::CopyForm;
use crate::web::{Moment, RowState, Shell};

#[derive(Template)]
#[template(path = "runbook/runbook.html")]
pub struct RunbookPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub device_name: String,
    /// Address of the live fragment: /devices/ID/runbook/events
    pub events: String,
    /// Where to POST a `reason` to end the device's enrollment.
    pub revoke: Option<String>,
    pub fragment: RunbookFragment,
}

/// What /devices/ID/runbook/events sends.
#[derive(Template)]
#[template(path = "runbook/_runbook.html")]
pub struct RunbookFragment {
    pub device: DeviceHead,
    pub control: Control,
    pub tally: Tally,
    /// Empty when the device has no runbook yet.
    pub groups: Vec<StepGroup>,
}

pub struct DeviceHead {
    pub name: String,
    pub on: bool,
    /// On since, or last seen.
    pub since: Option<Moment>,
    pub os: String,
    pub catalog: String,
    /// It joined with `--dev`.
    pub dev: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub done: u32,
    pub running: u32,
    pub needs_you: u32,
    pub failed: u32,
    pub total: u32,
}

pub struct StepGroup {
    pub component: String,
    pub done: u32,
    pub total: u32,
    pub lines: Vec<StepLine>,
    /// Folded when the page opens.
    pub finished: bool,
}

pub struct StepLine {
    /// The element's id, unique in the page and the same in every rendering.
    pub anchor: String,
    pub state: RowState,
    /// The agent executes it: plans are about it.
    pub auto: bool,
    /// What the latest plan says of it.
    pub planned: Option<PlannedWord>,
    pub title: String,
    /// "9.7 s · agent", "after the token"
    pub meta: String,
    /// Running: the last line of its output.
    pub last_line: Option<String>,
    /// Failed: the last lines of its output.
    pub tail: Vec<String>,
    /// "verify found: not installed"
    pub found: Option<String>,
    pub output_href: Option<String>,
    pub detail: Option<String>,
    /// The page that undoes it, keeps it or sets it up again.
    pub undo: Option<UndoLink>,
    /// Where to POST to try it again.
    pub retry: Option<String>,
    /// Where to POST a `reason` to go on without it.
    pub skip: Option<String>,
    /// Skipped or marked by hand: what was said.
    pub note: Option<String>,
    /// The delivery of a secret that may be copied when there is no other way.
    pub copy: Option<CopyForm>,
    /// A manual step that waits: what to do.
    pub card: Option<ManualCard>,
}

pub struct UndoLink {
    pub href: String,
    pub word: &'static str,
}

/// What a consultant has to do for a manual step.
pub struct ManualCard {
    pub component: String,
    /// HTML made from the manifest's Markdown by our own renderer: paragraphs, lists, emphasis, code, nothing else.
    pub text: Markdown,
    pub slots: Vec<ManualSlot>,
    /// Where to POST to say that it is done: "Mark pasted" with slots, "Mark done" without.
    pub mark: Option<String>,
}

pub struct ManualSlot {
    pub name: String,
    /// Where the client keeps it: `op://Example Client/Slack/bot-token`.
    pub reference: String,
    /// What to run on the device: `sudo board-agent paste slack/SLACK_BOT_TOKEN`.
    pub command: String,
    /// What to run on the consultant's own computer; the fingerprint comes from the Mac.
    pub from_here: String,
    /// To seal it in this page; `None` when that isn't for this viewer or this client.
    pub browser: Option<BrowserPaste>,
    /// What the device says of it, as a sentence.
    pub says: String,
    /// It needs somebody while the device doesn't have it, failed when its provider refuses it, else done.
    pub state: RowState,
}

/// What `static/paste.js` seals to, and where it sends that.
pub struct BrowserPaste {
    pub action: String,
    pub client: String,
    pub device: String,
    pub component: String,
    pub slot: String,
    /// The device's X25519 key in hexadecimal.
    pub key: String,
}

/// Text of a signed manifest, rendered.
pub struct Markdown(pub String);

impl std::fmt::Display for Markdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Markdown {}

/// The card on top of the steps.
struct Next<'a> {
    state: RowState,
    eyebrow: &'static str,
    title: String,
    text: Option<&'a str>,
    line: Option<&'a StepLine>,
}

impl<'a> Next<'a> {
    fn card(&self) -> Option<&'a ManualCard> {
        self.line.and_then(|line| line.card.as_ref())
    }

    fn is(&self, line: &StepLine) -> bool {
        self.line.is_some_and(|next| next.anchor == line.anchor)
    }
}

/// What a step's line opens into: what there is to read and to do has its place there, so that nothing under the line moves
/// when it comes.
#[derive(Clone, Copy)]
enum Fold<'a> {
    Card(&'a ManualCard),
    /// It waits, and may be skipped.
    Skip,
    /// It failed.
    Said,
}

impl Fold<'_> {
    /// Begins the element's id: another fold of the same step is another element.
    fn key(self) -> &'static str {
        match self {
            Self::Card(_) => "todo",
            Self::Skip => "waits",
            Self::Said => "said",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Card(_) => "What to do",
            Self::Skip => "Skip with a reason",
            Self::Said => "What it said",
        }
    }

    /// When the page is opened; what comes while somebody looks comes folded.
    fn is_open(self) -> bool {
        matches!(self, Self::Said)
    }
}

impl StepLine {
    /// `is_next`: its card stands on top of the page.
    fn fold(&self, is_next: bool) -> Option<Fold<'_>> {
        match &self.card {
            Some(_) if is_next => None,
            Some(card) => Some(Fold::Card(card)),
            None if !self.tail.is_empty() || self.found.is_some() || self.retry.is_some() => Some(Fold::Said),
            None => self.skip.as_ref().map(|_| Fold::Skip),
        }
    }
}

#[derive(Template)]
#[template(path = "runbook/output.html")]
pub struct OutputPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub device_name: String,
    /// The runbook that the step belongs to.
    pub device_href: String,
    pub step_title: String,
    pub text: String,
    pub truncated: bool,
}

impl HtmlSafe for RunbookFragment {}

impl RunbookFragment {
    /// The document's title, also for the `title` event.
    pub fn title(&self, client: &str) -> String {
        let place = format!("{} · {client} · Board", self.device.name);
        match (self.tally.needs_you, self.tally.failed) {
            (0, 0) if self.is_held_back() => format!("Paused · {place}"),
            (0, 0) => place,
            (0, failed) => format!("{failed} failed · {place}"),
            (1, _) => format!("1 needs you · {place}"),
            (needs, _) => format!("{needs} need you · {place}"),
        }
    }

    /// Whether the favicon asks for somebody, also for the `favicon` event ("needs" or "calm").
    pub fn needs_you(&self) -> bool {
        self.tally.needs_you + self.tally.failed > 0
    }

    /// The answer to "does it need me": what to do next, or who is at work. There always is one, so the page keeps its
    /// shape when it changes.
    fn next(&self) -> Next<'_> {
        let about = |state, eyebrow, line: &'_ StepLine| (state, eyebrow, line.title.clone());
        let (needs, failed, running) =
            (self.first(RowState::NeedsYou), self.first(RowState::Failed), self.first(RowState::Running));
        let ((state, eyebrow, title), line, text) = match (needs, failed, running) {
            (Some(line), _, _) => {
                (about(RowState::NeedsYou, "Next for you", line), Some(line), line.detail.as_deref())
            }
            (None, Some(line), _) => {
                let text = "It failed. Read what it said, put it right, and try it again.";
                (about(RowState::Failed, "Next for you", line), Some(line), Some(text))
            }
            (None, None, Some(line)) => {
                let text = match self.control.pause {
                    Some(_) => "It is let finish. Nothing follows until the runbook is resumed.",
                    None => "The agent is at it. What it says is among the steps.",
                };
                (about(RowState::Running, "Nothing for you right now", line), Some(line), Some(text))
            }
            (None, None, None) if self.first(RowState::Waiting).is_none() => {
                let title = "No step is left".to_owned();
                ((RowState::Done, "Nothing for you", title), None, Some("The device has what was agreed."))
            }
            (None, None, None) if let Some(pause) = &self.control.pause => {
                let title = "The runbook is paused".to_owned();
                let eyebrow = "No step is offered until it is resumed";
                ((RowState::Waiting, eyebrow, title), None, Some(pause.reason.as_str()))
            }
            (None, None, None) if !self.device.on => {
                let title = format!("{} is off", self.device.name);
                let text =
                    "The steps go on by themselves when it is back. Ask someone there to switch it on.";
                ((RowState::Off, "Waiting for the device", title), None, Some(text))
            }
            (None, None, None) => {
                let title = "The agent takes the next step by itself".to_owned();
                ((RowState::Waiting, "Nothing for you right now", title), None, None)
            }
        };
        Next { state, eyebrow, title, text, line }
    }

    /// It is paused, and steps are left.
    fn is_held_back(&self) -> bool {
        self.control.pause.is_some() && self.tally.done < self.tally.total
    }

    fn first(&self, state: RowState) -> Option<&StepLine> {
        self.groups.iter().flat_map(|group| &group.lines).find(|line| line.state == state)
    }
}

impl Tally {
    const SEGMENTS: u32 = 40;

    /// The classes of the progress bar's segments: one a step, or a share of 40 in which no state that occurs is lost.
    fn segments(&self) -> Vec<&'static str> {
        let length = self.total.min(Self::SEGMENTS);
        let share = |number: u32| match number {
            0 => 0,
            _ => (u64::from(number) * u64::from(length) / u64::from(self.total.max(1))).max(1) as usize,
        };
        let open = [
            (self.failed, RowState::Failed),
            (self.running, RowState::Running),
            (self.needs_you, RowState::NeedsYou),
        ];
        let open: Vec<_> = open
            .into_iter()
            .flat_map(|(number, state)| std::iter::repeat_n(state.class(), share(number)))
            .collect();
        let mut segments =
            vec![RowState::Done.class(); share(self.done).min((length as usize).saturating_sub(open.len()))];
        segments.extend(open);
        segments.resize(length as usize, RowState::Waiting.class());
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_one_segment_a_step() {
        let bar = Tally { done: 2, running: 1, needs_you: 0, failed: 0, total: 4 }.segments();
        assert_eq!(bar, ["is-done", "is-done", "is-running", "is-waiting"]);
        assert!(Tally::default().segments().is_empty());
    }

    #[test]
    fn a_long_runbook_keeps_every_state_in_its_bar() {
        let bar = Tally { done: 997, running: 1, needs_you: 1, failed: 1, total: 1000 }.segments();
        assert_eq!(bar.len(), 40);
        for class in ["is-done", "is-running", "is-needs", "is-failed"] {
            assert!(bar.contains(&class), "{class}");
        }
    }
}
