//! What a person enters on the device: checked against the signed manifest of the scope, then the daemon writes it.
//!
//! Only client-supplied slots: ours come from the board, and never the other way round. No reason shows a value.

use std::fmt;
use std::sync::PoisonError;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::catalog::Tag;
use shared::crypto::base64;
use shared::secret::Secret;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{Answer, Broker, NO_CATALOG};
use crate::slots::{self, Unfit};

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
}

impl Broker {
    pub(super) fn slots(&self) -> Answer {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let Some(catalog) = &current.catalog else { return Answer::refused(NO_CATALOG) };
        let mut lines = Vec::new();
        for manifest in catalog.of_scope(&current.components, self.platform) {
            for slot in &manifest.slots {
                match self.vault.read(&manifest.key, &slot.key) {
                    Ok(held) => lines.push(SlotLine {
                        component: manifest.key.clone(),
                        slot: slot.key.clone(),
                        name: slot.name.clone(),
                        tag: slot.tag,
                        required: slot.required,
                        one_of: slot.one_of.clone(),
                        filled: held.is_some(),
                    }),
                    Err(error) => return Answer::refused(error.to_string()),
                }
            }
        }
        Answer::Slots(lines)
    }

    pub(super) async fn paste(&self, pasting: Pasting) -> Answer {
        if let Err(refusal) = self.check(&pasting) {
            return refusal;
        }
        let (written, answer) = oneshot::channel();
        let Pasting { component, slot, value } = pasting;
        let paste = Paste { component, slot, value, written };
        let stopping = || Answer::refused("the agent is stopping; nothing was changed. Paste it again");
        if self.pastes.send(paste).await.is_err() {
            return stopping();
        }
        match answer.await {
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
