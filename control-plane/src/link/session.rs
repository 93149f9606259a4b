//! One link: hello and welcome, reports and their acknowledgements, pings; what is pushed is `pushing`'s.

mod pushing;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use shared::ids::{AttemptId, DeliveryId, DeviceId, WipeId};
use shared::problem::Problem;
use shared::protocol::link::{FromAgent, FromBoard, Head, Hello, Program, ReportBody, Scope, Welcome};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;

pub(super) use pushing::scope;

use super::hello;
use super::pastes::Waiters;
use super::reports::{self, Origin};
use crate::app::App;
use crate::audit::{self, Who};
use crate::clients;
use crate::enrollment::api::Peer;
use crate::enrollment::{self, Device, DeviceState, Standing, Stopped};
use crate::error::Failure;
use crate::jobs::Wake;
use crate::links::Relayed;
use crate::releases;
use crate::runbook::plan;
use crate::runbook::{self, Carried};
use crate::secrets;

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The device's row is looked at again this often, and with it whether there is something to push.
const LOOK: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(20);
/// A peer that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// A peer that doesn't take a frame in this time is cut off, not buffered without end.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The device's row says that it was seen, and the device is told the head of the audit log, this often.
const SEEN_EVERY: Duration = Duration::from_secs(60);
/// A sealed delivery without an answer, and one that can't be opened here, is tried again after this. Each try is a
/// decrypt with an entry in the audit log.
const DELIVERY_RETRY: Duration = Duration::from_secs(600);
/// One that the device refused for a passing reason.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// Why a link ended, in words for the other side.
enum End {
    Gone,
    /// It doesn't read, so there is no use in a word.
    Cut,
    Close(&'static str),
    Failure(Box<Failure>),
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failure(Box::new(error.into()))
    }
}

pub async fn run(app: App, device: Device, peer: Peer, socket: WebSocket) {
    let device_id = device.id;
    let client_id = device.client_id;
    let serial = peer.certificate.map(|certificate| certificate.serial).unwrap_or_default();
    let mut session = Session {
        app: app.clone(),
        device,
        address: peer.address,
        serial,
        authority: peer.authority,
        socket,
        carried: Carried::default(),
        knows_plans: false,
        deliveries: BTreeMap::new(),
        again: Vec::new(),
        pastes: Waiters::default(),
        wanted: None,
        scope: None,
        wiping: None,
        told_of_ca: None,
        agent_version: String::new(),
        program: None,
        told_of_release: None,
        told: None,
    };
    let end = session.serve().await;
    match end {
        Err(End::Close(reason)) => session.close(reason).await,
        // What the device may not, or not any more, is no fault of the board.
        Err(End::Failure(failure)) if failure.public.status < 500 => {
            let Problem { kind, detail, .. } = &failure.public;
            tracing::warn!(%device_id, kind, detail, "a link was refused");
            session.close(&failure.public.title).await;
        }
        Err(End::Failure(failure)) => {
            tracing::error!(%device_id, kind = failure.public.kind, error = ?failure.internal, "a link failed");
            if let Some(cause) = failure.trouble() {
                app.audit_watch.note(cause, app.now());
            }
            session.close("the board had a failure; connect again").await;
        }
        Err(End::Gone | End::Cut) | Ok(()) => {}
    }
    drop(session);
    if let Ok(mut tx) = app.db.write().await {
        let noted = enrollment::seen(&mut tx, device_id, app.now()).await;
        if noted.is_ok() {
            let _ = tx.commit().await;
        }
    }
    app.jobs.wake(Wake::Device(device_id));
    app.jobs.wake(Wake::Client(client_id));
}

struct Session {
    app: App,
    device: Device,
    address: String,
    socket: WebSocket,
    serial: Vec<u8>,
    /// Number of the authority that the listener showed to this link.
    authority: i64,
    /// What this link carried already.
    carried: Carried,
    knows_plans: bool,
    /// When each delivery may be tried again.
    deliveries: BTreeMap<DeliveryId, Instant>,
    /// Offers that the device refused for a passing reason: made again at the next look.
    again: Vec<AttemptId>,
    pastes: Waiters,
    /// What the client is to have, as this link last saw it.
    wanted: Option<clients::Scope>,
    scope: Option<Scope>,
    /// The wipe that this link carried.
    wiping: Option<WipeId>,
    /// Number of the authority that this link told of.
    told_of_ca: Option<i64>,
    agent_version: String,
    /// What the agent said of its program and keys; `None` is one that takes neither releases nor statements.
    program: Option<Program>,
    /// Digest of the release that this link told of.
    told_of_release: Option<String>,
    /// The head of the audit log that the device was told last.
    told: Option<Head>,
}

impl Session {
    async fn serve(&mut self) -> Result<(), End> {
        let hello = self.hello().await?;
        hello::check(&hello).map_err(End::Close)?;
        let leaves = self.device.state == DeviceState::Leaving;
        if hello.hardware_uuid != self.device.hardware_uuid && !leaves {
            let stopped =
                enrollment::quarantine(&self.app, &self.device, &hello.hardware_uuid, &self.address).await?;
            return Err(End::Close(match stopped {
                Stopped::Quarantined => {
                    "this Mac is another one than the enrolled: the device is quarantined until a consultant decides"
                }
                Stopped::TurnedAway => {
                    "this Mac was turned away: only the enrolled one goes on; leave here, and join with a new code"
                }
                Stopped::Unreadable => {
                    "the hello names no hardware UUID that can be read: see `board-agent doctor`"
                }
            }));
        }
        // Listening before looking: what changes in between is not missed.
        let mut changes = self.app.jobs.listen();
        let mut link = self.app.links.open(self.device.id, self.app.now());
        self.welcome(&hello).await?;
        self.app.jobs.wake(Wake::Client(self.device.client_id));
        self.app.jobs.wake(Wake::Device(self.device.id));
        let mut look = tokio::time::interval(LOOK);
        let mut ping = tokio::time::interval(PING);
        let mut seen = tokio::time::interval(SEEN_EVERY);
        let mut heard = Instant::now();
        let (device_id, client_id) = (self.device.id, self.device.client_id);
        loop {
            tokio::select! {
                () = link.replaced.notified() => return Err(End::Close("a newer link of this device took over")),
                frame = self.socket.recv() => {
                    heard = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => self.frame(text.as_str()).await?,
                        Some(Ok(Message::Binary(_))) => {
                            tracing::warn!(%device_id, "a binary frame");
                            return Err(End::Close("binary frames are not spoken here"));
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Close(_))) | None => return Ok(()),
                        Some(Err(error)) => return Err(broken(device_id, error)),
                    }
                }
                Some(relayed) = link.pastes.recv() => self.relay(relayed).await?,
                () = changes.next(|wake| wake == Wake::Device(device_id) || wake == Wake::Client(client_id)) => {
                    self.look().await?;
                }
                _ = look.tick() => {
                    if self.app.ca().number != self.authority {
                        return Err(End::Close("the board shows its new certificate authority; connect again"));
                    }
                    for attempt in self.again.drain(..) {
                        self.carried.sent.remove(&attempt);
                    }
                    self.look().await?;
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(End::Gone);
                    }
                    self.send_raw(Message::Ping(Vec::new().into())).await?;
                }
                _ = seen.tick() => {
                    let mut tx = self.app.db.write().await?;
                    enrollment::seen(&mut tx, device_id, self.app.now()).await?;
                    let head = audit::head(&mut tx).await?;
                    tx.commit().await?;
                    self.tell_head(head).await?;
                }
            }
        }
    }

    async fn hello(&mut self) -> Result<Hello, End> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.socket.recv()).await;
        let Ok(Some(Ok(Message::Text(text)))) = first else {
            return Err(End::Close("the first frame has to be a hello"));
        };
        match serde_json::from_str(text.as_str()) {
            Ok(FromAgent::Hello(hello)) => Ok(hello),
            Ok(
                FromAgent::Report(_)
                | FromAgent::Pasted(_)
                | FromAgent::Leave(_)
                | FromAgent::Refused(_)
                | FromAgent::Unknown,
            )
            | Err(_) => Err(End::Close("the first frame has to be a hello")),
        }
    }

    /// Compares what both sides hold, and answers.
    async fn welcome(&mut self, hello: &Hello) -> Result<(), End> {
        self.carried.in_journal = hello.attempts.iter().copied().collect();
        self.knows_plans = hello.plans.is_some();
        self.compare_heads(hello).await?;
        let mut tx = self.app.db.write().await?;
        if enrollment::is_enrolled(&mut tx, self.device.id).await? {
            plan::reconcile(&self.app, &mut tx, &self.device, hello.plans.as_deref()).await?;
            runbook::ensure(&self.app, &mut tx, &self.device).await?;
            tx.commit().await?;
            tx = self.app.db.write().await?;
            secrets::note_held(&mut tx, self.device.id, &hello.secrets, self.app.now()).await?;
            secrets::reconcile(&mut tx, self.device.id, &hello.secrets).await?;
            secrets::plan(&self.app, &mut tx, self.device.id).await?;
        }
        let (version, now) = (&hello.agent_version, self.app.now());
        releases::said(&mut tx, self.device.id, version, hello.program.as_ref(), now).await?;
        let scope = match self.device.state {
            DeviceState::Leaving => {
                Scope { bundle_digest: None, components: Vec::new(), params: [].into(), look_at: Vec::new() }
            }
            DeviceState::Approved
            | DeviceState::Enrolled
            | DeviceState::Quarantined
            | DeviceState::Revoked => scope(&mut tx, &self.device).await?,
        };
        let audit_head = audit::head(&mut tx).await?;
        tx.commit().await?;
        self.agent_version.clone_from(&hello.agent_version);
        self.program.clone_from(&hello.program);
        // The scope's bundle may be signed by a key that the device doesn't know yet.
        self.tell_of_keys().await?;
        self.scope = Some(scope.clone());
        self.told = Some(audit_head.clone());
        let welcome = Welcome {
            time: self.app.now(),
            client_id: self.device.client_id,
            device_id: self.device.id,
            audit_head,
            scope,
        };
        self.send(&FromBoard::Welcome(welcome)).await
    }

    /// A head that doesn't fit means that the database was rewritten behind the board, or that an older one was put back.
    async fn compare_heads(&mut self, hello: &Hello) -> Result<(), End> {
        let Some(head) = &hello.audit_head else { return Ok(()) };
        let mut tx = self.app.db.write().await?;
        let witness = audit::Witness {
            device: Some((self.device.client_id, self.device.id)),
            who: Who::device(self.device.id, &self.address),
            head,
        };
        if audit::compare(&mut tx, &witness, self.app.now()).await? {
            tx.commit().await?;
            self.app.audit_watch.alarm();
        }
        Ok(())
    }

    /// Tells the device where the log stands, when it went on.
    async fn tell_head(&mut self, head: Head) -> Result<(), End> {
        if self.told.as_ref() == Some(&head) {
            return Ok(());
        }
        self.send(&FromBoard::Head(head.clone())).await?;
        self.told = Some(head);
        Ok(())
    }

    async fn frame(&mut self, text: &str) -> Result<(), End> {
        match serde_json::from_str(text) {
            Ok(FromAgent::Report(report)) => {
                let origin = Origin { device: &self.device, serial: &self.serial, address: &self.address };
                reports::apply(&self.app, &origin, &report).await?;
                self.note(&report.body);
                self.send(&FromBoard::Ack { reports: vec![report.id] }).await?;
                self.app.jobs.wake(Wake::Device(self.device.id));
                self.app.jobs.wake(Wake::Client(self.device.client_id));
                Ok(())
            }
            Ok(FromAgent::Pasted(pasted)) => {
                self.pastes.word(pasted);
                Ok(())
            }
            Ok(FromAgent::Leave(leave)) => {
                Ok(enrollment::ask_to_leave(&self.app, self.device.id, &leave, &self.address).await?)
            }
            Ok(FromAgent::Refused(refused)) => {
                self.pastes.refused(&refused);
                tracing::warn!(device_id = %self.device.id, what = refused.what, reason = refused.reason, "the device refused a frame");
                Ok(())
            }
            Ok(FromAgent::Hello(_)) => Err(End::Close("a link has one hello")),
            Ok(FromAgent::Unknown) => {
                tracing::warn!(device_id = %self.device.id, "a frame of a kind that this board doesn't know");
                Err(End::Close(
                    "this frame is of a kind that this board doesn't know; it may be older than the agent",
                ))
            }
            Err(error) => {
                tracing::warn!(device_id = %self.device.id, line = error.line(), column = error.column(), "a frame that can't be read");
                Err(End::Close("a frame could not be read"))
            }
        }
    }

    /// Passes a sealed paste on. Its waiter hears nothing when the link ends before the device's word.
    async fn relay(&mut self, relayed: Relayed) -> Result<(), End> {
        if self.standing().await? == Standing::Leaving {
            // Its waiter hears that nothing came of it.
            return Ok(());
        }
        match self.pastes.begin(relayed) {
            Some(paste) => self.send(&FromBoard::Paste(paste)).await,
            None => Ok(()),
        }
    }

    /// What a report says about this link's own bookkeeping.
    fn note(&mut self, body: &ReportBody) {
        match body {
            ReportBody::OfferRefused { attempt_id, passing: true, .. } => {
                self.again.push(*attempt_id);
            }
            ReportBody::DeliveryRefused { delivery_id, passing: true, .. } => {
                self.deliveries.insert(*delivery_id, Instant::now() + REFUSED_RETRY);
            }
            ReportBody::AttemptEnded(ended) => {
                self.carried.in_journal.remove(&ended.attempt_id);
            }
            ReportBody::AttemptStarted { .. }
            | ReportBody::Output(_)
            | ReportBody::OfferRefused { .. }
            | ReportBody::PlanStep(_)
            | ReportBody::PlanEnded(_)
            | ReportBody::Receipt(_)
            | ReportBody::DeliveryRefused { .. }
            | ReportBody::Inventory { .. }
            | ReportBody::Wiped(_)
            | ReportBody::CaPinned { .. }
            | ReportBody::Replaced { .. }
            | ReportBody::Release(_)
            | ReportBody::Unknown => {}
        }
    }

    /// Ends the link when it is good for nothing any more.
    async fn standing(&mut self) -> Result<Standing, End> {
        let mut tx = self.app.db.read().await?;
        match enrollment::standing(&mut tx, self.device.id, &self.serial).await? {
            standing @ (Standing::Enrolled | Standing::Leaving) => Ok(standing),
            Standing::Replaced => Err(End::Close("this device joined again: this identity was revoked")),
            Standing::Ended(DeviceState::Revoked) => Err(End::Close("this device was revoked")),
            Standing::Ended(_) => Err(End::Close("this device is not enrolled any more")),
        }
    }

    async fn send(&mut self, frame: &FromBoard) -> Result<(), End> {
        let text = serde_json::to_string(frame).map_err(Failure::internal)?;
        self.send_raw(Message::Text(text.into())).await
    }

    async fn send_raw(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => {
                tracing::warn!(device_id = %self.device.id, "a device doesn't read what it is sent; its link is cut off");
                Err(End::Cut)
            }
        }
    }

    async fn close(&mut self, reason: &str) {
        let frame = CloseFrame { code: close_code::POLICY, reason: reason.into() };
        let _ = self.send_raw(Message::Close(Some(frame))).await;
    }
}

/// A cut is everyday life; a frame that breaks the rules is a fault that the log names.
fn broken(device_id: DeviceId, error: axum::Error) -> End {
    let inner = error.into_inner();
    match inner.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(error)) => {
            tracing::warn!(%device_id, %error, "a frame is too large");
            End::Close("a frame is larger than 1 MiB")
        }
        Some(tungstenite::Error::Utf8(_)) => {
            tracing::warn!(%device_id, "a text frame is not text");
            End::Close("a text frame has to be UTF-8")
        }
        Some(_) | None => {
            tracing::debug!(%device_id, error = %inner, "a link broke");
            End::Gone
        }
    }
}
