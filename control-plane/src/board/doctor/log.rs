//! The audit log: whether it can be written, whether its chain holds, and whether somebody was told otherwise.

use shared::crypto::hex;

use super::{Finding, Patient, unanswered};
use crate::audit;
use crate::db::Db;
use crate::web::count;

const CHECK: &str = "audit log";
const CHAIN: &str = "audit chain";
const ALARMS: &str = "audit alarms";
/// Entries that are walked: a second's work. What is longer has a command of its own.
const MOST: u64 = 20_000;

pub(super) async fn look(db: &Db, patient: &Patient) -> Vec<Finding> {
    let watch = audit::Watch::default();
    let written = match watch.check(db, patient.now()).await {
        Some(cause) => Finding::problem(
            CHECK,
            format!("{} So the board does nothing that it would have to record.", cause.what()),
            cause.remedy(),
        ),
        None => Finding::ok(CHECK, "an entry could be written; it was taken back"),
    };
    let mut findings = vec![written];
    findings.push(chain(db, patient, &watch).await.unwrap_or_else(|error| unanswered(CHAIN, &error)));
    match ahead(db, patient).await {
        Ok(ahead) => findings.extend(ahead),
        Err(error) => findings.push(unanswered("clock", &error)),
    }
    match alarms(db).await {
        Ok(alarms) => findings.extend(alarms),
        Err(error) => findings.push(unanswered(ALARMS, &error)),
    }
    findings
}

async fn chain(db: &Db, patient: &Patient, watch: &audit::Watch) -> Result<Finding, sqlx::Error> {
    let checked = watch.walk_on(db, patient.now(), MOST).await?;
    if let Some(broken) = checked.broken {
        return Ok(Finding::problem(
            CHAIN,
            format!("it breaks at entry {}: {}", broken.seq, broken.why),
            "Somebody changed the database behind the board's back, or a disk failed. Keep the database as it is, and compare \
             it with `board audit verify --witness` and a backup.",
        ));
    }
    let head = audit::head(&mut db.read().await?).await?;
    let code = hex(head.hash.get(..8).unwrap_or(&head.hash));
    let end = format!("it ends with entry {} of epoch {}, {code}…", head.seq, head.epoch);
    Ok(match checked.up_to >= checked.of {
        true => Finding::ok(CHAIN, format!("whole; {end}")),
        false => Finding::ok(
            CHAIN,
            format!("whole up to entry {}; `board audit verify` walks through all; {end}", checked.up_to),
        ),
    })
}

/// Whether the newest entry is of a time that is still to come.
async fn ahead(db: &Db, patient: &Patient) -> Result<Option<Finding>, sqlx::Error> {
    let newest = audit::page(&mut db.read().await?, None, 1).await?.pop();
    let ahead = newest.filter(|stored| stored.entry.at.since(patient.now()).as_secs() > 120);
    Ok(ahead.map(|stored| {
        Finding::problem(
            "clock",
            format!("it is {} here, and the audit log's last entry is of {}", patient.now(), stored.entry.at),
            "This machine's clock was set back. Let it take its time from the network (NTP).",
        )
    }))
}

async fn alarms(db: &Db) -> Result<Option<Finding>, sqlx::Error> {
    let alarms = audit::alarms(&mut db.read().await?).await?;
    Ok((!alarms.is_empty()).then(|| {
        Finding::warning(
            ALARMS,
            format!(
                "{} open: somebody was told of an entry that this log doesn't hold",
                count(alarms.len(), "alarm stands", "alarms stand")
            ),
            "An operator looks at the console's audit page, finds out why, and acknowledges it there.",
        )
    }))
}
