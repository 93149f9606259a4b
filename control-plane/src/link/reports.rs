//! Reports: each is applied once, in one transaction with the note that it was; acknowledged means committed.

use shared::protocol::link::{Report, ReportBody};

use super::store;
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::inventory;
use crate::runbook::{self, ApplyError};
use crate::secrets::{self, ReceiptError, SecretError};

/// What applying a report can come to.
enum Refusal {
    /// It will never fit: noted and acknowledged, so that the device doesn't send it for ever.
    Never(String),
    /// The board can't write now; the device keeps the report.
    Later(Failure),
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Database(error) => Self::Later(error.into()),
            ApplyError::Audit(error) => Self::Later(error.into()),
            ApplyError::Failure(failure) => Self::Later(*failure),
            ApplyError::UnknownAttempt | ApplyError::UnknownOutcome => Self::Never(error.to_string()),
        }
    }
}

impl From<ReceiptError> for Refusal {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::Secret(SecretError::Database(error)) => Self::Later(error.into()),
            ReceiptError::Secret(SecretError::Audit(error)) => Self::Later(error.into()),
            other @ (ReceiptError::Unknown
            | ReceiptError::Mismatch
            | ReceiptError::Signature
            | ReceiptError::Secret(_)) => Self::Never(other.to_string()),
        }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Later(error.into())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Later(failure)
    }
}

pub async fn apply(app: &App, device: &Device, report: &Report, address: &str) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    if !store::first_time(&mut tx, report.id, device.id, app.now()).await? {
        return Ok(());
    }
    match body(app, &mut tx, device, report, address).await {
        Ok(()) => Ok(tx.commit().await?),
        Err(Refusal::Later(failure)) => Err(failure),
        Err(Refusal::Never(reason)) => {
            drop(tx);
            tracing::warn!(device_id = %device.id, report_id = %report.id, reason, "a report was refused");
            let mut tx = app.db.write().await?;
            store::first_time(&mut tx, report.id, device.id, app.now()).await?;
            let entry = Entry::new(app.now(), Who::device(device.id, address), Action::ReportRefused)
                .client(device.client_id)
                .device(device.id)
                .reason(&reason)
                .detail("report", report.id);
            audit::append(&mut tx, &entry).await?;
            Ok(tx.commit().await?)
        }
    }
}

async fn body(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    report: &Report,
    address: &str,
) -> Result<(), Refusal> {
    match &report.body {
        ReportBody::AttemptStarted { attempt_id } => {
            runbook::apply_started(app, tx, device.id, *attempt_id).await?;
        }
        ReportBody::Output(chunk) => runbook::apply_output(tx, device.id, chunk).await?,
        ReportBody::AttemptEnded(ended) => runbook::apply_ended(app, tx, device, ended).await?,
        ReportBody::OfferRefused { attempt_id, reason } => {
            runbook::apply_offer_refused(app, tx, device, *attempt_id, reason).await?;
        }
        ReportBody::Receipt(receipt) => {
            secrets::apply_receipt(tx, app.board_id, device.id, receipt, address, app.now()).await?;
            runbook::wake_waiting(app, tx, device.id).await?;
        }
        ReportBody::DeliveryRefused { delivery_id, reason } => {
            secrets::apply_refusal(tx, device.id, *delivery_id, reason, address, app.now()).await?;
        }
        ReportBody::Inventory { components, slots } => {
            inventory::apply(tx, device.id, components, slots).await?;
            runbook::confirm_manual(app, tx, device).await?;
        }
        ReportBody::Unknown => return Err(Refusal::Never("its kind is not known to this board".into())),
    }
    Ok(())
}
