//! The signed catalog: whether there is one, whole, signed by whom, and until when it is good.

use std::time::Duration;

use shared::catalog::{Bundle, SignedBundle};

use super::{Finding, Patient};
use crate::audit::{self, Action, Filter};
use crate::catalog;
use crate::db::Db;

const CHECK: &str = "catalog";
const PUBLISHER: &str = "publisher";
/// Time to sign the next one and to bring it to all boards.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) async fn look(db: &Db, patient: &Patient) -> Result<Vec<Finding>, sqlx::Error> {
    let mut tx = db.read().await?;
    let Some((digest, signed)) = catalog::newest_signed(&mut tx).await? else {
        return Ok(vec![Finding::problem(
            CHECK,
            "none yet, so no runbook can be made",
            "`board catalog import FILE --publisher-key FILE` brings in one that the publisher signed.",
        )]);
    };
    let filter = Filter { action: Some(Action::CatalogImported), ..Filter::default() };
    let imported = audit::filtered(&mut tx, None, 1, &filter).await?.pop();
    let by = imported.and_then(|stored| stored.entry.detail.get("publisher").cloned());
    let own = if signed.digest() == digest { content(&signed, patient) } else { changed() };
    Ok(vec![own, publisher(&signed, by, patient)])
}

fn changed() -> Finding {
    Finding::problem(
        CHECK,
        "what is stored is not what was imported: its digest differs",
        "No agent takes it. Sign it with a higher serial and import it again; find out who changed the database.",
    )
}

fn content(signed: &SignedBundle, patient: &Patient) -> Finding {
    let bundle: Bundle = match serde_json::from_slice(&signed.payload) {
        Ok(bundle) => bundle,
        Err(error) => {
            return Finding::problem(CHECK, format!("it can't be read: {error}"), "Import it again.");
        }
    };
    let again = "The publisher signs it again with a higher serial (`board catalog sign`); then import it.";
    let saw = format!("serial {}, good until {}", bundle.serial, bundle.not_after);
    let now = patient.now();
    if now > bundle.not_after {
        Finding::problem(CHECK, format!("{saw}: that is over, so agents run no step of it"), again)
    } else if bundle.not_after.since(now) < SOON {
        Finding::warning(CHECK, saw, again)
    } else {
        Finding::ok(CHECK, saw)
    }
}

/// The board keeps no publisher's key: agents have it from their package.
fn publisher(signed: &SignedBundle, by: Option<String>, patient: &Patient) -> Finding {
    let by = by.unwrap_or_else(|| "somebody that the audit log doesn't name".to_owned());
    match &patient.publisher {
        None => Finding::ok(
            PUBLISHER,
            format!("signed by {by}, as it was imported; --publisher-key FILE looks at the signature again"),
        ),
        Some(key) => match signed.verify(std::slice::from_ref(key)) {
            Ok(_) => Finding::ok(PUBLISHER, format!("{} signed it", key.name())),
            Err(error) => Finding::problem(
                PUBLISHER,
                format!("{}: {error}", key.name()),
                format!(
                    "It was imported as signed by {by}. Agents take only what a key of their package signed."
                ),
            ),
        },
    }
}
