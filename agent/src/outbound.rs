//! Requests to anybody but the board, over public HTTPS: whether a credential works, and downloads.
//!
//! No proxy from the environment, no plain HTTP, no redirect unless the caller asks for some, and no error that shows
//! an address. A client is made for the occasion: an idle agent holds no certificates and no connections.

use std::error::Error as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, redirect};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a library's words about an error may be long, in bytes.
const WORDS: usize = 200;

/// How requests leave this machine.
#[derive(Clone, Default)]
pub struct Outbound {
    stand_in: Option<Arc<StandIn>>,
}

/// For tests: a server on this machine that plays every host, and the only authority that is believed then.
pub struct StandIn {
    address: SocketAddr,
    ca: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    #[error("{0} is not on this machine: a stand-in for the outside is a loopback address")]
    NotLoopback(SocketAddr),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
}

impl StandIn {
    /// `ca` is a PEM file. Without one nobody is believed: no provider is asked.
    pub fn new(address: SocketAddr, ca: Option<&Path>) -> Result<Self, StandInError> {
        if !address.ip().is_loopback() {
            return Err(StandInError::NotLoopback(address));
        }
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| StandInError::File { path: path.to_owned(), error })
        };
        let ca = ca.map(read).transpose()?;
        Ok(Self { address, ca })
    }
}

impl Outbound {
    /// The Internet, as this machine reaches it.
    pub fn public() -> Self {
        Self::default()
    }

    pub fn through(stand_in: StandIn) -> Self {
        Self { stand_in: Some(Arc::new(stand_in)) }
    }

    /// A client that follows at most so many redirects, all of them HTTPS.
    pub fn client(&self, redirects: usize) -> reqwest::Result<Client> {
        let policy =
            if redirects == 0 { redirect::Policy::none() } else { redirect::Policy::limited(redirects) };
        let builder = Client::builder()
            .https_only(true)
            .no_proxy()
            .redirect(policy)
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("board-agent/", env!("CARGO_PKG_VERSION")));
        match &self.stand_in {
            None => builder.build(),
            Some(stand_in) => builder
                .tls_certs_only(stand_in.ca.as_deref().map(Certificate::from_pem).transpose()?)
                .dns_resolver(Arc::new(Everywhere(stand_in.address)))
                .build(),
        }
    }
}

/// Every name leads to one address.
struct Everywhere(SocketAddr);

impl Resolve for Everywhere {
    fn resolve(&self, _name: Name) -> Resolving {
        let addresses: Addrs = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// What went wrong, for a person, without the address that was asked.
pub fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "gave no answer in time".to_owned();
    }
    if error.is_redirect() {
        return "sends to another address, and too often".to_owned();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    let why = cause.map(ToString::to_string).unwrap_or_else(|| error.to_string());
    let why = &why[..why.floor_char_boundary(WORDS)];
    if error.is_connect() { format!("can't be reached: {why}") } else { format!("broke off: {why}") }
}
