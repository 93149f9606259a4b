//! The six states that anything on a page can be in. Each has a colour, a glyph and a word, so that none of them has to
//! be told by colour alone.

use askama::Template;
use askama::filters::HtmlSafe;

use super::Icon;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    Done,
    Running,
    NeedsYou,
    Waiting,
    Failed,
    Off,
}

impl RowState {
    /// Its symbol in `icons.svg`.
    pub fn glyph(self) -> Icon {
        Icon(match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::NeedsYou => "needs",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Off => "off",
        })
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::NeedsYou => "needs you",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Off => "off",
        }
    }

    pub fn class(self) -> &'static str {
        match self {
            Self::Done => "is-done",
            Self::Running => "is-running",
            Self::NeedsYou => "is-needs",
            Self::Waiting => "is-waiting",
            Self::Failed => "is-failed",
            Self::Off => "is-off",
        }
    }

    /// The state with its own word.
    pub fn badge(self) -> Badge<'static> {
        Badge { state: self, word: self.word() }
    }

    /// The state with a word that fits the place better, such as "approved".
    pub fn called(self, word: &str) -> Badge<'_> {
        Badge { state: self, word }
    }
}

/// Glyph and word in the state's colour.
#[derive(Template)]
#[template(
    source = r#"<span class="state {{ state.class() }}">{{ state.glyph() }}<span>{{ word }}</span></span>"#,
    ext = "html"
)]
pub struct Badge<'a> {
    state: RowState,
    word: &'a str,
}

impl HtmlSafe for Badge<'_> {}
