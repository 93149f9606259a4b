//! The wizard: client, package, integrations; then the secrets page. Saved at each page. What the package and integrations
//! pages post goes to `runbook::scope_change`, because it may change runbooks.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect};
use axum_extra::extract::Form;
use serde::Deserialize;
use shared::catalog::{Manifest, Platform, Slot, StepKind, Tag};
use shared::ids::ClientId;

use super::views::{
    ClientRef, ComponentChoice, IntegrationsPage, NewClientPage, PackageChoice, PackagePage, ParamField,
    SlotGroup, SlotOption,
};
use super::{
    Client, CreateError, NewClient, Package, Scope, ask_to_switch_off, choice_field, create, fill_hint, get,
    groups, package, param_field, scope, set_browser_paste, set_second_person,
};
use crate::access::Visitor;
use crate::app::App;
use crate::catalog::{self, Catalog};
use crate::error::Failure;
use crate::free_text::shown_again;
use crate::pages::{Page, PageFailure, page, status};
use crate::web::{FieldError, Section};

/// The field that says that a package travels with the scope.
pub const WITH_PACKAGE: &str = "with-package";

#[derive(Deserialize)]
pub struct ClientForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    vault_name: String,
    #[serde(default)]
    notes: String,
}

pub async fn new_page(visitor: Visitor) -> Page {
    page(&client_form(&visitor, &NewClient::default(), Vec::new()))
}

pub async fn new_form(State(app): State<App>, visitor: Visitor, Form(form): Form<ClientForm>) -> Page {
    let form = NewClient { name: form.name, vault_name: form.vault_name, notes: form.notes };
    match create(&app, visitor.who(), visitor.user()?.id, &form).await {
        Ok(id) => Ok(Redirect::to(&format!("/clients/{id}/package")).into_response()),
        Err(CreateError::Fields(errors)) => {
            Ok((status(422), page(&client_form(&visitor, &form, errors))?).into_response())
        }
        Err(CreateError::Failure(failure)) => Err((*failure).into()),
    }
}

fn client_form(visitor: &Visitor, form: &NewClient, errors: Vec<FieldError>) -> NewClientPage {
    NewClientPage {
        shell: visitor.shell(Section::Clients),
        name: shown_again(&form.name).to_owned(),
        vault_name: shown_again(&form.vault_name).to_owned(),
        notes: shown_again(&form.notes).to_owned(),
        errors,
    }
}

pub async fn package_page(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    let mut tx = app.db.read().await?;
    let chosen = package(&mut tx, id).await?;
    drop(tx);
    page(&package_view(&app, &visitor, id, &chosen, Vec::new()).await?)
}

/// Fields: `tier`, `addon` (repeated).
pub fn read_package(fields: &[(String, String)]) -> Package {
    let values = |name: &'static str| {
        fields.iter().filter(move |(field, value)| field == name && !value.is_empty()).map(|(_, value)| value)
    };
    Package { tier: values("tier").next().cloned(), addons: values("addon").cloned().collect() }
}

/// The package page with these ticks.
pub async fn package_view(
    app: &App,
    visitor: &Visitor,
    id: ClientId,
    chosen: &Package,
    errors: Vec<FieldError>,
) -> Result<PackagePage, PageFailure> {
    let mut tx = app.db.read().await?;
    let client = get(&mut tx, id).await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    let names =
        |catalog: &Catalog, keys: BTreeSet<&str>| keys.into_iter().map(|key| catalog.name_of(key)).collect();
    let (mut tiers, mut addons) = (Vec::new(), Vec::new());
    if let Some(catalog) = &catalog {
        for tier in catalog.tiers.tiers.iter().filter(|tier| !tier.always) {
            tiers.push(PackageChoice {
                checked: chosen.tier.as_ref() == Some(&tier.key),
                components: names(catalog, catalog.tiers.of_tier(&tier.key)),
                key: tier.key.clone(),
                name: tier.name.clone(),
            });
        }
        for addon in &catalog.tiers.addons {
            addons.push(PackageChoice {
                checked: chosen.addons.contains(&addon.key),
                components: names(catalog, catalog.tiers.of_addon(&addon.key)),
                key: addon.key.clone(),
                name: addon.name.clone(),
            });
        }
    }
    Ok(PackagePage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{id}"), name: client.name },
        tiers,
        addons,
        errors,
    })
}

#[derive(Deserialize)]
pub struct BrowserPasteForm {
    #[serde(default)]
    allow: String,
}

pub async fn browser_paste_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<BrowserPasteForm>,
) -> Page {
    let allowed = match form.allow.as_str() {
        "on" => true,
        "off" => false,
        _ => {
            let detail =
                "Pasting in the browser is either on or off. Nothing was changed; go back and choose again.";
            return Err(Failure::invalid("browser-paste", "Not changed", detail).into());
        }
    };
    set_browser_paste(&app, visitor.who(), id, allowed).await?;
    Ok(Redirect::to(&format!("/clients/{id}#about")).into_response())
}

/// Switches it on: it only takes something away.
pub async fn second_person_form(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    set_second_person(&app, visitor.who(), id, true, "").await?;
    Ok(Redirect::to(&format!("/clients/{id}#about")).into_response())
}

#[derive(Deserialize)]
pub struct WhyForm {
    #[serde(default)]
    reason: String,
}

pub async fn ask_off_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<WhyForm>,
) -> Page {
    ask_to_switch_off(&app, visitor.who(), visitor.user()?.id, id, &form.reason).await?;
    Ok(Redirect::to("/approvals").into_response())
}

pub async fn off_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(form): Form<WhyForm>,
) -> Page {
    set_second_person(&app, visitor.who(), id, false, &form.reason).await?;
    Ok(Redirect::to(&format!("/clients/{id}#about")).into_response())
}

pub async fn integrations_page(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    let mut tx = app.db.read().await?;
    let chosen = scope(&mut tx, id).await?;
    drop(tx);
    page(&integrations_view(&app, &visitor, id, &chosen, None, Vec::new()).await?)
}

/// Fields: `component` (repeated), `choice-COMPONENT-GROUP`, `param-COMPONENT-KEY`.
pub fn read_scope(fields: &[(String, String)], catalog: Option<&Catalog>) -> Scope {
    let value =
        |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.trim().to_owned());
    let mut scope = Scope {
        components: fields
            .iter()
            .filter(|(name, _)| name == "component")
            .map(|(_, key)| key.clone())
            .collect(),
        ..Scope::default()
    };
    for manifest in catalog.into_iter().flat_map(|catalog| catalog.manifests.values()) {
        for group in groups(manifest) {
            if let Some(slot) = value(&choice_field(&manifest.key, &group)) {
                scope.choices.insert((manifest.key.clone(), group), slot);
            }
        }
        for param in &manifest.params {
            if let Some(value) = value(&param_field(&manifest.key, &param.key)) {
                scope.params.insert((manifest.key.clone(), param.key.clone()), value);
            }
        }
    }
    scope
}

/// The integrations page with these ticks, choices and inputs. `package` is one that is to be saved with them.
pub async fn integrations_view(
    app: &App,
    visitor: &Visitor,
    id: ClientId,
    chosen: &Scope,
    package: Option<&Package>,
    errors: Vec<FieldError>,
) -> Result<IntegrationsPage, PageFailure> {
    let mut tx = app.db.read().await?;
    let client = get(&mut tx, id).await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    let mut components = Vec::new();
    if let Some(catalog) = &catalog {
        for manifest in catalog.manifests.values() {
            components.push(choice(manifest, &client, chosen, catalog));
        }
    }
    Ok(IntegrationsPage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{id}"), name: client.name },
        components,
        carried: package.map(package_fields).unwrap_or_default(),
        errors,
    })
}

/// The form fields of a package that travels with a scope.
pub fn package_fields(package: &Package) -> Vec<(String, String)> {
    let tier = package.tier.iter().map(|key| ("tier".to_owned(), key.clone()));
    let addons = package.addons.iter().map(|key| ("addon".to_owned(), key.clone()));
    [(WITH_PACKAGE.to_owned(), "yes".to_owned())].into_iter().chain(tier).chain(addons).collect()
}

fn choice(manifest: &Manifest, client: &Client, chosen: &Scope, catalog: &Catalog) -> ComponentChoice {
    let steps = |kind| {
        u32::try_from(manifest.steps.iter().filter(|step| step.kind == kind).count()).unwrap_or(u32::MAX)
    };
    let alone = |tag| manifest.slots.iter().filter(move |slot| slot.tag == tag && slot.one_of.is_none());
    let hint = |slot: &Slot| fill_hint(slot.hint.as_deref().unwrap_or_default(), client);
    let groups = groups(manifest)
        .into_iter()
        .map(|group| {
            let slots = manifest.slots.iter().filter(|slot| slot.one_of.as_ref() == Some(&group));
            let options = slots.map(|slot| SlotOption {
                key: slot.key.clone(),
                name: slot.name.clone(),
                hint: (slot.tag == Tag::ClientSupplied).then(|| hint(slot)),
                checked: chosen.chosen(&manifest.key, &group) == Some(&slot.key),
            });
            SlotGroup { options: options.collect(), field: choice_field(&manifest.key, &group) }
        })
        .collect();
    let platform = |platform: &Platform| match platform {
        Platform::Macos => "macOS",
        Platform::Linux => "Linux",
    };
    ComponentChoice {
        key: manifest.key.clone(),
        name: manifest.name.clone(),
        category: manifest.category.clone(),
        summary: manifest.summary.clone(),
        checked: chosen.components.contains(&manifest.key),
        always: catalog.tiers.always().contains(manifest.key.as_str()),
        needs: catalog
            .manifests
            .values()
            .filter(|other| other.depends_on.contains(&manifest.key))
            .map(|other| other.name.clone())
            .collect(),
        ours: alone(Tag::OurManaged).map(|slot| slot.name.clone()).collect(),
        theirs: alone(Tag::ClientSupplied).map(|slot| (slot.name.clone(), hint(slot))).collect(),
        groups,
        params: manifest
            .params
            .iter()
            .map(|param| ParamField {
                field: param_field(&manifest.key, &param.key),
                name: param.name.clone(),
                value: shown_again(chosen.param(&manifest.key, &param.key).unwrap_or_default()).to_owned(),
                required: param.required,
            })
            .collect(),
        steps_agent: steps(StepKind::Auto),
        steps_you: steps(StepKind::Manual),
        for_platforms: manifest.platforms.iter().map(platform).collect::<Vec<_>>().join(", "),
    }
}
