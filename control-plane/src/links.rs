//! Which devices are on, on this board: their open links. The newest link of a device replaces the older one at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shared::ids::DeviceId;
use shared::time::Timestamp;
use tokio::sync::Notify;

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
}

/// An open link. Dropping it says that the device is off, unless a newer link took over.
#[derive(Debug)]
pub struct OpenLink {
    links: Links,
    device_id: DeviceId,
    number: u64,
    /// Told when a newer link of the same device was opened.
    pub replaced: Arc<Notify>,
}

impl Links {
    pub fn open(&self, device_id: DeviceId, now: Timestamp) -> OpenLink {
        let replaced = Arc::new(Notify::new());
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.next += 1;
        let number = state.next;
        let entry = Entry { number, since: now, replaced: Arc::clone(&replaced) };
        if let Some(older) = state.open.insert(device_id, entry) {
            older.replaced.notify_one();
        }
        OpenLink { links: self.clone(), device_id, number, replaced }
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

    use super::{DeviceId, Links};

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
