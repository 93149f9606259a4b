//! `[verify_secret.SLOT]`: what the types can't say. Its grammar is checked when the manifest is read.

use regex::Regex;
use shared::catalog::{Part, VerifySecret};

use super::Checker;

/// Headers that a check must not set: they belong to the connection, or would send the request elsewhere.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a param that begins a host's name must not let through: each would lead elsewhere or be no name.
const NO_LABELS: &[&str] = &["", "a.b", "a/b", "a@b", "a:1", "a?b", "a#b", "a\\b", "a b", "a_b", "-a"];

impl Checker<'_> {
    pub(super) fn credentials(&mut self) {
        let manifest = self.manifest;
        for (slot, check) in &manifest.verify_secret {
            let what = format!("verify_secret {slot}");
            self.known_slot(&what, slot);
            self.placeholders(&what, slot, check);
            self.headers(&what, check);
            self.host_param(&what, check);
            if check.bad.as_ref() == Some(&check.ok) {
                self.say(&what, "ok and bad are the same: an answer can't mean both");
            }
        }
    }

    fn placeholders(&mut self, what: &str, slot: &str, check: &VerifySecret) {
        for other in check.other_slots() {
            self.known_slot(what, other);
            if other == slot {
                self.say(what, format!("names its own slot: write {{secret}} instead of {{slot:{other}}}"));
            }
        }
        for param in check.params() {
            if !self.manifest.params.iter().any(|known| known.key == *param) {
                self.say(what, format!("names the param {param:?}, which the component doesn't have"));
            }
        }
        if !check.templates().any(|(_, template)| template.parts().contains(&Part::Secret)) {
            self.say(
                what,
                "sends {secret} in no header and not as basic: it would say nothing about the slot",
            );
        }
    }

    fn headers(&mut self, what: &str, check: &VerifySecret) {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        for name in check.headers.keys() {
            let lower = name.to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(is_token) {
                self.say(what, format!("{name:?} can't be the name of a header"));
            } else if OURS.contains(&lower.as_str()) {
                self.say(what, format!("sets the header {name}, which belongs to the connection: remove it"));
            } else if lower == "authorization" && check.basic.is_some() {
                self.say(what, "has basic and a header Authorization: use one of them");
            }
        }
    }

    fn host_param(&mut self, what: &str, check: &VerifySecret) {
        let Some(key) = check.url.host.param() else { return };
        let Some(param) = self.manifest.params.iter().find(|param| param.key == key) else { return };
        // One that can't be read is a finding of its own.
        let Ok(pattern) = Regex::new(&param.pattern) else { return };
        if let Some(bad) = NO_LABELS.iter().find(|text| pattern.is_match(text)) {
            let place = format!("the param {key} begins its host's name, and its pattern accepts {bad:?}");
            self.say(
                what,
                format!("{place}: let it accept one label only, like ^[a-z0-9][a-z0-9-]{{0,60}}$"),
            );
        }
    }
}
