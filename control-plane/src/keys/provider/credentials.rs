//! AWS credentials, from where AWS's own tools look first: the environment, a container's credentials (ECS, EKS Pod
//! Identity), the machine's role (IMDSv2). They are asked for again for each operation, of which there are few, so
//! nothing here has to know when they end.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use shared::secret::Secret;

use super::http::{Got, Http};
use super::{Outside, ProviderError};

/// Both answer from the machine itself or not at all.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONTAINER: &str = "http://169.254.170.2";
const MACHINE: &str = "http://169.254.169.254";
const ROLE: &str = "latest/meta-data/iam/security-credentials/";

#[derive(Debug)]
pub struct Credentials {
    pub key_id: String,
    pub secret: Secret<String>,
    pub session: Option<Secret<String>>,
}

/// `provider` is for messages.
pub async fn find(outside: &Outside, provider: &str) -> Result<Credentials, ProviderError> {
    if let (Some(key_id), Some(secret)) =
        (outside.variable("AWS_ACCESS_KEY_ID"), outside.variable("AWS_SECRET_ACCESS_KEY"))
    {
        let session = outside.variable("AWS_SESSION_TOKEN").map(Secret::new);
        return Ok(Credentials { key_id, secret: Secret::new(secret), session });
    }
    let search = Search { outside, provider };
    let relative = outside.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let container = relative
        .map(|path| format!("{CONTAINER}{path}"))
        .or_else(|| outside.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
    match container {
        Some(address) => search.container(&address).await,
        None => search.machine().await,
    }
}

struct Search<'a> {
    outside: &'a Outside,
    provider: &'a str,
}

impl Search<'_> {
    async fn container(&self, address: &str) -> Result<Credentials, ProviderError> {
        let mut headers = HeaderMap::new();
        let token = match self.outside.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| self.none(&format!("its token file {path} can't be read: {error}")))?;
                Some(Secret::new(text.trim().to_owned()))
            }
            None => self.outside.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new),
        };
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, self.header(&token)?);
        }
        let got = self.ask(Method::GET, address, headers).await?;
        self.read(&got)
    }

    async fn machine(&self) -> Result<Credentials, ProviderError> {
        if self.outside.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value == "true") {
            return Err(self.none("nothing in the environment, and AWS_EC2_METADATA_DISABLED is set"));
        }
        let base =
            self.outside.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| MACHINE.to_owned());
        let base = base.trim_end_matches('/');
        let mut headers = HeaderMap::new();
        headers.insert("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from_static("60"));
        let got = self.ask(Method::PUT, &format!("{base}/latest/api/token"), headers).await?;
        let mut headers = HeaderMap::new();
        headers.insert("x-aws-ec2-metadata-token", self.header(&self.text(&got)?)?);
        let got = self.ask(Method::GET, &format!("{base}/{ROLE}"), headers.clone()).await?;
        let role = self.text(&got)?;
        let role = role.expose().lines().next().unwrap_or_default();
        let got = self.ask(Method::GET, &format!("{base}/{ROLE}{role}"), headers).await?;
        self.read(&got)
    }

    async fn ask(&self, method: Method, address: &str, headers: HeaderMap) -> Result<Got, ProviderError> {
        let url = Url::parse(address).map_err(|_| self.none(&format!("{address} is not an address")))?;
        let asked = Http::of_the_host(self.provider.to_owned(), &url)?
            .within(TIMEOUT)
            .send(method, &url, || Ok(headers.clone()), &Secret::new(Vec::new()), |_| false)
            .await;
        match asked {
            Ok(got) if got.status == StatusCode::OK => Ok(got),
            Ok(got) => Err(self.none(&format!("{address} answers {}", got.status))),
            Err(ProviderError::Unreachable { what, .. }) => Err(self.none(&format!("{address}: {what}"))),
            Err(other) => Err(other),
        }
    }

    fn read(&self, got: &Got) -> Result<Credentials, ProviderError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Given {
            access_key_id: String,
            secret_access_key: Secret<String>,
            token: Option<Secret<String>>,
        }
        let given: Given = serde_json::from_slice(got.body.expose())
            .map_err(|_| self.none("the answer holds no access key"))?;
        Ok(Credentials { key_id: given.access_key_id, secret: given.secret_access_key, session: given.token })
    }

    fn text(&self, got: &Got) -> Result<Secret<String>, ProviderError> {
        let text = std::str::from_utf8(got.body.expose()).map_err(|_| self.none("the answer is no text"))?;
        Ok(Secret::new(text.trim().to_owned()))
    }

    fn header(&self, token: &Secret<String>) -> Result<HeaderValue, ProviderError> {
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_| self.none("its token has characters that a header can't carry"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn none(&self, why: &str) -> ProviderError {
        ProviderError::Setup {
            provider: self.provider.to_owned(),
            what: format!(
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine or container a role that may use the key ({why})"
            ),
        }
    }
}
