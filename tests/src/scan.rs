//! Searching for values that must not be somewhere: files byte by byte, and running processes' command lines and
//! environments.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The files below `folder` that hold one of `needles`, as paths relative to it.
pub fn files_with(folder: &Path, needles: &[&[u8]]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(current) = open.pop() {
        let entries = std::fs::read_dir(&current).with_context(|| current.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())?;
                if needles.iter().any(|needle| contains(&bytes, needle)) {
                    found.push(entry.path().strip_prefix(folder)?.to_owned());
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Which running processes show `needle` in their command line, and which have it in their environment.
pub fn processes_with(needle: &[u8]) -> anyhow::Result<(Vec<u32>, Vec<u32>)> {
    let (mut command_lines, mut environments) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may be gone, or not ours to read.
        let shows =
            |file: &str| std::fs::read(entry.path().join(file)).is_ok_and(|bytes| contains(&bytes, needle));
        if shows("cmdline") {
            command_lines.push(id);
        }
        if shows("environ") {
            environments.push(id);
        }
    }
    Ok((command_lines, environments))
}

pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, _)) = needle.split_first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{contains, files_with};

    #[test]
    fn a_planted_value_is_found_wherever_it_starts() {
        assert!(contains(b"xxcanary", b"canary") && contains(b"cacanary", b"canary"));
        assert!(!contains(b"canar", b"canary"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/file"), b"\0\0canary\0").unwrap();
        std::fs::write(folder.path().join("other"), b"nothing").unwrap();
        let found = files_with(folder.path(), &[b"canary"]).unwrap();
        assert_eq!(found, [std::path::Path::new("deep/file")]);
    }
}
