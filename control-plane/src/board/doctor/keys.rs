//! The root key, where its key lies, and whether what is stored is under a version that is here. No secret is opened.

use std::path::Path;

use super::files::others_write;
use super::{Finding, Patient, unanswered};
use crate::db::Db;
use crate::keys::{self, Listed, RootKey, Source};
use crate::secrets;
use crate::web::count;

const CHECK: &str = "root key";
const FILE: &str = "key file";
const REKEY: &str = "rekey";

/// The root key is given when every living version of it could be unwrapped.
pub(super) async fn look(db: &Db, patient: &Patient) -> (Vec<Finding>, Option<RootKey>) {
    let asked = async {
        let mut tx = db.read().await?;
        let living = keys::living(&mut tx).await?;
        let opened = RootKey::open(&mut tx, patient.root_key.clone(), patient.outside.clone()).await;
        let behind = match living.first() {
            Some(newest) => secrets::unmoved(&mut tx, newest.version).await?.len(),
            None => 0,
        };
        Ok::<_, sqlx::Error>((living, opened, behind))
    };
    let (living, opened, behind) = match asked.await {
        Ok(found) => found,
        Err(error) => return (vec![unanswered(CHECK, &error)], None),
    };
    let mut findings = Vec::new();
    let root = match opened {
        Ok(root) => {
            findings.extend(living.iter().map(|listed| {
                let Listed { version, provider, fingerprint } = listed;
                Finding::ok(
                    CHECK,
                    format!("version {version}, unwrapped by {provider}, has its fingerprint {fingerprint}"),
                )
            }));
            Some(root)
        }
        Err(error) => {
            findings.push(Finding::problem(
                CHECK,
                error.to_string(),
                "Without it the board doesn't start and no secret opens. Bring its provider back, or name a key file that \
                 was moved with --root-key.",
            ));
            None
        }
    };
    let named = patient.root_key.as_ref().map(ToString::to_string);
    let mut uris: Vec<&str> =
        living.iter().map(|listed| listed.provider.as_str()).chain(named.as_deref()).collect();
    uris.dedup();
    let places = uris.into_iter().filter_map(|uri| uri.parse::<Source>().ok());
    findings.extend(places.filter_map(|source| place(source.path()?, patient)));
    if let [newest, .., _] = living.as_slice() {
        findings.push(Finding::warning(
            REKEY,
            format!(
                "a move to version {} ({}) was begun and isn't finished; {} under the one before",
                newest.version,
                newest.provider,
                count(behind, "secret is", "secrets are")
            ),
            format!(
                "`board rekey --to {}` goes on where it stopped; nothing is lost meanwhile.",
                newest.provider
            ),
        ));
    }
    (findings, root)
}

/// Where the key of a key file lies. Whether it can be read is the root key's own line.
fn place(path: &Path, patient: &Patient) -> Option<Finding> {
    let path = path.canonicalize().ok()?;
    if patient.data.canonicalize().is_ok_and(|data| path.starts_with(data)) {
        return Some(Finding::warning(
            FILE,
            format!("{} lies in the data folder, so a backup of the folder holds both", path.display()),
            "Move it out of the folder, and name it with --root-key file:PATH.",
        ));
    }
    if let Some((folder, mode)) = path.parent().and_then(|folder| Some((folder, others_write(folder)?))) {
        return Some(Finding::problem(
            FILE,
            format!("others may write {} (mode {mode:04o}), where the key lies", folder.display()),
            format!("`chmod go-w {}`: whoever can write there can take the key away.", folder.display()),
        ));
    }
    Some(Finding::ok(FILE, format!("{} lies outside of the data folder", path.display())))
}

/// Counts by what an envelope says of itself.
pub(super) async fn secrets(db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    const CHECK: &str = "secrets";
    let mut tx = db.read().await?;
    let living: Vec<u32> = keys::living(&mut tx).await?.into_iter().map(|listed| listed.version).collect();
    let mut findings = Vec::new();
    let mut all = 0;
    for under in secrets::under(&mut tx).await? {
        all += under.secrets;
        if under.root_version.is_some_and(|version| living.contains(&version)) {
            continue;
        }
        let version = match under.root_version {
            Some(version) => {
                format!("under version {version} of the root key, which is not in this database")
            }
            None => "no envelope of this board".to_owned(),
        };
        findings.push(Finding::problem(
            CHECK,
            format!(
                "{} of {} don't open: {version}",
                count(under.secrets, "secret", "secrets"),
                count(under.clients, "client", "clients")
            ),
            "Store them again on the clients' secrets pages, or restore a backup that has this version.",
        ));
    }
    let purged = secrets::without_salt(&mut tx).await?;
    if purged > 0 {
        findings.push(Finding::problem(
            CHECK,
            format!("{} of clients whose key was erased", count(purged, "secret is left", "secrets are left")),
            "They don't open any more. Reactivate the client and store them again, or purge the client again.",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{} stored, under a root key that is here", all)));
    }
    Ok(findings)
}
