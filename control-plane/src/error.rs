//! What a request answers when it fails. What the public sees and what the log sees never share a field.

use shared::problem::Problem;

#[derive(Debug)]
pub struct Failure {
    pub public: Problem,
    /// For the log only.
    pub internal: Option<anyhow::Error>,
}

impl Failure {
    pub fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self { public: Problem::new(status, kind, title, detail), internal: None }
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
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self {
            public: Problem::new(
                503,
                "database",
                "The board's database can't be used right now",
                "Nothing was changed. Try again in a moment; the operator finds the cause in the board's log.",
            ),
            internal: Some(error.into()),
        }
    }
}

impl From<crate::audit::AuditError> for Failure {
    fn from(error: crate::audit::AuditError) -> Self {
        Self {
            public: Problem::new(
                503,
                "audit",
                "The audit log can't be written",
                "So nothing was done: the board does nothing that it can't record. The operator has to make room or repair the database.",
            ),
            internal: Some(error.into()),
        }
    }
}
