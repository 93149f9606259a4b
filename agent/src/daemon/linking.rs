//! What the link says, and who this device says it is.

use shared::protocol::link::{FromAgent, Hello, Program};
use shared::signing::Arch;
use tokio::sync::mpsc;

use super::{Daemon, DaemonError};
use crate::engine::Event;
use crate::link::LinkEvent;
use crate::platform::{self, PlatformError};

pub(super) struct LinkState {
    pub(super) sender: mpsc::Sender<FromAgent>,
    pub(super) welcomed: bool,
    /// Place in the journal of the last report that was sent on this link.
    pub(super) sent: Option<u64>,
    /// The link's queue was full; more waits.
    pub(super) backlog: bool,
}

impl Daemon {
    pub(super) fn link_event(&mut self, event: LinkEvent) -> Result<(), DaemonError> {
        match event {
            LinkEvent::Up { sender, ca } => {
                self.shown(&ca)?;
                let (hardware_uuid, boot_session) = match self.machine() {
                    Ok(machine) => machine,
                    Err(error) => {
                        // Without a word the link ends, and is tried again later.
                        tracing::error!(%error, "this machine doesn't say which one it is");
                        return Ok(());
                    }
                };
                let hello = FromAgent::Hello(self.hello(hardware_uuid, boot_session)?);
                if sender.try_send(hello).is_ok() {
                    self.link = Some(LinkState { sender, welcomed: false, sent: None, backlog: false });
                }
                Ok(())
            }
            LinkEvent::Frame(frame) => self.engine_event(Event::Frame(frame)),
            LinkEvent::CertificateRefused => {
                self.certificate_refused();
                Ok(())
            }
            LinkEvent::Down => {
                self.link = None;
                self.engine_event(Event::LinkDown)
            }
        }
    }

    /// Hardware UUID and boot session: neither changes while this runs, and asking starts programs.
    fn machine(&self) -> Result<(String, String), PlatformError> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine.clone());
        }
        let hardware_uuid = match &self.identity.hardware_uuid {
            Some(uuid) => uuid.clone(),
            None => platform::machine()?.hardware_uuid,
        };
        let machine = (hardware_uuid, platform::boot_session()?);
        Ok(self.machine.get_or_init(|| machine).clone())
    }

    fn hello(&self, hardware_uuid: String, boot_session: String) -> Result<Hello, DaemonError> {
        let attempts = self.journal.attempts()?;
        Ok(Hello {
            agent_version: crate::version().to_owned(),
            hardware_uuid,
            boot_session,
            clock: self.clock.now(),
            audit_head: self.journal.heads()?.pop().map(|told| told.head),
            bundle_serial: self.engine.serial_seen(),
            secrets: self.engine.held(),
            attempts: attempts
                .into_iter()
                .filter(|attempt| attempt.last.is_none())
                .map(|attempt| attempt.offer.attempt_id)
                .collect(),
            plans: Some(self.engine.plans()),
            program: Some(Program {
                arch: Arch::current(),
                successions: self.held.statements(),
                failed: self.releasing.failed(),
            }),
        })
    }
}
