//! What a person enters on the device: checked against the signed manifest of the scope, then the daemon writes it.
//!
//! Only client-supplied slots: ours come from the board, and never the other way round. No reason shows a value.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::catalog::Tag;
use shared::crypto::base64;
use shared::secret::Secret;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::{Answer, Broker, NO_CATALOG};
use crate::slots::{self, Unfit};

/// How long the daemon may be busy with something else. Whoever asks waits longer than that.
const PATIENCE: Duration = Duration::from_secs(8);

/// A slot of the scope, as `board-agent paste --list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLine {
    pub component: String,
    pub slot: String,
    pub name: String,
    pub tag: Tag,
    pub required: bool,
    /// Exactly one slot of this group is to be filled.
    pub one_of: Option<String>,
    pub filled: bool,
}

impl fmt::Display for SlotLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.component, self.slot)
    }
}

#[derive(Serialize, Deserialize)]
pub struct Pasting {
    pub component: String,
    pub slot: String,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub value: Secret<Vec<u8>>,
}

/// Checked; the daemon is to write it.
pub struct Paste {
    pub component: String,
    pub slot: String,
    pub value: Secret<Vec<u8>>,
    pub written: oneshot::Sender<Result<(), String>>,
    claim: Claim,
}

/// Either the daemon writes it, or whoever pasted is told that nothing was changed: who comes first.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Paste {
    /// Called before it is written; `false` when nobody waits for it any more.
    pub fn claim(&self) -> bool {
        !self.written.is_closed() && self.claim.take()
    }
}

impl Broker {
    pub(super) fn slots(&self) -> Answer {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Some(catalog) = &current.catalog else { return Answer::refused(NO_CATALOG) };
        let mut lines = Vec::new();
        for manifest in catalog.of_scope(&current.components, self.platform) {
            for slot in &manifest.slots {
                // One that can't be read doesn't hide the others; pasting into it says why it fails.
                let held = self.vault.read(&manifest.key, &slot.key).unwrap_or_else(|error| {
                    tracing::error!(component = manifest.key, slot = slot.key, %error, "a slot can't be read");
                    None
                });
                lines.push(SlotLine {
                    component: manifest.key.clone(),
                    slot: slot.key.clone(),
                    name: slot.name.clone(),
                    tag: slot.tag,
                    required: slot.required,
                    one_of: slot.one_of.clone(),
                    filled: held.is_some(),
                });
            }
        }
        Answer::Slots(lines)
    }

    pub(super) async fn paste(&self, pasting: Pasting) -> Answer {
        self.paste_within(pasting, PATIENCE).await
    }

    pub(super) async fn paste_within(&self, pasting: Pasting, patience: Duration) -> Answer {
        if let Err(refusal) = self.check(&pasting) {
            return refusal;
        }
        let (written, mut answer) = oneshot::channel();
        let Pasting { component, slot, value } = pasting;
        let claim = Claim::default();
        let paste = Paste { component, slot, value, written, claim: claim.clone() };
        let stopping = || Answer::refused("the agent is stopping; nothing was changed. Paste it again");
        let until = Instant::now() + patience;
        match timeout_at(until, self.pastes.send(paste)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return stopping(),
            Err(_) => return busy(),
        }
        let said = match timeout_at(until, &mut answer).await {
            Ok(said) => said,
            Err(_) if claim.take() => return busy(),
            // It is being written this moment.
            Err(_) => answer.await,
        };
        match said {
            Ok(Ok(())) => Answer::Pasted,
            Ok(Err(reason)) => Answer::refused(reason),
            Err(_) => stopping(),
        }
    }

    fn check(&self, pasting: &Pasting) -> Result<(), Answer> {
        let Pasting { component, slot, value } = pasting;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let catalog = current.catalog.as_ref().ok_or_else(|| Answer::refused(NO_CATALOG))?;
        let slot = catalog
            .of_scope(&current.components, self.platform)
            .find(|manifest| manifest.key == *component)
            .and_then(|manifest| manifest.slot(slot))
            .ok_or_else(|| Answer::refused(format!("this device's scope has no slot {component}/{slot}")))?;
        let key = format!("{component}/{}", slot.key);
        if slot.tag != Tag::ClientSupplied {
            return Err(Answer::refused(format!("{key}: this one is delivered by the board")));
        }
        slots::check_entered(component, slot, value.expose()).map_err(|unfit| match unfit {
            Unfit::Value(reason) => Answer::BadValue { reason },
            Unfit::Slot(reason) => Answer::refused(reason),
        })
    }
}

fn busy() -> Answer {
    Answer::refused("the agent is busy; nothing was changed. Paste it again in a minute")
}

fn to_base64<S: Serializer>(value: &Secret<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&Zeroizing::new(base64::encode(value.expose())))
}

/// Straight from the request's own bytes, which are wiped after.
fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<Vec<u8>>, D::Error> {
    struct Base64;
    impl Visitor<'_> for Base64 {
        type Value = Secret<Vec<u8>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            base64::decode(text).map(Secret::new).map_err(|_| E::custom("not base64"))
        }
    }
    deserializer.deserialize_str(Base64)
}
