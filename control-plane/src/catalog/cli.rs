//! `board catalog …`. `check`, `keygen` and `sign` run off the board, on the publisher's own computer.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use shared::catalog::{Bundle, PublisherKey, SignedBundle, generate_publisher_key, sign};
use shared::random::Random;
use shared::secret::Secret;
use shared::time::Clock;

use super::{check, default_not_after, import};
use crate::db::Db;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the manifests of a catalog folder.
    #[command(after_help = "Example: board catalog check control-plane/catalog")]
    Check { folder: PathBuf },
    /// Make a publisher key: KEY (private, 0600) and KEY.pub.
    #[command(after_help = "Example: board catalog keygen publisher.pem")]
    Keygen { key: PathBuf },
    /// Sign a catalog folder into a bundle.
    #[command(
        after_help = "Example: board catalog sign control-plane/catalog --key publisher.pem --serial 1 --out bundle.json"
    )]
    Sign {
        folder: PathBuf,
        /// The publisher's private key.
        #[arg(long)]
        key: PathBuf,
        /// Higher than the last bundle's.
        #[arg(long)]
        serial: u64,
        #[arg(long)]
        out: PathBuf,
    },
    /// Bring a signed bundle to the board.
    #[command(after_help = "Example: board catalog import bundle.json --publisher-key publisher.pem.pub")]
    Import {
        file: PathBuf,
        /// The publisher's public key, to refuse a wrong or damaged file at once.
        #[arg(long)]
        publisher_key: PathBuf,
    },
}

pub fn check_folder(folder: &Path) -> anyhow::Result<String> {
    let (texts, _, findings) =
        check::folder(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    if findings.is_empty() {
        return Ok(format!("{}, nothing to complain about.", components(texts.len())));
    }
    bail!("{}{} to mend.", check::report(&findings), findings.len())
}

pub fn keygen(path: &Path, random: &dyn Random) -> anyhow::Result<String> {
    let (private, public) = generate_publisher_key(random)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(|| {
            format!("{} can't be made (an existing key is never overwritten)", path.display())
        })?;
    file.write_all(private.expose().as_bytes())?;
    file.sync_all()?;
    let public_path = PathBuf::from(format!("{}.pub", path.display()));
    std::fs::write(&public_path, &public)?;
    let name = PublisherKey::from_pem(&public)?.name();
    Ok(format!(
        "Publisher key {name}: {} stays with the publisher, {} goes into the agent's package.",
        path.display(),
        public_path.display()
    ))
}

pub fn sign_folder(
    folder: &Path,
    key: &Path,
    serial: u64,
    out: &Path,
    clock: &dyn Clock,
) -> anyhow::Result<String> {
    let (manifests, tiers, findings) =
        check::folder(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    if !findings.is_empty() {
        bail!("{}Nothing was signed.", check::report(&findings));
    }
    let private = Secret::new(
        std::fs::read_to_string(key).with_context(|| format!("{} can't be read", key.display()))?,
    );
    let bundle = Bundle {
        serial,
        min_serial: 0,
        not_after: default_not_after(clock.now()),
        revoked_steps: Vec::new(),
        tiers,
        manifests,
    };
    let signed = sign(&bundle, &private)?;
    std::fs::write(out, serde_json::to_vec(&signed)?)
        .with_context(|| format!("{} can't be written", out.display()))?;
    Ok(format!("Bundle {serial} with {}, digest {}.", components(bundle.manifests.len()), signed.digest()))
}

pub async fn import_file(
    db: &Db,
    file: &Path,
    publisher_key: &Path,
    clock: &dyn Clock,
    random: &dyn Random,
) -> anyhow::Result<String> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
    };
    let publisher = PublisherKey::from_pem(&read(publisher_key)?)?;
    let signed: SignedBundle = serde_json::from_str(&read(file)?)
        .with_context(|| format!("{} is not a signed bundle", file.display()))?;
    let mut tx = db.write().await?;
    let catalog = import(&mut tx, clock, random, &signed, &publisher).await?;
    tx.commit().await?;
    Ok(format!("Catalog {} imported, {}.", catalog.serial, components(catalog.manifests.len())))
}

fn components(number: usize) -> String {
    crate::web::count(number as u64, "component", "components")
}
