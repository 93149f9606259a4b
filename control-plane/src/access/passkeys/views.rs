//! A user's own account: the passkeys they have, and registering one.

use askama::Template;

use crate::web::{Moment, Shell};

/// POST /account/passkeys with `name` and the script's `passkey`; POST to a row's `remove`.
#[derive(Template)]
#[template(path = "access/account.html")]
pub struct AccountPage {
    pub shell: Shell,
    pub email: String,
    pub passkeys: Vec<PasskeyRow>,
    /// A password alone gets nobody in.
    pub required: bool,
    /// Why there are no passkeys at this address.
    pub nowhere: Option<String>,
}

pub struct PasskeyRow {
    pub name: String,
    pub added: Moment,
    pub used: Option<Moment>,
    pub remove: String,
}
