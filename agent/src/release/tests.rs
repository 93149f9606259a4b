use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use shared::crypto::{hex, sha256};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::signing::{PublicKey, generate_key, sign_release};
use shared::time::{ManualClock, Timestamp};

use super::*;
use crate::config::Paths;
use crate::http::HttpError;

const OWN: Own<'_> = Own { version: "1.0.0", platform: Platform::Linux, arch: Some(Arch::X86_64) };

struct Pair(Secret<String>, PublicKey);

fn pair() -> Pair {
    let (private, public) = generate_key(&SystemRandom).unwrap();
    Pair(private, PublicKey::from_pem(&public).unwrap())
}

fn release(version: &str, program: &[u8]) -> Release {
    Release {
        version: version.to_owned(),
        platform: Platform::Linux,
        arch: Arch::X86_64,
        size: program.len() as u64,
        sha256: hex(&sha256(program)),
        team: None,
    }
}

/// A script in the place of a program.
fn says(words: &str) -> Vec<u8> {
    format!("#!/bin/sh\necho {words}\n").into_bytes()
}

struct Pieces(VecDeque<Result<Bytes, HttpError>>);

impl Pieces {
    fn of(program: &[u8]) -> Self {
        Self(program.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect())
    }
}

impl Source for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.0.pop_front().transpose()
    }
}

struct Machine {
    folder: tempfile::TempDir,
    paths: Paths,
    place: Place,
}

impl Machine {
    fn new(old: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("data"));
        paths.create().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = bin.join("board-agent");
        std::fs::write(&program, old).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o751)).unwrap();
        Self { folder, paths, place: Place::at(program) }
    }

    fn program(&self) -> Vec<u8> {
        std::fs::read(self.place.program()).unwrap()
    }

    /// Everything up to the moment when the system starts the new program.
    async fn exchanged(version: &str) -> Self {
        let machine = Self::new(&says("old"));
        let new = says(&format!("board-agent {version}"));
        let release = release(version, &new);
        receive(&release, &machine.place, &mut Pieces::of(&new)).await.unwrap();
        preflight(&release, &machine.place).unwrap();
        let previous = machine.place.keep_previous().unwrap();
        let trial = Trial {
            digest: "d".repeat(64),
            version: version.to_owned(),
            program: machine.place.program().to_owned(),
            previous,
            starts: 0,
            going_back: None,
        };
        Record { trial: Some(trial), failed: Vec::new() }.save(&machine.paths).unwrap();
        machine.place.exchange(&release.sha256).unwrap();
        assert_eq!(machine.program(), new);
        machine
    }

    /// The old program starts: it knows that the new one failed, and why.
    fn back(&self) -> String {
        assert_eq!(self.program(), says("old"));
        assert!(matches!(begin(&self.paths, OWN.version).unwrap(), Begun::Usual));
        let record = Record::load(&self.paths).unwrap();
        assert_eq!(record.trial, None);
        let [failed] = record.failed.try_into().unwrap();
        assert!(!failed.told);
        failed.reason
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn only_a_newer_release_for_this_machine_that_the_release_key_signed_is_taken() {
    let [releaser, publisher, stranger] = std::array::from_fn(|_| pair());
    let keys = [ReleaseKey::from(releaser.1)];
    let good = release("1.0.1", b"program");
    let signed = |release: &Release, by: &Pair| sign_release(release, &by.0).unwrap();
    assert_eq!(judge(&signed(&good, &releaser), &keys, OWN, &[]).unwrap(), good);
    for by in [&publisher, &stranger] {
        let refused = judge(&signed(&good, by), &keys, OWN, &[]);
        assert!(matches!(refused, Err(Refused::Release(ReleaseError::Signature))));
    }
    let mut changed = signed(&good, &releaser);
    let at = changed.payload.windows(5).position(|bytes| bytes == b"1.0.1").unwrap();
    changed.payload[at] = b'2';
    let refused = judge(&changed, &keys, OWN, &[]);
    assert!(matches!(refused, Err(Refused::Release(ReleaseError::Signature))), "one byte");
    for older in ["1.0.0", "0.9.9", "0.10.0"] {
        let refused = judge(&signed(&release(older, b"program"), &releaser), &keys, OWN, &[]);
        assert!(matches!(refused, Err(Refused::NotNewer { .. })), "{older}");
    }
    let mac = Release { platform: Platform::Macos, team: Some("ABCDE12345".to_owned()), ..good.clone() };
    let arm = Release { arch: Arch::Aarch64, ..good.clone() };
    for elsewhere in [mac, arm] {
        let refused = judge(&signed(&elsewhere, &releaser), &keys, OWN, &[]);
        assert!(matches!(refused, Err(Refused::Elsewhere { .. })));
    }
    let good = signed(&good, &releaser);
    let failed = Failed {
        digest: good.digest(),
        version: "1.0.1".to_owned(),
        reason: "it hung".to_owned(),
        told: true,
    };
    assert!(matches!(judge(&good, &keys, OWN, &[failed]), Err(Refused::Failed(_))), "not tried again");
}

#[tokio::test]
async fn nothing_can_be_executed_before_size_and_bytes_are_what_was_signed() {
    let machine = Machine::new(&says("old"));
    let place = &machine.place;
    let new = says("board-agent 1.0.1");
    let release = release("1.0.1", &new);
    let mut other = new.clone();
    other[12] ^= 1;
    let received = receive(&release, place, &mut Pieces::of(&other)).await;
    assert!(matches!(received, Err(NotReady::OtherProgram { .. })), "{received:?}");
    assert_eq!(mode(&place.fresh()), 0o600, "it lies there and can't be run");
    for wrong in [&new[..new.len() - 1], &[new.as_slice(), b"x"].concat()] {
        let received = receive(&release, place, &mut Pieces::of(wrong)).await;
        assert!(matches!(received, Err(NotReady::OtherSize { .. })), "{received:?}");
    }
    let mut cut = Pieces::of(&new[..14]);
    cut.0.push_back(Err(HttpError::Broken("cut".to_owned())));
    let received = receive(&release, place, &mut cut).await.unwrap_err();
    assert!(received.is_passing(), "{received}");
    let named = Release { team: Some("ABCDE12345".to_owned()), ..release.clone() };
    if cfg!(target_os = "linux") {
        let received = receive(&named, place, &mut Pieces::of(&new)).await;
        assert!(
            matches!(received, Err(NotReady::Team(_))),
            "who signed it can't be found out here: {received:?}"
        );
    }
    assert_eq!(machine.program(), says("old"));

    receive(&release, place, &mut Pieces::of(&new)).await.unwrap();
    assert_eq!(mode(&place.fresh()), 0o600);
    preflight(&release, place).unwrap();
    assert_eq!(mode(&place.fresh()), 0o751, "as the old one's");
    place.keep_previous().unwrap();
    std::fs::write(place.fresh(), &other).unwrap();
    let exchanged = place.exchange(&release.sha256);
    assert!(matches!(exchanged, Err(PlaceError::Other { .. })), "it is looked at again at the last moment");
    assert_eq!(machine.program(), says("old"));
}

#[tokio::test]
async fn a_program_that_does_not_even_say_its_version_is_never_put_in_place() {
    for (new, why) in [
        (says("board-agent 1.0.2"), "another version"),
        (b"#!/bin/sh\nexit 7\n".to_vec(), "ends"),
        (b"no program at all".to_vec(), "can't be started"),
    ] {
        let machine = Machine::new(&says("old"));
        let release = release("1.0.1", &new);
        receive(&release, &machine.place, &mut Pieces::of(&new)).await.unwrap();
        let refused = preflight(&release, &machine.place).unwrap_err();
        assert!(matches!(refused, NotReady::Preflight { .. }) && !refused.is_passing(), "{why}: {refused}");
        assert_eq!(machine.program(), says("old"));
    }
}

#[tokio::test]
async fn a_trial_ends_with_the_answered_hello() {
    let machine = Machine::exchanged("1.0.1").await;
    let Begun::OnTrial(on_trial) = begin(&machine.paths, "1.0.1").unwrap() else { panic!("no trial") };
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(0)));
    let (ended, ends) = mpsc::channel();
    let watching: Arc<dyn shared::time::Clock> = Arc::<ManualClock>::clone(&clock);
    on_trial.watch(watching, move || ended.send(()).unwrap());
    assert!(on_trial.proven());
    clock.advance(PATIENCE);
    assert!(ends.recv_timeout(Duration::from_secs(5)).is_err(), "nothing goes back any more");
    assert_eq!(machine.program(), says("board-agent 1.0.1"));
    assert_eq!(std::fs::read(machine.place.previous()).unwrap(), says("old"), "the old one is kept");
    assert_eq!(mode(machine.place.program()), 0o751);
}

#[tokio::test]
async fn a_new_program_without_an_answer_goes_back_after_five_minutes() {
    let machine = Machine::exchanged("1.0.1").await;
    let Begun::OnTrial(on_trial) = begin(&machine.paths, "1.0.1").unwrap() else { panic!("no trial") };
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(0)));
    let (ended, ends) = mpsc::channel();
    let watching: Arc<dyn shared::time::Clock> = Arc::<ManualClock>::clone(&clock);
    on_trial.watch(watching, move || ended.send(()).unwrap());
    clock.advance(PATIENCE - Duration::from_millis(1));
    assert!(ends.recv_timeout(Duration::from_millis(500)).is_err(), "it still has time");
    clock.advance(Duration::from_millis(1));
    ends.recv_timeout(Duration::from_secs(20)).expect("the program is ended");
    assert!(!on_trial.proven(), "too late");
    assert!(machine.back().contains("within 5 minutes"));
}

#[tokio::test]
async fn a_new_program_that_ends_again_and_again_goes_back() {
    let machine = Machine::exchanged("1.0.1").await;
    for start in 0..ENDS {
        assert!(matches!(begin(&machine.paths, "1.0.1").unwrap(), Begun::OnTrial(_)), "start {start}");
    }
    assert!(matches!(begin(&machine.paths, "1.0.1").unwrap(), Begun::WentBack(_)));
    assert!(machine.back().contains("started 3 times"));
}

#[tokio::test]
async fn going_back_survives_a_kill_before_and_after_the_old_program_is_back() {
    let machine = Machine::exchanged("1.0.1").await;
    let mut record = Record::load(&machine.paths).unwrap();
    record.trial.as_mut().unwrap().going_back = Some("it hung".to_owned());
    record.save(&machine.paths).unwrap();
    assert!(matches!(begin(&machine.paths, "1.0.1").unwrap(), Begun::WentBack(_)), "killed before");
    assert!(matches!(begin(&machine.paths, "1.0.1").unwrap(), Begun::WentBack(_)), "again, changes nothing");
    assert_eq!(machine.back(), "it hung");
    assert!(machine.folder.path().join("bin/board-agent").exists());
}

#[tokio::test]
async fn without_an_old_program_the_new_one_goes_on() {
    let machine = Machine::exchanged("1.0.1").await;
    std::fs::write(machine.place.previous(), "something else").unwrap();
    for _ in 0..=ENDS {
        assert!(matches!(begin(&machine.paths, "1.0.1").unwrap(), Begun::OnTrial(_)));
    }
    assert_eq!(machine.program(), says("board-agent 1.0.1"), "what isn't the old program is not put back");
}

#[tokio::test]
async fn a_kill_before_the_exchange_leaves_no_trial() {
    let machine = Machine::new(&says("old"));
    let trial = Trial {
        digest: "d".repeat(64),
        version: "1.0.1".to_owned(),
        program: machine.place.program().to_owned(),
        previous: machine.place.keep_previous().unwrap(),
        starts: 0,
        going_back: None,
    };
    Record { trial: Some(trial), failed: Vec::new() }.save(&machine.paths).unwrap();
    assert!(matches!(begin(&machine.paths, OWN.version).unwrap(), Begun::Usual));
    assert_eq!(Record::load(&machine.paths).unwrap(), Record::default(), "it may be offered again");
}

#[test]
fn what_is_remembered_of_failures_is_bounded() {
    let mut record = Record::default();
    for number in 0..100 {
        let trial = Trial {
            digest: number.to_string(),
            version: "1.0.1".to_owned(),
            program: "/x".into(),
            previous: String::new(),
            starts: 0,
            going_back: None,
        };
        record.fail(trial, "it hung".to_owned());
    }
    assert_eq!(record.failed.len(), 20);
    assert_eq!(record.failed.last().unwrap().digest, "99");
}
