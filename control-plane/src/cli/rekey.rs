//! `board rekey`: opens the database, beside a board that runs.

use std::sync::Arc;

use clap::Args;
use shared::random::Random;
use shared::time::Clock;

use super::{KeyPlace, Place};
use crate::board::{self, RekeyError, Rekeyed};
use crate::keys::{Outside, Source};

pub const HELP: &str = "\
A new root key is made and wrapped by the provider in --to; then every stored secret is encrypted again under it, each in
a transaction of its own with its audit entry. Versions stay, nothing is delivered again, sessions and API tokens go on.
It can be stopped or killed at any moment: the same command again goes on where it stopped, and does nothing when
nothing is left. A board that runs goes on; it has to reach both providers with the environment that it was started with.

The old provider's key opens backups made before: keep it as long as them.

Examples:
  board rekey --to 'awskms:alias/board?region=eu-central-1'
  VAULT_ADDR=https://vault.example.com:8200 VAULT_TOKEN_FILE=/run/board/token board rekey --to vault:transit/board
  board rekey --to file:/etc/board/root-2.key
  board rekey --to vault:transit/board --fresh

Exit codes:
  0  Everything is under the new root key, or was already.
  1  It failed, and says why. The same command goes on where it stopped.
  3  Some secrets can't be opened, so the old root key stays. They are named: rotate them.
  4  Another rekey is at work, or one to another provider isn't finished.";

#[derive(Debug, Args)]
pub struct RekeyArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: KeyPlace,
    /// The new provider: file:PATH (made when it isn't there), keychain:NAME on a Mac, awskms:KEY[?region=…&endpoint=…],
    /// or vault:MOUNT/KEY.
    #[arg(long, value_name = "URI")]
    to: Source,
    /// Make another root key although it is with this provider already.
    #[arg(long)]
    fresh: bool,
}

pub async fn run(args: RekeyArgs, clock: Arc<dyn Clock>, random: &dyn Random) -> anyhow::Result<String> {
    let db = args.place.connect().await?;
    db.prepare().await?;
    let outside = Outside::process(clock);
    let done = board::rekey(&db, args.key.named()?, &args.to, args.fresh, &outside, random).await?;
    db.close().await;
    let to = &args.to;
    Ok(match done {
        Rekeyed::Nothing { version, fingerprint } => format!(
            "Nothing to do: the root key (version {version}, fingerprint {fingerprint}) is with {to} already, and nothing is left under another. For another root key there, add --fresh."
        ),
        Rekeyed::Done { old, old_provider, new, fingerprint, moved } => format!(
            "The root key is version {new} (fingerprint {fingerprint}) with {to}.\n{moved} secrets and the certificate authority's key are under it. Version {old} is retired.\nKeep what {old_provider} needs as long as backups made before: they open with it only."
        ),
    })
}

/// The exit code that says which failure it was.
pub fn exit_code(error: &RekeyError) -> u8 {
    match error {
        RekeyError::Unmovable { .. } => 3,
        RekeyError::Busy | RekeyError::Overtaken | RekeyError::Unfinished(_) => 4,
        RekeyError::Missing
        | RekeyError::Key(_)
        | RekeyError::Secret(_)
        | RekeyError::Ca(_)
        | RekeyError::Audit(_)
        | RekeyError::Database(_) => 1,
    }
}
