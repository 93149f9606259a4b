//! What a request answers when it fails. What the public sees and what the log sees never share a field.

use shared::problem::Problem;

use crate::audit::{self, AuditError};
use crate::db::Cause;
use crate::keys::KeyError;

#[derive(Debug)]
pub struct Failure {
    pub public: Problem,
    /// For the log only.
    pub internal: Option<anyhow::Error>,
    /// What the database has, when that is why.
    pub cause: Option<Cause>,
    /// An entry of the audit log couldn't be written.
    pub unwritten: bool,
}

impl Failure {
    pub fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            public: Problem::new(status, kind, title, detail),
            internal: None,
            cause: None,
            unwritten: false,
        }
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(
            404,
            "not-found",
            "Not found",
            format!("There is no {what} here. It may have been removed, or the address has a typing error."),
        )
    }

    pub fn forbidden(detail: &str) -> Self {
        Self::new(403, "forbidden", "Not allowed", detail)
    }

    pub fn conflict(kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(409, kind, title, detail)
    }

    pub fn invalid(kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(422, kind, title, detail)
    }

    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self {
            public: Problem::new(
                500,
                "internal",
                "Something failed on the board",
                "Nothing was changed. Try again; if it happens again, the operator finds the cause in the board's log.",
            ),
            internal: Some(error.into()),
            cause: None,
            unwritten: false,
        }
    }

    /// After how many seconds the same request may go well.
    pub fn retry_after(&self) -> Option<u32> {
        self.cause.and_then(Cause::retry_after)
    }

    /// What the health page has to know of this.
    pub fn trouble(&self) -> Option<Cause> {
        self.cause.filter(|cause| *cause != Cause::Other || self.unwritten)
    }

    /// The root key can't be had. Which provider stands in the way is for the log only.
    pub fn without_root_key(internal: Option<anyhow::Error>) -> Self {
        let public = Problem::new(
            503,
            "root-key",
            "The board's root key can't be used right now",
            "So nothing was opened or stored, and nothing was changed. The operator finds in the board's log which root-key provider stands in the way, and what to do.",
        );
        Self { public, internal, cause: None, unwritten: false }
    }

    /// The audit log can't be written, so nothing may be done.
    pub fn unwritten(cause: Cause, internal: Option<anyhow::Error>) -> Self {
        let public = Problem::new(503, "audit", audit::UNWRITTEN, audit::unwritten(cause));
        Self { public, internal, cause: Some(cause), unwritten: true }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let cause = Cause::of(&error);
        if cause.stops_writing() {
            return Self::unwritten(cause, Some(error.into()));
        }
        let detail = format!("{} Nothing was changed. {}", cause.what(), cause.remedy());
        let public = Problem::new(503, "database", "The board's database can't be used right now", detail);
        Self { public, internal: Some(error.into()), cause: Some(cause), unwritten: false }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        if let KeyError::Database(error) = error {
            return error.into();
        }
        Self::without_root_key(Some(error.into()))
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::unwritten(error.cause(), Some(error.into()))
    }
}
