//! Processes of an attempt that outlived the agent which started them, or left the group that was ended. Two of the
//! same step at once would spoil both.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::platform::Mark;

const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Ends them; what must not be killed is waited for.
pub async fn settle(mark: &Mark, cancellable: bool, timeout: Duration) {
    if !cancellable {
        gone_within(mark, timeout).await;
        return;
    }
    if signal(mark, Signal::SIGTERM) && !gone_within(mark, GRACE).await {
        signal(mark, Signal::SIGKILL);
        gone_within(mark, GRACE).await;
    }
}

/// Whether there were any.
fn signal(mark: &Mark, signal: Signal) -> bool {
    let pids = find(mark);
    for pid in &pids {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    !pids.is_empty()
}

async fn gone_within(mark: &Mark, span: Duration) -> bool {
    let until = Instant::now() + span;
    while !find(mark).is_empty() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

fn find(mark: &Mark) -> Vec<i32> {
    mark.processes().unwrap_or_else(|error| {
        tracing::warn!(%error, "what an attempt left behind can't be looked for");
        Vec::new()
    })
}
