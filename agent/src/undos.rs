//! How often a board may take back what it set up: one undo an hour. Another one within the hour wants a word from somebody
//! at this device, `board-agent allow-undo`: a board that somebody took over can't clear the machine by itself.
//!
//! The hour is this device's own, never the board's time. A clock that was set back makes it longer, not shorter.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::time::Timestamp;

use crate::config::{ConfigError, Paths, load_json, save_json};

const HOUR: Duration = Duration::from_secs(3600);
/// How long the word of somebody at the device holds.
pub const ALLOWED_FOR: Duration = Duration::from_secs(900);

/// When undos began on this device, oldest first; kept in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun(Vec<Timestamp>);

impl Begun {
    #[must_use]
    pub fn and(&self, now: Timestamp) -> Self {
        let recent = self.0.iter().copied().filter(|at| is_recent(*at, now));
        Self(recent.chain([now]).collect())
    }

    pub fn any_within_the_hour(&self, now: Timestamp) -> bool {
        self.0.iter().any(|at| is_recent(*at, now))
    }
}

/// Also one that lies in the future: the clock was set back since.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at > now || now.since(at) < HOUR
}

/// Somebody at the device wants this step undone, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    pub component: String,
    pub step: String,
    pub at: Timestamp,
}

impl Allowed {
    /// Written by `board-agent allow-undo`, which can be run only by whoever owns the data folder.
    pub fn save(&self, paths: &Paths) -> Result<(), ConfigError> {
        save_json(&paths.undo_allowed(), self)
    }

    /// What nobody can read allows nothing.
    fn load(path: &Path) -> Option<Self> {
        load_json(path).inspect_err(|error| tracing::warn!(%error, "nobody allowed an undo")).ok().flatten()
    }
}

/// What an undo that is offered now may count on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Right {
    /// None began within the hour.
    Free,
    Only(Allowed),
    #[default]
    None,
}

impl Right {
    pub fn now(begun: &Begun, paths: &Paths, now: Timestamp) -> Self {
        if !begun.any_within_the_hour(now) {
            return Self::Free;
        }
        let fresh = |allowed: &Allowed| allowed.at <= now && now.since(allowed.at) < ALLOWED_FOR;
        Allowed::load(&paths.undo_allowed()).filter(fresh).map_or(Self::None, Self::Only)
    }

    pub fn allows(&self, component: &str, step: &str) -> bool {
        match self {
            Self::Free => true,
            Self::Only(allowed) => allowed.component == component && allowed.step == step,
            Self::None => false,
        }
    }
}

/// What the refusal says, on the page and in the log.
pub fn wants_a_person(component: &str, step: &str) -> String {
    format!(
        "another undo began within the hour, so this device wants a word from somebody at it: run `sudo board-agent \
         allow-undo {component}/{step}` there, then ask again within {} minutes",
        ALLOWED_FOR.as_secs() / 60
    )
}

/// The word is used up.
pub fn forget_allowed(paths: &Paths) {
    if let Err(error) = std::fs::remove_file(paths.undo_allowed())
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::error!(%error, "the word that allowed an undo can't be taken away; it ends by itself");
    }
}

#[cfg(test)]
mod tests {
    use shared::time::{Clock as _, SystemClock};

    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        (folder, paths)
    }

    fn allowed(at: Timestamp) -> Allowed {
        Allowed { component: "tool".to_owned(), step: "install".to_owned(), at }
    }

    #[test]
    fn the_first_in_an_hour_is_free_and_the_second_wants_a_word_for_that_step() {
        let (_folder, paths) = paths();
        let start = SystemClock.now();
        assert_eq!(Right::now(&Begun::default(), &paths, start), Right::Free);
        let begun = Begun::default().and(start);
        let later = start.after(Duration::from_secs(3599));
        assert_eq!(Right::now(&begun, &paths, later), Right::None);
        assert!(!Right::None.allows("tool", "install"));

        allowed(later).save(&paths).unwrap();
        let right = Right::now(&begun, &paths, later);
        assert!(
            right.allows("tool", "install")
                && !right.allows("tool", "other")
                && !right.allows("other", "install")
        );
        forget_allowed(&paths);
        assert_eq!(Right::now(&begun, &paths, later), Right::None);
        assert_eq!(Right::now(&begun, &paths, start.after(HOUR)), Right::Free);
    }

    #[test]
    fn an_old_word_one_of_the_future_and_a_broken_one_allow_nothing() {
        let (_folder, paths) = paths();
        let start = SystemClock.now();
        let begun = Begun::default().and(start);
        let now = start.after(ALLOWED_FOR);
        for at in [start, now.after(Duration::from_secs(1))] {
            allowed(at).save(&paths).unwrap();
            assert_eq!(Right::now(&begun, &paths, now), Right::None);
        }
        std::fs::write(paths.undo_allowed(), "{").unwrap();
        assert_eq!(Right::now(&begun, &paths, now), Right::None);
    }

    #[test]
    fn a_clock_set_back_makes_the_hour_longer() {
        let (_folder, paths) = paths();
        let start = SystemClock.now();
        let begun = Begun::default().and(start.after(Duration::from_secs(86_400)));
        assert_eq!(Right::now(&begun, &paths, start), Right::None);
        assert!(begun.and(start).any_within_the_hour(start));
    }
}
