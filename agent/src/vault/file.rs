//! A 0700 folder of 0600 files, for development and tests.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use shared::secret::Secret;

use super::{Store, StoreError};
use crate::files;

pub struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    pub fn open(folder: PathBuf) -> Result<Self, StoreError> {
        files::folder(&folder, 0o700)?;
        Ok(Self { folder })
    }
}

impl Store for FileStore {
    fn get(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let path = self.folder.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.mode() & 0o077 != 0 => {
                return Err(StoreError::Io(std::io::Error::new(
                    std::io::ErrorKind::PermissionDenied,
                    format!("{} can be read by others; give it mode 0600", path.display()),
                )));
            }
            Ok(_) | Err(_) => {}
        }
        Ok(files::read_if_there(&path)?.map(Secret::new))
    }

    fn put(&self, name: &str, value: &Secret<Vec<u8>>) -> Result<(), StoreError> {
        Ok(files::write_atomic(&self.folder.join(name), value.expose(), 0o600)?)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Some(name) = entry?.file_name().to_str()
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
