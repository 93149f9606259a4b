//! A service that starts before its device has joined waits for that.

use std::time::Duration;

use tokio::sync::watch;

use crate::config::{ConfigError, Identity, Paths};

const BETWEEN: Duration = Duration::from_secs(2);

/// Waits until this device has joined; `false` when `stop` said so first.
pub async fn joined(paths: &Paths, mut stop: watch::Receiver<bool>) -> Result<bool, ConfigError> {
    let mut told = false;
    loop {
        match Identity::load(paths) {
            Ok(_) => return Ok(true),
            Err(ConfigError::NotJoined { .. }) => {}
            Err(error) => return Err(error),
        }
        if !told {
            tracing::info!(data = %paths.data().display(), "this device has not joined a board yet; waiting");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(BETWEEN) => {}
            // An error means that nobody can say stop any more, which ends it as well.
            _ = stop.wait_for(|stop| *stop) => return Ok(false),
        }
    }
}
