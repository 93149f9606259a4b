use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

/// A system that only remembers what it was asked to run.
struct Remembering {
    root: bool,
    ran: Vec<String>,
    forgot: usize,
    /// Answers by the first argument, the next one first; an absent one is good.
    refusals: BTreeMap<&'static str, usize>,
    /// So many looks still find the service.
    loaded: usize,
}

impl Remembering {
    fn new(root: bool) -> Self {
        Self { root, ran: Vec::new(), forgot: 0, refusals: BTreeMap::new(), loaded: 0 }
    }
}

impl System for Remembering {
    fn is_root(&self) -> bool {
        self.root
    }

    fn run(&mut self, program: &str, arguments: &[String]) -> io::Result<Result<(), String>> {
        self.ran.push(format!("{program} {}", arguments.join(" ")));
        if arguments[0] == "print" && self.loaded > 0 {
            self.loaded -= 1;
            return Ok(Ok(()));
        }
        match self.refusals.get_mut(arguments[0].as_str()) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Ok(Err("refused".to_owned()))
            }
            _ => Ok(Ok(())),
        }
    }

    fn forget_secrets(&mut self, _: &Paths) -> Result<(), InstallError> {
        self.forgot += 1;
        Ok(())
    }

    fn patience(&self, _: How) -> (Duration, Duration) {
        (Duration::from_millis(200), Duration::from_millis(1))
    }
}

fn options(platform: Platform) -> Install {
    Install {
        platform,
        program: "/Volumes/Stick/board-agent".into(),
        publisher_keys: Vec::new(),
        release_keys: Vec::new(),
        recovery_keys: Vec::new(),
    }
}

fn written(plan: &Plan, path: &str) -> String {
    let content = plan.actions.iter().find_map(|action| {
        let Action::Write { path: to, content, .. } = action else { return None };
        (to == Path::new(path)).then(|| content.clone())
    });
    content.unwrap()
}

fn only_commands(plan: Plan) -> Plan {
    Plan { actions: plan.actions.into_iter().filter(|action| matches!(action, Action::Run { .. })).collect() }
}

#[test]
fn launchd_reads_what_was_meant() {
    let plan = install(&options(Platform::Macos)).unwrap();
    let text = written(&plan, "/Library/LaunchDaemons/board-agent.plist");
    let daemon: launchd::LaunchDaemon = plist::from_bytes(text.as_bytes()).unwrap();
    assert_eq!(daemon.label, "board-agent");
    assert_eq!(
        daemon.program_arguments,
        [
            "/opt/board-agent/bin/board-agent",
            "run",
            "--wait-for-join",
            "--data",
            "/Library/Application Support/Board Agent",
            "--log-folder",
            "/Library/Logs/Board Agent"
        ]
    );
    assert_eq!(daemon.environment_variables["HOME"], "/var/root");
    assert!(daemon.run_at_load && daemon.keep_alive);
    assert_eq!(daemon.throttle_interval, 10);
    for limits in [daemon.soft_resource_limits, daemon.hard_resource_limits] {
        assert_eq!((limits.core, limits.number_of_files), (0, 4096));
    }
    assert!(daemon.standard_out_path.starts_with("/Library/Logs/Board Agent"));
    assert!(daemon.standard_error_path.starts_with("/Library/Logs/Board Agent"));

    let value: plist::Value = plist::from_bytes(text.as_bytes()).unwrap();
    let keys: Vec<&str> = value.as_dictionary().unwrap().keys().map(String::as_str).collect();
    for key in [
        "Label",
        "ProgramArguments",
        "EnvironmentVariables",
        "RunAtLoad",
        "KeepAlive",
        "ThrottleInterval",
        "ExitTimeOut",
        "StandardOutPath",
        "StandardErrorPath",
        "SoftResourceLimits",
    ] {
        assert!(keys.contains(&key), "launchd spells it {key}: {keys:?}");
    }
}

#[test]
fn the_unit_hardens_what_steps_do_not_need() {
    let plan = install(&options(Platform::Linux)).unwrap();
    let unit = written(&plan, "/etc/systemd/system/board-agent.service");
    let lines: Vec<&str> = unit.lines().collect();
    for line in [
        "ExecStart=/opt/board-agent/bin/board-agent run --wait-for-join --data \"/var/lib/board-agent\"",
        "Environment=HOME=/root",
        "Restart=always",
        "LimitCORE=0",
        "ProtectKernelModules=yes",
        "WantedBy=multi-user.target",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{unit}");
    }
    // Steps become the managed user, write into its home, and install software.
    for setting in ["ProtectHome", "NoNewPrivileges", "ProtectSystem", "PrivateTmp", "MemoryDenyWriteExecute"]
    {
        assert!(!unit.contains(setting), "{setting} would break steps");
    }
}

#[test]
fn the_examples_in_packaging_are_what_is_installed() {
    let unit =
        written(&install(&options(Platform::Linux)).unwrap(), "/etc/systemd/system/board-agent.service");
    assert_eq!(unit, include_str!("../../../packaging/linux/board-agent.service"));
    let list =
        written(&install(&options(Platform::Macos)).unwrap(), "/Library/LaunchDaemons/board-agent.plist");
    assert_eq!(list, include_str!("../../../packaging/macos/board-agent.plist"));
}

#[test]
fn the_program_is_trusted_before_anything_is_done_and_the_copy_before_it_is_started() {
    for platform in [Platform::Macos, Platform::Linux] {
        let plan = install(&options(platform)).unwrap();
        let place = |wanted: &Action| plan.actions.iter().position(|action| action == wanted).unwrap();
        let trust = |path: &str| Action::Trust { path: path.into() };
        assert_eq!(place(&trust("/Volumes/Stick/board-agent")), 0);
        let first_command =
            plan.actions.iter().position(|action| matches!(action, Action::Run { .. })).unwrap();
        assert!(place(&trust(PROGRAM)) < first_command);

        let in_place = Install { program: PROGRAM.into(), ..options(platform) };
        let plan = install(&in_place).unwrap();
        assert!(
            !plan.actions.iter().any(|action| matches!(action, Action::Copy { .. })),
            "a package put it there"
        );
        assert!(plan.actions.contains(&trust(PROGRAM)));
    }
}

#[test]
fn a_folder_that_is_there_is_looked_at_before_anything_is_done_to_it() {
    for platform in [Platform::Macos, Platform::Linux] {
        let plan = install(&options(platform)).unwrap();
        let program = Path::new(PROGRAM);
        for (place, action) in plan.actions.iter().enumerate() {
            let Action::Folder { path, .. } = action else { continue };
            let wanted = match program.starts_with(path) {
                // A link there would be root's: what it leads to is looked at afterwards.
                true => (place + 1, Action::Trust { path: path.clone() }),
                false => (place - 1, Action::TrustData { path: path.clone() }),
            };
            assert_eq!(plan.actions[wanted.0], wanted.1);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (elsewhere, link) = (folder.path().join("elsewhere"), folder.path().join("data"));
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let mut plan = Plan::default();
    own_folder(&mut plan, link, 0o711);
    let refused = perform(&plan, None, &mut Remembering::new(true), &mut |_| {});
    assert!(matches!(refused, Err(InstallError::Trust(TrustError::Link { .. }))));
    assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn everything_that_installing_writes_is_removed_or_named_as_left() {
    for platform in [Platform::Macos, Platform::Linux] {
        let gone: Vec<PathBuf> = uninstall(platform, true)
            .actions
            .into_iter()
            .filter_map(|action| {
                let (Action::Remove { path } | Action::RemoveEmpty { path } | Action::RemoveTree { path }) =
                    action
                else {
                    return None;
                };
                Some(path)
            })
            .collect();
        for action in install(&options(platform)).unwrap().actions {
            let (Action::Write { path, .. } | Action::Folder { path, .. } | Action::Copy { to: path, .. }) =
                action
            else {
                continue;
            };
            assert!(gone.iter().any(|gone| path.starts_with(gone)), "{} stays", path.display());
        }
        let kept = uninstall(platform, false);
        let data = config::data_of(platform);
        assert!(!kept.actions.contains(&Action::RemoveTree { path: data.clone() }));
        assert!(!kept.actions.contains(&Action::ForgetSecrets { data: data.clone() }));
        assert!(left(platform)[0].starts_with(data.to_str().unwrap()));
    }
}

#[test]
fn without_root_nothing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = Plan::default();
    let path = folder.path().join("file");
    plan.add(Action::Write { path: path.clone(), content: String::new(), mode: 0o644 });
    let refused = perform(&plan, None, &mut Remembering::new(false), &mut |_| {});
    assert!(matches!(refused, Err(InstallError::NotRoot)));
    assert!(!path.exists());
}

#[test]
fn a_program_that_others_can_exchange_ends_it_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("board-agent");
    fs::write(&program, "").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("file");
    let mut plan = Plan::default();
    plan.add(Action::Trust { path: program });
    plan.add(Action::Write { path: file.clone(), content: String::new(), mode: 0o644 });
    let refused = perform(&plan, None, &mut Remembering::new(true), &mut |_| {});
    assert!(matches!(refused, Err(InstallError::Trust(_))));
    assert!(!file.exists());
}

#[test]
fn launchd_gets_time_to_stop_the_old_service() {
    let plan = only_commands(install(&options(Platform::Macos)).unwrap());
    let mut system = Remembering::new(true);
    // The old one is gone at the second look, and the label is refused twice.
    system.loaded = 1;
    system.refusals = BTreeMap::from([("bootstrap", 2), ("print", 1)]);
    perform(&plan, None, &mut system, &mut |_| {}).unwrap();
    let print = "/bin/launchctl print system/board-agent";
    let bootstrap = "/bin/launchctl bootstrap system /Library/LaunchDaemons/board-agent.plist";
    assert_eq!(
        system.ran,
        [
            "/bin/launchctl bootout system/board-agent",
            print,
            print,
            "/bin/launchctl enable system/board-agent",
            bootstrap,
            bootstrap,
            bootstrap,
            print
        ]
    );
    assert!(RealSystem.patience(How::UntilItFails).0 > Duration::from_secs(launchd::EXIT.into()));
    system.refusals = BTreeMap::from([("bootstrap", usize::MAX), ("print", 1)]);
    let failed = perform(&plan, None, &mut system, &mut |_| {});
    assert!(matches!(failed, Err(InstallError::Command { said, .. }) if said == "refused"));
}

#[test]
fn uninstalling_waits_until_the_service_is_gone_before_it_takes_its_files() {
    let plan = only_commands(uninstall(Platform::Macos, false));
    let mut system = Remembering::new(true);
    let stuck = perform(&plan, None, &mut system, &mut |_| {});
    assert!(matches!(stuck, Err(InstallError::Patience { .. })), "print never failed: it is still loaded");
    system.refusals = BTreeMap::from([("print", 1)]);
    perform(&plan, None, &mut system, &mut |_| {}).unwrap();
}

#[test]
fn below_a_prefix_the_running_system_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, "program").unwrap();
    for platform in [Platform::Macos, Platform::Linux] {
        let prefix = folder.path().join(platform.as_str());
        let mut system = Remembering::new(false);
        let options = Install { program: program.clone(), ..options(platform) };
        perform(&install(&options).unwrap(), Some(&prefix), &mut system, &mut |_| {}).unwrap();
        assert!(prefix.join("opt/board-agent/bin/board-agent").is_file());
        perform(&uninstall(platform, true), Some(&prefix), &mut system, &mut |_| {}).unwrap();
        assert!(!prefix.join("opt/board-agent").exists());
        assert!(system.ran.is_empty() && system.forgot == 0);
    }
}

#[test]
fn a_package_replaces_the_keys_of_the_one_before_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<PathBuf> = ["a", "b"]
        .iter()
        .map(|name| {
            let (_, public) = shared::catalog::generate_publisher_key(&shared::random::SystemRandom).unwrap();
            let path = folder.path().join(name);
            fs::write(&path, public).unwrap();
            path
        })
        .collect();
    let prefix = folder.path().join("root");
    let paths = Paths::new(prefix.join("var/lib/board-agent"));
    let program = folder.path().join("program");
    fs::write(&program, "program").unwrap();
    let install_with = |publisher_keys: &[PathBuf]| {
        let options = Install {
            program: program.clone(),
            publisher_keys: publisher_keys.to_vec(),
            release_keys: Vec::new(),
            recovery_keys: Vec::new(),
            ..options(Platform::Linux)
        };
        perform(&install(&options).unwrap(), Some(&prefix), &mut Remembering::new(true), &mut |_| {})
            .unwrap();
        config::known_publisher_keys(&paths).unwrap().len()
    };
    assert_eq!(install_with(&keys), 2);
    let (_, given) = shared::catalog::generate_publisher_key(&shared::random::SystemRandom).unwrap();
    let file = folder.path().join("given");
    fs::write(&file, given).unwrap();
    config::add_publisher_key(&paths, &file).unwrap();
    assert_eq!(install_with(&[]), 3, "an update by hand");
    assert_eq!(install_with(&keys[1..]), 2, "the first one is withdrawn, the one of the join stays");
    let known = config::known_publisher_keys(&paths).unwrap();
    let name = config::read_publisher_key(&keys[1]).unwrap().1.name().to_owned();
    assert!(known.contains(&config::KnownKey { name, packaged: true, succeeded: false }));
    assert_eq!(config::load_publisher_keys(&paths).unwrap().len(), 2);
}

#[test]
fn commands_are_named_by_their_whole_path_and_get_nothing_of_the_callers_environment() {
    for plan in [Platform::Macos, Platform::Linux]
        .into_iter()
        .flat_map(|platform| [install(&options(platform)).unwrap(), uninstall(platform, true)])
    {
        for action in plan.actions {
            if let Action::Run { program, .. } = action {
                assert!(program.starts_with('/'), "{program}");
            }
        }
    }
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to inherit");
    let said =
        RealSystem.run("/bin/sh", &["-c".to_owned(), "env >&2; exit 1".to_owned()]).unwrap().unwrap_err();
    assert!(said.lines().any(|line| line == "PATH=/usr/bin:/bin:/usr/sbin:/sbin"), "{said}");
    assert!(!said.contains("CARGO"), "{said}");
}

#[test]
fn what_must_not_be_killed_outlives_the_service() {
    let unit = systemd::unit(Path::new("/data"));
    assert!(unit.lines().any(|line| line == "KillMode=process"), "the agent ends what may be ended");
}

#[test]
fn no_package_is_built_with_a_private_key() {
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = shared::catalog::generate_publisher_key(&shared::random::SystemRandom).unwrap();
    let key = folder.path().join("publisher.pem");
    let build = || {
        let output = std::process::Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/macos/build-package"))
            .args(["--program", "/bin/sh", "--out", "/nonexistent/x.pkg", "--publisher-key"])
            .arg(&key)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for text in [private.expose().clone(), format!("{public}{}", private.expose()), "nothing".to_owned()] {
        fs::write(&key, text).unwrap();
        let said = build();
        assert!(said.contains("a private key must never be packaged"), "{said}");
    }
    fs::write(&key, public).unwrap();
    assert!(!build().contains("private key"), "then only Apple's tools or the folder are missing");
}
