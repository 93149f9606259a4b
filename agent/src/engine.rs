//! The rules: what to do about a frame. No I/O, no clock of its own; the daemon performs the effects.
//!
//! To add a frame: a variant of [`Event`] or of `FromBoard`, its rule here, its effect in `daemon`, a row in the tests.

mod catalogs;
mod deliveries;
mod offers;
mod pastes;
mod plans;
mod recovery;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::catalog::{Platform, Slot, Tag};
use shared::ids::{AttemptId, DeliveryId, PlanId, ReportId};
use shared::protocol::link::{
    Deliver, FromBoard, Head, HeldSecret, NewCa, Paste, Pasted, Receipt, Refused, ReportBody, Scope,
    UNKNOWN_FRAME, Welcome,
};
use shared::protocol::plan::{PlanEnded, PlanRequest, PlannedStep};
use shared::protocol::steps::{AttemptEnded, Offer, OfferKind};
use shared::protocol::wipe::Wipe;
use shared::signing::{SignedRelease, SignedSuccession};
use shared::time::Timestamp;

use crate::authority::{Judged, Trust};
use crate::bundles::Catalog;
use crate::config::{self, NextCa};
use crate::journal::{Attempt, Seen};
use crate::platform::Met;
use crate::steps::Plan;
use crate::tls::Pin;
use crate::undos::{self, Right};
use crate::vault::HeldSlot;
use offers::Verdict;

pub use offers::bad_params;
pub use plans::{GAVE_WAY, Looking, Todo};
pub use refusal::Refusal;

pub enum Event {
    Frame(FromBoard),
    LinkDown,
    /// What the daemon found out about the needs that steps have, just before an offer is judged.
    Needs(Needs),
    /// The journal has an attempt that never ended.
    Recover(Attempt),
    /// A bundle that was asked for by [`Effect::Fetch`].
    Bundle {
        digest: String,
        result: Result<Arc<Catalog>, Refusal>,
    },
    AttemptEnded(AttemptEnded),
    /// A plan looked at one step.
    Planned(PlannedStep),
    PlanEnded(PlanEnded),
    /// What became of [`Effect::Store`].
    Stored {
        deliver: Deliver,
        result: Result<Receipt, Refusal>,
    },
    /// A person's value is in the vault.
    Pasted {
        component: String,
        slot: String,
    },
}

#[derive(Debug)]
pub enum Effect {
    /// The board's answer to our hello.
    Welcomed(Box<Welcome>),
    /// Where the board's audit log stands; kept as a witness.
    Witness(Head),
    /// From disk, or from the board.
    Fetch(String),
    /// Journal the offer and the first report about it, before anything of it happens.
    Remember {
        offer: Offer,
        report: ReportBody,
    },
    Start(Box<Plan>),
    /// Look at these steps, one after the other.
    StartPlan {
        plan_id: PlanId,
        steps: Vec<Looking>,
    },
    /// End the check that is running, and the plan with it.
    StopPlan,
    Report(ReportBody),
    /// The report that ended this attempt, again.
    RepeatAttempt(AttemptId),
    /// The receipt of this delivery, again.
    RepeatDelivery(DeliveryId),
    /// Open it, check it, write it, sign a receipt.
    Store {
        deliver: Deliver,
        tag: Tag,
        pattern: Option<String>,
    },
    /// Open a sealed paste, check it, write it, and tell the board.
    StorePaste {
        paste: Paste,
        slot: Box<Slot>,
    },
    TellPasted(Pasted),
    /// Remove what the board put here, and say so.
    Wipe(Wipe),
    Acknowledged(Vec<ReportId>),
    Refuse(Refused),
    SaveScope(Scope),
    /// Believe this authority beside the pinned one, before the board is told so.
    KeepCa(NextCa),
    /// Statements about the keys that are believed.
    Keys(Vec<SignedSuccession>),
    /// Take this release of the agent, when nothing is under way.
    Release(SignedRelease),
    SaveSeen(Seen),
    /// The scope's catalog is here: wrappers can be written.
    ScopeReady(Arc<Catalog>),
    Probe,
    /// What is known of the device, with the slots as they are this moment. Looking takes longer.
    ReportSlots,
}

/// What the engine knows of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub platform: Platform,
    pub is_root: bool,
}

/// What a step may need beside its secrets, and how it stands.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Full Disk Access of the agent.
    pub fda: Met,
    /// The managed user's graphical session.
    pub gui: Met,
    /// Of an undo that is offered: may it begin, as far as this device's people are concerned?
    pub undo: Right,
}

impl Default for Needs {
    fn default() -> Self {
        let unknown = || Met::Unknown("nobody has looked yet".to_owned());
        Self { fda: unknown(), gui: unknown(), undo: Right::default() }
    }
}

pub struct Engine {
    machine: Machine,
    needs: Needs,
    seen: Seen,
    scope: Scope,
    catalogs: BTreeMap<String, Arc<Catalog>>,
    fetching: BTreeSet<String>,
    /// Ended, or refused for good; their last report is in the journal.
    ended: BTreeSet<AttemptId>,
    running: Option<AttemptId>,
    waiting: Vec<Waiting>,
    planning: Option<PlanId>,
    /// Its bundle isn't here yet.
    waiting_plan: Option<PlanRequest>,
    recovering: Vec<Attempt>,
    /// Their receipts are in the journal. A refused delivery that comes again is judged again.
    received: BTreeSet<DeliveryId>,
    waiting_deliveries: Vec<Deliver>,
    /// Component and slot = version; none of what was pasted.
    held: BTreeMap<(String, String), Option<u64>>,
    /// The board's time, and when it said so.
    board_time: Option<(Timestamp, Instant)>,
    trust: Trust,
}

/// An offer whose bundle isn't here yet, or that waits until a plan has given way.
struct Waiting {
    offer: Offer,
    deadline: Instant,
}

/// What the journal and the vault know when the daemon starts.
pub struct Known {
    pub seen: Seen,
    pub scope: Scope,
    pub ended: Vec<AttemptId>,
    pub received: Vec<DeliveryId>,
    pub held: Vec<HeldSlot>,
}

impl Engine {
    pub fn new(machine: Machine, known: Known) -> Self {
        Self {
            machine,
            needs: Needs::default(),
            seen: known.seen,
            scope: known.scope,
            catalogs: BTreeMap::new(),
            fetching: BTreeSet::new(),
            ended: known.ended.into_iter().collect(),
            running: None,
            waiting: Vec::new(),
            planning: None,
            waiting_plan: None,
            recovering: Vec::new(),
            received: known.received.into_iter().collect(),
            waiting_deliveries: Vec::new(),
            held: known.held.into_iter().map(|h| ((h.component, h.slot), h.version)).collect(),
            board_time: None,
            trust: Trust::default(),
        }
    }

    /// Which authorities are pinned; before that none is believed.
    pub fn trust(&mut self, trust: Trust) {
        self.trust = trust;
    }

    /// What to do first: the catalog of the scope that we know from before.
    pub fn start(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(digest) = self.scope.bundle_digest.clone() {
            self.fetch(&digest, &mut effects);
        }
        effects
    }

    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Frame(frame) => self.frame(frame, now, &mut effects),
            Event::LinkDown => {
                // The board offers and delivers again after it has seen our hello.
                self.waiting.clear();
                self.waiting_plan = None;
                self.waiting_deliveries.clear();
            }
            Event::Needs(needs) => self.needs = needs,
            Event::Recover(attempt) => {
                self.recovering.push(attempt);
                self.recover(now, &mut effects);
            }
            Event::Bundle { digest, result } => self.bundle(&digest, result, now, &mut effects),
            Event::AttemptEnded(ended) => {
                self.end(ended, &mut effects);
                effects.push(Effect::Probe);
                self.recover(now, &mut effects);
            }
            Event::Planned(planned) => effects.push(Effect::Report(ReportBody::PlanStep(planned))),
            Event::PlanEnded(ended) => self.plan_ended(ended, now, &mut effects),
            Event::Stored { deliver, result } => self.stored(deliver, result, &mut effects),
            Event::Pasted { component, slot } => {
                self.held.insert((component, slot), None);
                effects.extend([Effect::ReportSlots, Effect::Probe]);
            }
        }
        effects
    }

    /// The delivered secrets: what a person pasted is not the board's to know by version.
    pub fn held(&self) -> Vec<HeldSecret> {
        self.held
            .iter()
            .filter_map(|((component, slot), version)| {
                version.map(|version| HeldSecret {
                    component: component.clone(),
                    slot: slot.clone(),
                    version,
                })
            })
            .collect()
    }

    /// Whether nothing is under way: no attempt, no plan, and nothing that waits to become one.
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
            && self.waiting.is_empty()
            && self.recovering.is_empty()
            && self.planning.is_none()
            && self.waiting_plan.is_none()
            && self.waiting_deliveries.is_empty()
    }

    pub fn serial_seen(&self) -> u64 {
        self.seen.serial
    }

    fn frame(&mut self, frame: FromBoard, now: Instant, effects: &mut Vec<Effect>) {
        match frame {
            FromBoard::Welcome(welcome) => {
                self.board_time = Some((welcome.time, now));
                let scope = welcome.scope.clone();
                effects.push(Effect::Welcomed(Box::new(welcome)));
                self.set_scope(scope, effects);
            }
            FromBoard::Scope(scope) => self.set_scope(scope, effects),
            FromBoard::Head(head) => effects.push(Effect::Witness(head)),
            FromBoard::Offer(offer) => {
                let deadline = now.checked_add(Duration::from_millis(offer.expires_in_ms)).unwrap_or(now);
                self.offer(Waiting { offer, deadline }, now, effects);
            }
            FromBoard::Plan(request) => self.plan(request, now, effects),
            FromBoard::Deliver(deliver) => self.deliver(deliver, now, effects),
            FromBoard::Paste(paste) => self.paste(paste, now, effects),
            FromBoard::Wipe(wipe) => self.wipe(wipe, effects),
            FromBoard::Ack { reports } => effects.push(Effect::Acknowledged(reports)),
            FromBoard::Ca(ca) => self.new_ca(&ca, effects),
            FromBoard::Keys { successions } => effects.push(Effect::Keys(successions)),
            FromBoard::Release(release) => effects.push(Effect::Release(release)),
            FromBoard::Unknown => effects.push(Effect::Refuse(Refused {
                what: UNKNOWN_FRAME.to_owned(),
                reason: format!("agent {} does not know this kind of frame", crate::version()),
            })),
        }
    }

    /// What waits for a bundle is for nothing any more.
    fn wipe(&mut self, wipe: Wipe, effects: &mut Vec<Effect>) {
        self.waiting.clear();
        self.waiting_plan = None;
        self.waiting_deliveries.clear();
        self.held.clear();
        self.received.clear();
        self.scope = config::no_scope();
        if self.planning.is_some() {
            effects.push(Effect::StopPlan);
        }
        effects.push(Effect::Wipe(wipe));
    }

    /// Acknowledged again when it is known: the acknowledgement may have been lost with the agent.
    fn new_ca(&mut self, ca: &NewCa, effects: &mut Vec<Effect>) {
        let pinned = |pin: Pin| Effect::Report(ReportBody::CaPinned { pin: pin.as_bytes().to_vec() });
        match self.trust.judge(ca) {
            Judged::Known(pin) => effects.push(pinned(pin)),
            Judged::New(pin, next) => {
                self.trust.keep(next.clone());
                effects.extend([Effect::KeepCa(next), pinned(pin)]);
            }
            Judged::Refused(reason) => {
                effects.push(Effect::Refuse(Refused { what: "certificate authority".to_owned(), reason }));
            }
        }
    }

    fn offer(&mut self, waiting: Waiting, now: Instant, effects: &mut Vec<Effect>) {
        let id = waiting.offer.attempt_id;
        let same = |offer: &Offer| offer.attempt_id == id;
        if self.running == Some(id)
            || self.waiting.iter().any(|w| same(&w.offer))
            || self.recovering.iter().any(|a| same(&a.offer))
        {
            return;
        }
        if self.ended.contains(&id) {
            effects.push(Effect::RepeatAttempt(id));
            return;
        }
        if now >= waiting.deadline {
            self.refuse_offer(waiting.offer, Refusal::passing("the offer has expired"), effects);
            return;
        }
        match self.judge(&waiting.offer, now) {
            Verdict::NeedsBundle => {
                self.fetch(&waiting.offer.bundle_digest, effects);
                self.waiting.push(waiting);
            }
            Verdict::Refused(reason) => self.refuse_offer(waiting.offer, Refusal::verdict(reason), effects),
            Verdict::NotYet(reason) => self.refuse_offer(waiting.offer, Refusal::passing(reason), effects),
            Verdict::Fits(_) if self.running.is_some() || !self.recovering.is_empty() => {
                self.refuse_offer(waiting.offer, Refusal::passing("another attempt is running"), effects);
            }
            Verdict::Fits(_) if !self.may_undo(&waiting.offer) => {
                let Offer { component, step, .. } = &waiting.offer;
                let reason = undos::wants_a_person(component, step);
                self.refuse_offer(waiting.offer, Refusal::verdict(reason), effects);
            }
            Verdict::Fits(_) if self.plan_gives_way(effects) => self.waiting.push(waiting),
            Verdict::Fits(fit) => {
                self.running = Some(id);
                let plan = fit.plan(&waiting.offer, None);
                effects.extend([
                    Effect::Remember {
                        offer: waiting.offer,
                        report: ReportBody::AttemptStarted { attempt_id: id },
                    },
                    Effect::Start(Box::new(plan)),
                ]);
            }
        }
    }

    /// Only for an undo that is to begin: one that a kill interrupted began with its right.
    fn may_undo(&self, offer: &Offer) -> bool {
        offer.kind != OfferKind::Undo || self.needs.undo.allows(&offer.component, &offer.step)
    }

    /// Only a verdict is remembered: after a passing refusal the same attempt may be offered again.
    fn refuse_offer(&mut self, offer: Offer, refusal: Refusal, effects: &mut Vec<Effect>) {
        let attempt_id = offer.attempt_id;
        let Refusal { reason, passing } = refusal;
        let report = ReportBody::OfferRefused { attempt_id, reason, passing };
        if passing {
            effects.push(Effect::Report(report));
        } else {
            self.ended.insert(attempt_id);
            effects.push(Effect::Remember { offer, report });
        }
    }

    fn end(&mut self, ended: AttemptEnded, effects: &mut Vec<Effect>) {
        if self.running == Some(ended.attempt_id) {
            self.running = None;
        }
        self.ended.insert(ended.attempt_id);
        effects.push(Effect::Report(ReportBody::AttemptEnded(ended)));
    }

    /// The board's time now: a Mac whose clock is wrong still knows what has expired.
    pub fn board_now(&self, now: Instant) -> Option<Timestamp> {
        self.board_time.map(|(time, at)| time.after(now.saturating_duration_since(at)))
    }
}

#[cfg(test)]
mod tests;
