//! Who answers: the director hears it in every report and keeps one byte a machine.

use super::{Director, Slot};
use crate::decide::{Decide, reach, retry};
use crate::model::facts::Power;
use crate::model::{Channel, EngineTime, Expected, MachineId, Report};

/// Bits of [`Slot::silent`]: its BMC does not answer.
const BMC: u8 = 1;
/// Its host answered since its power was changed last.
pub(super) const HOST_KNOWN: u8 = 2;
/// Its host does not answer.
const HOST: u8 = 4;

impl<D: Decide> Director<D> {
    /// Who answered: counted by domain, so that machines which fall silent together are seen to.
    pub(super) fn count_silence(&mut self, id: MachineId, report: &Report, now: EngineTime) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some(expected) = slot.expected.clone() else { return };
        let heard = reach::heard(&slot.row, report, now);
        let mut channels = Vec::new();
        if let Some(answers) = heard.bmc
            && answers == (slot.silent & BMC != 0)
            // Only one that ever answered can stop.
            && (answers || !slot.row.identity.is_unknown())
        {
            slot.silent ^= BMC;
            channels.push((Channel::Bmc, answers));
        }
        let known = slot.silent & HOST_KNOWN != 0;
        match heard.host {
            Some(true) if !known => {
                slot.silent |= HOST_KNOWN;
                self.outages.host_known(&expected, true);
            }
            Some(answers) if known && answers == (slot.silent & HOST != 0) => {
                slot.silent ^= HOST;
                channels.push((Channel::Host, answers));
            }
            // Nobody asks it any more, or its power was turned off by others.
            None if known
                && (slot.row.run.is_none()
                    || heard.bmc == Some(true)
                        && report.system.seen().is_some_and(|s| s.power != Power::On)) =>
            {
                self.forget_host(id);
            }
            _ => {}
        }
        for (channel, answers) in channels {
            if answers {
                self.outages.answers(channel, id, &expected);
            } else {
                self.outages.stopped(channel, id, &expected, now);
            }
            self.judge_domains(channel, &expected, now);
        }
    }

    pub(super) fn judge_domains(&mut self, channel: Channel, expected: &Expected, now: EngineTime) {
        if self.outages.wants_census(channel, expected, now) {
            let answered = |s: &&Slot| !s.row.identity.is_unknown();
            let all = self.slots.iter().flatten().filter(answered);
            let placed = all.filter_map(|s| Some((s.row.id, s.expected.as_deref()?)));
            self.outages.take_census(placed);
        }
        let (ask, spread) = self.outages.judge(channel, expected, now);
        for id in ask {
            let at = now + retry::jitter(id, now) % spread.max(1);
            let idle = self.slot(id).is_some_and(|s| {
                s.commit.is_none() && s.probing.is_none() && s.acting.is_none() && s.due > at
            });
            if idle {
                self.set_due(id, at);
            }
        }
    }

    /// The host's silence tells nothing any more: its power changes.
    pub(super) fn forget_host(&mut self, id: MachineId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let was = slot.silent;
        slot.silent &= BMC;
        if was & HOST_KNOWN != 0
            && let Some(expected) = slot.expected.clone()
        {
            self.outages.host_known(&expected, false);
            self.outages.answers(Channel::Host, id, &expected);
        }
    }

    /// After a start: the rows say who was unreachable, and since when.
    pub(super) fn recall_outages(&mut self) {
        let mut lost: Vec<(EngineTime, MachineId)> =
            self.machines().filter_map(|m| Some((m.lost_at()?, m.id))).collect();
        lost.sort_unstable();
        for (at, id) in lost {
            let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
                continue;
            };
            let Some(expected) = slot.expected.clone() else { continue };
            if slot.row.lost_on() == Some(Channel::Host) || slot.row.identity.is_unknown() {
                continue;
            }
            slot.silent |= BMC;
            self.outages.stopped(Channel::Bmc, id, &expected, at);
            self.judge_domains(Channel::Bmc, &expected, at);
        }
    }
}
