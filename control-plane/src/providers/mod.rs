//! Clients' keys at OpenRouter: one per client with a monthly limit, made by the board with its management key, read
//! each hour, disabled and deleted from the client's page.
//!
//! A scope without OpenRouter takes nothing away, like every change of scope: the key goes on working, both pages say so,
//! and a person disables or deletes it. Only the end of an engagement disables it ([`disable_for`]). A value that somebody
//! types over it leaves it working, too.
//!
//! The board never asks for a second key while it may hold a first one: what was asked for and not stored is deleted by
//! its name before another is made. A key's value is in memory between the answer and its envelope, and nowhere else.

mod change;
mod ending;
mod make;
mod openrouter;
mod read;
mod store;
#[cfg(test)]
pub(crate) mod tests;
pub mod views;
pub mod web;
mod work;

use shared::ids::ClientId;
use shared::text_enum;
use shared::time::Timestamp;

pub use change::{delete, disable_for, make_again, set_disabled, set_limit};
pub use openrouter::ApiError;
pub use work::serve;

use crate::app::App;
use crate::audit::{AuditError, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::secrets::{self, BoardSecret, SecretError};
use openrouter::{AsApiError, KeyApi};

/// The slot that a client's key fills.
pub const COMPONENT: &str = "openrouter";
pub const SLOT: &str = "OPENROUTER_API_KEY";

/// Millionths of a US dollar.
const DOLLAR: i64 = 1_000_000;
/// What a client may spend in a month unless somebody says otherwise.
pub const DEFAULT_LIMIT_MICROS: i64 = 50 * DOLLAR;
/// Nobody means more than that.
const MOST_MICROS: i64 = 100_000 * DOLLAR;

text_enum! {
    pub enum KeyState {
        /// Only its limit is known.
        Idle = "idle",
        /// To be made.
        Planned = "planned",
        /// OpenRouter may have been asked: there may be one by this name whose value is lost.
        Asked = "asked",
        /// There is one, and its value isn't stored yet.
        Made = "made",
        /// Its value is the client's slot.
        Stored = "stored",
        Failed = "failed",
        Deleted = "deleted",
    }
}

/// A client's key, without the key.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ClientKey {
    pub client_id: ClientId,
    pub state: KeyState,
    /// Millionths of a US dollar a month.
    pub limit_micros: i64,
    /// OpenRouter's handle of it.
    pub hash: Option<String>,
    /// The version of the client's slot that it is.
    pub version: Option<i64>,
    pub disabled: bool,
    pub trouble: Option<String>,
    pub changed_at: Timestamp,
    /// Millionths of a US dollar, in the month of `read_at`.
    pub usage_micros: Option<i64>,
    pub expires_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error(
        "The board has no management key of OpenRouter. An operator enters one on the Providers page; or enter the client's key by hand on its secrets page."
    )]
    NoManagementKey,
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("The client's key was taken over or called off meanwhile. Look at the client's page.")]
    Lost,
    #[error(
        "The catalog has no slot openrouter/OPENROUTER_API_KEY, so there is no place for the key. Import a catalog that has it, and try again."
    )]
    NoSlot,
    #[error("There is no key of this client's that the board made.")]
    NoKey,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{}", .0.public.detail)]
    Failure(Box<Failure>),
}

impl From<sqlx::Error> for ProviderError {
    fn from(error: sqlx::Error) -> Self {
        Self::Secret(error.into())
    }
}

impl From<AuditError> for ProviderError {
    fn from(error: AuditError) -> Self {
        Self::Secret(error.into())
    }
}

impl From<Failure> for ProviderError {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

impl AsApiError for ProviderError {
    fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            Self::NoManagementKey
            | Self::Lost
            | Self::NoSlot
            | Self::NoKey
            | Self::Secret(_)
            | Self::Failure(_) => None,
        }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        let title = "OpenRouter's key wasn't changed";
        let text = error.to_string();
        match error {
            ProviderError::NoManagementKey => Self::conflict("no-management-key", title, text),
            ProviderError::Api(_) => Self::new(502, "provider", title, text),
            ProviderError::Lost => Self::conflict("raced", title, text),
            ProviderError::NoSlot | ProviderError::NoKey => Self::conflict("no-key", title, text),
            ProviderError::Secret(error) => error.into(),
            ProviderError::Failure(failure) => *failure,
        }
    }
}

/// A client's key as the board knows it.
pub async fn key(tx: &mut Tx, client_id: ClientId) -> Result<Option<ClientKey>, sqlx::Error> {
    store::key(tx, client_id).await
}

/// Why the numbers couldn't be read the last time.
pub async fn reading_trouble(tx: &mut Tx) -> Result<Option<String>, sqlx::Error> {
    store::reading_trouble(tx, COMPONENT).await
}

/// The name of a client's key at OpenRouter. It holds no name of a person or client.
fn key_name(app: &App, client_id: ClientId) -> String {
    format!("{}{client_id}", prefix(app))
}

/// Begins the names of all keys of this board: the last part of its id tells boards of one account apart.
fn prefix(app: &App) -> String {
    let id = app.board_id.to_string();
    let short = id.rsplit('-').next().unwrap_or_default();
    format!("board/{short}/")
}

/// OpenRouter's API, with the management key opened for it: the entry of that is committed before.
/// To end what works at OpenRouter: also while the board is frozen.
async fn api_to_end(app: &App, who: Who, reason: &str) -> Result<KeyApi, ProviderError> {
    let opened = secrets::open_board_to_end(app, who, BoardSecret::OpenRouterManagement, reason).await?;
    Ok(KeyApi::new(app.outbound, opened.ok_or(ProviderError::NoManagementKey)?)?)
}

async fn api(app: &App, who: Who, reason: &str) -> Result<KeyApi, ProviderError> {
    let opened = secrets::open_board(app, who, BoardSecret::OpenRouterManagement, reason).await?;
    let management = opened.ok_or(ProviderError::NoManagementKey)?;
    Ok(KeyApi::new(app.outbound, management)?)
}

/// "$12.40"
pub fn money(micros: i64) -> String {
    let cents = (micros + 5_000).div_euclid(10_000);
    format!("${}.{:02}", cents / 100, cents % 100)
}

/// A limit as a person types it, in dollars: "50", "$49.90".
pub fn parse_limit(text: &str) -> Result<i64, Failure> {
    let wrong = || {
        Failure::invalid(
            "limit",
            "The limit wasn't changed",
            "A limit is a number of US dollars from 0.01 to 100000, like 50 or 49.90. Go back and type it again.",
        )
    };
    let text = text.trim();
    let (whole, cents) =
        text.strip_prefix('$').unwrap_or(text).split_once('.').unwrap_or((text.trim_start_matches('$'), "0"));
    let digits =
        |part: &str, most| !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 6) || !digits(cents, 2) {
        return Err(wrong());
    }
    let number = |part: &str| part.parse::<i64>().map_err(|_| wrong());
    let cents = number(cents)? * if cents.len() == 1 { 10 } else { 1 };
    let micros = number(whole)? * DOLLAR + cents * (DOLLAR / 100);
    if (1..=MOST_MICROS).contains(&micros) { Ok(micros) } else { Err(wrong()) }
}
