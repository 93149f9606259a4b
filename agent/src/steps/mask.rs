//! Takes secrets out of what scripts print, however the output is cut into reads: every value that the device holds, in
//! the forms of `pattern`, and every token that can be recognised by its shape.
//!
//! Best effort: a value that a program changes in another way before it prints it goes through. What may be the
//! beginning of a secret is held back until that is decided; how much that can be is bounded by the longest form.

mod pattern;
mod shapes;

use std::sync::Arc;

use shared::secret::Secret;
use zeroize::Zeroize as _;

use pattern::{Match, Pattern};
use shapes::{Before, SHAPES, Shapes};

const MASK: &[u8] = "••••".as_bytes();

/// What is masked.
#[derive(Clone)]
pub struct Masks {
    known: Arc<Known>,
}

struct Known {
    patterns: Vec<Pattern>,
    /// For each byte the patterns whose text can begin with it.
    by_byte: Vec<Vec<usize>>,
}

impl Default for Masks {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Masks {
    pub fn new(values: &[Secret<Vec<u8>>]) -> Self {
        let patterns: Vec<Pattern> = values.iter().flat_map(|value| pattern::of(value.expose())).collect();
        let mut by_byte = vec![Vec::new(); 256];
        for (number, pattern) in patterns.iter().enumerate() {
            for byte in pattern.beginnings() {
                by_byte[usize::from(byte)].push(number);
            }
        }
        Self { known: Arc::new(Known { patterns, by_byte }) }
    }

    /// One for each stream.
    pub fn masker(&self) -> Masker {
        Masker {
            known: Arc::clone(&self.known),
            held: Vec::new(),
            before: Before::default(),
            covered: 0,
            tokens: Shapes::default(),
            pem: 0,
        }
    }

    pub fn apply(&self, text: &str) -> String {
        let mut masker = self.masker();
        let mut bytes = masker.push(text.as_bytes());
        bytes.extend(masker.finish());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub struct Masker {
    known: Arc<Known>,
    /// The end of what came, as long as it may be the beginning of a secret.
    held: Vec<u8>,
    /// The last bytes before it.
    before: Before,
    /// How many of the next bytes belong to a secret that was recognised already.
    covered: usize,
    /// Which shapes go on.
    tokens: Shapes,
    /// How many more bytes a PEM block that has begun may have.
    pem: usize,
}

/// What begins at one place.
#[derive(Default)]
struct Begins {
    /// So many bytes are secret for sure.
    length: usize,
    tokens: Shapes,
    pem: bool,
    pem_ends: bool,
    undecided: bool,
}

impl Begins {
    fn note(&mut self, found: Match) -> bool {
        match found {
            Match::No => {}
            Match::Open => self.undecided = true,
            Match::Yes(length) => self.length = self.length.max(length),
        }
        matches!(found, Match::Yes(_))
    }
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
        let mut held = std::mem::take(&mut self.held);
        let mut at = 0;
        while at < held.len() {
            let plain = if self.is_idle() { self.plain(&held[at..]) } else { 0 };
            if plain > 0 {
                out.extend_from_slice(&held[at..at + plain]);
                self.before.extend(&held[at..at + plain]);
                at += plain;
                continue;
            }
            let begins = self.begins(&held[at..]);
            if begins.undecided && !all {
                break;
            }
            self.pass(held[at], &begins, &mut out);
            at += 1;
        }
        self.held = held[at..].to_vec();
        held.zeroize();
        out
    }

    /// Whether nothing goes on that began before.
    fn is_idle(&self) -> bool {
        self.covered == 0 && self.pem == 0 && self.tokens.is_empty()
    }

    /// How many of the next bytes can't begin anything: most of most output, and cheap.
    fn plain(&self, text: &[u8]) -> usize {
        let begins = |byte: u8| {
            !self.known.by_byte[usize::from(byte)].is_empty()
                || byte == shapes::PEM_BEGINS
                || !Shapes::beginning_with(byte).is_empty()
        };
        text.iter().position(|byte| begins(*byte)).unwrap_or(text.len())
    }

    fn begins(&self, text: &[u8]) -> Begins {
        let mut begins = Begins::default();
        let Some(first) = text.first() else { return begins };
        for number in &self.known.by_byte[usize::from(*first)] {
            begins.note(self.known.patterns[*number].at(text));
        }
        for number in Shapes::beginning_with(*first).numbers() {
            if begins.note(SHAPES[number].at(self.before.bytes(), text)) {
                begins.tokens.insert(number);
            }
        }
        if *first == shapes::PEM_BEGINS {
            begins.pem = begins.note(shapes::pem_begins(text));
            begins.pem_ends = self.pem > 0 && begins.note(shapes::pem_ends(text));
        }
        begins
    }

    fn pass(&mut self, byte: u8, begins: &Begins, out: &mut Vec<u8>) {
        self.tokens.retain(|number| SHAPES[number].holds(byte));
        let inside = self.covered > 0 || self.pem > 0 || !self.tokens.is_empty();
        self.covered = self.covered.max(begins.length);
        self.tokens.extend(begins.tokens);
        if begins.pem {
            self.pem = shapes::LONGEST_PEM;
        } else if begins.pem_ends {
            self.pem = 0;
        }
        if begins.length > 0 && !inside {
            out.extend_from_slice(MASK);
        } else if !inside {
            out.push(byte);
        }
        self.covered = self.covered.saturating_sub(1);
        self.pem = self.pem.saturating_sub(1);
        self.before.extend(&[byte]);
    }
}

#[cfg(test)]
mod tests;
