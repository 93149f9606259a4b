//! The request that a check makes. A value becomes part of a header that is marked as sensitive, or there is no request.

use std::collections::BTreeMap;

use regex::Regex;
use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue};
use shared::catalog::{Manifest, Method, Part, Template};
use shared::crypto::base64;
use shared::secret::Secret;
use zeroize::Zeroizing;

use super::Question;
use crate::outbound::{self, Outbound};
use crate::vault::StoreError;

pub struct Request {
    pub builder: RequestBuilder,
    pub host: String,
    /// Every secret in it.
    pub values: Vec<Secret<String>>,
}

pub enum NoRequest {
    Store(StoreError),
    /// For a person; it never shows a value.
    Because(String),
}

impl From<StoreError> for NoRequest {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub fn of(outbound: &Outbound, question: &Question<'_>) -> Result<Request, NoRequest> {
    let because = |reason: String| NoRequest::Because(reason);
    let check = question.check;
    let host = check.url.host.name(|key| param(question.manifest, question.params, key));
    let host = host.ok_or_else(|| {
        because("the param in the check's address is missing, or is no part of a host's name".to_owned())
    })?;
    let client = outbound
        .client(0)
        .map_err(|error| because(format!("HTTPS can't be set up: it {}", outbound::words(error))))?;
    let url = format!("https://{host}{}", check.url.path);
    let mut builder = match check.method {
        Method::Get => client.get(url),
        // Without a length some servers refuse a POST (411).
        Method::Post => client.post(url).header(CONTENT_LENGTH, "0"),
    };
    let mut filler = Filler { question, values: Vec::new() };
    for (name, template) in &check.headers {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| because(format!("{name} can't be the name of a header")))?;
        let value = sensitive(&filler.fill(template)?)
            .ok_or_else(|| because(format!("the header {name} can't take a character of its value")))?;
        builder = builder.header(header, value);
    }
    if let Some(template) = &check.basic {
        let text = filler.fill(template)?;
        let basic = Zeroizing::new(format!("Basic {}", *Zeroizing::new(base64::encode(text.as_bytes()))));
        let value = sensitive(&basic).ok_or_else(|| because("HTTP Basic can't be set up".to_owned()))?;
        builder = builder.header(AUTHORIZATION, value);
    }
    Ok(Request { builder, host, values: filler.values })
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

struct Filler<'a> {
    question: &'a Question<'a>,
    values: Vec<Secret<String>>,
}

impl Filler<'_> {
    fn fill(&mut self, template: &Template) -> Result<Zeroizing<String>, NoRequest> {
        let Question { manifest, slot, params, .. } = *self.question;
        let mut filled = Zeroizing::new(String::new());
        for part in template.parts() {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Param(key) => filled.push_str(&param(manifest, params, key).ok_or_else(|| {
                    NoRequest::Because(format!("the param {key} is missing or does not fit its pattern"))
                })?),
                Part::Secret => filled.push_str(self.value(slot)?.expose()),
                Part::Slot(key) => filled.push_str(self.value(key)?.expose()),
            }
        }
        Ok(filled)
    }

    fn value(&mut self, key: &str) -> Result<&Secret<String>, NoRequest> {
        let component = &self.question.manifest.key;
        let held = self.question.vault.read(component, key)?;
        let held =
            held.ok_or_else(|| NoRequest::Because(format!("{component}/{key} is not on this device yet")))?;
        let text = std::str::from_utf8(held.value.expose())
            .map_err(|_| NoRequest::Because(format!("{component}/{key} is not text")))?;
        self.values.push(Secret::new(text.to_owned()));
        Ok(&self.values[self.values.len() - 1])
    }
}

/// A param's value, if the manifest accepts it.
fn param(manifest: &Manifest, params: &BTreeMap<String, String>, key: &str) -> Option<String> {
    let value = params.get(key)?;
    let pattern = &manifest.params.iter().find(|param| param.key == key)?.pattern;
    // Anchored once more here: a pattern that forgot it must not let anything through.
    let pattern = Regex::new(&format!("^(?:{pattern})$")).ok()?;
    pattern.is_match(value).then(|| value.clone())
}
