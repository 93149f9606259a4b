//! What the unattended demo found, as JSON and as text.

use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub struct Report {
    /// Whether the device itself has what the scope wants, and every check held.
    pub ok: bool,
    pub seconds: f64,
    pub steps: Vec<StepFigures>,
    pub board_memory_kib: Option<u64>,
    pub agent_memory_kib: Option<u64>,
    pub bytes_to_board: u64,
    pub bytes_to_agent: u64,
    pub checks: Vec<Check>,
    /// What the device answered when it was asked afterwards.
    pub inventory: Value,
}

#[derive(Serialize)]
pub struct StepFigures {
    pub step: String,
    pub outcome: String,
    pub milliseconds: Option<u64>,
    pub push_to_run_milliseconds: Option<u64>,
}

#[derive(Serialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub saw: String,
}

impl Report {
    pub fn text(&self) -> String {
        let mut text = String::from("\nSteps\n");
        for step in &self.steps {
            let seconds = step.milliseconds.map_or("-".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
            let push = step.push_to_run_milliseconds.map_or("-".into(), |ms| format!("{ms} ms"));
            text += &format!("  {:<28} {:<12} {seconds:>8}   push to run {push}\n", step.step, step.outcome);
        }
        let memory =
            |kib: Option<u64>| kib.map_or("unknown".into(), |kib| format!("{:.1} MiB", kib as f64 / 1024.0));
        text += &format!(
            "Memory    board {}, agent {} (resident, debug build)\nOn the wire  {} bytes to the board, {} to the agent\n",
            memory(self.board_memory_kib),
            memory(self.agent_memory_kib),
            self.bytes_to_board,
            self.bytes_to_agent
        );
        text += "Checks\n";
        for check in &self.checks {
            text += &format!("  {}  {}: {}\n", if check.ok { "ok  " } else { "FAIL" }, check.name, check.saw);
        }
        let verdict = if self.ok {
            "The device has what the scope wants."
        } else {
            "The device does NOT have what the scope wants."
        };
        text + &format!("{verdict} {:.1} s in all.\n", self.seconds)
    }
}
