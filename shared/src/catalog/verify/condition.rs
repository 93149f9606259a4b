//! `status == INT` and `json.a.b == LITERAL`: all that can be asked of an answer.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// What must hold of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Condition {
    /// The HTTP status.
    Status(u16),
    /// A field of the JSON answer.
    Json(FieldPath, Literal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}

/// Names of nested objects' fields, outermost first: `data.limit`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FieldPath(Vec<String>);

const GRAMMAR: &str = "use `status == 200` or `json.a.b == LITERAL`, where LITERAL is true, false, null, a whole number or 'text'";

impl Condition {
    /// `json` is `None` when the answer is no JSON: then nothing holds of it.
    pub fn holds(&self, status: u16, json: Option<&Value>) -> bool {
        match self {
            Self::Status(wanted) => status == *wanted,
            Self::Json(path, literal) => {
                json.and_then(|json| path.find(json)).is_some_and(|value| literal.is(value))
            }
        }
    }

    pub fn needs_json(&self) -> bool {
        matches!(self, Self::Json(..))
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("the condition {text:?} can't be read: {GRAMMAR}");
        let (left, right) = text.split_once(" == ").ok_or_else(wrong)?;
        if left == "status" {
            let status = plain_number(right).and_then(|number| u16::try_from(number).ok());
            return match status.filter(|status| (100..=599).contains(status)) {
                Some(status) => Ok(Self::Status(status)),
                None => Err(format!("the status in {text:?} is none: it is a number from 100 to 599")),
            };
        }
        let path = left.strip_prefix("json.").and_then(FieldPath::parse).ok_or_else(wrong)?;
        Ok(Self::Json(path, Literal::parse(right).ok_or_else(wrong)?))
    }
}

impl Literal {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "null" => return Some(Self::Null),
            "true" => return Some(Self::Bool(true)),
            "false" => return Some(Self::Bool(false)),
            _ => {}
        }
        if let Some(inner) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            let plain = !inner.contains(['\'', '\\']) && !inner.contains(char::is_control);
            return plain.then(|| Self::Text(inner.to_owned()));
        }
        plain_number(text).map(Self::Int)
    }

    fn is(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::Int(wanted) => value.as_i64() == Some(*wanted),
            Self::Text(wanted) => value.as_str() == Some(wanted),
        }
    }
}

/// `-12`, `0`, `7`: one way to write each number.
fn plain_number(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

impl FieldPath {
    fn parse(text: &str) -> Option<Self> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        let plain = |name: &String| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        (names.len() <= 10 && names.iter().all(plain)).then_some(Self(names))
    }

    /// The field's value, when every name on the way is an object's.
    pub fn find<'v>(&self, json: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(json, |value, name| value.as_object()?.get(name))
    }
}

impl TryFrom<String> for FieldPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| {
            format!("the field {text:?} can't be read: name it like `team_id` or `data.limit`")
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
