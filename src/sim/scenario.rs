//! What people do, and what befalls the building: enrolment in the first hours, then daily churn,
//! hourly rounds that look at the rows as people see them, and repairs.

mod building;

use super::faults::{Dice, Seat};
use super::physics::{
    BASEBOARD, Baseboard, Build, PowerState, Quirks, Sickness, VirtualMachine, baseboard_serial,
};
use super::profile::{MODELS, Profile};
use super::rng::Rng;
use super::workflows::{self, RACK};
use crate::model::stage::is_legal;
use crate::model::{
    Change, Condition, Control, Desired, EngineTime, Expected, Identity, Machine, MachineId, Stage,
};
use crate::port::store::Stopped;
use std::sync::Arc;

pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// One thing somebody does at one time.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// The inventory names these machines.
    Expect {
        machines: Vec<MachineId>,
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
    /// Empties a node with the cluster's own tools.
    Evict {
        machine: MachineId,
    },
    /// Updates the BMC (`own`) or the BIOS by the BMC's own page.
    Flash {
        machine: MachineId,
        own: bool,
        to: String,
    },
    /// Starts something on the BMC that is not ours.
    Task {
        machine: MachineId,
    },
    /// Changes the boot order.
    BootOrder {
        machine: MachineId,
        disk: bool,
    },
    /// The port of the baseboard's BMC is dead until then; that of the host's is not.
    BoardOut {
        machine: MachineId,
        until: EngineTime,
    },
    /// The baseboard's BMC restarts by itself.
    BoardCrash {
        machine: MachineId,
    },
    /// The port of the host's BMC is dead until then; that of the baseboard's is not.
    BmcOut {
        machine: MachineId,
        until: EngineTime,
    },
    /// The management switch of this rack (`None`: of the site) is dead until then; `hosts`: their
    /// SSH goes through it too, `bmcs`: the BMCs do.
    Outage {
        rack: Option<u32>,
        until: EngineTime,
        hosts: bool,
        bmcs: bool,
    },
    /// The rack has no power until then.
    Dark {
        rack: u32,
        until: EngineTime,
    },
    /// Somebody starts a second daemon on the same database.
    SecondDaemon,
    /// The database is replaced by its last hourly copy.
    OldDatabase,
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
    seed: u64,
    round: u64,
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
    /// Faults and churn end at `at`; afterwards people only repair.
    pub fn safe_until(&mut self, at: EngineTime) {
        self.safety_until = at;
    }

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
        let calm = profile.rules.is_empty() && profile.sick_per_million == 0;
        let mut vms = Vec::new();
        let mut lines = Vec::new();
        let mut plan = Vec::new();
        // Most machines are there from the start, some are delivered later.
        let at_start = machines - machines / 10;
        let all = |from: u32, to: u32| (from..to).map(MachineId).collect::<Vec<_>>();
        plan.push((EngineTime(1000), Deed::Expect { machines: all(0, at_start) }));
        for n in at_start..machines {
            let at = EngineTime(HOUR + rng.below(days.max(1) * DAY / 2));
            plan.push((at, Deed::Expect { machines: all(n, n + 1) }));
        }
        let arrival: Vec<EngineTime> = (0..machines)
            .map(|n| {
                plan.iter()
                    .find(|(_, d)| matches!(d, Deed::Expect { machines } if machines.contains(&MachineId(n))))
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
                    // Of a stream of its own: it shifts nothing else that is drawn.
                    copies_images: Rng::stream(seed, 6_000_000 + u64::from(n))
                        .chance(profile.copies_per_million),
                    volumes_at_post: n % 4 == 3,
                },
                sick,
                durations: durations.clone(),
            };
            // Of a stream of its own, as with the copies; a B has none.
            let has_board = n % 4 != 3
                && Rng::stream(seed, 7_000_000 + u64::from(n)).chance(profile.boards_per_million);
            let model = MODELS[if has_board { 2 } else { usize::from(n % 4 == 3) }];
            let seat = Seat { machine: Some(n), rack: n / RACK, model };
            let dice = dice.sibling(Rng::stream(seed, 2_000_000 + u64::from(n)), seat);
            let mut vm =
                VirtualMachine::new(build, Rng::stream(seed, 1_000_000 + u64::from(n)), dice);
            vm.model = model;
            vm.stays_off = n % 5 == 2;
            vm.baseboard = has_board.then(|| {
                let own = Rng::stream(seed, 8_000_000 + u64::from(n));
                Baseboard::new(baseboard_serial(&vm.delivered), own)
            });
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
            let mut line = workflows::expected(id, known, key);
            if let Some(board) = &vm.baseboard {
                line.bmc.controllers = vec![workflows::controller(BASEBOARD, &board.serial)].into();
            }
            lines.push(Arc::new(line));
            vms.push(vm);
        }
        plan.push((EngineTime(HOUR), Deed::Rounds));
        let people = Self {
            seed,
            round: 0,
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
        stopped: Option<&Stopped>,
        vms: &mut [VirtualMachine],
    ) -> Vec<(EngineTime, Deed)> {
        let mut plan = vec![(now + HOUR, Deed::Rounds)];
        let safety = now < self.safety_until;
        self.round += 1;
        for n in 0..self.machines {
            let id = MachineId(n);
            // What one machine makes people do shifts nobody else's days.
            self.rng = Rng::stream(self.seed ^ (self.round << 32), 3_000_000 + u64::from(n));
            let Some(row) = row(id) else { continue };
            self.person(now, row, &mut vms[n as usize], safety, &mut plan);
            if safety {
                self.building(now, id, &mut vms[n as usize], &mut plan);
            }
        }
        self.rng = Rng::stream(self.seed ^ (self.round << 32), 4_000_000);
        if safety {
            self.site_deeds(now, &mut plan);
        }
        let forgotten = !safety && std::mem::take(&mut self.stopped);
        let braked = stopped
            .is_some_and(|s| !safety || &*s.by == "circuit-breaker" && now.since(s.at) > 2 * HOUR);
        if forgotten || braked {
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
            // As the fault's hint says: installed anew, its new key is pinned. A job that is open
            // there can't be followed; it ends with the host's power.
            let anew = fault.code == "host-key-changed"
                && row.control == Control::Enrolled
                && is_legal(row.stage, Stage::Repair);
            if anew {
                match (&row.open, vm.power) {
                    (None, _) => {
                        plan.push((soon, say(Change::Repair { why: "reinstalled".into() })));
                    }
                    (Some(_), PowerState::On) => {
                        plan.push((soon, Deed::PressPower { machine: id }));
                    }
                    (Some(_), _) => {}
                }
                return;
            }
            // Who is done with a rescue says so before it is tried once more.
            if row.rescue.as_ref().is_some_and(|r| r.ended.is_none()) {
                plan.push((soon - 20_000, say(Change::EndRescue { why: "enough".into() })));
            }
            // Some release without looking; most repair first.
            if !safety || rng.chance(800_000) {
                plan.push((soon - 30_000, Deed::Mend { machine: id }));
                if matches!(&*fault.code, "in-use" | "workloads-running") {
                    plan.push((soon - 25_000, Deed::Evict { machine: id }));
                }
                if fault.code == "existing-data" {
                    let desired = row.desired.unwrap_or(Desired::InService);
                    let change = Change::Enroll { allow_existing_data: true, desired };
                    plan.push((soon - 20_000, say(change)));
                }
            }
            plan.push((soon, say(Change::Release { why: "looked at".into() })));
            return;
        }
        if let Condition::Unreachable { since } = &row.condition
            && vm.bricked
            && now.since(*since) > if safety { 8 * HOUR } else { HOUR / 2 }
        {
            plan.push((soon, Deed::Mend { machine: id }));
            return;
        }
        if let Some(rescue) = &row.rescue {
            // Some forget it, and its time ends it.
            if rescue.ended.is_none() && (!safety || rng.chance(300_000)) {
                plan.push((soon, say(Change::EndRescue { why: "seen enough".into() })));
            } else if rescue.ended.is_none() && rng.chance(50_000) {
                let key = rescue.key.to_string();
                let change = Change::Rescue { key, for_ms: 4 * HOUR, why: "not done yet".into() };
                plan.push((soon, say(change)));
            }
            return;
        }
        match row.stage {
            Stage::Repair if safety && row.control == Control::Enrolled && rng.chance(400_000) => {
                let key = format!("ssh-ed25519 AAAA{:064x} p@{id}", u64::from(id.0));
                let change = Change::Rescue { key, for_ms: 4 * HOUR, why: "have a look".into() };
                plan.push((soon, say(change)));
                return;
            }
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
            if rng.chance(20_000) {
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
        if row.stage == Stage::Drained && enrolled && rng.chance(60_000) {
            plan.push((soon, say(Change::Repair { why: "ECC errors".into() })));
            return;
        }
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
}
