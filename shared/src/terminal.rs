//! A secret that a person enters at a terminal: one line, of which nothing is shown.

use std::io::{self, Stdin};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};

use crate::secret::Secret;

/// How long the rest of several pasted lines may be on its way, in milliseconds.
const REST: u16 = 50;
/// How often more of it is waited for.
const RESTS: usize = 40;

/// What a person entered.
#[derive(Debug)]
pub enum Entered {
    Line(Secret<Vec<u8>>),
    /// More than one line came at once. They are thrown away: neither the next question nor the shell gets the rest.
    Several,
}

/// Asks for one line at the terminal that standard input is.
pub fn ask(prompt: &str) -> io::Result<Entered> {
    let terminal = Silent::new()?;
    let line = rpassword::prompt_password(prompt).map(|text| Secret::new(text.into_bytes()))?;
    Ok(if terminal.drain()? { Entered::Several } else { Entered::Line(line) })
}

/// The terminal, which shows nothing, and gives each byte as it comes, until this is dropped: so the prompt is there only
/// when it may be answered, and the last of several lines is seen although no line end follows it.
struct Silent {
    stdin: Stdin,
    before: Termios,
    signals: SigSet,
}

impl Silent {
    fn new() -> nix::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut flags = before.clone();
        flags
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        // Ctrl-C waits until the terminal is as it was.
        let signals = SigSet::from(Signal::SIGINT).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let silent = Self { stdin, before, signals };
        tcsetattr(&silent.stdin, SetArg::TCSAFLUSH, &flags)?;
        Ok(silent)
    }

    /// Throws away what still comes. Says whether there was something.
    fn drain(&self) -> nix::Result<bool> {
        for times in 0..RESTS {
            let mut waiting = [PollFd::new(self.stdin.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::from(REST))?;
            if !waiting[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                return Ok(times > 0);
            }
            tcflush(&self.stdin, FlushArg::TCIFLUSH)?;
        }
        Ok(true)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, SetArg::TCSANOW, &self.before);
        let _ = self.signals.thread_set_mask();
    }
}
