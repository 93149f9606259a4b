//! Heads that devices were told, compared with the log. One that the log doesn't hold is an alarm, until an operator
//! acknowledges it.

use shared::crypto::hex;
use shared::ids::{ClientId, DeviceId};
use shared::protocol::link::Head;
use shared::text_enum;
use shared::time::Timestamp;

use super::chain::Standing;
use super::{Action, AuditError, Entry, Who, append, number, store};
use crate::db::Tx;

/// An alarm that nobody has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Alarm {
    /// Sequence number of the entry that raised it.
    pub entry: i64,
    /// `None`: the board itself had seen that head.
    pub device_id: Option<DeviceId>,
    /// Place of the head.
    pub epoch: i64,
    pub seq: i64,
    pub why: String,
    pub raised_at: Timestamp,
    pub kind: AlarmKind,
}

text_enum! {
    pub enum AlarmKind {
        /// Somebody was told a head that the log doesn't hold.
        Head = "head",
        /// The board was restored from a backup.
        Restore = "restore",
    }
}

/// Who was told a head.
pub struct Witness<'a> {
    pub device: Option<(ClientId, DeviceId)>,
    pub who: Who,
    pub head: &'a Head,
}

/// The newest entry's place and hash; what agents remember.
pub async fn head(tx: &mut Tx) -> Result<Head, sqlx::Error> {
    let row = store::newest(tx).await?;
    Ok(row.map_or(Head { epoch: 1, seq: 0, hash: vec![0; 32] }, |row| Head {
        epoch: number(row.epoch),
        seq: number(row.seq),
        hash: row.hash,
    }))
}

/// How a head that a device was told stands to this board's log.
pub async fn standing(tx: &mut Tx, told: &Head) -> Result<Standing, sqlx::Error> {
    let held = match i64::try_from(told.seq) {
        Ok(seq) => store::place(tx, seq).await?.map(|(epoch, hash)| (number(epoch), hash)),
        Err(_) => None,
    };
    let last = head(tx).await?;
    let epoch = i64::try_from(told.epoch).unwrap_or(i64::MAX);
    let end = if told.epoch < last.epoch { number(store::end_of_epoch(tx, epoch).await?) } else { last.seq };
    Ok(Standing::of(told, held.as_ref(), &last, end))
}

/// Compares, and raises an alarm when the log was rewritten or an older one put back. Entries that a restore dropped are
/// no alarm: the restore has its own entry. One open alarm for each witness: a device can't fill the log with them.
/// True when an alarm was raised; the transaction must end right after it.
pub async fn compare(tx: &mut Tx, witness: &Witness<'_>, now: Timestamp) -> Result<bool, AuditError> {
    let why = match standing(tx, witness.head).await? {
        Standing::Fits | Standing::Before => return Ok(false),
        Standing::Dropped => {
            tracing::warn!(seq = witness.head.seq, "an entry that a device was told went with a restore");
            return Ok(false);
        }
        Standing::Other => "the log holds another entry at this place",
        Standing::Beyond => "the log ends before this entry",
    };
    let device_id = witness.device.map(|(_, device)| device);
    let (epoch, seq) = (signed(witness.head.epoch), signed(witness.head.seq));
    if store::is_alarmed(tx, device_id, epoch, seq, &witness.head.hash).await? {
        return Ok(false);
    }
    tracing::error!(?device_id, seq, why, "the audit log doesn't hold what was told of it");
    let mut entry = Entry::new(now, witness.who.clone(), Action::HeadMismatch)
        .reason(why)
        .detail("epoch", witness.head.epoch)
        .detail("seq", witness.head.seq)
        .detail("hash", hex(&witness.head.hash));
    if let Some((client, device)) = witness.device {
        entry = entry.client(client).device(device);
    }
    let number = append(tx, &entry).await?;
    let alarm = Alarm {
        entry: signed(number),
        device_id,
        epoch,
        seq,
        why: why.to_owned(),
        raised_at: now,
        kind: AlarmKind::Head,
    };
    store::insert_alarm(tx, &alarm, &witness.head.hash).await?;
    Ok(true)
}

/// Begins a new epoch with this entry, which stands as an alarm until an operator acknowledges it: what devices were told
/// after the head of before is gone, and why is known. The transaction must end right after it.
pub async fn begin_epoch(tx: &mut Tx, entry: &Entry, why: &str) -> Result<u64, AuditError> {
    let before = head(tx).await?;
    store::begin_epoch(tx).await?;
    let number = append(tx, entry).await?;
    let alarm = Alarm {
        entry: signed(number),
        device_id: None,
        epoch: signed(before.epoch),
        seq: signed(before.seq),
        why: why.to_owned(),
        raised_at: entry.at,
        kind: AlarmKind::Restore,
    };
    store::insert_alarm(tx, &alarm, &before.hash).await?;
    Ok(number)
}

/// Alarms that a page shows at once.
const SHOWN: i64 = 20;

/// The first alarms that stand, oldest first.
pub async fn alarms(tx: &mut Tx) -> Result<Vec<Alarm>, sqlx::Error> {
    store::alarms(tx, SHOWN).await
}

/// How many alarms stand, and the entry that raised the last.
pub async fn count_alarms(tx: &mut Tx) -> Result<(u64, Option<i64>), sqlx::Error> {
    let (count, last) = store::count_alarms(tx).await?;
    Ok((number(count), last))
}

/// Ends an alarm: somebody knows why. False when it doesn't stand any more.
pub async fn acknowledge(
    tx: &mut Tx,
    alarm: u64,
    who: Who,
    reason: &str,
    now: Timestamp,
) -> Result<bool, AuditError> {
    if store::acknowledge(tx, signed(alarm), &who.id, now).await? != 1 {
        return Ok(false);
    }
    let entry = Entry::new(now, who, Action::AlarmAcknowledged).reason(reason).detail("entry", alarm);
    append(tx, &entry).await?;
    Ok(true)
}

/// Ends every alarm up to the one that an entry raised: they have one cause. False when none of them stands any more.
pub async fn acknowledge_up_to(
    tx: &mut Tx,
    last: u64,
    who: Who,
    reason: &str,
    now: Timestamp,
) -> Result<bool, AuditError> {
    let ended = store::acknowledge_up_to(tx, signed(last), &who.id, now).await?;
    if ended == 0 {
        return Ok(false);
    }
    let entry = Entry::new(now, who, Action::AlarmAcknowledged)
        .reason(reason)
        .detail("up_to_entry", last)
        .detail("alarms", ended);
    append(tx, &entry).await?;
    Ok(true)
}

/// A hostile head may name any number; none that the log could reach is lost by this.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
