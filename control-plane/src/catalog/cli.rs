//! `board catalog …`. `check`, `keygen` and `sign` run off the board, on the publisher's own computer.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use shared::catalog::{Bundle, PublisherKey, SignedBundle, generate_publisher_key, sign};
use shared::random::Random;
use shared::secret::Secret;
use shared::signing::{PublicKey, Purpose, SignedSuccession, Succession, public_half, sign_succession};
use shared::time::Clock;

use super::{check, default_not_after, import, relay};
use crate::db::Db;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check the manifests of a catalog folder.
    #[command(after_help = "Example: board catalog check control-plane/catalog")]
    Check { folder: PathBuf },
    /// Make a publisher key: KEY (private, 0600) and KEY.pub.
    #[command(after_help = "Example: board catalog keygen publisher.pem")]
    Keygen {
        key: PathBuf,
        /// Make the recovery key: it stays offline, and signs who succeeds a key that was lost or stolen, nothing else.
        #[arg(long)]
        recovery: bool,
    },
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
    /// Sign a statement that devices believe another key from now on, or one less. It is signed by a key that they believe for
    /// the same purpose, or by the recovery key.
    #[command(
        after_help = "Example: board catalog succeed --key publisher.pem --serial 1 --adds new.pem.pub --retires publisher.pem.pub --out succession.json"
    )]
    Succeed {
        /// The private key that vouches: an old one, or the recovery key.
        #[arg(long)]
        key: PathBuf,
        /// What the keys are for: publisher (bundles) or release (the agent's program).
        #[arg(long, default_value = "publisher")]
        purpose: Purpose,
        /// Higher than the last statement's for this purpose; with the recovery key, higher than its own last.
        #[arg(long)]
        serial: u64,
        /// The public key to believe from now on.
        #[arg(long)]
        adds: Option<PathBuf>,
        /// A public key not to believe any more, for good; may be given more than once.
        #[arg(long)]
        retires: Vec<PathBuf>,
        #[arg(long)]
        out: PathBuf,
    },
    /// Give devices a statement of succession. The board passes it on and can't make one.
    #[command(after_help = "Example: board catalog relay succession.json --signed-by publisher.pem.pub")]
    Relay {
        file: PathBuf,
        /// The public key that signed it, to refuse a wrong or damaged file at once.
        #[arg(long)]
        signed_by: PathBuf,
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

/// A new key pair in two files; gives the public key's name and its file.
pub fn new_key(path: &Path, random: &dyn Random) -> anyhow::Result<(String, PathBuf)> {
    let (private, public) = generate_publisher_key(random)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(|| {
            format!("{} can't be made (an existing key is never overwritten)", path.display())
        })?;
    file.write_all(private.expose().as_bytes())?;
    file.sync_all()?;
    let public_path = PathBuf::from(format!("{}.pub", path.display()));
    std::fs::write(&public_path, &public)?;
    Ok((PublicKey::from_pem(&public)?.name(), public_path))
}

pub fn keygen(path: &Path, recovery: bool, random: &dyn Random) -> anyhow::Result<String> {
    let (name, public) = new_key(path, random)?;
    let (what, stays) =
        if recovery { ("Recovery", "is kept offline") } else { ("Publisher", "stays with the publisher") };
    Ok(format!(
        "{what} key {name}: {} {stays}, {} goes into the agent's package.",
        path.display(),
        public.display()
    ))
}

pub struct SucceedArgs<'a> {
    pub key: &'a Path,
    pub purpose: Purpose,
    pub serial: u64,
    pub adds: Option<&'a Path>,
    pub retires: &'a [PathBuf],
}

pub fn succeed(said: &SucceedArgs<'_>, out: &Path) -> anyhow::Result<String> {
    let private = Secret::new(text(said.key)?);
    let statement = Succession {
        purpose: said.purpose,
        serial: said.serial,
        adds: said.adds.map(public_key).transpose()?,
        retires: said.retires.iter().map(|file| public_key(file)).collect::<anyhow::Result<_>>()?,
    };
    let signed = sign_succession(&statement, &private)?;
    std::fs::write(out, serde_json::to_vec(&signed)?)
        .with_context(|| format!("{} can't be written", out.display()))?;
    Ok(format!(
        "Statement {} about the keys for {}, signed by {}, digest {}.",
        said.serial,
        said.purpose,
        public_half(&private)?.name(),
        signed.digest()
    ))
}

pub async fn relay_file(db: &Db, file: &Path, signed_by: &Path, clock: &dyn Clock) -> anyhow::Result<String> {
    let signer = public_key(signed_by)?;
    let signed: SignedSuccession = serde_json::from_str(&text(file)?)
        .with_context(|| format!("{} is not a signed statement of succession", file.display()))?;
    let mut tx = db.write().await?;
    let said = relay(&mut tx, &signed, &signer, clock.now()).await?;
    tx.commit().await?;
    Ok(format!(
        "Statement {} about the keys for {} is told to devices. Each believes it only when it holds the key that signed it.",
        said.serial, said.purpose
    ))
}

fn public_key(file: &Path) -> anyhow::Result<PublicKey> {
    let text = text(file)?;
    if text.contains("PRIVATE KEY") {
        bail!("{} holds a private key: name the public one, the file that ends in .pub", file.display());
    }
    PublicKey::from_pem(&text).with_context(|| format!("{}", file.display()))
}

fn text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))
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
