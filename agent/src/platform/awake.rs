//! A program that keeps the machine awake as long as it runs.

use std::process::{Child, Command, Stdio};

/// The machine stays awake until this is dropped.
pub struct Awake {
    child: Child,
}

impl Awake {
    /// As long as this program runs the machine stays awake.
    pub fn hold(command: &mut Command) -> std::io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child })
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        // It may have ended by itself; then it only wants to be collected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn it_ends_with_its_holder() {
        let awake = Awake::hold(Command::new("sleep").arg("60")).unwrap();
        let pid = Pid::from_raw(i32::try_from(awake.child.id()).unwrap());
        assert!(kill(pid, None).is_ok());
        drop(awake);
        assert!(kill(pid, None).is_err(), "ended and collected");
    }
}
