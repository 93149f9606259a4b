//! `[verify_secret.SLOT]`: how the device asks a provider whether a credential works.
//!
//! Everything in it is parsed into a type when the manifest is read; no text is evaluated later. What may be asked is
//! closed on purpose: a literal host, values in headers only, two shapes of conditions.

mod condition;
mod template;
#[cfg(test)]
mod tests;
mod url;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use condition::{Condition, FieldPath, Literal};
pub use template::{Part, Template};
pub use url::{CheckUrl, Host};

/// Whether a credential works; asked on the device, in process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifySecret {
    pub method: Method,
    pub url: CheckUrl,
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// `user:password` of HTTP Basic, before base64.
    pub basic: Option<Template>,
    /// The credential works.
    pub ok: Condition,
    /// The provider refuses it. What fits neither is unverifiable.
    pub bad: Option<Condition>,
    /// What is kept of the answer, and nothing else.
    #[serde(default)]
    pub record: Vec<FieldPath>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Method {
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "POST")]
    Post,
}

impl VerifySecret {
    /// Every template with a name for it, as errors say it.
    pub fn templates(&self) -> impl Iterator<Item = (&str, &Template)> {
        let headers = self.headers.iter().map(|(name, template)| (name.as_str(), template));
        headers.chain(self.basic.iter().map(|template| ("basic", template)))
    }

    /// The component's slots that are read beside the one that is checked.
    pub fn other_slots(&self) -> impl Iterator<Item = &str> {
        self.templates().flat_map(|(_, template)| template.parts()).filter_map(|part| match part {
            Part::Slot(key) => Some(key.as_str()),
            Part::Text(_) | Part::Secret | Part::Param(_) => None,
        })
    }

    /// The component's params that a request is made with.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        let in_templates =
            self.templates().flat_map(|(_, template)| template.parts()).filter_map(|part| match part {
                Part::Param(key) => Some(key.as_str()),
                Part::Text(_) | Part::Secret | Part::Slot(_) => None,
            });
        self.url.host.param().into_iter().chain(in_templates)
    }
}
