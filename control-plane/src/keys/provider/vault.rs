//! `vault:MOUNT/KEY`: the transit engine of HashiCorp Vault or OpenBao, over its HTTP API. The key is a derived one, and
//! the context of each operation binds the wrapped root key to board and version.
//!
//! Address, token and authority come the way that Vault's own tools take them: `VAULT_ADDR`; `VAULT_TOKEN`, else the
//! file that `VAULT_TOKEN_FILE` names, else `~/.vault-token`; `VAULT_NAMESPACE`; `VAULT_CACERT`. The token is read
//! again for each operation, so that a file which an agent renews is enough.

use std::path::PathBuf;

use data_encoding::BASE64;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, StatusCode, Url};
use serde::Deserialize;
use shared::crypto::ByteString;
use shared::random::Random;
use shared::secret::Secret;

use super::http::{Got, Http, is_passing, shown};
use super::{Answer, Binding, Outside, Provider, ProviderError};
use crate::keys::Key;

/// A key of a transit engine. As text: `MOUNT/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitKey {
    mount: String,
    name: String,
}

impl TransitKey {
    pub fn parse(text: &str) -> Option<Self> {
        let (mount, name) = text.rsplit_once('/')?;
        let fits = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        (mount.split('/').all(fits) && fits(name))
            .then(|| Self { mount: mount.to_owned(), name: name.to_owned() })
    }
}

impl std::fmt::Display for TransitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.mount, self.name)
    }
}

#[derive(Debug)]
pub struct Transit {
    key: TransitKey,
    address: Url,
    http: Http,
    outside: Outside,
}

impl Transit {
    pub fn open(key: &TransitKey, outside: &Outside) -> Result<Self, ProviderError> {
        let provider = format!("vault:{key}");
        let setup = |what: String| ProviderError::Setup { provider: provider.clone(), what };
        let address = outside
            .variable("VAULT_ADDR")
            .ok_or_else(|| setup("VAULT_ADDR isn't set: it is Vault's address, https://HOST:8200".into()))?;
        let address = Url::parse(&address)
            .ok()
            .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| setup("VAULT_ADDR is not an address like https://HOST:8200".into()))?;
        let root = match outside.variable("VAULT_CACERT") {
            Some(path) => {
                let unusable = |why: String| setup(format!("the file in VAULT_CACERT, {path}: {why}"));
                let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
                Some(
                    Certificate::from_pem(&pem)
                        .map_err(|_| unusable("it is no certificate in PEM".into()))?,
                )
            }
            None => None,
        };
        let shown = format!("{provider} at {}", address.as_str().trim_end_matches('/'));
        let http = Http::new(shown, &address, root)?;
        let transit = Self { key: key.clone(), address, http, outside: outside.clone() };
        transit.token()?;
        Ok(transit)
    }

    #[cfg(test)]
    pub fn within(mut self, timeout: std::time::Duration) -> Self {
        self.http = self.http.within(timeout);
        self
    }

    fn token(&self) -> Result<Secret<String>, ProviderError> {
        let setup = |what: String| ProviderError::Setup { provider: self.http.provider.clone(), what };
        if let Some(token) = self.outside.variable("VAULT_TOKEN") {
            return Ok(Secret::new(token));
        }
        let path = match (self.outside.variable("VAULT_TOKEN_FILE"), self.outside.variable("HOME")) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(home)) => PathBuf::from(home).join(".vault-token"),
            (None, None) => {
                return Err(setup("there is no token: set VAULT_TOKEN or VAULT_TOKEN_FILE".into()));
            }
        };
        let text = std::fs::read_to_string(&path).map(Secret::new).map_err(|error| {
            setup(format!(
                "there is no token: set VAULT_TOKEN or VAULT_TOKEN_FILE ({}: {error})",
                path.display()
            ))
        })?;
        Ok(Secret::new(text.expose().trim().to_owned()))
    }

    async fn ask(&self, operation: &str, body: &Secret<Vec<u8>>) -> Result<Got, ProviderError> {
        let base = self.address.as_str().trim_end_matches('/');
        let url = format!("{base}/v1/{}/{operation}/{}", self.key.mount, self.key.name);
        let url = Url::parse(&url).map_err(|_| self.http.answer("its address can't be built"))?;
        let headers = || {
            let bad = |what: &str| ProviderError::Setup {
                provider: self.http.provider.clone(),
                what: format!("{what} has characters that a header can't carry"),
            };
            let mut headers = HeaderMap::new();
            let mut token =
                HeaderValue::from_str(self.token()?.expose()).map_err(|_| bad("Vault's token"))?;
            token.set_sensitive(true);
            headers.insert("x-vault-token", token);
            headers.insert("x-vault-request", HeaderValue::from_static("true"));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(namespace) = self.outside.variable("VAULT_NAMESPACE") {
                let value = HeaderValue::from_str(&namespace).map_err(|_| bad("VAULT_NAMESPACE"))?;
                headers.insert("x-vault-namespace", value);
            }
            Ok(headers)
        };
        self.http.send(Method::POST, &url, headers, body, |got| is_passing(got.status)).await
    }

    /// Why it refused, for whoever has to change it.
    fn refusal(&self, operation: &str, got: &Got) -> ProviderError {
        let said = said(got);
        let path = format!("{}/{operation}/{}", self.key.mount, self.key.name);
        self.http.refused(match got.status {
            StatusCode::FORBIDDEN => format!(
                "the token may not do this, or it ended ({said}). Its policy has to allow `update` on {path}; `vault token lookup` says how long it lives"
            ),
            StatusCode::NOT_FOUND => {
                format!("there is no transit engine at {} or no such key ({said})", self.key.mount)
            }
            StatusCode::BAD_REQUEST if said.contains("too old") => format!(
                "the version of its key that wrapped the root key may not decrypt any more ({said}). Lower `min_decryption_version` of {}/keys/{}, run `board rekey --to vault:{} --fresh`, then raise it again",
                self.key.mount, self.key.name, self.key
            ),
            status => format!("{status} ({said})"),
        })
    }
}

impl Provider for Transit {
    fn wrap<'a>(&'a self, binding: Binding, root: &'a Key, _random: &'a dyn Random) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let plain = Secret::new(BASE64.encode(root.expose()));
            let context = BASE64.encode(&context(binding));
            let parts = [r#"{"plaintext":""#, plain.expose(), r#"","context":""#, &context, r#""}"#];
            let got = self.ask("encrypt", &Secret::new(parts.concat().into_bytes())).await?;
            if got.status != StatusCode::OK {
                return Err(self.refusal("encrypt", &got));
            }
            let answer: Data<Encrypted> = serde_json::from_slice(got.body.expose())
                .map_err(|_| self.http.answer("it holds no ciphertext"))?;
            Ok(answer.data.ciphertext.into_bytes())
        })
    }

    fn unwrap<'a>(&'a self, binding: Binding, wrapped: &'a [u8]) -> Answer<'a, Key> {
        Box::pin(async move {
            let ciphertext = std::str::from_utf8(wrapped).map_err(|_| ProviderError::Unwrap)?;
            let body = serde_json::json!({
                "ciphertext": ciphertext,
                "context": BASE64.encode(&context(binding)),
            });
            let got = self.ask("decrypt", &Secret::new(body.to_string().into_bytes())).await?;
            match got.status {
                StatusCode::OK => {}
                StatusCode::BAD_REQUEST if is_of_another_key(&said(&got)) => {
                    return Err(ProviderError::Unwrap);
                }
                _ => return Err(self.refusal("decrypt", &got)),
            }
            let answer: Data<Decrypted> = serde_json::from_slice(got.body.expose())
                .map_err(|_| self.http.answer("it holds no plaintext"))?;
            let plain = BASE64.decode(answer.data.plaintext.expose().as_bytes()).map(Secret::new);
            let plain = plain.map_err(|_| self.http.answer("its plaintext is not Base64"))?;
            plain.expose().as_slice().try_into().map(Secret::new).map_err(|_| ProviderError::Unwrap)
        })
    }
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Secret<String>,
}

fn said(got: &Got) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    serde_json::from_slice::<Errors>(got.body.expose())
        .map_or_else(|_| "it doesn't say why".to_owned(), |said| shown(&said.errors.join("; ")))
}

/// What Vault and OpenBao say of a ciphertext that another key or context made, or none. They answer 400 to other trouble
/// as well: a key that isn't there, a version of it that may not decrypt any more.
fn is_of_another_key(said: &str) -> bool {
    said.contains("authentication failed") || said.contains("invalid ciphertext")
}

fn context(binding: Binding) -> Vec<u8> {
    ByteString::labelled("board/root-wrap/v1")
        .fixed(binding.board_id.as_bytes())
        .u32(binding.version)
        .finish()
}
