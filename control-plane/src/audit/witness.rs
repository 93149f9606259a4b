//! Heads from outside: what devices were told, as `board-agent status --json` prints it, compared with a log that was
//! walked. Needs no database.

use serde::Deserialize;
use serde_json::Value;
use shared::crypto::base64;
use shared::protocol::link::Head;

use super::chain::{Standing, Walk};

/// One head, and whose word it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The device's id, where the file names it.
    pub by: Option<String>,
    pub head: Head,
}

#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error(
        "the witness file is no JSON, nor JSON lines: {0}. Give what `board-agent status --json` printed"
    )]
    Json(#[from] serde_json::Error),
    #[error(
        "the witness file holds no head, so there is nothing to compare. Give what `board-agent status --json` printed on a device that was linked"
    )]
    Empty,
    #[error(
        "a head in the witness file has no hash of 32 bytes (entry {0}): base64 and hexadecimal are read"
    )]
    Hash(u64),
}

#[derive(Deserialize)]
struct Written {
    epoch: u64,
    seq: u64,
    hash: String,
}

/// Reads heads: the output of `board-agent status --json` of one device or of several, one after another or in a list,
/// or heads alone, one a line.
pub fn read_witness(text: &str) -> Result<Vec<Told>, WitnessError> {
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        collect(&value?, None, &mut found)?;
    }
    if found.is_empty() { Err(WitnessError::Empty) } else { Ok(found) }
}

fn collect(value: &Value, by: Option<&str>, found: &mut Vec<Told>) -> Result<(), WitnessError> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| collect(value, by, found)),
        Value::Object(object) => {
            let by = object.get("device_id").and_then(Value::as_str).or(by);
            if let Some(heads) = object.get("heads") {
                return collect(heads, by, found);
            }
            if object.contains_key("hash") && object.contains_key("seq") {
                let Written { epoch, seq, hash } = Written::deserialize(value)?;
                let hash = bytes(&hash).ok_or(WitnessError::Hash(seq))?;
                found.push(Told { by: by.map(ToOwned::to_owned), head: Head { epoch, seq, hash } });
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// 64 characters are hexadecimal, 44 are base64: neither can be taken for the other.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let decoded = match text.len() {
        64 => data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()),
        _ => base64::decode(text),
    };
    decoded.ok().filter(|bytes| bytes.len() == 32)
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub fit: usize,
    /// Went with a restore: the log says so by a later epoch.
    pub dropped: usize,
    /// Before the beginning of an export, or behind its end: nothing is known of them.
    pub outside: usize,
    /// Those that differ, by place, with whether the log holds another entry there (or ends before it).
    pub differ: Vec<(Told, Standing)>,
    /// The last entry that a head before the first difference vouches for.
    pub good_up_to: u64,
}

/// Compares heads with a log that was walked remembering them. An export may end early; a database may not.
pub fn compare_heads(walk: &Walk, told: &[Told], is_export: bool) -> Compared {
    let mut compared = Compared::default();
    let mut sorted: Vec<&Told> = told.iter().collect();
    sorted.sort_by_key(|told| (told.head.seq, told.head.epoch));
    for told in sorted {
        match walk.standing(&told.head) {
            Standing::Fits => {
                compared.fit += 1;
                if compared.differ.is_empty() {
                    compared.good_up_to = told.head.seq;
                }
            }
            Standing::Dropped => compared.dropped += 1,
            Standing::Before => compared.outside += 1,
            Standing::Beyond if is_export => compared.outside += 1,
            standing @ (Standing::Beyond | Standing::Other) => compared.differ.push((told.clone(), standing)),
        }
    }
    compared
}

impl Compared {
    /// The entries among which the first one is that differs.
    pub fn first_difference(&self) -> Option<(u64, u64)> {
        let (told, _) = self.differ.first()?;
        Some((self.good_up_to + 1, told.head.seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_devices_print_them_and_in_other_shapes() {
        let hex = "01".repeat(32);
        let b64 = base64::encode(&[1; 32]);
        let status = |device: &str| {
            format!(
                "{{\"device_id\":\"{device}\",\"board\":\"x\",\"heads\":[{{\"epoch\":1,\"seq\":7,\"hash\":\"{b64}\",\"at\":1}}]}}"
            )
        };
        let line = format!("{{\"epoch\":1,\"seq\":7,\"hash\":\"{hex}\"}}");
        for (text, count) in [
            (status("a"), 1),
            (format!("{}\n{}\n{line}\n", status("a"), status("b")), 3),
            (format!("[{},{line}]", status("a")), 2),
        ] {
            let told = read_witness(&text).unwrap();
            assert_eq!(told.len(), count, "{text}");
            assert!(told.iter().all(|told| told.head == Head { epoch: 1, seq: 7, hash: vec![1; 32] }));
            assert_ne!(told[0].by.as_deref(), Some("b"));
        }
        assert!(matches!(read_witness("not json"), Err(WitnessError::Json(_))));
        assert!(matches!(read_witness(""), Err(WitnessError::Empty)));
        assert!(matches!(read_witness("{\"device_id\":\"a\",\"heads\":[]}"), Err(WitnessError::Empty)));
        let short = "{\"epoch\":1,\"seq\":9,\"hash\":\"AQ==\"}";
        assert!(matches!(read_witness(short), Err(WitnessError::Hash(9))));
    }
}
