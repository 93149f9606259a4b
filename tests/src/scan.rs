//! Searching for values that must not be somewhere: files byte by byte, and running processes' command lines,
//! environments and memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
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

/// How often a running process has `needle` in its memory.
pub fn memory_with(process: u32, needle: &[u8]) -> anyhow::Result<usize> {
    let mut found = 0;
    memory(process, needle.len() - 1, |piece| found += count(piece, needle))?;
    Ok(found)
}

/// Shows a running process's memory (Linux), every region that can be read, in pieces that overlap by so many bytes, and
/// gives their number of bytes. For the board and the agent this needs root: they refuse to be read by their own user.
pub fn memory(process: u32, overlap: usize, mut look: impl FnMut(&[u8])) -> anyhow::Result<u64> {
    const PIECE: u64 = 1024 * 1024;
    const PAGE: u64 = 4096;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let memory = File::open(format!("/proc/{process}/mem"))
        .context("its memory can't be opened: the board's and the agent's only by root")?;
    let mut read_at_all = 0;
    let mut piece = vec![0; usize::try_from(PIECE)? + overlap];
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        // The kernel's own pages.
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').context("a region has two ends")?;
        let (mut at, end) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        while at < end {
            let room = usize::try_from(end - at)?.min(piece.len());
            // A page may be gone meanwhile, or never have been there: what is behind it is still looked at.
            let read = memory.read_at(&mut piece[..room], at).unwrap_or(0);
            look(&piece[..read]);
            read_at_all += read as u64;
            at += if read == room { PIECE } else { (read as u64).max(PAGE) };
        }
    }
    anyhow::ensure!(read_at_all > PIECE, "only {read_at_all} bytes of process {process} could be read");
    Ok(read_at_all)
}

fn count(bytes: &[u8], needle: &[u8]) -> usize {
    let Some((first, _)) = needle.split_first() else { return 0 };
    let (mut rest, mut found) = (bytes, 0);
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        found += usize::from(rest[at..].starts_with(needle));
        rest = &rest[at + 1..];
    }
    found
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
    use super::{contains, count, files_with, memory_with};

    #[test]
    fn a_value_in_memory_is_found_as_often_as_it_is_there() {
        assert_eq!((count(b"ababa", b"aba"), count(b"abab", b"x"), count(b"", b"a")), (2, 0, 0));
        // Made here, so that the program's own text doesn't hold it.
        let needle: Vec<u8> = (0..24).map(|number| b'a' + number).rev().collect();
        let own = std::process::id();
        let before = memory_with(own, &needle).unwrap();
        let planted = [vec![0; 3 * 1024 * 1024], needle.clone(), needle.clone()].concat();
        assert!(memory_with(own, &needle).unwrap() >= before + 2);
        assert!(contains(&planted, &needle));
    }

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
