//! What lies on the device: certificate, folders, store, journal, catalog, and whom the software is for.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};
use shared::catalog::Need;
use shared::time::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Finding, Patient};
use crate::bundles::Shelf;
use crate::config::{self, ConfigError, Identity, ManagedUser, Paths};
use crate::journal::{Attempt, JournalError};
use crate::platform::{self, Met};
use crate::renew;
use crate::status::Live;
use crate::trust;
use crate::vault;

const MIB: u128 = 1024 * 1024;
/// Below this installers fail, and soon the journal with them.
const TOO_FULL: u128 = 200 * MIB;
const RATHER_FULL: u128 = 2048 * MIB;

pub(super) fn identity(
    identity: &Identity,
    live: &Result<Live, ConfigError>,
    now: Timestamp,
) -> impl Iterator<Item = Finding> {
    std::iter::once(certificate(identity, live, now)).chain(link(live))
}

/// What is inside of the data folder, and who it is for. `attempts` are the journal's, when it is there.
pub(super) fn look(
    patient: &Patient<'_>,
    identity: &Identity,
    attempts: Option<&Result<Vec<Attempt>, JournalError>>,
) -> Vec<Finding> {
    let paths = &patient.paths;
    let mut findings = vec![store(patient, identity), journal(paths, attempts)];
    findings.extend(catalog(paths, patient.clock.now()));
    findings.push(managed_user(&identity.managed_user));
    findings.extend(needs(&identity.managed_user));
    findings
}

fn certificate(identity: &Identity, live: &Result<Live, ConfigError>, now: Timestamp) -> Finding {
    const CHECK: &str = "certificate";
    let Ok((_, parsed)) = X509Certificate::from_der(&identity.certificate) else {
        return Finding::problem(
            CHECK,
            "it can't be read",
            "Join again with the command that the client's page shows.",
        );
    };
    let serial = parsed.raw_serial_as_string();
    let not_before = parsed.validity().not_before;
    if now.to_datetime().unix_timestamp() < not_before.timestamp() {
        return Finding::problem(
            CHECK,
            format!("it begins on {not_before}, and it is {now} here"),
            "This machine's clock is behind. Switch on \"Set time and date automatically\".",
        );
    }
    let trouble = live.as_ref().ok().and_then(|live| live.renewal.clone());
    if now > identity.not_after {
        return Finding::problem(
            CHECK,
            format!("it ended on {}{}", identity.not_after, said(trouble)),
            "The agent asks for a new one by its keys as soon as it reaches the board; after more than 90 days a consultant has to agree there first.",
        );
    }
    if let Some(trouble) = trouble {
        return Finding::warning(
            CHECK,
            format!("good until {}; it is not renewed: {trouble}", identity.not_after),
            "The agent goes on trying. If the way to the board is free, tell the consultant.",
        );
    }
    // The earliest moment: each agent has its own.
    let due = renew::due(&identity.certificate, identity.not_after, u64::MAX / 2);
    Finding::ok(CHECK, format!("serial {serial}, good until {}, renewed around {due}", identity.not_after))
}

fn said(trouble: Option<String>) -> String {
    trouble.map(|trouble| format!("; the last try: {trouble}")).unwrap_or_default()
}

fn link(live: &Result<Live, ConfigError>) -> Option<Finding> {
    const CHECK: &str = "link";
    Some(match live {
        Ok(Live { last_link: Some(at), .. }) => Finding::ok(CHECK, format!("came up last on {at}")),
        Ok(_) => Finding::warning(
            CHECK,
            "it was never up",
            "Start the agent; the lines above say what is in its way.",
        ),
        Err(error) => {
            Finding::warning(CHECK, error.to_string(), "The agent writes the file anew: restart it.")
        }
    })
}

/// Whoever else can write there decides what the agent does. In development nobody promises anything about the folders
/// above.
pub(super) fn folders(paths: &Paths, dev: bool) -> Finding {
    const CHECK: &str = "folders";
    let top = if dev { paths.data() } else { Path::new("/") };
    match trust::check_folder(paths, Uid::effective().as_raw(), top) {
        Ok(()) => Finding::ok(CHECK, format!("{} is ours alone", paths.data().display())),
        Err(error) => Finding::problem(
            CHECK,
            error.to_string(),
            "The agent doesn't start like this. Find out who changed it, then give it back to root: `sudo chown root`, `sudo chmod go-w`.",
        ),
    }
}

fn store(patient: &Patient<'_>, identity: &Identity) -> Finding {
    const CHECK: &str = "secrets";
    let which = if identity.dev { "a folder of files, for development" } else { "the System keychain" };
    let tried = vault::open(&patient.paths, identity.dev).and_then(|vault| {
        vault.try_out(&*patient.random)?;
        vault.keys()
    });
    match tried {
        Ok(Some(_)) => Finding::ok(
            CHECK,
            format!("{which}: written, read back and deleted; the device's keys are there"),
        ),
        Ok(None) => Finding::problem(
            CHECK,
            format!("{which} works, and the device's keys are not in it"),
            "Join again with the command that the client's page shows: without its keys the device can't prove who it is.",
        ),
        Err(error) => Finding::problem(
            CHECK,
            format!("{which}: {error}"),
            "Until this works the agent neither starts nor takes secrets.",
        ),
    }
}

fn journal(paths: &Paths, attempts: Option<&Result<Vec<Attempt>, JournalError>>) -> Finding {
    const CHECK: &str = "journal";
    match attempts {
        None => Finding::ok(CHECK, "none yet: the agent makes it when it starts"),
        Some(Ok(attempts)) => {
            let open = attempts.iter().filter(|attempt| attempt.last.is_none()).count();
            Finding::ok(CHECK, format!("{} attempts, {open} of them not ended", attempts.len()))
        }
        Some(Err(error @ JournalError::Unclean)) => Finding::ok(CHECK, error.to_string()),
        Some(Err(JournalError::InUse(_))) => Finding::ok(CHECK, "in use by the agent that runs"),
        Some(Err(error)) => Finding::problem(
            CHECK,
            error.to_string(),
            format!(
                "Free disk space first, if it is short. If the file is damaged: stop the agent, move {} away and start it again; the board then asks about steps that were running.",
                paths.journal().display()
            ),
        ),
    }
}

fn catalog(paths: &Paths, now: Timestamp) -> Vec<Finding> {
    const KEYS: &str = "publisher";
    const CHECK: &str = "catalog";
    let keys = match config::load_publisher_keys(paths) {
        Ok(keys) if !keys.is_empty() => keys,
        Ok(_) => {
            return vec![Finding::problem(
                KEYS,
                "no publisher's key is here, so no catalog is believed",
                "Install the agent's package again, or `sudo board-agent install --publisher-key FILE`.",
            )];
        }
        Err(error) => {
            return vec![Finding::problem(KEYS, error.to_string(), "Install the agent's package again.")];
        }
    };
    let names: Vec<_> = keys.iter().map(shared::catalog::PublisherKey::name).collect();
    let known = Finding::ok(KEYS, format!("believes {}", names.join(", ")));
    let found = match config::load_scope(paths) {
        Err(error) => {
            Finding::problem(CHECK, error.to_string(), "The board tells the scope anew: restart the agent.")
        }
        Ok(scope) => match scope.bundle_digest {
            None => Finding::warning(CHECK, "none yet", "The board tells it when the link is up."),
            Some(digest) => match Shelf::new(paths, keys).stored(&digest) {
                Ok(Some(catalog)) if now > catalog.bundle.not_after => Finding::warning(
                    CHECK,
                    format!("serial {} was good until {}", catalog.bundle.serial, catalog.bundle.not_after),
                    "Tell the operator: the publisher has to sign a new one, and the board to import it.",
                ),
                Ok(Some(catalog)) => Finding::ok(
                    CHECK,
                    format!(
                        "serial {}, verified, good until {}",
                        catalog.bundle.serial, catalog.bundle.not_after
                    ),
                ),
                Ok(None) => Finding::warning(
                    CHECK,
                    format!("{digest} is not here yet"),
                    "The agent fetches it when the link is up.",
                ),
                Err(error) => Finding::problem(
                    CHECK,
                    error.to_string(),
                    "Nothing of it is executed. If the publisher has a new key, install the package that brings it.",
                ),
            },
        },
    };
    vec![known, found]
}

fn managed_user(user: &ManagedUser) -> Finding {
    const CHECK: &str = "managed user";
    let advice = "The software is for this account. Make it again with the same id, or join again and name another: --managed-user NAME.";
    match User::from_name(&user.name) {
        Ok(Some(found)) if found.uid.as_raw() != user.uid => Finding::problem(
            CHECK,
            format!(
                "{} has the id {} now, and had {} when this device joined",
                user.name, found.uid, user.uid
            ),
            advice,
        ),
        Ok(Some(_)) if !user.home.is_dir() => {
            Finding::problem(CHECK, format!("{} has no home at {}", user.name, user.home.display()), advice)
        }
        Ok(Some(_)) => {
            Finding::ok(CHECK, format!("{} (id {}), {}", user.name, user.uid, user.home.display()))
        }
        Ok(None) => Finding::problem(CHECK, format!("there is no account {} any more", user.name), advice),
        Err(error) => Finding::problem(CHECK, format!("{} can't be looked up: {error}", user.name), advice),
    }
}

/// Only some steps need them: what is missing is no problem of the agent's.
fn needs(user: &ManagedUser) -> Vec<Finding> {
    [("disk access", Need::Fda), ("user's session", Need::Gui)]
        .into_iter()
        .filter_map(|(check, need)| match platform::met(need, user) {
            Met::Yes => Some(Finding::ok(check, "there")),
            Met::No(what) => Some(Finding::warning(check, "not there", what)),
            // Said by the platform that has no such thing.
            Met::Unknown(why) if cfg!(target_os = "macos") => {
                Some(Finding::warning(check, why, "Steps that need it wait until it can be found out."))
            }
            Met::Unknown(_) => None,
        })
        .collect()
}

pub(super) fn disk(data: &Path) -> Finding {
    const CHECK: &str = "disk";
    let Some(there) = data.ancestors().find(|folder| folder.exists()) else {
        return Finding::problem(
            CHECK,
            format!("{} has no folder above it", data.display()),
            "Name another --data.",
        );
    };
    let free = match statvfs(there) {
        Ok(found) => u128::from(found.blocks_available()) * u128::from(found.fragment_size()),
        Err(error) => {
            return Finding::warning(
                CHECK,
                format!("{}: {error}", there.display()),
                "Look at it in Disk Utility.",
            );
        }
    };
    let saw = format!("{} MiB free at {}", free / MIB, there.display());
    if free < TOO_FULL {
        Finding::problem(CHECK, saw, "Make room: installers fail, and the agent can't write its journal.")
    } else if free < RATHER_FULL {
        Finding::warning(CHECK, saw, "Make room before software is installed.")
    } else {
        Finding::ok(CHECK, saw)
    }
}
