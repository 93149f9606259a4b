//! Who may use the board: users, and the tokens of programs. For operators.

use askama::Template;

use crate::access::Role;
use crate::web::{FieldError, Moment, RowState, Shell};

/// POST /users with `email`, `role`…; POST /tokens with `name`, `days`, `role`….
#[derive(Template)]
#[template(path = "access/users.html")]
pub struct UsersPage {
    pub shell: Shell,
    pub users: Vec<UserRow>,
    pub tokens: Vec<TokenRow>,
    pub invite: InviteFields,
    pub token: TokenFields,
    /// The forms ask for the password too: the session isn't fresh.
    pub ask_password: bool,
    pub passkeys_required: bool,
    /// Those of the form that was sent; fields of the other one have other names.
    pub errors: Vec<FieldError>,
}

/// What was typed into the form of an invitation.
#[derive(Default)]
pub struct InviteFields {
    pub email: String,
    pub roles: Vec<Role>,
}

/// What was typed into the form of a token.
#[derive(Default)]
pub struct TokenFields {
    pub name: String,
    pub days: String,
    pub roles: Vec<Role>,
    /// Unfolded, because there is something to mend.
    pub open: bool,
}

pub struct UserRow {
    pub href: String,
    pub email: String,
    pub roles: String,
    pub state: RowState,
    /// "can sign in", "invited", "disabled"
    pub state_word: String,
    pub added: Moment,
}

pub struct TokenRow {
    pub name: String,
    pub roles: String,
    pub state: RowState,
    /// "living", "expired", "revoked"
    pub state_word: String,
    pub made_by: String,
    pub expires: Moment,
    pub last_used: Option<Moment>,
    /// Where to POST to end it.
    pub revoke: Option<String>,
}

/// One user. POST to `href` + /roles, /link, /disable or /enable.
#[derive(Template)]
#[template(path = "access/user.html")]
pub struct UserPage {
    pub shell: Shell,
    pub href: String,
    pub email: String,
    pub roles: Vec<Role>,
    pub state: RowState,
    pub state_word: String,
    pub disabled: bool,
    /// It is the one who looks.
    pub own: bool,
    pub ask_password: bool,
    pub errors: Vec<FieldError>,
}

/// Something that is shown once: a sign-in link or a token.
#[derive(Template)]
#[template(path = "access/once.html")]
pub struct OncePage {
    pub shell: Shell,
    pub title: String,
    /// What it is for, and how long.
    pub lead: String,
    pub text: String,
    /// What to do with it.
    pub help: String,
}

/// What a role may do, for who gives it.
pub fn about(role: &Role) -> &'static str {
    match role {
        Role::Consultant => "Sets up clients, approves devices, runs steps, copies secrets of ours.",
        Role::Operator => "Keeps users and API tokens.",
        Role::Support => "Reads what is installed where. Never sees a secret's value.",
    }
}
