//! Files that the agent fetches before the steps that name them as `$BOARD_CACHE/NAME`.

use serde::Deserialize;

use super::Platform;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// The file's name below `BOARD_CACHE`; see [`Download::is_plain_name`].
    pub name: String,
    /// `https` only.
    pub url: String,
    /// 64 lower-case hex digits; see [`Download::is_sha256`].
    pub sha256: String,
    /// macOS: the package must be signed by this Apple team; see [`Download::is_team`].
    pub team: Option<String>,
    /// Default: the component's.
    #[serde(default)]
    pub platforms: Vec<Platform>,
}

impl Download {
    pub fn is_for(&self, platform: Platform) -> bool {
        self.platforms.is_empty() || self.platforms.contains(&platform)
    }

    /// Letters, digits, `.`, `_` and `-`, not beginning with a dot: a name in the cache folder and nothing else.
    pub fn is_plain_name(name: &str) -> bool {
        (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain)
    }

    pub fn is_sha256(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }

    /// An Apple team's id: ten upper-case letters and digits.
    pub fn is_team(text: &str) -> bool {
        text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The names behind every `BOARD_CACHE` of a script: `$BOARD_CACHE/NAME`, `"$BOARD_CACHE"/NAME`, `${BOARD_CACHE}/NAME`.
/// One that isn't followed by a name is an empty text.
pub fn cached_names(script: &str) -> impl Iterator<Item = &str> {
    script.split("BOARD_CACHE").skip(1).map(|rest| {
        let Some(rest) = rest.trim_start_matches(['}', '"']).strip_prefix('/') else { return "" };
        let end = rest.bytes().position(|b| !is_plain(b)).unwrap_or(rest.len());
        &rest[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_script_are_found_however_the_variable_is_quoted() {
        let script = r#"
installer -pkg "$BOARD_CACHE/Example-1.2.pkg" -target /
cp "$BOARD_CACHE"/a.tar.gz "${BOARD_CACHE}/b_2" $BOARD_CACHE/c; ls "$BOARD_CACHE"
"#;
        let names: Vec<_> = cached_names(script).collect();
        assert_eq!(names, ["Example-1.2.pkg", "a.tar.gz", "b_2", "c", ""]);
        assert_eq!(cached_names("true").count(), 0);
    }

    #[test]
    fn a_name_is_a_name_and_no_path() {
        for good in ["Example.pkg", "a", "node-v24.1.0-darwin-arm64.tar.gz", "x_y"] {
            assert!(Download::is_plain_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "../x", "a b", "a\n", "ä", &"x".repeat(101)] {
            assert!(!Download::is_plain_name(bad), "{bad:?}");
        }
        assert!(Download::is_sha256(&"0f".repeat(32)) && !Download::is_sha256(&"0F".repeat(32)));
        assert!(Download::is_team("ABCDE12345") && !Download::is_team("abcde12345"));
    }
}
