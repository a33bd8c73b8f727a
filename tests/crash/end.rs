//! How a machine stands once a wish has come true, without when, and what was done to it.

use crate::daemon::{Daemon, World};
use crate::life::ID;
use farrier::decide::Decide;
use farrier::model::*;
use farrier::sim::truth::{Cause, What};
use std::collections::BTreeMap;

/// Two lives of which one was interrupted have the same.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) stage: Stage,
    control: machine::Control,
    desired: Option<Desired>,
    condition: machine::Condition,
    image: Option<String>,
    identity: Identity,
    waiting: Option<Box<str>>,
    out_of_band: u16,
    firmware: Vec<(String, String)>,
    installed: bool,
    member: bool,
    power: String,
    window_open: bool,
    /// What was done to the machine by Farrier, how often. Not in it: acts that may be done again
    /// freely, as doing them twice is doing them once.
    pub(crate) effects: BTreeMap<String, usize>,
}

/// One restart more, of the BMC or of the host: all that an update asks for which may have been
/// sent, before it is sent again.
const RESTARTS: [&[&str]; 4] =
    [&["BmcReset"], &["PowerCut"], &["PowerOn"], &["PowerCut", "PowerOn"]];

impl End {
    /// The same end, after more restarts of the host.
    pub(crate) fn is_rebooted(&self, undisturbed: &End) -> bool {
        let without = |end: &End| {
            let mut end = end.clone();
            end.effects.retain(|what, _| !matches!(&**what, "PowerCut" | "PowerOn"));
            end
        };
        without(self) == without(undisturbed)
    }

    /// The same end, after one restart more.
    pub(crate) fn is_restarted(&self, undisturbed: &End) -> bool {
        RESTARTS.iter().any(|restart| {
            let mut more = undisturbed.clone();
            for what in *restart {
                *more.effects.entry((*what).into()).or_insert(0) += 1;
            }
            *self == more
        })
    }
}

/// # Panics
/// When the truth log shows what must never be: an update that was started again, over another, or
/// cut off; an act on the wrong machine or under workloads.
pub(crate) fn end<D: Decide>(daemon: &Daemon<D>, world: &World) -> End {
    let row = daemon.director.machine(ID).unwrap();
    let vm = &world.vm;
    let mut effects = BTreeMap::new();
    let mut flashes: BTreeMap<u8, u32> = BTreeMap::new();
    for effect in vm.truth.effects() {
        let free = matches!(
            effect.what,
            What::SetBoot | What::WindowOpened | What::WindowClosed | What::SessionsEnded
        );
        if matches!(effect.by, Cause::Farrier { .. }) && !free {
            *effects.entry(format!("{:?}", effect.what)).or_insert(0) += 1;
        }
        if let What::FlashStarted { slot, already, staged, busy } = effect.what {
            assert!(!already && !staged && !busy, "{effect:?}");
            // Nobody takes the version back in these lives: once is enough for good.
            *flashes.entry(slot).or_default() += 1;
        }
        assert!(!matches!(effect.what, What::FlashBroken { .. }), "{effect:?}");
        assert!(effect.what != What::VolumeAgain, "{effect:?}");
        assert!(effect.scene.right_machine, "{effect:?}");
        if effect.what.needs_empty_host() {
            assert_eq!(effect.scene.workloads, 0, "{effect:?}");
        }
    }
    assert!(flashes.values().all(|n| *n == 1), "flashed again: {flashes:?}");
    End {
        stage: row.stage,
        control: row.control,
        desired: row.desired,
        condition: row.condition.clone(),
        image: row.deployed.as_ref().map(|d| d.image.to_string()),
        identity: (*row.identity).clone(),
        waiting: row.waiting.clone(),
        out_of_band: row.out_of_band,
        firmware: vm.firmware.iter().map(|s| (s.id.into(), s.version.to_string())).collect(),
        installed: vm.installed.is_some(),
        member: vm.node.member,
        power: format!("{:?}", vm.power),
        window_open: vm.window.facts.open,
        effects,
    }
}
