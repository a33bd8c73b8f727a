//! Certificates of BMCs. One that nobody has accepted yet is waited for. Another one than the accepted
//! one is another machine's, unless Farrier itself gave the BMC reason to make it anew.

use super::{Input, Verdict, give_up, wait};
use crate::model::facts::Read;
use crate::model::machine::Act;
use crate::model::{
    Action, ActionKind, Channel, Fault, FaultClass, Further, OpenAction, OpenState, controller,
};

/// What a machine waits for whose inventory says `tls = "pin"`, and that has no pin.
const FIRST: &str = "a person to accept the BMC's certificate";

/// What a machine waits for whose BMC came back from Farrier's own update with a new certificate.
const NEW: &str = "a person to accept the BMC's new certificate";

/// A person who accepts it has the machine looked at by that.
const ASK_AGAIN_MS: u64 = 60_000;

/// How long after Farrier's own update a new certificate is put down to it.
const RENEWED_MS: u64 = 3_600_000;

/// What follows from a fault of the host's BMC, where it is about its certificate.
pub(super) fn of_host(i: &Input<'_>, fault: &Fault) -> Option<Verdict> {
    let what = match fault.code.as_ref() {
        // At rest there is nothing that would wait for it.
        Fault::NO_PIN if i.m.step.is_some() => FIRST,
        Fault::CERTIFICATE_CHANGED if renewed(i, None) => NEW,
        Fault::CERTIFICATE_CHANGED => return Some(give_up(i, fault.clone())),
        _ => return None,
    };
    Some(wait(i, what, ASK_AGAIN_MS))
}

/// What follows where a further controller shows another certificate than the accepted one. One that
/// nobody has accepted is an unread controller: it is waited for where it is needed, and hides nothing
/// of the host.
pub(super) fn of_controllers(i: &Input<'_>) -> Option<Verdict> {
    i.expected.bmc.controllers.iter().find_map(|c| {
        let fault = changed(i, c)?;
        if !renewed(i, Some(&c.name)) {
            return Some(give_up(i, fault));
        }
        // What goes on at another BMC of the machine is followed meanwhile.
        let elsewhere = i.m.open.as_ref().filter(|o| !is_at(&o.action, Some(&c.name)));
        elsewhere.is_none().then(|| wait(i, &c.new_certificate(), ASK_AGAIN_MS))
    })
}

fn changed(i: &Input<'_>, c: &Further) -> Option<Fault> {
    let is = |f: &&Fault| f.code == Fault::CERTIFICATE_CHANGED;
    let whole = c.prefixed("");
    let firmware = i.report.firmware.seen().map_or(&[][..], Vec::as_slice);
    let unread =
        firmware.iter().filter(|one| one.id == whole).find_map(|one| one.unread.as_deref());
    if let Some(fault) = unread.filter(is) {
        return Some(fault.clone());
    }
    match &i.report.tasks {
        Read::Seen(tasks) => {
            let code = Fault::CERTIFICATE_CHANGED;
            let task = tasks.iter().find(|t| t.uri == whole && t.is_unread_for(code))?;
            let why = task.message.clone().unwrap_or_else(|| c.called());
            let place = controller::place(&i.m.name, Some(&c.name));
            Some(Fault::new(FaultClass::Identity, Channel::Bmc, code, why).hint(format!(
                "firmware updates and factory resets make a new one: compare it on site, then \
                 accept it with `farrier bmc pin {place}`"
            )))
        }
        // One task alone was asked for, by its name.
        Read::Failed(fault) => {
            let handle = i.m.open.as_ref().and_then(|o| o.handle.as_deref());
            let here = handle.is_some_and(|h| controller::split(h).0 == Some(&*c.name));
            Some(fault).filter(is).filter(|_| here).cloned()
        }
        Read::NotAsked => None,
    }
}

fn is_at(action: &Action, controller: Option<&str>) -> bool {
    let reaches = matches!(action.kind(), ActionKind::UpdateFirmware | ActionKind::BmcReset);
    reaches && action.controller() == controller
}

/// Did Farrier itself update this BMC within the last hour, and was it reset since, by Farrier or by the
/// update? Such resets make self-signed certificates anew (field notes §4). `None`: the host's BMC.
fn renewed(i: &Input<'_>, controller: Option<&str>) -> bool {
    let open = i.m.open.as_deref().filter(|o| is_at(&o.action, controller));
    let is = |o: &OpenAction, kind| o.action.kind() == kind;
    let flashing = open.filter(|o| is(o, ActionKind::UpdateFirmware));
    if flashing.is_some_and(|o| o.state != OpenState::Intended) {
        return true;
    }
    let resets = open.is_some_and(|o| is(o, ActionKind::BmcReset));
    let acts = i.m.step.as_ref().map_or(&[][..], |s| &s.acts);
    let flashed = acts.iter().rev().find(|a| {
        a.kind == ActionKind::UpdateFirmware
            && a.happened
            && i.now.since(a.closed) <= RENEWED_MS
            && was_at(i, a, controller)
    });
    flashed.is_some_and(|flashed| {
        let was_reset = match controller {
            None => i.m.last_reset >= flashed.at,
            Some(name) => acts.iter().any(|a| resets_controller(a, name) && a.at >= flashed.at),
        };
        resets || was_reset
    })
}

/// The machine's power takes its controllers along.
fn resets_controller(act: &Act, name: &str) -> bool {
    match act.kind {
        ActionKind::BmcReset => act.about == name,
        kind => {
            matches!(kind, ActionKind::PowerOn | ActionKind::PowerOff | ActionKind::PowerRestart)
        }
    }
}

/// Was this update one of that BMC? An act names its component, and the catalog says which BMC has it.
/// One that it does not know any more counts as the host's.
fn was_at(i: &Input<'_>, update: &Act, controller: Option<&str>) -> bool {
    let sets = i.profile.firmware_set.as_ref().map(|name| {
        let sets = i.site.catalog.families.iter().filter_map(move |f| f.sets.get(name));
        sets.flat_map(|set| &set.firmware).filter(|fw| fw.component == update.about)
    });
    let mut known = sets.into_iter().flatten().map(|fw| fw.controller()).peekable();
    match known.peek() {
        Some(_) => known.any(|at| at == controller),
        None => controller.is_none(),
    }
}

/// A certificate that a machine waits for.
pub(super) struct Awaited {
    /// Whose it is, as `farrier bmc pin` takes it.
    pub(super) place: String,
    /// The controller's name; `None`: the host's BMC.
    pub(super) controller: Option<String>,
    /// Farrier's own update made it anew.
    pub(super) renewed: bool,
}

/// The certificate that is waited for in these words, if it is one.
pub(super) fn awaited(i: &Input<'_>, waiting: &str) -> Option<Awaited> {
    let at = |controller: Option<&str>, renewed| Awaited {
        place: controller::place(&i.m.name, controller),
        controller: controller.map(str::to_string),
        renewed,
    };
    match waiting {
        FIRST => return Some(at(None, false)),
        NEW => return Some(at(None, true)),
        _ => {}
    }
    i.expected.bmc.controllers.iter().find_map(|c| {
        if waiting == c.first_certificate() {
            return Some(at(Some(&c.name), false));
        }
        (waiting == c.new_certificate()).then(|| at(Some(&c.name), true))
    })
}
