//! Gives secrets to programs on the device, over a Unix socket: one JSON line asks, one answers.
//!
//! The peer must be the managed user or root, and the signed manifest must list the slot for that wrapper. Every reading
//! is journalled before the value leaves.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::catalog::{Manifest, Wrapper};
use shared::time::Clock;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use zeroize::Zeroizing;

use crate::bundles::Catalog;
use crate::config::{Identity, Paths};
use crate::journal::{Journal, Params, Reading};
use crate::steps::environment::{self, Environment};
use crate::vault::Vault;

const LONGEST_REQUEST: u64 = 4096;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub component: String,
    /// Without one: the wrapper of the component's name, or its only one.
    pub wrapper: Option<String>,
}

/// No Debug: it holds values.
#[derive(Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Environment {
        /// Of the managed user: PATH, HOME and what else their programs need.
        user: BTreeMap<String, String>,
        values: Environment,
    },
    /// A secret or a parameter isn't on the device yet.
    Missing {
        reason: String,
    },
    Refused {
        reason: String,
    },
}

/// The verified catalog of the scope, as the daemon knows it.
#[derive(Default)]
pub struct Current {
    pub catalog: Option<Arc<Catalog>>,
    pub params: Params,
}

pub struct Broker {
    pub identity: Arc<Identity>,
    pub paths: Paths,
    pub vault: Arc<Vault>,
    pub journal: Arc<Journal>,
    pub clock: Arc<dyn Clock>,
    pub current: Arc<RwLock<Current>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the broker's socket {path} can't be opened: {error}")]
pub struct BindError {
    path: PathBuf,
    error: io::Error,
}

/// Anyone may connect; who it is decides about the answer.
pub fn bind(paths: &Paths) -> Result<UnixListener, BindError> {
    let path = paths.socket();
    let bound = || {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(listener)
    };
    bound().map_err(|error| BindError { path: path.clone(), error })
}

impl Broker {
    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let broker = Arc::clone(&self);
                    tokio::spawn(async move {
                        match tokio::time::timeout(TIMEOUT, broker.talk(stream)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!(%error, "a program left the broker early"),
                            Err(_) => tracing::debug!("a program asked the broker nothing"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the broker can't accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn talk(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (from, mut to) = stream.split();
        let mut line = String::new();
        BufReader::new(from.take(LONGEST_REQUEST)).read_line(&mut line).await?;
        let answer = match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => self.answer(uid, &ask),
            Err(_) => Answer::Refused { reason: "the request can't be understood".to_owned() },
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(128 * 1024));
        serde_json::to_writer(&mut *bytes, &answer).map_err(io::Error::other)?;
        bytes.push(b'\n');
        to.write_all(&bytes).await
    }

    /// What a process of this user gets.
    pub fn answer(&self, uid: u32, ask: &Ask) -> Answer {
        if uid != 0 && uid != self.identity.managed_user.uid {
            tracing::warn!(uid, component = %ask.component, "another user asked the broker");
            return Answer::Refused { reason: "only the managed user of this device may ask".to_owned() };
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Some(catalog) = &current.catalog else {
            return Answer::Refused {
                reason: "the agent has no catalog yet: it must reach its board first".to_owned(),
            };
        };
        let Some(manifest) = catalog.manifests.get(&ask.component) else {
            return Answer::Refused { reason: format!("the catalog has no component {}", ask.component) };
        };
        match find_wrapper(manifest, ask.wrapper.as_deref()) {
            Ok(wrapper) => {
                let params = current.params.get(&ask.component);
                self.values(uid, manifest, wrapper, params).unwrap_or_else(|refusal| refusal)
            }
            Err(reason) => Answer::Refused { reason },
        }
    }

    fn values(
        &self,
        uid: u32,
        manifest: &Manifest,
        wrapper: &Wrapper,
        params: Option<&BTreeMap<String, String>>,
    ) -> Result<Answer, Answer> {
        let failed = |error: &dyn std::fmt::Display| Answer::Refused { reason: error.to_string() };
        let mut values = Environment::default();
        let mut read = Vec::new();
        for (name, slot) in &wrapper.slots {
            let held = self.vault.read(&manifest.key, slot).map_err(|error| failed(&error))?;
            let Some(held) = held else { continue };
            let text = std::str::from_utf8(held.value.expose())
                .ok()
                .filter(|text| !text.contains('\0'))
                .ok_or_else(|| failed(&format!("the value of {slot} is not text")))?;
            values.insert(name.clone(), text.to_owned());
            read.push(slot.clone());
        }
        if let Some(slot) = missing_slot(manifest, wrapper, &read) {
            return Err(Answer::Missing {
                reason: format!("the secret {}/{slot} is not on this device yet", manifest.key),
            });
        }
        for (name, key) in &wrapper.params {
            match params.and_then(|params| params.get(key)) {
                Some(value) => {
                    values.insert(name.clone(), value.clone());
                }
                None if manifest.params.iter().any(|param| param.key == *key && param.required) => {
                    return Err(Answer::Missing {
                        reason: format!("the parameter {}/{key} is not on this device yet", manifest.key),
                    });
                }
                None => {}
            }
        }
        if !read.is_empty() {
            let reading = Reading {
                at: self.clock.now(),
                uid,
                component: manifest.key.clone(),
                wrapper: wrapper.name.clone(),
                slots: read,
            };
            self.journal.read_by(&reading).map_err(|error| failed(&error))?;
        }
        Ok(Answer::Environment { user: environment::of_user(&self.identity, &self.paths), values })
    }
}

fn find_wrapper<'m>(manifest: &'m Manifest, name: Option<&str>) -> Result<&'m Wrapper, String> {
    let key = &manifest.key;
    if let Some(name) = name {
        return manifest.wrapper(name).ok_or_else(|| format!("{key} has no wrapper {name}"));
    }
    match manifest.wrappers.as_slice() {
        [] => Err(format!("{key} has no wrapper: the catalog lets no program read its secrets")),
        [only] => Ok(only),
        [..] => manifest
            .wrapper(key)
            .ok_or_else(|| format!("{key} has several wrappers: use --for {key}/WRAPPER")),
    }
}

/// A slot that the wrapper needs and doesn't have; of a `one_of` group any one will do.
fn missing_slot(manifest: &Manifest, wrapper: &Wrapper, held: &[String]) -> Option<String> {
    let listed = || wrapper.slots.values().filter_map(|key| manifest.slot(key));
    // A slot that the manifest doesn't declare can't be given, so it counts as missing.
    if let Some(unknown) = wrapper.slots.values().find(|key| manifest.slot(key).is_none()) {
        return Some(unknown.clone());
    }
    listed()
        .find(|slot| {
            slot.required
                && match &slot.one_of {
                    None => !held.contains(&slot.key),
                    Some(group) => !listed()
                        .any(|other| other.one_of.as_ref() == Some(group) && held.contains(&other.key)),
                }
        })
        .map(|slot| slot.key.clone())
}

#[cfg(test)]
mod tests;
