//! `board paste`: a client's secret, sealed on this computer to a device whose fingerprint was read on the Mac. Nothing that
//! the board says about the device is believed: the fingerprint is made from it here and compared.

mod known;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use reqwest::StatusCode;
use shared::catalog::Tag;
use shared::crypto::{DeliveryContext, Fingerprint, FingerprintParts, SealingPublicKey, seal_paste};
use shared::ids::{DeliveryId, DeviceId};
use shared::protocol::link::Paste;
use shared::random::Random;
use shared::secret::{MAX_LEN, Secret};
use shared::time::Clock;

use super::ask::{Asking, Board, said};
use super::{Output, entered, table};
use crate::secrets::api::{Recipient, SlotJson};
use known::{Known, KnownDevices};

/// How long a paste is good for, by the board's clock.
const GOOD_FOR: Duration = Duration::from_secs(300);

pub const HELP: &str = "\
Examples:
  op read 'op://Acme/Slack/bot-token' | board paste slack/SLACK_BOT_TOKEN \\
    --board https://board.example.com --device 0199… --device-fingerprint 'QX7C 2MDE 4H5K ZA6B'
  board paste slack/SLACK_BOT_TOKEN --device 0199… < token.txt

`sudo board-agent status` on the Mac shows the fingerprint: read it there, over Screen Sharing or SSH, not from the board. It is
kept on this computer, so the next paste to the same device needs none; another one than before is an alarm, and nothing
is sent. At a terminal the value is asked for and not shown; from a file or another program one line end behind it is
dropped.

The token is read from BOARD_TOKEN or from --token-file. `board token create --name NAME --roles consultant --days 90`
makes one.

Exit codes:
  0  The device has it.
  1  It was not pasted: the value doesn't fit, the device is off or refused it.
  2  The board couldn't be asked, or refuses the token.
  4  The device isn't proven to be the one that you mean. Nothing was sealed or sent.";

#[derive(Debug, Args)]
pub struct PasteArgs {
    /// Which slot; at a terminal also without the component, when only one has such a slot.
    #[arg(value_name = "COMPONENT/SLOT")]
    slot: String,
    /// The device's id, as its page and `sudo board-agent status` show it.
    #[arg(long, value_name = "ID")]
    device: DeviceId,
    /// The 16 characters that `sudo board-agent status` shows on the Mac; not needed for a device that is known here already.
    #[arg(long, value_name = "FINGERPRINT")]
    device_fingerprint: Option<String>,
    /// Where the fingerprints of known devices are kept; by default in your configuration folder.
    #[arg(long, env = "BOARD_KNOWN_DEVICES", value_name = "PATH")]
    known_devices: Option<PathBuf>,
    #[command(flatten)]
    asking: Asking,
}

/// The device may not be the one that the consultant means: exit code 4.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    #[error(
        "this device isn't known on this computer. Run `sudo board-agent status` on the Mac and give the 16 characters of its fingerprint with --device-fingerprint. Nothing was sent"
    )]
    Unknown,
    #[error(
        "ALARM: the fingerprint doesn't fit the keys that the board gives for this device. They may be another device's, or somebody's between you and the Mac. Nothing was sent. Compare each character with `sudo board-agent status` on the Mac; if it is right, tell the operator of the board"
    )]
    Mismatch,
    #[error(
        "ALARM: this device's identity changed since its fingerprint was compared on this computer. That is so after the Mac joined again or the board rotated its certificate authority, and also when somebody stands in its place. Nothing was sent. Find out why; then read the fingerprint on the Mac, take line {line} out of {path}, and paste again with --device-fingerprint"
    )]
    Changed { path: String, line: usize },
    #[error("the board gives keys for this device that can't be sealed to. Nothing was sent")]
    Keys,
    #[error(
        "the board answers for the device {got}, not for the one that was asked for. Nothing was sent. See whether --board is right"
    )]
    Other { got: DeviceId },
}

pub async fn run(args: PasteArgs, clock: &dyn Clock, random: &dyn Random) -> anyhow::Result<Output> {
    if !args.slot.contains('/') && !io::stdin().is_terminal() {
        bail!(
            "{} doesn't say of which component, and nobody would see which one the board takes: give COMPONENT/SLOT. Nothing was sent",
            args.slot
        );
    }
    let board = args.asking.board("consultant")?;
    let known = KnownDevices::at(args.known_devices.clone())?;
    let path = format!("/api/v1/devices/{}/paste", args.device);
    let typed = args.device_fingerprint.as_deref();
    let before = ask(&board, &path).await?;
    prove(&before, args.device, typed, &known, clock)?;
    let slot = find(&before.slots, &args.slot)?;
    if !before.on {
        bail!(
            "{} is off, and a sealed value is kept nowhere: nothing was sent. Paste it again when the device is on",
            table::plain(&before.name)
        );
    }
    let value = enter(slot)?;
    // Entering may have taken long: the time that it is good for is counted from here.
    let recipient = ask(&board, &path).await?;
    let key = prove(&recipient, args.device, typed, &known, clock)?;
    let paste = seal(&recipient, &key, slot, &value, clock, random)?;
    drop(value);
    let (status, body) = board.post(&path, &paste).await?;
    if status != StatusCode::OK {
        return Err(not_pasted(&board, status, &body));
    }
    let text = format!("{} is on {}.", key_of(slot), table::plain(&recipient.name));
    Ok(Output { text, exit: 0 })
}

async fn ask(board: &Board, path: &str) -> anyhow::Result<Recipient> {
    let (status, body) = board.get(path).await?;
    if status != StatusCode::OK {
        return Err(not_pasted(board, status, &body));
    }
    Ok(board.read(&body)?)
}

/// The value: from a terminal without showing it, or from another program.
fn enter(slot: &SlotJson) -> anyhow::Result<Secret<Vec<u8>>> {
    if !io::stdin().is_terminal() {
        return entered::piped();
    }
    let key = key_of(slot);
    let prompt = format!("{} ({key}), not shown: ", table::plain(&slot.name));
    let instead =
        format!("nothing was sent. Put it into a file, or pipe it: op read … | board paste {key} …");
    entered::line(&prompt, &instead)
}

/// As it may be shown: it comes from the board.
fn key_of(slot: &SlotJson) -> String {
    table::plain(&format!("{}/{}", slot.component, slot.slot))
}

/// What stands in the way of this paste, rather than of asking at all.
fn not_pasted(board: &Board, status: StatusCode, body: &[u8]) -> anyhow::Error {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => board.refusal(status, body).into(),
        _ => anyhow::anyhow!("{}", said(status, body)),
    }
}

/// The device's sealing key, when its fingerprint is the one that was read on the Mac, now or before.
fn prove(
    recipient: &Recipient,
    device: DeviceId,
    typed: Option<&str>,
    known: &KnownDevices,
    clock: &dyn Clock,
) -> anyhow::Result<SealingPublicKey> {
    if recipient.device_id != device {
        return Err(Unproven::Other { got: recipient.device_id }.into());
    }
    let key = SealingPublicKey::from_bytes(&recipient.sealing_public_key).ok_or(Unproven::Keys)?;
    let fingerprint = Fingerprint::of(&FingerprintParts {
        ca_spki: &recipient.ca_spki,
        board_id: recipient.board_id,
        client_id: recipient.client_id,
        enrollment_id: recipient.enrollment_id,
        tls_spki: &recipient.tls_spki,
        sealing_public_key: key.as_bytes(),
    });
    match known.find(device)? {
        Some(Known { fingerprint: before, line }) if !fingerprint.matches(&before) => {
            return Err(Unproven::Changed { path: known.path(), line }.into());
        }
        found => match (found, typed) {
            (_, Some(typed)) if !fingerprint.matches(typed) => return Err(Unproven::Mismatch.into()),
            (None, Some(_)) => known.remember(device, &fingerprint, clock.now())?,
            (None, None) => return Err(Unproven::Unknown.into()),
            (Some(_), _) => {}
        },
    }
    Ok(key)
}

/// The slot that is meant by `COMPONENT/SLOT` or a bare `SLOT`.
fn find<'a>(slots: &'a [SlotJson], target: &str) -> anyhow::Result<&'a SlotJson> {
    let (component, key) = match target.split_once('/') {
        Some((component, key)) => (Some(component), key),
        None => (None, target),
    };
    let fits = |slot: &&SlotJson| slot.slot == key && component.is_none_or(|name| slot.component == name);
    let fitting: Vec<&SlotJson> = slots.iter().filter(fits).collect();
    let choices = |slots: &[&SlotJson]| -> String {
        slots.iter().map(|slot| format!("\n  {}", key_of(slot))).collect()
    };
    match fitting.as_slice() {
        [slot] => Ok(slot),
        [] if slots.is_empty() => {
            bail!("this device's scope has no slot that the client supplies. Nothing was sent")
        }
        [] => bail!(
            "this device's scope has no client-supplied slot {target}. Nothing was sent. Choose one of:{}",
            choices(&slots.iter().collect::<Vec<_>>())
        ),
        several => bail!("several components have a slot {target}. Choose one of:{}", choices(several)),
    }
}

fn seal(
    recipient: &Recipient,
    key: &SealingPublicKey,
    slot: &SlotJson,
    value: &Secret<Vec<u8>>,
    clock: &dyn Clock,
    random: &dyn Random,
) -> anyhow::Result<Paste> {
    if value.expose().is_empty() {
        bail!("the value is empty. Nothing was sent");
    }
    if value.expose().len() > MAX_LEN {
        bail!("the value is larger than 16 KiB. Nothing was sent");
    }
    let (delivery_id, expires) = (DeliveryId::new(clock, random), recipient.time.after(GOOD_FOR));
    let context = DeliveryContext {
        client_id: recipient.client_id,
        device_id: recipient.device_id,
        component_key: &slot.component,
        slot_key: &slot.slot,
        tag: Tag::ClientSupplied,
        version: 0,
        delivery_id,
        expires,
    };
    let sealed = seal_paste(key, &context, value)?;
    Ok(Paste { delivery_id, component: slot.component.clone(), slot: slot.slot.clone(), expires, sealed })
}

#[cfg(test)]
mod tests;
