//! Sealing against published vectors, against frozen bytes, and with every field of what it is bound to changed.

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::seal::{DELIVER, PASTE, open};
use super::{
    DeliveryContext, OpenError, SEALED_EXTRA, SealError, SealingKey, SealingPublicKey, hex, open_delivery,
    open_paste, seal_delivery, seal_paste,
};
use crate::catalog::Tag;
use crate::secret::Secret;
use crate::time::Timestamp;

fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// From the vectors that RFC 9180 refers to: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, the first
/// encryption. The browser's half is checked against the same file.
#[test]
fn what_rfc_9180_sealed_opens() {
    let vector: Value =
        serde_json::from_str(include_str!("../../testdata/vectors/hpke-rfc9180.json")).unwrap();
    let field = |name: &str| unhex(&vector[name]);
    let key = SealingKey::from_bytes(field("skRm").try_into().unwrap());
    assert_eq!(key.public_key().as_bytes().as_slice(), field("pkRm"));
    let sealed = [b"BSD1".to_vec(), field("enc"), field("ct")].concat();
    let opened = open(&key, &field("info"), &field("aad"), &sealed).unwrap();
    assert_eq!(opened.expose(), &field("pt"));
    assert_eq!(sealed.len(), opened.expose().len() + SEALED_EXTRA);
    for (info, aad) in [("aad", "aad"), ("info", "info")] {
        assert_eq!(open(&key, &field(info), &field(aad), &sealed).unwrap_err(), OpenError);
    }
}

/// The bytes that a delivery and a paste are bound to, for whoever writes them in another language.
#[test]
fn what_a_sealed_value_is_bound_to_is_frozen() {
    let id = |last: u8| Uuid::from_bytes([[1; 15].as_slice(), &[last]].concat().try_into().unwrap());
    let key = SealingKey::from_bytes([5; 32]).public_key();
    let context = DeliveryContext {
        client_id: id(1).into(),
        device_id: id(2).into(),
        component_key: "slack",
        slot_key: "SLACK_BOT_TOKEN",
        tag: Tag::ClientSupplied,
        version: 0,
        delivery_id: id(3).into(),
        expires: Timestamp::from_micros(1_764_000_000_000_001),
    };
    let bound = json!({
        "client": context.client_id,
        "device": context.device_id,
        "component": context.component_key,
        "slot": context.slot_key,
        "delivery": context.delivery_id,
        "expires": context.expires,
        "key": hex(key.as_bytes()),
        "info_deliver": hex(&context.info(DELIVER, &key)),
        "info_paste": hex(&context.info(PASTE, &key)),
        "aad": hex(&context.aad()),
    });
    let frozen: Value = serde_json::from_str(include_str!("../../testdata/sealing.json")).unwrap();
    assert_eq!(bound, frozen, "{bound:#}");
}

type Seal = fn(&SealingPublicKey, &DeliveryContext<'_>, &Secret<Vec<u8>>) -> Result<Vec<u8>, SealError>;
type Open = fn(&SealingKey, &DeliveryContext<'_>, &[u8]) -> Result<Secret<Vec<u8>>, OpenError>;

/// Both ways, each with the other's opening.
const WAYS: [(Seal, Open, Open); 2] =
    [(seal_delivery, open_delivery, open_paste), (seal_paste, open_paste, open_delivery)];

/// Everything that a value is bound to beside the label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    client: [u8; 16],
    device: [u8; 16],
    component: String,
    slot: String,
    ours: bool,
    version: u64,
    delivery: [u8; 16],
    expires: i64,
    key: [u8; 32],
}

impl Bound {
    fn any() -> impl Strategy<Value = Self> {
        let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
        let names = ("[a-z][a-z0-9_]{0,39}", "[A-Z][A-Z0-9_]{0,39}");
        let rest = (any::<bool>(), any::<u64>(), 0..i64::MAX, any::<[u8; 32]>());
        (ids, names, rest).prop_map(
            |((client, device, delivery), (component, slot), (ours, version, expires, key))| Self {
                client,
                device,
                component,
                slot,
                ours,
                version,
                delivery,
                expires,
                key,
            },
        )
    }

    fn context(&self) -> DeliveryContext<'_> {
        // Every field by name: one that is added doesn't compile until it is changed below, too.
        let Self { client, device, component, slot, ours, version, delivery, expires, key: _ } = self;
        DeliveryContext {
            client_id: Uuid::from_bytes(*client).into(),
            device_id: Uuid::from_bytes(*device).into(),
            component_key: component,
            slot_key: slot,
            tag: if *ours { Tag::OurManaged } else { Tag::ClientSupplied },
            version: *version,
            delivery_id: Uuid::from_bytes(*delivery).into(),
            expires: Timestamp::from_micros(*expires),
        }
    }

    /// Each with one thing of the other in it, and with a letter that moved over the border of two fields.
    fn changed(&self, other: &Self) -> Vec<Self> {
        let mut moved = self.clone();
        moved.slot.insert(0, moved.component.pop().unwrap_or('x'));
        let mut all = vec![
            Self { client: other.client, ..self.clone() },
            Self { device: other.device, ..self.clone() },
            Self { component: other.component.clone(), ..self.clone() },
            Self { slot: other.slot.clone(), ..self.clone() },
            Self { ours: !self.ours, ..self.clone() },
            Self { version: other.version, ..self.clone() },
            Self { version: self.version ^ 1, ..self.clone() },
            Self { delivery: other.delivery, ..self.clone() },
            Self { expires: other.expires, ..self.clone() },
            Self { expires: self.expires ^ 1, ..self.clone() },
            Self { key: other.key, ..self.clone() },
            moved,
        ];
        all.retain(|changed| changed != self);
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_opens_with_every_field_as_it_was_and_with_none_changed(
        bound in Bound::any(),
        other in Bound::any(),
        value in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        for (seal, open, other_open) in WAYS {
            let key = SealingKey::from_bytes(bound.key);
            let value = Secret::new(value.clone());
            let sealed = seal(&key.public_key(), &bound.context(), &value).unwrap();
            let opened = open(&key, &bound.context(), &sealed).unwrap();
            prop_assert_eq!(opened.expose(), value.expose());
            prop_assert!(other_open(&key, &bound.context(), &sealed).is_err(), "the other label");
            let changed = bound.changed(&other);
            prop_assert!(changed.len() >= 10, "{changed:?}");
            for changed in changed {
                let key = SealingKey::from_bytes(changed.key);
                prop_assert!(open(&key, &changed.context(), &sealed).is_err(), "{changed:?}");
            }
        }
    }
}
