//! `board release …`. `keygen` and `sign` run off the board, on the computer of whoever releases the agent.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use shared::catalog::Platform;
use shared::crypto::{hex, sha256};
use shared::random::Random;
use shared::secret::Secret;
use shared::signing::{Arch, Release, ReleaseKey, SignedRelease, sign_release};
use shared::time::{Clock, Timestamp};

use super::Place;
use crate::catalog::cli::new_key;
use crate::db::Db;
use crate::releases::{import, list, stage};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a release key: KEY (private, 0600) and KEY.pub. It is another one than the publisher's.
    #[command(after_help = "Example: board release keygen release.pem")]
    Keygen { key: PathBuf },
    /// Sign a program of the agent's.
    #[command(
        after_help = "Example: board release sign board-agent --key release.pem --version 1.2.0 --platform macos --arch aarch64 --team ABCDE12345 --out release.json"
    )]
    Sign {
        program: PathBuf,
        /// The private release key.
        #[arg(long)]
        key: PathBuf,
        /// What the program itself says with --version: three numbers.
        #[arg(long)]
        version: String,
        /// macos or linux.
        #[arg(long)]
        platform: Platform,
        /// aarch64 or `x86_64`.
        #[arg(long)]
        arch: Arch,
        /// On macOS: Apple's id of the team whose Developer ID signed the program.
        #[arg(long)]
        team: Option<String>,
        #[arg(long)]
        out: PathBuf,
    },
    /// Bring a signed release and its program to the board. It is offered to nobody before it is staged.
    #[command(
        after_help = "Example: board release import release.json --program board-agent --release-key release.pem.pub"
    )]
    Import {
        #[command(flatten)]
        place: Place,
        file: PathBuf,
        #[arg(long)]
        program: PathBuf,
        /// The public release key, to refuse a wrong or damaged file at once.
        #[arg(long)]
        release_key: PathBuf,
    },
    /// Offer a version to so many percent of the devices. The same devices stay in when the number grows.
    #[command(after_help = "Example: board release stage 1.2.0 10")]
    Stage {
        #[command(flatten)]
        place: Place,
        version: String,
        percent: u8,
    },
    /// The releases, how far each is, and what became of it.
    #[command(after_help = "Example: board release list --json")]
    List {
        #[command(flatten)]
        place: Place,
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(command: Command, clock: &dyn Clock, random: &dyn Random) -> anyhow::Result<String> {
    match command {
        Command::Keygen { key } => {
            let (name, public) = new_key(&key, random)?;
            Ok(format!(
                "Release key {name}: {} stays with whoever releases the agent, {} goes into the agent's package.",
                key.display(),
                public.display()
            ))
        }
        Command::Sign { program, key, version, platform, arch, team, out } => {
            sign(SignArgs { program: &program, key: &key, version, platform, arch, team }, &out)
        }
        Command::Import { place, file, program, release_key } => {
            import_file(&place.connect().await?, &file, &program, &release_key, clock.now()).await
        }
        Command::Stage { place, version, percent } => {
            stage_version(&place.connect().await?, &version, percent, clock.now()).await
        }
        Command::List { place, json } => show(&place.connect().await?, json).await,
    }
}

fn sign(release: SignArgs<'_>, out: &Path) -> anyhow::Result<String> {
    let SignArgs { program, key, version, platform, arch, team } = release;
    let bytes = read(program)?;
    let private = Secret::new(
        std::fs::read_to_string(key).with_context(|| format!("{} can't be read", key.display()))?,
    );
    let release =
        Release { version, platform, arch, size: bytes.len() as u64, sha256: hex(&sha256(&bytes)), team };
    let signed = sign_release(&release, &private)?;
    std::fs::write(out, serde_json::to_vec(&signed)?)
        .with_context(|| format!("{} can't be written", out.display()))?;
    Ok(format!("Release {} for {platform} on {arch}, digest {}.", release.version, signed.digest()))
}

struct SignArgs<'a> {
    program: &'a Path,
    key: &'a Path,
    version: String,
    platform: Platform,
    arch: Arch,
    team: Option<String>,
}

async fn import_file(
    db: &Db,
    file: &Path,
    program: &Path,
    key: &Path,
    now: Timestamp,
) -> anyhow::Result<String> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
    };
    let key = ReleaseKey::from_pem(&text(key)?)?;
    let signed: SignedRelease = serde_json::from_str(&text(file)?)
        .with_context(|| format!("{} is not a signed release", file.display()))?;
    let program = read(program)?;
    let mut tx = db.write().await?;
    let release = import(&mut tx, &signed, &program, &key, now).await?;
    tx.commit().await?;
    Ok(format!(
        "Release {} for {} on {} imported. Nobody is offered it yet: `board release stage {} 10` begins with a tenth of \
         the devices.",
        release.version, release.platform, release.arch, release.version
    ))
}

async fn stage_version(db: &Db, version: &str, percent: u8, now: Timestamp) -> anyhow::Result<String> {
    let mut tx = db.write().await?;
    stage(&mut tx, version, percent, now).await?;
    tx.commit().await?;
    Ok(match percent {
        0 => format!("Release {version} is offered to nobody from now on. Devices that have it keep it."),
        _ => format!("Release {version} is offered to {percent} % of the devices that it is for."),
    })
}

async fn show(db: &Db, json: bool) -> anyhow::Result<String> {
    let mut tx = db.read().await?;
    let all = list(&mut tx).await?;
    drop(tx);
    if json {
        let rows: Vec<_> = all
            .iter()
            .map(|one| {
                serde_json::json!({
                    "digest": one.digest,
                    "version": one.version,
                    "platform": one.platform,
                    "arch": one.arch,
                    "percent": one.percent,
                    "installed": one.installed,
                    "refused": one.refused,
                    "went_back": one.went_back,
                })
            })
            .collect();
        return Ok(serde_json::to_string_pretty(&rows)?);
    }
    if all.is_empty() {
        return Ok("No release yet.".into());
    }
    let lines: Vec<_> = all
        .iter()
        .map(|one| {
            format!(
                "{} for {} on {}: offered to {} %, {} installed, {} refused, {} went back",
                one.version, one.platform, one.arch, one.percent, one.installed, one.refused, one.went_back
            )
        })
        .collect();
    Ok(lines.join("\n"))
}

fn read(program: &Path) -> anyhow::Result<Vec<u8>> {
    let size =
        std::fs::metadata(program).with_context(|| format!("{} can't be read", program.display()))?.len();
    if size > shared::signing::LARGEST_PROGRAM {
        bail!("{} is too large for a program of the agent's: {size} bytes", program.display());
    }
    std::fs::read(program).with_context(|| format!("{} can't be read", program.display()))
}
