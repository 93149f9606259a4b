//! `awskms:KEY[?region=…&endpoint=…]`: AWS KMS over its JSON API, signed with `aws-sigv4`. KEY is a key id, an ARN, or
//! `alias/NAME`. The encryption context binds the wrapped root key to board and version; CloudTrail shows it.
//!
//! The region is the URI's, else the ARN's, else `AWS_REGION` or `AWS_DEFAULT_REGION`; the endpoint is the URI's, else
//! `AWS_ENDPOINT_URL_KMS`, else the region's own.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use data_encoding::BASE64;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use shared::random::Random;
use shared::secret::Secret;

use super::credentials::{self, Credentials};
use super::http::{Got, Http, is_passing, shown};
use super::{Answer, Binding, Outside, Provider, ProviderError};
use crate::keys::Key;

const JSON: &str = "application/x-amz-json-1.1";

/// A key of AWS KMS. As text: what comes after `awskms:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsKey {
    /// Key id, ARN or `alias/NAME`.
    id: String,
    region: Option<String>,
    endpoint: Option<Url>,
}

impl KmsKey {
    pub fn parse(text: &str) -> Option<Self> {
        let (id, query) = text.split_once('?').unwrap_or((text, ""));
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | ':');
        if id.is_empty() || id.len() > 2048 || !id.chars().all(fits) {
            return None;
        }
        let mut key = Self { id: id.to_owned(), region: None, endpoint: None };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "region" if is_region(&value) => key.region = Some(value.into_owned()),
                "endpoint" => key.endpoint = Some(endpoint(&value)?),
                _ => return None,
            }
        }
        Some(key)
    }

    fn region(&self, outside: &Outside) -> Option<String> {
        let of_arn = || {
            let region = self.id.strip_prefix("arn:")?.split(':').nth(2)?;
            is_region(region).then(|| region.to_owned())
        };
        let of_environment = || {
            let region = outside.variable("AWS_REGION").or_else(|| outside.variable("AWS_DEFAULT_REGION"))?;
            is_region(&region).then_some(region)
        };
        self.region.clone().or_else(of_arn).or_else(of_environment)
    }
}

impl std::fmt::Display for KmsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)?;
        let parts = [
            self.region.as_ref().map(|region| format!("region={region}")),
            self.endpoint.as_ref().map(|url| format!("endpoint={}", url.as_str().trim_end_matches('/'))),
        ];
        let query: Vec<_> = parts.into_iter().flatten().collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

fn is_region(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// An address without anything that could be a secret: the URI is stored and shown.
fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    (plain && url.has_host() && url.path() == "/" && url.fragment().is_none()).then_some(url)
}

#[derive(Debug)]
pub struct Kms {
    key: KmsKey,
    region: String,
    endpoint: Url,
    http: Http,
    outside: Outside,
}

impl Kms {
    pub fn open(key: &KmsKey, outside: &Outside) -> Result<Self, ProviderError> {
        let provider = format!("awskms:{key}");
        let setup = |what: &str| ProviderError::Setup { provider: provider.clone(), what: what.to_owned() };
        let region = key.region(outside).ok_or_else(|| {
            setup("its region isn't known: add ?region=REGION to the URI, name the key by its ARN, or set AWS_REGION")
        })?;
        let url = match (&key.endpoint, outside.variable("AWS_ENDPOINT_URL_KMS")) {
            (Some(url), _) => url.clone(),
            (None, Some(text)) => {
                endpoint(&text).ok_or_else(|| setup("AWS_ENDPOINT_URL_KMS is not an address"))?
            }
            (None, None) => {
                let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                endpoint(&format!("https://kms.{region}.{suffix}"))
                    .ok_or_else(|| setup("its region makes no address"))?
            }
        };
        let http = Http::new(provider.clone(), &url, None)?;
        Ok(Self { key: key.clone(), region, endpoint: url, http, outside: outside.clone() })
    }

    #[cfg(test)]
    pub fn within(mut self, timeout: std::time::Duration) -> Self {
        self.http = self.http.within(timeout);
        self
    }

    async fn ask(&self, target: &'static str, body: &Secret<Vec<u8>>) -> Result<Got, ProviderError> {
        let credentials = credentials::find(&self.outside, &self.http.provider).await?;
        let headers = || self.signed(target, body.expose(), &credentials);
        let passing =
            |got: &Got| is_passing(got.status) || matches!(kind(got).as_deref(), Some("ThrottlingException"));
        self.http.send(Method::POST, &self.endpoint, headers, body, passing).await
    }

    /// The request's headers with their signature (AWS Signature Version 4).
    fn signed(
        &self,
        target: &'static str,
        body: &[u8],
        credentials: &Credentials,
    ) -> Result<HeaderMap, ProviderError> {
        let failed = |what: String| ProviderError::Setup {
            provider: self.http.provider.clone(),
            what: format!("the request can't be signed: {what}"),
        };
        let identity = aws_credential_types::Credentials::new(
            &credentials.key_id,
            credentials.secret.expose(),
            credentials.session.as_ref().map(|token| token.expose().clone()),
            None,
            "board",
        )
        .into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("kms")
            .time(SystemTime::from(self.outside.clock.now().to_datetime()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(error.to_string()))?
            .into();
        let fixed = [("content-type", JSON), ("x-amz-target", target)];
        let request = SignableRequest::new(
            "POST",
            self.endpoint.as_str(),
            fixed.into_iter(),
            SignableBody::Bytes(body),
        )
        .map_err(|error| failed(error.to_string()))?;
        let (instructions, _) =
            sign(request, &parameters).map_err(|error| failed(error.to_string()))?.into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in fixed.into_iter().chain(instructions.headers()) {
            let bad = |_| failed(format!("{name} has characters that a header can't carry"));
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| failed("a header's name".into()))?;
            let mut value = HeaderValue::from_str(value).map_err(bad)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn context(binding: Binding) -> serde_json::Value {
        serde_json::json!({ "board": binding.board_id.to_string(), "root-version": binding.version.to_string() })
    }

    /// Why it refused, for whoever has to change it.
    fn refusal(&self, right: &str, got: &Got) -> ProviderError {
        let kind = kind(got).unwrap_or_default();
        let said = said(got);
        self.http.refused(match kind.as_str() {
            "AccessDeniedException" => {
                format!(
                    "these credentials may not do this ({said}). Their policy has to allow {right} on the key"
                )
            }
            "NotFoundException" => format!("there is no such key in {} ({said})", self.region),
            "DisabledException" | "KMSInvalidStateException" => {
                format!("the key can't be used ({said}). Enable it, or cancel its deletion, in KMS")
            }
            "ExpiredTokenException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId" => {
                format!(
                    "it doesn't accept the credentials ({kind}: {said}). Check them, and this machine's clock"
                )
            }
            "" if got.status == StatusCode::FORBIDDEN => {
                format!("it doesn't accept the credentials ({said}). Check them, and this machine's clock")
            }
            _ => format!("{} {kind} ({said})", got.status),
        })
    }
}

impl Provider for Kms {
    fn wrap<'a>(&'a self, binding: Binding, root: &'a Key, _random: &'a dyn Random) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let plain = Secret::new(BASE64.encode(root.expose()));
            let context = Self::context(binding).to_string();
            let parts = [
                r#"{"KeyId":""#,
                &self.key.id,
                r#"","Plaintext":""#,
                plain.expose(),
                r#"","EncryptionContext":"#,
                &context,
                "}",
            ];
            let got = self.ask("TrentService.Encrypt", &Secret::new(parts.concat().into_bytes())).await?;
            if got.status != StatusCode::OK {
                return Err(self.refusal("kms:Encrypt", &got));
            }
            let answer: Encrypted = serde_json::from_slice(got.body.expose())
                .map_err(|_| self.http.answer("it holds no CiphertextBlob"))?;
            BASE64
                .decode(answer.ciphertext.as_bytes())
                .map_err(|_| self.http.answer("its CiphertextBlob is not Base64"))
        })
    }

    fn unwrap<'a>(&'a self, binding: Binding, wrapped: &'a [u8]) -> Answer<'a, Key> {
        Box::pin(async move {
            let body = serde_json::json!({
                "KeyId": self.key.id,
                "CiphertextBlob": BASE64.encode(wrapped),
                "EncryptionContext": Self::context(binding),
            });
            let got = self.ask("TrentService.Decrypt", &Secret::new(body.to_string().into_bytes())).await?;
            if got.status != StatusCode::OK {
                return match kind(&got).as_deref() {
                    Some("InvalidCiphertextException" | "IncorrectKeyException") => {
                        Err(ProviderError::Unwrap)
                    }
                    _ => Err(self.refusal("kms:Decrypt", &got)),
                };
            }
            let answer: Decrypted = serde_json::from_slice(got.body.expose())
                .map_err(|_| self.http.answer("it holds no Plaintext"))?;
            let plain = BASE64.decode(answer.plaintext.expose().as_bytes()).map(Secret::new);
            let plain = plain.map_err(|_| self.http.answer("its Plaintext is not Base64"))?;
            plain.expose().as_slice().try_into().map(Secret::new).map_err(|_| ProviderError::Unwrap)
        })
    }
}

#[derive(Deserialize)]
struct Encrypted {
    #[serde(rename = "CiphertextBlob")]
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    #[serde(rename = "Plaintext")]
    plaintext: Secret<String>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

fn problem(got: &Got) -> Option<Problem> {
    serde_json::from_slice(got.body.expose()).ok()
}

/// The error's name: `com.amazonaws.kms#NotFoundException` and `NotFoundException` are the same.
fn kind(got: &Got) -> Option<String> {
    if got.status == StatusCode::OK {
        return None;
    }
    let kind = problem(got)?.kind;
    Some(shown(kind.rsplit('#').next().unwrap_or_default()))
}

fn said(got: &Got) -> String {
    problem(got)
        .map(|problem| shown(&problem.message))
        .filter(|said| !said.is_empty())
        .unwrap_or_else(|| "it doesn't say why".to_owned())
}
