//! The agent is killed again and again while it runs a runbook. The board, as always, offers an attempt until it has
//! its end, and applies each report once.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use shared::ids::{AttemptId, ReportId};
use shared::protocol::link::{FromAgent, FromBoard, Report, ReportBody};
use shared::protocol::steps::{Offer, OfferKind, Outcome};
use shared::random::{self, SystemRandom};
use shared::time::SystemClock;
use tokio::time::timeout;

use crate::support::{Board, Device, Link};

const STEPS: u64 = 8;
const KILLS: u32 = 20;
const AT_MOST: Duration = Duration::from_secs(60);

/// Each step leaves one line, if its check finds that it isn't there.
fn manifest() -> String {
    let mut text =
        "key = \"x\"\nname = \"x\"\ncategory = \"ai\"\nsummary = \"x\"\nplatforms = [\"linux\", \"macos\"]\n\
        [[param]]\nkey = \"ROUND\"\nname = \"x\"\npattern = \"^[0-9]+$\"\n"
            .to_owned();
    for step in 0..STEPS {
        write!(
            text,
            r#"
[[step]]
id = "s{step}"
kind = "auto"
title = "x"
check = 'grep -qx "$BOARD_PARAM_ROUND s{step}" "$HOME/effects" 2>/dev/null'
run = '''
echo begins; sleep 0.1
echo "$BOARD_PARAM_ROUND s{step}" >> "$HOME/effects"
sleep 0.1; echo ends
'''
verify = 'grep -qx "$BOARD_PARAM_ROUND s{step}" "$HOME/effects"'
repeatable = true
"#
        )
        .unwrap();
    }
    text
}

/// Small, and the same again from the same seed.
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("KILL_SEED").map_or_else(
            |_| u64::from_be_bytes(random::bytes::<8>(&SystemRandom)),
            |seed| seed.parse().unwrap(),
        );
        Self { seed, state: seed }
    }

    /// SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with KILL_SEED={}", self.seed);
        }
    }
}

/// What the board has committed.
struct Committed {
    digest: String,
    reports: HashMap<ReportId, Report>,
    /// In the order in which they came first.
    told: HashMap<AttemptId, Vec<ReportBody>>,
    attempts: Vec<Offer>,
}

impl Committed {
    fn offer_next(&mut self) {
        let number = self.attempts.len() as u64;
        self.attempts.push(Offer {
            attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
            bundle_digest: self.digest.clone(),
            component: "x".to_owned(),
            step: format!("s{}", number % STEPS),
            kind: OfferKind::Run,
            params: BTreeMap::from([("ROUND".to_owned(), (number / STEPS).to_string())]),
            expires_in_ms: 60_000,
        });
    }

    fn current(&self) -> Offer {
        self.attempts.last().unwrap().clone()
    }

    /// The runbook is done, as often as it was begun.
    fn round_is_done(&self) -> bool {
        self.attempts.len() as u64 % STEPS == 1 && self.told_of(&self.current()).is_empty()
    }

    fn told_of(&self, offer: &Offer) -> &[ReportBody] {
        self.told.get(&offer.attempt_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether it ended the attempt that is running.
    fn apply(&mut self, report: Report) -> bool {
        let attempt_id = match &report.body {
            ReportBody::AttemptStarted { attempt_id } | ReportBody::OfferRefused { attempt_id, .. } => {
                *attempt_id
            }
            ReportBody::Output(chunk) => chunk.attempt_id,
            ReportBody::AttemptEnded(ended) => ended.attempt_id,
            ReportBody::Receipt(_)
            | ReportBody::PlanStep(_)
            | ReportBody::PlanEnded(_)
            | ReportBody::DeliveryRefused { .. }
            | ReportBody::Inventory { .. }
            | ReportBody::Wiped(_)
            | ReportBody::CaPinned { .. }
            | ReportBody::Replaced { .. }
            | ReportBody::Release(_)
            | ReportBody::Unknown => return false,
        };
        if let Some(known) = self.reports.get(&report.id) {
            assert_eq!(*known, report, "one id, one report");
            return false;
        }
        let is_end = is_end(&report.body);
        self.told.entry(attempt_id).or_default().push(report.body.clone());
        self.reports.insert(report.id, report);
        is_end && attempt_id == self.current().attempt_id
    }

    /// Until nobody polls it any more, or a whole round is done and `finish` asked for that.
    async fn serve(&mut self, board: &mut Board, chance: &mut Chance, finish: bool) {
        loop {
            let mut link = board.raw_link().await;
            if !matches!(link.next().await, Some(FromAgent::Hello(_))) {
                continue;
            }
            link.try_send(board.welcome_frame(&self.digest, &["x"]));
            link.try_send(FromBoard::Offer(self.current()));
            while let Some(frame) = link.next().await {
                if let FromAgent::Report(report) = frame {
                    self.report(&link, report, chance);
                }
                if finish && self.round_is_done() {
                    return;
                }
            }
        }
    }

    fn report(&mut self, link: &Link, report: Report, chance: &mut Chance) {
        let id = report.id;
        if self.apply(report) {
            self.offer_next();
            link.try_send(FromBoard::Offer(self.current()));
        }
        // Committed, but the acknowledgement is lost now and then: it must come again over the next link.
        if chance.below(8) > 0 {
            link.try_send(FromBoard::Ack { reports: vec![id] });
        }
    }
}

fn is_end(body: &ReportBody) -> bool {
    matches!(body, ReportBody::AttemptEnded(_) | ReportBody::OfferRefused { .. })
}

#[tokio::test]
async fn killed_at_any_moment_every_effect_happens_once_and_every_attempt_ends_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut board = Board::start(folder.path()).await;
    let device = Device::new(folder.path());
    device.enroll(&board).await;
    let digest = board.publish(1, &[("x", &manifest())]);
    let mut committed =
        Committed { digest, reports: HashMap::new(), told: HashMap::new(), attempts: Vec::new() };
    committed.offer_next();

    let mut chance = Chance::new();
    let began = Instant::now();
    for _ in 0..KILLS {
        let mut agent = device.run_logging(&folder.path().join("agent.log"));
        let life = Duration::from_millis(50 + chance.below(1500));
        let _ = timeout(life, committed.serve(&mut board, &mut chance, false)).await;
        agent.kill().await;
        if began.elapsed() > AT_MOST / 2 {
            break;
        }
    }
    let _agent = device.run_logging(&folder.path().join("agent.log"));
    let done = timeout(AT_MOST / 2, committed.serve(&mut board, &mut chance, true)).await;
    assert!(done.is_ok(), "it goes on to the end");

    let ended = &committed.attempts[..committed.attempts.len() - 1];
    for offer in ended {
        let told = committed.told_of(offer);
        assert!(matches!(told.first(), Some(ReportBody::AttemptStarted { .. })), "{told:?}");
        assert_eq!(told.iter().filter(|body| is_end(body)).count(), 1, "{told:?}");
        assert!(
            matches!(told.last(), Some(ReportBody::AttemptEnded(end)) if end.outcome == Outcome::Succeeded),
            "{told:?}"
        );
        // A chunk of output that is missing would be a report that was journalled and then lost.
        let chunks = told
            .iter()
            .filter_map(|body| if let ReportBody::Output(chunk) = body { Some(chunk.seq) } else { None });
        assert!(chunks.eq(0..told.len() as u64 - 2), "{told:?}");
    }
    let effects = std::fs::read_to_string(device.data.join("home/effects")).unwrap();
    let expected: Vec<String> =
        (0..ended.len() as u64).map(|n| format!("{} s{}", n / STEPS, n % STEPS)).collect();
    let effects: Vec<&str> = effects.lines().take(expected.len()).collect();
    assert_eq!(effects, expected, "each effect once, in order");
}
