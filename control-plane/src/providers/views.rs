//! The operator's page of providers, and a client's key as its page shows it. No value is in either.

use askama::Template;
use askama::filters::HtmlSafe;

use super::{ClientKey, KeyState, money};
use crate::web::{FieldError, Moment, RowState, Shell};

/// POST /providers with `secret`; POST /providers/remove.
#[derive(Template)]
#[template(path = "providers/providers.html")]
pub struct ProvidersPage {
    pub shell: Shell,
    /// Version and time of the management key.
    pub stored: Option<(i64, Moment)>,
    /// Why the numbers couldn't be read the last time.
    pub trouble: Option<String>,
    pub ask_password: bool,
    pub errors: Vec<FieldError>,
}

/// A client's key, on the client's page.
#[derive(Template)]
#[template(path = "providers/_key.html")]
pub struct KeySection {
    /// /clients/ID/openrouter
    pub action: String,
    pub state: RowState,
    pub word: &'static str,
    pub sentence: String,
    pub read: Option<Moment>,
    pub expires: Option<Moment>,
    /// What is wrong, and what to do.
    pub trouble: Option<String>,
    /// What else to know about a key that works.
    pub notes: Vec<&'static str>,
    /// "50.00"
    pub limit: String,
    pub stored: bool,
    pub disabled: bool,
    pub can_make: bool,
    pub can_consult: bool,
    pub ask_password: bool,
}

impl HtmlSafe for KeySection {}

/// A value that was typed took the key's place.
pub const REPLACED: &str = "The Macs get a value that somebody typed in its place. This key goes on working at OpenRouter: delete it when every Mac has the other one. The typed one isn’t the board’s: end it at OpenRouter by hand.";
/// A scope takes nothing away.
pub const OUT_OF_SCOPE: &str = "OpenRouter isn’t in this client’s scope. The key goes on working: disable or delete it when nobody uses it any more.";

/// Above this share of the limit, in percent, the page warns.
const WARN_PERCENT: i64 = 80;

impl KeySection {
    pub fn of(
        key: Option<&ClientKey>,
        action: String,
        default_limit: i64,
        now: shared::time::Timestamp,
    ) -> Self {
        let limit_micros = key.map_or(default_limit, |key| key.limit_micros);
        let limit = money(limit_micros);
        let moment = |at| Moment { at, now };
        let state = key.map_or(KeyState::Idle, |key| key.state);
        let stored = state == KeyState::Stored;
        let usage = key.filter(|_| stored).and_then(|key| key.usage_micros);
        let disabled = stored && key.is_some_and(|key| key.disabled);
        let (row, word, sentence) = match state {
            KeyState::Idle => (
                RowState::Waiting,
                "not made",
                format!("The board has made no key for this client. One would have {limit} a month."),
            ),
            KeyState::Planned | KeyState::Asked | KeyState::Made => {
                (RowState::Running, "being made", format!("A key with {limit} a month is being made."))
            }
            KeyState::Failed => (RowState::Failed, "not made", "No key could be made.".to_owned()),
            KeyState::Deleted => (
                RowState::Off,
                "deleted",
                "The key was deleted: what the Macs hold opens nothing.".to_owned(),
            ),
            KeyState::Stored => {
                let used = usage.map_or_else(
                    || format!("This month: not known, of {limit}"),
                    |usage| format!("This month: {} of {limit}", money(usage)),
                );
                let high = usage.is_some_and(|usage| {
                    usage.saturating_mul(100) >= limit_micros.saturating_mul(WARN_PERCENT)
                });
                match (disabled, high) {
                    (true, _) => (RowState::Off, "disabled", used),
                    (false, true) => (RowState::NeedsYou, "near its limit", used),
                    (false, false) => (RowState::Done, "in use", used),
                }
            }
        };
        Self {
            action,
            state: row,
            word,
            sentence,
            read: key.filter(|_| stored).and_then(|key| key.read_at).map(moment),
            expires: key.filter(|_| stored).and_then(|key| key.expires_at).map(moment),
            trouble: key.and_then(|key| key.trouble.clone()),
            notes: Vec::new(),
            limit: limit.trim_start_matches('$').to_owned(),
            stored,
            disabled,
            can_make: matches!(state, KeyState::Failed | KeyState::Deleted),
            can_consult: false,
            ask_password: true,
        }
    }
}
