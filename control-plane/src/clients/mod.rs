//! Clients and what they get: the wizard's form and the scope that it leaves behind.

mod change;
pub mod engagement;
mod scope;
mod second_person;
mod store;
#[cfg(test)]
mod tests;
pub mod views;
pub mod web;

use std::sync::LazyLock;

use regex::Regex;
use shared::ids::{ClientId, UserId};
use shared::random;
use shared::time::Timestamp;

pub use change::{Change, Proposal, propose, take_turn};
pub use scope::{Package, Scope, choice_field, groups, package, param_field, scope, slots};
pub use second_person::{ask_to_switch_off, second_person, set_second_person, switched_off};

use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text;
use crate::jobs::Wake;
use crate::web::FieldError;

#[cfg(test)]
pub use crate::testing::{choose_package, choose_scope};

/// Characters that a 1Password reference may have in its vault part.
static VAULT_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[A-Za-z0-9._ -]{1,100}$").ok());

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: ClientId,
    pub name: String,
    pub vault_name: String,
    pub notes: String,
    pub created_at: Timestamp,
    /// Of the client's key; gone after a purge.
    pub salt: Option<[u8; 32]>,
}

#[derive(Clone, Debug, Default)]
pub struct NewClient {
    pub name: String,
    pub vault_name: String,
    pub notes: String,
}

#[derive(Debug)]
pub enum CreateError {
    /// What is wrong, field by field; what was typed is still with the caller.
    Fields(Vec<FieldError>),
    Failure(Box<Failure>),
}

impl<E: Into<Failure>> From<E> for CreateError {
    fn from(error: E) -> Self {
        Self::Failure(Box::new(error.into()))
    }
}

/// Creates a client; the wizard goes on to its package. The vault's name defaults to the client's.
pub async fn create(app: &App, who: Who, by: UserId, form: &NewClient) -> Result<ClientId, CreateError> {
    let mut tx = app.db.write().await?;
    let vault_name = vault_name(form);
    let errors = check(form, &vault_name);
    if !errors.is_empty() {
        return Err(CreateError::Fields(errors));
    }
    let now = app.now();
    let client = Client {
        id: ClientId::new(&*app.clock, &*app.random),
        name: form.name.trim().to_owned(),
        vault_name,
        notes: form.notes.trim().to_owned(),
        created_at: now,
        salt: Some(random::bytes(&*app.random)),
    };
    store::insert(&mut tx, &client, by).await?;
    let entry = Entry::new(now, who, Action::ClientCreated).client(client.id);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(client.id)
}

fn vault_name(form: &NewClient) -> String {
    let typed = form.vault_name.trim();
    if typed.is_empty() { form.name.trim().to_owned() } else { typed.to_owned() }
}

fn check(form: &NewClient, vault_name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if form.name.trim().is_empty() {
        errors.push(FieldError::new("name", "Give the client a name."));
    } else if let Err(error) = free_text::check(&form.name, 200) {
        errors.push(FieldError::new("name", error.to_string()));
    }
    if !form.name.trim().is_empty()
        && !VAULT_NAME.as_ref().is_some_and(|allowed| allowed.is_match(vault_name))
    {
        let message = "A vault's name has letters a to z, digits, spaces, dots, hyphens and underscores only, because \
                       1Password references allow nothing else. Type the vault's name or its id here.";
        errors.push(FieldError::new("vault_name", message));
    } else if let Err(error) = free_text::check(&form.vault_name, 200) {
        errors.push(FieldError::new("vault_name", error.to_string()));
    }
    if let Err(error) = free_text::check(&form.notes, 4000) {
        errors.push(FieldError::new("notes", error.to_string()));
    }
    errors
}

/// A client, or the answer that there is none.
pub async fn get(tx: &mut Tx, id: ClientId) -> Result<Client, Failure> {
    find(tx, id).await?.ok_or_else(|| Failure::not_found("client"))
}

/// A client, if there is one.
pub async fn find(tx: &mut Tx, id: ClientId) -> Result<Option<Client>, sqlx::Error> {
    store::get(tx, id).await
}

/// All clients, by name.
pub async fn list(tx: &mut Tx) -> Result<Vec<Client>, sqlx::Error> {
    store::list(tx).await
}

/// The clients whose name has each of these words in it, whatever the case, by name; all of them without a word.
/// The databases don't agree on the case of letters beyond ASCII, so the names are compared here.
pub async fn named(tx: &mut Tx, words: &str) -> Result<Vec<Client>, sqlx::Error> {
    let words = words.to_lowercase();
    let mut clients = list(tx).await?;
    clients.retain(|client| {
        let name = client.name.to_lowercase();
        words.split_whitespace().all(|word| name.contains(word))
    });
    Ok(clients)
}

/// Keys of the components in scope.
pub async fn components(tx: &mut Tx, id: ClientId) -> Result<Vec<String>, sqlx::Error> {
    store::components(tx, id).await
}

/// Whether the console may seal values for this client's devices in the browser.
pub async fn browser_paste(tx: &mut Tx, id: ClientId) -> Result<bool, Failure> {
    store::browser_paste(tx, id).await?.ok_or_else(|| Failure::not_found("client"))
}

/// Switches it on or off; each change is in the audit log.
pub async fn set_browser_paste(app: &App, who: Who, id: ClientId, allowed: bool) -> Result<(), Failure> {
    let mut tx = app.db.write().await?;
    get(&mut tx, id).await?;
    if store::set_browser_paste(&mut tx, id, allowed).await? == 1 {
        let entry = Entry::new(app.now(), who, Action::BrowserPasteChanged)
            .client(id)
            .detail("browser_paste", if allowed { "on" } else { "off" });
        audit::append(&mut tx, &entry).await?;
    }
    tx.commit().await?;
    app.jobs.wake(Wake::Client(id));
    Ok(())
}

/// A hint with the client's vault in it: `op://{vault}/Slack/bot-token` becomes `op://Example Client/Slack/bot-token`.
pub fn fill_hint(hint: &str, client: &Client) -> String {
    hint.replace("{vault}", &client.vault_name)
}
