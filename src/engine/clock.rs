//! Engine time from the monotonic clock: the one place of the engine that reads clocks.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the driver's clock: time enters the director by events only"
)]

use crate::model::EngineTime;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest jump of engine time over a restart: a daemon that was off for weeks does not expire
/// every deadline at once.
const MAX_GAP_MS: u64 = 24 * 3_600_000;

/// A gap above this is a time in which nobody watched: clocks of steps and of launched work start
/// anew after it. Below it they go on, so that a daemon that keeps crashing can't keep a step from
/// timing out.
pub const UNWATCHED_MS: u64 = 60_000;

/// Engine time = stored time + what passed since the start, times `scale`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: EngineTime,
    started: Instant,
    scale: u32,
}

impl Clock {
    /// Resumes a persisted counter: the wall-clock difference is added, clamped to [0, 24 h]
    /// (a wall clock set back or far ahead changes little). `scale` > 1 only in demos.
    pub fn resume(stored: EngineTime, stored_wall_ms: u64, scale: u32) -> Self {
        Self::resume_at(stored, stored_wall_ms, wall_ms(), scale)
    }

    /// The same for a wall clock that shows `wall_ms`. From here on no wall clock is looked at.
    fn resume_at(stored: EngineTime, stored_wall_ms: u64, wall_ms: u64, scale: u32) -> Self {
        let gap = match stored_wall_ms {
            0 => 0,
            then => wall_ms.saturating_sub(then).min(MAX_GAP_MS),
        };
        let scale = scale.max(1);
        Self { base: stored + gap * u64::from(scale), started: Instant::now(), scale }
    }

    pub fn now(&self) -> EngineTime {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.base + ms.saturating_mul(u64::from(self.scale))
    }

    /// Real time until `at`; zero when it has passed.
    pub fn until(&self, at: EngineTime) -> Duration {
        if at == EngineTime::NEVER {
            return Duration::from_secs(3600);
        }
        Duration::from_millis(at.since(self.now()).div_ceil(u64::from(self.scale)))
    }
}

/// Wall clock, milliseconds since 1970: for people and for the gap over a restart.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// How long something took, for people.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;
    const STORED: EngineTime = EngineTime(5_000_000);
    const WALL: u64 = 1_700_000_000_000;

    fn gain(wall_ms: u64, scale: u32) -> u64 {
        let clock = Clock::resume_at(STORED, WALL, wall_ms, scale);
        let now = clock.now();
        assert!(now >= STORED, "engine time never goes back");
        assert!(clock.now() >= now);
        clock.base.since(STORED)
    }

    #[test]
    fn a_restart_gains_what_the_wall_clock_says_within_a_day() {
        assert_eq!(gain(WALL, 1), 0);
        assert_eq!(gain(WALL + 90_000, 1), 90_000);
        assert_eq!(gain(WALL + 90_000, 60), 5_400_000);
    }

    #[test]
    fn a_wall_clock_that_jumped_is_believed_neither_back_nor_for_more_than_a_day() {
        for back in [1, DAY_MS, 365 * DAY_MS, WALL] {
            assert_eq!(gain(WALL - back, 1), 0);
        }
        for ahead in [DAY_MS, DAY_MS + 1, 365 * DAY_MS, u64::MAX - WALL] {
            assert_eq!(gain(WALL + ahead, 1), DAY_MS);
        }
    }

    #[test]
    fn a_database_that_never_saw_a_wall_clock_gains_nothing() {
        assert_eq!(Clock::resume_at(STORED, 0, WALL, 1).base, STORED);
    }

    #[test]
    fn it_sleeps_until_what_is_due_and_not_at_all_for_what_has_passed() {
        let clock = Clock::resume_at(STORED, WALL, WALL, 60);
        assert_eq!(clock.until(EngineTime(1)), Duration::ZERO);
        let wait = clock.until(STORED + 3_600_000);
        assert!(wait <= Duration::from_secs(60) && wait > Duration::from_secs(50), "{wait:?}");
    }
}
