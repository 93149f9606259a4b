//! A change of scope: what a form asks for, checked against the catalog, and saved by whoever decided that it may be.
//!
//! Saving shows nothing to anybody. For a client whose devices have runbooks, `runbook::scope_change` shows first what
//! would come of it, and saves in the same transaction in which it compared.

use std::collections::BTreeSet;

use shared::ids::ClientId;
use shared::time::Timestamp;

use super::scope::check;
use super::{Client, CreateError, Package, Scope, engagement, get, scope, store};
use crate::audit::{Action, Entry, Who};
use crate::catalog::{self, Catalog, tiers::with_dependencies};
use crate::db::Tx;
use crate::error::Failure;
use crate::web::FieldError;

/// What one of the wizard's pages asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// The components that the package preselects take the place of those in scope. The package that is saved already
    /// changes nothing, so that edits stay.
    Package(Package),
    /// This scope, with the package that the page before left to be saved with it.
    Scope { scope: Scope, package: Option<Package> },
}

/// A change that may be saved, in the transaction in which it was proposed.
#[derive(Clone, Debug)]
pub struct Change {
    pub client: Client,
    pub catalog: Catalog,
    pub package_before: Package,
    pub before: Scope,
    /// The package to save, if it is another one.
    pub package: Option<Package>,
    pub after: Scope,
    /// Choices and inputs that a package leaves to the next page.
    pub missing: Vec<FieldError>,
}

impl Change {
    /// Nothing to save.
    pub fn is_none(&self) -> bool {
        self.package.is_none() && self.before == self.after
    }

    pub fn added(&self) -> impl Iterator<Item = &str> {
        self.after.components.difference(&self.before.components).map(String::as_str)
    }

    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.before.components.difference(&self.after.components).map(String::as_str)
    }

    /// Components that stay, with another choice or input.
    pub fn edited(&self) -> impl Iterator<Item = &str> {
        let of = |scope: &Scope, key: &str| {
            let choices = scope.choices.iter().filter(|((component, _), _)| component == key);
            let params = scope.params.iter().filter(|((component, _), _)| component == key);
            choices.chain(params).map(|(key, value)| (key.1.clone(), value.clone())).collect::<BTreeSet<_>>()
        };
        let stays = self.after.components.intersection(&self.before.components).map(String::as_str);
        stays.filter(move |key| of(&self.before, key) != of(&self.after, key))
    }

    /// Writes the change, and gives the entry to append before the transaction ends.
    pub async fn write(&self, tx: &mut Tx, who: Who, now: Timestamp) -> Result<Entry, sqlx::Error> {
        let id = self.client.id;
        if let Some(package) = &self.package {
            store::replace_package(tx, id, package).await?;
        }
        store::replace_scope(tx, id, &self.after, now).await?;
        let mut entry = Entry::new(now, who, Action::ScopeChanged).client(id);
        if let Some(package) = &self.package {
            entry = entry.detail("tier", package.tier.as_deref().unwrap_or("none"));
            if !package.addons.is_empty() {
                entry = entry.detail("addons", joined(package.addons.iter().map(String::as_str)));
            }
        }
        entry = entry.detail("components", joined(self.after.components.iter().map(String::as_str)));
        for (name, keys) in [
            ("added", joined(self.added())),
            ("removed", joined(self.removed())),
            ("edited", joined(self.edited())),
        ] {
            if !keys.is_empty() {
                entry = entry.detail(name, keys);
            }
        }
        Ok(entry)
    }
}

/// Holds the client's scope until the transaction ends: two changes of it, and a runbook being fitted to it, come one
/// after the other on both databases.
pub async fn take_turn(tx: &mut Tx, id: ClientId) -> Result<(), Failure> {
    match store::touch(tx, id).await? {
        0 => Err(Failure::not_found("client")),
        _ => Ok(()),
    }
}

/// Checks what is asked for. What the chosen components depend on, and what every client gets, comes along.
pub async fn propose(tx: &mut Tx, id: ClientId, proposal: &Proposal) -> Result<Change, CreateError> {
    engagement::ensure_active(tx, id).await?;
    let client = get(tx, id).await?;
    let before = scope(tx, id).await?;
    let package_before = store::package(tx, id).await?;
    let catalog = catalog::current(tx).await.map_err(Failure::from)?;
    let Some(catalog) = catalog else {
        return Err(no_catalog(match proposal {
            Proposal::Package(_) => "tier",
            Proposal::Scope { .. } => "component",
        }));
    };
    let asked = match proposal {
        Proposal::Package(package) => Some(package),
        Proposal::Scope { package, .. } => package.as_ref(),
    };
    if asked.is_some_and(|package| !is_known(package, &catalog)) {
        let message = "This package is not in the catalog any more. Choose again.";
        return Err(CreateError::Fields(vec![FieldError::new("tier", message)]));
    }
    let package = asked.filter(|package| **package != package_before).cloned();
    let (after, missing) = match proposal {
        Proposal::Package(_) if package.is_none() && !before.components.is_empty() => {
            (before.clone(), Vec::new())
        }
        Proposal::Package(package) => {
            let after = Scope { components: preselected(package, &catalog), ..before.clone() };
            let missing = check(&mut after.clone(), &catalog);
            (after, missing)
        }
        Proposal::Scope { scope, .. } => {
            let mut components = scope.components.clone();
            components.extend(catalog.tiers.always().into_iter().map(ToOwned::to_owned));
            let components = with_dependencies(&components, &catalog.manifests).into_keys().collect();
            let mut after = Scope { components, ..scope.clone() };
            let errors = check(&mut after, &catalog);
            if !errors.is_empty() {
                return Err(CreateError::Fields(errors));
            }
            (after, Vec::new())
        }
    };
    Ok(Change { client, catalog, package_before, before, package, after, missing })
}

fn is_known(package: &Package, catalog: &Catalog) -> bool {
    let tiers = &catalog.tiers;
    package.tier.as_ref().is_none_or(|key| tiers.tiers.iter().any(|tier| tier.key == *key))
        && package.addons.iter().all(|key| tiers.addons.iter().any(|addon| addon.key == *key))
}

fn preselected(package: &Package, catalog: &Catalog) -> BTreeSet<String> {
    let tiers = &catalog.tiers;
    let mut chosen: BTreeSet<String> = tiers.always().into_iter().map(ToOwned::to_owned).collect();
    chosen.extend(package.tier.iter().flat_map(|key| tiers.of_tier(key)).map(ToOwned::to_owned));
    chosen.extend(package.addons.iter().flat_map(|key| tiers.of_addon(key)).map(ToOwned::to_owned));
    with_dependencies(&chosen, &catalog.manifests).into_keys().collect()
}

fn joined<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    keys.collect::<Vec<_>>().join(" ")
}

fn no_catalog(field: &'static str) -> CreateError {
    let message =
        "There is no catalog on this board yet. The operator imports one with `board catalog import`.";
    CreateError::Fields(vec![FieldError::new(field, message)])
}
