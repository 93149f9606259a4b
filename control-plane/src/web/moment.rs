//! A time as people read it: "3 minutes ago", with the exact one on hover. `console.js` keeps the words up to date by the
//! same rules; change them together.

use std::fmt;

use askama::filters::HtmlSafe;
use shared::time::Timestamp;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const EXACT: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:short] [year] [hour]:[minute]:[second] UTC");
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[day padding:none] [month repr:short] [year]");

/// A time and the time at which the page is made. Renders as `<time>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Timestamp,
    pub now: Timestamp,
}

impl Moment {
    /// "3 minutes ago", "in 2 hours"; the date when that is more than 30 days away.
    pub fn words(self) -> String {
        let (past, future) = (self.now.since(self.at).as_secs(), self.at.since(self.now).as_secs());
        let seconds = past.max(future);
        let (number, unit) = match seconds {
            0..5 => return "just now".to_owned(),
            5..60 => (seconds, "second"),
            60..3_600 => (seconds / 60, "minute"),
            3_600..86_400 => (seconds / 3_600, "hour"),
            86_400..2_592_000 => (seconds / 86_400, "day"),
            _ => return written(self.at.to_datetime(), DAY),
        };
        let plural = if number == 1 { "" } else { "s" };
        if future > past {
            format!("in {number} {unit}{plural}")
        } else {
            format!("{number} {unit}{plural} ago")
        }
    }

    /// "25 Nov 2026", also when that was a minute ago: for what is read later, on paper.
    pub fn day(self) -> String {
        written(self.at.to_datetime(), DAY)
    }

    /// "25 Nov 2026 09:31:12 UTC"
    pub fn exact(self) -> String {
        written(self.at.to_datetime(), EXACT)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"<time datetime="{}" title="{}">{}</time>"#,
            self.at.rfc3339(),
            self.exact(),
            self.words()
        )
    }
}

impl HtmlSafe for Moment {}

fn written(at: OffsetDateTime, format: &[BorrowedFormatItem<'_>]) -> String {
    at.format(format).unwrap_or_else(|_| at.unix_timestamp().to_string())
}
