//! Free text that people type: notes, reasons, hints. A secret pasted there by mistake would be kept in the clear, so
//! text with the shape of a known token is refused, without being repeated.

use std::sync::LazyLock;

use regex::RegexSet;

use crate::error::Failure;

static SHAPES: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
    RegexSet::new([
        r"\bsk-[A-Za-z0-9_-]{16,}",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        r"\bshp(at|ca|pa|ss)_[A-Fa-f0-9]{16,}",
        r"\bgh[opsur]_[A-Za-z0-9]{20,}",
        r"\bboard_[A-Za-z0-9_-]{40,}",
        r"\bgithub_pat_[A-Za-z0-9_]{20,}",
        r"\bpat-[a-z0-9]{2,4}-[0-9a-f-]{30,}",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.",
        r"-----BEGIN [A-Z ]+-----",
    ])
    .ok()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreeTextError {
    #[error(
        "This looks like a password or token. Nothing was saved. Secrets of ours belong on the client's secrets page, the client's own in their vault."
    )]
    Token,
    #[error("This is longer than {0} characters. Shorten it.")]
    TooLong(usize),
    #[error("This holds characters that aren't text. Type it again instead of pasting it.")]
    Control,
}

/// At most `limit` characters of text, and nothing that looks like a token.
pub fn check(text: &str, limit: usize) -> Result<(), FreeTextError> {
    if text.chars().count() > limit {
        return Err(FreeTextError::TooLong(limit));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(FreeTextError::Control);
    }
    // A set that doesn't compile refuses everything rather than nothing; a test sees that it compiles.
    if SHAPES.as_ref().is_none_or(|shapes| shapes.is_match(text)) {
        return Err(FreeTextError::Token);
    }
    Ok(())
}

/// What a refused form shows again of what was typed: nothing of what may be a secret.
pub fn shown_again(text: &str) -> &str {
    if check(text, usize::MAX).is_ok() { text } else { "" }
}

/// A reason that a person gave, trimmed: at most 500 characters, not empty, no token.
pub fn reason(text: &str) -> Result<&str, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::invalid(
            "reason",
            "A reason is missing",
            "Say why, for whoever reads it later.",
        ));
    }
    check(text, 500)
        .map_err(|error| Failure::invalid("reason", "The reason was not accepted", error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{FreeTextError, check, shown_again};

    #[test]
    fn shapes_of_tokens_are_refused_without_echo() {
        let tokens = [
            format!("sk-{}", "ant-api03-abcdefghijk"),
            format!("call xoxb{}", "-1234567890-abcdef"),
            format!("shpat_{}", "0123456789abcdef0123"),
            format!("board_{}", "uT3k9pXw2QeL7vR1yZ8mN4bC6dF0gH5jA-s_K2oI9uY"),
            format!("ghp_{}", "abcdefghijklmnopqrstuvwxyz"),
            format!("eyJ{}", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"),
            "-----BEGIN PRIVATE KEY-----".to_owned(),
        ];
        for token in tokens {
            let refused = check(&token, 2000).unwrap_err();
            assert_eq!(refused, FreeTextError::Token);
            assert!(!refused.to_string().contains(&token));
            assert_eq!(shown_again(&token), "");
        }
    }

    #[test]
    fn plain_words_emoji_and_right_to_left_text_pass() {
        for text in ["", "Call at nine 🙂", "לקוח חדש", "task-force sketch", "<b>bold</b>"] {
            assert_eq!(check(text, 100), Ok(()), "{text}");
        }
        assert_eq!(check(&"é".repeat(101), 100), Err(FreeTextError::TooLong(100)));
        assert_eq!(check("two\r\nlines\tand a tab", 100), Ok(()));
        for text in ["nul\0", "bell\u{7}", "\u{1b}[31mred"] {
            assert_eq!(check(text, 100), Err(FreeTextError::Control), "{text:?}");
        }
    }
}
