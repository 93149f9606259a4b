//! OpenRouter's key API (`/api/v1/keys`, with a management key): one client's key is made, read, changed and deleted.
//! The key itself is in the answer to the making and nowhere else.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::{Client, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::secret::Secret;
use shared::time::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::outbound::{Outbound, words};

const BASE: &str = "openrouter.ai/api/v1";
/// An answer is not longer, in bytes; a page of a hundred keys is a tenth of it.
const MAX_ANSWER: usize = 1024 * 1024;
/// Pages of keys that are read at most.
const MAX_PAGES: usize = 1000;
/// A longer wait than this that OpenRouter asks for is left to a later attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error(
        "OpenRouter refuses the board's management key (status {0}). An operator makes one at openrouter.ai/settings/management-keys and enters it on the board's Providers page; then try again."
    )]
    Refused(u16),
    #[error("OpenRouter is asked too often (status 429). Nothing is wrong; try again in {} seconds.", .0.map_or(60, |wait| wait.as_secs()))]
    Busy(Option<Duration>),
    #[error(
        "OpenRouter has trouble of its own (status {0}). Try again in a few minutes; status.openrouter.ai says more."
    )]
    Down(u16),
    #[error("OpenRouter {0}. Look whether this board reaches the Internet, and try again.")]
    Unreachable(String),
    #[error("OpenRouter doesn't know this key any more: somebody deleted it there. Make a new one.")]
    Gone,
    #[error(
        "OpenRouter answered with status {0}, which this board doesn't expect. The request was not accepted; an operator looks at the limit and at OpenRouter's own page."
    )]
    Odd(u16),
    #[error("OpenRouter's answer can't be understood; this board may be older than its API.")]
    Garbled,
}

impl ApiError {
    /// Whether the same request may go well a little later.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Down(_) | Self::Unreachable(_))
    }

    /// How long to wait before the next try, given what the backoff says; none when that would be too long.
    fn pause(&self, planned: Option<Duration>) -> Option<Duration> {
        match (self, planned) {
            (Self::Busy(Some(asked)), Some(_)) if *asked > LONGEST_PAUSE => None,
            (Self::Busy(Some(asked)), Some(planned)) => Some(planned.max(*asked)),
            (_, planned) => planned,
        }
    }
}

/// A key as OpenRouter lists it. Not its `label`, which can show the key.
#[derive(Clone, Debug, Deserialize)]
pub struct ListedKey {
    /// The handle: it names the key, and is no secret.
    pub hash: String,
    pub name: String,
    #[serde(default)]
    pub disabled: bool,
    /// US dollars; none is no limit.
    #[serde(default)]
    limit: Option<f64>,
    /// US dollars.
    #[serde(default)]
    usage_monthly: Option<f64>,
    #[serde(default)]
    expires_at: Option<String>,
}

impl ListedKey {
    pub fn limit_micros(&self) -> Option<i64> {
        self.limit.map(micros)
    }

    pub fn usage_micros(&self) -> Option<i64> {
        self.usage_monthly.map(micros)
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        let at = OffsetDateTime::parse(self.expires_at.as_deref()?, &Rfc3339).ok()?;
        Some(Timestamp::from_datetime(at))
    }
}

/// Millionths of what OpenRouter gives in dollars.
#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates; dollars of a key are far below")]
fn micros(dollars: f64) -> i64 {
    (dollars * 1e6).round() as i64
}

#[expect(clippy::cast_precision_loss, reason = "limits are below 2^53 millionths")]
fn dollars(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[derive(Deserialize)]
struct Listing {
    data: Vec<ListedKey>,
}

#[derive(Deserialize)]
pub struct MadeKey {
    pub data: ListedKey,
    pub key: Secret<String>,
}

pub struct KeyApi {
    client: Client,
    base: String,
    management: Secret<String>,
    pause: Duration,
}

impl KeyApi {
    pub fn new(outbound: Outbound, management: Secret<String>) -> Result<Self, ApiError> {
        let client = outbound.client().map_err(|error| ApiError::Unreachable(words(error)))?;
        Ok(Self { client, base: outbound.base(BASE), management, pause: outbound.pause })
    }

    /// Waits between tries: so many at most, each twice as long as the one before, or as OpenRouter asks.
    pub async fn tried<T, F: Future<Output = Result<T, E>>, E: AsApiError>(
        &self,
        times: usize,
        once: impl FnMut() -> F,
    ) -> Result<T, E> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(self.pause)
            .with_max_delay(LONGEST_PAUSE)
            .with_factor(2.0)
            .with_max_times(times);
        once.retry(pauses)
            .when(|error| error.api().is_some_and(ApiError::passes))
            .adjust(|error, planned| match error.api() {
                Some(error) => error.pause(planned),
                None => None,
            })
            .await
    }

    /// All keys, disabled ones too.
    pub async fn list(&self) -> Result<Vec<ListedKey>, ApiError> {
        let mut all: Vec<ListedKey> = Vec::new();
        for _ in 0..MAX_PAGES {
            let path = format!("/keys?include_disabled=true&offset={}", all.len());
            let Listing { data } = read(self.ask(Method::GET, &path, None).await?.expose())?;
            // A server that ignores the offset would give the same page for ever.
            let known = data.first().is_none_or(|first| all.iter().any(|key| key.hash == first.hash));
            if known {
                return Ok(all);
            }
            all.extend(data);
        }
        Err(ApiError::Garbled)
    }

    /// Makes a key whose limit begins anew each month (UTC).
    pub async fn make(&self, name: &str, limit_micros: i64) -> Result<MadeKey, ApiError> {
        let body = json!({ "name": name, "limit": dollars(limit_micros), "limit_reset": "monthly" });
        read(self.ask(Method::POST, "/keys", Some(body)).await?.expose())
    }

    pub async fn set_limit(&self, hash: &str, limit_micros: i64) -> Result<(), ApiError> {
        let body = json!({ "limit": dollars(limit_micros), "limit_reset": "monthly" });
        self.ask(Method::PATCH, &format!("/keys/{hash}"), Some(body)).await.map(|_| ())
    }

    pub async fn set_disabled(&self, hash: &str, disabled: bool) -> Result<(), ApiError> {
        let body = json!({ "disabled": disabled });
        self.ask(Method::PATCH, &format!("/keys/{hash}"), Some(body)).await.map(|_| ())
    }

    /// One that isn't there is deleted.
    pub async fn delete(&self, hash: &str) -> Result<(), ApiError> {
        match self.ask(Method::DELETE, &format!("/keys/{hash}"), None).await {
            Ok(_) | Err(ApiError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Secret<Vec<u8>>, ApiError> {
        let broken = |error| ApiError::Unreachable(words(error));
        let mut request =
            self.client.request(method, format!("{}{path}", self.base)).bearer_auth(self.management.expose());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ApiError::Refused(status.as_u16())),
            StatusCode::TOO_MANY_REQUESTS => {
                let after = response.headers().get(header::RETRY_AFTER);
                let seconds = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
                Err(ApiError::Busy(seconds.map(Duration::from_secs)))
            }
            StatusCode::REQUEST_TIMEOUT => Err(ApiError::Down(status.as_u16())),
            StatusCode::NOT_FOUND => Err(ApiError::Gone),
            _ if status.is_server_error() => Err(ApiError::Down(status.as_u16())),
            _ if !status.is_success() => Err(ApiError::Odd(status.as_u16())),
            _ => {
                let mut answer = Vec::with_capacity(16 * 1024);
                while let Some(chunk) = response.chunk().await.map_err(broken)? {
                    if answer.len() + chunk.len() > MAX_ANSWER {
                        return Err(ApiError::Garbled);
                    }
                    answer.extend_from_slice(&chunk);
                }
                Ok(Secret::new(answer))
            }
        }
    }
}

/// The error of serde_json would repeat what it read.
fn read<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|_| ApiError::Garbled)
}

/// An error that may be one of the API, which is what a retry is decided by.
pub trait AsApiError {
    fn api(&self) -> Option<&ApiError>;
}

impl AsApiError for ApiError {
    fn api(&self) -> Option<&ApiError> {
        Some(self)
    }
}
