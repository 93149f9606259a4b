//! What the keychain's status codes mean, and what to do about them.

/// The constants of Apple's `SecBase.h`.
const NOT_FOUND: i32 = -25300;
const AUTH_FAILED: i32 = -25293;
const NOT_AVAILABLE: i32 = -25291;
const NO_SUCH_KEYCHAIN: i32 = -25294;
const INVALID_KEYCHAIN: i32 = -25295;
const INTERACTION_NOT_ALLOWED: i32 = -25308;
const INTERACTION_REQUIRED: i32 = -25315;
const WRITE_PERMISSION: i32 = -61;
const USER_CANCELED: i32 = -128;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeychainError {
    #[error("this system has no keychain that a daemon can use")]
    Unsupported,
    #[error("{0:?} can't be the name of a keychain item: 1 to 255 bytes without control characters")]
    Name(String),
    #[error("the value is too long for a keychain item")]
    TooLong,
    #[error(
        "the keychain lets only root write here (status {0}): run this with sudo, or let the LaunchDaemon do it"
    )]
    NotRoot(i32),
    #[error(
        "the keychain would ask a person before it lets this program read the item (status {0}): another program or \
         another build of this one made it. Install a build with the same signature, or remove the item in Keychain \
         Access (System) and let the secret be entered or delivered again"
    )]
    OtherProgram(i32),
    #[error(
        "the System keychain can't be used (status {0}): look at it in Keychain Access, or restore \
         /Library/Keychains/System.keychain"
    )]
    Missing(i32),
    #[error("the keychain kept an item that was to be deleted: remove it in Keychain Access (System)")]
    NotDeleted,
    #[error("the keychain failed with status {0}; `security error {0}` explains it")]
    Other(i32),
}

impl KeychainError {
    /// Whether trying the same again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Missing(_) | Self::NotDeleted | Self::Other(_) => true,
            Self::Unsupported | Self::Name(_) | Self::TooLong | Self::NotRoot(_) | Self::OtherProgram(_) => {
                false
            }
        }
    }

    /// Nothing for "there is no such item": that is an answer, not an error.
    pub fn from_status(status: i32) -> Option<Self> {
        match status {
            NOT_FOUND => None,
            WRITE_PERMISSION => Some(Self::NotRoot(status)),
            AUTH_FAILED | INTERACTION_NOT_ALLOWED | INTERACTION_REQUIRED | USER_CANCELED => {
                Some(Self::OtherProgram(status))
            }
            NOT_AVAILABLE | NO_SUCH_KEYCHAIN | INVALID_KEYCHAIN => Some(Self::Missing(status)),
            _ => Some(Self::Other(status)),
        }
    }
}
