//! Secrets of ours: kept locked on the board, opened on the Macs that they are for.

use super::{Known, Line, Taken, Told, person, tried};
use crate::audit::Latest;
use crate::catalog::OurSlot;
use crate::enrollment::{Device, DeviceState};
use crate::secrets::{Delivery, DeliveryState, Spread, StoredSecret};
use crate::web::count;

pub(super) fn told(known: &Known, slot: &OurSlot, in_scope: bool) -> Told {
    let stored = known.stored.iter().find(|secret| secret.slot_id == slot.id);
    let kept = match stored {
        None if in_scope => "Not there yet: one of our consultants has to enter it.".to_owned(),
        None => "Not part of our work for you any more, and not kept.".to_owned(),
        Some(secret) => kept(known, slot, secret, in_scope),
    };
    let macs = known.devices.iter().filter_map(|device| line(known, slot, stored, device, in_scope));
    let macs = Line::together(macs);
    Told {
        component: known.component(&slot.component_key),
        name: slot.name.clone(),
        kept: if macs.is_empty() && stored.is_some() { format!("{kept} On no Mac yet.") } else { kept },
        vault: None,
        open: stored.is_none() && in_scope,
        macs,
        taken: stored.map(|secret| taken(known, slot, secret)),
    }
}

fn kept(known: &Known, slot: &OurSlot, secret: &StoredSecret, in_scope: bool) -> String {
    let entered = known.entry(&known.log.stored, slot.id, None).filter(|latest| is_of(latest, secret));
    let by = entered.map(|latest| format!(" by {}", person(&latest.entry.who))).unwrap_or_default();
    let day = known.day(secret.last_rotated_at);
    let version = version(secret.version);
    if known.client.salt.is_none() {
        return "Locked for good on our board: the key was erased.".to_owned();
    }
    let entered = format!("Entered{by} on {day}{version}.");
    match in_scope {
        true => entered,
        false => format!(
            "Not part of our work for you any more. Still locked on our board, and sent to no Mac. {entered}"
        ),
    }
}

/// Whether an entry is about the version that is stored.
fn is_of(latest: &Latest, secret: &StoredSecret) -> bool {
    latest.entry.detail.get("version").and_then(|version| version.parse().ok()) == Some(secret.version)
}

/// Who took it out of the board, besides the Macs.
fn taken(known: &Known, slot: &OurSlot, secret: &StoredSecret) -> Taken {
    let Some(latest) = known.entry(&known.log.copied, slot.id, None) else {
        return Taken { words: "never.".to_owned(), reason: None };
    };
    let (who, day) = (person(&latest.entry.who), known.day(latest.entry.at));
    let mut words = match is_of(latest, secret) {
        true => format!("by {who} on {day}."),
        false => format!("this one never; the one before it by {who} on {day}."),
    };
    if latest.times > 1 {
        words.push_str(&format!(" {} in all.", count(latest.times, "time", "times")));
    }
    let reason = Some(latest.entry.reason.clone()).filter(|reason| !reason.is_empty());
    Taken { words, reason }
}

fn line(
    known: &Known,
    slot: &OurSlot,
    stored: Option<&StoredSecret>,
    device: &Device,
    in_scope: bool,
) -> Option<Line> {
    let delivery = known.deliveries.iter().find(|one| one.device_id == device.id && one.slot_id == slot.id);
    let spread = known.spread.iter().find(|one| one.device_id == device.id && one.slot_id == slot.id);
    if device.state == DeviceState::Revoked {
        return left_behind(known, stored, device, delivery);
    }
    if !in_scope {
        let held = spread.and_then(|spread| spread.held)?;
        let words = format!("Still there{}. We have to take it away.", version(held));
        return Some(Line { macs: vec![device.name.clone()], words, said: None, open: true });
    }
    let stored = stored?;
    let (mut words, mut open, said) = match delivery {
        _ if spread.and_then(Spread::ahead).is_some() => {
            ("Has a newer one than our board. We have to enter a new one.".to_owned(), true, None)
        }
        Some(one) if one.state == DeliveryState::Receipted && one.version == stored.version => {
            let since = one.receipt_at.map(|at| format!(" since {}", known.day(at))).unwrap_or_default();
            (format!("Opened there{since}."), false, None)
        }
        Some(one) if one.state == DeliveryState::Refused => {
            ("Refused it.".to_owned(), true, one.reason.clone())
        }
        Some(_) | None => (coming(known, device).to_owned(), true, None),
    };
    let here = delivery.is_some_and(|one| one.state == DeliveryState::Receipted);
    if let Some(on) = known.reported(device.id, &slot.component_key, &slot.slot_key).filter(|_| here) {
        let (more, wrong) = tried(on);
        words.push_str(more);
        open |= wrong;
    }
    if let Some(older) = spread.filter(|spread| !spread.arrived()).and_then(Spread::in_place) {
        words.push_str(&format!(" Meanwhile it goes on with version {older}."));
    }
    Some(Line { macs: vec![device.name.clone()], words, said, open })
}

/// What keeps it from being there already.
fn coming(known: &Known, device: &Device) -> &'static str {
    match device.state {
        DeviceState::Approved => "Not sent before the Mac has proved its keys.",
        DeviceState::Quarantined => "Not sent while the Mac is stopped.",
        DeviceState::Leaving | DeviceState::Revoked => "Not sent any more.",
        DeviceState::Enrolled if known.on.contains(&device.id) => "On its way.",
        DeviceState::Enrolled => "Sent when the Mac is on again.",
    }
}

/// What a Mac that was shut out may still have.
fn left_behind(
    known: &Known,
    stored: Option<&StoredSecret>,
    device: &Device,
    delivery: Option<&Delivery>,
) -> Option<Line> {
    let had = delivery.filter(|one| one.state == DeliveryState::Receipted)?;
    if let Some(day) = known.wiped(device.id) {
        let words = format!("Cleared away; the Mac confirmed it on {day}.");
        return Some(Line { macs: vec![device.name.clone()], words, said: None, open: false });
    }
    let newer = stored.filter(|stored| stored.version > had.version);
    let (words, open) = match newer {
        Some(newer) => (
            format!("May still have an old one. It was replaced on {}.", known.day(newer.last_rotated_at)),
            false,
        ),
        None => (
            "May still have it: it was there when we shut the Mac out. Ask us for a new one.".to_owned(),
            true,
        ),
    };
    Some(Line { macs: vec![device.name.clone()], words, said: None, open })
}

fn version(held: i64) -> String {
    if held > 1 { format!(", version {held}") } else { String::new() }
}
