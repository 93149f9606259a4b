//! The scope: which components a client gets, which slot of each group is filled, and the inputs that aren't secret.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use shared::catalog::Manifest;
use shared::ids::ClientId;

use super::{CreateError, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, AnySlot, Catalog, tiers::with_dependencies};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;
use crate::web::FieldError;

/// What the wizard's package page chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    pub tier: Option<String>,
    pub addons: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub components: BTreeSet<String>,
    /// (component, group) = slot key.
    pub choices: BTreeMap<(String, String), String>,
    /// (component, param) = value.
    pub params: BTreeMap<(String, String), String>,
}

impl Scope {
    /// Whether a slot is to be filled: it stands alone, or it is the chosen one of its group.
    pub fn wants_slot(&self, manifest: &Manifest, slot_key: &str) -> bool {
        let Some(slot) = manifest.slot(slot_key) else { return false };
        match &slot.one_of {
            None => true,
            Some(group) => self.chosen(&manifest.key, group) == Some(slot_key),
        }
    }

    pub fn chosen(&self, component: &str, group: &str) -> Option<&str> {
        self.choices.get(&(component.to_owned(), group.to_owned())).map(String::as_str)
    }

    pub fn param(&self, component: &str, key: &str) -> Option<&str> {
        self.params.get(&(component.to_owned(), key.to_owned())).map(String::as_str)
    }
}

pub async fn package(tx: &mut Tx, id: ClientId) -> Result<Package, sqlx::Error> {
    store::package(tx, id).await
}

pub async fn scope(tx: &mut Tx, id: ClientId) -> Result<Scope, sqlx::Error> {
    Ok(Scope {
        components: store::components(tx, id).await?.into_iter().collect(),
        choices: store::choices(tx, id).await?,
        params: store::params(tx, id).await?,
    })
}

/// The slots in scope that are to be filled.
pub async fn slots(tx: &mut Tx, id: ClientId) -> Result<Vec<AnySlot>, Failure> {
    let scope = scope(tx, id).await?;
    let Some(catalog) = catalog::current(tx).await? else { return Ok(Vec::new()) };
    let components: Vec<String> = scope.components.iter().cloned().collect();
    let mut slots = catalog::slots(tx, &components).await?;
    slots.retain(|slot| {
        let (component, key) = slot.keys();
        catalog.manifests.get(component).is_some_and(|manifest| scope.wants_slot(manifest, key))
    });
    Ok(slots)
}

/// Saves the package, and the components that it preselects as the scope to edit.
pub async fn choose_package(app: &App, who: Who, id: ClientId, package: &Package) -> Result<(), CreateError> {
    let mut tx = app.db.write().await?;
    super::get(&mut tx, id).await?;
    let Some(catalog) = catalog::current(&mut tx).await.map_err(Failure::from)? else {
        return Err(no_catalog("tier"));
    };
    let tiers = &catalog.tiers;
    let tier_known = package.tier.as_ref().is_none_or(|key| tiers.tiers.iter().any(|tier| tier.key == *key));
    let addons_known = package.addons.iter().all(|key| tiers.addons.iter().any(|addon| addon.key == *key));
    if !tier_known || !addons_known {
        let message = "This package is not in the catalog any more. Choose again.";
        return Err(CreateError::Fields(vec![FieldError::new("tier", message)]));
    }
    let mut chosen: BTreeSet<String> = tiers.always().into_iter().map(ToOwned::to_owned).collect();
    chosen.extend(package.tier.iter().flat_map(|key| tiers.of_tier(key)).map(ToOwned::to_owned));
    chosen.extend(package.addons.iter().flat_map(|key| tiers.of_addon(key)).map(ToOwned::to_owned));
    let before = scope(&mut tx, id).await?;
    if store::package(&mut tx, id).await? != *package || before.components.is_empty() {
        let components = with_dependencies(&chosen, &catalog.manifests).into_keys().collect();
        let scope = Scope { components, ..before };
        store::replace_package(&mut tx, id, package).await?;
        store::replace_scope(&mut tx, id, &scope, app.now()).await?;
        let entry = Entry::new(app.now(), who, Action::ScopeChanged)
            .client(id)
            .detail("tier", package.tier.as_deref().unwrap_or("none"))
            .detail("components", joined(&scope.components));
        audit::append(&mut tx, &entry).await?;
        tx.commit().await?;
        app.jobs.wake(Wake::Client(id));
    }
    Ok(())
}

/// Saves the scope. What the chosen components depend on, and what every client gets, comes along.
pub async fn choose_scope(app: &App, who: Who, id: ClientId, chosen: &Scope) -> Result<(), CreateError> {
    let mut tx = app.db.write().await?;
    super::get(&mut tx, id).await?;
    let Some(catalog) = catalog::current(&mut tx).await.map_err(Failure::from)? else {
        return Err(no_catalog("component"));
    };
    let mut components = chosen.components.clone();
    components.extend(catalog.tiers.always().into_iter().map(ToOwned::to_owned));
    let components: BTreeSet<String> =
        with_dependencies(&components, &catalog.manifests).into_keys().collect();
    let mut scope = Scope { components, ..chosen.clone() };
    let errors = check(&mut scope, &catalog);
    if !errors.is_empty() {
        return Err(CreateError::Fields(errors));
    }
    store::replace_scope(&mut tx, id, &scope, app.now()).await?;
    let entry = Entry::new(app.now(), who, Action::ScopeChanged)
        .client(id)
        .detail("components", joined(&scope.components));
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    app.jobs.wake(Wake::Client(id));
    Ok(())
}

fn joined(components: &BTreeSet<String>) -> String {
    components.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn no_catalog(field: &'static str) -> CreateError {
    let message =
        "There is no catalog on this board yet. The operator imports one with `board catalog import`.";
    CreateError::Fields(vec![FieldError::new(field, message)])
}

/// Drops choices and params of components that aren't in scope; says what is missing or doesn't fit.
fn check(scope: &mut Scope, catalog: &Catalog) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if scope.components.is_empty() {
        errors.push(FieldError::new("component", "Choose at least one component."));
    }
    let known = |component: &str| catalog.manifests.get(component);
    scope.choices.retain(|(component, _), _| scope.components.contains(component));
    scope.params.retain(|(component, _), value| scope.components.contains(component) && !value.is_empty());
    for key in &scope.components {
        let Some(manifest) = known(key) else {
            let message = "One of the components is not in the catalog any more. Choose again.";
            errors.push(FieldError::new("component", message));
            continue;
        };
        for other in manifest.conflicts_with.iter().filter(|other| scope.components.contains(*other)) {
            let message =
                format!("{} and {} exclude each other. Choose one.", manifest.name, catalog.name_of(other));
            errors.push(FieldError::new("component", message));
        }
        for group in groups(manifest) {
            let fits = scope.chosen(key, &group).is_some_and(|chosen| {
                manifest.slot(chosen).is_some_and(|slot| slot.one_of.as_deref() == Some(group.as_str()))
            });
            if !fits {
                let message = format!("Say which one {} uses.", manifest.name);
                errors.push(FieldError::new(choice_field(key, &group), message));
            }
        }
        for param in &manifest.params {
            let field = || param_field(key, &param.key);
            match scope.param(key, &param.key) {
                None if param.required => {
                    let message = format!("{} needs this: {}.", manifest.name, param.name);
                    errors.push(FieldError::new(field(), message));
                }
                Some(value) if free_text::check(value, 500).is_err() => {
                    let message = "This looks like a secret, or is longer than 500 characters. Only inputs that aren't secret belong here.";
                    errors.push(FieldError::new(field(), message));
                }
                Some(value) if !Regex::new(&param.pattern).is_ok_and(|pattern| pattern.is_match(value)) => {
                    let message = format!(
                        "This doesn't look like {}'s “{}”. Copy it again from where {} shows it.",
                        manifest.name, param.name, manifest.name
                    );
                    errors.push(FieldError::new(field(), message));
                }
                Some(_) | None => {}
            }
        }
    }
    errors
}

/// The groups of which exactly one slot is filled, in the order of the manifest.
pub fn groups(manifest: &Manifest) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for group in manifest.slots.iter().filter_map(|slot| slot.one_of.clone()) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

pub fn choice_field(component: &str, group: &str) -> String {
    format!("choice-{component}-{group}")
}

pub fn param_field(component: &str, param: &str) -> String {
    format!("param-{component}-{param}")
}
