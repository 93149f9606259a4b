//! The page for the client, for the screen and for paper.

use askama::Template;

use super::Statement;
use crate::clients::views::ClientRef;
use crate::web::{Moment, Shell};

#[derive(Template)]
#[template(path = "overview/statement.html")]
pub struct StatementPage {
    pub shell: Shell,
    pub client: ClientRef,
    pub made: Moment,
    pub statement: Statement,
}

impl StatementPage {
    /// Whom the client may ask.
    fn contact(&self) -> &str {
        self.shell.viewer.as_ref().map_or("", |viewer| viewer.email.as_str())
    }
}
