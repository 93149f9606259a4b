use super::memory::MemoryKeychain;
use super::*;

fn item(account: &str) -> Item {
    Item::new("board-agent", account).unwrap()
}

#[test]
fn an_item_is_added_changed_listed_and_deleted() {
    let keychain = MemoryKeychain::default();
    let value = |text: &str| Secret::new(text.as_bytes().to_vec());
    assert!(keychain.get(&item("a")).unwrap().is_none());
    keychain.set(&item("b"), &value("one")).unwrap();
    keychain.set(&item("b"), &value("two")).unwrap();
    keychain.set(&item("a"), &value("")).unwrap();
    keychain.set(&Item::new("other", "c").unwrap(), &value("x")).unwrap();
    assert_eq!(keychain.get(&item("b")).unwrap().unwrap().expose(), b"two");
    assert_eq!(keychain.accounts("board-agent").unwrap(), ["a", "b"]);
    assert!(keychain.delete(&item("b")).unwrap());
    assert!(!keychain.delete(&item("b")).unwrap());
    assert_eq!(keychain.accounts("board-agent").unwrap(), ["a"]);
}

#[test]
fn a_name_that_would_not_come_back_the_same_is_refused() {
    for name in ["", "a\0b", "line\nbreak", &"x".repeat(256)] {
        assert!(matches!(Item::new("board-agent", name), Err(KeychainError::Name(_))), "{name:?}");
        assert!(matches!(Item::new(name, "account"), Err(KeychainError::Name(_))), "{name:?}");
    }
    assert!(Item::new("board-agent", &"x".repeat(255)).is_ok());
}

#[test]
fn a_status_says_what_to_do_and_whether_to_try_again() {
    assert_eq!(KeychainError::from_status(-25300), None, "not found is no error");
    let cases = [
        (-61, KeychainError::NotRoot(-61), false),
        (-25308, KeychainError::OtherProgram(-25308), false),
        (-25293, KeychainError::OtherProgram(-25293), false),
        (-25294, KeychainError::Missing(-25294), true),
        (-4, KeychainError::Other(-4), true),
    ];
    for (status, error, passing) in cases {
        assert_eq!(KeychainError::from_status(status), Some(error.clone()));
        assert_eq!(error.is_passing(), passing, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

#[cfg(not(target_os = "macos"))]
#[test]
fn without_a_keychain_it_is_an_error() {
    assert!(matches!(system(), Err(KeychainError::Unsupported)));
}

/// Needs root on a Mac: writes an item of its own, and takes it away.
#[cfg(target_os = "macos")]
#[test]
fn the_system_keychain_keeps_an_item() {
    let keychain = match system() {
        Ok(keychain) => keychain,
        Err(error) => panic!("{error}"),
    };
    let probe = Item::new("board-agent-test", "probe").unwrap();
    keychain.set(&probe, &Secret::new(b"one".to_vec())).unwrap();
    keychain.set(&probe, &Secret::new(b"two".to_vec())).unwrap();
    assert_eq!(keychain.get(&probe).unwrap().unwrap().expose(), b"two");
    assert_eq!(keychain.accounts("board-agent-test").unwrap(), ["probe"]);
    assert!(keychain.delete(&probe).unwrap());
    assert!(!keychain.delete(&probe).unwrap());
    assert!(keychain.get(&probe).unwrap().is_none());
}
