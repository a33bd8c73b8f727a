//! The BMC's clock beside ours (DSP0268 Manager.DateTime). A wrong one breaks TLS fetches of images and
//! makes logs lie (field notes R22). Compared here, where our own clock may be asked: what is decided
//! elsewhere knows neither.

use super::conn::Bmc;
use super::json::Warnings;
use super::{around, discover, fault, json, system};
use crate::model::hardware::ClockFacts;
use crate::model::time::Span;
use crate::model::{Fault, FaultClass};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Instant;

/// A BMC's clock may be off by this much, either way; above it a person is told. 5 minutes, as NVIDIA's
/// infra-controller has it (field notes R22).
const MOST_OFF_MS: u64 = 300_000;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<ClockFacts, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    of(bmc, &v).await
}

/// The clock of the manager of this system, which was just read.
async fn of(bmc: &Bmc<'_>, system: &Value) -> Result<ClockFacts, Fault> {
    let managers = around::managers(bmc, system).await?;
    let Some((path, _)) = managers.first() else {
        return Err(fault::unsupported("no-manager", "the BMC shows no manager"));
    };
    // Read once more: the one before shared its time with a login and other requests.
    let started = Instant::now();
    let v = bmc.get(path).await?;
    let trip = started.elapsed();
    let half = i64::try_from(trip.as_millis() / 2).unwrap_or(i64::MAX);
    Ok(facts(&v, Timestamp::now().as_millisecond().saturating_sub(half)))
}

/// The same for an inventory: what is wrong with the clock is a warning, and costs nothing else.
pub(super) async fn noticed(
    bmc: &Bmc<'_>,
    system: &Value,
    w: &mut Warnings,
) -> Result<Option<ClockFacts>, Fault> {
    let clock = match of(bmc, system).await {
        Ok(clock) => clock,
        Err(f) if discover::is_fatal(&f) => return Err(f),
        Err(f) if f.class == FaultClass::Unsupported => return Ok(None),
        Err(f) => {
            w.push(format!("the BMC's clock: {} ({})", f.message, f.code));
            return Ok(None);
        }
    };
    if let Some(warning) = warning(&clock, Timestamp::now()) {
        tracing::warn!(machine = %bmc.target.name, "{warning}");
        w.push(warning);
    }
    Ok(Some(clock))
}

/// What a person is to know of this clock, beside ours of now.
fn warning(clock: &ClockFacts, ours: Timestamp) -> Option<String> {
    // A BMC may write a page there.
    let says = json::excerpt(clock.says.as_deref()?, 40);
    let ours = ours.strftime("%Y-%m-%dT%H:%M:%SZ");
    let Some(ahead) = clock.ahead_ms else {
        return Some(format!(
            "the BMC's clock says `{says}`, which is no time (Farrier's says {ours}); hint: set it, or \
             give the BMC an NTP server"
        ));
    };
    let off = ahead.unsigned_abs();
    (off > MOST_OFF_MS).then(|| {
        let way = if ahead > 0 { "ahead" } else { "behind" };
        format!(
            "the BMC's clock is {} {way}: it says {says}, Farrier's says {ours}; TLS fetches may fail \
             and its logs have wrong times; hint: give the BMC an NTP server; where many BMCs differ \
             alike, look at the clock of Farrier's own host",
            Span(off)
        )
    })
}

/// `now_ms`: our time when the BMC wrote its answer, milliseconds since 1970.
fn facts(v: &Value, now_ms: i64) -> ClockFacts {
    let says = json::text(v, &["DateTime"]);
    let ahead_ms = says.as_deref().and_then(|t| {
        let at = t.parse::<Timestamp>().or_else(|_| {
            // Without a zone: the one that stands beside it, else UTC.
            let zone = json::text(v, &["DateTimeLocalOffset"]).unwrap_or_else(|| "+00:00".into());
            format!("{t}{zone}").parse::<Timestamp>()
        });
        Some(at.ok()?.as_millisecond().saturating_sub(now_ms))
    });
    ClockFacts { says, ahead_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn clocks_are_read_with_and_without_a_zone() {
        let noon = at("2024-08-15T12:00:00Z").as_millisecond();
        let ahead = |t: Value, zone: &str| {
            facts(&json!({"DateTime": t, "DateTimeLocalOffset": zone}), noon).ahead_ms
        };
        assert_eq!(ahead(json!("2024-08-15T12:00:07Z"), "+00:00"), Some(7_000));
        assert_eq!(ahead(json!("2024-08-15T07:00:00-05:00"), "-05:00"), Some(0));
        assert_eq!(ahead(json!("2024-08-15T07:00:00"), "-05:00"), Some(0));
        assert_eq!(ahead(json!("T00:00:00Z"), "+00:00"), None);
        assert_eq!(ahead(json!(7), "+00:00"), None);
    }

    #[test]
    fn a_clock_is_warned_of_above_five_minutes_and_with_both_values() {
        let ours = at("2024-08-15T12:00:00Z");
        let of =
            |says: &str| warning(&facts(&json!({"DateTime": says}), ours.as_millisecond()), ours);
        for good in ["2024-08-15T12:05:00Z", "2024-08-15T11:55:00Z", "2024-08-15T12:00:00Z"] {
            assert_eq!(of(good), None, "{good}");
        }
        for (bad, wanted) in [
            ("2024-08-15T12:05:01Z", "5m01s ahead"),
            ("2024-08-15T11:54:59Z", "5m01s behind"),
            ("1970-01-01T00:00:00Z", "behind"),
        ] {
            let said = of(bad).unwrap_or_default();
            for part in [wanted, bad, "Farrier's says 2024-08-15T12:00:00Z", "hint: "] {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
        assert!(of("T00:00:00Z").is_some_and(|w| w.contains("is no time")));
        assert_eq!(warning(&ClockFacts::default(), ours), None, "it says nothing");
        let long = of(&"x".repeat(10_000)).unwrap_or_default();
        assert!(long.chars().count() < 400 && long.contains("hint: "), "{long}");
    }
}
