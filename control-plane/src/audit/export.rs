//! The log as a file. JSON lines hold the exact bytes that were hashed and the hashes, so that `board audit verify
//! --export` can check the file without the database; CSV is for a spreadsheet and proves nothing.

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};
use shared::time::Timestamp;

use super::chain::{Break, Link, Walk};
use super::{Entry, Filter, number, store};
use crate::db::Db;
use crate::web::inert;

/// Entries held in memory at once.
const BATCH: i64 = 500;
/// A line that is longer is none of an export: an entry is a few kilobytes.
const LONGEST_LINE: u64 = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line, with the hashes.
    Jsonl,
    /// For a spreadsheet, without the hashes.
    Csv,
}

/// One line of the JSON form. Hashes are lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub seq: u64,
    pub epoch: u64,
    pub previous: String,
    pub hash: String,
    /// The entry as JSON, in the exact bytes that are hashed.
    pub canonical: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("the export can't be written: {0}")]
    Write(#[from] io::Error),
    #[error("line {line} is no entry of an export as `board audit export --format jsonl` writes it: {why}")]
    Line { line: usize, why: String },
    #[error("the export holds no entry")]
    Empty,
}

/// An export in parts of a few hundred entries, oldest first.
pub struct Exported {
    db: Db,
    format: Format,
    filter: Filter,
    next: i64,
    to: i64,
    began: bool,
}

/// Begins an export of what the log holds at this moment.
pub async fn export(db: &Db, format: Format, filter: Filter) -> Result<Exported, sqlx::Error> {
    let mut tx = db.read().await?;
    let bounds = filter.bounds(&mut tx).await?;
    let end = store::head_seq(&mut tx).await?.saturating_add(1);
    let (next, to) = (bounds.from, bounds.to.min(end));
    Ok(Exported { db: db.clone(), format, filter, next, to, began: false })
}

impl Exported {
    /// The next part; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let mut part = Vec::new();
        if !self.began && self.format == Format::Csv {
            csv_row(&mut part, HEADER.map(str::to_owned))?;
        }
        let first = !std::mem::replace(&mut self.began, true);
        let mut tx = self.db.read().await?;
        let rows = store::between(&mut tx, self.next, self.to, BATCH, &self.filter).await?;
        drop(tx);
        let Some(last) = rows.last() else { return Ok((first && !part.is_empty()).then_some(part)) };
        self.next = last.seq + 1;
        for row in rows {
            match self.format {
                Format::Jsonl => {
                    let line = Line::from(Link::from(row));
                    serde_json::to_writer(&mut part, &line).map_err(io::Error::from)?;
                    part.push(b'\n');
                }
                Format::Csv => {
                    let seq = number(row.seq);
                    // What isn't readable any more stands there as it is.
                    match serde_json::from_str::<Entry>(&row.canonical) {
                        Ok(entry) => csv_row(&mut part, cells(seq, &entry))?,
                        Err(_) => csv_row(&mut part, [seq.to_string(), inert(&row.canonical)])?,
                    }
                }
            }
        }
        Ok(Some(part))
    }
}

const HEADER: [&str; 11] = [
    "entry",
    "at",
    "kind",
    "who",
    "address",
    "action",
    "client_id",
    "slot_id",
    "device_id",
    "reason",
    "detail",
];

fn cells(seq: u64, entry: &Entry) -> [String; 11] {
    let id = |id: Option<String>| id.unwrap_or_default();
    let detail: Vec<String> = entry.detail.iter().map(|(key, value)| format!("{key}={value}")).collect();
    [
        seq.to_string(),
        Timestamp::rfc3339(entry.at),
        entry.who.kind.to_string(),
        inert(&entry.who.id),
        inert(&entry.who.address),
        entry.action.to_string(),
        id(entry.client.map(|id| id.to_string())),
        id(entry.slot.map(|id| id.to_string())),
        id(entry.device.map(|id| id.to_string())),
        inert(&entry.reason),
        inert(&detail.join("; ")),
    ]
}

/// RFC 4180. Rows of an entry that can't be read are shorter.
fn csv_row<const N: usize>(into: &mut Vec<u8>, row: [String; N]) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(into);
    writer.write_record(row).map_err(io::Error::other)?;
    writer.flush()
}

impl From<Link> for Line {
    fn from(link: Link) -> Self {
        let hex = shared::crypto::hex;
        Self {
            seq: link.seq,
            epoch: link.epoch,
            previous: hex(&link.previous),
            hash: hex(&link.hash),
            canonical: link.canonical,
        }
    }
}

impl TryFrom<Line> for Link {
    type Error = data_encoding::DecodeError;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        let bytes = |text: &str| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        Ok(Self {
            seq: line.seq,
            epoch: line.epoch,
            previous: bytes(&line.previous)?,
            hash: bytes(&line.hash)?,
            canonical: line.canonical,
        })
    }
}

/// Walks an export, line by line; gives where it breaks. One that begins in the middle is walked from there.
pub fn read_export(mut file: impl BufRead, walk: &mut Walk) -> Result<Option<Break>, ExportError> {
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let why = |why: String| ExportError::Line { line, why };
        let read = io::Read::take(&mut file, LONGEST_LINE)
            .read_line(&mut text)
            .map_err(|error| why(error.to_string()))?;
        if read == 0 {
            break;
        }
        let parsed: Line = serde_json::from_str(&text).map_err(|error| why(error.to_string()))?;
        let link = Link::try_from(parsed).map_err(|_| why("a hash is no hexadecimal".to_owned()))?;
        if line == 1 && link.seq > 1 {
            walk.from_the_middle(&link);
        }
        if let Err(broken) = walk.step(link) {
            return Ok(Some(broken));
        }
    }
    if walk.last.seq < walk.began() { Err(ExportError::Empty) } else { Ok(None) }
}
