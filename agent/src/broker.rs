//! Gives secrets to programs on the device and takes those that people paste, over a Unix socket: one JSON line asks,
//! one answers.
//!
//! The peer must be the managed user or root, and the signed manifest must list the slot for that wrapper. Every reading
//! is journalled before the value leaves.

mod client;
mod leaving;
mod pasting;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::catalog::{Manifest, Platform, Wrapper};
use shared::secret::MAX_LEN;
use shared::time::Clock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use zeroize::Zeroizing;

use crate::bundles::Catalog;
use crate::config::{Identity, Paths};
use crate::journal::{Journal, Params, Reading};
use crate::slots;
use crate::steps::environment::{self, Environment};
use crate::vault::Vault;

pub use client::{AskError, ask};
pub use leaving::{LeaveAsked, Wiped};
pub use pasting::{Paste, Pasting, SlotLine};

/// Room for the largest value in base64, and the words around it.
const LONGEST_REQUEST: usize = MAX_LEN.div_ceil(3) * 4 + 2048;
/// For what a program has to say, and again for reading the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Conversations at once; who comes later waits in the socket's queue.
const MOST: usize = 16;
const STRANGER: &str = "only the managed user of this device may ask";
const NO_CATALOG: &str = "the agent has no catalog yet: it must reach its board first";

/// No Debug: it holds values. Variants name themselves outside of their content: an inner tag would make serde copy the
/// content into memory that nobody wipes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What a wrapper needs.
    Environment(Ask),
    /// The slots of this device's scope, without their values.
    Slots,
    /// A person's value for a client-supplied slot.
    Paste(Pasting),
    /// Tell the board that this device leaves.
    Leave { pasted: bool },
    /// How its wipe stands.
    Wiped,
    /// The device left: the daemon ends.
    End,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub component: String,
    /// Without one: the wrapper of the component's name, or its only one.
    pub wrapper: Option<String>,
}

/// No Debug: it holds values.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    Slots(Vec<SlotLine>),
    /// None while nothing was wiped.
    Wiped(Option<Wiped>),
    /// The request is on its way.
    Done,
    /// Written, read back, and on its way to the board that it is there.
    Pasted,
    /// The value can't be right. The reason never shows it.
    BadValue {
        reason: String,
    },
    Refused {
        reason: String,
    },
}

impl Answer {
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}

/// The verified catalog of the scope, as the daemon knows it.
#[derive(Default)]
pub struct Current {
    pub catalog: Option<Arc<Catalog>>,
    pub components: Vec<String>,
    pub params: Params,
}

pub struct Broker {
    pub identity: Arc<Identity>,
    pub paths: Paths,
    pub vault: Arc<Vault>,
    pub journal: Arc<Journal>,
    pub clock: Arc<dyn Clock>,
    pub current: Arc<RwLock<Current>>,
    pub platform: Platform,
    /// The daemon writes them, one after the other.
    pub pastes: mpsc::Sender<Paste>,
    pub leaves: mpsc::Sender<LeaveAsked>,
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
    /// Serves until it is dropped. Who has nothing to ask is sent away before they have said a word: everybody may
    /// connect, and nobody is to use up what the managed user needs.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let turns = Arc::new(Semaphore::new(MOST));
        loop {
            // Never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let Some(uid) = self.known(&stream) else { continue };
                    let broker = Arc::clone(&self);
                    tokio::spawn(async move {
                        let _turn = turn;
                        if let Err(error) = broker.talk(uid, stream).await {
                            tracing::debug!(%error, "a program left the broker early");
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

    /// Whose connection it is, when it is one of those who may ask.
    fn known(&self, stream: &UnixStream) -> Option<u32> {
        let uid = stream.peer_cred().ok()?.uid();
        if self.may_ask(uid) {
            return Some(uid);
        }
        tracing::warn!(uid, "another user came to the broker");
        // Best effort: an answer that fits into the socket's buffer, or none.
        if let Ok(bytes) = serde_json::to_vec(&Answer::refused(STRANGER)) {
            let _ = stream.try_write(&[&bytes, b"\n".as_slice()].concat());
        }
        None
    }

    fn may_ask(&self, uid: u32) -> bool {
        uid == 0 || uid == self.identity.managed_user.uid
    }

    async fn talk(&self, uid: u32, mut stream: UnixStream) -> io::Result<()> {
        let (mut from, mut to) = stream.split();
        let line = tokio::time::timeout(TIMEOUT, read_line(&mut from)).await??;
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => self.answer(uid, request).await,
            Err(_) => Answer::refused("the request can't be understood"),
        };
        drop(line);
        let mut bytes = Zeroizing::new(Vec::with_capacity(128 * 1024));
        serde_json::to_writer(&mut *bytes, &answer).map_err(io::Error::other)?;
        bytes.push(b'\n');
        tokio::time::timeout(TIMEOUT, to.write_all(&bytes)).await?
    }

    /// What a process of this user gets.
    pub async fn answer(&self, uid: u32, request: Request) -> Answer {
        if !self.may_ask(uid) {
            return Answer::refused(STRANGER);
        }
        match request {
            Request::Environment(ask) => self.environment(uid, &ask),
            Request::Slots => self.slots(),
            Request::Paste(pasting) => self.paste(pasting).await,
            Request::Leave { .. } | Request::Wiped | Request::End if uid != 0 && !self.identity.dev => {
                Answer::refused("only root may make this device leave: use sudo")
            }
            Request::Leave { pasted } => self.leave(pasted).await,
            Request::Wiped => self.wiped(),
            Request::End => self.end().await,
        }
    }

    fn environment(&self, uid: u32, ask: &Ask) -> Answer {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Some(catalog) = &current.catalog else {
            return Answer::refused(NO_CATALOG);
        };
        let Some(manifest) = catalog.manifests.get(&ask.component) else {
            return Answer::refused(format!("the catalog has no component {}", ask.component));
        };
        match find_wrapper(manifest, ask.wrapper.as_deref()) {
            Ok(wrapper) => {
                let params = current.params.get(&ask.component);
                self.values(uid, manifest, wrapper, params).unwrap_or_else(|refusal| refusal)
            }
            Err(reason) => Answer::refused(reason),
        }
    }

    fn values(
        &self,
        uid: u32,
        manifest: &Manifest,
        wrapper: &Wrapper,
        params: Option<&BTreeMap<String, String>>,
    ) -> Result<Answer, Answer> {
        let failed = |error: &dyn std::fmt::Display| Answer::refused(error.to_string());
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
        let listed: Vec<&str> = wrapper.slots.values().map(String::as_str).collect();
        if let Some(reason) = slots::missing(manifest, &listed, |slot| read.iter().any(|r| r == slot)) {
            return Err(Answer::Missing { reason });
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

/// One line, with its end. What is too long for a request arrives cut off, and is no JSON.
async fn read_line(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(vec![0; LONGEST_REQUEST]);
    let mut length = 0;
    while length < line.len() && !line[..length].ends_with(b"\n") {
        match from.read(&mut line[length..]).await? {
            0 => break,
            read => length += read,
        }
    }
    line.truncate(length);
    Ok(line)
}

#[cfg(test)]
mod tests;
