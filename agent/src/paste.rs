//! `board-agent paste`: a person's value for a client-supplied slot, handed to the daemon.

use shared::catalog::Tag;
use shared::secret::{MAX_LEN, Secret};

use crate::broker::{self, Answer, AskError, Pasting, Request, SlotLine};
use crate::config::Paths;

#[derive(Debug, thiserror::Error)]
pub enum PasteError {
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The command names a slot that can't be meant.
    #[error("{0}")]
    Slot(String),
    #[error("{0}")]
    BadValue(String),
    #[error("{0}")]
    Refused(String),
}

/// Every slot of the scope.
pub fn slots(paths: &Paths) -> Result<Vec<SlotLine>, PasteError> {
    match broker::ask(paths, &Request::Slots)? {
        Answer::Slots(slots) => Ok(slots),
        Answer::Refused { reason } => Err(PasteError::Refused(reason)),
        Answer::Environment { .. }
        | Answer::Missing { .. }
        | Answer::Pasted
        | Answer::Wiped(_)
        | Answer::Done
        | Answer::BadValue { .. } => Err(AskError::Answer.into()),
    }
}

/// The slot that a person means by `COMPONENT/SLOT` or a bare `SLOT`.
pub fn find(slots: Vec<SlotLine>, target: &str) -> Result<SlotLine, PasteError> {
    let (component, slot) = match target.split_once('/') {
        Some((component, slot)) => (Some(component), slot),
        None => (None, target),
    };
    let (fitting, others): (Vec<_>, Vec<_>) = slots
        .into_iter()
        .partition(|line| line.slot == slot && component.is_none_or(|component| line.component == component));
    let (mut theirs, ours): (Vec<_>, Vec<_>) =
        fitting.into_iter().partition(|line| line.tag == Tag::ClientSupplied);
    let choices = |slots: &[SlotLine]| {
        slots
            .iter()
            .filter(|line| line.tag == Tag::ClientSupplied)
            .map(|line| format!("\n  {line}"))
            .collect::<String>()
    };
    match (theirs.len(), ours.first()) {
        (1, _) => Ok(theirs.remove(0)),
        (0, Some(ours)) => Err(PasteError::Slot(format!("{ours}: this one is delivered by the board"))),
        (0, None) => {
            let choices = choices(&others);
            Err(PasteError::Slot(if choices.is_empty() {
                format!("this device's scope has no slot {target}, and no other one to paste")
            } else {
                format!("this device's scope has no slot {target}. Choose one of:{choices}")
            }))
        }
        (_, _) => Err(PasteError::Slot(format!(
            "several components have a slot {target}. Choose one of:{}",
            choices(&theirs)
        ))),
    }
}

/// Comes back when the value is in the device's store and the board is being told that it is there.
pub fn paste(paths: &Paths, line: &SlotLine, value: Secret<Vec<u8>>) -> Result<(), PasteError> {
    if value.expose().len() > MAX_LEN {
        // The socket takes nothing as long as that.
        let reason =
            format!("the value is larger than 16 KiB: nothing was changed. Copy the {} again", line.name);
        return Err(PasteError::BadValue(reason));
    }
    let pasting = Pasting { component: line.component.clone(), slot: line.slot.clone(), value };
    match broker::ask(paths, &Request::Paste(pasting))? {
        Answer::Pasted => Ok(()),
        Answer::BadValue { reason } => Err(PasteError::BadValue(reason)),
        Answer::Refused { reason } | Answer::Missing { reason } => Err(PasteError::Refused(reason)),
        Answer::Environment { .. } | Answer::Slots(_) | Answer::Wiped(_) | Answer::Done => {
            Err(AskError::Answer.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(component: &str, slot: &str, tag: Tag) -> SlotLine {
        SlotLine {
            component: component.to_owned(),
            slot: slot.to_owned(),
            name: "x".to_owned(),
            tag,
            required: true,
            one_of: None,
            filled: false,
        }
    }

    #[test]
    fn a_slot_is_found_or_the_choices_are_named() {
        use Tag::{ClientSupplied, OurManaged};
        let slots = || {
            vec![
                line("slack", "BOT", ClientSupplied),
                line("slack", "TOKEN", ClientSupplied),
                line("teams", "TOKEN", ClientSupplied),
                line("router", "KEY", OurManaged),
                line("claude", "AUTH", OurManaged),
                line("crm", "AUTH", ClientSupplied),
            ]
        };
        let all = "\n  slack/BOT\n  slack/TOKEN\n  teams/TOKEN\n  crm/AUTH";
        let table = [
            ("slack/BOT", Ok("slack/BOT")),
            ("BOT", Ok("slack/BOT")),
            ("AUTH", Ok("crm/AUTH")),
            (
                "TOKEN",
                Err("several components have a slot TOKEN. Choose one of:\n  slack/TOKEN\n  teams/TOKEN"
                    .to_owned()),
            ),
            ("KEY", Err("router/KEY: this one is delivered by the board".to_owned())),
            ("claude/AUTH", Err("claude/AUTH: this one is delivered by the board".to_owned())),
            ("NONE", Err(format!("this device's scope has no slot NONE. Choose one of:{all}"))),
            ("slack/KEY", Err(format!("this device's scope has no slot slack/KEY. Choose one of:{all}"))),
            ("", Err(format!("this device's scope has no slot . Choose one of:{all}"))),
        ];
        for (target, expected) in table {
            let found = find(slots(), target).map(|line| line.to_string()).map_err(|error| error.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{target}");
        }
        let nothing = find(Vec::new(), "X").unwrap_err().to_string();
        assert_eq!(nothing, "this device's scope has no slot X, and no other one to paste");
    }
}
