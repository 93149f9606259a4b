//! The answers of a board as a table for people. Names come from people and devices: nothing in them may move the
//! cursor or turn the line around.

use std::fmt::Write as _;

use crate::support::views::short;
use crate::support::{AnswerJson, StateJson};
use crate::web::{RowState, count};

/// Longest cell, in characters.
const WIDEST: usize = 40;

const HEADER: [&str; 6] = ["CLIENT", "DEVICE", "COMPONENT", "STATE", "VERSION", "AGE"];

pub fn of(state: &StateJson) -> String {
    if state.answers.is_empty() {
        return "No answer fits: there is no client with a component, or the filters leave nothing."
            .to_owned();
    }
    let rows: Vec<[String; 6]> = std::iter::once(HEADER.map(ToOwned::to_owned))
        .chain(state.answers.iter().map(|answer| cells(answer).map(|cell| short_of(&plain(&cell)))))
        .collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let line = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    let answers = count(state.answers.len(), "component", "components");
    match state.differ {
        0 => _ = write!(text, "\nNone of {answers} differs from the scope, as far as is known."),
        differ => _ = write!(text, "\n{differ} of {answers} {} from the scope.", verb(differ)),
    }
    text
}

fn verb(number: usize) -> &'static str {
    if number == 1 { "differs" } else { "differ" }
}

fn cells(answer: &AnswerJson) -> [String; 6] {
    let device = match &answer.device {
        Some(name) => format!("{name} ({})", if answer.on { "on" } else { "off" }),
        None => "no device yet".to_owned(),
    };
    let mut state = format!("{} {}", glyph(answer.drift.row_state()), answer.drift.word());
    if let [first, rest @ ..] = answer.slots.as_slice() {
        state.push_str(&format!(": {}", first.slot));
        if !rest.is_empty() {
            state.push_str(&format!(" +{}", rest.len()));
        }
    }
    let version = answer.version.as_deref().filter(|version| !version.is_empty()).unwrap_or("–");
    [
        answer.client.clone(),
        device,
        answer.component_name.clone(),
        state,
        version.to_owned(),
        answer.age_seconds.map_or_else(|| "–".to_owned(), short),
    ]
}

const fn glyph(state: RowState) -> char {
    match state {
        RowState::Done => '✓',
        RowState::Failed => '✗',
        RowState::NeedsYou => '!',
        RowState::Waiting | RowState::Running => '?',
        RowState::Off => '–',
    }
}

/// Without what a terminal obeys: control characters, and those that are invisible or turn the direction of text.
pub fn plain(text: &str) -> String {
    let obeyed = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let spaced = text.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c });
    spaced.filter(|c| !c.is_control() && !obeyed(*c)).collect()
}

fn short_of(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{of, plain};
    use crate::support::StateJson;

    fn state(answers: serde_json::Value, differ: usize) -> StateJson {
        serde_json::from_value(
            json!({ "made_at": "2026-11-25T09:00:00Z", "differ": differ, "answers": answers }),
        )
        .unwrap()
    }

    fn answer(client: &str, device: Option<&str>, drift: &str) -> serde_json::Value {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        json!({
            "client_id": id, "client": client, "device_id": device.map(|_| id), "device": device, "on": true,
            "last_seen_at": null, "component": "tool", "component_name": "Tool", "drift": drift,
            "presence": null, "version": device.map(|_| "2.1.3"), "observed_at": null,
            "age_seconds": device.map(|_| 720), "slots": [],
        })
    }

    #[test]
    fn columns_are_aligned_and_each_state_has_glyph_and_word() {
        let mut rejected = answer("Short", Some("Mac"), "slot-rejected");
        rejected["slots"] = json!([
            { "slot": "OUR_KEY", "drift": "slot-rejected" }, { "slot": "OTHER", "drift": "slot-empty" }
        ]);
        let answers = json!([
            answer("A longer client", Some("Mac mini"), "as-wanted"),
            rejected,
            answer("Without a Mac", None, "never-reported"),
        ]);
        assert_eq!(
            of(&state(answers, 1)),
            "\
CLIENT           DEVICE         COMPONENT  STATE                        VERSION  AGE
A longer client  Mac mini (on)  Tool       ✓ as wanted                  2.1.3    12 min
Short            Mac (on)       Tool       ✗ slot rejected: OUR_KEY +1  2.1.3    12 min
Without a Mac    no device yet  Tool       ? never reported             –        –

1 of 3 components differs from the scope."
        );
        assert!(of(&state(json!([]), 0)).starts_with("No answer fits"));
    }

    #[test]
    fn names_can_not_move_the_cursor_or_turn_the_line() {
        assert_eq!(plain("a\u{1b}[2J\u{7}b\u{9b}c\u{202e}d\u{2066}e\u{200f}f\u{61c}g"), "a[2Jbcdefg");
        assert_eq!(plain("לקוח 🙂\nnext"), "לקוח 🙂 next");
        let hostile = answer("evil\u{1b}]0;x\u{7}\u{202e}\r\nrow", Some(&"long ".repeat(30)), "missing");
        let text = of(&state(json!([hostile]), 1));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains('…') && !text.chars().any(|c| c == '\u{1b}' || c == '\u{202e}'), "{text}");
    }
}
