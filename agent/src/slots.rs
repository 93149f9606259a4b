//! Rules about slots that hold wherever a value comes from or goes to. Nothing here ever shows a value.

use regex::bytes::Regex;
use shared::catalog::{Manifest, Slot};
use shared::secret::MAX_LEN;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    #[error("the value is empty")]
    Empty,
    #[error("the value is larger than 16 KiB")]
    TooLarge,
    #[error("the value does not fit the slot's pattern")]
    Pattern,
    #[error("the manifest's pattern can't be understood")]
    Manifest,
}

pub fn check_value(pattern: Option<&str>, value: &[u8]) -> Result<(), BadValue> {
    if value.is_empty() {
        return Err(BadValue::Empty);
    }
    if value.len() > MAX_LEN {
        return Err(BadValue::TooLarge);
    }
    let Some(pattern) = pattern else { return Ok(()) };
    // Anchored once more here: a pattern that forgot it must not let anything through.
    let pattern = Regex::new(&format!("^(?:{pattern})$")).map_err(|_| BadValue::Manifest)?;
    if pattern.is_match(value) { Ok(()) } else { Err(BadValue::Pattern) }
}

/// The same of a slot, refused in words for who entered the value. They never show it.
pub fn check_entered(component: &str, slot: &Slot, value: &[u8]) -> Result<(), Unfit> {
    let bad = match check_value(slot.pattern.as_deref(), value) {
        Ok(()) => return Ok(()),
        Err(bad) => bad,
    };
    let reason = match bad {
        BadValue::Empty | BadValue::TooLarge => {
            format!("{bad}: nothing was changed. Copy the {} again and paste it", slot.name)
        }
        BadValue::Manifest => {
            let key = format!("{component}/{}", slot.key);
            return Err(Unfit::Slot(format!("{key}: {bad}; tell whoever publishes the catalog")));
        }
        BadValue::Pattern => format!(
            "this is no {}: it must look like {}. Nothing was changed. Copy the whole value, without spaces or quotes \
             around it, and paste it again",
            slot.name,
            slot.pattern.as_deref().unwrap_or_default()
        ),
    };
    Err(Unfit::Value(reason))
}

/// Why an entered value isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("{0}")]
    Value(String),
    /// No value would fit.
    #[error("{0}")]
    Slot(String),
}

/// What a program can't do without of the slots that it lists: a required one, or any one of a `one_of` group. In words.
pub fn missing(manifest: &Manifest, listed: &[&str], held: impl Fn(&str) -> bool) -> Option<String> {
    let mut slots = Vec::new();
    for key in listed {
        match manifest.slot(key) {
            Some(slot) => slots.push(slot),
            // It can't be given, so it is missing.
            None => return Some(format!("the manifest has no slot {}/{key}", manifest.key)),
        }
    }
    slots.iter().find_map(|slot| {
        let group: Vec<&Slot> = match &slot.one_of {
            Some(name) => slots.iter().copied().filter(|s| s.one_of.as_ref() == Some(name)).collect(),
            None if slot.required => vec![slot],
            None => return None,
        };
        if group.iter().any(|slot| held(&slot.key)) {
            return None;
        }
        let names: Vec<String> = group.iter().map(|slot| format!("{}/{}", manifest.key, slot.key)).collect();
        Some(match names.as_slice() {
            [name] => format!("the secret {name} is not on this device yet"),
            [..] => format!("none of the secrets {} is on this device yet", names.join(", ")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = r#"
key = "claude"
name = "x"
category = "ai"
summary = "x"
platforms = ["linux"]
[[slot]]
key = "NEEDED"
name = "x"
tag = "our-managed"
[[slot]]
key = "EXTRA"
name = "x"
tag = "our-managed"
required = false
[[slot]]
key = "KEY"
name = "x"
tag = "our-managed"
one_of = "auth"
[[slot]]
key = "OAUTH"
name = "x"
tag = "client-supplied"
required = false
one_of = "auth"
"#;
        let bundle = shared::catalog::Bundle {
            serial: 1,
            min_serial: 0,
            not_after: shared::time::Timestamp::from_micros(0),
            revoked_steps: Vec::new(),
            tiers: String::new(),
            manifests: [("claude".to_owned(), text.to_owned())].into(),
        };
        bundle.parse_manifests().unwrap().remove("claude").unwrap()
    }

    #[test]
    fn only_a_required_slot_and_a_whole_group_are_missed() {
        let manifest = manifest();
        let all = ["NEEDED", "EXTRA", "KEY", "OAUTH"];
        let table: &[(&[&str], &[&str], Option<&str>)] = &[
            (&all, &["NEEDED", "KEY"], None),
            (&all, &["NEEDED", "OAUTH"], None),
            (&all, &["NEEDED", "KEY", "OAUTH"], None),
            (&all, &["KEY"], Some("the secret claude/NEEDED is not on this device yet")),
            (
                &all,
                &["NEEDED", "EXTRA"],
                Some("none of the secrets claude/KEY, claude/OAUTH is on this device yet"),
            ),
            (&["EXTRA"], &[], None),
            (&["KEY"], &["OAUTH"], Some("the secret claude/KEY is not on this device yet")),
            (&["MADE_UP"], &["MADE_UP"], Some("the manifest has no slot claude/MADE_UP")),
            (&[], &[], None),
        ];
        for (listed, held, expected) in table {
            let said = missing(&manifest, listed, |key| held.contains(&key));
            assert_eq!(said.as_deref(), *expected, "{listed:?} {held:?}");
        }
    }

    #[test]
    fn a_value_must_fit_whole() {
        type Case<'a> = (Option<&'a str>, &'a [u8], Result<(), BadValue>);
        let table: &[Case<'_>] = &[
            (Some("^xoxb-[0-9]+$"), b"xoxb-1", Ok(())),
            (Some("xoxb-[0-9]+"), b"xoxb-1 and more", Err(BadValue::Pattern)),
            (Some("^a$|b"), b"xb", Err(BadValue::Pattern)),
            (Some("^xoxb-[0-9]+$"), b"xoxb-1\n", Err(BadValue::Pattern)),
            (Some("("), b"x", Err(BadValue::Manifest)),
            (None, b"\xff\x00", Ok(())),
            (None, b"", Err(BadValue::Empty)),
            (None, &[b'x'; MAX_LEN], Ok(())),
            (None, &[b'x'; MAX_LEN + 1], Err(BadValue::TooLarge)),
        ];
        for (pattern, value, expected) in table {
            assert_eq!(check_value(*pattern, value), *expected, "{pattern:?}");
        }
    }
}
