use super::{Machine, PlatformError};

pub fn machine() -> Result<Machine, PlatformError> {
    Err(PlatformError::Unsupported("reading the machine's facts"))
}

pub fn boot_session() -> Result<String, PlatformError> {
    Err(PlatformError::Unsupported("reading the boot session"))
}

pub fn become_user(_name: &str, _uid: u32, _gid: u32) -> Result<(), PlatformError> {
    Err(PlatformError::Unsupported("becoming the managed user"))
}

pub fn forbid_tracing() -> Result<(), PlatformError> {
    Err(PlatformError::Unsupported("forbidding to trace this process"))
}

pub fn processes_of_attempt(_attempt: &str) -> Result<Vec<i32>, PlatformError> {
    Err(PlatformError::Unsupported("finding what an attempt left behind"))
}
