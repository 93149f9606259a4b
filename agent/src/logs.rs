//! The log as files: five of 5 MiB, the newest first (`agent.log`, `agent.log.1`, …).
//!
//! Written here because the crates that rotate by size bring date and compression libraries along, and the common one
//! rotates by time only: a noisy day would fill a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::files;

/// Bytes.
const SIZE: u64 = 5 * 1024 * 1024;
const FILES: u32 = 5;
const NAME: &str = "agent.log";
/// Where launchd puts what the agent writes past its log: errors before it starts, panics.
pub const SERVICE_OUTPUT: &str = "service.log";

pub struct RotatingLog {
    path: PathBuf,
    file: File,
    written: u64,
    size: u64,
}

impl RotatingLog {
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::new_folder(folder, 0o750)?;
        let beside = folder.join(SERVICE_OUTPUT);
        if fs::metadata(&beside).is_ok_and(|metadata| metadata.len() > SIZE) {
            // launchd appends: what it holds open goes on at the new end.
            OpenOptions::new().write(true).truncate(true).open(&beside)?;
        }
        Self::with_size(folder.join(NAME), SIZE)
    }

    fn with_size(path: PathBuf, size: u64) -> io::Result<Self> {
        let file = append(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, size })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES).rev() {
            let older = numbered(&self.path, number);
            let newer = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(&newer, &older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // Losing old lines is better than filling the disk.
                    self.file.set_len(0)?;
                    self.written = 0;
                    return Ok(());
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.file = append(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for RotatingLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + line.len() as u64 > self.size {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_files_are_kept_and_the_newest_line_is_in_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let mut log = RotatingLog::with_size(path.clone(), 100).unwrap();
        for number in 0..200 {
            // In one piece, as the log comes.
            log.write_all(format!("line {number:03} {}\n", "x".repeat(20)).as_bytes()).unwrap();
        }
        drop(log);
        let sizes: Vec<u64> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 5);
        assert!(sizes.iter().all(|size| (1..=100).contains(size)), "{sizes:?}");
        assert!(fs::read_to_string(&path).unwrap().contains("line 199"));
        let oldest = fs::read_to_string(numbered(&path, 4)).unwrap();
        assert!(oldest.starts_with("line 186"), "no line between the files is lost: {oldest}");

        let mut log = RotatingLog::with_size(path.clone(), 100).unwrap();
        log.write_all(b"after a restart\n").unwrap();
        assert!(
            fs::read_to_string(&path).unwrap().contains("line 199"),
            "a restart goes on in the same file"
        );
    }

    #[test]
    fn a_full_log_takes_25_mib_and_no_more() {
        const MIB: usize = 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let mut log = RotatingLog::open(folder.path()).unwrap();
        let line = vec![b'x'; MIB / 4];
        for _ in 0..4 * 40 {
            log.write_all(&line).unwrap();
        }
        let sizes: Vec<u64> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes, vec![5 * MIB as u64; 5]);
    }

    #[test]
    fn what_launchd_collects_is_bounded_too() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join(SERVICE_OUTPUT);
        File::create(&beside).unwrap().set_len(SIZE + 1).unwrap();
        RotatingLog::open(folder.path()).unwrap();
        assert_eq!(fs::metadata(&beside).unwrap().len(), 0);
    }
}
