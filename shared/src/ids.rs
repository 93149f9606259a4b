//! Every kind of id, in one list. Each is a UUIDv7 (RFC 9562) with a type of its own, so that one kind can't be passed
//! where another belongs. Add one by adding a line to the list.

use uuid::Uuid;

use crate::random::Random;
use crate::time::Clock;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, ordered by the clock's time.
            pub fn new(clock: &dyn Clock, random: &dyn Random) -> Self {
                let mut tail = [0; 10];
                random.fill(&mut tail);
                let millis = clock.now().as_micros().max(0) as u64 / 1000;
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid())
            }

            /// The 16 raw bytes, as signed and sealed byte strings use them.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

ids! {
    /// One installation of the board.
    BoardId,
    UserId,
    SessionId,
    /// A token of the JSON API.
    TokenId,
    /// A one-time sign-in link.
    LinkId,
    PasskeyId,
    /// What a browser is asked to sign with a passkey.
    ChallengeId,
    /// What somebody asked a second person for.
    ApprovalId,
    ClientId,
    /// A credential slot, stable across versions of the catalog.
    SlotId,
    JoinCodeId,
    /// One identity of a device: its keys and certificate. A repaired device gets another one.
    EnrollmentId,
    DeviceId,
    RunbookId,
    /// A step of one runbook.
    StepId,
    /// One execution of a step.
    AttemptId,
    /// One look at what a runbook would change.
    PlanId,
    /// One version of a secret on its way to one device.
    DeliveryId,
    /// One request to a device to remove what the board put there.
    WipeId,
    /// Anything that the agent reports; the board applies each once.
    ReportId,
}
