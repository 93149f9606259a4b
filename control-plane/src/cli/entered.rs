//! Secrets that a person enters on the command line: hidden at a terminal, or piped from another program. Never an
//! argument, which every process of the machine can read.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use shared::secret::{MAX_LEN, Secret};

/// One value that is piped in; one line end behind it is dropped.
pub fn piped(from: impl io::Read) -> anyhow::Result<Secret<String>> {
    // Room from the start: a growing buffer would leave copies behind. One byte more than a value and its line end may
    // have shows that it is too long.
    let most = MAX_LEN + 3;
    let mut value = Vec::with_capacity(most);
    from.take(most as u64).read_to_end(&mut value).context("standard input can't be read")?;
    text(value)
}

/// One line, without being shown when it comes from a terminal. Empty at the end of a pipe.
pub fn line(prompt: &str) -> anyhow::Result<Secret<String>> {
    if io::stdin().is_terminal() {
        return Ok(Secret::new(rpassword::prompt_password(prompt).context("the terminal can't be read")?));
    }
    let mut value = Vec::with_capacity(MAX_LEN + 3);
    let mut input = io::stdin().lock().take((MAX_LEN + 3) as u64);
    input.read_until(b'\n', &mut value).context("standard input can't be read")?;
    text(value)
}

fn text(mut value: Vec<u8>) -> anyhow::Result<Secret<String>> {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    match String::from_utf8(value) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) => {
            drop(Secret::new(error.into_bytes()));
            bail!("the value is not UTF-8 text: nothing was changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::secret::MAX_LEN;

    use super::piped;

    #[test]
    fn one_line_end_is_dropped_and_nothing_else() {
        for (given, expected) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("", "")] {
            assert_eq!(piped(given.as_bytes()).unwrap().expose(), expected);
        }
        let longest = format!("{}\r\n", "x".repeat(MAX_LEN));
        assert_eq!(piped(longest.as_bytes()).unwrap().expose().len(), MAX_LEN);
        assert!(piped("x".repeat(2 * MAX_LEN).as_bytes()).unwrap().expose().len() > MAX_LEN);
        let refused = piped(&b"\xffcanary"[..]).unwrap_err();
        assert!(!format!("{refused:#}").contains("canary"));
    }
}
