//! Why something isn't done, and whether that may change by itself.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For a person; it never shows anything of a value.
    pub reason: String,
    /// It may go well another time: nothing was found wrong with the step or the secret itself.
    pub passing: bool,
}

impl Refusal {
    pub fn verdict(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passing: false }
    }

    pub fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passing: true }
    }
}
