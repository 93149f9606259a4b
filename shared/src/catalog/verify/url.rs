//! Where a check may go: `https://HOST/PATH`, with a literal host or `{param:KEY}` and a literal suffix.

use serde::Deserialize;

use super::template::is_key;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CheckUrl {
    pub host: Host,
    /// Path and query, literal, beginning with `/`.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Literal(String),
    /// `{param:KEY}.example.com`: the param gives one label, `suffix` is the rest with its dot.
    Below {
        param: String,
        suffix: String,
    },
}

impl Host {
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Below { param, .. } => Some(param),
        }
    }

    /// The host's name. `None` when the param is missing or is anything but one label: it must not lead elsewhere,
    /// whatever its pattern lets through.
    pub fn name(&self, param: impl FnOnce(&str) -> Option<String>) -> Option<String> {
        match self {
            Self::Literal(name) => Some(name.clone()),
            Self::Below { param: key, suffix } => {
                param(key).filter(|value| is_label(value)).map(|value| value + suffix)
            }
        }
    }
}

const SHAPE: &str =
    "it looks like `https://api.example.com/v1/me` or `https://{param:STORE}.example.com/v1/me`";

impl TryFrom<String> for CheckUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| format!("the address {text:?} {why}: {SHAPE}");
        let rest = text.strip_prefix("https://").ok_or_else(|| wrong("is not https"))?;
        let (host, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let path_is_plain = path.starts_with('/')
            && path.bytes().all(|b| b.is_ascii_graphic())
            && !path.contains(['#', '\\', '{', '}', '"', '<', '>', '`']);
        if !path_is_plain {
            return Err(wrong("has a path that isn't literal (a value belongs into a header)"));
        }
        let host = match host.strip_prefix("{param:") {
            None if is_host(host) => Host::Literal(host.to_owned()),
            None => return Err(wrong("has no literal host")),
            Some(rest) => {
                let (param, suffix) = rest.split_once('}').ok_or_else(|| wrong("has no literal host"))?;
                let domain = suffix.strip_prefix('.').filter(|domain| is_host(domain));
                if domain.is_none() || !is_key(param) {
                    return Err(wrong("has a param that isn't followed by a literal domain"));
                }
                Host::Below { param: param.to_owned(), suffix: suffix.to_owned() }
            }
        };
        Ok(Self { host, path: path.to_owned() })
    }
}

/// A DNS name of at least two labels, lower case; no address, no port, no user. A last label that begins with a digit
/// would be read as a number, and the whole as an IPv4 address: `0x7f.0x1` is 127.0.0.1.
fn is_host(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let is_lower = |label: &&str| is_label(label) && !label.bytes().any(|b| b.is_ascii_uppercase());
    host.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(is_lower)
        && labels.last().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
