//! Plans by the real agent: only checks run, what they say is masked, an attempt comes first, a kill forgets.

use std::time::{Duration, Instant};

use shared::crypto::SealingPublicKey;
use shared::ids::{AttemptId, DeliveryId, PlanId};
use shared::protocol::link::{Deliver, FromBoard, ReportBody};
use shared::protocol::plan::{PlanEnded, PlanRequest, Planned, PlannedStep, StepName};
use shared::protocol::steps::{Offer, OfferKind, Outcome};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};

use crate::support::{Board, Device, Link};

const SECRET: &str = "sk-or-v1-0123456789abcdef";

/// Whatever isn't a check leaves a mark.
const MANIFEST: &str = r#"
key = "x"
name = "x"
category = "ai"
summary = "x"
platforms = ["linux", "macos"]
[[slot]]
key = "KEY"
name = "x"
tag = "our-managed"
[[param]]
key = "WHO"
name = "x"
pattern = "^[a-z]+$"
[[download]]
name = "tool.pkg"
url = "https://downloads.example.com/tool.pkg"
sha256 = "abababababababababababababababababababababababababababababababab"
[[step]]
id = "so"
kind = "auto"
title = "x"
check = 'echo "it is so, $BOARD_PARAM_WHO, attempt ${BOARD_ATTEMPT:+marked}"; test "$PWD" = "$HOME"'
run = 'touch "$HOME/ran-so"'
verify = 'touch "$HOME/verified-so"'
undo = 'touch "$HOME/undone-so"'
[[step]]
id = "not_so"
kind = "auto"
title = "x"
check = 'echo "looked $(cat "$HOME/said")"; test -e "$HOME/ran-not_so"'
run = 'touch "$HOME/ran-not_so"'
verify = 'touch "$HOME/verified-not_so"; test -e "$HOME/ran-not_so"'
undo = 'touch "$HOME/undone-not_so"'
repeatable = true
[[step]]
id = "quiet"
kind = "auto"
title = "x"
check = 'echo private; exit 3'
run = 'touch "$HOME/ran-quiet"'
output = "none"
[[step]]
id = "unchecked"
kind = "auto"
title = "x"
run = 'touch "$HOME/ran-unchecked"'
verify = 'touch "$HOME/verified-unchecked"'
[[step]]
id = "secret"
kind = "auto"
title = "x"
check = 'touch "$HOME/checked-secret"'
run = 'touch "$HOME/ran-secret"'
secrets = [{ slot = "KEY", as = "file" }]
[[step]]
id = "fetched"
kind = "auto"
title = "x"
check = 'touch "$HOME/checked-fetched"; test -e "$BOARD_CACHE/tool.pkg"'
run = 'touch "$HOME/ran-fetched"'
[[step]]
id = "killed"
kind = "auto"
title = "x"
check = 'kill -9 $$'
run = 'touch "$HOME/ran-killed"'
[[step]]
id = "slow"
kind = "auto"
title = "x"
check = 'touch "$HOME/slow-looks"; sleep 50'
run = 'touch "$HOME/ran-slow"'
"#;

struct Planning {
    board: Board,
    device: Device,
    digest: String,
    _folder: tempfile::TempDir,
}

impl Planning {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::start(folder.path()).await;
        let device = Device::new(folder.path());
        device.enroll(&board).await;
        let digest = board.publish(1, &[("x", MANIFEST)]);
        Self { board, device, digest, _folder: folder }
    }

    fn request(&self, steps: &[&str]) -> PlanRequest {
        let name = |step: &&str| StepName { component: "x".to_owned(), step: (*step).to_owned() };
        PlanRequest {
            plan_id: PlanId::new(&SystemClock, &SystemRandom),
            bundle_digest: self.digest.clone(),
            steps: steps.iter().map(name).collect(),
            params: [("x".to_owned(), [("WHO".to_owned(), "ann".to_owned())].into())].into(),
        }
    }

    fn offer(&self, step: &str) -> Offer {
        Offer {
            attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
            bundle_digest: self.digest.clone(),
            component: "x".to_owned(),
            step: step.to_owned(),
            kind: OfferKind::Run,
            params: [("WHO".to_owned(), "ann".to_owned())].into(),
            expires_in_ms: 60_000,
        }
    }

    /// Puts the secret on the device.
    async fn deliver(&self, link: &mut Link) {
        use shared::catalog::Tag;
        use shared::crypto::{DeliveryContext, seal_delivery};
        let mut deliver = Deliver {
            delivery_id: DeliveryId::new(&SystemClock, &SystemRandom),
            bundle_digest: self.digest.clone(),
            component: "x".to_owned(),
            slot: "KEY".to_owned(),
            version: 1,
            expires: SystemClock.now().after(Duration::from_secs(60)),
            sealed: Vec::new(),
        };
        {
            let state = self.board.state.lock().unwrap();
            let recipient = SealingPublicKey::from_bytes(&state.joins[0].sealing_public_key).unwrap();
            let context = DeliveryContext {
                client_id: state.client_id,
                device_id: state.device_id,
                component_key: &deliver.component,
                slot_key: &deliver.slot,
                tag: Tag::OurManaged,
                version: 1,
                delivery_id: deliver.delivery_id,
                expires: deliver.expires,
            };
            let value = Secret::new(SECRET.as_bytes().to_vec());
            deliver.sealed = seal_delivery(&recipient, &context, &value).unwrap();
        }
        link.send(FromBoard::Deliver(deliver));
        let report = link.report().await;
        assert!(matches!(report.body, ReportBody::Receipt(_)), "{report:?}");
        link.acknowledge(&report);
    }

    fn home(&self) -> std::path::PathBuf {
        self.device.data.join("home")
    }

    /// What scripts left in the home.
    fn marks(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.home()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| {
            ["ran", "verified", "undone", "checked"].iter().any(|mark| name.starts_with(mark))
        });
        names.sort();
        names
    }

    async fn looks_slowly(&self) {
        let began = Instant::now();
        while !self.home().join("slow-looks").exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "the check doesn't start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The plan's reports up to its end, each acknowledged.
async fn planned(link: &mut Link) -> (Vec<PlannedStep>, PlanEnded) {
    let mut steps = Vec::new();
    loop {
        let report = link.report().await;
        link.acknowledge(&report);
        if let ReportBody::PlanStep(step) = report.body {
            steps.push(step);
        } else if let ReportBody::PlanEnded(ended) = report.body {
            return (steps, ended);
        } else {
            panic!("{report:?}");
        }
    }
}

#[tokio::test]
async fn a_plan_runs_checks_and_nothing_else_and_masks_what_they_say() {
    let mut all = Planning::new().await;
    let mut running = all.device.run();
    let (mut link, hello) = all.board.welcome(&all.digest.clone(), &["x"]).await;
    assert_eq!(hello.plans, Some(Vec::new()), "it says that it knows plans");
    all.deliver(&mut link).await;
    std::fs::write(all.home().join("said"), SECRET).unwrap();
    let names = ["so", "not_so", "quiet", "unchecked", "secret", "fetched", "killed"];
    let request = all.request(&names);
    link.send(FromBoard::Plan(request.clone()));
    let (steps, ended) = planned(&mut link).await;
    assert_eq!(ended, PlanEnded { plan_id: request.plan_id, stopped: None });
    let expected = [
        (Planned::AlreadySo, "it is so, ann, attempt marked"),
        (Planned::WouldRun, "looked ••••"),
        (Planned::WouldRun, "exit code 3"),
        (Planned::NoCheck, ""),
        (Planned::NotYet, "a plan opens no secret"),
        (Planned::NotYet, "its check needs tool.pkg"),
        (Planned::Unknown, "ended by signal 9"),
    ];
    assert_eq!(steps.len(), expected.len());
    for ((step, name), (answer, found)) in steps.iter().zip(names).zip(expected) {
        assert_eq!((step.step.as_str(), step.plan_id), (name, request.plan_id));
        assert_eq!(step.answer, answer, "{step:?}");
        assert!(step.found.contains(found), "{step:?}");
        assert!(!step.found.contains(SECRET) && !step.found.contains("private"), "{step:?}");
    }
    assert_eq!(all.marks(), Vec::<String>::new(), "nothing but checks ran");
    let cache = std::fs::read_dir(all.device.data.join("cache")).map_or(0, |files| files.count());
    assert_eq!(cache, 0, "nothing was fetched");

    // An attempt of the same step runs as ever.
    let offer = all.offer("not_so");
    link.send(FromBoard::Offer(offer.clone()));
    let ended = loop {
        let report = link.report().await;
        link.acknowledge(&report);
        if let ReportBody::AttemptEnded(ended) = report.body {
            break ended;
        }
    };
    assert_eq!(ended.outcome, Outcome::Succeeded, "{ended:?}");
    assert_eq!(all.marks(), ["ran-not_so", "verified-not_so"]);
    running.terminate();
    assert_eq!(running.end().await, Some(0));
}

#[tokio::test]
async fn a_plan_gives_way_to_an_attempt() {
    let mut all = Planning::new().await;
    let mut running = all.device.run();
    let (mut link, _) = all.board.welcome(&all.digest.clone(), &["x"]).await;
    let request = all.request(&["so", "slow", "not_so"]);
    link.send(FromBoard::Plan(request.clone()));
    all.looks_slowly().await;
    let offer = all.offer("not_so");
    let began = Instant::now();
    link.send(FromBoard::Offer(offer.clone()));
    let (steps, ended) = planned(&mut link).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the check that ran was ended");
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(ended.stopped.unwrap().contains("comes first"));
    let report = link.report().await;
    assert_eq!(report.body, ReportBody::AttemptStarted { attempt_id: offer.attempt_id });
    running.terminate();
    assert_eq!(running.end().await, Some(0));
    assert!(!all.home().join("ran-slow").exists());
}

#[tokio::test]
async fn an_agent_that_is_stopped_says_so_and_one_that_is_killed_forgets() {
    let mut all = Planning::new().await;
    let mut running = all.device.run();
    let digest = all.digest.clone();
    let (link, _) = all.board.welcome(&digest, &["x"]).await;
    let request = all.request(&["slow"]);
    link.send(FromBoard::Plan(request.clone()));
    all.looks_slowly().await;
    running.kill().await;
    drop(link);
    let mut running = all.device.run();
    let (link, hello) = all.board.welcome(&digest, &["x"]).await;
    assert_eq!(hello.plans, Some(Vec::new()), "forgotten");

    std::fs::remove_file(all.home().join("slow-looks")).unwrap();
    link.send(FromBoard::Plan(request.clone()));
    all.looks_slowly().await;
    // The same plan again is the same plan; a new link finds it under way.
    link.send(FromBoard::Plan(request.clone()));
    drop(link);
    let (mut link, hello) = all.board.welcome(&digest, &["x"]).await;
    assert_eq!(hello.plans, Some(vec![request.plan_id]));
    running.terminate();
    assert_eq!(running.end().await, Some(0));
    while let Some(frame) = link.next().await {
        drop(frame);
    }
    let mut running = all.device.run();
    let (mut link, _) = all.board.welcome(&digest, &["x"]).await;
    let (steps, ended) = planned(&mut link).await;
    assert!(steps.is_empty(), "{steps:?}");
    assert_eq!(ended, PlanEnded { plan_id: request.plan_id, stopped: Some("the agent was stopped".into()) });
    running.terminate();
    assert_eq!(running.end().await, Some(0));
}
