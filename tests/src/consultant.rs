//! A consultant who uses the console as a browser without scripts would: pages, forms, a cookie.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use regex::Regex;
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::Value;

/// Long enough for the password rule; of no account anywhere.
pub const PASSWORD: &str = "a long demo passphrase";

/// The field of a form for the password again.
const STEP_UP_FIELD: &str = "step_up_password";

pub struct Consultant {
    http: Client,
    base: String,
    /// Every page that was seen, for the search for values that must not be there.
    pub pages: Vec<(String, String)>,
}

/// What the join page tells to paste on the Mac.
#[derive(Clone, Debug)]
pub struct JoinCommand {
    pub board: String,
    pub pin: String,
    pub code: String,
}

impl JoinCommand {
    /// Reads the command as a person would copy it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let command =
            Regex::new(r"board-agent join --board (\S+) --pin ([0-9a-f]{64}) --code ([0-9A-Z]{8})")?;
        let found = command.captures(text).context("this is not the join command from the page")?;
        Ok(Self { board: found[1].to_owned(), pin: found[2].to_owned(), code: found[3].to_owned() })
    }
}

/// An answer with its page read.
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub text: String,
}

impl Consultant {
    /// Signs in for the first time, by the one-time link, and sets a password.
    pub async fn welcome(base: &str, welcome: &str) -> anyhow::Result<Self> {
        let http = Client::builder()
            .cookie_store(true)
            .redirect(redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()?;
        let mut consultant = Self { http, base: base.to_owned(), pages: Vec::new() };
        consultant.get(welcome).await?;
        let answer = consultant.post(welcome, &[("password", PASSWORD), ("repeat", PASSWORD)]).await?;
        ensure!(
            answer.status == StatusCode::SEE_OTHER,
            "the link signs in: {} {}",
            answer.status,
            answer.text
        );
        Ok(consultant)
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<String> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        let answer = self.read(path, response).await?;
        ensure!(answer.status.is_success(), "GET {path} answers {}: {}", answer.status, answer.text);
        Ok(answer.text)
    }

    pub async fn json(&mut self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get(path).await?)?)
    }

    /// Posts a form as a browser on this page does.
    pub async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.base)).header("origin", &self.base);
        let response = request.header("sec-fetch-site", "same-origin").form(form).send().await?;
        self.read(path, response).await
    }

    async fn read(&mut self, path: &str, response: Response) -> anyhow::Result<Answer> {
        let status = response.status();
        let location =
            response.headers().get("location").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let text = response.text().await?;
        self.pages.push((path.to_owned(), text.clone()));
        Ok(Answer { status, location, text })
    }

    /// Goes through the wizard's pages up to the secrets; gives the client's id. `fields` are the choices and inputs of
    /// the integrations page.
    pub async fn create_client(
        &mut self,
        name: &str,
        components: &[&str],
        fields: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        self.get("/clients/new").await?;
        let answer = self.post("/clients/new", &[("name", name), ("vault_name", ""), ("notes", "")]).await?;
        let id = after(&answer, "/package")?;
        self.get(&format!("/clients/{id}/package")).await?;
        let answer = self.post(&format!("/clients/{id}/package"), &[("tier", "")]).await?;
        after(&answer, "/integrations")?;
        self.get(&format!("/clients/{id}/integrations")).await?;
        let mut form: Vec<(&str, &str)> =
            components.iter().map(|component| ("component", *component)).collect();
        form.extend_from_slice(fields);
        let answer = self.post(&format!("/clients/{id}/integrations"), &form).await?;
        after(&answer, "/secrets")?;
        Ok(id)
    }

    /// Saves another scope of a client whose devices have runbooks, as a person who reads the difference and confirms
    /// it; gives the page with the difference.
    pub async fn change_scope(&mut self, client: &str, form: &[(&str, &str)]) -> anyhow::Result<String> {
        let path = format!("/clients/{client}/integrations");
        let shown = self.post(&path, form).await?;
        ensure!(shown.status == StatusCode::OK, "a difference is shown: {} {}", shown.status, shown.text);
        let seen = Regex::new("name=\"difference\" value=\"([^\"]+)\"")?;
        let seen = seen.captures(&shown.text).context("the page asks")?[1].to_owned();
        let form = [form, &[("difference", seen.as_str())]].concat();
        let answer = self.post(&path, &form).await?;
        after(&answer, "/secrets")?;
        Ok(shown.text)
    }

    /// Enters a value for every our-managed slot of the client; `value` gets the slot's key.
    pub async fn enter_secrets(
        &mut self,
        client: &str,
        value: impl Fn(&str) -> String,
    ) -> anyhow::Result<()> {
        let path = format!("/clients/{client}/secrets");
        let page = self.get(&path).await?;
        let field = Regex::new(r#"<label for="(slot-[0-9a-f-]{36})">(?s:.*?)<code>(\w+)</code>"#)?;
        let values: Vec<(String, String)> =
            field.captures_iter(&page).map(|found| (found[1].to_owned(), value(&found[2]))).collect();
        ensure!(!values.is_empty(), "the page has a field for each of our secrets");
        let form: Vec<(&str, &str)> =
            values.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
        let answer = self.post(&path, &form).await?;
        ensure!(
            answer.status == StatusCode::SEE_OTHER,
            "the secrets were saved: {} {}",
            answer.status,
            answer.text
        );
        Ok(())
    }

    /// Gives the first of a client's stored secrets a new value.
    pub async fn rotate_secret(&mut self, client: &str, value: &str, reason: &str) -> anyhow::Result<()> {
        let page = self.get(&format!("/clients/{client}/secrets")).await?;
        let path = all(&page, r#"href="(/clients/[0-9a-f-]{36}/secrets/[0-9a-f-]{36}/rotate)""#)?;
        let path = path.first().context("the page leads to rotating")?;
        self.get(path).await?;
        let answer = self.post_as_myself(path, &[("secret", value), ("reason", reason)]).await?;
        ensure!(answer.status == StatusCode::SEE_OTHER, "rotated: {} {}", answer.status, answer.text);
        Ok(())
    }

    /// Copies the first of a client's secrets as the page's script does; the answer goes into no list of pages.
    pub async fn copy_secret(&mut self, client: &str, reason: &str) -> anyhow::Result<Answer> {
        let page = self.get(&format!("/clients/{client}/secrets")).await?;
        let path = all(&page, r#"action="(/clients/[0-9a-f-]{36}/secrets/[0-9a-f-]{36}/copy)""#)?;
        let path = path.first().context("the page offers to copy")?;
        let request = self.http.post(format!("{}{path}", self.base)).header("sec-fetch-site", "same-origin");
        let request = request.header("accept", "text/plain, application/problem+json");
        let form = [("reason", reason), (STEP_UP_FIELD, PASSWORD)];
        let response = request.form(&form).send().await?;
        Ok(Answer { status: response.status(), location: None, text: response.text().await? })
    }

    pub async fn join_command(&mut self, client: &str) -> anyhow::Result<JoinCommand> {
        let answer = self.post(&format!("/clients/{client}/join-codes"), &[]).await?;
        JoinCommand::parse(&answer.text)
    }

    /// The enrollment that waits on the page, once it is there.
    pub async fn pending(&mut self, within: Duration) -> anyhow::Result<String> {
        let find = async {
            loop {
                let page = self.get("/enrollments").await?;
                let found = all(&page, r#"action="/enrollments/([0-9a-f-]{36})/approve""#)?;
                if let Some(id) = found.into_iter().next() {
                    return Ok(id);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(within, find).await.context("no device asks to join")?
    }

    /// Types a fingerprint into the four boxes.
    pub async fn approve(&mut self, enrollment: &str, fingerprint: &str) -> anyhow::Result<Answer> {
        let groups: Vec<&str> = fingerprint.split_whitespace().collect();
        let form: Vec<(&str, &str)> = groups.iter().map(|group| ("fingerprint", *group)).collect();
        self.post_as_myself(&format!("/enrollments/{enrollment}/approve"), &form).await
    }

    /// Posts a form of something that matters: types the password when the board asks for it again.
    pub async fn post_as_myself(&mut self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let answer = self.post(path, form).await?;
        let asked = answer.status == StatusCode::UNAUTHORIZED && answer.text.contains(STEP_UP_FIELD);
        if !asked {
            return Ok(answer);
        }
        self.post(path, &[form, &[(STEP_UP_FIELD, PASSWORD)]].concat()).await
    }

    /// Approves, and gives the device's id.
    pub async fn approve_device(&mut self, enrollment: &str, fingerprint: &str) -> anyhow::Result<String> {
        let answer = self.approve(enrollment, fingerprint).await?;
        let Some(location) = answer.location else {
            bail!("not approved: {} {}", answer.status, answer.text)
        };
        let id = location.strip_prefix("/devices/").and_then(|rest| rest.strip_suffix("/runbook"));
        Ok(id.context("approval goes on to the runbook")?.to_owned())
    }

    /// Waits until the device's runbook is done; fails at once when a step or a delivery failed.
    pub async fn runbook_done(&mut self, device: &str, within: Duration) -> anyhow::Result<Value> {
        let path = format!("/api/v1/devices/{device}/runbook");
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let runbook = self.json(&path).await?;
            if runbook["done"] == true {
                return Ok(runbook);
            }
            let failed = list(&runbook, "steps")
                .iter()
                .any(|step| step["state"] == "failed" || step["state"] == "interrupted")
                || list(&runbook, "deliveries").iter().any(|delivery| delivery["state"] == "refused");
            if failed {
                bail!("the runbook failed: {runbook:#}");
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the runbook is not done in time: {runbook:#}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a manual step of this name waits for a person.
    pub async fn waits_for_you(&mut self, device: &str, step: &str, within: Duration) -> anyhow::Result<()> {
        let path = format!("/api/v1/devices/{device}/runbook");
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let runbook = self.json(&path).await?;
            let steps = list(&runbook, "steps");
            if steps.iter().any(|one| one["step"] == step && one["state"] == "waiting") {
                return Ok(());
            }
            if steps.iter().any(|one| one["state"] == "failed") || tokio::time::Instant::now() > deadline {
                bail!("the step {step} doesn't wait for a person: {runbook:#}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the board knows every component that a device should have as present on it.
    pub async fn all_present(&mut self, client: &str, within: Duration) -> anyhow::Result<Value> {
        let path = format!("/api/v1/clients/{client}/state");
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let state = self.json(&path).await?;
            if is_as_wanted(&state) {
                return Ok(state);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the board doesn't know everything as present in time: {state:#}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The client's id, when the wizard goes on to its next page.
fn after(answer: &Answer, page: &str) -> anyhow::Result<String> {
    let location =
        answer.location.as_deref().with_context(|| format!("the wizard stays: {}", answer.text))?;
    let id = location.strip_prefix("/clients/").and_then(|rest| rest.strip_suffix(page));
    Ok(id.with_context(|| format!("the wizard goes on to {page}, not to {location}"))?.to_owned())
}

fn is_as_wanted(state: &Value) -> bool {
    let devices = list(state, "devices");
    !devices.is_empty()
        && devices.iter().all(|device| {
            list(device, "wanted").iter().all(|key| {
                let components = list(device, "components");
                components.iter().any(|one| one["component"] == *key && one["presence"] == "present")
            })
        })
}

/// A list inside a JSON object; empty when it isn't there.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn all(page: &str, pattern: &str) -> anyhow::Result<Vec<String>> {
    Ok(Regex::new(pattern)?.captures_iter(page).map(|found| found[1].to_owned()).collect())
}
