use std::os::unix::fs::PermissionsExt as _;

use rcgen::PublicKeyData as _;
use shared::keychain::memory::MemoryKeychain;
use shared::keychain::{Item, Keychain};
use shared::random::SystemRandom;

use super::*;
use crate::config;

fn vault(folder: &std::path::Path) -> Vault {
    Vault::new(Box::new(FileStore::open(folder.join("vault")).unwrap()))
}

/// Every kind of store, and the folder that one of them needs.
fn vaults() -> (tempfile::TempDir, [Vault; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(config::default_data(false));
    let keychain = KeychainStore::new(Box::new(MemoryKeychain::default()), &paths);
    let vaults = [vault(folder.path()), Vault::new(Box::new(keychain))];
    (folder, vaults)
}

fn secret(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

#[test]
fn what_is_written_can_be_read_and_nobody_else_can() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(folder.path());
    vault.write("slack", "SLACK_BOT_TOKEN", 3, &secret("xoxb-one")).unwrap();
    let held = vault.read("slack", "SLACK_BOT_TOKEN").unwrap().unwrap();
    assert_eq!((held.version, held.value.expose().as_slice()), (Some(3), b"xoxb-one".as_slice()));

    let mode = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("vault"), 0o700);
    assert_eq!(mode("vault/slot.slack.SLACK_BOT_TOKEN"), 0o600);
    assert_eq!(std::fs::read_dir(folder.path().join("vault")).unwrap().count(), 1, "no file is left over");
}

#[test]
fn an_older_version_is_refused_and_the_same_one_is_not() {
    let (_folder, vaults) = vaults();
    for vault in vaults {
        vault.write("slack", "T", 3, &secret("three")).unwrap();
        assert!(matches!(
            vault.write("slack", "T", 2, &secret("two")),
            Err(StoreError::Older { held: 3, got: 2 })
        ));
        assert_eq!(vault.read("slack", "T").unwrap().unwrap().value.expose(), b"three");
        vault.write("slack", "T", 3, &secret("three")).unwrap();
        vault.write("slack", "T", 4, &secret("four")).unwrap();
        assert_eq!(vault.held().unwrap()[0].version, Some(4));
    }
}

#[test]
fn what_is_pasted_has_no_version_and_takes_the_place_of_what_was_pasted() {
    let (_folder, vaults) = vaults();
    for vault in vaults {
        vault.write_pasted("slack", "T", &secret("one")).unwrap();
        vault.write_pasted("slack", "T", &secret("two")).unwrap();
        let held = vault.read("slack", "T").unwrap().unwrap();
        assert_eq!((held.version, held.value.expose().as_slice()), (None, b"two".as_slice()));
        assert_eq!(vault.held().unwrap()[0].version, None);
        vault.write("slack", "OURS", 1, &secret("delivered")).unwrap();
        assert!(vault.write_pasted("slack", "OURS", &secret("x")).is_err(), "never over a delivered one");
    }
}

#[test]
fn only_a_store_that_fails_may_go_well_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(folder.path());
    let place = folder.path().join("vault/slot.slack.T");
    std::fs::create_dir(&place).unwrap();
    let failed = vault.write("slack", "T", 2, &secret("two")).unwrap_err();
    assert!(failed.is_passing(), "{failed}");
    std::fs::remove_dir(&place).unwrap();
    vault.write("slack", "T", 2, &secret("two")).unwrap();
    assert!(!vault.write("slack", "T", 1, &secret("one")).unwrap_err().is_passing());
    assert!(!vault.write("../x", "T", 1, &secret("one")).unwrap_err().is_passing());
    assert!(StoreError::ReadBack.is_passing());
}

#[test]
fn a_name_can_not_leave_the_folder() {
    let (_folder, vaults) = vaults();
    for vault in vaults {
        for (component, slot) in [("../x", "T"), ("slack", "../../T"), ("slack", ""), ("a.b", "T")] {
            assert!(matches!(vault.write(component, slot, 1, &secret("v")), Err(StoreError::Name(_))));
        }
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vault = vault(folder.path());
    vault.write("slack", "T", 1, &secret("value")).unwrap();
    let path = folder.path().join("vault/slot.slack.T");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(vault.read("slack", "T"), Err(StoreError::Io(_))));
}

#[test]
fn the_keys_come_back_the_same() {
    let (_folder, vaults) = vaults();
    for vault in vaults {
        assert!(vault.keys().unwrap().is_none());
        let keys = DeviceKeys {
            tls: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
            sealing: SealingKey::generate(&SystemRandom),
        };
        vault.set_keys(&keys).unwrap();
        let read = vault.keys().unwrap().unwrap();
        assert_eq!(read.tls.subject_public_key_info(), keys.tls.subject_public_key_info());
        assert_eq!(read.sealing.public_key(), keys.sealing.public_key());
        assert!(vault.held().unwrap().is_empty(), "keys are no slots");
    }
}

#[test]
fn what_an_earlier_enrollment_left_can_be_taken_away() {
    let (_folder, vaults) = vaults();
    for vault in vaults {
        vault.write("slack", "T", 3, &secret("three")).unwrap();
        vault.clear().unwrap();
        vault.clear().unwrap();
        assert!(vault.held().unwrap().is_empty());
        vault.write("slack", "T", 1, &secret("one")).unwrap();
    }
}

#[test]
fn in_the_keychain_a_secret_is_an_item_of_the_agent_with_its_version_inside() {
    let keychain = MemoryKeychain::default();
    let store = |data: &str| {
        let paths = Paths::new(data.into());
        Vault::new(Box::new(KeychainStore::new(Box::new(keychain.clone()), &paths)))
    };
    let system = store(config::default_data(false).to_str().unwrap());
    system.write("slack", "T", 3, &secret("three")).unwrap();
    let item = Item::new("board-agent", "slot.slack.T").unwrap();
    let value = keychain.get(&item).unwrap().unwrap();
    assert_eq!(value.expose().as_slice(), b"\0\0\0\0\0\0\0\x03three");

    let second = store("/srv/second");
    assert!(second.held().unwrap().is_empty(), "another data folder is another agent");
    second.write("slack", "T", 1, &secret("one")).unwrap();
    second.clear().unwrap();
    assert_eq!(system.read("slack", "T").unwrap().unwrap().version, Some(3));
}

#[cfg(not(target_os = "macos"))]
#[test]
fn a_system_without_a_keychain_has_no_store_but_the_one_for_development() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().to_owned());
    assert!(matches!(open(&paths, false), Err(StoreError::Unsupported)));
    assert!(open(&paths, true).is_ok());
}
