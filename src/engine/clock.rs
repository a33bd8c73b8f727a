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
        let gap = match stored_wall_ms {
            0 => 0,
            then => wall_ms().saturating_sub(then).min(MAX_GAP_MS),
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
