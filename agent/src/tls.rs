//! TLS to the board: 1.3 only, and only a board whose CA is the pinned one. No way to turn any of it off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use shared::crypto::{hex, sha256};
use shared::protocol::LISTENER_NAME;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the pin is not 64 hexadecimal digits")]
    Pin,
    #[error("{0} is not the address of a board: it looks like https://board.example.com:8443")]
    Address(String),
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
    #[error("no connection to {address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("the board's certificates are not those that the pin names")]
    NoCa,
}

/// SHA-256 of the CA's SubjectPublicKeyInfo, as the page shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// In hexadecimal, as the page shows it.
impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::str::FromStr for Pin {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        let bytes =
            data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map_err(|_| TlsError::Pin)?;
        bytes.try_into().map(Self).map_err(|_| TlsError::Pin)
    }
}

/// Every authority that is believed: one, or two while the board goes over from one to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins(Vec<Pin>);

impl From<Pin> for Pins {
    fn from(pin: Pin) -> Self {
        Self(vec![pin])
    }
}

impl Pins {
    pub fn new(pin: Pin, next: Option<Pin>) -> Self {
        Self(std::iter::once(pin).chain(next).collect())
    }

    /// The one of these certificates that a pin names.
    fn find<'a>(&self, chain: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        self.0.iter().find_map(|pin| pin.find(chain))
    }
}

impl Pin {
    /// Of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(sha256(spki))
    }

    /// Of a certificate; none when it can't be read.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        spki_of(certificate).map(|spki| Self(sha256(&spki)))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn fits(&self, certificate: &CertificateDer<'_>) -> bool {
        spki_of(certificate).is_some_and(|spki| sha256(&spki) == self.0)
    }

    /// The one of these certificates that the pin names.
    fn find<'a>(&self, chain: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        chain.iter().find(|certificate| self.fits(certificate))
    }
}

/// DER of a certificate's SubjectPublicKeyInfo.
pub fn spki_of(certificate: &[u8]) -> Option<Vec<u8>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    rest.is_empty().then(|| parsed.tbs_certificate.subject_pki.raw.to_vec())
}

/// Where the board is, and how to know it.
#[derive(Clone)]
pub struct Board {
    host: String,
    port: u16,
    pins: Pins,
    config: Arc<ClientConfig>,
}

/// What a device shows of itself after it joined.
pub struct ClientIdentity<'a> {
    pub certificate: &'a [u8],
    pub key_pkcs8: &'a [u8],
}

impl Board {
    pub fn new(
        address: &str,
        pins: impl Into<Pins>,
        client: Option<ClientIdentity<'_>>,
    ) -> Result<Self, TlsError> {
        let pins = pins.into();
        let bad = || TlsError::Address(address.to_owned());
        let url = Url::parse(address).map_err(|_| bad())?;
        if url.scheme() != "https" || !matches!(url.path(), "" | "/") {
            return Err(bad());
        }
        let host = url.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let config = Arc::new(client_config(pins.clone(), client)?);
        Ok(Self { host, port, pins, config })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as the Host header and messages name it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, TlsError> {
        let failed = |error| TlsError::Connect { address: self.authority(), error };
        let name = ServerName::try_from(LISTENER_NAME).map_err(|_| TlsError::NoCa)?;
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer in 15 seconds"))),
        }
    }

    /// The CA that the board showed on this connection: the one that a pin names.
    pub fn ca_of(&self, stream: &TlsStream<TcpStream>) -> Result<Vec<u8>, TlsError> {
        let (_, connection) = stream.get_ref();
        connection
            .peer_certificates()
            .and_then(|chain| self.pins.find(chain))
            .map(|ca| ca.to_vec())
            .ok_or(TlsError::NoCa)
    }
}

fn client_config(pins: Pins, client: Option<ClientIdentity<'_>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { pins, provider }));
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => builder.with_client_auth_cert(
            vec![CertificateDer::from(client.certificate.to_vec())],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(client.key_pkcs8.to_vec())),
        )?,
    };
    // Every connection shows the certificate again: a resumed one would outlive a revocation.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Verifies as a browser would, with one root: the certificate of the presented chain that the pin names.
#[derive(Debug)]
struct PinnedCa {
    pins: Pins,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialed: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = self.pins.find(intermediates).ok_or_else(|| {
            rustls::Error::General("the board's CA is not the one that the pin names".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let name = ServerName::try_from(LISTENER_NAME)
            .map_err(|_| rustls::Error::General("the listener's name".to_owned()))?;
        verifier.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// Whether the other side ended the handshake with an alert: it doesn't like what we showed.
pub fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

#[cfg(test)]
mod tests;
