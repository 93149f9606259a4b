//! `tiers.toml`: packages that preselect components. A tier may contain another; `foundation` is in every scope.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use shared::catalog::Manifest;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    #[serde(default, rename = "tier")]
    pub tiers: Vec<Tier>,
    #[serde(default, rename = "addon")]
    pub addons: Vec<Addon>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    pub key: String,
    pub name: String,
    /// In every client's scope; not offered as a choice.
    #[serde(default)]
    pub always: bool,
    /// Other tiers that this one contains.
    #[serde(default)]
    pub includes: Vec<String>,
    #[serde(default)]
    pub components: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addon {
    pub key: String,
    pub name: String,
    pub components: Vec<String>,
}

impl Tiers {
    /// Components that every scope has.
    pub fn always(&self) -> BTreeSet<&str> {
        let always = self.tiers.iter().filter(|tier| tier.always);
        always.flat_map(|tier| &tier.components).map(String::as_str).collect()
    }

    /// A tier's components, with those of the tiers that it contains.
    pub fn of_tier(&self, key: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let (mut open, mut seen) = (vec![key], BTreeSet::new());
        while let Some(key) = open.pop() {
            let Some(tier) = self.tiers.iter().find(|tier| tier.key == key) else { continue };
            if seen.insert(key) {
                found.extend(tier.components.iter().map(String::as_str));
                open.extend(tier.includes.iter().map(String::as_str));
            }
        }
        found
    }

    pub fn of_addon(&self, key: &str) -> BTreeSet<&str> {
        let addon = self.addons.iter().find(|addon| addon.key == key);
        addon.into_iter().flat_map(|addon| &addon.components).map(String::as_str).collect()
    }
}

/// The chosen components with everything that they depend on, and for each of those added who needs it.
pub fn with_dependencies(
    chosen: &BTreeSet<String>,
    manifests: &BTreeMap<String, Manifest>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut scope: BTreeMap<String, BTreeSet<String>> =
        chosen.iter().map(|key| (key.clone(), BTreeSet::new())).collect();
    let mut open: Vec<String> = chosen.iter().cloned().collect();
    while let Some(key) = open.pop() {
        let needed = manifests.get(&key).map(|manifest| manifest.depends_on.as_slice()).unwrap_or_default();
        for other in needed {
            if !scope.contains_key(other) {
                open.push(other.clone());
            }
            scope.entry(other.clone()).or_default().insert(key.clone());
        }
    }
    scope
}
