use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use shared::ids::BoardId;
use shared::keychain::Keychain as _;
use shared::keychain::memory::MemoryKeychain;
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};
use tokio::net::TcpListener;

use super::provider::{create_item, open_item};
use super::{
    Binding, KeyError, Outside, Provider as _, ProviderError, Purpose, RootKey, RootVersion, Source, store,
};
use crate::board;
use crate::db::testing::{on_both, on_sqlite};

fn outside() -> Outside {
    Outside::of(Arc::new(SystemClock), &[])
}

fn binding(version: u32) -> Binding {
    Binding { board_id: BoardId::new(&SystemClock, &SystemRandom), version }
}

#[tokio::test]
async fn the_root_key_opens_with_its_provider_wherever_it_was_moved_and_with_no_other() {
    on_both(|db| async move {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Source::File(folder.path().join(name));
        let mut tx = db.write().await.unwrap();
        assert!(matches!(RootKey::open(&mut tx, None, outside()).await, Err(KeyError::NotInitialized)));
        drop(tx);
        board::init(&db, &at("right.key"), outside(), "a@example.com", &SystemRandom).await.unwrap();
        at("wrong.key").open_or_create(&outside(), &SystemRandom).unwrap();
        let mut tx = db.write().await.unwrap();
        let opened = RootKey::open(&mut tx, None, outside()).await.unwrap();
        let fingerprint = opened.newest().fingerprint();
        let named = RootKey::open(&mut tx, Some(at("wrong.key")), outside()).await;
        assert!(matches!(named, Err(KeyError::WrongKey { .. })), "the right one would open it: {named:?}");
        std::fs::rename(folder.path().join("right.key"), folder.path().join("moved.key")).unwrap();
        let gone = RootKey::open(&mut tx, None, outside()).await.unwrap_err().to_string();
        assert!(gone.contains(&fingerprint) && gone.contains("right.key"), "{gone}");
        let refused = RootKey::open(&mut tx, Some(at("wrong.key")), outside()).await.unwrap_err();
        assert!(refused.to_string().contains(&fingerprint), "{refused}");
        let moved = RootKey::open(&mut tx, Some(at("moved.key")), outside()).await.unwrap();
        assert_eq!(moved.newest().fingerprint(), fingerprint);
        drop(tx);

        // Once a rekey went away from it, a setting that names the moved file is in nobody's way.
        let (to, also) = (at("next.key"), || Some(at("moved.key")));
        board::rekey(&db, also(), &to, false, &outside(), &SystemRandom).await.unwrap();
        let mut tx = db.read().await.unwrap();
        let next = RootKey::open(&mut tx, also(), outside()).await.unwrap();
        assert_eq!(next.newest().version, 2);
        std::fs::remove_file(folder.path().join("next.key")).unwrap();
        assert!(RootKey::open(&mut tx, also(), outside()).await.is_err(), "nothing else opens it");
    })
    .await;
}

#[tokio::test]
async fn nobody_who_writes_waits_for_a_provider_that_is_asked() {
    on_sqlite(|db| async move {
        let folder = tempfile::tempdir().unwrap();
        let file = Source::File(folder.path().join("root.key"));
        board::init(&db, &file, outside(), "a@example.com", &SystemRandom).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let variables = [("VAULT_ADDR", address.as_str()), ("VAULT_TOKEN", "x")];
        let outside = Outside::of(Arc::new(SystemClock), &variables);
        let root = RootKey::open(&mut db.read().await.unwrap(), None, outside).await.unwrap();
        let mut tx = db.write().await.unwrap();
        let now = SystemClock.now();
        assert_eq!(
            store::insert(&mut tx, 2, "vault:transit/board", b"vault:v1:x", "f", now).await.unwrap(),
            1
        );
        tx.commit().await.unwrap();

        let other = db.clone();
        let asked = tokio::spawn(async move {
            let (_held, _) = listener.accept().await.unwrap();
            tokio::time::timeout(Duration::from_secs(5), other.write()).await.is_ok_and(|tx| tx.is_ok())
        });
        let refused = root.write(&db).await.unwrap_err();
        assert!(matches!(refused, KeyError::Unusable { version: 2, .. }), "{refused}");
        assert!(asked.await.unwrap(), "the lock is free while the provider is asked");
        let mut tx = db.write().await.unwrap();
        assert!(matches!(root.for_writing(&mut tx).await, Err(KeyError::Moving)));
    })
    .await;
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let source = Source::File(path.clone());
    source.create(&SystemRandom).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(source.create(&SystemRandom), Err(ProviderError::File { .. })));
    source.open_or_create(&outside(), &SystemRandom).unwrap();
    assert_eq!(before, std::fs::read(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(source.open(&outside()), Err(ProviderError::Mode(_))));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for bytes in [31, 33] {
        std::fs::write(&path, vec![7; bytes]).unwrap();
        assert!(matches!(source.open(&outside()), Err(ProviderError::Length(_))), "{bytes} bytes");
    }
}

#[tokio::test]
async fn a_keychains_item_is_never_overwritten_and_holds_32_bytes() {
    let source: Source = "keychain:board".parse().unwrap();
    let Source::Keychain(item) = &source else { panic!("a keychain's item") };
    let keychain = MemoryKeychain::default();
    assert!(matches!(open_item(&source, item, &keychain), Err(ProviderError::Missing(_))));
    let made = create_item(&source, item, &keychain, &SystemRandom).unwrap();
    assert!(matches!(create_item(&source, item, &keychain, &SystemRandom), Err(ProviderError::Exists(_))));
    let root = Secret::new([5; 32]);
    let (one, two) = (binding(1), binding(2));
    let wrapped = made.wrap(one, &root, &SystemRandom).await.unwrap();
    let opened = open_item(&source, item, &keychain).unwrap();
    assert_eq!(opened.unwrap(one, &wrapped).await.unwrap().expose(), root.expose());
    assert!(matches!(opened.unwrap(two, &wrapped).await, Err(ProviderError::Unwrap)));
    keychain.set(item, &Secret::new(vec![1; 31])).unwrap();
    assert!(matches!(open_item(&source, item, &keychain), Err(ProviderError::Length(_))));
}

#[cfg(not(target_os = "macos"))]
#[test]
fn a_system_without_a_keychain_says_so() {
    let source: Source = "keychain:board".parse().unwrap();
    for refused in [source.open(&outside()), source.open_or_create(&outside(), &SystemRandom)] {
        assert!(refused.unwrap_err().to_string().contains("no keychain"));
    }
}

#[test]
fn a_providers_uri_reads_back_and_holds_no_secret() {
    for uri in [
        "file:/etc/board/root.key",
        "keychain:board",
        "awskms:alias/board",
        "awskms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "awskms:alias/board?region=eu-central-1&endpoint=http://127.0.0.1:5000",
        "vault:transit/board",
        "vault:teams/macs/transit/board-key",
    ] {
        assert_eq!(uri.parse::<Source>().unwrap().to_string(), uri);
    }
    for unknown in [
        "",
        "file:",
        "keychain:",
        "root.key",
        "awskms:",
        "awskms:alias/board?region=EU",
        "awskms:alias/board?token=x",
        "awskms:alias/board?endpoint=https://user:word@kms.example.com",
        "awskms:alias/board?endpoint=https://kms.example.com/?token=x",
        "vault:board",
        "vault:/board",
        "vault:transit/",
        "vault:transit/../sys",
        "vault:transit/a?token=x",
    ] {
        assert!(matches!(unknown.parse::<Source>(), Err(ProviderError::Unknown(_))), "{unknown}");
    }
}

#[test]
fn each_purpose_has_a_key_of_its_own() {
    let root = RootVersion { version: 1, key: Secret::new([9; 32]) };
    let keys: std::collections::BTreeSet<_> = [Purpose::CaWrap, Purpose::JoinCode, Purpose::Token]
        .into_iter()
        .map(|purpose| *root.derive(purpose).expose())
        .collect();
    assert_eq!(keys.len(), 3);
}
