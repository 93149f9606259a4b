//! Processes of an attempt that outlived the agent which started them, or left the group that was ended. Two of the
//! same step at once would spoil both.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::platform::{Mark, PlatformError};

const GRACE: Duration = Duration::from_secs(5);
/// Between two looks: a look starts programs on some systems, so it comes less and less often.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What became of them.
#[derive(Debug)]
pub enum Settled {
    Gone,
    Running(Vec<i32>),
    Unknown(PlatformError),
}

impl Settled {
    /// Why the step can't run once more, in words. Nothing when it can.
    pub fn in_the_way(&self) -> Option<String> {
        match self {
            Self::Gone => None,
            Self::Running(pids) => {
                let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
                Some(format!("something that it started still runs (process {})", pids.join(", ")))
            }
            Self::Unknown(error) => Some(format!("whether something that it started still runs: {error}")),
        }
    }
}

/// Ends them; what must not be killed is waited for.
pub async fn settle(mark: &Mark, cancellable: bool, timeout: Duration) -> Settled {
    let settled = match cancellable {
        true => end(mark).await,
        false => gone_within(mark, timeout).await,
    };
    settled.unwrap_or_else(|error| {
        tracing::warn!(%error, "what an attempt left behind can't be looked for");
        Settled::Unknown(error)
    })
}

async fn end(mark: &Mark) -> Result<Settled, PlatformError> {
    signal(mark, Signal::SIGTERM).await?;
    let settled = gone_within(mark, GRACE).await?;
    if matches!(settled, Settled::Gone) {
        return Ok(settled);
    }
    signal(mark, Signal::SIGKILL).await?;
    gone_within(mark, GRACE).await
}

async fn signal(mark: &Mark, signal: Signal) -> Result<(), PlatformError> {
    for pid in find(mark).await? {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    Ok(())
}

async fn gone_within(mark: &Mark, span: Duration) -> Result<Settled, PlatformError> {
    let until = Instant::now() + span;
    let mut wait = FIRST_WAIT;
    loop {
        let pids = find(mark).await?;
        if pids.is_empty() {
            return Ok(Settled::Gone);
        }
        if Instant::now() >= until {
            return Ok(Settled::Running(pids));
        }
        tokio::time::sleep_until((Instant::now() + wait).min(until)).await;
        wait = (wait * 3 / 2).min(LONGEST_WAIT);
    }
}

async fn find(mark: &Mark) -> Result<Vec<i32>, PlatformError> {
    let mark = mark.clone();
    tokio::task::spawn_blocking(move || mark.processes()).await.unwrap_or_else(|error| {
        Err(PlatformError::Unknown { what: "the list of processes", error: std::io::Error::other(error) })
    })
}
