//! Whether a credential works: the provider is asked from here, in process, as the signed manifest says.
//!
//! A value goes into a header of one HTTPS request to the manifest's host, and nowhere else. Of the answer only the
//! status and the named fields are kept, short and masked. What can't be found out is unverifiable, with the reason.

mod memory;
mod request;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::catalog::{Manifest, VerifySecret};
use shared::protocol::inventory::SlotState;
use shared::secret::Secret;

use crate::outbound::{self, Outbound};
use crate::steps::mask::Masks;
use crate::vault::{StoreError, Vault};

pub use memory::{Due, Memory};
use request::NoRequest;

/// For the whole exchange.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// What is read of an answer, in bytes.
const BODY: usize = 64 * 1024;
/// What is kept of one field, in characters.
const FIELD: usize = 200;

/// What asking came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// In words, for a person.
    pub said: String,
    pub recorded: BTreeMap<String, String>,
    /// It says nothing about the credential and may be different soon: the network, the provider's own trouble.
    pub passing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Verified,
    Rejected,
    Unverifiable,
}

impl From<Verdict> for SlotState {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Verified => Self::Verified,
            Verdict::Rejected => Self::Rejected,
            Verdict::Unverifiable => Self::Unverifiable,
        }
    }
}

impl Finding {
    fn unverifiable(said: impl Into<String>, passing: bool) -> Self {
        Self { verdict: Verdict::Unverifiable, said: said.into(), recorded: BTreeMap::new(), passing }
    }
}

/// One slot of one component, and what a request about it is made of.
pub struct Question<'a> {
    pub manifest: &'a Manifest,
    pub slot: &'a str,
    pub check: &'a VerifySecret,
    pub params: &'a BTreeMap<String, String>,
    pub vault: &'a Vault,
}

/// Asks the provider. Only a store that fails is an error.
pub async fn ask(
    outbound: &Outbound,
    question: &Question<'_>,
    timeout: Duration,
) -> Result<Finding, StoreError> {
    let request = match request::of(outbound, question) {
        Ok(request) => request,
        Err(NoRequest::Because(reason)) => return Ok(Finding::unverifiable(reason, false)),
        Err(NoRequest::Store(error)) => return Err(error),
    };
    let host = request.host;
    let asking = async {
        let response = request
            .builder
            .send()
            .await
            .map_err(|error| Finding::unverifiable(format!("{host} {}", outbound::words(error)), true))?;
        let status = response.status().as_u16();
        let body = read(response, &host).await?;
        Ok((status, body))
    };
    let (status, body) = match tokio::time::timeout(timeout, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(finding)) => return Ok(finding),
        Err(_) => {
            let said = format!("{host} gave no answer in {} seconds", timeout.as_secs());
            return Ok(Finding::unverifiable(said, true));
        }
    };
    let masks = Masks::new(&question.vault.values()?);
    Ok(judge(question.check, &host, status, &body, &masks, &request.values))
}

/// The body, if it is of a size that an answer to such a question has.
async fn read(mut response: Response, host: &str) -> Result<Vec<u8>, Finding> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY => {
                let said =
                    format!("{host} answered with more than {} KiB; nothing of it is kept", BODY / 1024);
                return Err(Finding::unverifiable(said, false));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                return Err(Finding::unverifiable(format!("{host} {}", outbound::words(error)), true));
            }
        }
    }
}

fn judge(
    check: &VerifySecret,
    host: &str,
    status: u16,
    body: &[u8],
    masks: &Masks,
    values: &[Secret<String>],
) -> Finding {
    // Why it can't be read may repeat what is in it.
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let ok = check.ok.holds(status, json.as_ref());
    let bad = check.bad.as_ref().is_some_and(|bad| bad.holds(status, json.as_ref()));
    let asks_json = check.ok.needs_json() || check.bad.as_ref().is_some_and(|bad| bad.needs_json());
    let (verdict, how, passing) = match (ok, bad) {
        (true, false) => (Verdict::Verified, "and accepts it", false),
        (false, true) => (Verdict::Rejected, "and refuses it", false),
        (true, true) => (Verdict::Unverifiable, "which means both that it works and that it doesn't", false),
        (false, false) if (300..400).contains(&status) => {
            (Verdict::Unverifiable, "and sends elsewhere; it was not followed", false)
        }
        (false, false) if asks_json && json.is_none() => {
            (Verdict::Unverifiable, "with something that is no JSON", status >= 500 || status == 429)
        }
        (false, false) => (
            Verdict::Unverifiable,
            "which means neither that it works nor that it doesn't",
            status >= 500 || status == 429,
        ),
    };
    let recorded = json.as_ref().map(|json| recorded(check, json, masks, values)).unwrap_or_default();
    Finding { verdict, said: format!("{host} answered {status} {how}"), recorded, passing }
}

/// The named fields that are a short text, a number or a truth; a list or an object is not kept.
fn recorded(
    check: &VerifySecret,
    json: &Value,
    masks: &Masks,
    values: &[Secret<String>],
) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null => Some("null".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    };
    check
        .record
        .iter()
        .filter_map(|path| {
            let text = text(path.find(json)?)?;
            // Before it is cut: half a secret would not be recognised.
            let holds = |value: &Secret<String>| text.contains(value.expose().as_str());
            let text = if values.iter().any(holds) { "••••".to_owned() } else { masks.apply(&text) };
            let short = text.chars().filter(|c| !c.is_control()).take(FIELD).collect();
            Some((path.to_string(), short))
        })
        .collect()
}

#[cfg(test)]
mod tests;
