use axum::extract::{Path, State};
use shared::ids::ClientId;

use super::views::StatementPage;
use super::{Statement, gather};
use crate::access::Visitor;
use crate::app::App;
use crate::clients::views::ClientRef;
use crate::pages::{Page, page};
use crate::web::{Moment, Section};

pub async fn statement_page(State(app): State<App>, visitor: Visitor, Path(id): Path<ClientId>) -> Page {
    let mut tx = app.db.read().await?;
    let known = gather(&app, &mut tx, id).await?;
    page(&StatementPage {
        shell: visitor.shell(Section::Clients),
        client: ClientRef { href: format!("/clients/{id}"), name: known.client.name.clone() },
        made: Moment { at: known.now, now: known.now },
        statement: Statement::of(&known),
    })
}
