//! `file:PATH` and `keychain:NAME` each hold a key-encryption key of 32 bytes: in a 0600 file, or as an item of a Mac's
//! System keychain. The root key is wrapped under it with AES-256-GCM.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use shared::keychain::{self, Item, Keychain};
use shared::random::{self, Random};
use shared::secret::Secret;

use super::{Answer, Binding, Provider, ProviderError, Source};
use crate::aead;
use crate::keys::Key;

#[derive(Debug)]
pub struct Local {
    key: Key,
}

impl Provider for Local {
    fn wrap<'a>(&'a self, binding: Binding, root: &'a Key, random: &'a dyn Random) -> Answer<'a, Vec<u8>> {
        let sealed = aead::seal(&self.key, &aad(binding), root.expose(), random);
        Box::pin(std::future::ready(sealed.map_err(|_| ProviderError::Unwrap)))
    }

    fn unwrap<'a>(&'a self, binding: Binding, wrapped: &'a [u8]) -> Answer<'a, Key> {
        let opened = aead::open(&self.key, &aad(binding), wrapped).map_err(|_| ProviderError::Unwrap);
        let key = opened.and_then(|root| {
            root.expose().as_slice().try_into().map(Secret::new).map_err(|_| ProviderError::Unwrap)
        });
        Box::pin(std::future::ready(key))
    }
}

pub(super) fn open_file(source: &Source, path: &Path) -> Result<Local, ProviderError> {
    let fail = |error| ProviderError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.permissions().mode() & 0o077 != 0 {
        return Err(ProviderError::Mode(path.to_owned()));
    }
    let mut bytes = Vec::with_capacity(33);
    file.take(33).read_to_end(&mut bytes).map_err(fail)?;
    with_key(source, &Secret::new(bytes))
}

pub(super) fn create_file(path: &Path, random: &dyn Random) -> Result<Local, ProviderError> {
    let fail = |error| ProviderError::File { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let key: Key = Secret::new(random::bytes(random));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(key.expose()).and_then(|()| file.sync_all()).map_err(fail)?;
    Ok(Local { key })
}

pub(super) fn system(source: &Source) -> Result<Box<dyn Keychain>, ProviderError> {
    keychain::system().map_err(|error| ProviderError::Keychain { source_uri: source.clone(), error })
}

pub(in crate::keys) fn open_item(
    source: &Source,
    item: &Item,
    keychain: &dyn Keychain,
) -> Result<Local, ProviderError> {
    let found = keychain
        .get(item)
        .map_err(|error| ProviderError::Keychain { source_uri: source.clone(), error })?
        .ok_or_else(|| ProviderError::Missing(source.clone()))?;
    with_key(source, &found)
}

pub(in crate::keys) fn create_item(
    source: &Source,
    item: &Item,
    keychain: &dyn Keychain,
    random: &dyn Random,
) -> Result<Local, ProviderError> {
    let fail = |error| ProviderError::Keychain { source_uri: source.clone(), error };
    if keychain.get(item).map_err(fail)?.is_some() {
        return Err(ProviderError::Exists(source.clone()));
    }
    let key: Key = Secret::new(random::bytes(random));
    keychain.set(item, &Secret::new(key.expose().to_vec())).map_err(fail)?;
    Ok(Local { key })
}

fn with_key(source: &Source, bytes: &Secret<Vec<u8>>) -> Result<Local, ProviderError> {
    let key = bytes.expose().as_slice().try_into().map_err(|_| ProviderError::Length(source.clone()))?;
    Ok(Local { key: Secret::new(key) })
}

/// The key is this board's own, so the version is enough.
fn aad(binding: Binding) -> Vec<u8> {
    shared::crypto::ByteString::labelled("board/root-wrap/v1").u32(binding.version).finish()
}
