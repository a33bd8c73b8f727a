//! How long things take in the virtual world. One struct, so that a demo can run the same world
//! faster. The numbers are field notes §6 (BMC reset 60–300 s, power on 1–60 s, POST 2–15 min);
//! where those say "estimate", so does this.

use super::rng::{Rng, exp};

/// A log-normal-like draw in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    pub median_ms: u64,
    /// Sigma of the logarithm: 0.3 is tame, 0.8 has a long tail.
    pub spread: f64,
    pub min_ms: u64,
    pub max_ms: u64,
}

impl Draw {
    pub const fn new(median_ms: u64, spread: f64, min_ms: u64, max_ms: u64) -> Self {
        Self { median_ms, spread, min_ms, max_ms }
    }

    pub fn pick(&self, rng: &mut Rng) -> u64 {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and clamped below"
        )]
        let ms = (self.median_ms as f64 * exp(self.spread * rng.normal())) as u64;
        ms.clamp(self.min_ms, self.max_ms)
    }

    fn scaled(&self, faster: f64) -> Self {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "durations are far below 2^52"
        )]
        let by = |ms: u64| ((ms as f64 / faster) as u64).max(1);
        Self {
            median_ms: by(self.median_ms),
            spread: self.spread,
            min_ms: by(self.min_ms),
            max_ms: by(self.max_ms),
        }
    }
}

/// All durations of a world, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Durations {
    // --- physics: scaled by a demo's time scale
    pub power_on: Draw,
    pub power_off: Draw,
    pub shutdown: Draw,
    pub post: Draw,
    pub boot_disk: Draw,
    /// From the end of POST to the boot script's request, and again to the seed's.
    pub fetch: Draw,
    pub install: Draw,
    pub bmc_reset: Draw,
    pub flash: Draw,
    /// From the moment a new image runs until its second place holds it too.
    pub copy: Draw,
    pub burn_in: Draw,
    pub wipe: Draw,
    /// What a workload still runs after a cordon.
    pub workload: Draw,
    /// From join (or host up) until the cluster calls the node ready.
    pub node_ready: Draw,
    // --- calls: how long an answer takes; the real wire has its own
    pub read: Draw,
    pub read_big: Draw,
    pub ssh: Draw,
    pub hook: Draw,
    pub act: Draw,
    pub commit: Draw,
}

const S: u64 = 1000;
const M: u64 = 60 * S;
const H: u64 = 60 * M;

impl Default for Durations {
    fn default() -> Self {
        Self {
            power_on: Draw::new(5 * S, 0.8, S, M),
            power_off: Draw::new(4 * S, 0.6, S, 30 * S),
            shutdown: Draw::new(25 * S, 0.6, 5 * S, 90 * S),
            post: Draw::new(4 * M, 0.5, 2 * M, 12 * M),
            boot_disk: Draw::new(50 * S, 0.4, 20 * S, 3 * M),
            fetch: Draw::new(6 * S, 0.6, S, 30 * S),
            install: Draw::new(7 * M, 0.4, 3 * M, 18 * M),
            bmc_reset: Draw::new(110 * S, 0.5, M, 5 * M),
            flash: Draw::new(5 * M, 0.5, 90 * S, 15 * M),
            copy: Draw::new(10 * M, 0.5, 5 * M, 30 * M),
            burn_in: Draw::new(8 * M, 0.3, 3 * M, 20 * M),
            wipe: Draw::new(40 * M, 0.5, 10 * M, 3 * H),
            workload: Draw::new(40 * M, 0.8, M, 3 * H),
            node_ready: Draw::new(40 * S, 0.5, 5 * S, 3 * M),
            read: Draw::new(150, 0.6, 20, 5 * S),
            read_big: Draw::new(900, 0.6, 200, 15 * S),
            ssh: Draw::new(250, 0.6, 30, 5 * S),
            hook: Draw::new(1200, 0.6, 100, 20 * S),
            act: Draw::new(600, 0.7, 50, 15 * S),
            commit: Draw::new(4, 0.5, 1, 60),
        }
    }
}

impl Durations {
    /// The same world behind a wire: what the host does by real calls and real programs ends when
    /// those do, never by a timer of the physics.
    pub fn wired(&self) -> Self {
        let never = Draw::new(365 * 24 * H, 0.0, 365 * 24 * H, 365 * 24 * H);
        Self { fetch: never, burn_in: never, wipe: never, ..*self }
    }

    /// The same world, `faster` times as fast: physical durations only, not the calls.
    pub fn scaled(&self, faster: f64) -> Self {
        Self {
            power_on: self.power_on.scaled(faster),
            power_off: self.power_off.scaled(faster),
            shutdown: self.shutdown.scaled(faster),
            post: self.post.scaled(faster),
            boot_disk: self.boot_disk.scaled(faster),
            fetch: self.fetch.scaled(faster),
            install: self.install.scaled(faster),
            bmc_reset: self.bmc_reset.scaled(faster),
            flash: self.flash.scaled(faster),
            copy: self.copy.scaled(faster),
            burn_in: self.burn_in.scaled(faster),
            wipe: self.wipe.scaled(faster),
            workload: self.workload.scaled(faster),
            node_ready: self.node_ready.scaled(faster),
            ..*self
        }
    }
}
