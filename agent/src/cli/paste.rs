//! `board-agent paste`: from the terminal without showing it, or from another program.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use agent::broker::SlotLine;
use agent::paste::{self, PasteError};
use agent::platform;
use clap::Args;
use shared::catalog::Tag;
use shared::secret::{Secret, read_piped};
use shared::terminal::{self, Entered};

use super::data::Data;
use super::{complain, say};

const USAGE: u8 = 2;
const BAD_VALUE: u8 = 6;

pub const HELP: &str = "Examples:\n  board-agent paste slack/SLACK_BOT_TOKEN\n  \
    op read 'op://Acme/Slack/bot-token' | board-agent paste SLACK_BOT_TOKEN\n  \
    board-agent paste google/CREDENTIALS < credentials.json\n  board-agent paste --list\n\n\
    At a terminal the value is one line, and is not shown. A value of several lines comes from a file or another \
    program; one line end behind it is dropped.\n\n\
    Exit codes: 0 the value is on the device, 1 trouble, 2 there is no such slot to paste, \
    6 the value was refused";

#[derive(Args)]
pub struct Paste {
    /// Which slot; without the component when only one has such a slot
    #[arg(value_name = "COMPONENT/SLOT", required_unless_present = "list", conflicts_with = "list")]
    slot: Option<String>,
    /// Show the slots that the client supplies, and which of them are filled
    #[arg(long)]
    list: bool,
    /// With --list: for programs
    #[arg(long, requires = "list")]
    json: bool,
    #[command(flatten)]
    data: Data,
}

pub fn paste(options: &Paste) -> anyhow::Result<ExitCode> {
    platform::forbid_inspection()?;
    let paths = options.data.paths()?;
    let done = match &options.slot {
        Some(target) => paste::slots(&paths)
            .and_then(|slots| paste::find(slots, target))
            .map_err(anyhow::Error::from)
            .and_then(|line| {
                paste::paste(&paths, &line, enter(&line)?)?;
                say(&format!(
                    "{line} is on this device. The board is told that it is there, never what it is."
                ));
                Ok(())
            }),
        None => paste::slots(&paths).map_err(anyhow::Error::from).and_then(|slots| list(slots, options.json)),
    };
    let Err(error) = done else { return Ok(ExitCode::SUCCESS) };
    complain(&format!("{error:#}"));
    Ok(match error.downcast_ref() {
        Some(PasteError::Slot(_)) => ExitCode::from(USAGE),
        Some(PasteError::BadValue(_)) => ExitCode::from(BAD_VALUE),
        Some(PasteError::Ask(_) | PasteError::Refused(_)) | None => ExitCode::FAILURE,
    })
}

fn list(slots: Vec<SlotLine>, json: bool) -> anyhow::Result<()> {
    let theirs: Vec<_> = slots.into_iter().filter(|line| line.tag == Tag::ClientSupplied).collect();
    if json {
        say(&serde_json::to_string_pretty(&theirs)?);
        return Ok(());
    }
    if theirs.is_empty() {
        say("This device's scope has no slot that the client supplies.");
    }
    for line in theirs {
        let state = if line.filled { "filled" } else { "empty" };
        let note = match &line.one_of {
            Some(group) => format!(" (one of the group {group})"),
            None if line.required => String::new(),
            None => " (optional)".to_owned(),
        };
        say(&format!("{:<48}{state:<8}{}{note}", line.to_string(), line.name));
    }
    Ok(())
}

fn enter(line: &SlotLine) -> anyhow::Result<Secret<Vec<u8>>> {
    if !io::stdin().is_terminal() {
        return Ok(read_piped(io::stdin().lock())?);
    }
    match terminal::ask(&format!("{} ({line}), not shown: ", line.name))? {
        Entered::Line(value) => Ok(value),
        Entered::Several => Err(PasteError::BadValue(format!(
            "the value has several lines: nothing was changed. Put it into a file: \
             board-agent paste {line} < FILE; or pipe it: op read … | board-agent paste {line}"
        ))
        .into()),
    }
}
