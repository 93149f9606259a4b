//! Both ports, whether the board runs or not, and the addresses by which others reach them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use shared::problem::Problem;
use shared::protocol::LISTENER_NAME;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::authority::ends;
use super::{Finding, Patient};

const CONSOLE: &str = "console port";
const CONSOLE_URL: &str = "console address";
const AGENTS: &str = "agents' port";
const AGENTS_URL: &str = "agents' address";
const PATIENCE: Duration = Duration::from_secs(5);
/// Of an answer of the health page.
const LONGEST: u64 = 16 * 1024;
/// A board that runs renews its listener's certificate long before this.
const LATE: Duration = Duration::from_secs(14 * 24 * 3600);

/// `authorities`: certificates of those that agents believe; none without a database.
pub(super) async fn look(patient: &Patient, authorities: &[Vec<u8>]) -> Vec<Finding> {
    let (console, runs) = console(patient).await;
    let mut findings = vec![console, outside(patient).await];
    findings.push(agents(patient, authorities, runs).await);
    findings.push(agents_url(patient).await);
    findings
}

/// And whether a board runs there.
async fn console(patient: &Patient) -> (Finding, bool) {
    let address = patient.console;
    if !address.ip().is_loopback() {
        let saw = format!("{address} would be served without TLS, so the board doesn't start");
        let advice = "Give a loopback address, and put a proxy that speaks TLS before it (--proxy).";
        return (Finding::problem(CONSOLE, saw, advice), false);
    }
    match health(address).await {
        Ok(health) => health.into_finding(address),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => (free(CONSOLE, address), false),
        Err(error) => {
            let saw = format!("something listens on {address}, and doesn't answer as a board does: {error}");
            (Finding::problem(CONSOLE, saw, another()), false)
        }
    }
}

fn another() -> &'static str {
    "Another program has this port. End it, or give the board another one with --console or --agents."
}

/// Nobody listens: whether we could.
fn free(check: &'static str, address: SocketAddr) -> Finding {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Finding::ok(check, format!("{address} is free: no board runs here")),
        Err(error) => Finding::problem(
            check,
            format!("{address} can't be listened on: {error}"),
            "Give an address of this machine; ports below 1024 need a right of their own.",
        ),
    }
}

/// What the health page answered.
struct Health {
    status: u16,
    body: String,
}

impl Health {
    fn into_finding(self, address: SocketAddr) -> (Finding, bool) {
        let body = self.body.trim();
        let finding = match (self.status, serde_json::from_str::<Problem>(body)) {
            (200, _) if body == "ok" => {
                Finding::ok(CONSOLE, format!("a board answers on {address}, and is well"))
            }
            (200, _) if body.starts_with("degraded") => Finding::warning(
                CONSOLE,
                format!("a board answers on {address}: {body}"),
                "The lines about the audit log say more.",
            ),
            (503, Ok(problem)) => Finding::problem(
                CONSOLE,
                format!("a board answers on {address}, and can't work: {}", problem.detail),
                "The lines above say what is in its way.",
            ),
            (status, _) => {
                let saw = format!("something answers on {address} with {status}, and not as a board does");
                return (Finding::problem(CONSOLE, saw, another()), false);
            }
        };
        (finding, true)
    }
}

async fn health(address: SocketAddr) -> io::Result<Health> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Health { status, body: body.to_owned() })
}

/// The console, as browsers reach it.
async fn outside(patient: &Patient) -> Finding {
    let Some(given) = &patient.console_url else {
        return match patient.proxy {
            Some(proxy) => Finding::ok(
                CONSOLE_URL,
                format!("a proxy at {proxy} speaks TLS; --console-url URL looks at it from outside"),
            ),
            None => {
                Finding::ok(CONSOLE_URL, "no proxy is named: the console is for browsers on this machine")
            }
        };
    };
    let usable = Url::parse(given).ok().filter(|url| url.has_host());
    let Some(mut url) = usable else {
        return Finding::problem(
            CONSOLE_URL,
            format!("{given:?} is no address"),
            "Write it as https://board.example.com.",
        );
    };
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if url.scheme() != "https" && !local {
        return Finding::problem(
            CONSOLE_URL,
            format!("{given} is not https: passwords and secrets would be readable on the way"),
            "Put a proxy that speaks TLS before the console and name it with --proxy.",
        );
    }
    url.set_path("/health");
    let advice = "Look at the proxy: its name in DNS, its certificate, and whether it leads to the console.";
    let asked = async {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let answer = http.get(url).send().await?;
        Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
    };
    match asked.await {
        Ok((200 | 503, body))
            if body.trim() == "ok" || body.starts_with("degraded") || body.contains("\"detail\"") =>
        {
            Finding::ok(CONSOLE_URL, format!("{given} leads to a board, and its certificate is believed"))
        }
        Ok((status, _)) => Finding::problem(
            CONSOLE_URL,
            format!("{given} answers with {status}, and not as a board does"),
            advice,
        ),
        Err(error) => Finding::problem(CONSOLE_URL, format!("{given}: {}", chain(&error)), advice),
    }
}

/// An error with what lies behind it, without the address, which stands beside it.
fn chain(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        words.push(error.to_string());
        next = error.source();
    }
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

async fn agents(patient: &Patient, authorities: &[Vec<u8>], runs: bool) -> Finding {
    let address = patient.agents;
    // Who listens everywhere listens here.
    let here = match address.ip() {
        ip if !ip.is_unspecified() => address,
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST, address.port()).into(),
    };
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(here)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused && !runs => {
            return free(AGENTS, address);
        }
        Ok(Err(error)) => {
            let advice = match runs {
                true => "The board that runs was started with another --agents: give the same here.",
                false => "Give an address of this machine.",
            };
            return Finding::problem(AGENTS, format!("{address}: {error}"), advice);
        }
        Err(_) => return Finding::problem(AGENTS, format!("{address} doesn't answer"), another()),
    };
    if authorities.is_empty() {
        return Finding::warning(
            AGENTS,
            format!("something listens on {address}; whether it is this board can't be said"),
            "The lines above say why the board's certificate is not known.",
        );
    }
    match shown(stream, authorities).await {
        Ok(Some(certificate)) => listener(patient, &certificate),
        Ok(None) | Err(_) if !runs => Finding::problem(
            AGENTS,
            format!("something listens on {address}, and it is not this board"),
            another(),
        ),
        Ok(None) => Finding::problem(AGENTS, format!("{address} shows no certificate"), another()),
        Err(error) => Finding::problem(
            AGENTS,
            format!("what answers on {address} is not believed: {error}"),
            "It is another board, or its certificate ended: start the board anew. If that doesn't help, another program has this port.",
        ),
    }
}

fn listener(patient: &Patient, certificate: &[u8]) -> Finding {
    match ends(certificate) {
        Some(ends) if ends.since(patient.now()) < LATE => Finding::warning(
            AGENTS,
            format!("the board answers; its certificate ends on {ends} and was not renewed"),
            "The board's log says why. Starting it anew makes a new one.",
        ),
        Some(ends) => Finding::ok(AGENTS, format!("this board answers, with a certificate until {ends}")),
        None => Finding::problem(AGENTS, "its certificate can't be read", "Start the board anew."),
    }
}

/// The certificate of who answers, if one of our authorities stands behind it.
async fn shown(stream: TcpStream, authorities: &[Vec<u8>]) -> io::Result<Option<Vec<u8>>> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(CertificateDer::from(certificate.clone())).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(LISTENER_NAME).map_err(io::Error::other)?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = tokio::time::timeout(PATIENCE, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let chain = stream.get_ref().1.peer_certificates();
    Ok(chain.and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()))
}

/// What stands in join commands.
async fn agents_url(patient: &Patient) -> Finding {
    let Some(given) = &patient.agents_url else {
        let url = format!("https://{}", patient.agents);
        return match patient.agents.ip() {
            ip if ip.is_unspecified() => Finding::warning(
                AGENTS_URL,
                format!("join commands would name {url}, which leads nowhere"),
                "Name how Macs reach this port with --agents-url https://board.example.com:8443.",
            ),
            ip if ip.is_loopback() => Finding::warning(
                AGENTS_URL,
                format!("join commands name {url}: only this machine can join"),
                "Name how Macs reach this port with --agents-url https://board.example.com:8443.",
            ),
            _ => Finding::ok(AGENTS_URL, format!("join commands name {url}")),
        };
    };
    let url = Url::parse(given).ok().filter(|url| url.scheme() == "https" && url.has_host());
    let Some((url, host)) = url.and_then(|url| url.host_str().map(str::to_owned).map(|host| (url, host)))
    else {
        return Finding::problem(
            AGENTS_URL,
            format!("{given:?} is no address that agents take"),
            "Write it as https://board.example.com:8443.",
        );
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let lookup = tokio::net::lookup_host((host.trim_matches(['[', ']']), port));
    let found = tokio::time::timeout(PATIENCE, async { lookup.await.map(Iterator::count) }).await;
    match found {
        Ok(Ok(1..)) => Finding::ok(AGENTS_URL, format!("join commands name {given}")),
        Ok(Ok(0) | Err(_)) | Err(_) => Finding::warning(
            AGENTS_URL,
            format!("join commands name {given}, and {host} has no address, seen from here"),
            "Look at the name in DNS. `board-agent doctor --board URL` on a Mac looks at the whole way.",
        ),
    }
}
