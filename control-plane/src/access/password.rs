//! Passwords: argon2id (RFC 9106) with the crate's defaults, off the async threads.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use shared::secret::Secret;
use tokio::sync::Semaphore;

use super::AccessError;

/// Each hash takes 19 MiB; more at once only wait.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// In characters.
pub const MIN_LEN: usize = 12;

pub async fn hash(password: &Secret<String>) -> Result<String, AccessError> {
    let _turn = AT_ONCE.acquire().await.map_err(|_| AccessError::Hash)?;
    let password = password.clone();
    tokio::task::spawn_blocking(move || {
        Argon2::default().hash_password(password.expose().as_bytes()).map(|hash| hash.to_string())
    })
    .await
    .map_err(|_| AccessError::Hash)?
    .map_err(|_| AccessError::Hash)
}

/// Whether the password fits. Without a stored hash it takes as long and answers no, so that nobody learns from the
/// time which addresses exist.
pub async fn verify(password: &Secret<String>, stored: Option<String>) -> Result<bool, AccessError> {
    let Some(stored) = stored else {
        hash(password).await?;
        return Ok(false);
    };
    let _turn = AT_ONCE.acquire().await.map_err(|_| AccessError::Hash)?;
    let password = password.clone();
    tokio::task::spawn_blocking(move || {
        PasswordHash::new(&stored)
            .is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
    })
    .await
    .map_err(|_| AccessError::Hash)
}
