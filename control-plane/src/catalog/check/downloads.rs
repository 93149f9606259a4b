//! `[[download]]`, and the steps that name one as `$BOARD_CACHE/NAME`.

use std::collections::BTreeMap;

use shared::catalog::{CheckUrl, Download, Manifest, Platform, Step, cached_names};

use super::{Checker, Finding};

impl Checker<'_> {
    pub(super) fn downloads(&mut self) {
        let manifest = self.manifest;
        for (index, download) in manifest.downloads.iter().enumerate() {
            let what = format!("download {}", download.name);
            self.download(&what, download);
            let twice = manifest.downloads[..index].iter().any(|other| {
                other.name == download.name
                    && platforms(manifest, other).any(|p| for_it(manifest, download, p))
            });
            if twice {
                self.say(&what, "stands there twice for one platform: names in the cache folder are unique");
            }
            let named = |step: &Step| names(step).any(|name| name == download.name);
            if !manifest.steps.iter().any(named) {
                let name = &download.name;
                self.say(&what, format!("is named by no step: use \"$BOARD_CACHE/{name}\", or remove it"));
            }
        }
        for step in &manifest.steps {
            self.cached(step);
        }
    }

    fn download(&mut self, what: &str, download: &Download) {
        if !Download::is_plain_name(&download.name) {
            self.say(what, "its name is letters, digits, '.', '_' and '-', and doesn't begin with a dot");
        }
        if !Download::is_sha256(&download.sha256) {
            self.say(what, "sha256 must be 64 hex digits, in lower case");
        }
        let plain = CheckUrl::try_from(download.url.clone()).is_ok_and(|url| url.host.param().is_none());
        if !plain {
            self.say(
                what,
                format!("url {:?} must be https://HOST/…, without a user or a port", download.url),
            );
        }
        let macos_only = platforms(self.manifest, download).all(|platform| platform == Platform::Macos);
        match &download.team {
            Some(team) if !Download::is_team(team) => {
                self.say(what, format!("team {team:?} must be an Apple team's id, like ABCDE12345"));
            }
            Some(_) if !macos_only => {
                self.say(what, "has a team, which only macOS can check: add platforms = [\"macos\"]");
            }
            None if download.name.ends_with(".pkg") => {
                self.say(what, "is a package: add the team that must have signed it");
            }
            Some(_) | None => {}
        }
    }

    fn cached(&mut self, step: &Step) {
        let what = format!("step {}", step.id);
        for name in names(step) {
            if name.is_empty() {
                self.say(&what, "uses BOARD_CACHE without a file's name: write \"$BOARD_CACHE/NAME\"");
                continue;
            }
            let manifest = self.manifest;
            let missing = step.platforms.as_ref().unwrap_or(&manifest.platforms).iter().find(|platform| {
                let there = |d: &Download| d.name == name && for_it(manifest, d, **platform);
                !manifest.downloads.iter().any(there)
            });
            if let Some(platform) = missing {
                let platform = platform.as_str();
                self.say(
                    &what,
                    format!("names $BOARD_CACHE/{name}, and no [[download]] brings it on {platform}"),
                );
            }
        }
    }
}

/// All components share one folder: a name means one file on each platform.
pub(super) fn across(manifests: &BTreeMap<String, Manifest>, findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<(&str, &str), (&str, &str)> = BTreeMap::new();
    for manifest in manifests.values() {
        for download in &manifest.downloads {
            for platform in platforms(manifest, download) {
                let file = (download.sha256.as_str(), manifest.key.as_str());
                let (sha256, component) = *known.entry((&download.name, platform.as_str())).or_insert(file);
                if sha256 != download.sha256 {
                    findings.push(Finding {
                        place: format!("components/{}.toml download {}", manifest.key, download.name),
                        text: format!("is another file in {component}: give one of them another name"),
                    });
                }
            }
        }
    }
}

fn names(step: &Step) -> impl Iterator<Item = &str> {
    [&step.check, &step.run, &step.verify, &step.undo]
        .into_iter()
        .flatten()
        .flat_map(|script| cached_names(script))
}

fn platforms<'m>(manifest: &'m Manifest, download: &'m Download) -> impl Iterator<Item = Platform> + use<'m> {
    manifest.platforms.iter().copied().filter(|platform| download.is_for(*platform))
}

fn for_it(manifest: &Manifest, download: &Download, platform: Platform) -> bool {
    platforms(manifest, download).any(|one| one == platform)
}
