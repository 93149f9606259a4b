//! The way to the board: its name, its port, who answers there, and what time it is for them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use shared::crypto::{hex, sha256};
use shared::protocol::LISTENER_NAME;
use shared::time::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Finding;
use crate::http;
use crate::tls::{Board, Pin, Pins, TlsError, spki_of};

const PATIENCE: Duration = Duration::from_secs(10);
/// Beyond this the board warns as well.
const SKEW: Duration = Duration::from_secs(120);

const NAME: &str = "name";
const PORT: &str = "port";
const TLS: &str = "TLS";
const PIN: &str = "pin";
const CLOCK: &str = "clock";

/// Follows the way as far as it leads.
pub(super) async fn look(board: &str, pins: Option<Result<Pins, TlsError>>, now: Timestamp) -> Vec<Finding> {
    let pins = match pins.transpose() {
        Ok(pins) => pins,
        Err(error) => {
            return vec![Finding::problem(
                PIN,
                error.to_string(),
                "Copy the join command from the client's page.",
            )];
        }
    };
    // Without a pin nobody would be believed; here it only takes the address apart.
    let target = match Board::new(board, pins.clone().unwrap_or(Pin::of_spki(&[]).into()), None) {
        Ok(target) => target,
        Err(error) => {
            return vec![Finding::problem(
                "address",
                error.to_string(),
                "Copy the join command from the client's page.",
            )];
        }
    };
    let mut findings = Vec::new();
    let addresses = match resolve(&target).await {
        Ok(addresses) => addresses,
        Err(finding) => return vec![finding],
    };
    if target.host().parse::<std::net::IpAddr>().is_err() {
        let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        findings.push(Finding::ok(NAME, format!("{} is {}", target.host(), list.join(", "))));
    }
    let stream = match connect(&target, &addresses).await {
        Ok((stream, address)) => {
            findings.push(Finding::ok(PORT, format!("{address} answers")));
            stream
        }
        Err(finding) => {
            findings.push(finding);
            return findings;
        }
    };
    let (shown, trusted) = certificates(&target, pins.as_ref(), stream, now).await;
    findings.extend(shown);
    if trusted {
        findings.push(clock(&target, now).await);
    }
    findings
}

async fn resolve(board: &Board) -> Result<Vec<SocketAddr>, Finding> {
    let lookup = tokio::net::lookup_host((board.host(), board.port()));
    let said = match tokio::time::timeout(PATIENCE, lookup).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            if !found.is_empty() {
                return Ok(found);
            }
            "it has no address".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} seconds", PATIENCE.as_secs()),
    };
    Err(Finding::problem(
        NAME,
        format!("{} can't be found: {said}", board.host()),
        "Check this machine's network and DNS (System Settings, Network), and the name in the board's address.",
    ))
}

async fn connect(board: &Board, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Finding> {
    let mut failures = Vec::new();
    for address in addresses {
        match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer in {} seconds", PATIENCE.as_secs())),
        }
    }
    Err(Finding::problem(
        PORT,
        failures.join("; "),
        format!(
            "The board does not run, or a firewall stops connections to port {} on their way out. Ask the office's network whether it lets them through.",
            board.port()
        ),
    ))
}

/// What the other side shows, and whether it is the board.
async fn certificates(
    board: &Board,
    pins: Option<&Pins>,
    stream: TcpStream,
    now: Timestamp,
) -> (Vec<Finding>, bool) {
    let (chain, failure) = match shown(stream).await {
        Ok(shown) => shown,
        Err(error) => {
            return (
                vec![Finding::problem(TLS, error.to_string(), "This is a fault of the program: report it.")],
                false,
            );
        }
    };
    let Some(leaf) = chain.first() else {
        let finding = Finding::problem(
            TLS,
            format!("something answers at {}, but not as a board does: {failure}", board.authority()),
            "Check host and port: it is the address of the agents' port, not the console's. A proxy that opens TLS can be the reason as well: have it leave this address alone.",
        );
        return (vec![finding], false);
    };
    let ca = match pins {
        Some(pins) => pins.find(&chain[1..]),
        None => chain.last(),
    };
    let Some(ca) = ca else {
        let finding = Finding::problem(
            PIN,
            format!(
                "another one answers: its certificate was signed by {}",
                issuer_of(chain.last().unwrap_or(leaf))
            ),
            format!(
                "Something on the way opens TLS (a proxy, a firewall, a virus scanner), or this is another board. Have {} left alone by it, or join again with the command that the client's page shows.",
                board.authority()
            ),
        );
        return (vec![finding], false);
    };
    let mut findings = vec![match pins {
        Some(_) => Finding::ok(PIN, "the board that this device knows answers"),
        None => Finding::warning(
            PIN,
            format!("the CA key of who answers is {}", hex(&sha256(&spki_of(ca).unwrap_or_default()))),
            "Compare it with the pin in the join command, or say it: --pin HEX.",
        ),
    }];
    findings.extend(validity(leaf, now));
    let sound = findings.iter().all(|finding| finding.state == super::State::Ok);
    (findings, sound)
}

fn validity(leaf: &CertificateDer<'_>, now: Timestamp) -> Option<Finding> {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Some(Finding::problem(
            TLS,
            "the board's certificate can't be read",
            "Tell the board's operator.",
        ));
    };
    let seconds = now.to_datetime().unix_timestamp();
    let validity = parsed.validity();
    if seconds < validity.not_before.timestamp() {
        return Some(Finding::problem(
            CLOCK,
            format!("it is {now} here, and the board's certificate begins on {}", validity.not_before),
            "This machine's clock is behind. Switch on \"Set time and date automatically\" (System Settings, General, Date & Time).",
        ));
    }
    (seconds > validity.not_after.timestamp()).then(|| {
        Finding::problem(
            CLOCK,
            format!("it is {now} here, and the board's certificate ended on {}", validity.not_after),
            "If this machine's clock is right, tell the board's operator; else switch on \"Set time and date automatically\" (System Settings, General, Date & Time).",
        )
    })
}

async fn clock(board: &Board, now: Timestamp) -> Finding {
    match http::time_of(board).await {
        Ok(theirs) => {
            let (skew, word) =
                if theirs > now { (theirs.since(now), "behind") } else { (now.since(theirs), "ahead of") };
            if skew < SKEW {
                return Finding::ok(CLOCK, "as the board's, within two minutes");
            }
            Finding::warning(
                CLOCK,
                format!("{} minutes {word} the board's", skew.as_secs() / 60),
                "Certificates and offers are judged by the time. Switch on \"Set time and date automatically\" (System Settings, General, Date & Time).",
            )
        }
        Err(error) => Finding::problem(
            TLS,
            format!("the board was reached and did not answer: {error}"),
            "Try again; if it stays so, tell the board's operator.",
        ),
    }
}

/// The chain that the other side shows, and how the handshake ended: it always fails, nothing is ever sent.
async fn shown(stream: TcpStream) -> Result<(Vec<CertificateDer<'static>>, String), TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let witness = Arc::new(Witness {
        seen: Mutex::new(Vec::new()),
        schemes: provider.signature_verification_algorithms.supported_schemes(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(LISTENER_NAME).map_err(|_| TlsError::NoCa)?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let failure = match tokio::time::timeout(PATIENCE, handshake).await {
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(_)) => "it showed no certificate".to_owned(),
        Err(_) => format!("no answer in {} seconds", PATIENCE.as_secs()),
    };
    let chain = std::mem::take(&mut *witness.seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((chain, failure))
}

/// Looks at what is shown and believes nobody.
#[derive(Debug)]
struct Witness {
    seen: Mutex<Vec<CertificateDer<'static>>>,
    schemes: Vec<SignatureScheme>,
}

impl Witness {
    fn refusal() -> rustls::Error {
        rustls::Error::General("only looked at".to_owned())
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|shown| shown.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Err(Self::refusal())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::refusal())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::refusal())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The name of who signed it, cut: a stranger wrote it.
fn issuer_of(certificate: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| {
            parsed.issuer().to_string().chars().filter(|c| !c.is_control()).take(120).collect()
        })
        .unwrap_or_else(|_| "nobody whose name can be read".to_owned())
}
