//! What a backup holds, read from the copy itself without a database server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shared::crypto::hex;
use shared::ids::BoardId;

use super::{BackupError, HeadNamed, Kind, RootKeyNamed, postgres, store};
use crate::audit::{self, Break, Link, Walk};
use crate::db::{Db, copying};
use crate::keys::{self, Wrapped};

pub struct Contents {
    pub board_id: BoardId,
    pub schema_version: i64,
    pub root_keys: Vec<Wrapped>,
    /// Every entry of the log was walked.
    walk: Walk,
}

impl Contents {
    pub async fn read(file: &Path, kind: Kind) -> Result<Self, BackupError> {
        match kind {
            Kind::Sqlite => Self::of_sqlite(file).await,
            Kind::Postgres => Self::of_dump(file),
        }
    }

    async fn of_sqlite(file: &Path) -> Result<Self, BackupError> {
        let db = Db::read_only(file).await?;
        let mut tx = db.read().await?;
        let mut walk = Walk::default();
        if let Some(broken) = audit::walk_all(&mut tx, &mut walk).await? {
            return Err(chain(file, broken));
        }
        let board_id = store::board_id(&mut tx).await?.ok_or(BackupError::NoBoard)?;
        let root_keys = keys::wrapped(&mut tx).await?;
        let schema_version = copying::schema_version(&mut tx).await?;
        drop(tx);
        db.close().await;
        Ok(Self { board_id, schema_version, root_keys, walk })
    }

    fn of_dump(file: &Path) -> Result<Self, BackupError> {
        let unreadable =
            || BackupError::Differs { file: PathBuf::from(file), what: "a table in it can't be read" };
        let (mut board_id, mut schema_version, mut root_keys) = (None, 0, Vec::new());
        let mut walk = Walk::default();
        // Rows lie in no order in the file.
        let mut early: BTreeMap<u64, Link> = BTreeMap::new();
        let mut broken = None;
        postgres::rows(file, &["board", "_sqlx_migrations", "root_keys", "audit_log"], |table, row| {
            match table {
                "board" => board_id = row.text("id").and_then(|id| id.parse().ok()),
                "_sqlx_migrations" => schema_version = schema_version.max(row.number("version")?),
                "root_keys" if row.text("retired_at").is_none() => root_keys.push(Wrapped {
                    version: row.number("version")?,
                    provider: row.text("provider")?,
                    fingerprint: row.text("fingerprint")?,
                    wrapped: row.bytes("wrapped")?,
                }),
                "audit_log" => {
                    let link = Link {
                        seq: row.number("seq")?,
                        epoch: row.number("epoch")?,
                        previous: row.bytes("previous")?,
                        hash: row.bytes("hash")?,
                        canonical: row.text("canonical")?,
                    };
                    early.insert(link.seq, link);
                    while broken.is_none()
                        && let Some(next) = early.remove(&(walk.last.seq + 1))
                    {
                        broken = walk.step(next).err();
                    }
                }
                _ => {}
            }
            Some(())
        })?
        .ok_or_else(unreadable)?;
        if broken.is_none() && !early.is_empty() {
            broken = Some(Break { seq: walk.last.seq + 1, why: "it is missing" });
        }
        if let Some(broken) = broken {
            return Err(chain(file, broken));
        }
        root_keys.sort_by_key(|key| std::cmp::Reverse(key.version));
        Ok(Self { board_id: board_id.ok_or(BackupError::NoBoard)?, schema_version, root_keys, walk })
    }

    pub fn named(&self) -> Vec<RootKeyNamed> {
        self.root_keys
            .iter()
            .map(|key| RootKeyNamed {
                version: key.version,
                fingerprint: key.fingerprint.clone(),
                provider: key.provider.clone(),
            })
            .collect()
    }

    pub fn head(&self) -> HeadNamed {
        let last = &self.walk.last;
        HeadNamed { epoch: last.epoch, seq: last.seq, hash: hex(&last.hash) }
    }
}

fn chain(file: &Path, Break { seq, why }: Break) -> BackupError {
    BackupError::Chain { file: file.to_owned(), seq, why }
}
