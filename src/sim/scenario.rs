//! What people do, and what befalls the building: enrolment in the first hours, then daily churn,
//! hourly rounds that look at the rows as people see them, and repairs.

use super::faults::{Dice, FaultKind, Profile};
use super::physics::{Build, Quirks, Sickness, VirtualMachine};
use super::rng::Rng;
use super::workflows::{self, RACK};
use crate::model::{
    Change, Condition, Control, Desired, EngineTime, Expected, Identity, Machine, MachineId, Stage,
};
use std::sync::Arc;

pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// One thing somebody does at one time.
#[derive(Clone, Debug)]
pub enum Deed {
    /// The inventory names these machines.
    Expect {
        first: u32,
        count: u32,
    },
    /// Over the API.
    Say {
        machine: MachineId,
        change: Change,
    },
    /// `farrier stop` (`Some`) or `resume`.
    Stop {
        why: Option<String>,
    },
    /// At the machine.
    PressPower {
        machine: MachineId,
    },
    Swap {
        machine: MachineId,
    },
    Cross {
        machine: MachineId,
    },
    Mend {
        machine: MachineId,
    },
    Rebuild {
        machine: MachineId,
    },
    /// The management switch of this rack is dead until then.
    Outage {
        rack: u32,
        until: EngineTime,
    },
    /// Somebody looks at all rows.
    Rounds,
}

/// What a machine is when it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Enrolled,
    Adopted,
    Unmanaged,
}

/// The people.
#[derive(Debug)]
pub struct Scenario {
    rng: Rng,
    site: Dice,
    calm: bool,
    /// End of churn and faults; afterwards only repairs.
    safety_until: EngineTime,
    machines: u32,
    /// Of machines that arrive in the first days.
    stopped: bool,
    next_other: u64,
}

/// Identity number `n` of the world.
pub fn identity(n: u64) -> Identity {
    Identity {
        serial: Some(format!("VSN{n:06}").into()),
        uuid: Some(format!("4c4c4544-0000-4000-8000-{n:012x}").into()),
        mac: Some(
            format!("02:00:00:{:02x}:{:02x}:{:02x}", (n >> 16) & 0xff, (n >> 8) & 0xff, n & 0xff)
                .into(),
        ),
    }
}

impl Scenario {
    /// The people, the machines they have, what the inventory says of those, and their first plans.
    #[allow(clippy::type_complexity, reason = "built once, taken apart at once")]
    pub fn new(
        seed: u64,
        machines: u32,
        days: u64,
        profile: &Profile,
        durations: &Arc<super::durations::Durations>,
    ) -> (Self, Vec<VirtualMachine>, Vec<Arc<Expected>>, Vec<(EngineTime, Deed)>) {
        let mut rng = Rng::stream(seed, 0xbeef);
        let dice = Dice::new(profile, Rng::stream(seed, 0xd1ce));
        let calm = profile.name == "calm";
        let mut vms = Vec::new();
        let mut lines = Vec::new();
        let mut plan = Vec::new();
        // Most machines are there from the start, some are delivered later.
        let at_start = machines - machines / 10;
        plan.push((EngineTime(1000), Deed::Expect { first: 0, count: at_start }));
        for n in at_start..machines {
            let at = EngineTime(HOUR + rng.below(days.max(1) * DAY / 2));
            plan.push((at, Deed::Expect { first: n, count: 1 }));
        }
        let arrival: Vec<EngineTime> = (0..machines)
            .map(|n| {
                plan.iter()
                    .find(|(_, d)| matches!(d, Deed::Expect { first, count } if *first <= n && n < first + count))
                    .map_or(EngineTime::ZERO, |(at, _)| *at)
            })
            .collect();
        for n in 0..machines {
            let mut own = Rng::stream(seed, 1000 + u64::from(n));
            let id = MachineId(n);
            let sick = (own.below(1_000_000) < u64::from(profile.sick_per_million))
                .then(|| own.pick(&Sickness::ALL).copied())
                .flatten();
            let build = Build {
                id,
                name: format!("n{n:05}").into(),
                identity: identity(u64::from(n)),
                gpus: 8,
                quirks: Quirks {
                    ignores_once: own.chance(200_000),
                    identity_null_when_off: own.chance(200_000),
                    pads_versions: own.chance(200_000),
                },
                sick,
                durations: durations.clone(),
            };
            let dice = dice.sibling(Rng::stream(seed, 2_000_000 + u64::from(n)));
            let mut vm =
                VirtualMachine::new(build, Rng::stream(seed, 1_000_000 + u64::from(n)), dice);
            let role = match own.below(100) {
                0..=5 => Role::Adopted,
                6..=9 => Role::Unmanaged,
                _ => Role::Enrolled,
            };
            let mut key = None;
            if role != Role::Enrolled {
                let member = own.chance(700_000);
                vm.found_running(member, u32::try_from(own.between(1, 4)).unwrap_or(1));
                key = Some(vm.host_key.to_string());
            }
            vm.foreign_data |= own.chance(100_000);
            // The inventory knows some part of the identity, not always all.
            let known = match own.below(4) {
                0 => Identity { uuid: None, mac: None, ..vm.identity.clone() },
                // A BMC that is silent about the rest while the host is off could prove nothing.
                1 if !vm.quirks.identity_null_when_off => {
                    Identity { serial: None, ..vm.identity.clone() }
                }
                _ => vm.identity.clone(),
            };
            let allow = vm.foreign_data && (calm || own.chance(700_000));
            let at = arrival[n as usize] + 5 * MINUTE + own.below(3 * HOUR);
            match role {
                Role::Enrolled => plan.push((
                    at,
                    Deed::Say {
                        machine: id,
                        change: Change::Enroll {
                            allow_existing_data: allow,
                            desired: if own.chance(900_000) {
                                Desired::InService
                            } else {
                                Desired::Ready
                            },
                        },
                    },
                )),
                Role::Adopted => plan.push((at, Deed::Say { machine: id, change: Change::Adopt })),
                Role::Unmanaged => {}
            }
            lines.push(Arc::new(workflows::expected(id, known, key)));
            vms.push(vm);
        }
        plan.push((EngineTime(HOUR), Deed::Rounds));
        let people = Self {
            rng: rng.clone(),
            site: dice,
            calm,
            safety_until: EngineTime(days * DAY),
            machines,
            stopped: false,
            next_other: 1_000_000,
        };
        (people, vms, lines, plan)
    }

    /// Another identity than any machine of the inventory.
    pub fn stranger(&mut self) -> Identity {
        self.next_other += 1;
        identity(self.next_other)
    }

    /// Somebody looks at the rows and acts on what is seen within the hour.
    pub fn rounds<'a>(
        &mut self,
        now: EngineTime,
        row: impl Fn(MachineId) -> Option<&'a Machine>,
        vms: &mut [VirtualMachine],
    ) -> Vec<(EngineTime, Deed)> {
        let mut plan = vec![(now + HOUR, Deed::Rounds)];
        let safety = now < self.safety_until;
        for n in 0..self.machines {
            let id = MachineId(n);
            let Some(row) = row(id) else { continue };
            self.person(now, row, &mut vms[n as usize], safety, &mut plan);
            if safety {
                self.building(now, id, &mut vms[n as usize], &mut plan);
            }
        }
        if safety {
            self.site_deeds(now, vms, &mut plan);
        } else if std::mem::take(&mut self.stopped) {
            plan.push((now + MINUTE, Deed::Stop { why: None }));
        }
        plan
    }

    fn person(
        &mut self,
        now: EngineTime,
        row: &Machine,
        vm: &mut VirtualMachine,
        safety: bool,
        plan: &mut Vec<(EngineTime, Deed)>,
    ) {
        let id = row.id;
        let rng = &mut self.rng;
        let soon = now + MINUTE + rng.below(50 * MINUTE);
        let say = |change| Deed::Say { machine: id, change };
        let desire = |desired| say(Change::Desire { desired });
        if row.hold.is_some() {
            if !safety || rng.chance(400_000) {
                plan.push((soon, say(Change::Unhold { why: "done".into() })));
            }
            return;
        }
        if let Condition::Quarantined { since, fault } = &row.condition {
            let patience = if safety { 3 * HOUR } else { HOUR / 2 };
            let tired = vm.sick.is_some() && !rng.chance(20_000);
            if now.since(*since) < patience || tired {
                return;
            }
            // Some release without looking; most repair first.
            if !safety || rng.chance(800_000) {
                plan.push((soon - 30_000, Deed::Mend { machine: id }));
                if fault.code == "existing-data" {
                    let desired = row.desired.unwrap_or(Desired::InService);
                    let change = Change::Enroll { allow_existing_data: true, desired };
                    plan.push((soon - 20_000, say(change)));
                }
            }
            plan.push((soon, say(Change::Release { why: "looked at".into() })));
            return;
        }
        match row.stage {
            Stage::Repair if rng.chance(400_000) || !safety => {
                plan.push((soon - 30_000, Deed::Mend { machine: id }));
                let change =
                    Change::Enroll { allow_existing_data: true, desired: Desired::InService };
                plan.push((soon, say(change)));
                return;
            }
            _ => {}
        }
        if !safety || row.control == Control::Unmanaged {
            return;
        }
        if row.run.is_some() {
            if rng.chance(5_000) {
                plan.push((soon, say(Change::Hold { why: "maintenance".into() })));
            } else if rng.chance(5_000) {
                plan.push((soon, say(Change::Retry { why: "impatient".into() })));
            } else if rng.chance(1_500) {
                plan.push((soon, say(Change::Repair { why: "parts arrived".into() })));
            } else if rng.chance(2_000) {
                plan.push((soon, desire(Desired::Drained)));
            }
            return;
        }
        let enrolled = row.control == Control::Enrolled;
        match (row.stage, row.desired) {
            (Stage::InService, _) => match rng.below(1000) {
                0..=7 => plan.push((soon, desire(Desired::Drained))),
                8..=17 if enrolled => plan.push((soon, desire(Desired::Ready))),
                18..=23 => plan.push((soon, desire(Desired::Retired))),
                24..=27 => plan.push((soon, say(Change::Hold { why: "maintenance".into() }))),
                _ => {}
            },
            (Stage::Drained | Stage::Ready, d) if d.is_some() && rng.chance(250_000) => {
                // A new set of firmware has come out meanwhile: so that updates go on all week.
                let next = match rng.below(10) {
                    0 => Desired::Retired,
                    1..=3 if row.stage == Stage::Drained && enrolled => Desired::Ready,
                    _ => Desired::InService,
                };
                if next == Desired::Ready {
                    plan.push((soon - 30_000, Deed::Rebuild { machine: id }));
                }
                plan.push((soon, desire(next)));
            }
            (Stage::Retired, _) if rng.chance(200_000) => {
                plan.push((soon - 30_000, Deed::Rebuild { machine: id }));
                let change =
                    Change::Enroll { allow_existing_data: false, desired: Desired::InService };
                plan.push((soon, say(change)));
            }
            _ => {}
        }
    }

    fn building(
        &mut self,
        now: EngineTime,
        id: MachineId,
        vm: &mut VirtualMachine,
        plan: &mut Vec<(EngineTime, Deed)>,
    ) {
        let at = now + self.rng.below(HOUR);
        if vm.dice.throw(FaultKind::HumanPower, at) {
            plan.push((at, Deed::PressPower { machine: id }));
            if self.rng.chance(700_000) {
                plan.push((at + 20 * MINUTE, Deed::PressPower { machine: id }));
            }
        }
        if vm.dice.throw(FaultKind::SerialSwapped, at) {
            plan.push((at, Deed::Swap { machine: id }));
        }
        if vm.dice.throw(FaultKind::WrongHost, at) {
            plan.push((at, Deed::Cross { machine: id }));
        }
    }

    fn site_deeds(
        &mut self,
        now: EngineTime,
        vms: &mut [VirtualMachine],
        plan: &mut Vec<(EngineTime, Deed)>,
    ) {
        for rack in 0..self.machines.div_ceil(RACK) {
            let at = now + self.rng.below(HOUR);
            if self.site.throw(FaultKind::Outage, at) {
                let until = at + 2 * MINUTE + self.rng.below(40 * MINUTE);
                plan.push((at, Deed::Outage { rack, until }));
                for vm in vms.iter_mut().filter(|vm| vm.id.0 / RACK == rack) {
                    vm.dice.record(FaultKind::Outage, at);
                }
            }
        }
        if !self.calm && self.rng.chance(12_000) {
            let at = now + self.rng.below(HOUR);
            plan.push((at, Deed::Stop { why: Some("drill".into()) }));
            plan.push((at + 5 * MINUTE + self.rng.below(40 * MINUTE), Deed::Stop { why: None }));
            self.stopped = true;
        }
    }
}
