//! The scope: which components a client gets, which slot of each group is filled, and the inputs that aren't secret.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use shared::catalog::Manifest;
use shared::ids::ClientId;

use super::store;
use crate::catalog::{self, AnySlot, Catalog};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
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

    /// The same for a slot of the catalog: its component has to be in scope, too.
    pub fn wants(&self, catalog: &Catalog, component: &str, slot_key: &str) -> bool {
        let manifest = catalog.manifests.get(component).filter(|_| self.components.contains(component));
        manifest.is_some_and(|manifest| self.wants_slot(manifest, slot_key))
    }

    pub fn chosen(&self, component: &str, group: &str) -> Option<&str> {
        self.choices.get(&(component.to_owned(), group.to_owned())).map(String::as_str)
    }

    pub fn param(&self, component: &str, key: &str) -> Option<&str> {
        self.params.get(&(component.to_owned(), key.to_owned())).map(String::as_str)
    }

    /// The inputs of one component, as its scripts get them.
    pub fn params_of(&self, component: &str) -> BTreeMap<String, String> {
        let own = self.params.iter().filter(|((key, _), _)| key == component);
        own.map(|((_, param), value)| (param.clone(), value.clone())).collect()
    }

    /// The inputs of each component that has some.
    pub fn all_params(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let components: BTreeSet<&String> = self.params.keys().map(|(component, _)| component).collect();
        components.into_iter().map(|component| (component.clone(), self.params_of(component))).collect()
    }

    /// The same without choices and inputs of components that aren't in scope, which are kept but count for nothing.
    #[must_use]
    pub fn effective(&self) -> Self {
        let mut scope = self.clone();
        scope.choices.retain(|(component, _), _| self.components.contains(component));
        scope.params.retain(|(component, _), _| self.components.contains(component));
        scope
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
        scope.wants(&catalog, component, key)
    });
    Ok(slots)
}

/// Drops choices and params of components that aren't in scope; says what is missing or doesn't fit.
pub(super) fn check(scope: &mut Scope, catalog: &Catalog) -> Vec<FieldError> {
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
