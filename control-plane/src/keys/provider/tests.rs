//! Providers that are down, slow, refuse or lie, on a listener of our own. The real servers are in the end-to-end suite
//! `providers`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde_json::Value;
use shared::ids::BoardId;
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{ManualClock, SystemClock, Timestamp};
use tokio::net::TcpListener;

use super::aws::{Kms, KmsKey};
use super::vault::{Transit, TransitKey};
use super::{Binding, Outside, Provider, ProviderError, Source};
use crate::keys::{Key, KeyError, NewVersion};

const TOKEN: &str = "s.canary-token-5c1d";
const SECRET: &str = "canary-secret-access-key-8810";

/// A provider, its environment, and what its error says.
type Case<'a> = (&'a Source, &'a [(&'a str, &'a str)], &'a str);
type Answers = Arc<dyn Fn(usize, &Asked) -> Response + Send + Sync>;

struct Asked {
    headers: axum::http::HeaderMap,
    path: String,
    body: Value,
}

#[derive(Clone)]
struct Fake {
    address: String,
    count: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Answers,
}

impl Fake {
    async fn new(answers: impl Fn(usize, &Asked) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            count: Arc::default(),
            asked: Arc::default(),
            answers: Arc::new(answers),
        };
        let routes = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        fake
    }

    fn outside(&self) -> Outside {
        outside(&self.address)
    }

    fn asked(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let asked = Asked {
        headers: parts.headers,
        path: parts.uri.path().to_owned(),
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    };
    let number = fake.count.fetch_add(1, Ordering::SeqCst);
    let response = (fake.answers)(number, &asked);
    fake.asked.lock().unwrap().push(asked);
    response
}

fn outside(address: &str) -> Outside {
    let clock = ManualClock::at(Timestamp::from_micros(1_764_000_000_000_000));
    Outside::of(
        Arc::new(clock),
        &[
            ("VAULT_ADDR", address),
            ("VAULT_TOKEN", TOKEN),
            ("AWS_ENDPOINT_URL_KMS", address),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ],
    )
}

fn both(outside: &Outside) -> [(Source, Box<dyn Provider>); 2] {
    ["vault:transit/board", "awskms:alias/board"].map(|uri| {
        let source: Source = uri.parse().unwrap();
        let provider = source.open(outside).unwrap();
        (source, provider)
    })
}

fn binding() -> Binding {
    Binding { board_id: BoardId::new(&SystemClock, &SystemRandom), version: 1 }
}

fn root() -> Key {
    Secret::new([0xa7; 32])
}

fn json(status: u16, body: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.to_owned()).into_response()
}

/// The message names the provider, and holds nothing that is secret.
fn checked(source: &Source, error: &ProviderError) -> String {
    let said = error.to_string();
    assert!(said.contains(&source.to_string()), "{said}");
    let hidden = [TOKEN.to_owned(), SECRET.to_owned(), BASE64.encode(root().expose())];
    let debug = format!("{error:?}");
    assert!(!hidden.iter().any(|secret| said.contains(secret) || debug.contains(secret)), "{said} {debug}");
    said
}

#[tokio::test]
async fn a_provider_that_is_down_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for (source, provider) in both(&outside(&address)) {
        let error = provider.unwrap(binding(), b"wrapped").await.unwrap_err();
        assert!(matches!(error, ProviderError::Unreachable { .. }), "{error}");
        let said = checked(&source, &error);
        assert!(said.contains("refused") && said.contains("try again"), "{said}");
    }
}

#[tokio::test]
async fn a_slow_provider_is_given_up_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outside = outside(&format!("http://{}", listener.local_addr().unwrap()));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    let short = Duration::from_millis(300);
    let transit =
        Transit::open(&TransitKey::parse("transit/board").unwrap(), &outside).unwrap().within(short);
    let kms = Kms::open(&KmsKey::parse("alias/board").unwrap(), &outside).unwrap().within(short);
    for provider in [&transit as &dyn Provider, &kms] {
        count.store(0, Ordering::SeqCst);
        let started = Instant::now();
        let error = provider.wrap(binding(), &root(), &SystemRandom).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert_eq!(count.load(Ordering::SeqCst), 1, "a slow provider isn't asked again");
    }
}

#[tokio::test]
async fn passing_trouble_is_tried_three_times_and_no_other() {
    for (status, body, tries) in [
        (503, "{}", 3),
        (500, "{}", 3),
        (429, "{}", 3),
        (403, r#"{"errors":["permission denied"],"__type":"AccessDeniedException"}"#, 1),
        (404, r#"{"errors":[],"__type":"NotFoundException","message":"no key"}"#, 1),
    ] {
        let fake = Fake::new(move |_, _| json(status, body)).await;
        for (source, provider) in both(&fake.outside()) {
            fake.count.store(0, Ordering::SeqCst);
            let error = provider.unwrap(binding(), b"wrapped").await.unwrap_err();
            assert_eq!(fake.asked(), tries, "{status}: {error}");
            assert_eq!(matches!(error, ProviderError::Unreachable { .. }), tries == 3, "{status}: {error}");
            checked(&source, &error);
        }
    }
}

#[tokio::test]
async fn what_passes_by_the_third_try_is_no_failure() {
    let wrapped = r#"{"data":{"ciphertext":"vault:v1:AAAA"},"CiphertextBlob":"AAAA"}"#;
    let fake = Fake::new(move |number, _| match number % 3 {
        0 => json(503, "{}"),
        1 => json(400, r#"{"__type":"ThrottlingException"}"#),
        _ => json(200, wrapped),
    })
    .await;
    let kms = Source::open(&"awskms:alias/board".parse().unwrap(), &fake.outside()).unwrap();
    assert_eq!(kms.wrap(binding(), &root(), &SystemRandom).await.unwrap(), [0, 0, 0]);
    assert_eq!(fake.asked(), 3);
    let fake =
        Fake::new(move |number, _| if number < 2 { json(503, "{}") } else { json(200, wrapped) }).await;
    let vault = Source::open(&"vault:transit/board".parse().unwrap(), &fake.outside()).unwrap();
    assert_eq!(vault.wrap(binding(), &root(), &SystemRandom).await.unwrap(), b"vault:v1:AAAA");
    assert_eq!(fake.asked(), 3);
}

#[tokio::test]
async fn a_refusal_says_which_right_is_missing() {
    let body = r#"{"errors":["1 error occurred: permission denied"],"__type":"AccessDeniedException","Message":"User is not authorized"}"#;
    let fake = Fake::new(move |_, asked| json(if asked.path == "/" { 400 } else { 403 }, body)).await;
    let [(vault, transit), (aws, kms)] = both(&fake.outside());
    let said = checked(&vault, &transit.unwrap(binding(), b"wrapped").await.unwrap_err());
    assert!(
        said.contains("permission denied") && said.contains("`update` on transit/decrypt/board"),
        "{said}"
    );
    let said = checked(&aws, &kms.unwrap(binding(), b"wrapped").await.unwrap_err());
    assert!(said.contains("not authorized") && said.contains("kms:Decrypt"), "{said}");
}

#[tokio::test]
async fn only_a_ciphertext_of_another_key_is_taken_for_one() {
    for (said, other_key, expected) in [
        ("cipher: message authentication failed", true, ""),
        ("invalid ciphertext: no prefix", true, ""),
        ("invalid ciphertext: version is too new", true, ""),
        ("encryption key not found", false, "encryption key not found"),
        (
            "ciphertext or signature version is disallowed by policy (too old)",
            false,
            "Lower `min_decryption_version` of transit/keys/board",
        ),
    ] {
        let body = serde_json::json!({ "errors": [said] }).to_string();
        let fake = Fake::new(move |_, _| json(400, &body)).await;
        let [(vault, transit), _] = both(&fake.outside());
        let error = transit.unwrap(binding(), b"vault:v1:AAAA").await.unwrap_err();
        assert_eq!(matches!(error, ProviderError::Unwrap), other_key, "{said}: {error}");
        if !other_key {
            let shown = checked(&vault, &error);
            assert!(shown.contains(expected) && shown.contains(said), "{shown}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_refused_without_repeating_it() {
    for body in [
        "",
        "[]",
        "<html>canary-page</html>",
        r#"{"data":{},"x":"canary-page"}"#,
        "{\"data\":{\"plaintext\":\"%%%\"},\"Plaintext\":\"%%%\"}",
    ] {
        let fake = Fake::new(move |_, _| json(200, body)).await;
        for (source, provider) in both(&fake.outside()) {
            let error = provider.unwrap(binding(), b"wrapped").await.unwrap_err();
            assert!(matches!(error, ProviderError::Answer { .. }), "{body}: {error}");
            assert!(!checked(&source, &error).contains("canary-page"), "{error}");
        }
    }
    let long = "x".repeat(100_000);
    let fake = Fake::new(move |_, _| json(200, &long)).await;
    for (_, provider) in both(&fake.outside()) {
        let error = provider.unwrap(binding(), b"wrapped").await.unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}

#[tokio::test]
async fn another_key_than_the_one_that_was_wrapped_is_never_used() {
    let other = BASE64.encode(&[1; 32]);
    let short = BASE64.encode(&[1; 16]);
    for (plain, short) in [(other, false), (short, true)] {
        let body = format!(
            r#"{{"data":{{"ciphertext":"vault:v1:AAAA","plaintext":"{plain}"}},"CiphertextBlob":"AAAA","Plaintext":"{plain}"}}"#
        );
        let fake = Fake::new(move |_, _| json(200, &body)).await;
        for (source, provider) in both(&fake.outside()) {
            let made = NewVersion::make(&source, &*provider, binding().board_id, 1, &SystemRandom)
                .await
                .unwrap_err();
            let refused = if short {
                matches!(made, KeyError::Provider(ProviderError::Unwrap))
            } else {
                matches!(made, KeyError::WrongKey { .. })
            };
            assert!(refused, "{made}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_binds_nothing_is_refused() {
    let kept = Arc::new(Mutex::new(String::new()));
    let fake = Fake::new(move |_, asked| {
        let mut kept = kept.lock().unwrap();
        if let Some(plain) = asked.body["plaintext"].as_str().or_else(|| asked.body["Plaintext"].as_str()) {
            plain.clone_into(&mut kept);
        }
        let body = serde_json::json!({
            "data": { "ciphertext": "vault:v1:AAAA", "plaintext": &*kept },
            "CiphertextBlob": "AAAA",
            "Plaintext": &*kept,
        });
        json(200, &body.to_string())
    })
    .await;
    for (source, provider) in both(&fake.outside()) {
        let made =
            NewVersion::make(&source, &*provider, binding().board_id, 1, &SystemRandom).await.unwrap_err();
        assert!(made.to_string().contains("derived=true"), "{made}");
    }
}

#[tokio::test]
async fn requests_are_signed_or_carry_the_token_and_redirects_are_not_followed() {
    let fake = Fake::new(|_, _| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")], String::new()).into_response()
    })
    .await;
    let binding = binding();
    for (_, provider) in both(&fake.outside()) {
        let error = provider.unwrap(binding, b"vault:v1:AAAA").await.unwrap_err();
        assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
    }
    let asked = fake.asked.lock().unwrap();
    let [vault, aws] = asked.as_slice() else { panic!("one request each") };
    assert_eq!(vault.path, "/v1/transit/decrypt/board");
    assert_eq!(vault.headers["x-vault-token"], TOKEN);
    assert!(!vault.body["context"].as_str().unwrap().is_empty());
    let signature = aws.headers["authorization"].to_str().unwrap();
    let scope =
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251124/eu-central-1/kms/aws4_request, SignedHeaders=";
    assert!(signature.starts_with(scope), "{signature}");
    for header in ["host", "x-amz-date", "x-amz-target"] {
        assert!(signature.contains(header), "{signature}");
    }
    assert_eq!(aws.headers["x-amz-target"], "TrentService.Decrypt");
    assert_eq!(aws.body["EncryptionContext"]["board"], binding.board_id.to_string());
    assert_eq!(aws.body["EncryptionContext"]["root-version"], "1");
}

#[tokio::test]
async fn a_machines_role_gives_credentials_and_a_missing_one_says_what_to_set() {
    let fake = Fake::new(|_, asked| match asked.path.as_str() {
        "/latest/api/token" => json(200, "machine-token"),
        "/latest/meta-data/iam/security-credentials/"
            if asked.headers["x-aws-ec2-metadata-token"] == "machine-token" =>
        {
            json(200, "board-role")
        }
        "/latest/meta-data/iam/security-credentials/board-role" => {
            json(200, r#"{"AccessKeyId":"ASIAROLE","SecretAccessKey":"s","Token":"session-token"}"#)
        }
        "/" => json(200, r#"{"CiphertextBlob":"AAAA"}"#),
        _ => json(404, ""),
    })
    .await;
    let clock = Arc::new(SystemClock);
    let source: Source =
        format!("awskms:alias/board?region=eu-west-1&endpoint={}", fake.address).parse().unwrap();
    let outside = Outside::of(clock.clone(), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &fake.address)]);
    source.open(&outside).unwrap().wrap(binding(), &root(), &SystemRandom).await.unwrap();
    let last = fake.asked.lock().unwrap().pop().unwrap();
    assert_eq!(last.headers["x-amz-security-token"], "session-token");
    assert!(last.headers["authorization"].to_str().unwrap().contains("Credential=ASIAROLE/"));
    let outside = Outside::of(clock, &[("AWS_EC2_METADATA_DISABLED", "true")]);
    let error = source.open(&outside).unwrap().wrap(binding(), &root(), &SystemRandom).await.unwrap_err();
    assert!(error.to_string().contains("set AWS_ACCESS_KEY_ID"), "{error}");
}

#[test]
fn what_is_missing_in_the_environment_is_named_before_anything_is_sent() {
    let vault: Source = "vault:transit/board".parse().unwrap();
    let aws: Source = "awskms:alias/board".parse().unwrap();
    let remote = "http://vault.example.com:8200";
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().display().to_string();
    let cases: [Case<'_>; 6] = [
        (&vault, &[], "VAULT_ADDR isn't set"),
        (&vault, &[("VAULT_ADDR", "vault:8200")], "VAULT_ADDR is not an address"),
        (&vault, &[("VAULT_ADDR", remote), ("VAULT_TOKEN", TOKEN)], "use https"),
        (&vault, &[("VAULT_ADDR", "https://vault.example.com"), ("HOME", &home)], ".vault-token"),
        (&aws, &[], "AWS_REGION"),
        (
            &aws,
            &[("AWS_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL_KMS", "http://kms.example.com")],
            "use https",
        ),
    ];
    for (source, variables, expected) in cases {
        let error = source.open(&Outside::of(Arc::new(SystemClock), variables)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    std::fs::write(folder.path().join(".vault-token"), "s.from-a-file\n").unwrap();
    let variables = [("VAULT_ADDR", "https://vault.example.com"), ("HOME", home.as_str())];
    vault.open(&Outside::of(Arc::new(SystemClock), &variables)).unwrap();
}
