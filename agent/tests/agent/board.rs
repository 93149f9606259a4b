//! The real agent against a board in this process.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::catalog::Tag;
use shared::crypto::{DeliveryContext, SealingKey, SealingPublicKey, seal_delivery, verify_p256};
use shared::ids::{AttemptId, ClientId, DeliveryId, DeviceId};
use shared::protocol::inventory::{Presence, SlotState};
use shared::protocol::link::{Deliver, FromAgent, FromBoard, ReportBody};
use shared::protocol::steps::{Offer, OfferKind, Outcome};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};

use crate::support::{Board, Device};

const SECRET: &str = "sk-or-v1-0123456789abcdef";
const MANIFEST: &str = r#"
key = "router"
name = "Router"
category = "ai"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "API_KEY"
name = "x"
tag = "our-managed"
pattern = "^sk-or-v1-[0-9a-f]+$"
[[param]]
key = "WHO"
name = "x"
pattern = "^[a-z]+$"
[[step]]
id = "greet"
kind = "auto"
title = "x"
check = 'test -e "$HOME/greeted"'
run = 'echo "hello $BOARD_PARAM_WHO"; touch "$HOME/greeted"'
verify = 'test -e "$HOME/greeted"'
[[step]]
id = "leak"
kind = "auto"
title = "x"
run = 'echo "it is $API_KEY"; printf "%s" "$API_KEY" > "$HOME/key"'
verify = 'test -s "$HOME/key"'
secrets = [{ slot = "API_KEY", as = "env" }]
[[step]]
id = "slow"
kind = "auto"
title = "x"
run = 'echo started; sleep 1; echo x >> "$HOME/runs"; if [ $(wc -l < "$HOME/runs") = 1 ]; then sleep 60; fi; touch "$HOME/slow"'
verify = 'test -e "$HOME/slow"'
repeatable = true
[[wrapper]]
name = "router"
command = ["sh", "-c", 'echo "key=$ROUTER_KEY path=$PATH"; echo "$@"', "router"]
slots = { ROUTER_KEY = "API_KEY" }
[[detect]]
type = "file"
path = "~/greeted"
[[detect]]
type = "command"
argv = ["sh", "-c", "echo version 1.10.2"]
version = 'version ([0-9.]+)'
min = "1.9"
"#;

fn offer(digest: &str, step: &str) -> Offer {
    Offer {
        attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
        bundle_digest: digest.to_owned(),
        component: "router".to_owned(),
        step: step.to_owned(),
        kind: OfferKind::Run,
        params: BTreeMap::from([("WHO".to_owned(), "ann".to_owned())]),
        expires_in_ms: 60_000,
    }
}

fn sealed(board: &Board, digest: &str, version: u64, value: &str) -> Deliver {
    sealed_otherwise(board, digest, version, value, |_, _| {})
}

/// Sealed in another context, or to another key, than the frame and the device say.
fn sealed_otherwise(
    board: &Board,
    digest: &str,
    version: u64,
    value: &str,
    change: impl Fn(&mut DeliveryContext<'_>, &mut SealingPublicKey),
) -> Deliver {
    let state = board.state.lock().unwrap();
    let mut recipient = SealingPublicKey::from_bytes(&state.joins[0].sealing_public_key).unwrap();
    let mut deliver = Deliver {
        delivery_id: DeliveryId::new(&SystemClock, &SystemRandom),
        bundle_digest: digest.to_owned(),
        component: "router".to_owned(),
        slot: "API_KEY".to_owned(),
        version,
        expires: SystemClock.now().after(Duration::from_secs(60)),
        sealed: Vec::new(),
    };
    let mut context = DeliveryContext {
        client_id: state.client_id,
        device_id: state.device_id,
        component_key: &deliver.component,
        slot_key: &deliver.slot,
        tag: Tag::OurManaged,
        version,
        delivery_id: deliver.delivery_id,
        expires: deliver.expires,
    };
    change(&mut context, &mut recipient);
    deliver.sealed = seal_delivery(&recipient, &context, &Secret::new(value.as_bytes().to_vec())).unwrap();
    deliver
}

#[tokio::test]
async fn joins_when_it_is_approved() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    let mut joining = device.join(&board, "abcd2345");
    assert_eq!(joining.line().await, "Client: Acme Realty");
    let shown = joining.line().await;
    let expected = board.state.lock().unwrap().fingerprint();
    assert_eq!(shown, format!("Fingerprint: {expected}"));
    joining.line().await;

    // Killed while it waits, it goes on with the same keys.
    joining.kill().await;
    let mut joining = device.join(&board, "ABCD2345");
    joining.line().await;
    assert_eq!(joining.line().await, shown);
    joining.line().await;
    board.approve();
    assert_eq!(joining.line().await, "Approved.");
    let device_id = board.state.lock().unwrap().device_id;
    assert_eq!(joining.line().await, format!("Enrolled as device {device_id}"));
    assert_eq!(joining.end().await, Some(0));

    let (code, out, _) = device.call("status", &["--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, status["device_id"].as_str()), (Some(0), Some(&*device_id.to_string())));
    assert_eq!(device.join(&board, "ABCD2345").end().await, Some(1), "it has joined already");
}

#[tokio::test]
async fn says_why_it_may_not_join() {
    let folder = tempfile::tempdir().unwrap();
    let board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    assert_eq!(device.join(&board, "WRONGWRO").end().await, Some(1));
    let mut joining = device.join(&board, "ABCD2345");
    while !joining.line().await.starts_with("Fingerprint: ") {}
    board.reject("not ours");
    assert_eq!(joining.end().await, Some(3));
}

#[tokio::test]
async fn runs_a_step_and_reports_it_until_the_board_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(3, &[("router", MANIFEST)]);
    let mut agent = device.run();
    let (mut link, hello) = board.welcome(&digest, &["router"]).await;
    assert_eq!((hello.hardware_uuid.as_str(), hello.bundle_serial), ("test-hardware", 0));
    link.inventory(|body| presence(body) == Some(Presence::Absent)).await;

    // What came too late may be offered again.
    let greet = offer(&digest, "greet");
    link.send(FromBoard::Offer(Offer { expires_in_ms: 0, ..greet.clone() }));
    let late = link.report().await;
    assert!(matches!(&late.body, ReportBody::OfferRefused { passing: true, .. }), "{late:?}");
    link.acknowledge(&late);
    link.send(FromBoard::Offer(greet.clone()));
    let reports = [link.report().await, link.report().await, link.report().await];
    assert!(
        matches!(&reports[0].body, ReportBody::AttemptStarted { attempt_id } if *attempt_id == greet.attempt_id)
    );
    assert!(
        matches!(&reports[1].body, ReportBody::Output(chunk) if chunk.text == "hello ann\n" && chunk.seq == 0)
    );
    assert!(
        matches!(&reports[2].body, ReportBody::AttemptEnded(end) if end.outcome == Outcome::Succeeded && end.exit_code == Some(0))
    );

    // Only the first was acknowledged when the link broke: the others come again, in order.
    link.acknowledge(&reports[0]);
    link.inventory(|body| presence(body) == Some(Presence::Present)).await;
    drop(link);
    let (mut link, hello) = board.welcome(&digest, &["router"]).await;
    assert_eq!((hello.bundle_serial, hello.audit_head.map(|head| head.seq)), (3, Some(42)));
    assert_eq!([link.report().await, link.report().await], reports[1..]);
    link.acknowledge(&reports[1]);
    link.acknowledge(&reports[2]);

    // The same offer again isn't run again; its end is told again, as the same report.
    link.send(FromBoard::Offer(greet));
    assert_eq!(link.report().await, reports[2]);
    link.acknowledge(&reports[2]);

    // Another attempt of it finds that it is so already.
    link.send(FromBoard::Offer(offer(&digest, "greet")));
    link.report().await;
    assert!(
        matches!(link.report().await.body, ReportBody::AttemptEnded(end) if end.outcome == Outcome::AlreadySo)
    );

    link.send(FromBoard::Offer(offer(&digest, "unheard-of")));
    assert!(matches!(link.report().await.body, ReportBody::OfferRefused { .. }));
    link.send(FromBoard::Unknown);
    while !matches!(link.frame().await, FromAgent::Refused(refused) if refused.what == "unknown frame") {}

    let (code, out, _) = device.call("inventory", &["--json"]).await;
    let inventory: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(inventory["components"][0]["presence"], "present");
    assert_eq!(inventory["components"][0]["version"], "1.10.2");
    assert_eq!(inventory["slots"][0]["state"], "empty");

    let (code, _, err) = device.call("run", &[]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("another board-agent runs"), "{err}");
    agent.terminate();
    assert_eq!(agent.end().await, Some(0));
}

#[tokio::test]
async fn keeps_secrets_for_those_who_may_have_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("router", MANIFEST)]);
    let _agent = device.run();
    let (mut link, _) = board.welcome(&digest, &["router"]).await;
    link.inventory(|_| true).await;

    let (code, _, err) = device.call("exec", &["--for", "router", "--", "true"]).await;
    assert_eq!(code, Some(5), "{err}");
    link.send(FromBoard::Offer(offer(&digest, "leak")));
    assert!(matches!(link.report().await.body, ReportBody::OfferRefused { .. }));

    let delivery = sealed(&board, &digest, 2, SECRET);
    link.send(FromBoard::Deliver(delivery.clone()));
    let first = link.report().await;
    let ReportBody::Receipt(receipt) = &first.body else { panic!("{first:?}") };
    let (spki, message) = {
        let state = board.state.lock().unwrap();
        (state.spki.clone(), receipt.signed_bytes(state.board_id, state.device_id))
    };
    verify_p256(&spki, &message, &receipt.signature).unwrap();
    link.acknowledge(&first);
    link.send(FromBoard::Deliver(delivery.clone()));
    assert_eq!(link.report().await, first, "the same delivery, the same receipt");

    let mut moved = sealed(&board, &digest, 3, SECRET);
    moved.version = 4;
    let misdirected = |change: fn(&mut DeliveryContext<'_>, &mut SealingPublicKey)| {
        sealed_otherwise(&board, &digest, 3, SECRET, change)
    };
    for bad in [
        sealed(&board, &digest, 1, SECRET),
        sealed(&board, &digest, 3, "nonsense"),
        moved,
        misdirected(|context, _| context.device_id = DeviceId::new(&SystemClock, &SystemRandom)),
        misdirected(|context, _| context.client_id = ClientId::new(&SystemClock, &SystemRandom)),
        misdirected(|context, _| context.slot_key = "OTHER_KEY"),
        misdirected(|context, _| context.component_key = "other"),
        misdirected(|context, _| context.tag = Tag::ClientSupplied),
        misdirected(|_, recipient| *recipient = SealingKey::generate(&SystemRandom).public_key()),
    ] {
        link.send(FromBoard::Deliver(bad.clone()));
        link.send(FromBoard::Deliver(bad.clone()));
        let (refused, again) = (link.report().await, link.report().await);
        assert!(refused.id != again.id && refused.body == again.body, "judged afresh");
        assert!(matches!(&refused.body, ReportBody::DeliveryRefused { delivery_id, reason, passing: false }
            if *delivery_id == bad.delivery_id && !reason.contains("nonsense")));
    }
    link.inventory(|body| {
        matches!(body, ReportBody::Inventory { slots, .. }
            if slots[0].state == SlotState::Present && slots[0].version == Some(2))
    })
    .await;

    link.send(FromBoard::Offer(offer(&digest, "leak")));
    link.report().await;
    let output = link.report().await;
    assert!(matches!(&output.body, ReportBody::Output(chunk) if chunk.text == "it is ••••\n"), "{output:?}");
    assert!(
        matches!(link.report().await.body, ReportBody::AttemptEnded(end) if end.outcome == Outcome::Succeeded)
    );
    assert_eq!(std::fs::read_to_string(device.data.join("home/key")).unwrap(), SECRET);

    let wrapper = device.data.join("wrappers/router");
    let output = tokio::process::Command::new(wrapper).arg("one more").env_clear().output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with(&format!("key={SECRET} path=")) && said.contains("/home/.npm-global/bin:"),
        "{said}"
    );
    assert!(said.ends_with("\none more\n"));

    drop(link);
    let (_link, hello) = board.welcome(&digest, &["router"]).await;
    assert_eq!((hello.secrets[0].slot.as_str(), hello.secrets[0].version), ("API_KEY", 2));
    for entry in walk(&device.data) {
        if !entry.starts_with(device.data.join("vault")) && !entry.ends_with("home/key") {
            let content = std::fs::read(&entry).unwrap_or_default();
            assert!(!content.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "{}", entry.display());
        }
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_a_step_it_finds_out_and_goes_on() {
    interrupted(true).await;
}

#[tokio::test]
async fn stopped_in_the_middle_of_a_step_it_goes_on_at_the_next_start() {
    interrupted(false).await;
}

async fn interrupted(killed: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("router", MANIFEST)]);
    let mut agent = device.run();
    let (mut link, _) = board.welcome(&digest, &["router"]).await;
    let slow = offer(&digest, "slow");
    link.send(FromBoard::Offer(slow.clone()));
    let started = link.report().await;
    link.acknowledge(&started);
    let output = link.report().await;
    link.acknowledge(&output);
    let runs = device.data.join("home/runs");
    while !runs.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if killed {
        agent.kill().await;
    } else {
        agent.terminate();
        assert_eq!(agent.end().await, Some(0));
    }
    drop(link);

    let _agent = device.run();
    let (mut link, hello) = board.welcome(&digest, &["router"]).await;
    assert_eq!(hello.attempts, [slow.attempt_id]);
    link.send(FromBoard::Offer(slow));
    let output = link.report().await;
    assert!(matches!(&output.body, ReportBody::Output(chunk) if chunk.seq == 1), "{output:?}");
    assert!(
        matches!(link.report().await.body, ReportBody::AttemptEnded(end) if end.outcome == Outcome::Succeeded)
    );
    assert_eq!(std::fs::read_to_string(runs).unwrap().lines().count(), 2);
}

fn presence(body: &ReportBody) -> Option<Presence> {
    if let ReportBody::Inventory { components, .. } = body { Some(components[0].presence) } else { None }
}

pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
