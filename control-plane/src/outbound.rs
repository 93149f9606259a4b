//! Requests to providers, over public HTTPS: no proxy from the environment, no redirect, no plain HTTP, and no error
//! that shows an address.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, redirect};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a library's words about an error may be long, in bytes.
const WORDS: usize = 200;

/// How requests leave this machine.
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    stand_in: Option<SocketAddr>,
    /// A whole answer takes no longer.
    pub patience: Duration,
    /// The wait before a second try; each later one is twice as long.
    pub pause: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not on this machine: a stand-in for a provider is a loopback address")]
pub struct NotLoopback(SocketAddr);

impl Outbound {
    pub const fn public() -> Self {
        Self { stand_in: None, patience: Duration::from_secs(20), pause: Duration::from_secs(1) }
    }

    /// For tests: a server on this machine plays the provider, in plain HTTP, and nobody is waited for long.
    pub fn through(stand_in: SocketAddr) -> Result<Self, NotLoopback> {
        if !stand_in.ip().is_loopback() {
            return Err(NotLoopback(stand_in));
        }
        let (patience, pause) = (Duration::from_secs(1), Duration::from_millis(10));
        Ok(Self { stand_in: Some(stand_in), patience, pause })
    }

    /// Where a provider's API begins: its own address, or the stand-in's.
    pub fn base(&self, public: &str) -> String {
        match self.stand_in {
            None => format!("https://{public}"),
            Some(address) => match public.split_once('/') {
                Some((_, path)) => format!("http://{address}/{path}"),
                None => format!("http://{address}"),
            },
        }
    }

    pub fn client(&self) -> reqwest::Result<Client> {
        Client::builder()
            .https_only(self.stand_in.is_none())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.patience)
            .user_agent(concat!("board/", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

/// What went wrong, for a person, without the address that was asked.
pub fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "gave no answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|cause| cause.source()) {
        cause = Some(deeper);
    }
    let why = cause.map(ToString::to_string).unwrap_or_else(|| error.to_string());
    let why = &why[..why.floor_char_boundary(WORDS)];
    if error.is_connect() { format!("can't be reached: {why}") } else { format!("broke off: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_on_this_machine_and_nobody_else_is_asked_in_the_clear() {
        assert!(Outbound::through(SocketAddr::from(([192, 0, 2, 1], 80))).is_err());
        let stand_in = Outbound::through(SocketAddr::from(([127, 0, 0, 1], 81))).unwrap();
        assert_eq!(stand_in.base("openrouter.ai/api/v1"), "http://127.0.0.1:81/api/v1");
        assert_eq!(Outbound::public().base("openrouter.ai/api/v1"), "https://openrouter.ai/api/v1");
    }
}
