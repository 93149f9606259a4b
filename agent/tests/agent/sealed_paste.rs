//! A value that a consultant sealed to the device elsewhere, as the board passes it on.

use std::time::Duration;

use shared::catalog::Tag;
use shared::crypto::{DeliveryContext, SealingPublicKey, seal_delivery, seal_paste};
use shared::ids::{AttemptId, ClientId, DeliveryId, DeviceId};
use shared::protocol::inventory::SlotState;
use shared::protocol::link::{FromAgent, FromBoard, Paste, Pasted, ReportBody};
use shared::protocol::steps::{Offer, OfferKind};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};

use crate::board::walk;
use crate::paste::{SECRET, Site, site, state};
use crate::support::Link;

/// What a consultant's computer does.
struct Desk {
    context: DeliveryContext<'static>,
    key: SealingPublicKey,
}

impl Desk {
    fn of(site: &Site) -> Self {
        let state = site.board.state.lock().unwrap();
        let context = DeliveryContext {
            client_id: state.client_id,
            device_id: state.device_id,
            component_key: "slack",
            slot_key: "BOT_TOKEN",
            tag: Tag::ClientSupplied,
            version: 0,
            delivery_id: DeliveryId::new(&SystemClock, &SystemRandom),
            expires: SystemClock.now().after(Duration::from_secs(60)),
        };
        let key = SealingPublicKey::from_bytes(&state.joins[0].sealing_public_key).unwrap();
        Self { context, key }
    }

    fn seal(&self, value: &str) -> Paste {
        self.frame(seal_paste(&self.key, &self.context, &Secret::new(value.into())).unwrap())
    }

    fn frame(&self, sealed: Vec<u8>) -> Paste {
        let context = &self.context;
        Paste {
            delivery_id: context.delivery_id,
            component: context.component_key.to_owned(),
            slot: context.slot_key.to_owned(),
            expires: context.expires,
            sealed,
        }
    }
}

/// Sends it, and gives the device's word.
async fn word(link: &mut Link, paste: Paste) -> Option<String> {
    let sent = paste.delivery_id;
    link.send(FromBoard::Paste(paste));
    loop {
        match link.frame().await {
            FromAgent::Pasted(Pasted { delivery_id, refused }) => {
                assert_eq!(delivery_id, sent);
                return refused;
            }
            FromAgent::Report(report) => {
                let about_it =
                    matches!(report.body, ReportBody::Inventory { .. } | ReportBody::Replaced { .. });
                assert!(about_it, "{report:?}");
                link.acknowledge(&report);
            }
            other @ (FromAgent::Hello(_)
            | FromAgent::Leave(_)
            | FromAgent::Refused(_)
            | FromAgent::Unknown) => panic!("{other:?}"),
        }
    }
}

/// Whether the daemon's own list says that the slot is filled.
async fn is_filled(site: &Site, slot: &str) -> bool {
    let (_, out, _) = site.device.call("paste", &["--list"]).await;
    out.lines().any(|line| line.contains(slot) && line.contains("filled"))
}

#[tokio::test]
async fn a_sealed_value_is_there_before_the_device_says_so_and_its_ciphertext_stays_nowhere() {
    let (site, mut link) = site().await;
    let paste = Desk::of(&site).seal(SECRET);
    let sealed = paste.sealed.clone();
    link.send(FromBoard::Paste(paste));
    link.inventory(|body| state(body, "slack/BOT_TOKEN") == Some((SlotState::Present, None))).await;
    let answer = loop {
        if let FromAgent::Pasted(pasted) = link.frame().await {
            break pasted;
        }
    };
    assert_eq!(answer.refused, None);
    let (code, out, err) = site.device.call("exec", &["--for", "slack", "--", "printenv", "TOKEN"]).await;
    assert_eq!((code, out.trim()), (Some(0), SECRET), "{err}");
    // What a step prints of it is masked, as with every value that the device holds.
    link.send(FromBoard::Offer(Offer {
        attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
        bundle_digest: site.digest.clone(),
        component: "slack".to_owned(),
        step: "use".to_owned(),
        kind: OfferKind::Run,
        params: [].into(),
        expires_in_ms: 60_000,
    }));
    link.report().await;
    let output = link.report().await;
    assert!(matches!(&output.body, ReportBody::Output(chunk) if chunk.text == "it is ••••\n"), "{output:?}");
    for file in walk(site.folder.path()) {
        let content = std::fs::read(&file).unwrap_or_default();
        let holds = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
        let in_vault = file.starts_with(site.device.data.join("vault")) || file.ends_with("home/used");
        assert!(in_vault || !holds(SECRET.as_bytes()), "{}", file.display());
        assert!(!holds(&sealed[40..]), "the ciphertext is in {}", file.display());
    }
}

#[tokio::test]
async fn what_is_not_for_this_device_this_slot_and_this_moment_is_refused_and_changes_nothing() {
    let (site, mut link) = site().await;
    let desk = || Desk::of(&site);
    let other = |change: fn(&mut DeliveryContext<'static>)| {
        let mut sender = desk();
        change(&mut sender.context);
        let sealed = sender.seal(SECRET).sealed;
        desk().frame(sealed)
    };
    let mut cases = vec![
        (
            other(|context| context.client_id = ClientId::new(&SystemClock, &SystemRandom)),
            "sealed for another device, client or slot",
        ),
        (
            other(|context| context.device_id = DeviceId::new(&SystemClock, &SystemRandom)),
            "sealed for another device, client or slot",
        ),
        (other(|context| context.slot_key = "SHARED"), "sealed for another device, client or slot"),
        (desk().seal("hunter2hunter2"), "this is no Slack bot token"),
        (desk().seal(""), "the value is empty"),
        (desk().frame(vec![0; 60]), "can't be opened"),
        (desk().frame(Vec::new()), "can't be opened"),
    ];
    let as_delivery = desk();
    let sealed = seal_delivery(&as_delivery.key, &as_delivery.context, &Secret::new(SECRET.into())).unwrap();
    cases.push((as_delivery.frame(sealed), "can't be opened"));
    for (slot, words) in [("LICENCE", "delivered by the board"), ("TYPO", "scope has no slot slack/TYPO")] {
        let mut wrong = desk();
        wrong.context.slot_key = slot;
        cases.push((wrong.seal(SECRET), words));
    }
    let mut late = desk();
    late.context.expires = SystemClock.now().before(Duration::from_secs(5));
    cases.push((late.seal(SECRET), "came too late"));
    for (paste, words) in cases {
        let refused = word(&mut link, paste).await.unwrap_or_else(|| panic!("{words}: it was taken"));
        assert!(refused.contains(words) && !refused.contains("hunter2"), "{refused}");
    }
    assert!(!is_filled(&site, "BOT_TOKEN").await);
    // None of that stands in the way of the right one.
    assert_eq!(word(&mut link, desk().seal(SECRET)).await, None);
    assert!(is_filled(&site, "BOT_TOKEN").await);
}

#[tokio::test]
async fn the_same_paste_again_is_refused_and_the_newer_value_stays() {
    let (site, mut link) = site().await;
    let first = Desk::of(&site).seal(SECRET);
    assert_eq!(word(&mut link, first.clone()).await, None);
    let newer = SECRET.replace("0123", "9876");
    assert_eq!(word(&mut link, Desk::of(&site).seal(&newer)).await, None);
    let refused = word(&mut link, first).await.unwrap();
    assert!(refused.contains("came before"), "{refused}");
    let (_, out, _) = site.device.call("exec", &["--for", "slack", "--", "printenv", "TOKEN"]).await;
    assert_eq!(out.trim(), newer);
}

#[tokio::test]
async fn the_device_shows_the_fingerprint_that_joining_showed() {
    let (site, _link) = site().await;
    let expected = site.board.state.lock().unwrap().fingerprint().to_string();
    let (_, out, _) = site.device.call("status", &[]).await;
    assert!(out.contains(&format!("Fingerprint   {expected}\n")), "{out}");
    let (_, out, _) = site.device.call("status", &["--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(status["fingerprint"], expected.as_str());
}
