//! A window of a real Chromium, driven over WebDriver. Waits are for something to be seen, and end after [`PATIENCE`].

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::{Value, json};
use thirtyfour::prelude::*;
use thirtyfour::{LoggingPrefsLogLevel, TypingData};

/// How long anything may take to show: a machine may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

const WIDE: (u32, u32) = (1280, 900);
pub const PHONE: (u32, u32) = (390, 844);

/// The browser is ended with its window, however the test ends.
pub struct Window {
    driver: WebDriver,
    browser: Pid,
    pub base: String,
    scripts: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Look {
    Light,
    Dark,
    Phone,
}

impl Window {
    /// Opens a window on the board at `base`.
    pub async fn open(base: &str) -> Self {
        let server = std::env::var("WEBDRIVER_URL")
            .expect("WEBDRIVER_URL names a running chromedriver: run these tests with `tests/run browser`");
        let mut wanted = DesiredCapabilities::chrome();
        for argument in [
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
            "--no-first-run",
            "--hide-scrollbars",
            "--no-proxy-server",
        ] {
            wanted.add_arg(argument).unwrap();
        }
        wanted.add_arg(&format!("--window-size={},{}", WIDE.0, WIDE.1)).unwrap();
        // Chromium's sandbox doesn't start for root.
        if geteuid().is_root() {
            wanted.set_no_sandbox().unwrap();
        }
        wanted.set_logging_prefs("browser", LoggingPrefsLogLevel::All).unwrap();
        wanted.set_logging_prefs("performance", LoggingPrefsLogLevel::All).unwrap();
        let driver = WebDriver::new(&server, wanted).await.expect("chromedriver starts a Chromium");
        let browser = driver.capabilities().get("goog:processID").and_then(Value::as_i64).unwrap();
        let browser = Pid::from_raw(i32::try_from(browser).unwrap());
        driver.set_page_load_timeout(PATIENCE).await.unwrap();
        driver.set_script_timeout(PATIENCE).await.unwrap();
        let window = Self { driver, browser, base: base.to_owned(), scripts: true };
        window.look(Look::Light).await;
        window
    }

    /// A window in which pages run no scripts.
    pub async fn without_scripts(base: &str) -> Self {
        let mut window = Self::open(base).await;
        window.scripts = false;
        window.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
        window
    }

    pub async fn go(&self, path: &str) {
        self.driver.goto(format!("{}{path}", self.base)).await.unwrap();
    }

    /// The address without the board's own part.
    pub async fn path(&self) -> String {
        let url = self.driver.current_url().await.unwrap();
        url.as_str().strip_prefix(&self.base).unwrap_or_else(|| panic!("{url} is not the board's")).to_owned()
    }

    /// The folder of its profile.
    pub fn profile(&self) -> PathBuf {
        let folder = &self.driver.capabilities().get("chrome").expect("it is Chromium")["userDataDir"];
        PathBuf::from(folder.as_str().expect("it has a profile"))
    }

    pub async fn source(&self) -> String {
        self.driver.source().await.unwrap()
    }

    /// Waits until an element of this selector shows, and gives it. Without scripts a page has to be loaded again.
    pub async fn see(&self, selector: &str) -> WebElement {
        self.wait(selector, async || self.shown(selector).await).await
    }

    async fn shown(&self, selector: &str) -> WebDriverResult<Option<WebElement>> {
        for found in self.driver.find_all(By::Css(selector)).await? {
            if found.is_displayed().await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Waits until an element of this selector has this text in it.
    pub async fn read(&self, selector: &str, text: &str) -> WebElement {
        self.wait(&format!("{selector} with {text:?}"), async || {
            for found in self.driver.find_all(By::Css(selector)).await? {
                if found.text().await?.contains(text) {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Waits for the page at an address that ends so.
    pub async fn arrive(&self, end: &str) {
        self.wait(&format!("a page at …{end}"), async || {
            let url = self.driver.current_url().await?;
            let there = url.path().ends_with(end);
            Ok((there && self.driver.execute("return document.readyState", []).await?.json() == "complete")
                .then_some(()))
        })
        .await;
    }

    /// Waits until this expression of JavaScript holds.
    pub async fn until(&self, expression: &str) -> Value {
        self.wait(expression, async || {
            let value = self.driver.execute(format!("return {expression}"), []).await?.json().clone();
            Ok((value != false && !value.is_null() && value != 0).then_some(value))
        })
        .await
    }

    async fn wait<T>(&self, what: &str, mut look: impl AsyncFnMut() -> WebDriverResult<Option<T>>) -> T {
        let started = Instant::now();
        loop {
            // A page that is just being left or patched answers with errors: look again.
            let problem = match look().await {
                Ok(Some(found)) => return found,
                Ok(None) => String::new(),
                Err(error) => error.to_string(),
            };
            if started.elapsed() > PATIENCE {
                let page = self.eval("return document.body.innerText").await;
                let page = page.as_str().unwrap_or_default();
                panic!("not seen: {what} {problem}\non {}:\n{page}", self.path().await);
            }
            if self.scripts {
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(500)).await;
                self.driver.refresh().await.unwrap();
            }
        }
    }

    /// Runs the body of an async function in the page; what it throws fails the test.
    pub async fn settle<const N: usize>(&self, script: &str, arguments: [Value; N]) -> Value {
        let whole = format!(
            "const done = arguments[arguments.length - 1];
            (async (...given) => {{ {script} }})(...[...arguments].slice(0, -1)).then(done, (error) => done('threw ' + error))"
        );
        let answer = self.driver.execute_async(whole, arguments.to_vec()).await.unwrap().json().clone();
        assert!(!answer.as_str().is_some_and(|text| text.starts_with("threw ")), "{answer}");
        answer
    }

    /// Runs the body of a function in the page.
    pub async fn eval(&self, script: &str) -> Value {
        self.call(script, []).await
    }

    pub async fn call<const N: usize>(&self, script: &str, arguments: [Value; N]) -> Value {
        let arguments: Vec<Value> = arguments.into();
        match self.driver.execute(script, arguments).await {
            Ok(answer) => answer.json().clone(),
            Err(error) => panic!("{}: {error}", &script[..script.len().min(200)]),
        }
    }

    pub async fn click(&self, selector: &str) {
        self.wait(&format!("{selector}, to click it"), async || match self.shown(selector).await? {
            Some(found) => found.click().await.map(Some),
            None => Ok(None),
        })
        .await;
    }

    /// Types into a field that holds nothing.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.wait(&format!("{selector}, to type into it"), async || match self.shown(selector).await? {
            Some(found) => found.send_keys(text).await.map(Some),
            None => Ok(None),
        })
        .await;
    }

    /// Types to whatever has the focus.
    pub async fn keys(&self, keys: impl Into<TypingData>) {
        self.driver.action_chain().send_keys(keys.into()).perform().await.unwrap();
    }

    /// One key while Control is held.
    pub async fn control(&self, key: char) {
        let chain = self.driver.action_chain().key_down(Key::Control).send_keys(key);
        chain.key_up(Key::Control).perform().await.unwrap();
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, method: &str, parameters: Value) -> Value {
        self.driver
            .cdp()
            .send_raw(method, parameters)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub async fn look(&self, look: Look) {
        let (scheme, (width, height)) = match look {
            Look::Light => ("light", WIDE),
            Look::Dark => ("dark", WIDE),
            Look::Phone => ("light", PHONE),
        };
        self.size(width, height).await;
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    pub async fn size(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The whole page as PNG, in base64.
    pub async fn screenshot(&self) -> String {
        let whole = json!({ "format": "png", "captureBeyondViewport": true, "optimizeForSpeed": true });
        let shot = self.devtools("Page.captureScreenshot", whole).await;
        shot["data"].as_str().expect("a screenshot").to_owned()
    }

    /// What the browser wrote to its console since it was asked last: errors, refused requests, violations of the CSP.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.unwrap();
        entries.into_iter().map(|entry| format!("{} {}", entry.level, entry.message)).collect()
    }

    /// What the network log got since the last call: messages of the DevTools protocol, without the bodies of answers.
    pub async fn network(&self) -> Vec<Value> {
        let entries = self.driver.get_log("performance").await.unwrap();
        entries
            .iter()
            .map(|entry| serde_json::from_str::<Value>(&entry.message).unwrap()["message"].take())
            .collect()
    }

    /// The addresses that were asked for since the last call.
    pub async fn requests(&self) -> Vec<String> {
        let messages = self.network().await.into_iter();
        messages
            .filter(|one| one["method"] == "Network.requestWillBeSent")
            .filter_map(|one| Some(one["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }

    /// Lets the page use the clipboard, as a person does when the browser asks.
    pub async fn allow_clipboard(&self) {
        let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.devtools("Browser.grantPermissions", permissions).await;
    }

    /// What axe-core finds wrong with the page, one line each.
    pub async fn axe(&self) -> Vec<String> {
        let script = "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] }).then(
            ({ violations }) => done(violations.flatMap(({ id, help, nodes }) =>
                nodes.map((node) => `${id}: ${help}: ${node.html.slice(0, 200)} ${node.failureSummary}`))),
            (error) => done([String(error)]));";
        if self.eval("return typeof window.axe").await == "undefined" {
            let path = std::env::var("AXE_CORE").expect(
                "AXE_CORE names axe-core's axe.min.js: run these tests with `tests/run browser`, which fetches it",
            );
            self.eval(&std::fs::read_to_string(path).unwrap()).await;
        }
        let answer = self.driver.execute_async(script, []).await.unwrap();
        serde_json::from_value(answer.json().clone()).unwrap()
    }
}

impl Drop for Window {
    // Asking the driver for it takes five seconds, and can hang when the test has failed.
    fn drop(&mut self) {
        let _ = kill(self.browser, Signal::SIGKILL);
        let _ = self.driver.clone().leak();
    }
}
