//! A value of the vault in the forms in which programs print it.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use shared::secret::Secret;

/// Shorter values would mask half of every text.
const SHORTEST: usize = 8;

/// How a text begins, compared with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    No,
    /// The text ends before it is decided.
    Open,
    /// This many bytes of the text belong to it.
    Yes(usize),
}

/// One form of a value, or of a line of it.
pub enum Pattern {
    /// Byte by byte.
    Exact(Secret<Vec<u8>>),
    /// Each byte as itself or escaped.
    Escaped(Style, Secret<Vec<u8>>),
    /// Byte by byte, but `base64` and others break lines wherever they like.
    Wrapped(Secret<Vec<u8>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `%2F`; a space may be `+`.
    Url,
    /// `\"`, `\n`, `\u00fc`.
    Json,
    /// A quote inside of single quotes: `'\''` or `'"'"'`.
    Quotes,
    /// A backslash before whatever the shell would take for something else.
    Backslashes,
}

const STYLES: [Style; 4] = [Style::Url, Style::Json, Style::Quotes, Style::Backslashes];

/// Every form of a value that is masked. None for a value that is too short.
pub fn of(value: &[u8]) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    if value.len() >= SHORTEST {
        patterns.extend(plain(value));
        patterns.extend(base64(value));
    }
    if value.contains(&b'\n') {
        let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        patterns.extend(lines.filter(|line| line.len() >= SHORTEST).flat_map(plain));
    }
    patterns
}

fn plain(value: &[u8]) -> Vec<Pattern> {
    let copy = || Secret::new(value.to_vec());
    let escaped = STYLES.map(|style| Pattern::Escaped(style, copy()));
    std::iter::once(Pattern::Exact(copy())).chain(escaped).collect()
}

/// The value may begin at each of the three places of a base64 group, with other bytes before and behind it: only those
/// characters are searched for that come from the value alone.
fn base64(value: &[u8]) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
        for before in 0..3 {
            let bytes = Secret::new([&[0; 2][..before], value].concat());
            let text = Secret::new(encoding.encode(bytes.expose()));
            let characters = text.expose().as_bytes();
            let mixed_before = [0, 2, 3][before];
            let mixed_behind = usize::from(bytes.expose().len() % 3 != 0);
            let own = &characters[mixed_before..characters.len() - mixed_behind];
            patterns.push(Pattern::Wrapped(Secret::new(own.to_vec())));
            if before == 0 && mixed_behind > 0 {
                patterns.push(Pattern::Wrapped(Secret::new(characters.to_vec())));
            }
        }
    }
    patterns
}

impl Pattern {
    /// What a text that this pattern fits can begin with.
    pub fn beginnings(&self) -> Vec<u8> {
        match self {
            Self::Exact(value) | Self::Wrapped(value) => {
                value.expose().first().copied().into_iter().collect()
            }
            Self::Escaped(style, value) => {
                let first = value.expose().first().copied();
                let escape = match style {
                    Style::Url => b'%',
                    Style::Json | Style::Backslashes => b'\\',
                    Style::Quotes => b'\'',
                };
                let plus = (*style == Style::Url && first == Some(b' ')).then_some(b'+');
                let mut beginnings: Vec<u8> = [first, Some(escape), plus].into_iter().flatten().collect();
                beginnings.dedup();
                beginnings
            }
        }
    }

    pub fn at(&self, text: &[u8]) -> Match {
        match self {
            Self::Exact(value) => starts(text, value.expose()),
            Self::Escaped(style, value) => escaped(*style, value.expose(), text),
            Self::Wrapped(value) => wrapped(value.expose(), text),
        }
    }
}

fn wrapped(value: &[u8], text: &[u8]) -> Match {
    let mut at = 0;
    for (place, byte) in value.iter().enumerate() {
        if place > 0 {
            for end in [b'\r', b'\n'] {
                at += usize::from(text.get(at) == Some(&end));
            }
        }
        match text.get(at) {
            Some(found) if found == byte => at += 1,
            Some(_) => return Match::No,
            None => return Match::Open,
        }
    }
    Match::Yes(at)
}

fn escaped(style: Style, value: &[u8], text: &[u8]) -> Match {
    let mut at = 0;
    let mut rest = value;
    while let Some(&byte) = rest.first() {
        let here = &text[at..];
        let Some(&itself) = here.first() else { return Match::Open };
        match escape(style, here) {
            Match::Open => return Match::Open,
            Match::Yes(length) => {
                let meant = meaning(&here[..length]);
                if !meant.is_empty() && rest.starts_with(&meant) {
                    at += length;
                    rest = &rest[meant.len()..];
                    continue;
                }
            }
            Match::No => {}
        }
        if itself != byte && !(style == Style::Url && itself == b'+' && byte == b' ') {
            return Match::No;
        }
        at += 1;
        rest = &rest[1..];
    }
    Match::Yes(at)
}

/// Whether an escape begins here, and how long it is.
fn escape(style: Style, text: &[u8]) -> Match {
    match (style, text) {
        (Style::Url, [b'%', ..]) => hex(text, 1, 2),
        (Style::Quotes, [b'\'']) => Match::Open,
        (Style::Quotes, [b'\'', b'\\', ..]) => starts(text, br"'\''"),
        (Style::Quotes, [b'\'', b'"', ..]) => starts(text, br#"'"'"'"#),
        (Style::Json | Style::Backslashes, [b'\\']) => Match::Open,
        (Style::Json, [b'\\', b'u', ..]) => unit_or_two(text),
        (Style::Json | Style::Backslashes, [b'\\', _, ..]) => Match::Yes(2),
        (Style::Url | Style::Json | Style::Quotes | Style::Backslashes, _) => Match::No,
    }
}

/// `\u1234`; characters beyond the first 65,536 are two of them.
fn unit_or_two(text: &[u8]) -> Match {
    let first = hex(text, 2, 4);
    let two = matches!(text.get(2..4), Some([b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B']));
    if !two || !matches!(first, Match::Yes(_)) {
        return first;
    }
    match starts(&text[6..], br"\u") {
        Match::Yes(_) => hex(text, 8, 4),
        Match::Open => Match::Open,
        Match::No => first,
    }
}

/// This many hexadecimal digits from here on end the escape.
fn hex(text: &[u8], from: usize, count: usize) -> Match {
    let digits = text.get(from..).unwrap_or_default();
    let digits = &digits[..digits.len().min(count)];
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        Match::No
    } else if digits.len() == count {
        Match::Yes(from + count)
    } else {
        Match::Open
    }
}

pub fn starts(text: &[u8], whole: &[u8]) -> Match {
    if text.starts_with(whole) {
        Match::Yes(whole.len())
    } else if whole.starts_with(text) {
        Match::Open
    } else {
        Match::No
    }
}

/// The bytes that a whole escape stands for; none when it stands for nothing.
fn meaning(escape: &[u8]) -> Vec<u8> {
    let number = |digits: &[u8]| {
        std::str::from_utf8(digits).ok().and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    match escape {
        [b'%', digits @ ..] => vec![u8::try_from(number(digits)).unwrap_or(0)],
        [b'\\', b'u', digits @ ..] if digits.len() >= 4 => {
            let mut units = vec![number(&digits[..4])];
            units.extend(digits.get(6..).map(number));
            String::from_utf16(&units).map(String::into_bytes).unwrap_or_default()
        }
        [b'\\', letter] => vec![match letter {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            other => *other,
        }],
        [b'\'', ..] => vec![b'\''],
        [..] => Vec::new(),
    }
}
