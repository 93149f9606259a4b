//! What `board doctor` and `board-agent doctor` answer: a line for each check with what was seen and what to do about it.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, or may work, and somebody should look.
    Warning,
    /// It stands in the way.
    Problem,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    pub saw: String,
    /// What to do. None when there is nothing to do.
    pub advice: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, saw: impl Into<String>) -> Self {
        Self { check, state: State::Ok, saw: saw.into(), advice: None }
    }

    pub fn warning(check: &'static str, saw: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Warning, saw: saw.into(), advice: Some(advice.into()) }
    }

    pub fn problem(check: &'static str, saw: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Problem, saw: saw.into(), advice: Some(advice.into()) }
    }
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn count(&self, state: State) -> usize {
        self.findings.iter().filter(|finding| finding.state == state).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: usize = 9 + 16;
        for finding in &self.findings {
            let state = match finding.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Problem => "problem",
            };
            writeln!(f, "{state:<9}{:<16}{}", finding.check, finding.saw)?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "{:ADVICE$}{advice}", "")?;
            }
        }
        let counted = |count: usize, what: &str| match count {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        writeln!(
            f,
            "\n{}, {}",
            counted(self.count(State::Problem), "problem"),
            counted(self.count(State::Warning), "warning")
        )
    }
}
