//! Secrets that a person enters on the command line: hidden at a terminal, or piped from another program. Never an
//! argument, which every process of the machine can read.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use shared::secret::{MAX_LEN, Secret, read_line, read_piped};
use shared::terminal::{self, Entered};

/// Whatever another program writes; one line end behind it is dropped.
pub fn piped() -> anyhow::Result<Secret<Vec<u8>>> {
    read_piped(unbuffered()?).context(UNREAD)
}

/// The whole value, when it is one line; at a terminal without being shown. `instead` follows on "the value has several
/// lines: " and says what became of it, and what to do.
pub fn only_line(prompt: &str, instead: &str) -> anyhow::Result<Secret<Vec<u8>>> {
    if io::stdin().is_terminal() {
        return hidden(prompt, instead);
    }
    let value = piped()?;
    if value.expose().contains(&b'\n') {
        bail!("{SEVERAL}: {instead}");
    }
    Ok(value)
}

/// One line of several that are asked for; at a terminal without being shown. Empty at the end of a pipe.
pub fn line(prompt: &str, instead: &str) -> anyhow::Result<Secret<Vec<u8>>> {
    if io::stdin().is_terminal() {
        return hidden(prompt, instead);
    }
    let line = read_line(unbuffered()?).context(UNREAD)?;
    line.with_context(|| format!("the value is longer than {MAX_LEN} bytes: {instead}"))
}

pub fn as_text(value: &Secret<Vec<u8>>) -> anyhow::Result<Secret<String>> {
    let text = std::str::from_utf8(value.expose()).ok().context("the value is not UTF-8 text")?;
    Ok(Secret::new(text.to_owned()))
}

const UNREAD: &str = "standard input can't be read";
const SEVERAL: &str = "the value has several lines";

fn hidden(prompt: &str, instead: &str) -> anyhow::Result<Secret<Vec<u8>>> {
    match terminal::ask(prompt).context("the terminal can't be read")? {
        Entered::Line(value) => Ok(value),
        Entered::Several => bail!("{SEVERAL}: {instead}"),
    }
}

/// Reads no further than it is asked to, and keeps no copy.
fn unbuffered() -> anyhow::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned().context(UNREAD)?))
}

#[cfg(test)]
mod tests {
    use shared::secret::Secret;

    use super::as_text;

    #[test]
    fn what_is_no_text_is_refused_without_being_shown() {
        let refused = as_text(&Secret::new(b"\xffcanary".to_vec())).unwrap_err();
        assert!(!format!("{refused:#} {refused:?}").contains("canary"));
        assert_eq!(as_text(&Secret::new(" ä\n".into())).unwrap().expose(), " ä\n");
    }
}
