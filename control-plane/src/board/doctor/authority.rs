//! The certificate authority: whether its key opens, until when its certificate is good, and a rotation in the middle.

use std::time::Duration;

use shared::time::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Finding, Patient, unanswered};
use crate::board::store;
use crate::db::{Db, Tx};
use crate::enrollment::ca::Authority;
use crate::enrollment::rotation::{self, Coming};
use crate::keys::RootKey;
use crate::web::count;

const CHECK: &str = "authority";
const ROTATION: &str = "rotation";
/// A rotation takes as long as the last Mac is off.
const SOON: Duration = Duration::from_secs(365 * 24 * 3600);

/// And the certificates of the authorities that agents believe.
pub(super) async fn look(db: &Db, patient: &Patient, root: &RootKey) -> (Vec<Finding>, Vec<Vec<u8>>) {
    let mut tx = match db.read().await {
        Ok(tx) => tx,
        Err(error) => return (vec![unanswered(CHECK, &error)], Vec::new()),
    };
    let now = patient.now();
    let mut findings = vec![active(&mut tx, root, now).await];
    let believed = match rotation::believed(&mut tx, now).await {
        Ok(believed) => believed.certificates,
        Err(_) => Vec::new(),
    };
    match rotation::status(&mut tx, now).await {
        Ok(status) => findings.extend(status.coming.as_ref().map(coming)),
        Err(error) => findings.push(Finding::problem(ROTATION, error.to_string(), "See `board ca status`.")),
    }
    (findings, believed)
}

async fn active(tx: &mut Tx, root: &RootKey, now: Timestamp) -> Finding {
    let board_id = match store::id(tx).await {
        Ok(Some(id)) => id,
        Ok(None) => {
            return Finding::problem(CHECK, "this database holds no board", "`board init` makes one.");
        }
        Err(error) => return unanswered(CHECK, &error),
    };
    let authority = match Authority::load(tx, root, board_id).await {
        Ok(authority) => authority,
        Err(error) => {
            return Finding::problem(
                CHECK,
                error.to_string(),
                "Without it no agent gets a connection and no Mac joins. Restore a backup of before.",
            );
        }
    };
    match ends(authority.certificate()) {
        Some(ends) => until(ends, now),
        None => Finding::problem(CHECK, "its certificate can't be read", "Restore a backup of before."),
    }
}

pub(super) fn until(ends: Timestamp, now: Timestamp) -> Finding {
    if now > ends {
        Finding::problem(
            CHECK,
            format!("its key opens, and its certificate ended on {ends}"),
            "`board ca rotate` makes a new one; Macs that were off since before have to join again.",
        )
    } else if ends.since(now) < SOON {
        Finding::warning(
            CHECK,
            format!("its key opens; its certificate is good until {ends}"),
            "`board ca rotate` begins to go over to a new one. Do it while every Mac comes by.",
        )
    } else {
        Finding::ok(CHECK, format!("its key opens; its certificate is good until {ends}"))
    }
}

/// The end of a certificate (RFC 5280, `notAfter`).
pub(super) fn ends(certificate: &[u8]) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Timestamp::from_datetime(parsed.validity().not_after.to_datetime()))
}

fn coming(coming: &Coming) -> Finding {
    let waiting = coming.devices.iter().filter(|one| !one.acknowledged).count();
    let saw = format!(
        "a move to another authority is under way since {}; {} not said that they keep its pin",
        coming.begun_at,
        count(waiting, "Mac has", "Macs have")
    );
    let advice = match waiting {
        0 => "`board ca rotate --finish` ends it.",
        _ => "`board ca status` names them; `board ca rotate --finish` ends it when all have.",
    };
    Finding::warning(ROTATION, saw, advice)
}
