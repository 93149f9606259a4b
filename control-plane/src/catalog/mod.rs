//! The catalog on the board: checking manifests, signing and importing bundles, and the credential slots that they bring.
//!
//! The board keeps bundles and hands them to agents; it can't sign one. Agents believe the publisher, not the board.

pub mod check;
pub mod cli;
mod store;
mod succession;
#[cfg(test)]
mod tests;
pub mod tiers;

use std::collections::BTreeMap;

use shared::catalog::{Bundle, BundleError, Manifest, PublisherKey, SignedBundle, Tag};
use shared::ids::SlotId;
use shared::random::Random;
use shared::time::{Clock, Timestamp};

pub use succession::{RelayError, relay, successions_beyond};
pub use tiers::Tiers;

use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;

/// A bundle with its manifests read.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub digest: String,
    pub serial: u64,
    pub manifests: BTreeMap<String, Manifest>,
    pub tiers: Tiers,
}

/// A slot as the database knows it: stable across bundles.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SlotRecord {
    pub id: SlotId,
    pub component_key: String,
    pub slot_key: String,
    pub display_name: String,
    pub tag: Tag,
    pub hint: Option<String>,
    pub required: bool,
}

/// A slot that takes a value on the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurSlot {
    pub id: SlotId,
    pub component_key: String,
    pub slot_key: String,
    pub name: String,
}

/// A slot whose value stays with the client. Nothing that takes a value accepts this type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TheirSlot {
    pub id: SlotId,
    pub component_key: String,
    pub slot_key: String,
    pub name: String,
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnySlot {
    Ours(OurSlot),
    Theirs(TheirSlot),
}

impl AnySlot {
    /// Component key and slot key.
    pub fn keys(&self) -> (&str, &str) {
        match self {
            Self::Ours(slot) => (&slot.component_key, &slot.slot_key),
            Self::Theirs(slot) => (&slot.component_key, &slot.slot_key),
        }
    }
}

impl From<SlotRecord> for AnySlot {
    fn from(slot: SlotRecord) -> Self {
        let SlotRecord { id, component_key, slot_key, display_name: name, tag, hint, required: _ } = slot;
        match tag {
            Tag::OurManaged => Self::Ours(OurSlot { id, component_key, slot_key, name }),
            Tag::ClientSupplied => {
                Self::Theirs(TheirSlot { id, component_key, slot_key, name, hint: hint.unwrap_or_default() })
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(
        "the bundle has serial {got}; serial {current} was imported already. Sign it again with a higher serial"
    )]
    NotNewer { got: u64, current: u64 },
    #[error(
        "{component}/{slot} is {stored} on this board and {bundle} in the bundle: a slot can't change its tag. Give it another key"
    )]
    TagChanged { component: String, slot: String, stored: Tag, bundle: Tag },
    #[error("the bundle's manifests don't pass the check:\n{0}")]
    Check(String),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Database(error) => error.into(),
            CatalogError::Audit(error) => error.into(),
            other @ (CatalogError::Bundle(_)
            | CatalogError::NotNewer { .. }
            | CatalogError::TagChanged { .. }
            | CatalogError::Check(_)) => Self::internal(other),
        }
    }
}

/// Brings a bundle in: verified, checked, newer than the last, its slots born with their tags.
pub async fn import(
    tx: &mut Tx,
    clock: &dyn Clock,
    random: &dyn Random,
    signed: &SignedBundle,
    publisher: &PublisherKey,
) -> Result<Catalog, CatalogError> {
    let bundle = signed.verify(std::slice::from_ref(publisher))?;
    let now = clock.now();
    bundle.check_fresh(0, now)?;
    let findings = check::bundle(&bundle);
    if !findings.is_empty() {
        return Err(CatalogError::Check(check::report(&findings)));
    }
    if let Some(current) = store::newest_serial(tx).await?
        && bundle.serial <= current
    {
        return Err(CatalogError::NotNewer { got: bundle.serial, current });
    }
    let catalog = read(signed.digest(), &bundle)?;
    for manifest in catalog.manifests.values() {
        keep_slots(tx, clock, random, manifest).await?;
    }
    store::insert_bundle(tx, &catalog.digest, catalog.serial, signed, now).await?;
    let entry = Entry::new(now, Who::cli(), Action::CatalogImported)
        .detail("digest", &catalog.digest)
        .detail("serial", catalog.serial)
        .detail("publisher", publisher.name());
    audit::append(tx, &entry).await?;
    Ok(catalog)
}

/// The newest imported bundle.
pub async fn current(tx: &mut Tx) -> Result<Option<Catalog>, CatalogError> {
    match store::newest_digest(tx).await? {
        Some(digest) => by_digest(tx, &digest).await,
        None => Ok(None),
    }
}

pub async fn by_digest(tx: &mut Tx, digest: &str) -> Result<Option<Catalog>, CatalogError> {
    let Some(signed) = signed(tx, digest).await? else { return Ok(None) };
    let bundle: Bundle = serde_json::from_slice(&signed.payload).map_err(BundleError::from)?;
    Ok(Some(read(digest.to_owned(), &bundle)?))
}

/// The digest of the newest imported bundle, and the bundle as it is stored.
pub async fn newest_signed(tx: &mut Tx) -> Result<Option<(String, SignedBundle)>, sqlx::Error> {
    let Some(digest) = store::newest_digest(tx).await? else { return Ok(None) };
    Ok(store::bundle(tx, &digest).await?.map(|signed| (digest, signed)))
}

/// The bundle as agents fetch it.
pub async fn signed(tx: &mut Tx, digest: &str) -> Result<Option<SignedBundle>, sqlx::Error> {
    store::bundle(tx, digest).await
}

/// The slots of these components, in the order of component and key.
pub async fn slots(tx: &mut Tx, components: &[String]) -> Result<Vec<AnySlot>, sqlx::Error> {
    let mut found = Vec::new();
    for component in components {
        found.extend(store::slots_of(tx, component).await?.into_iter().map(AnySlot::from));
    }
    Ok(found)
}

pub async fn slot(tx: &mut Tx, component: &str, slot: &str) -> Result<Option<AnySlot>, sqlx::Error> {
    Ok(store::slot(tx, component, slot).await?.map(AnySlot::from))
}

fn read(digest: String, bundle: &Bundle) -> Result<Catalog, CatalogError> {
    let tiers =
        toml::from_str(&bundle.tiers).map_err(|error| CatalogError::Check(format!("tiers.toml: {error}")))?;
    Ok(Catalog { digest, serial: bundle.serial, manifests: bundle.parse_manifests()?, tiers })
}

async fn keep_slots(
    tx: &mut Tx,
    clock: &dyn Clock,
    random: &dyn Random,
    manifest: &Manifest,
) -> Result<(), CatalogError> {
    for slot in &manifest.slots {
        match store::slot(tx, &manifest.key, &slot.key).await? {
            Some(stored) if stored.tag != slot.tag => {
                return Err(CatalogError::TagChanged {
                    component: manifest.key.clone(),
                    slot: slot.key.clone(),
                    stored: stored.tag,
                    bundle: slot.tag,
                });
            }
            Some(stored) => store::update_slot(tx, stored.id, slot).await?,
            None => store::insert_slot(tx, SlotId::new(clock, random), &manifest.key, slot).await?,
        }
    }
    Ok(())
}

/// When a bundle signed now ends, unless its publisher says otherwise: a year.
pub fn default_not_after(now: Timestamp) -> Timestamp {
    now.after(std::time::Duration::from_secs(365 * 24 * 3600))
}

impl Catalog {
    /// A component's name for people; its key when this bundle doesn't have it.
    pub fn name_of(&self, component: &str) -> String {
        self.manifests.get(component).map_or_else(|| component.to_owned(), |manifest| manifest.name.clone())
    }
}
