//! Pages that put several features together: the list of clients, one client with its devices, slots and installed state,
//! and the page for the client. They read; every action belongs to a feature.

pub mod api;
mod state;
pub mod statement;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;
