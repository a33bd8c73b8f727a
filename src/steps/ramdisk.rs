//! Brings a machine into the deploy ramdisk of its run: boot window, power, boot override, callback,
//! login with the key that the callback told. What the ramdisk is needed for goes on from there.

use super::identify::{other_asked, pair, wrong_machine};
use super::{Look, View};
use crate::model::action::{BootTarget, PowerOp};
use crate::model::deploy::{BootMethod, RAMDISK};
use crate::model::facts::{HostFacts, Power, ProbeSet, SystemFacts, WindowFacts};
use crate::model::identity::Match;
use crate::model::time::Span;
use crate::model::{
    Action, ActionKind, Channel, EngineTime, Entry, Fault, FaultClass, Machine, Read,
};

/// A ramdisk that leaves so many reads in a row unanswered is gone, and booted anew.
const SILENCES: u32 = 6;

/// What of a machine's ramdisk is to be known.
pub(super) struct Ramdisk<'v, 'a> {
    pub(super) v: &'v View<'a>,
    pub(super) system: &'a SystemFacts,
    pub(super) window: &'a WindowFacts,
    /// Longest time from power on to the callback, then again to the first login.
    pub(super) deadline: Span,
    pub(super) allow_existing_data: bool,
    /// Whom it lets in besides Farrier.
    pub(super) keys: Vec<String>,
}

impl<'a> Ramdisk<'_, 'a> {
    /// The host, once this run's ramdisk answers on it; until then what is to be done for that.
    pub(super) fn enter(&self) -> Result<&'a HostFacts, Box<Look>> {
        let v = self.v;
        let run = v.run_name();
        let is_up = is_up(v.m, &run);
        let host = v.report.host.seen();
        // Whoever answers, this ramdisk or a system on the disk: power is cut and disks are written only
        // where BMC and host are one machine.
        if let Some(host) = host
            && let Match::Differs { part, expected, found } =
                pair(&self.system.identity, &host.identity)
        {
            return Err(Box::new(Look::Fail(wrong_machine(
                Channel::Host,
                part,
                &expected,
                &found,
            ))));
        }
        if let Some(host) = host.filter(|h| is_up && h.ramdisk_run.as_deref() == Some(&*run)) {
            return Ok(host);
        }
        // It was there; a read that says nothing is no reason to cut its power. Without power it is gone.
        let alone = v.m.happened(ActionKind::OpenBootWindow).is_none();
        let may_be_there = is_up && alone && self.system.power != Power::Off;
        if let Some(fault) = v.report.host.fault().filter(|_| may_be_there)
            && fault.class != FaultClass::Identity
            && self.silences() < SILENCES
        {
            return Err(Box::new(Look::Unread(fault.clone())));
        }
        Err(Box::new(self.boot(&run, is_up)))
    }

    fn known_key(&self) -> Option<&str> {
        self.v.m.ramdisk.as_ref().map(|r| &*r.host_key)
    }

    /// Reads in a row that the ramdisk left unanswered.
    fn silences(&self) -> u32 {
        let note = self.v.m.last_fault.as_ref().filter(|n| n.fault.channel == Channel::Host);
        note.map_or(0, |n| n.count)
    }

    /// The next act on the way.
    fn boot(&self, run: &str, is_up: bool) -> Look {
        let v = self.v;
        let method = method(v);
        // Unbooted until our window was opened in this attempt.
        let Some(opened) = v.m.happened(ActionKind::OpenBootWindow) else {
            return Look::Act(Action::OpenBootWindow {
                image: RAMDISK.into(),
                run: run.into(),
                allow_existing_data: self.allow_existing_data,
                keys: self.keys.clone(),
            });
        };
        if self.window.run.as_deref() != Some(run) {
            return Look::Fail(Fault::new(
                FaultClass::Transient,
                Channel::Boot,
                "window-gone",
                "the boot window of this run is gone",
            ));
        }
        if let Some(fault) = other_asked(v, self.window) {
            return Look::Fail(fault);
        }
        let on = v.m.happened(ActionKind::PowerOn).filter(|a| a.at >= opened.at);
        if let (Some(on), Some(said)) = (on, &self.window.callback) {
            return match (said.ok, &said.host_key, &self.window.from) {
                // A ramdisk that somebody restarted has made itself another key.
                (true, Some(key), Some(from)) if !is_up || self.known_key() != Some(key) => {
                    Look::Note(vec![Entry::RamdiskUp {
                        run: run.into(),
                        address: from.clone(),
                        host_key: key.clone(),
                    }])
                }
                (true, Some(_), Some(_)) => self.first_login(v.watched_since(on.closed)),
                _ => Look::Fail(Fault::new(
                    FaultClass::Transient,
                    Channel::Boot,
                    "ramdisk-refused",
                    format!(
                        "the deploy ramdisk gave up: {}",
                        said.message.as_deref().unwrap_or("no reason given")
                    ),
                )),
            };
        }
        match (on, self.system.power) {
            (Some(on), Power::On) => self.called_back(v.watched_since(on.closed), method),
            (_, Power::PoweringOn | Power::PoweringOff | Power::Unknown) => {
                Look::wait("the power state to settle", 5_000)
            }
            (_, Power::On) => Look::Act(Action::Power { op: PowerOp::ForceOff }),
            (_, Power::Off)
                if method == BootMethod::VirtualMedia && !holds_medium(v, run, opened.at) =>
            {
                Look::Act(Action::InsertMedia { run: run.into() })
            }
            (_, Power::Off) => {
                let left = (method != BootMethod::VirtualMedia).then(|| eject(v)).flatten();
                left.unwrap_or_else(|| match boots_from(self.system, method.target()) {
                    false => Look::Act(Action::SetBoot { target: method.target() }),
                    true => Look::Act(Action::Power { op: PowerOp::On }),
                })
            }
        }
    }

    /// Powered on, and no word from it so far.
    fn called_back(&self, waited: u64, method: BootMethod) -> Look {
        let name = method.name();
        // Without the ramdisk's key whoever answers is the installed system.
        let image = match &self.v.report.host {
            Read::Seen(host) => Some(host.image.as_deref().unwrap_or("an unknown system")),
            Read::Failed(f) if f.class == FaultClass::Identity => Some("a system with another key"),
            _ => None,
        };
        if let Some(image) = image {
            return Look::Fail(
                Fault::new(
                    FaultClass::Transient,
                    Channel::Boot,
                    "booted-disk",
                    format!("the host booted {image} from its disk and not the ramdisk by {name}"),
                )
                .hint("look at the BIOS's boot order and whether it obeys the BMC's boot override"),
            );
        }
        if waited > self.deadline.0 {
            let window = self.window;
            // Whoever asks first with this MAC has the window: another address than the machine's tells.
            let from = window.from.as_deref().map_or(String::new(), |a| format!(" from {a}"));
            let how_far = match (window.script_fetched, window.seed_fetched) {
                (false, _) => {
                    "it never asked for its boot script: did it boot the old disk?".to_string()
                }
                (true, false) => {
                    format!("its boot script was fetched{from}, and its seed never")
                }
                (true, true) => format!("its seed was fetched{from}, and nobody called back"),
            };
            return Look::Fail(
                Fault::new(
                    FaultClass::Transient,
                    Channel::Boot,
                    "no-callback",
                    format!("no word from the ramdisk {} after power on by {name} ({how_far})", self.deadline),
                )
                .hint("look at the console; `farrier doctor` checks DHCP, the loaders and `advertise_url`, `farrier discover seen` tells of a wrong boot MAC"),
            );
        }
        let what = match (self.window.script_fetched, self.window.seed_fetched) {
            (false, _) => "the host to fetch its boot script",
            (true, false) => "the ramdisk to fetch its seed",
            (true, true) => "the ramdisk to call back",
        };
        // The boot server tells of each of these at once; this is for what it could not tell.
        Look::wait(what, 60_000)
    }

    /// It called back; `waited`: since it was powered on.
    fn first_login(&self, waited: u64) -> Look {
        let fault = self.v.report.host.fault();
        if fault.is_some_and(|f| f.class == FaultClass::Identity) {
            return Look::Fail(left(fault));
        }
        if waited > self.deadline.0.saturating_mul(2) {
            return Look::Fail(
                Fault::new(
                    FaultClass::Transient,
                    Channel::Host,
                    "ramdisk-silent",
                    format!(
                        "the deploy ramdisk called back and did not answer SSH within {}",
                        self.deadline
                    ),
                )
                .hint("can this machine reach port 22 of the provision network?")
                .evidence(fault.map(ToString::to_string).unwrap_or_default()),
            );
        }
        Look::wait("the ramdisk to answer SSH", 5_000)
    }
}

/// Another key than the ramdisk's at its address: the host has rebooted, or somebody else is there. Nobody
/// believes what answers; the next attempt brings the host back by its BMC.
fn left(fault: Option<&Fault>) -> Fault {
    Fault::new(
        FaultClass::Transient,
        Channel::Host,
        "left-ramdisk",
        "the host has left the deploy ramdisk: something else answers SSH at its address",
    )
    .evidence(fault.map(ToString::to_string).unwrap_or_default())
}

/// Does the ramdisk of this run have the host, as far as is known?
pub(super) fn is_up(m: &Machine, run: &str) -> bool {
    m.ramdisk.as_ref().is_some_and(|r| *r.run == *run)
}

/// The boot method of this attempt: each failed one makes room for the next.
fn method(v: &View<'_>) -> BootMethod {
    let attempt = v.m.step.as_ref().map_or(0, |s| usize::from(s.attempt));
    let all = &v.profile.boot;
    all.get(attempt.checked_rem(all.len()).unwrap_or(0)).copied().unwrap_or(BootMethod::Pxe)
}

/// Does the BMC's drive hold this run's medium? As it was seen, or since it was put there under this
/// window.
fn holds_medium(v: &View<'_>, run: &str, opened: EngineTime) -> bool {
    v.m.happened(ActionKind::InsertMedia).is_some_and(|a| a.at >= opened)
        || v.report.media.seen().is_some_and(|images| images.iter().any(|i| is_medium_of(i, run)))
}

/// Is that the address of the medium of this run?
pub(crate) fn is_medium_of(image: &str, run: &str) -> bool {
    image.rsplit('/').next().and_then(|file| file.strip_suffix(".iso")) == Some(run)
}

/// What else to read where a medium of ours may be in the BMC's drive: it was put there in this
/// attempt, or in one that failed and whose acts are forgotten.
pub(super) fn media_needed(m: &Machine) -> ProbeSet {
    let earlier = m.step.as_ref().is_some_and(|s| s.attempt > 0);
    match earlier || m.last_act(ActionKind::InsertMedia).is_some() {
        true => ProbeSet::MEDIA,
        false => ProbeSet::NONE,
    }
}

/// The act that takes our medium out of the BMC's drive, where it holds one.
pub(super) fn eject(v: &View<'_>) -> Option<Look> {
    if !v.profile.boot.contains(&BootMethod::VirtualMedia) {
        return None;
    }
    match &v.report.media {
        Read::Seen(images) if images.is_empty() => None,
        Read::Seen(_) => Some(Look::Act(Action::EjectMedia)),
        Read::Failed(f) if f.class == FaultClass::Unsupported => None,
        Read::Failed(f) => Some(Look::Unread(f.clone())),
        Read::NotAsked => None,
    }
}

/// Is the override one that makes the next boot go to `target`?
pub(super) fn boots_from(system: &SystemFacts, target: BootTarget) -> bool {
    let off = system.boot_enabled.as_deref().is_some_and(|e| e.eq_ignore_ascii_case("disabled"));
    let names = target.redfish_names();
    let reads = system.boot_target.as_deref();
    !off && reads.is_some_and(|t| names.iter().any(|n| t.eq_ignore_ascii_case(n)))
}

/// Would the next boot leave the disk aside?
pub(super) fn boots_elsewhere(system: &SystemFacts) -> bool {
    BootMethod::ALL.iter().any(|m| boots_from(system, m.target()))
}
