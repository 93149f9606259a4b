//! Statements of succession of publisher and release keys: kept in the order in which they came, and told to devices. The
//! board can't make one.

use shared::signing::{PublicKey, SignedSuccession, Succession, SuccessionError};
use shared::time::Timestamp;

use super::store;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Statement(#[from] SuccessionError),
    #[error("this statement is here already; nothing was changed")]
    There,
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Takes a statement that `signer` signed. Whether devices believe it is theirs to know.
pub async fn relay(
    tx: &mut Tx,
    signed: &SignedSuccession,
    signer: &PublicKey,
    now: Timestamp,
) -> Result<Succession, RelayError> {
    if !signed.is_signed_by(signer) {
        return Err(SuccessionError::Signature.into());
    }
    let said = signed.read()?;
    let digest = signed.digest();
    if store::insert_succession(tx, &digest, signed, now).await? != 1 {
        return Err(RelayError::There);
    }
    let names = |keys: &[PublicKey]| keys.iter().map(PublicKey::name).collect::<Vec<_>>().join(" ");
    let entry = Entry::new(now, Who::cli(), Action::SuccessionImported)
        .detail("digest", &digest)
        .detail("purpose", said.purpose)
        .detail("serial", said.serial)
        .detail("signed_by", signer.name())
        .detail("adds", said.adds.map(|key| key.name()).unwrap_or_default())
        .detail("retires", names(&said.retires));
    audit::append(tx, &entry).await?;
    Ok(said)
}

/// Those that a device doesn't hold yet, in their order.
pub async fn successions_beyond(tx: &mut Tx, held: &[String]) -> Result<Vec<SignedSuccession>, sqlx::Error> {
    let mut all = store::successions(tx).await?;
    all.retain(|one| !held.contains(&one.digest()));
    Ok(all)
}
