//! `board-agent leave`: asked by root.

use serde::{Deserialize, Serialize};
use shared::protocol::wipe::WipedSlot;
use tokio::sync::oneshot;

use super::{Answer, Broker};

/// For the daemon.
pub enum LeaveAsked {
    /// Whether the board could be told.
    Board {
        pasted: bool,
        sent: oneshot::Sender<bool>,
    },
    End,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiped {
    pub removed: Vec<WipedSlot>,
    pub left: Vec<WipedSlot>,
    /// The board has the receipt.
    pub acknowledged: bool,
}

impl Broker {
    pub(super) async fn leave(&self, pasted: bool) -> Answer {
        let (sent, answer) = oneshot::channel();
        let asked = self.leaves.send(LeaveAsked::Board { pasted, sent }).await;
        match (asked, answer.await) {
            (Ok(()), Ok(true)) => Answer::Done,
            (Ok(()), Ok(false)) => Answer::refused(
                "there is no link to the board, so it can't be told. Nothing was changed. Try again, or see what stands in \
                 the way with `board-agent doctor`; `board-agent leave --offline` leaves without the board",
            ),
            (Err(_), _) | (_, Err(_)) => Answer::refused("the agent is stopping; nothing was changed"),
        }
    }

    pub(super) fn wiped(&self) -> Answer {
        let wiped = self.journal.wipe().and_then(|begun| {
            let Some((begun, receipt)) =
                begun.and_then(|begun| begun.receipt.clone().map(|receipt| (begun, receipt)))
            else {
                return Ok(None);
            };
            let acknowledged = !self.journal.is_waiting(receipt.id)?;
            Ok(Some(Wiped { removed: begun.removed, left: begun.left, acknowledged }))
        });
        wiped.map_or_else(|error| Answer::refused(error.to_string()), Answer::Wiped)
    }

    pub(super) async fn end(&self) -> Answer {
        match self.leaves.send(LeaveAsked::End).await {
            Ok(()) => Answer::Done,
            Err(_) => Answer::refused("the agent is stopping"),
        }
    }
}
