use std::os::unix::fs::PermissionsExt as _;

use shared::crypto::{Fingerprint, FingerprintParts, SealingKey, open_paste};
use shared::ids::{BoardId, ClientId, EnrollmentId};
use shared::random::SystemRandom;
use shared::time::SystemClock;

use super::*;

struct Desk {
    folder: tempfile::TempDir,
    key: SealingKey,
    recipient: Recipient,
}

impl Desk {
    fn new() -> Self {
        let key = SealingKey::generate(&SystemRandom);
        let recipient = Recipient {
            board_id: BoardId::new(&SystemClock, &SystemRandom),
            ca_spki: b"ca".to_vec(),
            client_id: ClientId::new(&SystemClock, &SystemRandom),
            device_id: DeviceId::new(&SystemClock, &SystemRandom),
            name: "reception-mini".into(),
            enrollment_id: EnrollmentId::new(&SystemClock, &SystemRandom),
            tls_spki: b"tls".to_vec(),
            sealing_public_key: key.public_key().as_bytes().to_vec(),
            on: true,
            time: SystemClock.now(),
            slots: vec![slot("slack", "BOT"), slot("slack", "TOKEN"), slot("teams", "TOKEN")],
        };
        Self { folder: tempfile::tempdir().unwrap(), key, recipient }
    }

    /// What the Mac shows.
    fn shown(&self) -> String {
        Fingerprint::of(&FingerprintParts {
            ca_spki: &self.recipient.ca_spki,
            board_id: self.recipient.board_id,
            client_id: self.recipient.client_id,
            enrollment_id: self.recipient.enrollment_id,
            tls_spki: &self.recipient.tls_spki,
            sealing_public_key: self.key.public_key().as_bytes(),
        })
        .to_string()
    }

    fn known(&self) -> KnownDevices {
        KnownDevices::at(Some(self.folder.path().join("board/known_devices"))).unwrap()
    }

    fn prove(&self, recipient: &Recipient, typed: Option<&str>) -> anyhow::Result<SealingPublicKey> {
        prove(recipient, self.recipient.device_id, typed, &self.known(), &SystemClock)
    }

    fn refusal(&self, recipient: &Recipient, typed: Option<&str>) -> Unproven {
        self.prove(recipient, typed).unwrap_err().downcast().unwrap()
    }

    /// What a board could give instead, each with one part of another device, client or board.
    fn changed(&self) -> Vec<Recipient> {
        let other = Self::new().recipient;
        let same =
            || serde_json::from_value::<Recipient>(serde_json::to_value(&self.recipient).unwrap()).unwrap();
        vec![
            Recipient { board_id: other.board_id, ..same() },
            Recipient { ca_spki: b"cb".to_vec(), ..same() },
            Recipient { client_id: other.client_id, ..same() },
            Recipient { enrollment_id: other.enrollment_id, ..same() },
            Recipient { tls_spki: b"tlt".to_vec(), ..same() },
            Recipient { sealing_public_key: other.sealing_public_key, ..same() },
        ]
    }
}

fn slot(component: &str, slot: &str) -> SlotJson {
    SlotJson { component: component.into(), slot: slot.into(), name: "x".into() }
}

#[test]
fn a_device_is_proven_by_the_fingerprint_from_the_mac_and_then_known() {
    let desk = Desk::new();
    assert!(matches!(desk.refusal(&desk.recipient, None), Unproven::Unknown));
    for recipient in desk.changed() {
        assert!(matches!(desk.refusal(&recipient, Some(&desk.shown())), Unproven::Mismatch), "{recipient:?}");
    }
    let wrong = "AAAA AAAA AAAA AAAA";
    assert!(matches!(desk.refusal(&desk.recipient, Some(wrong)), Unproven::Mismatch));
    assert!(!desk.folder.path().join("board").exists(), "nothing of that is remembered");

    let typed = desk.shown().to_lowercase().replace(' ', "-");
    assert_eq!(desk.prove(&desk.recipient, Some(&typed)).unwrap(), desk.key.public_key());
    let file = desk.folder.path().join("board/known_devices");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    desk.prove(&desk.recipient, None).unwrap();
    desk.prove(&desk.recipient, Some(&typed)).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1, "once");
    assert!(matches!(desk.refusal(&desk.recipient, Some(wrong)), Unproven::Mismatch));
}

#[test]
fn a_device_is_remembered_on_a_line_of_its_own() {
    let desk = Desk::new();
    let file = desk.folder.path().join("board/known_devices");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "# ours, without a line end").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for _ in 0..2 {
        let other = Desk::new();
        let shown = other.shown().replace(' ', "");
        prove(&other.recipient, other.recipient.device_id, Some(&shown), &desk.known(), &SystemClock)
            .unwrap();
        prove(&other.recipient, other.recipient.device_id, None, &desk.known(), &SystemClock).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn a_known_device_that_changed_is_an_alarm_whatever_is_typed() {
    let desk = Desk::new();
    desk.prove(&desk.recipient, Some(&desk.shown())).unwrap();
    for recipient in desk.changed() {
        let fits = Fingerprint::of(&FingerprintParts {
            ca_spki: &recipient.ca_spki,
            board_id: recipient.board_id,
            client_id: recipient.client_id,
            enrollment_id: recipient.enrollment_id,
            tls_spki: &recipient.tls_spki,
            sealing_public_key: recipient.sealing_public_key.as_slice().try_into().unwrap(),
        });
        for typed in [None, Some(desk.shown()), Some(fits.to_string())] {
            let refusal = desk.refusal(&recipient, typed.as_deref());
            assert!(matches!(&refusal, Unproven::Changed { line: 1, .. }), "{refusal}");
            let said = refusal.to_string();
            assert!(said.contains("ALARM") && said.contains("board/known_devices"), "{said}");
        }
    }
    let mut other = Desk::new().recipient;
    other.sealing_public_key = vec![1; 31];
    assert!(matches!(desk.refusal(&other, None), Unproven::Other { .. }), "another device's answer");
    other.device_id = desk.recipient.device_id;
    assert!(matches!(desk.refusal(&other, None), Unproven::Keys));
    let file = desk.folder.path().join("board/known_devices");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let said = desk.prove(&desk.recipient, None).unwrap_err().to_string();
    assert!(said.contains("others may write"), "{said}");
}

#[test]
fn a_slot_is_found_or_the_choices_are_named() {
    let slots = Desk::new().recipient.slots;
    let said = |target: &str| match find(&slots, target) {
        Ok(slot) => format!("{}/{}", slot.component, slot.slot),
        Err(error) => error.to_string(),
    };
    assert_eq!(said("BOT"), "slack/BOT");
    assert_eq!(said("teams/TOKEN"), "teams/TOKEN");
    assert!(said("TOKEN").ends_with("Choose one of:\n  slack/TOKEN\n  teams/TOKEN"));
    assert!(said("teams/BOT").contains("no client-supplied slot teams/BOT"));
    assert!(find(&[], "BOT").is_err());
}

#[test]
fn what_is_sealed_opens_on_the_device_and_says_until_when_it_is_good() {
    let desk = Desk::new();
    let slot = &desk.recipient.slots[0];
    let sealed = |value: &[u8]| {
        let value = Secret::new(value.to_vec());
        seal(&desk.recipient, &desk.key.public_key(), slot, &value, &SystemClock, &SystemRandom)
    };
    let paste = sealed(b"canary").unwrap();
    assert_eq!(paste.expires, desk.recipient.time.after(GOOD_FOR), "by the board's clock");
    let context = DeliveryContext {
        client_id: desk.recipient.client_id,
        device_id: desk.recipient.device_id,
        component_key: "slack",
        slot_key: "BOT",
        tag: Tag::ClientSupplied,
        version: 0,
        delivery_id: paste.delivery_id,
        expires: paste.expires,
    };
    assert_eq!(open_paste(&desk.key, &context, &paste.sealed).unwrap().expose(), b"canary");
    assert!(sealed(b"").unwrap_err().to_string().contains("empty"));
    assert!(sealed(&[0; MAX_LEN]).is_ok());
    assert!(sealed(&[0; MAX_LEN + 1]).unwrap_err().to_string().contains("16 KiB"));
}
