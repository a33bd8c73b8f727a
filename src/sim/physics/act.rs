//! Writes: the expectation re-read on the same channel, then the effect.

use super::baseboard::on_board;
use super::host::Work;
use super::probe::no_bmc;
use super::{
    Attribute, BASEBOARD, Cause, Due, Installed, Making, Medium, Raid, VirtualMachine, What, Window,
};
use crate::model::action::Touch;
use crate::model::deploy::RAMDISK;
use crate::model::facts::WindowFacts;
use crate::model::identity::Match;
use crate::model::{
    Action, Channel, EngineTime, Expect, Fault, FaultClass, HookVerb, Identity, Outcome, PowerOp,
};
use crate::sim::rng::mix;
use std::sync::Arc;

/// The virtual drive that a boot from CD looks at.
const CD: usize = 0;

impl VirtualMachine {
    /// Acts at `now` as an edge would: re-reads `expect`, then writes. `seq` is the journal seq of
    /// the intent, for the truth log.
    pub fn act(&mut self, now: EngineTime, seq: u64, action: &Action, expect: &Expect) -> Outcome {
        match self.refusal(now, action, expect) {
            Some(outcome) => outcome,
            None => self.apply(now, seq, action),
        }
    }

    /// Why `action` is not sent: its channel is dead, or what it expects is not so.
    pub fn refusal(
        &mut self,
        now: EngineTime,
        action: &Action,
        expect: &Expect,
    ) -> Option<Outcome> {
        self.advance(now);
        let refused = |saw: String| Some(Outcome::Refused { saw, wrong_machine: false });
        let stranger = |saw: String| Some(Outcome::Refused { saw, wrong_machine: true });
        let touches = action.kind().class().touches;
        if touches.contains(&Touch::Bmc) {
            if !self.bmc_up {
                return Some(Outcome::Failed { fault: no_bmc() });
            }
            if let Some(saw) = differs(&expect.identity, &self.shown_identity()) {
                return stranger(saw);
            }
            if let Some(power) = expect.power
                && power != self.shown_power()
            {
                return refused(format!("power {:?}", self.shown_power()));
            }
        }
        let there = match action {
            Action::UpdateFirmware { inventory_id, .. } => on_board(inventory_id).is_some(),
            Action::BmcReset { controller: Some(name) } if **name != *BASEBOARD => {
                return refused(format!("no controller `{name}`"));
            }
            Action::BmcReset { controller } => controller.is_some(),
            _ => false,
        };
        if there && let Some(why) = self.baseboard_refusal(now) {
            return match why {
                Ok(saw) => stranger(saw),
                Err(fault) => Some(Outcome::Failed { fault }),
            };
        }
        match action {
            Action::UpdateFirmware { inventory_id, .. } if there => {
                let id = on_board(inventory_id).unwrap_or_default();
                let board = self.baseboard.as_ref();
                let Some(slot) = board.and_then(|b| b.firmware.iter().find(|s| s.id == id)) else {
                    return refused(format!("no component `{inventory_id}`"));
                };
                match &expect.from_version {
                    Some(from) if **from != *slot.version => {
                        refused(format!("version {}", slot.version))
                    }
                    _ => None,
                }
            }
            Action::UpdateFirmware { inventory_id, .. } => {
                let Some(slot) = self.firmware.iter().find(|s| s.id == inventory_id) else {
                    return refused(format!("no component `{inventory_id}`"));
                };
                let seen = self.spell(&slot.version);
                match &expect.from_version {
                    Some(from) if *from != seen => refused(format!("version {seen}")),
                    _ => None,
                }
            }
            Action::SetBios { attributes } => attributes
                .iter()
                .find(|(name, value)| Attribute::of(name).is_none_or(|a| !a.takes(value)))
                .map(|(name, _)| Outcome::Failed {
                    fault: Fault::new(
                        FaultClass::Precondition,
                        Channel::Bmc,
                        "rejected",
                        format!("400, PropertyValueNotInList: {name}"),
                    ),
                }),
            Action::CreateVolume { drives, .. } => self.volume_refusal(now, drives),
            Action::StartJob { .. } | Action::Deploy { .. } => {
                if !self.answers_ssh() {
                    return Some(Outcome::Failed {
                        fault: Fault::no_answer(Channel::Host, "connection to port 22 refused"),
                    });
                }
                differs(&expect.identity, self.host_identity()).and_then(stranger)
            }
            Action::Hook { verb: HookVerb::Leave } if self.node.workloads(now) > 0 => {
                Some(Outcome::Failed {
                    fault: Fault::new(
                        FaultClass::Precondition,
                        Channel::Cluster,
                        "workloads-running",
                        "the provider keeps a node with workloads",
                    ),
                })
            }
            Action::Power { op: PowerOp::ForceRestart | PowerOp::GracefulShutdown }
                if self.shown_power() == crate::model::facts::Power::Off =>
            {
                Some(Outcome::Failed {
                    fault: Fault::new(
                        FaultClass::Transient,
                        Channel::Bmc,
                        "conflict",
                        "the BMC answers 409: the host is off",
                    ),
                })
            }
            _ => None,
        }
    }

    /// The effect itself, at `now`, without looking at any expectation.
    pub fn apply(&mut self, now: EngineTime, seq: u64, action: &Action) -> Outcome {
        self.advance(now);
        let by = Cause::Farrier { seq };
        let mut handle = None;
        match action {
            Action::Power { op } => self.order_power(now, *op, by),
            Action::BmcReset { controller: None } => self.restart_bmc(now, by),
            Action::BmcReset { controller: Some(_) } => self.restart_baseboard(now, by),
            Action::SetBoot { target } => self.set_boot(now, *target, by),
            Action::OpenBootWindow { image, run, allow_existing_data, .. } => {
                self.effect(now, What::WindowOpened, by);
                self.window = Window {
                    facts: WindowFacts {
                        open: true,
                        run: Some(run.clone()),
                        ..WindowFacts::default()
                    },
                    image: image.clone(),
                    allow_existing_data: *allow_existing_data,
                };
                if image == RAMDISK {
                    let key = mix(self.rng.next_u64());
                    self.window.facts.made_key = Some(format!("ssh-ed25519 AAAA{key:016x}"));
                }
            }
            Action::CloseBootWindow { run } => {
                self.effect(now, What::WindowClosed, by);
                if self.window.facts.run.as_deref() == Some(run) {
                    self.window.facts.open = false;
                }
            }
            Action::UpdateFirmware { inventory_id, to, .. } => {
                if let Some(id) = on_board(inventory_id) {
                    handle = self.flash_baseboard(now, id, to, by);
                } else if let Some(slot) = self.firmware.iter().position(|s| s.id == inventory_id) {
                    handle = Some(self.start_flash(now, slot, to, by));
                }
            }
            Action::StartJob { script, name, .. } => {
                if self.answers_ssh() {
                    self.start_job(now, Work::of(*script), name, by);
                }
            }
            Action::Deploy { image, run, host_key, name, allow_existing_data, .. } => {
                if self.answers_ssh() {
                    let refuses = self.foreign_data && !allow_existing_data;
                    let mark = (Installed::of_ours(image, run), Arc::from(host_key.as_str()));
                    self.deploying = Some(mark).filter(|_| !refuses);
                    self.start_job(now, Work::Deploy { refuses }, name, by);
                }
            }
            Action::InsertMedia { run } => {
                self.eject_medium(now, by, CD);
                let medium = Medium { url: format!("{run}.iso").into(), bytes: 0, chains: true };
                self.insert_medium(now, by, CD, medium);
            }
            Action::EjectMedia => {
                self.eject_medium(now, by, CD);
            }
            Action::SetBios { attributes } => {
                let known = attributes.iter();
                let known: Vec<_> = known
                    .filter_map(|(name, value)| Some((Attribute::of(name)?, value.clone())))
                    .collect();
                self.set_bios(now, by, &known);
            }
            Action::SetSecureBoot { on } => self.set_secure_boot(now, by, *on),
            Action::CreateVolume { name, drives, .. } => {
                let making =
                    if self.quirks.volumes_at_post { Making::AtPost } else { Making::ByTask };
                let drives = self.drives_of(drives).unwrap_or_default();
                match self.make_volume(now, by, (name, Raid::Raid1), &drives, making) {
                    Some(task) => handle = Some(format!("/redfish/v1/TaskService/Tasks/{task}")),
                    None => {
                        let text = "the BMC answers 409: a drive is in use";
                        let class = FaultClass::Transient;
                        return Outcome::Failed {
                            fault: Fault::new(class, Channel::Bmc, "conflict", text),
                        };
                    }
                }
            }
            Action::Hook { verb } => self.hook(now, *verb, by),
            Action::EndBmcSessions => self.effect(now, What::SessionsEnded, by),
        }
        Outcome::Applied { handle }
    }

    /// The BMC takes the call now and applies it at `at`: nobody looks at the expectation again.
    pub fn apply_late(&mut self, at: EngineTime, seq: u64, action: &Action) {
        self.after(at, Due::Late(Box::new((seq, action.clone()))));
    }
}

/// What the channel showed instead of `expected`.
fn differs(expected: &Identity, seen: &Identity) -> Option<String> {
    match expected.compare(seen) {
        Match::Same => None,
        // Nobody said who it should be: the edge can't refuse.
        Match::Unknown if expected.is_unknown() => None,
        Match::Unknown => Some("no part of the identity".into()),
        Match::Differs { part, found, .. } => Some(format!("{part} {found}")),
    }
}
