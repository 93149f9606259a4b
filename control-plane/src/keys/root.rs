//! The root key in memory: every living version.

use std::sync::{Arc, PoisonError, RwLock};

use shared::ids::BoardId;

use super::kept::{self, KeptKey};
use super::store::RootKeyRow;
use super::version::mac;
use super::{
    Binding, Key, KeyError, NewVersion, Outside, ProviderError, Purpose, RootVersion, Source, Wrapped,
    number, store,
};
use crate::db::{Db, Tx};

/// Tries to write under a version that is retired at the same moment.
const TRIES: usize = 3;

#[derive(Debug)]
pub struct RootKey {
    board_id: BoardId,
    outside: Outside,
    /// A provider that the operator names beside the database's: a key file that was moved.
    also: Option<Source>,
    held: RwLock<Arc<Held>>,
    trouble: RwLock<Option<String>>,
}

#[derive(Debug)]
struct Held {
    /// The newest first; never empty.
    versions: Vec<Arc<RootVersion>>,
    kept: Vec<Arc<KeptKey>>,
}

impl RootKey {
    /// Of a root key that was just made.
    pub fn of(new: NewVersion, board_id: BoardId, outside: Outside) -> Self {
        Self::holding(Held { versions: vec![Arc::new(new.root)], kept: Vec::new() }, board_id, outside, None)
    }

    /// Unwraps every living version by `also`, or else by the provider of its row. A key that isn't the one the database
    /// was made with is refused.
    pub async fn open(tx: &mut Tx, also: Option<Source>, outside: Outside) -> Result<Self, KeyError> {
        let board_id = store::board_id(tx).await?.ok_or(KeyError::NotInitialized)?;
        let nothing = Held { versions: Vec::new(), kept: Vec::new() };
        let root = Self::holding(nothing, board_id, outside, also);
        root.refresh(tx).await?;
        Ok(root)
    }

    fn holding(held: Held, board_id: BoardId, outside: Outside, also: Option<Source>) -> Self {
        Self { board_id, outside, also, held: RwLock::new(Arc::new(held)), trouble: RwLock::new(None) }
    }

    /// The newest version that this process knows. What is written under it belongs to [`Self::for_writing`].
    pub fn newest(&self) -> Arc<RootVersion> {
        match self.held().versions.first() {
            Some(newest) => Arc::clone(newest),
            None => unreachable!("a root key is made with a version, or opened with one"),
        }
    }

    /// The newest first.
    pub fn versions(&self) -> Vec<Arc<RootVersion>> {
        self.held().versions.clone()
    }

    /// A version that something in the database names. One that this process doesn't know is looked for.
    pub async fn at(&self, tx: &mut Tx, version: u32) -> Result<Arc<RootVersion>, KeyError> {
        if let Some(known) = self.known(version) {
            return Ok(known);
        }
        self.refresh(tx).await?;
        self.known(version).ok_or(KeyError::NoVersion(version))
    }

    /// A transaction that may write, and the newest version in the database, held until it ends. A provider that has to be
    /// asked for it is asked before the transaction begins: nobody else who writes waits for it.
    pub async fn write(&self, db: &Db) -> Result<(Tx, Arc<RootVersion>), KeyError> {
        for _ in 0..TRIES {
            self.look(&mut db.read().await?).await?;
            let mut tx = db.write().await?;
            match self.for_writing(&mut tx).await {
                Err(KeyError::Moving) => {}
                held => return Ok((tx, held?)),
            }
        }
        Err(KeyError::Moving)
    }

    /// The newest version in the database, held until the transaction ends: `board rekey` retires no version that
    /// somebody is writing under. It asks no provider; [`KeyError::Moving`] when this process has to look first.
    pub async fn for_writing(&self, tx: &mut Tx) -> Result<Arc<RootVersion>, KeyError> {
        let newest = self.newest();
        if !self.is_up_to_date(tx).await? || store::hold(tx, newest.version).await? != 1 {
            return Err(KeyError::Moving);
        }
        Ok(newest)
    }

    /// Looks whether the database has other versions than this process, and gets them.
    pub async fn look(&self, tx: &mut Tx) -> Result<(), KeyError> {
        if self.is_up_to_date(tx).await? { Ok(()) } else { self.refresh(tx).await }
    }

    async fn is_up_to_date(&self, tx: &mut Tx) -> Result<bool, sqlx::Error> {
        let known: Vec<u32> = self.held().versions.iter().map(|version| version.version).collect();
        let living = store::living_versions(tx).await?;
        Ok(living.into_iter().map(number).eq(known))
    }

    /// Gets every living version, also those that are known already when there is something new.
    pub async fn refresh(&self, tx: &mut Tx) -> Result<(), KeyError> {
        let got = self.get(tx).await;
        let trouble = got.as_ref().err().map(ToString::to_string);
        *self.trouble.write().unwrap_or_else(PoisonError::into_inner) = trouble;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(got?);
        Ok(())
    }

    /// A version that this process has just stored.
    pub fn add(&self, new: NewVersion) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let versions = std::iter::once(Arc::new(new.root)).chain(held.versions.iter().cloned()).collect();
        let kept = held.kept.clone();
        *held = Arc::new(Held { versions, kept });
    }

    /// Why the last look for the root key failed, for the health page; it asks no provider.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn get(&self, tx: &mut Tx) -> Result<Held, KeyError> {
        let rows = store::living(tx).await?;
        if rows.is_empty() {
            return Err(KeyError::NotInitialized);
        }
        let also = self.elsewhere(tx).await?;
        let (mut found, mut refused) = (!self.held().versions.is_empty(), None);
        let was_rekeyed = store::providers(tx).await?.len() > rows.len();
        let mut versions = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(known) =
                self.known(number(row.version)).filter(|root| root.fingerprint() == row.fingerprint)
            {
                versions.push(known);
                continue;
            }
            let own: Source = row.provider.parse()?;
            let moved = match also {
                Some(also) => Some(self.unwrap_by(also, &row).await),
                None => None,
            };
            versions.push(Arc::new(match moved {
                Some(Ok(root)) => {
                    found = true;
                    root
                }
                Some(Err(error)) => {
                    let root = self.unwrap_by(&own, &row).await;
                    match root {
                        Ok(root) => {
                            refused = Some(error);
                            root
                        }
                        Err(of_own) => {
                            tracing::error!(
                                "nor does the provider that the database names open it: {of_own}"
                            );
                            return Err(error);
                        }
                    }
                }
                None => self.unwrap_by(&own, &row).await?,
            }));
        }
        if let (Some(also), Some(error), false) = (also, refused, found) {
            // After a rekey it may be the moved file of the key before; else it is another board's.
            if !was_rekeyed {
                return Err(error);
            }
            tracing::warn!(
                "--root-key {also} opens nothing of this board's and isn't needed: the providers that the database names open all. Take it out of the settings"
            );
        }
        let kept = kept::open(tx, self.board_id, &versions, self.outside.clock.now()).await?;
        Ok(Held { versions, kept })
    }

    /// The provider that the operator names, when it is none that the database knows: a key file that was moved. One that
    /// it knows is a setting of before a rekey, and does no harm.
    async fn elsewhere(&self, tx: &mut Tx) -> Result<Option<&Source>, sqlx::Error> {
        let Some(also) = &self.also else { return Ok(None) };
        let known = store::providers(tx).await?.contains(&also.to_string());
        Ok((!known).then_some(also))
    }

    async fn unwrap_by(&self, source: &Source, row: &RootKeyRow) -> Result<RootVersion, KeyError> {
        let version = number(row.version);
        let wrong = |got: String| KeyError::WrongKey {
            provider: source.to_string(),
            expected: row.fingerprint.clone(),
            got,
        };
        let unusable = |error| KeyError::Unusable {
            version,
            fingerprint: row.fingerprint.clone(),
            error: Box::new(error),
        };
        let provider = source.open(&self.outside).map_err(unusable)?;
        let binding = Binding { board_id: self.board_id, version };
        let key = match provider.unwrap(binding, &row.wrapped).await {
            Ok(key) => key,
            Err(ProviderError::Unwrap) => return Err(wrong("another one".into())),
            Err(error) => return Err(unusable(error)),
        };
        let root = RootVersion { version, key };
        if root.fingerprint() != row.fingerprint {
            return Err(wrong(root.fingerprint()));
        }
        Ok(root)
    }

    /// Whether every one of these versions can be unwrapped, by `also` or by its own provider: for a database that isn't
    /// open yet.
    pub async fn opens(
        board_id: BoardId,
        wrapped: &[Wrapped],
        also: Option<&Source>,
        outside: Outside,
    ) -> Result<(), KeyError> {
        if wrapped.is_empty() {
            return Err(KeyError::NotInitialized);
        }
        let nothing = Held { versions: Vec::new(), kept: Vec::new() };
        let root = Self::holding(nothing, board_id, outside, None);
        for row in wrapped {
            let row = RootKeyRow {
                version: i64::from(row.version),
                provider: row.provider.clone(),
                wrapped: row.wrapped.clone(),
                fingerprint: row.fingerprint.clone(),
            };
            let own: Source = row.provider.parse()?;
            root.unwrap_by(also.unwrap_or(&own), &row).await?;
        }
        Ok(())
    }

    /// HMAC-SHA-256 of a token or code under its purpose's key: what the database holds instead of the text.
    pub fn hash_token(&self, purpose: Purpose, token: &str) -> Vec<u8> {
        mac(&self.newest().derive(purpose), token)
    }

    /// What the database may hold of a token or code: its hash under each living version and each kept key. The newest
    /// first.
    pub fn hashes(&self, purpose: Purpose, token: &str) -> Vec<Vec<u8>> {
        let held = self.held();
        let living = held.versions.iter().map(|version| mac(&version.derive(purpose), token));
        let kept = held.kept.iter().filter(|kept| kept.purpose == purpose);
        living.chain(kept.map(|kept| mac(&kept.key, token))).collect()
    }

    /// The key of a purpose, of each living version: for what doesn't say under which it was wrapped.
    pub fn keys_for(&self, purpose: Purpose) -> Vec<Key> {
        self.held().versions.iter().map(|version| version.derive(purpose)).collect()
    }

    fn known(&self, version: u32) -> Option<Arc<RootVersion>> {
        self.held().versions.iter().find(|known| known.version == version).cloned()
    }

    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}
