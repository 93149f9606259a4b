//! The value: from a terminal without showing it, or from another program.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use anyhow::bail;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, tcflush};
use shared::secret::{Secret, read_piped};

use crate::cli::table;
use crate::secrets::api::SlotJson;

/// How long the rest of several pasted lines may be on its way, in milliseconds.
const REST: u16 = 50;

pub fn enter(slot: &SlotJson) -> anyhow::Result<Secret<Vec<u8>>> {
    if !io::stdin().is_terminal() {
        return Ok(read_piped(io::stdin().lock())?);
    }
    let prompt = format!("{} ({}/{}), not shown: ", table::plain(&slot.name), slot.component, slot.slot);
    let value = rpassword::prompt_password(prompt).map(|text| Secret::new(text.into_bytes()))?;
    let stdin = io::stdin();
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(REST))? > 0 {
        // The shell behind us must not get the rest as commands.
        tcflush(stdin.as_fd(), FlushArg::TCIFLUSH)?;
        bail!(
            "the value has several lines: nothing was sent. Put it into a file, or pipe it: op read … | board paste {}/{} …",
            slot.component,
            slot.slot
        );
    }
    Ok(value)
}
