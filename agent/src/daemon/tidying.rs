//! Takes away what nothing uses any more: what is downloaded and remembered must not fill the disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use super::{Daemon, DaemonError};
use crate::config::Paths;

impl Daemon {
    /// What neither the scope's catalog nor an open attempt needs. A running step may use anything: then it waits for the
    /// next time.
    pub(super) fn tidy(&self) -> Result<(), DaemonError> {
        if self.steps_running > 0 {
            return Ok(());
        }
        let open: Vec<_> =
            self.journal.attempts()?.into_iter().filter(|attempt| attempt.last.is_none()).collect();
        let marks: BTreeSet<_> = open.iter().map(|attempt| attempt.offer.attempt_id.to_string()).collect();
        keep_only(&self.paths.marks(), |name| marks.contains(name));
        let digests = open.iter().map(|attempt| attempt.offer.bundle_digest.as_str());
        let bundles: BTreeSet<_> = digests
            .chain(self.scope.bundle_digest.as_deref())
            .map(|digest| format!("{digest}.json"))
            .collect();
        // One with a dot may be about to be written.
        keep_only(&self.paths.bundles(), |name| name.starts_with('.') || bundles.contains(name));
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(catalog) = &current.catalog
            && open.is_empty()
        {
            let downloads: BTreeSet<_> = catalog
                .of_scope(&self.scope.components, self.platform)
                .flat_map(|manifest| &manifest.downloads)
                .filter(|download| download.is_for(self.platform))
                .map(|download| download.name.as_str())
                .collect();
            keep_only(&self.paths.cache(), |name| downloads.contains(name));
        }
        Ok(())
    }
}

/// What a killed agent was writing. At the start: nobody writes anything.
pub fn remove_unfinished(paths: &Paths) {
    for folder in [paths.data().to_owned(), paths.bundles(), paths.cache(), paths.wrappers()] {
        keep_only(&folder, |name| {
            !(name.starts_with('.') && (name.ends_with(".new") || name.ends_with(".part")))
        });
    }
}

/// Removes the other files, and no folder. What can't be removed is no trouble but for its size.
fn keep_only(folder: &Path, keep: impl Fn(&str) -> bool) {
    let removed = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() || name.to_str().is_some_and(&keep) {
                continue;
            }
            fs::remove_file(entry.path())?;
            tracing::info!(path = %entry.path().display(), "nothing uses it any more; removed");
        }
        Ok(())
    };
    if let Err(error) = removed() {
        tracing::warn!(folder = %folder.display(), %error, "what nothing uses any more can't be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_files_go_and_only_those_that_nobody_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().to_owned());
        paths.create().unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "").unwrap();
        for name in ["a.pkg", "b.pkg", ".a.pkg.part"] {
            fs::write(paths.cache().join(name), "").unwrap();
        }
        fs::create_dir(paths.cache().join("folder")).unwrap();
        std::os::unix::fs::symlink(&outside, paths.cache().join("link")).unwrap();
        remove_unfinished(&paths);
        assert_eq!(names(&paths.cache()), ["a.pkg", "b.pkg", "folder", "link"]);
        keep_only(&paths.cache(), |name| name == "a.pkg");
        assert_eq!(names(&paths.cache()), ["a.pkg", "folder"]);
        assert!(outside.exists(), "a link goes, not what it leads to");

        fs::write(folder.path().join(".identity.json.new"), "").unwrap();
        fs::write(paths.identity(), "{}").unwrap();
        remove_unfinished(&paths);
        assert!(!folder.path().join(".identity.json.new").exists() && paths.identity().exists());
    }
}
