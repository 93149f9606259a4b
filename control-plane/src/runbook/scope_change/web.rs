//! What the wizard's package and integrations pages post: saved, or answered with what it would change.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::Form;
use shared::ids::ClientId;

use super::views::ScopeChangePage;
use super::{Asking, Outcome, change};
use crate::access::Visitor;
use crate::app::App;
use crate::catalog;
use crate::clients::views::ClientRef;
use crate::clients::web::{
    WITH_PACKAGE, integrations_view, package_fields, package_view, read_package, read_scope,
};
use crate::clients::{self, CreateError, Package, Proposal, Scope, choice_field, param_field};
use crate::error::Failure;
use crate::free_text::shown_again;
use crate::pages::{Page, PageFailure, page, status};
use crate::web::{FieldError, Section};

/// The field that confirms: the basis of the difference that was shown.
const SEEN: &str = "difference";
/// The field of the button that leads back to the form.
const BACK: &str = "back";

type Fields = Vec<(String, String)>;

/// What a person asked for, to be shown again as it was typed.
#[derive(Clone, Copy)]
enum Typed<'f> {
    Package(&'f Package),
    Integrations(&'f Scope, Option<&'f Package>),
}

pub async fn package_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(fields): Form<Fields>,
) -> Page {
    let chosen = read_package(&fields);
    let typed = Typed::Package(&chosen);
    answer(&app, &visitor, id, &fields, typed, &Proposal::Package(chosen.clone())).await
}

pub async fn integrations_form(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<ClientId>,
    Form(fields): Form<Fields>,
) -> Page {
    let mut tx = app.db.read().await?;
    let catalog = catalog::current(&mut tx).await.map_err(Failure::from)?;
    drop(tx);
    let chosen = read_scope(&fields, catalog.as_ref());
    let package = fields.iter().any(|(name, _)| name == WITH_PACKAGE).then(|| read_package(&fields));
    let typed = Typed::Integrations(&chosen, package.as_ref());
    let proposal = Proposal::Scope { scope: chosen.clone(), package: package.clone() };
    answer(&app, &visitor, id, &fields, typed, &proposal).await
}

async fn answer(
    app: &App,
    visitor: &Visitor,
    id: ClientId,
    fields: &[(String, String)],
    typed: Typed<'_>,
    proposal: &Proposal,
) -> Page {
    let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    if value(BACK).is_some() {
        return form(app, visitor, id, typed, Vec::new()).await;
    }
    let seen = value(SEEN).filter(|seen| !seen.is_empty());
    let (step, next) = match typed {
        Typed::Package(_) => ("package", "integrations"),
        Typed::Integrations(..) => ("integrations", "secrets"),
    };
    let asking = Asking { who: visitor.who(), now: visitor.now };
    match change(app, &asking, id, proposal, seen).await {
        Ok(Outcome::Saved) => Ok(Redirect::to(&format!("/clients/{id}/{next}")).into_response()),
        Ok(Outcome::Open(open)) => {
            let typed = Typed::Integrations(&open.after, open.package.as_ref());
            refused(form(app, visitor, id, typed, open.missing.clone()).await?)
        }
        Ok(Outcome::Differs { difference, basis, moved }) => {
            let mut tx = app.db.read().await?;
            let client = clients::get(&mut tx, id).await?;
            let shown = page(&ScopeChangePage {
                shell: visitor.shell(Section::Clients),
                client: ClientRef { href: format!("/clients/{id}"), name: client.name },
                step,
                action: format!("/clients/{id}/{step}"),
                fields: again(typed),
                basis: basis.to_string(),
                again: moved.map(super::Moved::sentence),
                difference: *difference,
            })?;
            Ok(if moved.is_some() { (status(409), shown).into_response() } else { shown })
        }
        Err(CreateError::Fields(errors)) => refused(form(app, visitor, id, typed, errors).await?),
        Err(CreateError::Failure(failure)) => Err((*failure).into()),
    }
}

fn refused(form: Response) -> Page {
    Ok((status(422), form).into_response())
}

/// The form that was posted, as it was filled.
async fn form(
    app: &App,
    visitor: &Visitor,
    id: ClientId,
    typed: Typed<'_>,
    errors: Vec<FieldError>,
) -> Result<Response, PageFailure> {
    match typed {
        Typed::Package(package) => page(&package_view(app, visitor, id, package, errors).await?),
        Typed::Integrations(scope, package) => {
            page(&integrations_view(app, visitor, id, scope, package, errors).await?)
        }
    }
}

/// The fields that say the same again.
fn again(typed: Typed<'_>) -> Fields {
    match typed {
        Typed::Package(package) => package_fields(package),
        Typed::Integrations(scope, package) => {
            let components = scope.components.iter().map(|key| ("component".to_owned(), key.clone()));
            let choices = scope
                .choices
                .iter()
                .map(|((component, group), slot)| (choice_field(component, group), slot.clone()));
            let params = scope.params.iter().map(|((component, param), value)| {
                (param_field(component, param), shown_again(value).to_owned())
            });
            let carried = package.map(package_fields).unwrap_or_default();
            components.chain(choices).chain(params).chain(carried).collect()
        }
    }
}
