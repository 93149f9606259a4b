//! The rules in `tests/rules.toml`, each with the tests that break it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use regex::Regex;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub section: String,
    pub text: String,
    /// `FILE NAME` each; none while nobody wrote one.
    pub tests: Vec<String>,
}

#[derive(Deserialize)]
struct Rules {
    rule: Vec<Rule>,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn rules() -> anyhow::Result<Vec<Rule>> {
    let path = repository().join("tests/rules.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(toml::from_str::<Rules>(&text).context("tests/rules.toml")?.rule)
}

/// Whether a test that is named as `FILE NAME` is there, as a test that runs.
pub fn exists(test: &str) -> anyhow::Result<bool> {
    let Some((file, name)) = test.split_once(' ') else { return Ok(false) };
    let Ok(text) = std::fs::read_to_string(repository().join(file)) else { return Ok(false) };
    let attribute = r"#\[(?:tokio::)?test(?:\([^\]]*\))?\]";
    let found = Regex::new(&format!(r"{attribute}\s+(?:async )?fn {}\(", regex::escape(name)))?;
    Ok(found.is_match(&text))
}
