//! From a client's scope to a device's runbook: components in the order of `depends_on`, their steps in order, without
//! steps for other platforms.

use std::collections::{BTreeMap, BTreeSet};

use shared::catalog::{Manifest, Platform, Step, Tag};
use shared::ids::{ClientId, RunbookId, StepId};

use super::{AttemptState, Runbook, StepState, pause_of, restart, run, store};
use crate::app::App;
use crate::audit::{self, Action, Entry, Who};
use crate::catalog::{self, Catalog};
use crate::clients::{self, Scope};
use crate::db::Tx;
use crate::enrollment::Device;
use crate::error::Failure;
use crate::secrets;

/// Why a step was skipped that left the scope before it began. It comes back when its component does.
pub(super) const LEFT: &str = "no longer in the client's scope";

/// What fitting a runbook to a scope changes. Made by [`changes`] alone, shown before and applied by [`apply`].
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Steps that come to the end of the runbook, in order.
    pub added: Vec<Added>,
    /// Steps that left the scope before they began, and are wanted again.
    pub back: Vec<super::Step>,
    /// Steps of components that come back, whose secret became another one meanwhile: they run again by themselves.
    pub again: Vec<super::Step>,
    /// Steps that have not begun and are skipped.
    pub left: Vec<super::Step>,
    /// Steps out of scope that were to run once more: each goes back to how its last attempt ended.
    pub rests: Vec<super::Step>,
    /// Steps out of scope that began: they stay as they are.
    pub begun: Vec<super::Step>,
}

#[derive(Clone, Debug)]
pub(super) struct Added {
    pub component: String,
    pub step: Step,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && [&self.back, &self.again, &self.left, &self.rests].iter().all(|steps| steps.is_empty())
    }
}

/// What a client's scope wants of its runbooks.
pub(super) struct Wants {
    pub scope: Scope,
    /// Slots of ours that have a value.
    pub stored: BTreeSet<(String, String)>,
}

impl Wants {
    /// By the scope that is saved.
    pub async fn of(tx: &mut Tx, client_id: ClientId) -> Result<Self, sqlx::Error> {
        let scope = clients::scope(tx, client_id).await?;
        Self::by(tx, client_id, scope).await
    }

    pub async fn by(tx: &mut Tx, client_id: ClientId, scope: Scope) -> Result<Self, sqlx::Error> {
        Ok(Self { scope, stored: secrets::stored_slots(tx, client_id).await? })
    }

    /// Whether a step of the runbook is to run, whatever it did before.
    pub fn step(&self, catalog: &Catalog, step: &super::Step) -> bool {
        let manifest = catalog.manifests.get(&step.component_key);
        let manifest = manifest.filter(|manifest| self.scope.components.contains(&manifest.key));
        let written = manifest.and_then(|manifest| Some((manifest, manifest.step(&step.step_key)?)));
        written.is_some_and(|(manifest, written)| belongs(written, manifest, &self.scope, &self.stored))
    }
}

/// A device's runbook and what a scope would change in it.
pub(super) struct Fitting {
    pub runbook: Runbook,
    pub is_paused: bool,
    pub catalog: Catalog,
    pub present: Vec<super::Step>,
    pub changes: Changes,
}

/// The device's runbook, fitting its client's scope: composed when it has none and there is a catalog; steps that came
/// into scope later are added at the end, those that left it before they began are skipped. Approval of the device
/// starts it.
pub async fn ensure(app: &App, tx: &mut Tx, device: &Device) -> Result<Option<Runbook>, Failure> {
    clients::take_turn(tx, device.client_id).await?;
    let is_first = store::of_device(tx, device.id).await?.is_none();
    if is_first {
        let Some(catalog) = catalog::current(tx).await? else { return Ok(None) };
        let runbook = Runbook {
            id: RunbookId::new(&*app.clock, &*app.random),
            device_id: device.id,
            bundle_digest: catalog.digest,
            created_at: app.now(),
        };
        store::insert(tx, &runbook).await?;
    }
    let scope = clients::scope(tx, device.client_id).await?;
    let Some(fitting) = fitting(tx, device, &scope, &scope).await? else {
        return Ok(store::of_device(tx, device.id).await?);
    };
    if is_first || !fitting.changes.is_empty() {
        apply(app, tx, device, &fitting).await?;
        audit::append(tx, &entry(app, Who::job("runbook"), device, &fitting)).await?;
    }
    Ok(Some(fitting.runbook))
}

/// What the scope `after`, in place of `before`, would change on this device. `None` while it has no runbook.
pub(super) async fn fitting(
    tx: &mut Tx,
    device: &Device,
    before: &Scope,
    after: &Scope,
) -> Result<Option<Fitting>, Failure> {
    let Some(runbook) = store::of_device(tx, device.id).await? else { return Ok(None) };
    let Some(catalog) = catalog::by_digest(tx, &runbook.bundle_digest).await? else { return Ok(None) };
    let present = store::steps(tx, runbook.id).await?;
    let was = Wants::by(tx, device.client_id, before.clone()).await?;
    let wants = Wants::by(tx, device.client_id, after.clone()).await?;
    let was_wanted = |step: &super::Step| was.step(&catalog, step);
    let changes = changes(&wanted(device.platform, &wants, &catalog), &present, was_wanted);
    let is_paused = pause_of(tx, runbook.id).await?.is_some();
    Ok(Some(Fitting { runbook, is_paused, catalog, present, changes }))
}

/// From the steps that a device should have and those that its runbook has, to what has to change.
pub(super) fn changes(
    wanted: &[(&str, &Step)],
    present: &[super::Step],
    was_wanted: impl Fn(&super::Step) -> bool,
) -> Changes {
    let mut changes = Changes::default();
    for (component, step) in wanted {
        let there = present.iter().any(|one| one.component_key == *component && one.step_key == step.id);
        if !there {
            changes.added.push(Added { component: (*component).to_owned(), step: (*step).clone() });
        }
    }
    for step in present {
        let stays = wanted.iter().any(|(key, one)| *key == step.component_key && one.id == step.step_key);
        let left_before = step.state == StepState::Skipped && step.note.as_deref() == Some(LEFT);
        match (stays, step.state) {
            (true, _) if left_before => changes.back.push(step.clone()),
            (true, _) if restart::is_due(step) && !was_wanted(step) => changes.again.push(step.clone()),
            (true, _) | (false, StepState::Skipped) => {}
            // A person asked for it: what left the scope may go from the device, too.
            (false, StepState::Ready) if step.undo_for.is_some() => changes.begun.push(step.clone()),
            (false, StepState::Blocked | StepState::Ready | StepState::Waiting) => match resting(step) {
                Some(_) => changes.rests.push(step.clone()),
                None => changes.left.push(step.clone()),
            },
            (
                false,
                StepState::Offered
                | StepState::Running
                | StepState::Succeeded
                | StepState::Failed
                | StepState::Interrupted
                | StepState::Cancelled,
            ) => changes.begun.push(step.clone()),
        }
    }
    changes
}

/// How a step's last attempt ended; `None` while it was not tried, or was undone.
pub(super) fn resting(step: &super::Step) -> Option<StepState> {
    let undone = step.undone_for.is_some();
    Some(match step.attempt_state? {
        AttemptState::Succeeded | AttemptState::AlreadySo if undone => return None,
        AttemptState::Succeeded | AttemptState::AlreadySo => StepState::Succeeded,
        AttemptState::Refused if undone => StepState::Succeeded,
        AttemptState::Failed | AttemptState::Refused => StepState::Failed,
        AttemptState::Interrupted => StepState::Interrupted,
        AttemptState::Cancelled => StepState::Cancelled,
        AttemptState::Offered | AttemptState::Running => return None,
    })
}

/// Makes the changes. Comes back with whether each was made: not when a step moved on since they were computed.
pub(super) async fn apply(
    app: &App,
    tx: &mut Tx,
    device: &Device,
    fitting: &Fitting,
) -> Result<bool, Failure> {
    let Fitting { runbook, catalog, present, changes, .. } = fitting;
    let now = app.now();
    let next = i64::try_from(present.len()).unwrap_or(i64::MAX);
    for (position, added) in (next..).zip(&changes.added) {
        let id = StepId::new(&*app.clock, &*app.random);
        store::insert_step(tx, runbook, id, position, &added.component, &added.step).await?;
    }
    let left = changes.left.iter().map(|step| (step, StepState::Skipped, Some(LEFT)));
    let back = changes.back.iter().map(|step| (step, StepState::Blocked, None));
    let rests = changes.rests.iter().filter_map(|step| Some((step, resting(step)?, None)));
    let mut all = true;
    for (step, to, note) in left.chain(back).chain(rests) {
        all &= store::move_own_step(tx, device.id, step.id, step.state, to, note, now).await? == 1;
    }
    run::advance(app, tx, runbook, catalog).await?;
    Ok(all)
}

/// What the audit log keeps of it.
pub(super) fn entry(app: &App, who: Who, device: &Device, fitting: &Fitting) -> Entry {
    let changes = &fitting.changes;
    Entry::new(app.now(), who, Action::RunbookComposed)
        .client(device.client_id)
        .device(device.id)
        .detail("bundle", &fitting.catalog.digest)
        .detail("added", changes.added.len() + changes.back.len() + changes.again.len())
        .detail("left", changes.left.len() + changes.rests.len())
}

/// The steps that a device should have, in order.
fn wanted<'a>(
    platform: Platform,
    Wants { scope, stored }: &Wants,
    catalog: &'a Catalog,
) -> Vec<(&'a str, &'a Step)> {
    let keys: Vec<String> = scope.components.iter().cloned().collect();
    let manifests =
        ordered(&keys, &catalog.manifests).into_iter().filter_map(|key| catalog.manifests.get(key));
    manifests
        .flat_map(|manifest| manifest.steps.iter().map(move |step| (manifest, step)))
        .filter(|(manifest, step)| step.runs_on(platform, manifest))
        .filter(|(manifest, step)| belongs(step, manifest, scope, stored))
        .map(|(manifest, step)| (manifest.key.as_str(), step))
        .collect()
}

/// Whether a step's `when` holds for this client. For a slot outside of a group that the client supplies, only the device
/// can say: such a step is in the runbook, and is skipped when its turn comes and the slot is empty.
fn belongs(step: &Step, manifest: &Manifest, scope: &Scope, stored: &BTreeSet<(String, String)>) -> bool {
    if step.when.is_empty() {
        return true;
    }
    if let Some(condition) = step.when.strip_prefix("param:") {
        let (key, value) = condition.split_once('=').unwrap_or((condition, ""));
        return scope.param(&manifest.key, key) == Some(value);
    }
    let Some(slot) = step.when.strip_prefix("slot:").and_then(|key| manifest.slot(key)) else { return false };
    match (slot.tag, &slot.one_of) {
        (_, Some(_)) => scope.wants_slot(manifest, &slot.key),
        (Tag::OurManaged, None) => stored.contains(&(manifest.key.clone(), slot.key.clone())),
        (Tag::ClientSupplied, None) => true,
    }
}

/// The scope, with everything that a component depends on before it. Components that the scope doesn't name are not
/// added: the wizard decides what is in scope.
pub(super) fn ordered<'a>(scope: &'a [String], manifests: &BTreeMap<String, Manifest>) -> Vec<&'a str> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for key in scope {
        visit(key, scope, manifests, &mut seen, &mut order);
    }
    order
}

fn visit<'a>(
    key: &'a str,
    scope: &'a [String],
    manifests: &BTreeMap<String, Manifest>,
    seen: &mut BTreeSet<&'a str>,
    order: &mut Vec<&'a str>,
) {
    if !seen.insert(key) {
        return;
    }
    let needed = manifests.get(key).map(|manifest| manifest.depends_on.as_slice()).unwrap_or_default();
    for other in scope.iter().filter(|other| needed.contains(other)) {
        visit(other, scope, manifests, seen, order);
    }
    order.push(key);
}
