//! Signed bundles: verified by the publisher keys of this device before anything in them is believed, and again each
//! time they are read from disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use shared::catalog::{Bundle, BundleError, Manifest, Platform, PublisherKey, SignedBundle};
use shared::time::Timestamp;

use crate::config::Paths;
use crate::files;
use crate::journal::Seen;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("{0:?} is not the digest of a bundle")]
    Digest(String),
    #[error("the board sent another bundle than the one that was asked for")]
    OtherDigest,
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the bundle can't be stored: {0}")]
    Io(#[from] std::io::Error),
}

impl CatalogError {
    /// Whether trying the same again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Io(_) => true,
            Self::Digest(_) | Self::OtherDigest | Self::Bundle(_) => false,
        }
    }
}

/// A verified bundle and its manifests.
#[derive(Debug)]
pub struct Catalog {
    pub digest: String,
    pub bundle: Bundle,
    pub manifests: BTreeMap<String, Manifest>,
}

impl Catalog {
    /// The manifests of these components, as far as they are for this platform.
    pub fn of_scope<'a>(
        &'a self,
        components: &'a [String],
        platform: Platform,
    ) -> impl Iterator<Item = &'a Manifest> {
        components
            .iter()
            .filter_map(|key| self.manifests.get(key))
            .filter(move |manifest| manifest.platforms.contains(&platform))
    }

    pub fn seen(&self) -> Seen {
        Seen {
            serial: self.bundle.serial,
            min_serial: self.bundle.min_serial,
            revoked_steps: self.bundle.revoked_steps.clone(),
        }
    }
}

/// The bundles on this device.
#[derive(Clone)]
pub struct Shelf {
    folder: PathBuf,
    keys: Arc<RwLock<Vec<PublisherKey>>>,
}

impl Shelf {
    pub fn new(paths: &Paths, keys: Vec<PublisherKey>) -> Self {
        Self { folder: paths.bundles(), keys: Arc::new(RwLock::new(keys)) }
    }

    /// From now on these are believed and no others, by every clone too.
    pub fn trust(&self, keys: Vec<PublisherKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// A bundle that was accepted before.
    pub fn stored(&self, digest: &str) -> Result<Option<Catalog>, CatalogError> {
        let Some(bytes) = files::read_if_there(&self.path(digest)?)? else { return Ok(None) };
        let signed = serde_json::from_slice(&bytes).map_err(BundleError::Payload)?;
        self.verify(digest, &signed).map(Some)
    }

    /// Verifies what the board sent, refuses it when it is older than what was seen, and keeps it.
    pub fn accept(
        &self,
        digest: &str,
        signed: &SignedBundle,
        seen: u64,
        now: Timestamp,
    ) -> Result<Catalog, CatalogError> {
        let path = self.path(digest)?;
        let catalog = self.verify(digest, signed)?;
        catalog.bundle.check_fresh(seen, now)?;
        let bytes = serde_json::to_vec(signed).map_err(BundleError::Payload)?;
        files::write_atomic(&path, &bytes, 0o600)?;
        Ok(catalog)
    }

    fn verify(&self, digest: &str, signed: &SignedBundle) -> Result<Catalog, CatalogError> {
        if signed.digest() != digest {
            return Err(CatalogError::OtherDigest);
        }
        let bundle = signed.verify(&self.keys.read().unwrap_or_else(PoisonError::into_inner))?;
        let manifests = bundle.parse_manifests()?;
        Ok(Catalog { digest: digest.to_owned(), bundle, manifests })
    }

    /// The digest names a file: it must be nothing but a digest.
    fn path(&self, digest: &str) -> Result<PathBuf, CatalogError> {
        if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(self.folder.join(format!("{digest}.json")))
        } else {
            Err(CatalogError::Digest(digest.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::catalog::{generate_publisher_key, sign};
    use shared::random::SystemRandom;
    use shared::time::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn only_what_the_publisher_signed_and_nothing_older_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        let (private, public) = generate_publisher_key(&SystemRandom).unwrap();
        let (stranger, _) = generate_publisher_key(&SystemRandom).unwrap();
        let shelf = Shelf::new(&paths, vec![PublisherKey::from_pem(&public).unwrap()]);
        let now = SystemClock.now();
        let bundle = Bundle {
            serial: 5,
            min_serial: 1,
            not_after: now.after(Duration::from_secs(60)),
            revoked_steps: Vec::new(),
            tiers: String::new(),
            manifests: BTreeMap::new(),
        };
        let signed = sign(&bundle, &private).unwrap();
        let digest = signed.digest();

        let other = sign(&bundle, &stranger).unwrap();
        assert!(matches!(
            shelf.accept(&digest, &other, 0, now),
            Err(CatalogError::Bundle(BundleError::Signature))
        ));
        assert!(matches!(
            shelf.accept(&digest, &signed, 6, now),
            Err(CatalogError::Bundle(BundleError::Older { got: 5, seen: 6 }))
        ));
        assert!(matches!(
            shelf.accept(&digest, &signed, 0, now.after(Duration::from_secs(61))),
            Err(CatalogError::Bundle(BundleError::Ended(_)))
        ));
        assert!(matches!(shelf.accept("../x", &signed, 0, now), Err(CatalogError::Digest(_))));
        assert!(matches!(shelf.accept(&"0".repeat(64), &signed, 0, now), Err(CatalogError::OtherDigest)));
        assert!(shelf.stored(&digest).unwrap().is_none(), "nothing refused was kept");

        shelf.accept(&digest, &signed, 5, now).unwrap();
        assert_eq!(shelf.stored(&digest).unwrap().unwrap().bundle.serial, 5);
        let file = paths.bundles().join(format!("{digest}.json"));
        std::fs::write(&file, serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(shelf.stored(&digest).is_err(), "a changed file is not believed");
    }
}
