//! A canary for every slot: a value unlike anything else, and the search for it in every form that it may have taken.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// Whose it is decides where it may be: the board may never have a client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Ours,
    Theirs,
}

use Owner::{Ours, Theirs};

/// Every slot of the catalog beside this file, and the values that one had before or was refused.
pub const NAMES: [(&str, Owner); 22] = [
    ("ours/PRINTED", Ours),
    ("ours/PRINTED, refused", Ours),
    ("ours/AS_FILE", Ours),
    ("ours/WRAPPED", Ours),
    ("ours/EXECED", Ours),
    ("ours/COPIED", Ours),
    ("ours/TYPED", Ours),
    ("ours/TYPED, refused", Ours),
    ("ours/ROTATED_BY_PAGE", Ours),
    ("ours/ROTATED_BY_PAGE, new", Ours),
    ("ours/ROTATED_BY_COMMAND", Ours),
    ("ours/ROTATED_BY_COMMAND, new", Ours),
    ("ours/ASKED", Ours),
    ("theirs/ON_DEVICE", Theirs),
    ("theirs/ON_DEVICE, refused", Theirs),
    ("theirs/FROM_DESK", Theirs),
    ("theirs/FROM_DESK, refused", Theirs),
    ("theirs/PASTED_AGAIN", Theirs),
    ("theirs/PASTED_AGAIN, new", Theirs),
    ("theirs/ASKED", Theirs),
    ("sealed/FROM_BROWSER", Theirs),
    ("sealed/FROM_BROWSER, refused", Theirs),
];

/// Every encoding changes some of it.
const TAIL: &str = r#"+/"&'%\="#;

pub struct Canary {
    pub name: &'static str,
    pub owner: Owner,
    pub value: String,
    /// 24 letters and digits in the middle, which most encodings leave as they are: what is searched for.
    core: String,
}

/// How a value was written where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Raw,
    Base64,
    Hex,
    UrlEncoded,
    JsonEscaped,
    HtmlEscaped,
    ShellQuoted,
    Utf16,
    /// All of the middle, whatever is around it.
    Part,
    /// One half of the middle.
    Half,
}

impl fmt::Display for Form {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Raw => "raw",
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::UrlEncoded => "URL-encoded",
            Self::JsonEscaped => "JSON-escaped",
            Self::HtmlEscaped => "HTML-escaped",
            Self::ShellQuoted => "shell-quoted",
            Self::Utf16 => "UTF-16",
            Self::Part => "a part",
            Self::Half => "half",
        })
    }
}

/// A value, by its name, and how it was written.
pub type Hit = (&'static str, Form);

struct Needle {
    canary: usize,
    form: Form,
    length: usize,
}

pub struct Canaries {
    all: Vec<Canary>,
    automaton: AhoCorasick,
    needles: Vec<Needle>,
}

impl Canaries {
    pub fn new() -> Self {
        Self::of(NAMES.into_iter().map(|(name, owner)| Canary::new(name, owner)).collect())
    }

    /// The same, of one owner's values alone.
    pub fn only(&self, owner: Owner) -> Self {
        let these = self.all.iter().filter(|canary| canary.owner == owner);
        Self::of(
            these
                .map(|canary| Canary { value: canary.value.clone(), core: canary.core.clone(), ..*canary })
                .collect(),
        )
    }

    fn of(all: Vec<Canary>) -> Self {
        let (mut needles, mut patterns) = (Vec::new(), Vec::new());
        for (canary, Canary { core, .. }) in all.iter().enumerate() {
            for (form, pattern) in forms(core) {
                needles.push(Needle { canary, form, length: pattern.len() });
                patterns.push(pattern);
            }
        }
        let automaton = AhoCorasick::new(patterns).unwrap();
        Self { all, automaton, needles }
    }

    pub fn value(&self, name: &str) -> &str {
        &self.all.iter().find(|canary| canary.name == name).unwrap().value
    }

    /// The longest needle, in bytes: pieces of something longer have to overlap by it.
    pub fn longest(&self) -> usize {
        self.needles.iter().map(|needle| needle.length).max().unwrap()
    }

    /// What is in there, also when it is a gzip file.
    pub fn find(&self, bytes: &[u8]) -> BTreeSet<Hit> {
        let mut found = self.find_plain(bytes);
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut opened = Vec::new();
            // What can't be read to its end is searched as far as it goes.
            let _ = flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut opened);
            found.extend(self.find_plain(&opened));
        }
        found
    }

    fn find_plain(&self, bytes: &[u8]) -> BTreeSet<Hit> {
        let (mut whole, mut halves) = (Vec::new(), Vec::new());
        let mut found = BTreeSet::new();
        for hit in self.automaton.find_overlapping_iter(bytes) {
            let needle = &self.needles[hit.pattern().as_usize()];
            let canary = &self.all[needle.canary];
            match needle.form {
                Form::Half => halves.push((needle.canary, hit.start())),
                Form::Part => {
                    whole.push((needle.canary, hit.range()));
                    found.insert((canary.name, canary.form_at(bytes, hit.start())));
                }
                Form::Raw
                | Form::Base64
                | Form::Hex
                | Form::UrlEncoded
                | Form::JsonEscaped
                | Form::HtmlEscaped
                | Form::ShellQuoted
                | Form::Utf16 => {
                    found.insert((canary.name, needle.form));
                }
            }
        }
        for (canary, at) in halves {
            if !whole.iter().any(|(other, range)| *other == canary && range.contains(&at)) {
                found.insert((self.all[canary].name, Form::Half));
            }
        }
        found
    }
}

impl Canary {
    fn new(name: &'static str, owner: Owner) -> Self {
        let mut random = [0; 15];
        std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
        let core = BASE32_NOPAD.encode(&random).to_lowercase();
        // No slot's pattern lets a space through.
        let space = if name.ends_with(", refused") { " " } else { "" };
        let value = format!("k{core}{space}{TAIL}");
        Self { name, owner, value, core }
    }

    /// How it is written whose core begins at `core`.
    fn form_at(&self, bytes: &[u8], core: usize) -> Form {
        let Some(start) = core.checked_sub(1) else { return Form::Part };
        let is = |written: &str| bytes[start..].starts_with(written.as_bytes());
        let value = &self.value;
        let json = serde_json::to_string(value).unwrap();
        let html = value.replace('&', "&amp;");
        // In an attribute, by a template; in an attribute, by a browser; in text.
        let html = [["&#34;", "&#39;"], ["&quot;", "'"], ["\"", "'"]]
            .map(|[quote, apostrophe]| html.replace('"', quote).replace('\'', apostrophe));
        if is(value) {
            Form::Raw
        } else if is(&percent(value, "%20")) || is(&percent(value, "+")) {
            Form::UrlEncoded
        } else if is(json.trim_matches('"')) {
            Form::JsonEscaped
        } else if html.iter().any(|html| is(html)) {
            Form::HtmlEscaped
        } else if is(&value.replace('\'', r"'\''")) {
            Form::ShellQuoted
        } else {
            Form::Part
        }
    }
}

/// The name itself, from the list: what isn't there is a mistake of the caller's.
pub fn named(name: &str) -> &'static str {
    NAMES.iter().find(|(listed, _)| *listed == name).unwrap_or_else(|| panic!("there is no {name}")).0
}

fn percent(value: &str, space: &str) -> String {
    let written = value.bytes().map(|byte| match byte {
        b' ' => space.to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    written.collect()
}

fn forms(core: &str) -> BTreeSet<(Form, Vec<u8>)> {
    let bytes = core.as_bytes();
    let mut forms = BTreeSet::from([
        (Form::Part, bytes.to_vec()),
        (Form::Half, bytes[..12].to_vec()),
        (Form::Half, bytes[12..].to_vec()),
        (Form::Hex, HEXLOWER.encode(bytes).into_bytes()),
        (Form::Hex, HEXUPPER.encode(bytes).into_bytes()),
        (Form::Utf16, core.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ]);
    // Wherever it stands among other bytes: what of the text depends on it alone.
    for before in 0..3 {
        let padded = [&vec![0; before], bytes].concat();
        let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for alphabet in [BASE64_NOPAD, BASE64URL_NOPAD] {
            forms.insert((Form::Base64, alphabet.encode(&padded).as_bytes()[from..to].to_vec()));
        }
    }
    forms
}

#[test]
fn a_canary_is_found_in_every_form_and_by_its_half() {
    let canaries = Canaries::new();
    let name = "theirs/FROM_DESK";
    let value = canaries.value(name);
    let found = |text: &[u8]| canaries.find(text).into_iter().collect::<Vec<_>>();
    let is = |text: &str, form: Form| assert_eq!(found(text.as_bytes()), [(name, form)], "{form}");
    is(&format!("[{value}]"), Form::Raw);
    for before in ["", "x", "xy", "xyz"] {
        is(&BASE64_NOPAD.encode(format!("{before}{value}{before}").as_bytes()), Form::Base64);
        is(&BASE64URL_NOPAD.encode(format!("{before}{value}?>").as_bytes()), Form::Base64);
    }
    is(&HEXUPPER.encode(value.as_bytes()), Form::Hex);
    is(&HEXLOWER.encode(value.as_bytes()), Form::Hex);
    is(&format!("a={}&b", percent(value, "+")), Form::UrlEncoded);
    is(&serde_json::json!({ "value": value }).to_string(), Form::JsonEscaped);
    is(
        &format!("<p>{}", value.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;")),
        Form::HtmlEscaped,
    );
    is(&format!("'{}'", value.replace('\'', r"'\''")), Form::ShellQuoted);
    is(&value[1..25], Form::Part);
    is(&format!("{} {}", &value[..10], &value[13..]), Form::Half);
    is(&format!("{}\n{}", &value[..13], &value[13..]), Form::Half);
    let wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(found(&wide), [(name, Form::Utf16)]);
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut zipped, value.as_bytes()).unwrap();
    assert_eq!(found(&zipped.finish().unwrap()), [(name, Form::Raw)]);
    assert_eq!(found(value.to_uppercase().as_bytes()), []);
    assert!(canaries.only(Ours).find(value.as_bytes()).is_empty());
}
