use std::os::unix::fs::PermissionsExt as _;

use shared::random::SystemRandom;
use shared::time::SystemClock;

use super::{FileProvider, KeyError, ProviderError, Purpose, RootKey};
use crate::db::testing::on_both;

#[tokio::test]
async fn the_root_key_opens_with_its_provider_and_with_no_other() {
    on_both(|db| async move {
        let folder = tempfile::tempdir().unwrap();
        let right = FileProvider::create(&folder.path().join("right.key"), &SystemRandom).unwrap();
        let wrong = FileProvider::create(&folder.path().join("wrong.key"), &SystemRandom).unwrap();
        let mut tx = db.write().await.unwrap();
        assert!(matches!(RootKey::unwrap(&mut tx, &right).await, Err(KeyError::NotInitialized)));
        let made = RootKey::create(&mut tx, &right, &SystemClock, &SystemRandom).await.unwrap();
        let opened = RootKey::unwrap(&mut tx, &right).await.unwrap();
        assert_eq!(made.fingerprint(), opened.fingerprint());
        let refused = RootKey::unwrap(&mut tx, &wrong).await.unwrap_err();
        assert!(refused.to_string().contains(&made.fingerprint()), "{refused}");
    })
    .await;
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    FileProvider::create(&path, &SystemRandom).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(FileProvider::create(&path, &SystemRandom), Err(ProviderError::File { .. })));
    assert_eq!(before, std::fs::read(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(FileProvider::open(&path), Err(ProviderError::Mode(_))));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for bytes in [31, 33] {
        std::fs::write(&path, vec![7; bytes]).unwrap();
        assert!(matches!(FileProvider::open(&path), Err(ProviderError::Length(_))), "{bytes} bytes");
    }
}

#[test]
fn each_purpose_has_a_key_of_its_own() {
    let root = RootKey { version: 1, key: shared::secret::Secret::new([9; 32]) };
    let hashes: std::collections::BTreeSet<_> = [Purpose::CaWrap, Purpose::JoinCode, Purpose::Token]
        .into_iter()
        .map(|purpose| root.hash_token(purpose, "same text"))
        .collect();
    assert_eq!(hashes.len(), 3);
}
