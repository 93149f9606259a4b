//! What a device remembers of the board's audit log, so that a log that was rewritten can be found out.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::protocol::link::Head;
use shared::time::Timestamp;

/// The newest heads are all kept; they come once a minute at most.
const NEWEST: usize = 120;
/// Of older ones the first of each day, so that a board can't push out what it said by saying more.
const DAYS: usize = 120;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One head, and when this device was told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    #[serde(flatten)]
    pub head: Head,
    /// By the device's clock.
    pub at: Timestamp,
}

/// Forgets what is over the bounds; `heads` begins with the oldest.
pub(super) fn thin(heads: &mut Vec<Told>) {
    let newest = heads.split_off(heads.len().saturating_sub(NEWEST));
    let mut last: Option<Timestamp> = None;
    heads.retain(|told| {
        let keep = last.is_none_or(|last| told.at.since(last) >= DAY);
        if keep {
            last = Some(told.at);
        }
        keep
    });
    heads.drain(..heads.len().saturating_sub(DAYS));
    heads.extend(newest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seq: u64, minutes: u64) -> Told {
        let at = Timestamp::from_micros(0).after(Duration::from_secs(60 * minutes));
        Told { head: Head { epoch: 1, seq, hash: vec![0; 32] }, at }
    }

    #[test]
    fn the_newest_stay_and_of_older_ones_one_a_day() {
        let mut heads = Vec::new();
        let year = 365 * 24 * 60;
        for seq in 0..year {
            heads.push(told(seq, seq));
            thin(&mut heads);
        }
        assert!(heads.len() <= NEWEST + DAYS, "{}", heads.len());
        assert!(heads.is_sorted_by_key(|told| told.head.seq));
        let newest: Vec<_> = heads.iter().rev().take(NEWEST).map(|told| told.head.seq).collect();
        assert_eq!(newest, (0..NEWEST as u64).map(|n| year - 1 - n).collect::<Vec<_>>());
        assert!(heads[0].at.since(Timestamp::from_micros(0)) < DAY * 260, "months are covered");
    }

    #[test]
    fn a_flood_within_one_day_pushes_out_no_older_day() {
        let mut heads: Vec<_> = (0..30).map(|day| told(day, day * 24 * 60)).collect();
        for seq in 0..5000 {
            heads.push(told(100 + seq, 30 * 24 * 60));
            thin(&mut heads);
        }
        assert_eq!(heads.iter().filter(|told| told.head.seq < 30).count(), 30);
    }
}
