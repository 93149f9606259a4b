//! Tokens that anybody can recognise, also those that this device doesn't hold.

use super::pattern::{Match, starts};

/// A token: how it begins, and what belongs to it.
pub struct Shape {
    /// The bytes before its body; `.` stands for any lower-case letter.
    prefix: &'static [u8],
    body: fn(u8) -> bool,
    least: usize,
    /// Not in the middle of a word: `task-…` is no key.
    at_word: bool,
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn slack(byte: u8) -> bool {
    word(byte) || matches!(byte, b'%' | b'+' | b'/' | b'=')
}

fn jwt(byte: u8) -> bool {
    word(byte) || byte == b'.'
}

const fn shape(prefix: &'static str, body: fn(u8) -> bool, least: usize, at_word: bool) -> Shape {
    Shape { prefix: prefix.as_bytes(), body, least, at_word }
}

pub const SHAPES: [Shape; 9] = [
    shape("sk-", word, 16, true),
    shape("xox.-", slack, 10, false),
    shape("xapp-", slack, 10, false),
    shape("shp.._", word, 16, false),
    shape("gh._", word, 16, false),
    shape("github_pat_", word, 16, false),
    // HubSpot's private apps: a region, then groups of hexadecimal digits.
    shape("pat-", word, 34, true),
    // The board's own, for programs; 43 characters of base64url.
    shape("board_", word, 40, true),
    // The head of a JWT; `jwt` in `at` looks further.
    shape("eyJ", jwt, 0, false),
];

/// A head longer than this is none.
const LONGEST_HEAD: usize = 1024;
const LONGEST_LABEL: usize = 40;
/// How many bytes before a token say whether a word begins there.
const BEFORE: usize = 3;
/// What a line of PEM begins with.
pub const PEM_BEGINS: u8 = b'-';
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// A PEM block that hasn't ended after this is taken for ended.
pub const LONGEST_PEM: usize = 32 * 1024;

/// A set of shapes, by their number in [`SHAPES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shapes(u16);

impl Shapes {
    /// Those whose tokens can begin with this byte: no prefix begins with a wildcard.
    pub fn beginning_with(byte: u8) -> Self {
        const TABLE: [Shapes; 256] = {
            let mut table = [Shapes(0); 256];
            let mut number = 0;
            while number < SHAPES.len() {
                table[SHAPES[number].prefix[0] as usize].0 |= 1 << number;
                number += 1;
            }
            table
        };
        TABLE[usize::from(byte)]
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn numbers(self) -> impl Iterator<Item = usize> {
        (0..SHAPES.len()).filter(move |number| self.0 & (1 << number) != 0)
    }

    pub fn insert(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    pub fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub fn retain(&mut self, stays: impl Fn(usize) -> bool) {
        if !self.is_empty() {
            let gone =
                self.numbers().filter(|number| !stays(*number)).fold(0, |gone, number| gone | 1 << number);
            self.0 &= !gone;
        }
    }
}

/// The last bytes that went by.
#[derive(Default)]
pub struct Before {
    bytes: [u8; BEFORE],
    length: usize,
}

impl Before {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[BEFORE - self.length..]
    }

    pub fn extend(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(BEFORE)..];
        self.bytes.rotate_left(more.len());
        self.bytes[BEFORE - more.len()..].copy_from_slice(more);
        self.length = (self.length + more.len()).min(BEFORE);
    }
}

impl Shape {
    /// Whether one begins here. It goes on as long as [`Shape::holds`].
    pub fn at(&self, before: &[u8], text: &[u8]) -> Match {
        for (place, expected) in self.prefix.iter().enumerate() {
            match text.get(place) {
                None => return Match::Open,
                Some(found) if found == expected => {}
                Some(found) if *expected == b'.' && found.is_ascii_lowercase() => {}
                Some(_) => return Match::No,
            }
        }
        if self.at_word && !begins_word(before) {
            return Match::No;
        }
        let body = &text[self.prefix.len()..];
        if self.prefix == b"eyJ" {
            return head_of_jwt(body);
        }
        match body.iter().take(self.least).position(|byte| !(self.body)(*byte)) {
            Some(_) => Match::No,
            None if body.len() < self.least => Match::Open,
            None => Match::Yes(self.prefix.len() + self.least),
        }
    }

    pub fn holds(&self, byte: u8) -> bool {
        (self.body)(byte)
    }
}

/// Some characters, a full stop, and some more.
fn head_of_jwt(body: &[u8]) -> Match {
    let head = body.iter().take(LONGEST_HEAD).take_while(|byte| word(**byte)).count();
    match body.get(head) {
        None => Match::Open,
        Some(b'.') if head >= 7 => {
            let next = &body[head + 1..];
            match next.iter().take(8).position(|byte| !word(*byte)) {
                Some(_) => Match::No,
                None if next.len() < 8 => Match::Open,
                None => Match::Yes(3 + head + 1 + 8),
            }
        }
        Some(_) => Match::No,
    }
}

/// An escape is no letter of a word: `\nsk-…`, `%3Dsk-…`.
fn begins_word(before: &[u8]) -> bool {
    match before {
        [.., b'\\', b'n' | b'r' | b't'] => true,
        [.., b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => true,
        [.., last] => !word(*last),
        [] => true,
    }
}

pub fn pem_begins(text: &[u8]) -> Match {
    line_of_pem(BEGIN, text)
}

pub fn pem_ends(text: &[u8]) -> Match {
    line_of_pem(END, text)
}

fn line_of_pem(start: &[u8], text: &[u8]) -> Match {
    let Some(rest) = text.strip_prefix(start) else { return starts(text, start) };
    let label = |byte: &&u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b' ';
    let length = rest.iter().take(LONGEST_LABEL).take_while(label).count();
    match starts(&rest[length..], DASHES) {
        Match::Yes(dashes) => Match::Yes(start.len() + length + dashes),
        other @ (Match::Open | Match::No) => other,
    }
}
