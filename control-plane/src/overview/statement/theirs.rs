//! Secrets of the client: in their own vault and on their Macs, never on the board.

use shared::protocol::inventory::SlotState;

use super::{Known, Line, Told, person, tried};
use crate::catalog::TheirSlot;
use crate::clients;
use crate::enrollment::{Device, DeviceState};
use crate::inventory::InstalledSlot;

pub(super) fn told(known: &Known, slot: &TheirSlot, in_scope: bool) -> Told {
    let macs = known.devices.iter().filter_map(|device| line(known, slot, device, in_scope));
    let macs = Line::together(macs);
    let mut kept = match in_scope {
        true => String::new(),
        false => "Yours, and not part of our work for you any more.".to_owned(),
    };
    if macs.is_empty() {
        kept.push_str("On no Mac yet.");
    }
    let vault = clients::fill_hint(&slot.hint, &known.client);
    Told {
        component: known.component(&slot.component_key),
        name: slot.name.clone(),
        kept,
        vault: (!vault.is_empty()).then_some(vault),
        open: macs.is_empty(),
        macs,
        taken: None,
    }
}

fn line(known: &Known, slot: &TheirSlot, device: &Device, in_scope: bool) -> Option<Line> {
    let on = known.reported(device.id, &slot.component_key, &slot.slot_key);
    let made = |words: String, open| Some(Line { macs: vec![device.name.clone()], words, said: None, open });
    let held = on.filter(|on| on.is_held());
    match (device.state, held, on) {
        (DeviceState::Revoked, None, _) => None,
        (DeviceState::Revoked, Some(_), _) if cleared(known, device).is_some() => {
            made(format!("Cleared away; the Mac confirmed it on {}.", cleared(known, device)?), false)
        }
        (DeviceState::Revoked, Some(on), _) => made(
            format!(
                "May still have it: it was there on {}. Give yourself a new one.",
                known.day(on.observed_at)
            ),
            true,
        ),
        (_, Some(on), _) if !in_scope => made(
            format!("Still there on {}. Take it away if you don't need it there.", known.day(on.observed_at)),
            true,
        ),
        (_, None, _) if !in_scope => None,
        (_, Some(on), _) => {
            let (more, open) = tried(on);
            made(format!("{}{more}", came(known, slot, device, on)), open)
        }
        (_, None, Some(on)) if on.state == SlotState::Unreadable => {
            made(format!("Whether it is there can't be said.{}", tried(on).0), true)
        }
        (_, None, _) => made("Not there yet.".to_owned(), true),
    }
}

/// The day on which the Mac confirmed that it took the client's own secrets away, when it was asked to.
fn cleared(known: &Known, device: &Device) -> Option<String> {
    let asked = known.log.leaving.iter().find(|latest| latest.entry.device == Some(device.id))?;
    let pasted = asked.entry.detail.get("pasted").is_some_and(|pasted| pasted == "true");
    known.wiped(device.id).filter(|_| pasted)
}

/// How it came onto the Mac: what didn't pass through the board was typed there.
fn came(known: &Known, slot: &TheirSlot, device: &Device, on: &InstalledSlot) -> String {
    let day = known.day(on.observed_at);
    let Some(sent) = known.entry(&known.log.pastes_relayed, slot.id, Some(device.id)) else {
        return format!("Typed on the Mac. There on {day}.");
    };
    let (who, when) = (person(&sent.entry.who), known.day(sent.entry.at));
    let from = match sent.entry.detail.get("sealed").map(String::as_str) {
        Some("in the browser") => "from their browser, on a page of our board",
        Some(_) | None => "from their computer",
    };
    let way = format!(
        "by {who} on {when}, {from}, locked for this Mac alone: our board passed it on and couldn't open it."
    );
    let answered = known.entry(&known.log.pastes_answered, slot.id, Some(device.id));
    match answered.is_some_and(|latest| latest.entry.reason == "present") {
        true => format!("Sent {way}"),
        // It was refused, or the answer was lost: what is there may be another one.
        false => format!("There on {day}: typed on the Mac, or sent {way}"),
    }
}
