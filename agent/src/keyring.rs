//! The keys that this device believes, from what lies on its disk: those of its package and of joining, and every statement
//! of succession that was believed. Each is verified again when it is read.

use shared::signing::{Keyring, SignedSuccession, SuccessionError};

use crate::config::{ConfigError, Paths, Trusted, keys_of, load_json, save_json};

/// The keys, and the statements that made them so.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub ring: Keyring,
    statements: Vec<SignedSuccession>,
}

pub fn load(paths: &Paths) -> Result<Held, ConfigError> {
    fn of<K: From<shared::signing::PublicKey>>(paths: &Paths, what: Trusted) -> Result<Vec<K>, ConfigError> {
        Ok(keys_of(paths, what)?.into_iter().map(K::from).collect())
    }
    let mut ring = Keyring::new(
        &of::<shared::catalog::PublisherKey>(paths, Trusted::Publisher)?,
        &of::<shared::signing::ReleaseKey>(paths, Trusted::Release)?,
        &of::<shared::signing::RecoveryKey>(paths, Trusted::Recovery)?,
    )?;
    let statements: Vec<SignedSuccession> = load_json(&paths.successions())?.unwrap_or_default();
    for statement in &statements {
        // Another package may have withdrawn the key that signed it.
        if let Err(error) = ring.accept(statement) {
            tracing::debug!(statement = statement.digest(), %error, "a statement of before is not believed any more");
        }
    }
    Ok(Held { ring, statements })
}

#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    #[error(transparent)]
    Refused(#[from] SuccessionError),
    #[error(transparent)]
    Kept(#[from] ConfigError),
}

impl Held {
    /// Believes a statement and keeps it on disk, or says why not and stays as it was. `false`: it was held before.
    pub fn accept(&mut self, paths: &Paths, statement: &SignedSuccession) -> Result<bool, HoldError> {
        if self.statements.iter().any(|held| held.payload == statement.payload) {
            return Ok(false);
        }
        let mut ring = self.ring.clone();
        ring.accept(statement)?;
        let mut statements = self.statements.clone();
        statements.push(statement.clone());
        save_json(&paths.successions(), &statements)?;
        *self = Self { ring, statements };
        Ok(true)
    }

    /// By digest.
    pub fn statements(&self) -> Vec<String> {
        self.statements.iter().map(SignedSuccession::digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use shared::random::SystemRandom;
    use shared::signing::{PublicKey, Purpose, Succession, generate_key, sign_succession};

    use super::*;
    use crate::config::{add_key, add_publisher_key, known_publisher_keys, load_publisher_keys};

    #[test]
    fn a_new_key_and_a_retired_one_are_so_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("data"));
        paths.create().unwrap();
        let file = folder.path().join("key.pem");
        let [old, new, recovery, release] = std::array::from_fn(|_| generate_key(&SystemRandom).unwrap());
        std::fs::write(&file, &old.1).unwrap();
        add_publisher_key(&paths, &file).unwrap();
        std::fs::write(&file, &recovery.1).unwrap();
        add_key(&paths, Trusted::Recovery, &file).unwrap();
        let key = |pem: &str| PublicKey::from_pem(pem).unwrap();
        let said = Succession {
            purpose: Purpose::Publisher,
            serial: 1,
            adds: Some(key(&new.1)),
            retires: vec![key(&old.1)],
        };
        let mut held = load(&paths).unwrap();
        let stranger = sign_succession(&said, &release.0).unwrap();
        assert!(matches!(held.accept(&paths, &stranger), Err(HoldError::Refused(_))));
        assert!(!paths.successions().exists(), "nothing refused was kept");
        let good = sign_succession(&said, &old.0).unwrap();
        assert!(held.accept(&paths, &good).unwrap());
        assert!(!held.accept(&paths, &good).unwrap(), "the same again changes nothing");

        let held = load(&paths).unwrap();
        assert_eq!(held.statements(), [good.digest()]);
        let names: Vec<_> = load_publisher_keys(&paths).unwrap().iter().map(|key| key.name()).collect();
        assert_eq!(names, [key(&new.1).name()]);
        let [known] = known_publisher_keys(&paths).unwrap().try_into().unwrap();
        assert!(known.succeeded && !known.packaged);

        let mut text = std::fs::read_to_string(paths.successions()).unwrap();
        let at = text.find("payload").unwrap() + 20;
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        text.replace_range(at..=at, other);
        std::fs::write(paths.successions(), text).unwrap();
        let names: Vec<_> = load_publisher_keys(&paths).unwrap().iter().map(|key| key.name()).collect();
        assert_eq!(names, [key(&old.1).name()], "a changed statement is not believed");
    }

    #[test]
    fn a_key_for_two_purposes_is_believed_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("data"));
        paths.create().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, generate_key(&SystemRandom).unwrap().1).unwrap();
        add_publisher_key(&paths, &file).unwrap();
        add_key(&paths, Trusted::Release, &file).unwrap();
        assert!(matches!(load(&paths), Err(ConfigError::Keyring(_))));
    }
}
