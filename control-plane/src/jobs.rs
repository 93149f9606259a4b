//! Wake-ups between features: something changed, look at the database. They carry ids only, and losing one is
//! harmless, because whoever waits looks again by itself.

use shared::ids::{ClientId, DeviceId, EnrollmentId};
use tokio::sync::broadcast;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// An enrollment was asked for, decided or finished.
    Enrollment(EnrollmentId),
    /// A device began or ceased to wait for a consultant's word: quarantine, a late renewal.
    Decisions,
    /// A second person was asked for, or decided.
    Approvals,
    /// Something of this client changed: devices, secrets, scope.
    Client(ClientId),
    /// This client's engagement ended: provider keys of ours are to be disabled. Whoever has some also looks for ended
    /// engagements by themselves.
    EngagementEnded(ClientId),
    /// There may be something to push to this device, or to show of it.
    Device(DeviceId),
}

#[derive(Clone, Debug)]
pub struct Jobs(broadcast::Sender<Wake>);

impl Default for Jobs {
    fn default() -> Self {
        Self(broadcast::channel(1024).0)
    }
}

impl Jobs {
    pub fn wake(&self, wake: Wake) {
        // Nobody listening is fine.
        let _ = self.0.send(wake);
    }

    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Wake>);

impl Listener {
    /// Waits for a wake-up that `wanted` accepts. A listener that fell behind is woken too: it may have missed one.
    /// Pending forever once the board shuts down.
    pub async fn next(&mut self, wanted: impl Fn(Wake) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(wake) if wanted(wake) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
