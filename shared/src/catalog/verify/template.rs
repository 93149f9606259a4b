//! Text with values in it, for headers and HTTP Basic: `{secret}`, `{slot:KEY}`, `{param:KEY}` and nothing else.

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Printable ASCII.
    Text(String),
    /// The value of the slot that is checked.
    Secret,
    /// Another slot of the component.
    Slot(String),
    /// A param of the component.
    Param(String),
}

impl Template {
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
            if !before.bytes().all(|b| (b' '..=b'~').contains(&b)) || before.contains('}') {
                return Err(format!("{text:?} may hold printable ASCII, {PLACEHOLDERS}"));
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            if before.len() == rest.len() {
                break;
            }
            let (name, behind) =
                after.split_once('}').ok_or_else(|| format!("{text:?} has a {{ without its }}"))?;
            parts
                .push(placeholder(name).ok_or_else(|| {
                    format!("{{{name}}} in {text:?} is no placeholder: use {PLACEHOLDERS}")
                })?);
            rest = behind;
        }
        Ok(Self(parts))
    }
}

const PLACEHOLDERS: &str = "{secret}, {slot:KEY} and {param:KEY}";

fn placeholder(name: &str) -> Option<Part> {
    match name.split_once(':') {
        None => (name == "secret").then_some(Part::Secret),
        Some(("slot", key)) if is_key(key) => Some(Part::Slot(key.to_owned())),
        Some(("param", key)) if is_key(key) => Some(Part::Param(key.to_owned())),
        Some(_) => None,
    }
}

pub(super) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
