use std::os::unix::fs::PermissionsExt as _;

use shared::keychain::Keychain as _;
use shared::keychain::memory::MemoryKeychain;
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::SystemClock;

use super::provider::{create_item, open_item};
use super::{KeyError, Provider, ProviderError, Purpose, RootKey, Source};
use crate::db::testing::on_both;

#[tokio::test]
async fn the_root_key_opens_with_its_provider_and_with_no_other() {
    on_both(|db| async move {
        let folder = tempfile::tempdir().unwrap();
        let right = Provider::create(&Source::File(folder.path().join("right.key")), &SystemRandom).unwrap();
        let wrong = Provider::create(&Source::File(folder.path().join("wrong.key")), &SystemRandom).unwrap();
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
    let source = Source::File(path.clone());
    Provider::create(&source, &SystemRandom).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Provider::create(&source, &SystemRandom), Err(ProviderError::File { .. })));
    assert_eq!(before, std::fs::read(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Provider::open(&source), Err(ProviderError::Mode(_))));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for bytes in [31, 33] {
        std::fs::write(&path, vec![7; bytes]).unwrap();
        assert!(matches!(Provider::open(&source), Err(ProviderError::Length(_))), "{bytes} bytes");
    }
}

#[test]
fn a_keychains_item_is_never_overwritten_and_holds_32_bytes() {
    let source: Source = "keychain:board".parse().unwrap();
    let Source::Keychain(item) = &source else { panic!("a keychain's item") };
    let keychain = MemoryKeychain::default();
    assert!(matches!(open_item(&source, item, &keychain), Err(ProviderError::Missing(_))));
    let made = create_item(&source, item, &keychain, &SystemRandom).unwrap();
    assert_eq!(made.uri(), "keychain:board");
    assert!(matches!(create_item(&source, item, &keychain, &SystemRandom), Err(ProviderError::Exists(_))));
    let root = Secret::new([5; 32]);
    let wrapped = made.wrap(1, &root, &SystemRandom).unwrap();
    let opened = open_item(&source, item, &keychain).unwrap();
    assert_eq!(opened.unwrap(1, &wrapped).unwrap().expose(), root.expose());
    assert!(matches!(opened.unwrap(2, &wrapped), Err(ProviderError::Unwrap)));
    keychain.set(item, &Secret::new(vec![1; 31])).unwrap();
    assert!(matches!(open_item(&source, item, &keychain), Err(ProviderError::Length(_))));
}

#[cfg(not(target_os = "macos"))]
#[test]
fn a_system_without_a_keychain_says_so() {
    let source: Source = "keychain:board".parse().unwrap();
    for refused in [Provider::open(&source), Provider::open_or_create(&source, &SystemRandom)] {
        assert!(refused.unwrap_err().to_string().contains("no keychain"));
    }
    for unknown in ["", "file:", "keychain:", "root.key", "awskms:alias/board"] {
        assert!(matches!(unknown.parse::<Source>(), Err(ProviderError::Unknown(_))), "{unknown}");
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
