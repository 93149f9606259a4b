//! One request to a provider: bounded in time and size, no redirects, tried again only when the provider says that it is
//! its own passing trouble (429, 5xx). Errors carry no body that went out or came in.

use std::error::Error as _;
use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, ClientBuilder, Method, StatusCode, Url, redirect};
use shared::secret::Secret;

use super::ProviderError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of one try, with its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Waited before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];
/// Bytes of an answer; a wrapped key has a few hundred.
const LONGEST: usize = 64 * 1024;

/// How one provider is asked.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    /// For messages: the provider's URI and where it is asked.
    pub provider: String,
    timeout: Duration,
}

/// A body on its way, wiped when the last who holds it lets go.
struct Sent(Secret<Vec<u8>>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

pub struct Got {
    pub status: StatusCode,
    pub body: Secret<Vec<u8>>,
}

impl Http {
    /// `root` is believed beside the system's authorities.
    pub fn new(provider: String, address: &Url, root: Option<Certificate>) -> Result<Self, ProviderError> {
        if !is_encrypted_or_here(address) {
            let what = format!(
                "{address} is plain HTTP to another machine, and the root key would cross the network in the clear: use https"
            );
            return Err(ProviderError::Setup { provider, what });
        }
        let builder = if is_here(address) { builder().no_proxy() } else { builder() };
        let builder = match root {
            Some(root) => builder.add_root_certificate(root),
            None => builder,
        };
        Self::build(provider, builder)
    }

    /// For where a machine or container gets its own credentials: plain HTTP, but never further than the host.
    pub fn of_the_host(provider: String, address: &Url) -> Result<Self, ProviderError> {
        let link_local = matches!(address.host(), Some(url::Host::Ipv4(ip)) if ip.is_link_local());
        if !link_local && !is_encrypted_or_here(address) {
            let what = format!("{address} is plain HTTP to another machine: credentials don't come that way");
            return Err(ProviderError::Setup { provider, what });
        }
        Self::build(provider, builder().no_proxy())
    }

    fn build(provider: String, builder: ClientBuilder) -> Result<Self, ProviderError> {
        let client = builder
            .build()
            .map_err(|error| ProviderError::Setup { provider: provider.clone(), what: words(error) })?;
        Ok(Self { client, provider, timeout: TIMEOUT })
    }

    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it; `passing` tells from an answer whether a later try may go well. The headers are made for each try.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: impl Fn() -> Result<HeaderMap, ProviderError> + Sync,
        body: &Secret<Vec<u8>>,
        passing: fn(&Got) -> bool,
    ) -> Result<Got, ProviderError> {
        let mut pauses = PAUSES.iter();
        loop {
            let got = self.once(method.clone(), url, headers()?, body).await?;
            if !passing(&got) {
                return Ok(got);
            }
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    let what = format!("it answers {} each of {} times", got.status, PAUSES.len() + 1);
                    return Err(self.unreachable(what));
                }
            }
        }
    }

    async fn once(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: &Secret<Vec<u8>>,
    ) -> Result<Got, ProviderError> {
        let failed = |error: reqwest::Error| self.unreachable(words(error));
        let request = self.client.request(method, url.clone()).timeout(self.timeout).headers(headers);
        let body = Bytes::from_owner(Sent(body.clone()));
        let mut response = request.body(body).send().await.map_err(failed)?;
        let status = response.status();
        let (mut chunks, mut length) = (Vec::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            length += chunk.len();
            if length > LONGEST {
                return Err(self.answer(&format!("it is longer than {LONGEST} bytes")));
            }
            // Takes the chunk's memory over where nothing else holds it.
            chunks.push(Secret::new(Vec::from(chunk)));
        }
        let parts: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.expose().as_slice()).collect();
        Ok(Got { status, body: Secret::new(parts.concat()) })
    }

    pub fn unreachable(&self, what: String) -> ProviderError {
        ProviderError::Unreachable { provider: self.provider.clone(), what }
    }

    pub fn refused(&self, what: String) -> ProviderError {
        ProviderError::Refused { provider: self.provider.clone(), what }
    }

    pub fn answer(&self, what: &str) -> ProviderError {
        ProviderError::Answer { provider: self.provider.clone(), what: what.to_owned() }
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("board/", env!("CARGO_PKG_VERSION")))
}

pub fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// What a provider says, as it may be shown: one line, printable, short.
pub fn shown(said: &str) -> String {
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
}

fn is_encrypted_or_here(address: &Url) -> bool {
    address.scheme() == "https" || (address.scheme() == "http" && is_here(address))
}

fn is_here(address: &Url) -> bool {
    match address.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The deepest cause, without the address.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}
