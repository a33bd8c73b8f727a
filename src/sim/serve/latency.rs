//! How long a BMC takes to answer. Either a range (quick demos, tests), or by kind of request as
//! field notes §6 have it: the service root 20–150 ms, a plain GET 50–400 ms, big collections
//! 0.5–3 s, a login 0.4 s and 12 s for the first one after a restart of the BMC; 1 % of all take
//! 5–20 s. A BMC has one to four workers; what waits longer than 15 s for one gets a 503.

use super::profile::Pace;
use crate::sim::durations::Draw;
use crate::sim::rng::Rng;
use axum::http::Method;
use std::time::Duration;

/// A request that waits this long for a worker is turned away (bmcweb).
const QUEUE_MAX: Duration = Duration::from_secs(15);

/// How a world's BMCs answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Real milliseconds from and to, for every request; nothing queues.
    Even(u64, u64),
    /// By kind, as measured and estimated in the field.
    Field,
    /// By kind, as each machine's vendor profile says.
    Vendor,
}

/// What was asked, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Root,
    Plain,
    Big,
    Login,
    FirstLogin,
    Write,
}

const ROOT: Draw = Draw::new(55, 0.4, 20, 150);
const PLAIN: Draw = Draw::new(140, 0.45, 50, 400);
const BIG: Draw = Draw::new(1_000, 0.45, 500, 3_000);
const LOGIN: Draw = Draw::new(400, 0.3, 200, 900);
const FIRST_LOGIN: Draw = Draw::new(12_000, 0.1, 10_000, 15_000);
/// A write answers like a plain GET that looks twice.
const WRITE: Draw = Draw::new(250, 0.45, 100, 800);
const TAIL: Draw = Draw::new(9_000, 0.4, 5_000, 20_000);
const TAIL_PER_MILLION: u32 = 10_000;

impl Asked {
    /// `path`: segments below `/redfish/v1`.
    pub(super) fn of(method: &Method, path: &[&str], query: Option<&str>) -> Asked {
        match (method, path) {
            (&Method::GET | &Method::HEAD, []) => Asked::Root,
            (&Method::GET | &Method::HEAD, _) if query.is_some_and(|q| q.contains("expand")) => {
                Asked::Big
            }
            // What a BMC has to gather from its sensors and parts before it can list them.
            (&Method::GET | &Method::HEAD, ["UpdateService", "FirmwareInventory"])
            | (&Method::GET | &Method::HEAD, ["Systems", _, "Processors" | "Memory"]) => Asked::Big,
            (&Method::GET | &Method::HEAD, _) => Asked::Plain,
            (&Method::POST, ["SessionService", "Sessions"]) => Asked::Login,
            _ => Asked::Write,
        }
    }
}

impl Latency {
    /// Real time that the answer takes.
    pub(super) fn pick(self, asked: Asked, pace: &Pace, rng: &mut Rng) -> Duration {
        let ms = match self {
            Latency::Even(from, to) => rng.between(from, to),
            Latency::Vendor if asked == Asked::FirstLogin => {
                Pace::draw(pace.first_login_ms).pick(rng)
            }
            Latency::Vendor if rng.chance(pace.tail_per_million) => {
                Pace::draw(pace.tail_ms).pick(rng)
            }
            Latency::Vendor => Pace::draw(match asked {
                Asked::Root => pace.root_ms,
                Asked::Plain => pace.plain_ms,
                Asked::Big => pace.big_ms,
                Asked::Login => pace.login_ms,
                Asked::Write | Asked::FirstLogin => pace.write_ms,
            })
            .pick(rng),
            Latency::Field if asked == Asked::FirstLogin => FIRST_LOGIN.pick(rng),
            Latency::Field if rng.chance(TAIL_PER_MILLION) => TAIL.pick(rng),
            Latency::Field => match asked {
                Asked::Root => ROOT,
                Asked::Plain => PLAIN,
                Asked::Big => BIG,
                Asked::Login => LOGIN,
                Asked::Write | Asked::FirstLogin => WRITE,
            }
            .pick(rng),
        };
        Duration::from_millis(ms)
    }

    /// Requests that a BMC works on at once.
    pub(super) fn workers(self, pace: &Pace, rng: &mut Rng) -> usize {
        let (from, to) = match self {
            Latency::Even(..) => return tokio::sync::Semaphore::MAX_PERMITS,
            Latency::Field => (1, 4),
            Latency::Vendor => pace.workers,
        };
        usize::try_from(rng.between(from, to)).unwrap_or(1)
    }

    /// A request that waits this long for a worker is turned away.
    pub(super) fn queue_max(self, pace: &Pace) -> Duration {
        match self {
            Latency::Even(..) | Latency::Field => QUEUE_MAX,
            Latency::Vendor => Duration::from_millis(pace.queue_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_what_the_field_notes_say() {
        let asked = |m: Method, path: &[&str]| Asked::of(&m, path, None);
        assert_eq!(asked(Method::GET, &[]), Asked::Root);
        assert_eq!(asked(Method::GET, &["Systems", "1"]), Asked::Plain);
        assert_eq!(asked(Method::GET, &["UpdateService", "FirmwareInventory"]), Asked::Big);
        assert_eq!(asked(Method::POST, &["SessionService", "Sessions"]), Asked::Login);
        assert_eq!(asked(Method::PATCH, &["Systems", "1"]), Asked::Write);
        let all = |asked: Asked| -> Vec<u128> {
            let mut rng = Rng::new(7);
            let pace = Pace::default();
            // A vendor without figures of its own is the field's average.
            let both = [Latency::Field, Latency::Vendor].into_iter().cycle().take(20_000);
            both.map(|l| l.pick(asked, &pace, &mut rng).as_millis()).collect()
        };
        for (asked, from, to) in [
            (Asked::Root, 20, 150),
            (Asked::Plain, 50, 400),
            (Asked::Big, 500, 3_000),
            (Asked::Login, 200, 900),
        ] {
            let all = all(asked);
            let slow = all.iter().filter(|ms| **ms >= 5_000).count();
            assert!((120..=280).contains(&slow), "{asked:?}: {slow} of 20000 in the tail");
            let plain = all.iter().filter(|ms| **ms < 5_000);
            assert!(plain.clone().all(|ms| (from..=to).contains(ms)), "{asked:?}");
        }
        assert!(all(Asked::FirstLogin).iter().all(|ms| (10_000..=15_000).contains(ms)));
    }
}
