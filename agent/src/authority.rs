//! Which certificate authorities are believed to be the board's: the one that was pinned at joining, and one that it
//! vouches for. Without I/O; the daemon keeps what is decided here.

use shared::crypto::verify_succession;
use shared::protocol::link::NewCa;

use crate::config::{Identity, NextCa};
use crate::tls::Pin;

/// What is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    pin: Option<Pin>,
    next: Option<NextCa>,
}

/// What a new authority is to this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is pinned already.
    Known(Pin),
    /// The pinned one vouches for it.
    New(Pin, NextCa),
    Refused(String),
}

impl Trust {
    pub fn new(pin: Pin, next: Option<NextCa>) -> Self {
        Self { pin: Some(pin), next }
    }

    pub fn of(identity: &Identity) -> Self {
        Self { pin: identity.pin.parse().ok(), next: identity.next_ca.clone() }
    }

    pub fn judge(&self, ca: &NewCa) -> Judged {
        let Some(pin) = Pin::of(&ca.certificate) else {
            return Judged::Refused("the new authority's certificate can't be read".to_owned());
        };
        let next = self.next.as_ref().and_then(|next| Pin::of(&next.certificate));
        if self.pin == Some(pin) || next == Some(pin) {
            return Judged::Known(pin);
        }
        let succession = match verify_succession(&ca.certificate, &ca.issuer, &ca.proof) {
            Ok(succession) => succession,
            Err(error) => return Judged::Refused(format!("the new authority is not believed: {error}")),
        };
        if Pin::of(&ca.issuer) != self.pin {
            return Judged::Refused(
                "the new authority is vouched for by another one than this device pins".to_owned(),
            );
        }
        if self.next.as_ref().is_some_and(|next| next.made_at >= succession.made_at) {
            return Judged::Refused("a newer authority is pinned already; this one is older".to_owned());
        }
        let certificate = ca.certificate.clone();
        Judged::New(pin, NextCa { certificate, made_at: succession.made_at })
    }

    pub fn keep(&mut self, next: NextCa) {
        self.next = Some(next);
    }
}
