//! Support: which clients have which components in which versions, how old the answers are, and what differs from the
//! scope. As a page, as files, as JSON. It reads; it holds no route that changes or opens anything.

pub mod api;
mod export;
mod filter;
mod matrix;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use std::collections::BTreeMap;

use shared::ids::ClientId;
use shared::time::Timestamp;

pub use export::{AnswerJson, SlotJson, StateJson};
pub use filter::{Age, Filter, Shows};

use crate::app::App;
use crate::catalog::{self, Catalog};
use crate::enrollment::Device;
use crate::error::Failure;
use crate::inventory::{self, ClientFindings, Finding};

/// Clients of one answer of `GET /api/v1/state`.
pub const PAGE: u16 = 200;

/// Everything that devices said, at one moment.
pub struct Known {
    clients: Vec<ClientFindings>,
    /// Names of components for people.
    names: BTreeMap<String, String>,
    /// Whether there is a catalog at all.
    has_catalog: bool,
    now: Timestamp,
}

/// One answer: a component on a device, or at a client that has none.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    pub client: &'a ClientFindings,
    pub device: Option<&'a Device>,
    pub on: bool,
    pub finding: &'a Finding,
    /// The component's name.
    pub name: &'a str,
}

impl Known {
    pub async fn load(app: &App) -> Result<Self, Failure> {
        let mut tx = app.db.read().await?;
        let catalog = catalog::current(&mut tx).await?;
        let clients = inventory::findings(&mut tx, catalog.as_ref(), None).await?;
        Ok(Self::new(clients, catalog.as_ref(), app.now()))
    }

    /// The same of the next [`PAGE`] clients after this one, and after which one there are more.
    pub async fn load_after(app: &App, after: Option<ClientId>) -> Result<(Self, Option<ClientId>), Failure> {
        let mut tx = app.db.read().await?;
        let catalog = catalog::current(&mut tx).await?;
        let (clients, next) = inventory::findings_after(&mut tx, catalog.as_ref(), after, PAGE).await?;
        Ok((Self::new(clients, catalog.as_ref(), app.now()), next))
    }

    fn new(clients: Vec<ClientFindings>, catalog: Option<&Catalog>, now: Timestamp) -> Self {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for finding in clients.iter().flat_map(ClientFindings::all) {
            if !names.contains_key(&finding.component) {
                let name = catalog
                    .map_or_else(|| finding.component.clone(), |catalog| catalog.name_of(&finding.component));
                names.insert(finding.component.clone(), name);
            }
        }
        Self { clients, names, has_catalog: catalog.is_some(), now }
    }

    /// Every answer, by client, device and component.
    fn answers<'a>(&'a self, app: &'a App) -> impl Iterator<Item = Answer<'a>> {
        self.clients.iter().flat_map(move |client| {
            client.devices.iter().flat_map(move |found| {
                let device = found.device.as_ref();
                let on = device.is_some_and(|device| app.links.since(device.id).is_some());
                found.findings.iter().map(move |finding| {
                    let name = self.names.get(&finding.component).unwrap_or(&finding.component);
                    Answer { client, device, on, finding, name }
                })
            })
        })
    }

    fn selected<'a>(&'a self, app: &'a App, filter: &Filter) -> Vec<Answer<'a>> {
        self.answers(app).filter(|answer| filter.wants(answer, self.now)).collect()
    }
}
