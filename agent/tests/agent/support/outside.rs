//! The outside in this process: one HTTPS server that plays every provider, and counts what it is asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::outbound::{Outbound, StandIn};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

const HOSTS: [&str; 3] = ["api.example.com", "files.example.com", "acme.shops.example.com"];

pub struct Outside {
    pub address: std::net::SocketAddr,
    /// PEM of the authority that signed its certificate.
    pub ca: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    greeted: Arc<Mutex<Vec<String>>>,
}

/// A request, as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

pub enum Reply {
    /// Status, headers, body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A body that ends before its announced length.
    CutShort(Vec<u8>),
    Silence,
}

impl Reply {
    pub fn json(status: u16, text: &str) -> Self {
        Self::Whole(status, vec![("Content-Type", "application/json".to_owned())], text.into())
    }

    pub fn redirect(to: &str) -> Self {
        Self::Whole(302, vec![("Location", to.to_owned())], Vec::new())
    }

    pub fn file(content: &[u8]) -> Self {
        Self::Whole(200, Vec::new(), content.to_vec())
    }
}

impl Outside {
    pub async fn start(folder: &Path, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
        let ca = folder.join("outside.pem");
        let der = shared::crypto::base64::encode(authority.der());
        std::fs::write(&ca, format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"))
            .unwrap();
        let leaf_key = key();
        let names = HOSTS.map(str::to_owned).to_vec();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&leaf_key, &authority).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![leaf.der().clone()],
                    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der())),
                )
                .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let greeted = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&greeted);
        let (kept, reply) = (Arc::clone(&asked), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, names) = (Arc::clone(&config), Arc::clone(&names));
                let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
                tokio::spawn(async move {
                    let Ok(start) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else {
                        return;
                    };
                    // Before the certificate is looked at: who gives up over that has come all the same.
                    let name = start.client_hello().server_name().unwrap_or_default().to_owned();
                    names.lock().unwrap().push(name);
                    if let Ok(stream) = start.into_stream(config).await {
                        serve(stream, &kept, &*reply).await;
                    }
                });
            }
        });
        Self { address, ca, asked, greeted }
    }

    pub fn outbound(&self) -> Outbound {
        Outbound::through(StandIn::new(self.address, Some(&self.ca)).unwrap())
    }

    /// The host of every connection so far, as the client named it.
    pub fn greeted(&self) -> Vec<String> {
        self.greeted.lock().unwrap().clone()
    }

    /// What it was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    kept: &Mutex<Vec<Asked>>,
    reply: &(impl Fn(&Asked) -> Reply + Sync),
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let asked = Asked { line, headers };
    kept.lock().unwrap().push(asked.clone());
    let (status, headers, body, announced) = match reply(&asked) {
        Reply::Whole(status, headers, body) => {
            let announced = body.len();
            (status, headers, body, announced)
        }
        Reply::CutShort(body) => {
            let announced = body.len() + 1;
            (200, Vec::new(), body, announced)
        }
        Reply::Silence => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return None;
        }
    };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{headers}Content-Length: {announced}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&body).await.ok()?;
    stream.shutdown().await.ok()
}
