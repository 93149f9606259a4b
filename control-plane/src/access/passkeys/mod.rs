//! Passkeys (WebAuthn level 3): signing in, and proving again that it is the same person. The authenticator always checks
//! who holds it (a PIN, a finger); no attestation is asked for. A challenge is a row that one session or link may answer, once.

mod store;
#[cfg(test)]
pub mod tests;
pub mod views;
pub mod web;

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use shared::ids::{ChallengeId, PasskeyId, UserId};
use shared::secret::Secret;
use shared::text_enum;
use shared::time::Timestamp;
use url::{Host, Url};
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PasskeyAuthentication, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, Uuid, WebauthnError,
};
use webauthn_rs::{Webauthn, WebauthnBuilder};

use super::{Throttle, Visitor, find_link, session};
use crate::app::App;
use crate::audit::{self, Action, AuditError, Entry, Who};
use crate::db::Tx;
use crate::error::Failure;
use crate::free_text::{self, FreeTextError};

/// How long a challenge may be answered: as long as a browser waits.
const CHALLENGE_TTL: Duration = Duration::from_secs(300);
/// Challenges are rows that anybody may ask for. A limit for everybody together would let a stranger lock everybody out.
const ASKED: Throttle =
    Throttle { bucket: "passkey", per_source: 300, in_total: i64::MAX, window: Duration::from_secs(900) };
/// Passkeys of one user.
const MOST: usize = 20;

text_enum! {
    pub enum Purpose {
        SignIn = "sign-in",
        StepUp = "step-up",
        Register = "register",
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    #[error(
        "Passkeys need the console's address, and this board doesn't know it. The operator starts it with --console-url https://…; sign in with your password."
    )]
    NoAddress,
    #[error("Passkeys work at {0} only, because they belong to that name. Open the board there.")]
    Elsewhere(String),
    #[error(
        "The browser's question was answered already, or five minutes went by. Nothing was done. Try again."
    )]
    Over,
    #[error(
        "This passkey was not accepted. Nothing was done. Use another one, or ask the operator for a one-time link."
    )]
    Refused,
    #[error(
        "This passkey may have been copied: its counter went back. It was refused, and the audit log has it. Remove it and register another one."
    )]
    Cloned,
    #[error("Passkeys need JavaScript and a current browser. Nothing was done.")]
    Unreadable,
    #[error("Give the passkey a name of up to 60 characters, such as the device it is on.")]
    NoName,
    #[error(transparent)]
    Name(#[from] FreeTextError),
    #[error("You have {MOST} passkeys, which is the most. Remove one first.")]
    Many,
    #[error(
        "This is your last passkey, and you couldn't sign in without it. Register another one first. Nothing was removed."
    )]
    LastOne,
    #[error("There is no such passkey of yours.")]
    Unknown,
    #[error("You have no passkey yet. Use your password.")]
    NoneYet,
    #[error(
        "Register a passkey of your own first: who requires passkeys and has none locks themselves out. Nothing was changed."
    )]
    OwnFirst,
    #[error("Too many passkeys were asked for from here. Wait a quarter of an hour, or use your password.")]
    TooMany,
    #[error("This link was used already, or its day is over. Ask the operator for another one.")]
    LinkOver,
    #[error("Sign in first. Your session is over.")]
    NoSession,
    #[error("a passkey could not be read or written")]
    Broken(#[source] anyhow::Error),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<PasskeyError> for Failure {
    fn from(error: PasskeyError) -> Self {
        use PasskeyError as E;
        let text = error.to_string();
        match error {
            E::NoAddress | E::Elsewhere(_) => Self::conflict("passkey-address", "No passkeys here", text),
            E::Over => Self::conflict("passkey-over", "Try again", text),
            E::Refused | E::Cloned => Self::new(401, "passkey-refused", "Not accepted", text),
            E::Unreadable | E::NoName | E::Name(_) => Self::invalid("passkey", "Nothing was saved", text),
            E::Many | E::LastOne | E::NoneYet | E::OwnFirst => {
                Self::conflict("passkey", "Nothing was changed", text)
            }
            E::Unknown => Self::not_found("passkey"),
            E::TooMany => Self::new(429, "too-many-tries", "Wait a little", text),
            E::LinkOver => Self::new(410, "link-over", "This link is over", text),
            E::NoSession => Self::new(401, "sign-in", "Sign in first", text),
            E::Broken(error) => Self::internal(error),
            E::Audit(error) => error.into(),
            E::Database(error) => error.into(),
        }
    }
}

fn broken(error: impl Into<anyhow::Error>) -> PasskeyError {
    PasskeyError::Broken(error.into())
}

/// The name and origin that passkeys belong to: the console's address. A browser takes names only, never IP addresses.
fn relying_party(app: &App, visitor: &Visitor) -> Result<Webauthn, PasskeyError> {
    let url = app.console_url.get().ok_or(PasskeyError::NoAddress)?;
    let Some(Host::Domain(name)) = url.host() else { return Err(PasskeyError::NoAddress) };
    let here = Url::parse(&visitor.board()).ok();
    if here.is_none_or(|here| here.origin() != url.origin()) {
        return Err(PasskeyError::Elsewhere(url.origin().ascii_serialization()));
    }
    WebauthnBuilder::new(name, url).and_then(|builder| builder.rp_name("Board").build()).map_err(broken)
}

/// Whom a challenge is for. Only the same may answer it, at the same address.
struct Asker {
    binding: Vec<u8>,
    user: Option<(UserId, String)>,
}

const WELCOME: &str = "/welcome/";

/// The token in the address of a link's form.
fn link_in(at: &str) -> Option<&str> {
    at.strip_prefix(WELCOME)?.strip_suffix("/passkey")
}

async fn asker(
    app: &App,
    tx: &mut Tx,
    visitor: &Visitor,
    (purpose, at): (Purpose, &str),
) -> Result<Asker, PasskeyError> {
    let bound = |hash: &[u8]| [hash, at.as_bytes()].concat();
    if purpose == Purpose::SignIn {
        return Ok(Asker { binding: b"sign-in".to_vec(), user: None });
    }
    if let (Purpose::Register, Some(token)) = (purpose, link_in(at)) {
        let link = find_link(app, tx, token).await?.ok_or(PasskeyError::LinkOver)?;
        // The token is in the address: its hash stands for it.
        return Ok(Asker { binding: link.hash, user: Some((link.user_id, link.email)) });
    }
    match (&visitor.session, &visitor.user) {
        (Some(hash), Some(user)) => {
            Ok(Asker { binding: bound(hash), user: Some((user.id, user.email.clone())) })
        }
        (_, _) => Err(PasskeyError::NoSession),
    }
}

/// What a browser is asked: the challenge's id, and the options of its call.
#[derive(serde::Serialize)]
pub struct Question {
    pub id: ChallengeId,
    pub options: serde_json::Value,
}

/// Makes a challenge. `at` is the address that the answer will be posted to.
pub async fn ask(app: &App, visitor: &Visitor, purpose: Purpose, at: &str) -> Result<Question, PasskeyError> {
    let party = relying_party(app, visitor)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    if !ASKED.allows(&mut tx, &visitor.address, now).await? {
        return Err(PasskeyError::TooMany);
    }
    ASKED.record(&mut tx, &visitor.address, now).await?;
    let asker = asker(app, &mut tx, visitor, (purpose, at)).await?;
    let known = match &asker.user {
        Some((user, _)) => passkeys(&store::of_user(&mut tx, *user).await?)?,
        None => Vec::new(),
    };
    let (mut options, state) = match (purpose, &asker.user) {
        (Purpose::Register, Some((user, email))) => {
            let known = known.iter().map(|passkey| passkey.cred_id().clone()).collect();
            let id = Uuid::from_bytes(*user.as_bytes());
            let (options, state) =
                party.start_passkey_registration(id, email, email, Some(known)).map_err(broken)?;
            (serde_json::to_value(options).map_err(broken)?, serde_json::to_string(&state))
        }
        (Purpose::StepUp, Some(_)) => {
            if known.is_empty() {
                return Err(PasskeyError::NoneYet);
            }
            let (options, state) = party.start_passkey_authentication(&known).map_err(broken)?;
            (serde_json::to_value(options).map_err(broken)?, serde_json::to_string(&state))
        }
        (_, _) => {
            let (options, state) = party.start_discoverable_authentication().map_err(broken)?;
            (serde_json::to_value(options).map_err(broken)?, serde_json::to_string(&state))
        }
    };
    let mut options = options["publicKey"].take();
    if purpose == Purpose::Register {
        // Signing in asks for no email address: the authenticator has to find the passkey by itself.
        options["authenticatorSelection"]["residentKey"] = "required".into();
        options["authenticatorSelection"]["requireResidentKey"] = true.into();
    }
    let id = ChallengeId::new(&*app.clock, &*app.random);
    let state = state.map_err(broken)?;
    store::forget_challenges(&mut tx, now).await?;
    store::insert_challenge(&mut tx, id, purpose, &asker.binding, &state, now.after(CHALLENGE_TTL)).await?;
    tx.commit().await?;
    Ok(Question { id, options })
}

fn passkeys(rows: &[store::Row]) -> Result<Vec<Passkey>, PasskeyError> {
    rows.iter().map(|row| serde_json::from_str(&row.passkey).map_err(broken)).collect()
}

/// What `static/passkey.js` puts into a form.
#[derive(Deserialize)]
struct Answer<C> {
    id: ChallengeId,
    credential: C,
}

fn read<C: DeserializeOwned>(text: &str) -> Result<Answer<C>, PasskeyError> {
    serde_json::from_str(text).map_err(|_| PasskeyError::Unreadable)
}

async fn taken<S: DeserializeOwned>(
    app: &App,
    tx: &mut Tx,
    id: ChallengeId,
    purpose: Purpose,
    binding: &[u8],
) -> Result<S, PasskeyError> {
    let state = store::take_challenge(tx, id, purpose, binding, app.now()).await?;
    serde_json::from_str(&state.ok_or(PasskeyError::Over)?).map_err(broken)
}

/// Registers a passkey for the visitor, or for whom the one-time link in `at` is for. The link is used up then, and a
/// session opened whose token is given.
pub async fn register(
    app: &App,
    visitor: &Visitor,
    at: &str,
    name: &str,
    answer: &str,
) -> Result<Option<Secret<String>>, PasskeyError> {
    let name = name.trim();
    free_text::check(name, 60)?;
    if name.is_empty() {
        return Err(PasskeyError::NoName);
    }
    let party = relying_party(app, visitor)?;
    let answer: Answer<RegisterPublicKeyCredential> = read(answer)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    let asker = asker(app, &mut tx, visitor, (Purpose::Register, at)).await?;
    let (user, email) = asker.user.ok_or(PasskeyError::NoSession)?;
    let by_link = link_in(at).is_some();
    if !super::store::hold(&mut tx, user).await? {
        return Err(if by_link { PasskeyError::LinkOver } else { PasskeyError::NoSession });
    }
    let state: PasskeyRegistration =
        taken(app, &mut tx, answer.id, Purpose::Register, &asker.binding).await?;
    let Ok(passkey) = party.finish_passkey_registration(&answer.credential, &state) else {
        tx.commit().await?;
        return Err(PasskeyError::Refused);
    };
    if store::of_user(&mut tx, user).await?.len() >= MOST {
        return Err(PasskeyError::Many);
    }
    if store::by_credential(&mut tx, passkey.cred_id()).await?.is_some() {
        return Err(PasskeyError::Refused);
    }
    if by_link && super::store::use_link(&mut tx, &asker.binding, now).await? != 1 {
        return Err(PasskeyError::LinkOver);
    }
    let id = PasskeyId::new(&*app.clock, &*app.random);
    let kept = serde_json::to_string(&passkey).map_err(broken)?;
    store::insert(&mut tx, (id, user), passkey.cred_id(), name, &kept, now).await?;
    let session = if by_link {
        super::store::end_access(&mut tx, user, now).await?;
        Some(session::open(app, &mut tx, user).await?)
    } else {
        None
    };
    let who = Who::user(&email, &visitor.address);
    let entry = Entry::new(now, who, Action::PasskeyRegistered).detail("passkey", name);
    audit::append(&mut tx, &if by_link { entry.reason("one-time link") } else { entry }).await?;
    tx.commit().await?;
    Ok(session)
}

/// The stored row, brought up to what the answer says, or why it isn't accepted.
enum Judged {
    Right(Box<(store::Row, Passkey)>),
    Wrong(PasskeyError, String),
}

fn judge(
    row: Option<store::Row>,
    finish: impl FnOnce(&Passkey) -> Result<webauthn_rs::prelude::AuthenticationResult, WebauthnError>,
) -> Result<Judged, PasskeyError> {
    let Some(row) = row else { return Ok(Judged::Wrong(PasskeyError::Refused, "unknown".into())) };
    let mut passkey: Passkey = serde_json::from_str(&row.passkey).map_err(broken)?;
    match finish(&passkey) {
        Ok(result) if result.user_verified() => {
            passkey.update_credential(&result);
            Ok(Judged::Right(Box::new((row, passkey))))
        }
        Err(WebauthnError::CredentialPossibleCompromise) => Ok(Judged::Wrong(PasskeyError::Cloned, row.name)),
        Ok(_) | Err(_) => Ok(Judged::Wrong(PasskeyError::Refused, row.name)),
    }
}

/// Signs in whoever the passkey belongs to. Gives the session's token.
pub async fn sign_in(app: &App, visitor: &Visitor, answer: &str) -> Result<Secret<String>, PasskeyError> {
    let party = relying_party(app, visitor)?;
    let answer: Answer<PublicKeyCredential> = read(answer)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    let asker = asker(app, &mut tx, visitor, (Purpose::SignIn, "")).await?;
    let state: DiscoverableAuthentication =
        taken(app, &mut tx, answer.id, Purpose::SignIn, &asker.binding).await?;
    let found = party.identify_discoverable_authentication(&answer.credential).ok();
    let row = match found {
        Some((user, id)) => {
            store::by_credential(&mut tx, id).await?.filter(|row| row.user_id.as_bytes() == user.as_bytes())
        }
        None => None,
    };
    let finish =
        |passkey: &Passkey| party.finish_discoverable_authentication_v2(&answer.credential, state, passkey);
    let (error, named) = match judge(row, finish)? {
        Judged::Right(right) => {
            let (row, passkey) = *right;
            let kept = serde_json::to_string(&passkey).map_err(broken)?;
            let lives = super::store::hold(&mut tx, row.user_id).await?;
            if lives && store::used(&mut tx, &row, &kept, now).await? == 1 {
                let session = session::open(app, &mut tx, row.user_id).await?;
                let email = super::users::get(&mut tx, row.user_id).await.map_err(broken)?.email;
                let entry = Entry::new(now, Who::user(&email, &visitor.address), Action::SignedIn)
                    .detail("passkey", &row.name);
                audit::append(&mut tx, &entry).await?;
                tx.commit().await?;
                return Ok(session);
            }
            (PasskeyError::Refused, row.name)
        }
        Judged::Wrong(error, named) => (error, named),
    };
    let who = Who::user("unknown", &visitor.address);
    let entry = Entry::new(now, who, action(&error, Action::SignInRefused)).detail("passkey", named);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Err(error)
}

fn action(error: &PasskeyError, refused: Action) -> Action {
    if matches!(error, PasskeyError::Cloned) { Action::PasskeyCloned } else { refused }
}

/// Proves by a passkey that the session is still its user's, for a form that is posted to `at`.
pub async fn step_up(app: &App, visitor: &Visitor, at: &str, answer: &str) -> Result<(), PasskeyError> {
    let (Some(user), Some(session)) = (&visitor.user, &visitor.session) else {
        return Err(PasskeyError::NoSession);
    };
    let party = relying_party(app, visitor)?;
    let answer: Answer<PublicKeyCredential> = read(answer)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    let asker = asker(app, &mut tx, visitor, (Purpose::StepUp, at)).await?;
    let state: PasskeyAuthentication =
        taken(app, &mut tx, answer.id, Purpose::StepUp, &asker.binding).await?;
    let row = store::by_credential(&mut tx, answer.credential.get_credential_id())
        .await?
        .filter(|row| row.user_id == user.id);
    let finish = |_: &Passkey| party.finish_passkey_authentication(&answer.credential, &state);
    let (error, named) = match judge(row, finish)? {
        Judged::Right(right) => {
            let (row, passkey) = *right;
            let kept = serde_json::to_string(&passkey).map_err(broken)?;
            let first = store::used(&mut tx, &row, &kept, now).await? == 1;
            if first && super::store::refresh_session(&mut tx, session, now).await? == 1 {
                let entry = Entry::new(now, visitor.who(), Action::SteppedUp).detail("passkey", &row.name);
                audit::append(&mut tx, &entry).await?;
                tx.commit().await?;
                return Ok(());
            }
            return Err(PasskeyError::Over);
        }
        Judged::Wrong(error, named) => (error, named),
    };
    let entry =
        Entry::new(now, visitor.who(), action(&error, Action::StepUpRefused)).detail("passkey", named);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Err(error)
}

#[derive(Clone, Debug)]
pub struct Listed {
    pub id: PasskeyId,
    pub name: String,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
}

pub async fn of_user(tx: &mut Tx, user: UserId) -> Result<Vec<Listed>, sqlx::Error> {
    let rows = store::of_user(tx, user).await?.into_iter();
    let listed = rows.map(|row| Listed {
        id: row.id,
        name: row.name,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
    });
    Ok(listed.collect())
}

/// Removes one of the visitor's passkeys, unless it is the only way in that they have.
pub async fn remove(app: &App, visitor: &Visitor, id: PasskeyId) -> Result<(), PasskeyError> {
    let user = visitor.user.as_ref().ok_or(PasskeyError::NoSession)?;
    let now = app.now();
    let mut tx = app.db.write().await?;
    super::store::hold(&mut tx, user.id).await?;
    let all = store::of_user(&mut tx, user.id).await?;
    let found = all.iter().find(|row| row.id == id).ok_or(PasskeyError::Unknown)?;
    let row = super::store::user_by_email(&mut tx, &user.email).await?;
    let needed = store::are_required(&mut tx).await? || row.is_none_or(|row| row.password_hash.is_none());
    if needed && all.len() == 1 {
        return Err(PasskeyError::LastOne);
    }
    if store::delete(&mut tx, id, user.id).await? != 1 {
        return Err(PasskeyError::Unknown);
    }
    let entry = Entry::new(now, visitor.who(), Action::PasskeyRemoved).detail("passkey", &found.name);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether a password alone gets nobody in.
pub async fn are_required(tx: &mut Tx) -> Result<bool, sqlx::Error> {
    store::are_required(tx).await
}

/// The operator's switch. `own` is who switches it in the console: they need a passkey themselves.
pub async fn require(
    tx: &mut Tx,
    who: Who,
    own: Option<UserId>,
    on: bool,
    now: Timestamp,
) -> Result<(), PasskeyError> {
    if let Some(user) = own.filter(|_| on)
        && store::of_user(tx, user).await?.is_empty()
    {
        return Err(PasskeyError::OwnFirst);
    }
    if store::require(tx, on).await? == 1 {
        let entry = Entry::new(now, who, Action::PasskeysRequired).detail("required", on);
        audit::append(tx, &entry).await?;
    }
    Ok(())
}
