//! Walking the chain: the same for the database, for an export, and for the part that was added since the last walk.

use std::collections::BTreeMap;

use shared::crypto::{ByteString, sha256};
use shared::protocol::link::Head;

/// One entry as the chain sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub seq: u64,
    pub epoch: u64,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
    /// The exact bytes that are hashed.
    pub canonical: String,
}

impl Link {
    fn fits_its_hash(&self) -> bool {
        self.hash == entry_hash(self.epoch, self.seq, &self.previous, &self.canonical)
    }
}

/// The first entry that doesn't fit, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    pub seq: u64,
    pub why: &'static str,
}

/// How far a chain was walked, with what has to be known to walk on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub last: Head,
    /// Last entry of each epoch.
    ends: BTreeMap<u64, u64>,
    /// Sequence numbers whose epoch and hash are remembered, for comparing with heads.
    wanted: BTreeMap<u64, Option<(u64, Vec<u8>)>>,
    /// The first entry, when the walk began in the middle.
    began: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self::remembering([])
    }
}

impl Walk {
    /// From the first entry; the places of these heads are remembered on the way.
    pub fn remembering<'a>(heads: impl IntoIterator<Item = &'a Head>) -> Self {
        Self {
            last: Head { epoch: 1, seq: 0, hash: vec![0; 32] },
            ends: BTreeMap::new(),
            wanted: heads.into_iter().map(|head| (head.seq, None)).collect(),
            began: 1,
        }
    }

    /// From the middle of a chain: what comes before `first` is not known.
    pub fn from_the_middle(&mut self, first: &Link) {
        self.began = first.seq;
        self.last =
            Head { epoch: first.epoch, seq: first.seq.saturating_sub(1), hash: first.previous.clone() };
    }

    pub fn began(&self) -> u64 {
        self.began
    }

    pub fn step(&mut self, link: Link) -> Result<(), Break> {
        let why = if link.seq != self.last.seq + 1 {
            Some("an entry is missing before it")
        } else if link.previous != self.last.hash {
            Some("it doesn't point at the entry before it")
        } else if !link.fits_its_hash() {
            Some("its content doesn't fit its hash")
        } else if link.epoch < self.last.epoch || link.epoch > self.last.epoch + 1 {
            Some("its epoch doesn't follow the one before it")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(Break { seq: link.seq, why });
        }
        self.ends.insert(link.epoch, link.seq);
        if let Some(found) = self.wanted.get_mut(&link.seq) {
            *found = Some((link.epoch, link.hash.clone()));
        }
        self.last = Head { epoch: link.epoch, seq: link.seq, hash: link.hash };
        Ok(())
    }

    /// How a head that somebody was told stands to what was walked.
    pub fn standing(&self, head: &Head) -> Standing {
        if head.seq < self.began && head.seq > 0 {
            return Standing::Before;
        }
        let held = self.wanted.get(&head.seq).and_then(Option::as_ref);
        let end = self.ends.range(..=head.epoch).next_back().map_or(self.began - 1, |(_, seq)| *seq);
        Standing::of(head, held, &self.last, end)
    }
}

/// How a head that somebody was told stands to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The log holds this entry with this hash.
    Fits,
    /// The log holds another entry at its place.
    Other,
    /// The log ends before it.
    Beyond,
    /// It lies behind the end of its epoch: a restore began the next one without it.
    Dropped,
    /// The export begins after it.
    Before,
}

impl Standing {
    /// `held` is what the log has at the head's place, `last` its end, `end` the last entry of the head's epoch.
    pub fn of(head: &Head, held: Option<&(u64, Vec<u8>)>, last: &Head, end: u64) -> Self {
        if head.seq == 0 || held.is_some_and(|(epoch, hash)| *epoch == head.epoch && *hash == head.hash) {
            Self::Fits
        } else if head.epoch < last.epoch && head.seq > end {
            Self::Dropped
        } else if held.is_none() {
            Self::Beyond
        } else {
            Self::Other
        }
    }
}

/// `SHA-256("board/audit/v1" ‖ epoch ‖ seq ‖ previous hash ‖ canonical)`.
pub fn entry_hash(epoch: u64, seq: u64, previous: &[u8], canonical: &str) -> [u8; 32] {
    let bytes = ByteString::labelled("board/audit/v1")
        .u64(epoch)
        .u64(seq)
        .part(previous)
        .part(canonical.as_bytes())
        .finish();
    sha256(&bytes)
}
