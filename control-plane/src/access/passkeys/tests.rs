use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use shared::crypto::sha256;
use shared::secret::Secret;

use super::{PasskeyError, Purpose, Question, ask, of_user, register, remove, require, sign_in, step_up};
use crate::access::{self, AccessError, STEP_UP_TTL, Visitor, session_hash, session_of};
use crate::audit::{self, Action, Who};
use crate::db::testing::on_both;
use crate::testing::Fixture;

const EMAIL: &str = "consultant@example.com";
const ACCOUNT: &str = "/account/passkeys";
const ORIGIN: &str = "http://board.test";

/// An authenticator in software: one ES256 key (RFC 9053) with its counter, as WebAuthn level 3 section 6 lays its data out.
pub struct Authenticator {
    key: KeyPair,
    id: [u8; 16],
    pub counter: u32,
    /// Whose passkey it is, as the board named them when it was registered.
    handle: String,
    pub verifies: bool,
}

impl Authenticator {
    pub fn new(id: u8) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { key, id: [id; 16], counter: 0, handle: String::new(), verifies: true }
    }

    fn data(&mut self, attested: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let flags = 1 | if self.verifies { 4 } else { 0 } | if attested.is_empty() { 0 } else { 64 };
        [&sha256(b"board.test")[..], &[flags], &self.counter.to_be_bytes(), attested].concat()
    }

    fn client(kind: &str, options: &Value) -> Vec<u8> {
        let client = json!({ "type": kind, "challenge": options["challenge"], "origin": ORIGIN });
        serde_json::to_vec(&client).unwrap()
    }

    fn answer(&self, question: &Question, response: Value) -> String {
        let id = BASE64URL_NOPAD.encode(&self.id);
        let credential = json!({
            "id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {},
        });
        json!({ "id": question.id, "credential": credential }).to_string()
    }

    pub fn create(&mut self, question: &Question) -> String {
        self.handle = question.options["user"]["id"].as_str().unwrap().to_owned();
        let public = self.key.public_key_raw().to_vec();
        let (x, y) = public[1..].split_at(32);
        let cose = [&[0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32], x, &[0x22, 0x58, 32], y].concat();
        let data = self.data(&[&[0; 16][..], &[0, 16], &[self.id[0]; 16], &cose].concat());
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        let object = [&b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59"[..], &length, &data].concat();
        let client = Self::client("webauthn.create", &question.options);
        self.answer(
            question,
            json!({
                "attestationObject": BASE64URL_NOPAD.encode(&object),
                "clientDataJSON": BASE64URL_NOPAD.encode(&client),
            }),
        )
    }

    pub fn get(&mut self, question: &Question) -> String {
        let data = self.data(&[]);
        let client = Self::client("webauthn.get", &question.options);
        let signature = self.key.sign(&[&data[..], &sha256(&client)].concat()).unwrap();
        self.answer(
            question,
            json!({
                "authenticatorData": BASE64URL_NOPAD.encode(&data),
                "clientDataJSON": BASE64URL_NOPAD.encode(&client),
                "signature": BASE64URL_NOPAD.encode(&signature),
                "userHandle": self.handle,
            }),
        )
    }
}

/// Somebody at a browser of this session, or at none.
pub async fn visitor(fixture: &Fixture, session: Option<&Secret<String>>) -> Visitor {
    let app = &fixture.app;
    let hash = match session {
        Some(token) => Some(session_hash(app, token.expose()).await.unwrap()),
        None => None,
    };
    let living = match &hash {
        Some(hash) => session_of(app, hash).await.unwrap(),
        None => None,
    };
    Visitor {
        fresh: living.as_ref().is_some_and(|session| session.is_fresh(app.now())),
        user: living.map(|session| session.user),
        token: None,
        session: hash,
        address: "192.0.2.1".into(),
        host: "board.test".into(),
        secure: false,
        pending: 0,
        approvals: 0,
        frozen: false,
        now: app.now(),
    }
}

async fn signed_in(fixture: &Fixture) -> Visitor {
    let password = Secret::new("a long test passphrase".to_owned());
    let token = access::sign_in(&fixture.app, EMAIL, &password, "192.0.2.1").await.unwrap();
    visitor(fixture, Some(&token)).await
}

async fn registered(fixture: &Fixture, visitor: &Visitor, id: u8) -> Authenticator {
    let mut key = Authenticator::new(id);
    let question = ask(&fixture.app, visitor, Purpose::Register, ACCOUNT).await.unwrap();
    register(&fixture.app, visitor, ACCOUNT, "a laptop", &key.create(&question)).await.unwrap();
    key
}

async fn last(fixture: &Fixture) -> Action {
    let mut tx = fixture.app.db.read().await.unwrap();
    audit::page(&mut tx, None, 1).await.unwrap()[0].entry.action
}

#[tokio::test]
async fn a_passkey_signs_in_once_for_each_question() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let owner = signed_in(&fixture).await;
        let mut key = registered(&fixture, &owner, 1).await;
        assert_eq!(last(&fixture).await, Action::PasskeyRegistered);
        let nobody = visitor(&fixture, None).await;
        let question = ask(app, &nobody, Purpose::SignIn, "").await.unwrap();
        let answer = key.get(&question);
        let token = sign_in(app, &nobody, &answer).await.unwrap();
        let back = visitor(&fixture, Some(&token)).await;
        assert_eq!(back.user, owner.user);
        assert!(back.fresh, "signing in counts as a step-up");
        assert_eq!(last(&fixture).await, Action::SignedIn);
        assert!(matches!(sign_in(app, &nobody, &answer).await, Err(PasskeyError::Over)), "used once");
        let late = ask(app, &nobody, Purpose::SignIn, "").await.unwrap();
        fixture.clock.advance(Duration::from_secs(301));
        assert!(matches!(sign_in(app, &nobody, &key.get(&late)).await, Err(PasskeyError::Over)));
        let listed = of_user(&mut app.db.read().await.unwrap(), fixture.user).await.unwrap();
        assert!(listed.len() == 1 && listed[0].last_used_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_copied_passkey_an_unverified_and_a_strange_one_are_refused_and_in_the_log() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let owner = signed_in(&fixture).await;
        let mut key = registered(&fixture, &owner, 1).await;
        let nobody = visitor(&fixture, None).await;
        key.counter = 10;
        let question = ask(app, &nobody, Purpose::SignIn, "").await.unwrap();
        sign_in(app, &nobody, &key.get(&question)).await.unwrap();
        key.counter = 10;
        let question = ask(app, &nobody, Purpose::SignIn, "").await.unwrap();
        let cloned = sign_in(app, &nobody, &key.get(&question)).await;
        assert!(matches!(cloned, Err(PasskeyError::Cloned)));
        assert_eq!(last(&fixture).await, Action::PasskeyCloned);
        key.verifies = false;
        let question = ask(app, &nobody, Purpose::SignIn, "").await.unwrap();
        assert!(matches!(sign_in(app, &nobody, &key.get(&question)).await, Err(PasskeyError::Refused)));
        assert_eq!(last(&fixture).await, Action::SignInRefused);
        let mut strange = Authenticator::new(1);
        strange.handle = key.handle.clone();
        strange.counter = 50;
        let question = ask(app, &nobody, Purpose::SignIn, "").await.unwrap();
        assert!(matches!(sign_in(app, &nobody, &strange.get(&question)).await, Err(PasskeyError::Refused)));
    })
    .await;
}

#[tokio::test]
async fn a_step_up_is_bound_to_its_session_and_its_form() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let (owner, other) = (signed_in(&fixture).await, signed_in(&fixture).await);
        let none = ask(app, &owner, Purpose::StepUp, "/users").await;
        assert!(matches!(none, Err(PasskeyError::NoneYet)));
        let mut key = registered(&fixture, &owner, 1).await;
        fixture.clock.advance(STEP_UP_TTL);
        let question = ask(app, &owner, Purpose::StepUp, "/users").await.unwrap();
        let answer = key.get(&question);
        assert!(matches!(step_up(app, &other, "/users", &answer).await, Err(PasskeyError::Over)));
        assert!(matches!(step_up(app, &owner, "/tokens", &answer).await, Err(PasskeyError::Over)));
        step_up(app, &owner, "/users", &answer).await.unwrap();
        assert_eq!(last(&fixture).await, Action::SteppedUp);
        assert!(matches!(step_up(app, &owner, "/users", &answer).await, Err(PasskeyError::Over)));
        let hash = owner.session.as_ref().unwrap();
        assert!(session_of(app, hash).await.unwrap().unwrap().is_fresh(app.now()));
        let hash = other.session.as_ref().unwrap();
        assert!(!session_of(app, hash).await.unwrap().unwrap().is_fresh(app.now()));
    })
    .await;
}

#[tokio::test]
async fn where_passkeys_are_required_a_link_is_the_way_back_in() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let app = &fixture.app;
        let owner = signed_in(&fixture).await;
        let mut tx = app.db.write().await.unwrap();
        let who = || Who::user(EMAIL, "192.0.2.1");
        let early = require(&mut tx, who(), Some(fixture.user), true, app.now()).await;
        assert!(matches!(early, Err(PasskeyError::OwnFirst)));
        drop(tx);
        registered(&fixture, &owner, 1).await;
        let mut tx = app.db.write().await.unwrap();
        require(&mut tx, who(), Some(fixture.user), true, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(last(&fixture).await, Action::PasskeysRequired);
        let password = Secret::new("a long test passphrase".to_owned());
        let refused = access::sign_in(app, EMAIL, &password, "192.0.2.1").await;
        assert!(matches!(refused, Err(AccessError::PasskeyNeeded)));
        assert!(matches!(access::step_up(app, &owner, &password).await, Err(AccessError::PasskeyNeeded)));
        let only = of_user(&mut app.db.read().await.unwrap(), fixture.user).await.unwrap()[0].id;
        assert!(matches!(remove(app, &owner, only).await, Err(PasskeyError::LastOne)));

        let mut tx = app.db.write().await.unwrap();
        let link = access::new_link(&mut tx, &app.root, &*app.clock, &*app.random, EMAIL).await.unwrap();
        tx.commit().await.unwrap();
        let by_password = access::accept_link(app, link.expose(), &password, "192.0.2.1").await;
        assert!(matches!(by_password, Err(AccessError::PasskeyNeeded)));
        let nobody = visitor(&fixture, None).await;
        let at = format!("/welcome/{}/passkey", link.expose());
        let mut found = Authenticator::new(2);
        let question = ask(app, &nobody, Purpose::Register, &at).await.unwrap();
        let answer = found.create(&question);
        let token = register(app, &nobody, &at, "a phone", &answer).await.unwrap().unwrap();
        let back = visitor(&fixture, Some(&token)).await;
        assert_eq!(back.user, owner.user);
        assert!(visitor(&fixture, None).await.user.is_none());
        let over = ask(app, &nobody, Purpose::Register, &at).await;
        assert!(matches!(over, Err(PasskeyError::LinkOver)));
        remove(app, &back, only).await.unwrap();
        assert_eq!(last(&fixture).await, Action::PasskeyRemoved);
    })
    .await;
}

#[tokio::test]
async fn passkeys_belong_to_the_consoles_own_address() {
    on_both(|db| async move {
        let fixture = Fixture::new(db).await;
        let mut elsewhere = visitor(&fixture, None).await;
        elsewhere.host = "127.0.0.1:8080".into();
        let refused = ask(&fixture.app, &elsewhere, Purpose::SignIn, "").await.err().unwrap();
        assert!(refused.to_string().contains("http://board.test only"), "{refused}");
    })
    .await;
}
