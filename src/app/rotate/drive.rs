//! One rotation, driven to its end: each act announced durably, done once, and what was seen of it
//! made durable before the next.

use super::{Standing, Tools, escrow, standing};
use crate::app::access::Call;
use crate::decide::rotation::{Act, Next, Seen, begin, next, seen};
use crate::engine::clock::wall_ms;
use crate::model::change::PasswordEnd;
use crate::model::rotation::{Login, Phase, Rotation, Said, Which};
use crate::model::{Change, Controllers, Fault, FaultClass, MachineId, Outcome};
use crate::port::session::At;
use crate::port::{BmcTarget, Inward, Secret};
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the new password waits, sealed.
pub(super) fn pending(r: &Rotation) -> String {
    format!("pending/{}", r.new)
}

/// Why others are kept out.
pub(super) fn words(r: &Rotation) -> &'static str {
    match r.phase {
        Phase::Stuck => "neither the old nor the new password works, and a person must look",
        _ => "its password is being changed",
    }
}

/// The wall clock may jump: it is looked at again after this long at most.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// The machine with all that counts by now, where the one login of this rotation's BMC is the old one.
fn aimed(t: &Tools, r: &Rotation, found: &Standing) -> BmcTarget {
    let mut target = match t.access.resolve(&found.target) {
        Ok(target) => target,
        // The pin went meanwhile; the endpoint is needed all the same, and no call will pass it.
        Err(_) => found.target.clone(),
    };
    match &found.controller {
        None => {
            target.endpoint.credential = r.old.as_str().into();
            // Nothing of this is theirs: they may be in a rotation of their own.
            target.endpoint.controllers = Controllers::default();
        }
        Some(name) => target.endpoint.controllers.change(|c| {
            if c.name == *name {
                c.credential = r.old.as_str().into();
            }
        }),
    }
    target
}

pub(super) async fn drive(t: &Tools, mut r: Rotation, found: &Standing) {
    let at = found.at();
    loop {
        if r.keeps_others_out() {
            t.access.shut(&at, words(&r)).await;
        }
        let now = wall_ms();
        let act = match next(&r, now, &t.pace) {
            Next::End => break,
            Next::Rest { until_ms } => {
                nap(until_ms.saturating_sub(now)).await;
                continue;
            }
            Next::Act(act) => act,
        };
        let seat = match act {
            Act::Set => may_set(t, &r, found).await,
            _ => Ok(None),
        };
        let _host = match seat {
            Ok(seat) => seat,
            Err(why) => {
                tracing::info!(machine = %r.machine, %why, "the new password is not set yet");
                nap(t.pace.pause_ms).await;
                continue;
            }
        };
        let announced = matches!(act, Act::Set | Act::Try(_));
        begin(&mut r, act, wall_ms());
        if announced && !keep(t, &r).await {
            return;
        }
        if r.keeps_others_out() {
            t.access.shut(&at, words(&r)).await;
        }
        let (saw, trouble) = perform(t, act, &r, found).await;
        if let Some(trouble) = trouble {
            tracing::warn!(machine = %r.machine, act = ?act, %trouble, "a rotation");
            r.trouble = Some(trouble);
        }
        seen(&mut r, act, saw, wall_ms(), &t.pace);
        if !keep(t, &r).await {
            return;
        }
    }
    end(t, &r, &at).await;
}

async fn end(t: &Tools, r: &Rotation, at: &At) {
    note(t, r, at.machine).await;
    match r.phase {
        Phase::Stuck => {
            t.access.shut(at, words(r)).await;
            tracing::error!(
                machine = %r.machine,
                "neither the old nor the new password works: nobody logs in there until \
                 `farrier bmc rotate {} --look-again` or `--forget`; the hook was told of the new one",
                r.machine
            );
            return;
        }
        Phase::Kept => {
            tracing::info!(machine = %r.machine, "the new password is in force and kept");
        }
        _ => tracing::warn!(
            machine = %r.machine,
            trouble = r.trouble.as_deref().unwrap_or("the BMC did not take it"),
            "the new password was taken back; the old one is in force"
        ),
    }
    unseal(t, r).await;
    t.access.open(at);
}

/// The copy of the new password that was for the way alone.
pub(super) async fn unseal(t: &Tools, r: &Rotation) {
    if let Err(e) = t.secrets.remove(&pending(r)).await {
        tracing::warn!(machine = %r.machine, error = %e, "the sealed copy of it stays");
    }
}

/// Longest wait until the journal has it.
const NOTE: Duration = Duration::from_secs(10);

/// Puts the end into the machine's journal, once, where people look; webhooks hear from there.
pub(super) async fn note(t: &Tools, r: &Rotation, id: MachineId) {
    let (end, why) = match r.phase {
        Phase::Stuck => (
            PasswordEnd::Stuck,
            format!(
                "neither the old nor the new password of `{}` works; nobody logs in until \
                 `farrier bmc rotate {} --look-again` or `--forget`",
                r.user, r.machine
            ),
        ),
        Phase::Kept => (PasswordEnd::Rotated, r.why.clone()),
        _ => {
            let trouble = r.trouble.as_deref().unwrap_or("the BMC did not take the new one");
            (PasswordEnd::TakenBack, trouble.to_string())
        }
    };
    let (ack, acked) = oneshot::channel();
    let order = Inward::Change {
        machine: id,
        change: Change::Password { end, controller: r.place().1.map(Into::into), why },
        by: r.by.clone(),
        // Said again after a restart, it is there already.
        key: format!("rotation-{}-{}-{}", r.machine, r.phase.name(), r.since_ms),
        ack,
    };
    let taken = async {
        t.engine.inbox.send(order).await.ok()?;
        acked.await.ok()
    };
    match tokio::time::timeout(NOTE, taken).await {
        Ok(Some(Ok(_))) => {}
        why => tracing::warn!(machine = %r.machine, ?why, "the journal does not have its end"),
    }
}

async fn nap(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms.max(1)).min(LONGEST_NAP)).await;
}

/// Durable, or the rotation rests until the next start: what it says then is what it said last.
async fn keep(t: &Tools, r: &Rotation) -> bool {
    match t.store.keep_rotation(r).await {
        Ok(()) => true,
        Err(e) => {
            tracing::error!(machine = %r.machine, error = %e, "its rotation rests until a restart");
            false
        }
    }
}

/// May the new password be set now? At a further controller the machine is proven by its host's BMC first,
/// so there is a place at that one: nobody changes its password meanwhile.
///
/// # Errors
/// What speaks against it, for a person.
async fn may_set<'a>(
    t: &'a Tools,
    r: &Rotation,
    found: &Standing,
) -> Result<Option<Call<'a>>, String> {
    let place = r.machine.clone();
    match t.engine.ask(move |d, _| standing(d, &place)).await.flatten() {
        Some(Standing { refusal: Some(why), .. }) => return Err(why),
        Some(_) => {}
        None => return Err("the engine does not know the machine, or not this controller".into()),
    }
    if found.controller.is_none() {
        return Ok(None);
    }
    // At the host's BMC alone: from the controller this rotation itself keeps everybody.
    let mut host = found.target.clone();
    host.endpoint.controllers = Controllers::default();
    t.access.enter(&host).map(|(call, _)| Some(call)).map_err(|f| f.to_string())
}

/// What was seen, and what people should know of it.
async fn perform(t: &Tools, act: Act, r: &Rotation, found: &Standing) -> (Seen, Option<String>) {
    let target = &aimed(t, r, found);
    let new = match t.secrets.get(&pending(r)) {
        Ok(Some((_, password))) => password,
        Ok(None) => return (Seen::Failed, Some("the sealed new password is gone".into())),
        Err(e) => return (Seen::Failed, Some(e.to_string())),
    };
    match act {
        Act::Escrow => done(tell(t, escrow::State::Pending, r, target, &new).await),
        Act::Set => {
            let outcome = match &found.controller {
                Some(name) => t.edge.set_password_at(target, name, &r.user, &new).await,
                None => t.edge.set_password(target, &r.user, &new).await,
            };
            let (said, trouble) = said(outcome);
            (Seen::Set(said), trouble)
        }
        Act::Try(which) => attempt(t, which, r, (found, target), &new).await,
        Act::Promote => {
            if let Err(e) = t.secrets.set(&r.new, &r.user, &new).await {
                return (Seen::Failed, Some(e.to_string()));
            }
            log_out(t, found, target).await;
            // It has the password already; this only says which one counts.
            let told = tell(t, escrow::State::InForce, r, target, &new).await;
            (Seen::Done, told.err())
        }
        Act::TakeBack => {
            log_out(t, found, target).await;
            let told = tell(t, escrow::State::Withdrawn, r, target, &new).await;
            (Seen::Done, told.err())
        }
    }
}

fn done(result: Result<(), String>) -> (Seen, Option<String>) {
    match result {
        Ok(()) => (Seen::Done, None),
        Err(why) => (Seen::Failed, Some(why)),
    }
}

async fn tell(
    t: &Tools,
    state: escrow::State,
    r: &Rotation,
    target: &BmcTarget,
    password: &Secret,
) -> Result<(), String> {
    // By the configuration in force: a hook that was corrected is the one that counts.
    match &t.current.get().daemon.escrow {
        Some(hook) => escrow::tell(hook, state, r, target, password).await,
        None if !r.needs_escrow || state != escrow::State::Pending => Ok(()),
        None => Err("there is no `[escrow]` hook any more".into()),
    }
}

fn said(outcome: Outcome) -> (Said, Option<String>) {
    let passes = |f: &Fault| matches!(f.class, FaultClass::Transient | FaultClass::Throttled);
    match outcome {
        Outcome::Applied { .. } => (Said::Applied, None),
        Outcome::Failed { fault } => {
            (Said::Refused { again: passes(&fault) }, Some(fault.to_string()))
        }
        Outcome::Refused { saw, .. } => (Said::Refused { again: false }, Some(saw)),
        Outcome::Unknown { fault } => (Said::Unclear, Some(fault.to_string())),
        Outcome::Withdrawn { why } => (Said::Refused { again: true }, Some(why)),
    }
}

async fn attempt(
    t: &Tools,
    which: Which,
    r: &Rotation,
    (found, target): (&Standing, &BmcTarget),
    new: &Secret,
) -> (Seen, Option<String>) {
    let password = match which {
        Which::New => new.clone(),
        Which::Old => match t.vault.credential(&r.old).await {
            Ok(credential) => credential.password,
            Err(f) => return (Seen::Login(None), Some(f.to_string())),
        },
    };
    let tried = match &found.controller {
        Some(name) => t.edge.verify_at(target, name, &r.user, &password).await,
        None => t.edge.verify(target, &r.user, &password).await,
    };
    match tried {
        Ok(()) => (Seen::Login(Some(Login::Works)), None),
        Err(f) if f.class == FaultClass::Auth => {
            (Seen::Login(Some(Login::Refused)), Some(f.to_string()))
        }
        Err(f) => (Seen::Login(None), Some(f.to_string())),
    }
}

/// Sessions of the old password end with it (field notes R2); one that stays times out.
async fn log_out(t: &Tools, found: &Standing, target: &BmcTarget) {
    let ended = match &found.controller {
        Some(name) => t.edge.end_sessions_at(target, name).await,
        None => match t.edge.end_sessions(target).await {
            Outcome::Failed { fault } => Err(fault),
            _ => Ok(()),
        },
    };
    if let Err(fault) = ended {
        tracing::debug!(machine = %target.name, %fault, "the session was not ended");
    }
}
