//! How many connections one address may have open beside the links: who opens many doors at once keeps nobody else out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Debug)]
pub struct Doors {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, Address>>>,
}

#[derive(Debug, Default)]
struct Address {
    open: usize,
    /// Refusals of an address are told once, until all its connections ended.
    told: bool,
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub struct Door {
    address: IpAddr,
    doors: Doors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Whether this is the first refusal in a row.
    pub first: bool,
}

impl Doors {
    /// At most `most` connections of one address; of IPv6, of one network of 64 bits, which is one subscriber's.
    pub fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    pub fn enter(&self, address: IpAddr) -> Result<Door, TooMany> {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = open.entry(address).or_default();
        if entry.open >= self.most {
            return Err(TooMany { first: !std::mem::replace(&mut entry.told, true) });
        }
        entry.open += 1;
        drop(open);
        Ok(Door { address, doors: self.clone() })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut open = self.doors.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get_mut(&self.address) {
            entry.open -= 1;
            if entry.open == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Doors, TooMany};

    #[test]
    fn each_address_has_its_own_doors_and_a_refusal_is_told_once() {
        let doors = Doors::new(2);
        let first = doors.enter("192.0.2.1".parse().unwrap()).unwrap();
        let mapped = doors.enter("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        let again = |first| doors.enter("192.0.2.1".parse().unwrap()).err() == Some(TooMany { first });
        assert!(again(true) && again(false) && again(false));
        doors.enter("192.0.2.2".parse().unwrap()).unwrap();
        drop(first);
        let second = doors.enter("192.0.2.1".parse().unwrap()).unwrap();
        assert!(again(false), "still the same crowd");
        drop((mapped, second));
        assert!(doors.open.lock().unwrap().is_empty(), "nothing is kept of who left");

        let network = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"];
        let entered: Vec<_> = network.iter().map(|address| doors.enter(address.parse().unwrap())).collect();
        assert_eq!(entered.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
    }
}
