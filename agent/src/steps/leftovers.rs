//! Processes of an attempt that outlived the agent which started them, or left the group that was ended. Two of the
//! same step at once would spoil both.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::ids::AttemptId;
use tokio::time::Instant;

use crate::platform;

const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Ends them; what must not be killed is waited for.
pub async fn settle(attempt: AttemptId, cancellable: bool, timeout: Duration) {
    let attempt = attempt.to_string();
    if !cancellable {
        gone_within(&attempt, timeout).await;
        return;
    }
    if signal(&attempt, Signal::SIGTERM) && !gone_within(&attempt, GRACE).await {
        signal(&attempt, Signal::SIGKILL);
        gone_within(&attempt, GRACE).await;
    }
}

/// Whether there were any.
fn signal(attempt: &str, signal: Signal) -> bool {
    let pids = find(attempt);
    for pid in &pids {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    !pids.is_empty()
}

async fn gone_within(attempt: &str, span: Duration) -> bool {
    let until = Instant::now() + span;
    while !find(attempt).is_empty() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

fn find(attempt: &str) -> Vec<i32> {
    platform::processes_of_attempt(attempt).unwrap_or_else(|error| {
        tracing::warn!(%error, "what an attempt left behind can't be looked for");
        Vec::new()
    })
}
