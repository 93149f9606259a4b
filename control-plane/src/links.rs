//! Which devices are on, on this board: their open links. The newest link of a device replaces the older one at once.
//! And the way of a sealed paste to an open link: through memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shared::ids::DeviceId;
use shared::protocol::link::Paste;
use shared::time::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot};

/// Pastes that may wait for one link: people send them one by one.
const PASTES: usize = 4;

#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: HashMap<DeviceId, Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since: Timestamp,
    replaced: Arc<Notify>,
    pastes: mpsc::Sender<Relayed>,
}

/// A sealed paste on its way to a device, and who waits for the device's word: `Err` has its reason. Dropped without
/// one when the link ends first.
#[derive(Debug)]
pub struct Relayed {
    pub paste: Paste,
    pub answer: oneshot::Sender<Result<(), String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRelayed {
    /// The device is off.
    Off,
    /// Too many wait already.
    Busy,
}

/// An open link. Dropping it says that the device is off, unless a newer link took over.
#[derive(Debug)]
pub struct OpenLink {
    links: Links,
    device_id: DeviceId,
    number: u64,
    /// Told when a newer link of the same device was opened.
    pub replaced: Arc<Notify>,
    pub pastes: mpsc::Receiver<Relayed>,
}

impl Links {
    pub fn open(&self, device_id: DeviceId, now: Timestamp) -> OpenLink {
        let replaced = Arc::new(Notify::new());
        let (sender, pastes) = mpsc::channel(PASTES);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.next += 1;
        let number = state.next;
        let entry = Entry { number, since: now, replaced: Arc::clone(&replaced), pastes: sender };
        if let Some(older) = state.open.insert(device_id, entry) {
            older.replaced.notify_one();
        }
        OpenLink { links: self.clone(), device_id, number, replaced, pastes }
    }

    /// Hands a paste to the device's link, which passes it on at once.
    pub fn relay(
        &self,
        device_id: DeviceId,
        paste: Paste,
    ) -> Result<oneshot::Receiver<Result<(), String>>, NotRelayed> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = state.open.get(&device_id).ok_or(NotRelayed::Off)?;
        let (answer, word) = oneshot::channel();
        entry.pastes.try_send(Relayed { paste, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotRelayed::Busy,
            mpsc::error::TrySendError::Closed(_) => NotRelayed::Off,
        })?;
        Ok(word)
    }

    /// Since when the device has been on.
    pub fn since(&self, device_id: DeviceId) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open.get(&device_id).map(|entry| entry.since)
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        let mut state = self.links.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.open.get(&self.device_id).is_some_and(|entry| entry.number == self.number) {
            state.open.remove(&self.device_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::random::SystemRandom;
    use shared::time::{Clock as _, SystemClock};

    use shared::ids::DeliveryId;

    use super::{DeviceId, Links, NotRelayed, PASTES, Paste};

    fn paste() -> Paste {
        Paste {
            delivery_id: DeliveryId::new(&SystemClock, &SystemRandom),
            component: "tool".into(),
            slot: "KEY".into(),
            expires: SystemClock.now(),
            sealed: vec![7; 60],
        }
    }

    #[tokio::test]
    async fn a_paste_reaches_the_newest_link_and_waits_nowhere_else() {
        let links = Links::default();
        let device = DeviceId::new(&SystemClock, &SystemRandom);
        assert_eq!(links.relay(device, paste()).unwrap_err(), NotRelayed::Off);
        let mut older = links.open(device, SystemClock.now());
        let mut newer = links.open(device, SystemClock.now());
        let word = links.relay(device, paste()).unwrap();
        assert!(older.pastes.try_recv().is_err());
        newer.pastes.recv().await.unwrap().answer.send(Err("no".into())).unwrap();
        assert_eq!(word.await.unwrap(), Err("no".into()));
        let waiting: Vec<_> = (0..PASTES).map(|_| links.relay(device, paste()).unwrap()).collect();
        assert_eq!(links.relay(device, paste()).unwrap_err(), NotRelayed::Busy);
        drop(newer);
        for word in waiting {
            assert!(word.await.is_err(), "the link ended: nobody says anything");
        }
    }

    #[tokio::test]
    async fn the_newest_link_replaces_the_older_and_stays_open() {
        let links = Links::default();
        let device = DeviceId::new(&SystemClock, &SystemRandom);
        let first = links.open(device, SystemClock.now());
        let second = links.open(device, SystemClock.now());
        first.replaced.notified().await;
        drop(first);
        assert!(links.since(device).is_some(), "the older link's end doesn't say off");
        drop(second);
        assert!(links.since(device).is_none());
    }
}
