//! What a machine itself took: the time in which at least one of its drawn durations ran, and the
//! answer times of the calls that nobody can do without who looks before a write and after
//! everything that ends: the writes, one read before each, one read after each. However the machine
//! is driven, it can't be brought through its life faster, so the sums are a lower bound.

use super::Due;
use crate::model::EngineTime;

/// What a machine's own time went into. The classes are those of the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Other,
    /// From the first update of its firmware.
    Flash,
    /// From the boot override that leads to an installation.
    Provision,
    BurnIn,
}

/// Sums in milliseconds of the world's time. Durations that were cut short do not count, and one
/// that ran beside another counts once.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    pub all_ms: u64,
    /// Updates, and the restarts that make them count.
    pub flash_ms: u64,
    pub provision_ms: u64,
    pub burn_in_ms: u64,
    /// Power on and off, alone.
    pub power_ms: u64,
    phase: Phase,
    /// Everything before is in the sums.
    until: EngineTime,
    /// Somebody looked since the last end or write.
    seen: bool,
    last_read: (EngineTime, EngineTime),
    /// When the running duration of each kind began.
    began: [EngineTime; KINDS],
}

const KINDS: usize = 8;

impl Due {
    /// Which duration this ends; `None`: none that the machine draws for itself.
    fn duration(&self) -> Option<usize> {
        match self {
            Due::PowerUp => Some(0),
            Due::PowerDown(_) => Some(1),
            Due::PostDone => Some(2),
            Due::InstallDone => Some(3),
            Due::DiskUp => Some(4),
            Due::BmcUp => Some(5),
            Due::TaskEnds(_) => Some(6),
            Due::JobEnds(_) => Some(7),
            _ => None,
        }
    }
}

impl Spent {
    pub(super) fn flashes(&mut self) {
        self.phase = Phase::Flash;
    }

    pub(super) fn provisions(&mut self) {
        self.phase = Phase::Provision;
    }

    pub(super) fn burns_in(&mut self) {
        self.phase = Phase::BurnIn;
    }

    /// A duration that ends with `due` begins.
    pub(super) fn begin(&mut self, at: EngineTime, due: &Due) {
        if let Some(kind) = due.duration() {
            self.began[kind] = at;
        }
    }

    /// `due` came: its duration is over.
    pub(super) fn end(&mut self, at: EngineTime, due: &Due) {
        let Some(kind) = due.duration() else { return };
        self.add(self.began[kind], at);
        self.seen = false;
        if matches!(due, Due::PowerUp | Due::PowerDown(_)) {
            self.power_ms += at.since(self.began[kind]);
        }
    }
}

impl Spent {
    /// A read of the BMC. The first one after something ended or was written counts: nobody knows
    /// of it sooner who does not look.
    pub fn read(&mut self, from: EngineTime, to: EngineTime) {
        if !self.seen && from >= self.until {
            self.seen = true;
            self.add(from, to);
        }
        self.last_read = (from, to);
    }

    /// A write, or the first login after the BMC's restart. What was read just before it counts
    /// too: nobody writes unseen.
    pub fn write(&mut self, from: EngineTime, to: EngineTime) {
        let (began, ended) = self.last_read;
        if began >= self.until {
            self.add(began, ended);
        }
        self.add(from, to);
        self.seen = false;
    }

    fn add(&mut self, from: EngineTime, to: EngineTime) {
        let ms = to.since(from.max(self.until));
        self.until = self.until.max(to);
        self.all_ms += ms;
        match self.phase {
            Phase::Flash => self.flash_ms += ms,
            Phase::Provision => self.provision_ms += ms,
            Phase::BurnIn => self.burn_in_ms += ms,
            Phase::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_counts_once_and_what_was_cut_not_at_all() {
        let t = EngineTime;
        let mut s = Spent::default();
        s.flashes();
        s.begin(t(1_000), &Due::TaskEnds(1));
        s.begin(t(2_000), &Due::PostDone);
        s.end(t(5_000), &Due::TaskEnds(1));
        s.end(t(6_000), &Due::PostDone);
        assert_eq!((s.flash_ms, s.all_ms), (5_000, 5_000));
        // A POST that the next power cut ended, then a whole one.
        s.provisions();
        s.begin(t(10_000), &Due::PostDone);
        s.begin(t(11_000), &Due::PostDone);
        s.end(t(14_000), &Due::PostDone);
        assert_eq!((s.provision_ms, s.all_ms), (3_000, 8_000));
        s.begin(t(20_000), &Due::PowerUp);
        s.end(t(20_500), &Due::PowerUp);
        assert_eq!((s.power_ms, s.all_ms), (500, 8_500));
    }

    #[test]
    fn of_many_reads_one_counts_after_an_end_and_one_before_a_write() {
        let t = EngineTime;
        let mut s = Spent::default();
        s.flashes();
        s.begin(t(0), &Due::TaskEnds(1));
        s.read(t(4_000), t(4_100));
        s.end(t(10_000), &Due::TaskEnds(1));
        // The first that began after the end; one that was under way may have seen the old state.
        s.read(t(9_900), t(10_100));
        s.read(t(10_500), t(10_800));
        s.read(t(11_000), t(11_300));
        s.read(t(12_000), t(12_200));
        assert_eq!(s.flash_ms, 10_300);
        s.write(t(12_300), t(12_700));
        assert_eq!(s.flash_ms, 10_300 + 200 + 400);
    }
}
