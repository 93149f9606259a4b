//! Scripts, really started, by the real `run-as`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::config::{Identity, ManagedUser, Paths};
use agent::outbound::Outbound;
use agent::steps::mask::Masks;
use agent::steps::output::Tail;
use agent::steps::run::{Ended, Launcher, run};
use agent::steps::run_as::RunSpec;
use agent::steps::{Context, Plan, environment, execute};
use agent::vault;
use shared::catalog::{Bundle, Step};
use shared::ids::{AttemptId, BoardId, ClientId, DeviceId, EnrollmentId};
use shared::protocol::steps::{AttemptEnded, Outcome};
use shared::random::SystemRandom;
use shared::secret::Secret;
use shared::time::{Clock as _, SystemClock};
use tokio::sync::{mpsc, watch};

use crate::support::AGENT;

fn launcher() -> Launcher {
    Launcher::new(PathBuf::from(AGENT))
}

fn me() -> ManagedUser {
    ManagedUser { home: PathBuf::from("/"), ..ManagedUser::find(None).unwrap() }
}

async fn script(user: &ManagedUser, script: &str, timeout: Duration) -> (Ended, String) {
    let env = BTreeMap::from([("PATH", "/usr/bin:/bin"), ("GREETING", "it's\n\"here\"")]);
    let env: BTreeMap<_, _> =
        env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let spec = RunSpec::for_user(user, env.into(), script);
    let mut tail = Tail::of(10_000);
    let ended = run(&launcher(), spec, Some(timeout), &Masks::default(), Some(&mut tail), None).await;
    (ended.unwrap(), tail.finish())
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_script_has_exactly_its_environment_and_nothing_to_read() {
    let (ended, said) = script(&me(), "env | sort; pwd; wc -c; exit 7", SOON).await;
    assert_eq!(ended, Ended::Exited(7));
    assert!(said.starts_with("\"here\"\nGREETING=it's\nPATH=/usr/bin:/bin\nPWD=/\n"), "{said}");
    assert!(said.ends_with("/\n0"), "{said}");
    assert!(!said.contains("CARGO"), "nothing is inherited");
    let (ended, said) = script(&me(), "echo $UNSET; echo not reached", SOON).await;
    assert!(matches!(ended, Ended::Exited(code) if code != 0) && !said.contains("not reached"));
}

#[tokio::test]
async fn a_script_is_the_leader_of_its_own_session() {
    let (_, said) = script(&me(), "echo $$; ps -o sid= -p $$ || cut -d' ' -f6 /proc/$$/stat", SOON).await;
    let mut words = said.split_whitespace();
    assert_eq!(words.next(), words.next());
}

/// Root can; whoever else runs the tests must be refused.
#[tokio::test]
async fn only_root_becomes_another_user_and_then_for_good() {
    let script_of = async |user: &ManagedUser| script(user, "id -u; id -G; cat /etc/shadow", SOON).await;
    if nix::unistd::Uid::effective().is_root() {
        let nobody = user("nobody");
        let (ended, said) = script_of(&nobody).await;
        assert!(!matches!(ended, Ended::Exited(0)), "it reads nothing of root's");
        assert!(said.starts_with(&format!("{}\n{}\n", nobody.uid, nobody.gid)), "{said}");
    } else {
        let (ended, said) = script_of(&user("root")).await;
        refused(ended, &said);
    }
}

/// As root this takes nobody's part: the refusal is seen whoever runs the tests.
#[tokio::test]
async fn who_is_not_root_becomes_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = folder.path().join("board-agent");
    std::fs::copy(AGENT, &agent).unwrap();
    let spec = RunSpec::for_user(&user("root"), BTreeMap::new().into(), "id -u");
    let mut command = std::process::Command::new(&agent);
    command.arg("run-as").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if nix::unistd::Uid::effective().is_root() {
        let nobody = user("nobody");
        command.uid(nobody.uid).gid(nobody.gid);
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&spec.to_bytes().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    refused(Ended::Exited(output.status.code().unwrap()), &String::from_utf8(output.stderr).unwrap());
    assert!(output.stdout.is_empty(), "nothing was run");
}

fn user(name: &str) -> ManagedUser {
    ManagedUser { home: PathBuf::from("/"), ..ManagedUser::find(Some(name)).unwrap() }
}

fn refused(ended: Ended, said: &str) {
    assert_eq!(ended, Ended::Exited(126));
    assert_eq!(said.trim_end(), "board-agent: only root can become another user");
}

#[tokio::test]
async fn what_takes_too_long_is_ended_with_everything_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let text = format!(
        "sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 0.1; done' & echo $! >> {0}; echo $$ >> {0}; wait",
        pids.display()
    );
    let began = Instant::now();
    let (ended, _) = script(&me(), &text, Duration::from_millis(700)).await;
    assert_eq!(ended, Ended::TimedOut);
    assert!(began.elapsed() >= Duration::from_secs(5), "TERM first: the child that ignores it had its time");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert!(pids.lines().count() >= 2);
    tokio::time::sleep(Duration::from_millis(100)).await;
    for pid in pids.lines() {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let dead = state.is_empty() || state.contains(") Z ");
        assert!(dead || !cfg!(target_os = "linux"), "{pid} lives: {state}");
    }
}

#[tokio::test]
async fn what_a_script_leaves_running_does_not_hold_it_up() {
    let began = Instant::now();
    let (ended, said) = script(&me(), "sleep 30 & echo $!", SOON).await;
    assert_eq!(ended, Ended::Exited(0));
    assert!(began.elapsed() < Duration::from_secs(10));
    let pid = nix::unistd::Pid::from_raw(said.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

struct Fixture {
    _folder: tempfile::TempDir,
    context: Context,
    home: PathBuf,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path().to_owned());
    paths.create().unwrap();
    let home = paths.dev_home();
    let identity = Identity {
        board: String::new(),
        pin: String::new(),
        next_ca: None,
        board_id: BoardId::new(&SystemClock, &SystemRandom),
        client_id: ClientId::new(&SystemClock, &SystemRandom),
        client_name: String::new(),
        enrollment_id: EnrollmentId::new(&SystemClock, &SystemRandom),
        device_id: DeviceId::new(&SystemClock, &SystemRandom),
        certificate: Vec::new(),
        not_after: SystemClock.now(),
        managed_user: ManagedUser { home: home.clone(), ..me() },
        dev: true,
        hardware_uuid: None,
        extra_path: Vec::new(),
    };
    environment::make_dev_home(&identity, &paths).unwrap();
    let vault = Arc::new(vault::open(&paths, true).unwrap());
    vault.write("x", "TOKEN", 1, &Secret::new(b"a secret token".to_vec())).unwrap();
    let outbound = Outbound::public();
    let context = Context { launcher: launcher(), outbound, paths, identity: Arc::new(identity), vault };
    Fixture { _folder: folder, context, home }
}

fn step(text: &str) -> Step {
    let head =
        "key = \"x\"\nname = \"x\"\ncategory = \"ai\"\nsummary = \"x\"\nplatforms = [\"linux\", \"macos\"]\n";
    let slot = "[[slot]]\nkey = \"TOKEN\"\nname = \"x\"\ntag = \"our-managed\"\n";
    let text = format!("{head}{slot}[[step]]\nid = \"s\"\nkind = \"auto\"\ntitle = \"x\"\n{text}");
    let bundle = Bundle {
        serial: 1,
        min_serial: 0,
        not_after: SystemClock.now(),
        revoked_steps: Vec::new(),
        tiers: String::new(),
        manifests: BTreeMap::from([("x".to_owned(), text)]),
    };
    bundle.parse_manifests().unwrap()["x"].steps[0].clone()
}

fn plan(text: &str, resume: bool) -> Plan {
    Plan {
        attempt_id: AttemptId::new(&SystemClock, &SystemRandom),
        component: "x".to_owned(),
        step: step(text),
        wrappers: Vec::new(),
        downloads: Vec::new(),
        params: BTreeMap::from([("NAME".to_owned(), "$(id)".to_owned())]),
        rerun: false,
        undo: false,
        resume,
        next_chunk: 0,
    }
}

impl Fixture {
    #[cfg(target_os = "linux")]
    async fn resume(&self, attempt_id: AttemptId, text: &str) -> AttemptEnded {
        let (_keep, stop) = watch::channel(false);
        let plan = Plan { attempt_id, ..plan(text, true) };
        execute(&plan, &self.context, mpsc::channel(1000).0, stop).await
    }

    async fn attempt(&self, text: &str, resume: bool) -> (AttemptEnded, String) {
        let (_keep, stop) = watch::channel(false);
        self.attempt_until(text, resume, stop).await
    }

    /// An attempt that runs again, whatever is so already.
    async fn again(&self, text: &str, resume: bool) -> AttemptEnded {
        let (_keep, stop) = watch::channel(false);
        self.execute(Plan { rerun: true, ..plan(text, resume) }, stop).await.0
    }

    /// What was made is taken back.
    async fn undo(&self, text: &str, resume: bool) -> (AttemptEnded, String) {
        let (_keep, stop) = watch::channel(false);
        self.execute(Plan { undo: true, ..plan(text, resume) }, stop).await
    }

    async fn attempt_until(
        &self,
        text: &str,
        resume: bool,
        stop: watch::Receiver<bool>,
    ) -> (AttemptEnded, String) {
        self.execute(plan(text, resume), stop).await
    }

    async fn execute(&self, plan: Plan, stop: watch::Receiver<bool>) -> (AttemptEnded, String) {
        let (chunks, mut output) = mpsc::channel(1000);
        let ended = execute(&plan, &self.context, chunks, stop).await;
        let mut text = String::new();
        while let Some(chunk) = output.recv().await {
            text.push_str(&chunk.text);
        }
        (ended, text)
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_left_the_group_is_ended_with_the_attempt() {
    for (trap, timeout, outcome) in [
        ("", "1s", Outcome::Failed),
        ("trap \"\" TERM; ", "1s", Outcome::Failed),
        ("", "60s", Outcome::Interrupted),
    ] {
        let fixture = fixture();
        let text = format!(
            "run = '''\nsetsid sh -c '{trap}echo $$ > \"$HOME/new\"; mv \"$HOME/new\" \"$HOME/pid\"; \
             while :; do sleep 0.1; done' &\nwait\n'''\nverify = 'true'\ntimeout = '{timeout}'"
        );
        let pid = fixture.home.join("pid");
        let (stop, stopping) = watch::channel(false);
        let stopper = async {
            while !pid.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if outcome == Outcome::Interrupted {
                stop.send(true).unwrap();
            }
        };
        let ((ended, _), ()) = tokio::join!(fixture.attempt_until(&text, false, stopping), stopper);
        assert_eq!(ended.outcome, outcome, "{}", ended.found);
        let pid = std::fs::read_to_string(pid).unwrap();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "it lives: {state}");
    }
}

#[tokio::test]
async fn what_is_so_already_is_not_run() {
    let fixture = fixture();
    let (ended, _) = fixture.attempt("check = 'true'\nrun = 'touch ran'\nverify = 'true'", false).await;
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::AlreadySo, None));
    assert!(!fixture.home.join("ran").exists());
}

#[tokio::test]
async fn an_undo_ends_well_only_when_the_effect_is_gone() {
    let fixture = fixture();
    let made = fixture.home.join("made");
    let text = |undo: &str| {
        format!("check = 'test -e made'\nrun = 'touch made ran'\nverify = 'test -e made'\nundo = '{undo}'")
    };
    std::fs::write(&made, "").unwrap();
    let (ended, said) = fixture.undo(&text("echo taken back; rm made"), false).await;
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::Succeeded, Some(0)), "{}", ended.found);
    assert!(said.contains("taken back") && !made.exists() && !fixture.home.join("ran").exists());

    let (ended, said) = fixture.undo(&text("echo taken back"), false).await;
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::AlreadySo, None), "there is nothing to take back");
    assert!(said.is_empty(), "{said}");

    std::fs::write(&made, "").unwrap();
    let (ended, _) = fixture.undo(&text("exit 0"), false).await;
    assert_eq!(ended.outcome, Outcome::Failed, "its exit code proves nothing");
    let (ended, _) = fixture.undo(&text("rm made; exit 3"), false).await;
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::Succeeded, Some(3)));

    let (ended, _) = fixture.undo("run = 'touch made'\nverify = 'test -e made'", false).await;
    assert_eq!(ended.outcome, Outcome::Failed);
    assert!(ended.found.contains("no way to undo"), "{}", ended.found);
}

#[tokio::test]
async fn an_undo_that_a_kill_interrupted_goes_on_where_it_can() {
    let fixture = fixture();
    let made = fixture.home.join("made");
    let text = "check = 'test -e made'\nrun = 'touch made'\nundo = 'rm made'";
    let (ended, _) = fixture.undo(text, true).await;
    assert_eq!(ended.outcome, Outcome::Succeeded, "it was taken back before the kill");
    std::fs::write(&made, "").unwrap();
    let (ended, _) = fixture.undo(text, true).await;
    assert_eq!(ended.outcome, Outcome::Interrupted);
    assert!(made.exists() && ended.found.contains("still there"), "{}", ended.found);
    let (ended, _) = fixture.undo(&format!("{text}\nrepeatable = true"), true).await;
    assert_eq!(ended.outcome, Outcome::Succeeded, "{}", ended.found);
    assert!(!made.exists());
}

#[tokio::test]
async fn what_runs_again_for_a_secret_is_run_although_it_is_so() {
    let fixture = fixture();
    let text = "check = 'true'\nrun = 'echo x >> ran'\nverify = 'true'";
    let repeatable = format!("{text}\nrepeatable = true");
    let ran = || std::fs::read_to_string(fixture.home.join("ran")).unwrap_or_default().lines().count();
    assert_eq!(fixture.again(text, false).await.outcome, Outcome::Succeeded);
    assert_eq!(ran(), 1);
    let ended = fixture.again(text, true).await;
    assert_eq!(ended.outcome, Outcome::Interrupted, "what an earlier attempt left proves nothing");
    assert!(ended.found.contains("ran again"), "{}", ended.found);
    assert_eq!(ran(), 1);
    assert_eq!(fixture.again(&repeatable, true).await.outcome, Outcome::Succeeded);
    assert_eq!(ran(), 2);
}

#[tokio::test]
async fn the_exit_code_of_run_proves_nothing() {
    let fixture = fixture();
    let table = [
        ("run = 'exit 0'\nverify = 'echo nothing there; false'", Outcome::Failed, Some(0), "nothing there"),
        ("run = 'exit 3'\nverify = 'true'", Outcome::Succeeded, Some(3), "verify says that it is so"),
        ("run = 'exit 3'\nverify = 'false'", Outcome::Failed, Some(3), "exit code 3"),
        ("run = 'touch a'\ncheck = 'test -e a'", Outcome::Succeeded, Some(0), "check says that it is so"),
        ("run = 'true'", Outcome::Failed, Some(0), "the manifest has no way to verify it"),
        (
            "run = 'sleep 60'\nverify = 'true'\ntimeout = '1s'",
            Outcome::Failed,
            None,
            "not done after 1 seconds",
        ),
    ];
    for (text, outcome, code, found) in table {
        let (ended, _) = fixture.attempt(text, false).await;
        assert_eq!((ended.outcome, ended.exit_code), (outcome, code), "{text}: {}", ended.found);
        assert!(ended.found.contains(found), "{text}: {}", ended.found);
    }
}

#[tokio::test]
async fn after_a_kill_it_is_so_or_runs_again_or_asks() {
    let fixture = fixture();
    let there = "run = 'touch again'\nverify = 'true'";
    assert_eq!(fixture.attempt(there, true).await.0.outcome, Outcome::Succeeded);
    assert!(!fixture.home.join("again").exists());
    let missing = "run = 'touch once'\nverify = 'test -e once'";
    assert_eq!(fixture.attempt(missing, true).await.0.outcome, Outcome::Interrupted);
    assert!(!fixture.home.join("once").exists());
    let repeatable = format!("{missing}\nrepeatable = true");
    assert_eq!(fixture.attempt(&repeatable, true).await.0.outcome, Outcome::Succeeded);
    assert!(fixture.home.join("once").exists());
}

/// The step that a killed agent left is still there when the next one takes it up: it must not be started a second time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_must_not_be_killed_never_runs_twice_at_once() {
    let fixture = fixture();
    let id = AttemptId::new(&SystemClock, &SystemRandom);
    let mut left = std::process::Command::new("sleep")
        .arg("60")
        .env_clear()
        .env("BOARD_ATTEMPT", id.to_string())
        .spawn()
        .unwrap();
    let text = "run = 'touch twice'\nverify = 'test -e there'\nrepeatable = true\ncancellable = false\ntimeout = '1s'";
    let resume = async |text: &str| fixture.resume(id, text).await;
    let ended = resume(text).await;
    assert_eq!(ended.outcome, Outcome::Interrupted, "{}", ended.found);
    assert!(ended.found.contains(&format!("still runs (process {})", left.id())), "{}", ended.found);
    assert!(!fixture.home.join("twice").exists());
    assert!(left.try_wait().unwrap().is_none(), "it was let finish");

    std::fs::write(fixture.home.join("there"), "").unwrap();
    assert_eq!(resume(text).await.outcome, Outcome::Succeeded, "looking is no harm");
    std::fs::remove_file(fixture.home.join("there")).unwrap();
    left.kill().unwrap();
    left.wait().unwrap();
    let ended = resume(&text.replace("test -e there", "test -e twice")).await;
    assert_eq!(ended.outcome, Outcome::Succeeded, "{}", ended.found);
}

#[tokio::test]
async fn secrets_reach_the_script_and_nobody_else() {
    let fixture = fixture();
    let text = r#"
run = '''
echo "$TOKEN"; cat "$BOARD_SECRET_FILE_TOKEN"; echo
stat -c "%a" "$BOARD_SECRET_FILE_TOKEN" "$(dirname "$BOARD_SECRET_FILE_TOKEN")"
printf %s "$TOKEN" | base64; printf 'a secret'; sleep 0.5; echo ' token'; echo "$TOKEN" >&2
echo "$BOARD_PARAM_NAME"
'''
verify = 'echo "$TOKEN"'
secrets = [{ slot = "TOKEN", as = "env" }, { slot = "TOKEN", as = "file" }]"#;
    let (ended, said) = fixture.attempt(text, false).await;
    assert_eq!(ended.outcome, Outcome::Succeeded, "{}", ended.found);
    assert!(!said.contains("secret") && !ended.found.contains("secret"), "{said} {}", ended.found);
    assert_eq!(said.matches("••••").count(), 5, "{said}");
    assert!(said.contains("600\n700\n"), "{said}");
    assert!(said.contains("$(id)"), "a parameter is data, never code");
    let left = std::fs::read_dir(fixture.context.paths.attempts()).unwrap().count();
    assert_eq!(left, 0, "the files are gone");
}

#[tokio::test]
async fn a_step_that_prints_secrets_shows_nothing() {
    let fixture = fixture();
    let text = "run = 'echo private'\nverify = 'echo private'\noutput = 'none'";
    let (ended, said) = fixture.attempt(text, false).await;
    assert_eq!((ended.outcome, said.as_str()), (Outcome::Succeeded, ""));
    assert!(!ended.found.contains("private"));
}
