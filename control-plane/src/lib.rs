//! The board: wizard, clients, enrollment, runbooks, secrets, audit, installed state.
//!
//! Dependencies point one way (a test keeps it so): `shared ← db ← keys ← audit ← web ← access ← {clients, catalog} ←
//! enrollment ← secrets ← {inventory, releases} ← runbook ← providers ← offboarding ← {link, overview, support, incident} ← gate ← {router,
//! backup} ← cli`. Effects that go up travel through [`jobs`]. In a feature's folder: `mod.rs` has types, rules and public functions; `store.rs` all its SQL; `web.rs`
//! its console pages, `views.rs` what they show; `api.rs` JSON or agents' API.

pub mod access;
pub mod aead;
pub mod app;
pub mod audit;
pub mod backup;
pub mod board;
pub mod catalog;
pub mod cli;
pub mod clients;
pub mod db;
pub mod enrollment;
pub mod error;
pub mod free_text;
pub mod freeze;
pub mod gate;
pub mod incident;
pub mod inventory;
pub mod jobs;
pub mod keys;
pub mod link;
pub mod links;
pub mod live;
pub mod offboarding;
pub mod outbound;
pub mod overview;
pub mod pages;
pub mod providers;
pub mod releases;
pub mod router;
pub mod runbook;
pub mod secrets;
pub mod support;
pub mod web;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
