use std::io::Read as _;
use std::time::Duration;

use shared::time::Timestamp;

use super::assets;
use super::{FieldError, Moment, RowState, count, error_at};

/// 25 Nov 2026 09:31:12 UTC
const NOW: Timestamp = Timestamp::from_micros(1_795_599_072_000_000);

fn ago(seconds: u64) -> String {
    Moment { at: NOW.before(Duration::from_secs(seconds)), now: NOW }.words()
}

#[test]
fn a_moment_reads_as_people_say_it() {
    assert_eq!(ago(0), "just now");
    assert_eq!(ago(5), "5 seconds ago");
    assert_eq!(ago(60), "1 minute ago");
    assert_eq!(ago(3_599), "59 minutes ago");
    assert_eq!(ago(2 * 3_600), "2 hours ago");
    assert_eq!(ago(29 * 86_400), "29 days ago");
    assert_eq!(ago(30 * 86_400), "26 Oct 2026");
    let soon = Moment { at: NOW.after(Duration::from_secs(61)), now: NOW };
    assert_eq!(soon.words(), "in 1 minute");
}

#[test]
fn a_moment_carries_the_exact_time() {
    let html = Moment { at: NOW, now: NOW }.to_string();
    assert_eq!(
        html,
        r#"<time datetime="2026-11-25T09:31:12Z" title="25 Nov 2026 09:31:12 UTC">just now</time>"#
    );
}

#[test]
fn every_asset_is_found_by_the_name_in_its_address() {
    for name in [
        "console.css",
        "console.js",
        "field.js",
        "passkey.js",
        "paste.js",
        "icons.svg",
        "favicon.svg",
        "favicon-needs.svg",
    ] {
        let asset = assets::find(name).expect(name);
        assert!(!asset.bytes.is_empty());
        let mut unzipped = Vec::new();
        flate2::read::GzDecoder::new(asset.gzip).read_to_end(&mut unzipped).unwrap();
        assert_eq!(unzipped, asset.bytes);
        assert_eq!(assets::href(name), format!("/static/{name}?v={}", asset.version()));
        assert_eq!(asset.etag(false), format!("\"{}\"", asset.version()));
    }
    assert!(assets::find("../Cargo.toml").is_none());
}

#[test]
fn scripts_and_style_stay_small() {
    let size = |name| assets::find(name).map_or(0, |asset| asset.bytes.len());
    let scripts = ["console.js", "field.js", "passkey.js", "paste.js"].map(size).iter().sum::<usize>();
    assert!(scripts < 20 * 1024, "{scripts}");
    assert!(size("console.css") + scripts + size("icons.svg") < 60 * 1024);
}

/// What is sent is the same script: nothing that is taken out can be part of a literal.
#[test]
fn scripts_are_sent_without_comments_and_indentation_only() {
    for (name, source) in [
        ("console.js", include_str!("../../static/console.js")),
        ("field.js", include_str!("../../static/field.js")),
        ("passkey.js", include_str!("../../static/passkey.js")),
        ("paste.js", include_str!("../../static/paste.js")),
    ] {
        let sent = std::str::from_utf8(assets::find(name).unwrap().bytes).unwrap();
        assert!(sent.len() < source.len(), "{name}");
        for line in source.lines().filter(|line| !line.trim().starts_with("//")) {
            assert!(line.matches('`').count() % 2 == 0, "{name}: a literal over several lines: {line}");
            assert!(!line.ends_with('\\') && !line.contains("/*"), "{name}: {line}");
            assert!(!line.contains(" //"), "{name}: a comment after code: {line}");
        }
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        let lines = lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with("//"));
        let bare = |text: &str| text.replace([' ', '\n'], "");
        assert_eq!(bare(sent), bare(&lines.clone().collect::<String>()), "{name}");
        for line in lines {
            let literal = line.contains(['"', '\'', '`', '/']);
            assert!(!literal || sent.contains(line), "{name}: a literal may have changed: {line}");
            let goes_on = line.ends_with([';', ',', '{', '(']);
            let end = line.rsplit(' ').next().unwrap_or_default();
            assert!(goes_on || sent.contains(&format!("{end}\n")), "{name}: its end may matter: {line}");
        }
    }
}

#[test]
fn a_word_in_a_badge_is_escaped() {
    let html = RowState::Failed.called("<b>off</b>").to_string();
    assert!(html.contains("is-failed") && html.contains("&#60;b&#62;"), "{html}");
}

#[test]
fn a_state_has_a_symbol_in_the_sprite() {
    let sprite = assets::find("icons.svg").map_or("", |asset| std::str::from_utf8(asset.bytes).unwrap());
    use RowState::{Done, Failed, NeedsYou, Off, Running, Waiting};
    for state in [Done, Running, NeedsYou, Waiting, Failed, Off] {
        assert!(sprite.contains(&format!("<symbol id=\"{}\"", state.glyph().0)), "{state:?}");
    }
}

#[test]
fn an_error_is_found_by_its_field() {
    let errors = [FieldError::new("name", "Give the client a name.")];
    assert_eq!(error_at(&errors, "name"), Some("Give the client a name."));
    assert_eq!(error_at(&errors, "notes"), None);
}

#[test]
fn one_is_singular() {
    assert_eq!(count(1, "device", "devices"), "1 device");
    assert_eq!(count(0, "device", "devices"), "0 devices");
}
