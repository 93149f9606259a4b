use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect};
use axum_extra::extract::Form;
use serde::Deserialize;
use shared::catalog::{Manifest, Platform, StepKind, Tag};

use super::views::{ComponentChoice, NewClientPage};
use super::{CreateError, NewClient, create};
use crate::access::Visitor;
use crate::app::App;
use crate::catalog;
use crate::error::Failure;
use crate::pages::{Page, PageFailure, page, status};
use crate::web::{FieldError, Section};

#[derive(Deserialize)]
pub struct ClientForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    vault_name: String,
    #[serde(default)]
    notes: String,
    #[serde(default)]
    component: Vec<String>,
}

pub async fn new_page(State(app): State<App>, visitor: Visitor) -> Page {
    let form = NewClient::default();
    page(&filled(&app, &visitor, &form, Vec::new()).await?)
}

pub async fn new_form(State(app): State<App>, visitor: Visitor, Form(form): Form<ClientForm>) -> Page {
    let form = NewClient {
        name: form.name,
        vault_name: form.vault_name,
        notes: form.notes,
        components: form.component,
    };
    match create(&app, visitor.who(), visitor.user()?.id, &form).await {
        Ok(id) => Ok(Redirect::to(&format!("/clients/{id}/secrets")).into_response()),
        Err(CreateError::Fields(errors)) => {
            let shown = filled(&app, &visitor, &form, errors).await?;
            Ok((status(422), page(&shown)?).into_response())
        }
        Err(CreateError::Failure(failure)) => Err((*failure).into()),
    }
}

async fn filled(
    app: &App,
    visitor: &Visitor,
    form: &NewClient,
    errors: Vec<FieldError>,
) -> Result<NewClientPage, PageFailure> {
    let mut tx = app.db.read().await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    let vault = if form.vault_name.trim().is_empty() { "{vault}" } else { form.vault_name.trim() };
    let components = catalog
        .iter()
        .flat_map(|catalog| catalog.manifests.values())
        .map(|manifest| choice(manifest, form.components.contains(&manifest.key), vault))
        .collect();
    Ok(NewClientPage {
        shell: visitor.shell(Section::Clients),
        name: form.name.clone(),
        vault_name: form.vault_name.clone(),
        notes: form.notes.clone(),
        components,
        errors,
    })
}

fn choice(manifest: &Manifest, checked: bool, vault: &str) -> ComponentChoice {
    let steps = |kind| {
        u32::try_from(manifest.steps.iter().filter(|step| step.kind == kind).count()).unwrap_or(u32::MAX)
    };
    let tagged = |tag| manifest.slots.iter().filter(move |slot| slot.tag == tag);
    let platform = |platform: &Platform| match platform {
        Platform::Macos => "macOS",
        Platform::Linux => "Linux",
    };
    ComponentChoice {
        key: manifest.key.clone(),
        name: manifest.name.clone(),
        summary: manifest.summary.clone(),
        checked,
        ours: tagged(Tag::OurManaged).map(|slot| slot.name.clone()).collect(),
        theirs: tagged(Tag::ClientSupplied)
            .map(|slot| {
                let hint = slot.hint.as_deref().unwrap_or_default().replace("{vault}", vault);
                (slot.name.clone(), hint)
            })
            .collect(),
        steps_agent: steps(StepKind::Auto),
        steps_you: steps(StepKind::Manual),
        for_platforms: manifest.platforms.iter().map(platform).collect::<Vec<_>>().join(", "),
    }
}
