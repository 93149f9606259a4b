use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

use super::*;
use crate::wrappers::quote;

fn masks(values: &[&str]) -> Masks {
    Masks::new(&values.iter().map(|v| Secret::new(v.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn split(masks: &Masks, text: &[u8], cuts: &[usize]) -> String {
    let mut masker = masks.masker();
    let mut out = Vec::new();
    let mut from = 0;
    for &cut in cuts {
        out.extend(masker.push(&text[from..cut]));
        from = cut;
    }
    out.extend(masker.push(&text[from..]));
    out.extend(masker.finish());
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn a_secret_is_masked_wherever_the_stream_is_cut() {
    let masks = masks(&["correct-horse", "correct-battery", "horsepower"]);
    let encoded = BASE64_NOPAD.encode(b"correct-horse");
    let text = format!("a correct-horse b {encoded} correct-b c correct-batterycorrect-horse");
    let expected = "a •••• b •••• correct-b c ••••••••";
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let said = split(&masks, text.as_bytes(), &[first, second]);
            assert_eq!(said, expected, "cut at {first} and {second}");
        }
    }
    let every: Vec<usize> = (0..=text.len()).collect();
    assert_eq!(split(&masks, text.as_bytes(), &every), expected);
}

#[test]
fn overlapping_secrets_leave_no_end_behind() {
    let masks = masks(&["abcdefgh", "efghijkl"]);
    let text = b"xabcdefghijkly";
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

#[test]
fn tokens_are_known_by_their_shape() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49\n-----END PRIVATE KEY-----";
    let masks = Masks::default();
    for token in [
        "sk-or-v1-0123456789abcdef",
        "sk-ant-api03-AbCdEf_0123456789",
        "xoxb-1234567890-AbCdEf",
        "xapp-1-A0123-4567",
        "shpat_0123456789abcdef0123456789abcdef",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "github_pat_11AAAAAAA0123456789_abcdef",
        "pat-na1-01234567-89ab-cdef-0123-456789abcdef",
        "board_uT3k9pXw2QeL7vR1yZ8mN4bC6dF0gH5jA-s_K2oI9uY",
        jwt,
        pem,
        &pem.replace('\n', "\\n"),
    ] {
        for (before, behind) in
            [("", ""), ("key=", "\n"), ("{\"k\":\"", "\"}"), ("\\n", " "), ("%3D", "&x=1")]
        {
            let text = format!("{before}{token}{behind}");
            assert_eq!(masks.apply(&text), format!("{before}••••{behind}"));
        }
    }
    for harmless in [
        "task-force-one-two-three-four",
        "sk-short",
        "xox-nothing-like-it",
        "xoxb-short",
        "eyJust-a-word.",
        "eyJhbGciOiJIUzI1NiJ9",
        "-----BEGIN of the story",
        "ghp_short",
        "board_session=made-up",
        "clipboard_of_a_name_that_goes_on_for_longer_than_any_token",
        "--------------",
    ] {
        assert_eq!(masks.apply(harmless), harmless);
    }
}

#[test]
fn a_pem_block_that_never_ends_does_not_swallow_everything() {
    let text = format!("-----BEGIN PRIVATE KEY-----\n{}the end", "A".repeat(2 * shapes::LONGEST_PEM));
    let said = Masks::default().apply(&text);
    assert!(said.starts_with("••••AAA") && said.ends_with("the end"));
}

#[test]
fn each_line_of_a_value_is_a_secret() {
    let masks = masks(&["first-line\r\nshort\nit's the \"third\" line\n"]);
    assert_eq!(masks.apply("a first-line b short c it's the \"third\" line d"), "a •••• b short c •••• d");
    assert_eq!(masks.apply(r#"it's the \"third\" line"#), "••••");
    assert_eq!(masks.apply("first-line\r\nshort\nit's the \"third\" line\n"), "••••");
}

/// The ways in which programs print a value, each with the bytes that come before and behind the mask.
fn forms(value: &str) -> Vec<String> {
    let percent = |upper: bool, plus: bool| {
        value
            .bytes()
            .map(|byte| match byte {
                b' ' if plus => "+".to_owned(),
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte if upper => format!("%{byte:02X}"),
                byte => format!("%{byte:02x}"),
            })
            .collect::<String>()
    };
    let json = serde_json::to_string(value).unwrap();
    let json = &json[1..json.len() - 1];
    let ascii = json.chars().fold(String::new(), |mut text, letter| {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
        text
    });
    let quoted = quote(value);
    let backslashes = value.chars().fold(String::new(), |text, letter| {
        match letter.is_ascii_alphanumeric() || !letter.is_ascii() {
            true => format!("{text}{letter}"),
            false => format!("{text}\\{letter}"),
        }
    });
    vec![
        value.to_owned(),
        percent(true, false),
        percent(false, true),
        json.to_owned(),
        ascii,
        quoted[1..quoted.len() - 1].to_owned(),
        value.replace('\'', r#"'"'"'"#),
        backslashes,
    ]
}

/// Nothing in it is of a token's shape, and no part of one value is another's.
fn value() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 '\"\\\\%+/&üß🦀\n-]{8,60}"
}

fn wrap(text: &str) -> String {
    text.as_bytes().chunks(19).map(|line| format!("{}\r\n", String::from_utf8_lossy(line))).collect()
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 300,
        // A failure names its own case; nothing is written beside the sources.
        failure_persistence: None::<Box<FileFailurePersistence>>.map(|it| it as _),
        rng_seed: RngSeed::Random,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_form_of_a_value_is_masked(value in value()) {
        let masks = masks(&[&value]);
        for form in forms(&value) {
            prop_assert_eq!(masks.apply(&format!("[{form}]")), "[••••]", "{}", form);
        }
    }

    #[test]
    fn base64_is_masked_wherever_the_value_stands(value in value(), before in "[a-z]{0,5}", behind in "[a-z]{0,5}") {
        let masks = masks(&[&value]);
        let whole = format!("{before}{value}{behind}");
        for encoded in [BASE64.encode(whole.as_bytes()), BASE64URL.encode(whole.as_bytes())] {
            for printed in [encoded.clone(), wrap(&encoded)] {
                let said = masks.apply(&printed).replace(['\r', '\n', '=', '•'], "");
                // What is left: the neighbours, and a character at each end that mixes the value with them.
                let neighbours = (before.len() + behind.len()) * 4 / 3;
                prop_assert!(said.len() <= neighbours + 4, "{} of {}", said, printed);
            }
        }
    }

    #[test]
    fn cutting_the_stream_changes_nothing(
        values in vec(value(), 1..4),
        pieces in vec((any::<Index>(), any::<Index>(), 0_u8..9, any::<Index>()), 0..8),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let masks = masks(&values);
        let mut text = Vec::new();
        for (which, form, kind, end) in pieces {
            let value = *which.get(&values);
            let piece = match kind {
                0 => BASE64.encode(value.as_bytes()),
                1 => wrap(&BASE64URL.encode(format!("x{value}").as_bytes())),
                2 => "sk-or-v1-0123456789abcdef ".to_owned(),
                3 => "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0".to_owned(),
                4 => "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n".to_owned(),
                5 => "ordinary text 'and' \"quotes\" %41 \\n \\u00 -----".to_owned(),
                _ => form.get(&forms(value)).clone(),
            };
            let bytes = piece.as_bytes();
            // Often whole, sometimes cut off.
            let kept = if kind % 2 == 0 { bytes.len() } else { end.index(bytes.len() + 1) };
            text.extend_from_slice(&bytes[..kept]);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = split(&masks, &text, &[]);
        prop_assert_eq!(&split(&masks, &text, &cuts), &whole);
        let every: Vec<usize> = (0..text.len()).collect();
        prop_assert_eq!(&split(&masks, &text, &every), &whole);
        for value in values {
            prop_assert!(!whole.contains(value));
        }
    }

    #[test]
    fn what_is_held_back_is_bounded(value in value(), text in "[a-zA-Z0-9'\\\\%+ eyJ.-]{0,3000}") {
        let masks = masks(&[&value]);
        let mut masker = masks.masker();
        for byte in text.bytes() {
            masker.push(&[byte]);
            prop_assert!(masker.held.len() <= 1100.max(12 * value.len()), "{}", masker.held.len());
        }
    }
}
