use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

fn pin_of(ca: &Ca) -> Pin {
    Pin(sha256(&ca.key().subject_public_key_info()))
}

/// A listener that shows a leaf signed by `signer` and the certificate of `shown`. Answers every connection with one byte.
async fn listener(signer: &Ca, shown: &Ca, name: &str) -> String {
    let leaf_key = key();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&leaf_key, signer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone(), shown.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der())),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"!").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}

async fn try_connect(address: &str, pin: Pin) -> Result<Vec<u8>, TlsError> {
    let board = Board::new(address, pin, None)?;
    let mut stream = board.connect().await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    board.ca_of(&stream)
}

#[tokio::test]
async fn the_pinned_board_is_believed_whatever_its_address() {
    let ca = ca();
    let address = listener(&ca, &ca, LISTENER_NAME).await;
    assert_eq!(try_connect(&address, pin_of(&ca)).await.unwrap(), ca.der().to_vec());
}

#[tokio::test]
async fn another_ca_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let address = listener(&theirs, &theirs, LISTENER_NAME).await;
    assert!(matches!(try_connect(&address, pin_of(&ours)).await, Err(TlsError::Connect { .. })));
}

#[tokio::test]
async fn showing_the_pinned_ca_beside_a_leaf_of_another_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let address = listener(&theirs, &ours, LISTENER_NAME).await;
    assert!(matches!(try_connect(&address, pin_of(&ours)).await, Err(TlsError::Connect { .. })));
}

#[tokio::test]
async fn a_leaf_with_another_name_is_refused() {
    let ca = ca();
    let address = listener(&ca, &ca, "127.0.0.1").await;
    assert!(matches!(try_connect(&address, pin_of(&ca)).await, Err(TlsError::Connect { .. })));
}

#[test]
fn only_an_address_of_a_board_is_taken() {
    let pin = Pin([0; 32]);
    for bad in ["http://board:1", "board:1", "https://", "https://board:1/path", ""] {
        assert!(matches!(Board::new(bad, pin, None), Err(TlsError::Address(_))), "{bad}");
    }
    assert_eq!(Board::new("https://[::1]:8443", pin, None).unwrap().authority(), "[::1]:8443");
    assert!("12".parse::<Pin>().is_err());
    assert!("AB".repeat(32).parse::<Pin>().is_ok());
}

#[test]
fn a_full_door_says_nothing_about_the_certificate() {
    let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
    for about_it in
        [AlertDescription::CertificateExpired, AlertDescription::UnknownCA, AlertDescription::BadCertificate]
    {
        assert!(is_alert(&alert(about_it)), "{about_it:?}");
    }
    assert!(!is_alert(&alert(AlertDescription::AccessDenied)));
    assert!(!is_alert(&io::Error::other("broken")));
}
