//! The page for the client: in plain words, which Macs they have, where each of their secrets is, who can open what, and
//! what happens at the end. [`gather`] reads what is stored, [`Statement::of`] says it; nothing is opened for it, and no
//! value comes near it.
//!
//! Its reader is no technician: short sentences, no word that the page doesn't explain. What the board doesn't know for
//! certain isn't said as if it did.

mod gather;
mod ours;
#[cfg(test)]
mod tests;
mod theirs;
pub mod views;
pub mod web;

use std::collections::{BTreeMap, BTreeSet};

use shared::crypto::hex;
use shared::ids::{DeviceId, SlotId};
use shared::protocol::inventory::SlotState;
use shared::protocol::link::Head;
use shared::time::Timestamp;

pub use gather::gather;

use crate::audit::{Actor, Latest, Who};
use crate::catalog::AnySlot;
use crate::clients::Client;
use crate::clients::engagement::{Engagement, EngagementState};
use crate::enrollment::{Device, DeviceState};
use crate::inventory::InstalledSlot;
use crate::secrets::{Delivery, Spread, StoredSecret};
use crate::web::{Moment, count};

/// What is stored about a client's secrets, without any value.
pub struct Known {
    pub now: Timestamp,
    pub client: Client,
    pub engagement: Engagement,
    /// Also those whose enrollment ended.
    pub devices: Vec<Device>,
    /// Devices that are on.
    pub on: BTreeSet<DeviceId>,
    /// The slots in scope.
    pub slots: Vec<AnySlot>,
    /// Slots that aren't in scope, and that the board or a device still has something of.
    pub former: Vec<AnySlot>,
    pub stored: Vec<StoredSecret>,
    /// The newest of each slot and device.
    pub deliveries: Vec<Delivery>,
    pub spread: Vec<Spread>,
    /// What devices say of their slots.
    pub reported: Vec<InstalledSlot>,
    pub log: Log,
    /// Names of components, by their keys.
    pub components: BTreeMap<String, String>,
}

/// What the audit log has of it.
pub struct Log {
    pub head: Head,
    /// Somebody was told of an entry that the log doesn't hold.
    pub is_doubted: bool,
    pub enrolled: Vec<Latest>,
    /// With whether the client's own secrets were to be taken away too.
    pub leaving: Vec<Latest>,
    pub wiped: Vec<Latest>,
    pub revoked: Vec<Latest>,
    pub stored: Vec<Latest>,
    pub copied: Vec<Latest>,
    pub pastes_relayed: Vec<Latest>,
    pub pastes_answered: Vec<Latest>,
}

/// The page's sentences.
#[derive(Debug)]
pub struct Statement {
    pub summary: String,
    pub macs: Vec<Line>,
    pub theirs: Vec<Told>,
    pub ours: Vec<Told>,
    /// Not part of the client's scope any more.
    pub former: Vec<Told>,
    pub end: String,
    pub check: Check,
}

/// What is said of one Mac, or of several alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub macs: Vec<String>,
    pub words: String,
    /// What the Mac itself said, in its own words.
    pub said: Option<String>,
    /// Somebody has to do something about it.
    pub open: bool,
}

/// One secret.
#[derive(Debug)]
pub struct Told {
    pub component: String,
    pub name: String,
    /// Where it is kept when it isn't on a Mac.
    pub kept: String,
    /// The client's own place for it.
    pub vault: Option<String>,
    pub open: bool,
    pub macs: Vec<Line>,
    /// Who took it out of the board, for a secret of ours.
    pub taken: Option<Taken>,
}

#[derive(Debug)]
pub struct Taken {
    pub words: String,
    /// Why, in that person's own words.
    pub reason: Option<String>,
}

/// With what the page can be checked against the audit log.
#[derive(Debug)]
pub struct Check {
    pub epoch: u64,
    pub seq: u64,
    /// The beginning of the entry's hash, in groups of four.
    pub code: String,
    pub is_doubted: bool,
}

impl Statement {
    pub fn of(known: &Known) -> Self {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for slot in &known.slots {
            match slot {
                AnySlot::Ours(slot) => ours.push(ours::told(known, slot, true)),
                AnySlot::Theirs(slot) => theirs.push(theirs::told(known, slot, true)),
            }
        }
        let former = known.former.iter().map(|slot| match slot {
            AnySlot::Ours(slot) => ours::told(known, slot, false),
            AnySlot::Theirs(slot) => theirs::told(known, slot, false),
        });
        let former: Vec<Told> = former.collect();
        let macs: Vec<Line> = known.devices.iter().map(|device| known.mac(device)).collect();
        let open = theirs.iter().chain(&ours).chain(&former).map(Told::open).sum::<usize>()
            + macs.iter().filter(|line| line.open).count();
        Self {
            summary: summary(theirs.len(), ours.len(), open),
            macs,
            theirs,
            ours,
            former,
            end: end(known),
            check: Check {
                epoch: known.log.head.epoch,
                seq: known.log.head.seq,
                code: code(&known.log.head.hash),
                is_doubted: known.log.is_doubted,
            },
        }
    }
}

fn summary(theirs: usize, ours: usize, open: usize) -> String {
    let needs =
        |secrets: usize| format!("What we set up for you needs {}", count(secrets, "secret", "secrets"));
    let secrets = match (theirs, ours) {
        (0, 0) => "What we set up for you needs no secret.".to_owned(),
        (theirs, 0) => format!("{}, of your own.", needs(theirs)),
        (0, ours) => format!("{}, of ours.", needs(ours)),
        (theirs, ours) => format!("{}: {theirs} of your own and {ours} of ours.", needs(theirs + ours)),
    };
    match open {
        0 => secrets,
        1 => format!("{secrets} One thing is still open; it is marked below."),
        open => format!("{secrets} {open} things are still open; they are marked below."),
    }
}

fn end(known: &Known) -> String {
    let engagement = &known.engagement;
    let day = |at: Option<Timestamp>| at.map(|at| format!(" on {}", known.day(at))).unwrap_or_default();
    let ended = || format!("Our work for you ended{}.", day(engagement.ended_at));
    match engagement.state {
        EngagementState::Active => {
            let when = match engagement.purge_after_days {
                0 => "On the same day".to_owned(),
                days => format!("{} later", count(days, "day", "days")),
            };
            format!(
                "Your Macs clear away what we put on them and tell us so, and get nothing more from us. {when} our \
                 secrets for you and the key that locks them are erased on our board. Then give yourself new ones of \
                 your own, where you got them: only you can."
            )
        }
        EngagementState::Ending => format!(
            "{} Our secrets for you and the key that locks them are erased on our board{}.",
            ended(),
            day(engagement.purge_due_at)
        ),
        EngagementState::Held => format!(
            "{} Our secrets for you were to be erased{}, and that was put on hold. Ask us why.",
            ended(),
            day(engagement.purge_due_at)
        ),
        EngagementState::Purged => format!(
            "{} Our secrets for you and the key that locked them were erased on our board{}. They can't be opened any \
             more. Copies of the board's data that were made before end with their own time.",
            ended(),
            day(engagement.purged_at)
        ),
    }
}

/// The first 64 bits, as people compare them.
fn code(hash: &[u8]) -> String {
    let short = hex(hash.get(..8).unwrap_or(hash));
    let groups: Vec<&str> =
        short.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

impl Line {
    /// Macs of which the same is said stand together.
    fn together(lines: impl Iterator<Item = Self>) -> Vec<Self> {
        let mut together: Vec<Self> = Vec::new();
        for mut line in lines {
            let alike =
                |one: &&mut Self| one.words == line.words && one.said == line.said && one.open == line.open;
            match together.iter_mut().find(alike) {
                Some(one) => one.macs.append(&mut line.macs),
                None => together.push(line),
            }
        }
        together
    }
}

impl Told {
    /// How many things about it are open.
    fn open(&self) -> usize {
        usize::from(self.open) + self.macs.iter().filter(|line| line.open).count()
    }
}

impl Known {
    fn day(&self, at: Timestamp) -> String {
        Moment { at, now: self.now }.day()
    }

    fn component(&self, key: &str) -> String {
        self.components.get(key).cloned().unwrap_or_else(|| key.to_owned())
    }

    fn mac(&self, device: &Device) -> Line {
        let entry = |of: &[Latest]| {
            let own = of.iter().rev().find(|latest| latest.entry.device == Some(device.id));
            own.map(|latest| self.day(latest.entry.at))
        };
        let since = entry(&self.log.enrolled).map(|day| format!("With us since {day}. ")).unwrap_or_default();
        let (words, open) = match device.state {
            DeviceState::Approved => {
                ("We let it in, and it hasn't proved its keys yet. It can open nothing.".to_owned(), true)
            }
            DeviceState::Enrolled => (format!("{since}{}", self.seen(device)), false),
            DeviceState::Quarantined => (
                format!(
                    "{since}Stopped: it says it is another machine than the one we let in. It gets nothing until one of our \
                     consultants has looked at it."
                ),
                true,
            ),
            DeviceState::Leaving => (format!("{since}Leaving: it gets no secret any more."), true),
            DeviceState::Revoked => (
                match (entry(&self.log.wiped), entry(&self.log.revoked)) {
                    (Some(day), _) => {
                        format!(
                            "It cleared away what we put there, and confirmed that on {day}. It gets nothing more."
                        )
                    }
                    (None, Some(day)) => format!("Shut out on {day}. It gets nothing from us any more."),
                    (None, None) => "Shut out. It gets nothing from us any more.".to_owned(),
                },
                false,
            ),
        };
        let words = match device.dev && device.state != DeviceState::Revoked {
            true => format!("{words} It is a test: its secrets lie in files, not in the Mac's own keychain."),
            false => words,
        };
        Line {
            macs: vec![device.name.clone()],
            words,
            said: None,
            open: open || (device.dev && device.state == DeviceState::Enrolled),
        }
    }

    fn seen(&self, device: &Device) -> String {
        match (self.on.contains(&device.id), device.last_seen_at) {
            (true, _) => "It was on when this page was made.".to_owned(),
            (false, Some(at)) => {
                format!("It was off when this page was made; last heard of on {}.", self.day(at))
            }
            (false, None) => "It was off when this page was made; we haven't heard of it yet.".to_owned(),
        }
    }

    fn reported(&self, device: DeviceId, component: &str, slot: &str) -> Option<&InstalledSlot> {
        let mut own = self.reported.iter().filter(|on| on.device_id == device);
        own.find(|on| on.component_key == component && on.slot_key == slot)
    }

    /// The day on which a Mac confirmed that it cleared away what we put there.
    fn wiped(&self, device: DeviceId) -> Option<String> {
        let own = self.log.wiped.iter().find(|latest| latest.entry.device == Some(device));
        own.map(|latest| self.day(latest.entry.at))
    }

    /// The last entry of this slot, for a device or for none.
    fn entry<'a>(&self, of: &'a [Latest], slot: SlotId, device: Option<DeviceId>) -> Option<&'a Latest> {
        of.iter().rev().find(|latest| latest.entry.slot == Some(slot) && latest.entry.device == device)
    }
}

/// What a Mac found out about the secret that it has. Nothing when there is nothing to add.
fn tried(on: &InstalledSlot) -> (&'static str, bool) {
    match on.state {
        SlotState::Verified => (" It works.", false),
        SlotState::Rejected => (" The service that it is for refuses it: a new one is needed.", true),
        SlotState::Unreadable => (" The Mac can't read it at the moment.", true),
        SlotState::Unverifiable => (" Whether it works can't be tried from there.", false),
        SlotState::Present | SlotState::Empty => ("", false),
    }
}

/// Who did it, as the client may know them.
fn person(who: &Who) -> String {
    match who.kind {
        Actor::User => who.id.clone(),
        Actor::Cli => "the operator of our board".to_owned(),
        Actor::Token => format!("a program of ours, “{}”", who.id),
        Actor::Device => "a Mac".to_owned(),
        Actor::Job => "our board".to_owned(),
    }
}
