//! The static files, inside the binary. A link carries the hash of the file (`?v=…`), so a browser may keep it for ever;
//! add a file by adding a line to the list. Scripts and the style are sent without their comments and indentation, so that
//! both may be as long as they have to.

use std::io::Write as _;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use shared::crypto::{hex, sha256};

/// For an answer to a request that carries the current `v`.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";

pub struct Asset {
    pub path: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
    /// The same as gzip (RFC 1952). Nothing in a static file is secret, so nothing can be learned from its length.
    pub gzip: &'static [u8],
}

macro_rules! assets {
    ($($path:literal $content_type:literal),+ $(,)?) => {
        static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| vec![
            $(asset($path, $content_type, include_bytes!(concat!("../../static/", $path)))),+
        ]);
    };
}

assets! {
    "console.css" "text/css; charset=utf-8",
    "console.js" "text/javascript; charset=utf-8",
    "passkey.js" "text/javascript; charset=utf-8",
    "paste.js" "text/javascript; charset=utf-8",
    "field.js" "text/javascript; charset=utf-8",
    "icons.svg" "image/svg+xml",
    "favicon.svg" "image/svg+xml",
    "favicon-needs.svg" "image/svg+xml",
}

static VERSIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    ASSETS
        .iter()
        .map(|asset| {
            let mut version = hex(&sha256(asset.bytes));
            version.truncate(16);
            version
        })
        .collect()
});

fn asset(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Asset {
    let bytes = sent(path, bytes);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    // Into memory: it can't fail, and an empty one would only be sent as it is.
    let gzip = gzip.write_all(bytes).and_then(|()| gzip.finish()).unwrap_or_default();
    Asset { path, content_type, bytes, gzip: gzip.leak() }
}

fn sent(path: &str, bytes: &'static [u8]) -> &'static [u8] {
    match std::str::from_utf8(bytes) {
        Ok(script) if path.ends_with(".js") => lean(script).into_bytes().leak(),
        Ok(style) if path.ends_with(".css") => {
            let comment = |line: &str| line.starts_with("/*") && line.ends_with("*/");
            let lines = style.lines().map(str::trim).filter(|line| !line.is_empty() && !comment(line));
            lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes().leak()
        }
        _ => bytes,
    }
}

/// A script without its lines of comment, its indentation, the line ends that no statement needs, and the spaces beside
/// punctuation in lines without a literal. No literal of ours goes over several lines, and no comment follows code; a test
/// sees to that.
fn lean(script: &str) -> String {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let mut sent = String::new();
    for line in lines {
        match line.contains(['"', '\'', '`', '/']) {
            true => sent.push_str(line),
            false => tighten(line, &mut sent),
        }
        if !line.ends_with([';', ',', '{', '(']) {
            sent.push('\n');
        }
    }
    sent
}

/// Never beside `+` and `-`, which double into other operators.
fn tighten(line: &str, sent: &mut String) {
    const PUNCTUATION: &str = "=(){}[],;?:<>&|!";
    let characters: Vec<char> = line.chars().collect();
    for (at, character) in characters.iter().enumerate() {
        let beside = |other: usize| characters.get(other).is_some_and(|other| PUNCTUATION.contains(*other));
        if *character != ' ' || !(beside(at + 1) || at > 0 && beside(at - 1)) {
            sent.push(*character);
        }
    }
}

pub fn find(name: &str) -> Option<&'static Asset> {
    position(name).map(|at| &ASSETS[at])
}

/// The address of a file in this version of it: "/static/console.css?v=…".
pub fn href(name: &str) -> String {
    match position(name) {
        Some(at) => format!("/static/{name}?v={}", VERSIONS[at]),
        None => format!("/static/{name}"),
    }
}

impl Asset {
    /// The first 16 hex digits of the SHA-256, as `v` in the address has them.
    pub fn version(&self) -> &'static str {
        position(self.path).map_or("", |at| VERSIONS[at].as_str())
    }

    /// A strong ETag: another one for each encoding (RFC 9110, section 8.8.3.3).
    pub fn etag(&self, zipped: bool) -> String {
        format!("\"{}{}\"", self.version(), if zipped { "-gzip" } else { "" })
    }
}

fn position(name: &str) -> Option<usize> {
    ASSETS.iter().position(|asset| asset.path == name)
}
