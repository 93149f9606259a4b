//! Takes the device's secrets out of what scripts print, however the output is cut into reads.
//!
//! Best effort: a value that a program changes before printing it goes through.

use std::sync::Arc;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use shared::secret::Secret;

const MASK: &[u8] = "••••".as_bytes();
/// Shorter values would mask half of every text.
const SHORTEST: usize = 8;

/// What is masked: each value as it is and in base64.
#[derive(Clone, Default)]
pub struct Masks {
    patterns: Arc<Vec<Secret<Vec<u8>>>>,
}

impl Masks {
    pub fn new(values: &[Secret<Vec<u8>>]) -> Self {
        let mut patterns = Vec::new();
        for value in values.iter().map(Secret::expose).filter(|value| value.len() >= SHORTEST) {
            patterns.push(Secret::new(value.clone()));
            patterns.push(Secret::new(BASE64_NOPAD.encode(value).into_bytes()));
            patterns.push(Secret::new(BASE64URL_NOPAD.encode(value).into_bytes()));
        }
        Self { patterns: Arc::new(patterns) }
    }

    /// One for each stream.
    pub fn masker(&self) -> Masker {
        Masker { patterns: Arc::clone(&self.patterns), held: Vec::new(), covered: 0 }
    }

    pub fn apply(&self, text: &str) -> String {
        let mut masker = self.masker();
        let mut bytes = masker.push(text.as_bytes());
        bytes.extend(masker.finish());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub struct Masker {
    patterns: Arc<Vec<Secret<Vec<u8>>>>,
    /// The end of what came, as long as it may be the beginning of a secret.
    held: Vec<u8>,
    /// How many of the next bytes belong to a secret that was recognised already.
    covered: usize,
}

impl Masker {
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.work(false)
    }

    pub fn finish(&mut self) -> Vec<u8> {
        self.work(true)
    }

    /// Secrets may overlap: every byte that belongs to one is masked.
    fn work(&mut self, all: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while let Some(&byte) = self.held.get(at) {
            let rest = &self.held[at..];
            let mut longest = 0;
            let mut undecided = false;
            for pattern in self.patterns.iter().map(Secret::expose).filter(|p| p.first() == Some(&byte)) {
                if rest.starts_with(pattern) {
                    longest = longest.max(pattern.len());
                } else if pattern.starts_with(rest) {
                    undecided = true;
                }
            }
            if undecided && !all {
                break;
            }
            if longest > 0 && self.covered == 0 {
                out.extend_from_slice(MASK);
            }
            self.covered = self.covered.max(longest);
            if self.covered > 0 {
                self.covered -= 1;
            } else {
                out.push(byte);
            }
            at += 1;
        }
        zeroize::Zeroize::zeroize(&mut self.held[..at]);
        self.held.drain(..at);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(values: &[&str]) -> Masks {
        Masks::new(&values.iter().map(|v| Secret::new(v.as_bytes().to_vec())).collect::<Vec<_>>())
    }

    fn split(masks: &Masks, text: &str, cuts: &[usize]) -> String {
        let mut masker = masks.masker();
        let mut out = Vec::new();
        let mut from = 0;
        for &cut in cuts {
            out.extend(masker.push(&text.as_bytes()[from..cut]));
            from = cut;
        }
        out.extend(masker.push(&text.as_bytes()[from..]));
        out.extend(masker.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_masked_wherever_the_stream_is_cut() {
        let masks = masks(&["correct-horse", "correct-battery", "horsepower"]);
        let encoded = BASE64_NOPAD.encode(b"correct-horse");
        let text = format!("a correct-horse b {encoded} correct-b c correct-batterycorrect-horse");
        let expected = "a •••• b •••• correct-b c ••••••••";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert_eq!(split(&masks, &text, &[first, second]), expected, "cut at {first} and {second}");
            }
        }
        let every: Vec<usize> = (0..=text.len()).collect();
        assert_eq!(split(&masks, &text, &every), expected);
    }

    #[test]
    fn overlapping_secrets_leave_no_end_behind() {
        let masks = masks(&["abcdefgh", "efghijkl"]);
        let text = "xabcdefghijkly";
        for cut in 0..=text.len() {
            assert_eq!(split(&masks, text, &[cut]), "x••••y");
        }
    }

    #[test]
    fn a_short_value_is_not_masked_and_a_beginning_is_let_go() {
        let masks = masks(&["short", "0123456789"]);
        assert_eq!(masks.apply("short 012345"), "short 012345");
    }

    #[test]
    fn output_is_not_held_back_longer_than_it_may_be_a_secret() {
        let masks = masks(&["0123456789"]);
        assert_eq!(masks.masker().push(b"no secret 01"), b"no secret ");
    }
}
