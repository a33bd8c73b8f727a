//! The BMC's clock beside ours (DSP0268 Manager.DateTime). A wrong one breaks TLS fetches of images
//! (field notes R22).

use super::conn::Bmc;
use super::{around, fault, json, system};
use crate::model::Fault;
use crate::model::hardware::ClockFacts;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Instant;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<ClockFacts, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    let managers = around::managers(bmc, &v).await?;
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

    #[test]
    fn clocks_are_read_with_and_without_a_zone() {
        let noon = "2024-08-15T12:00:00Z".parse::<Timestamp>().map_or(0, Timestamp::as_millisecond);
        let ahead = |t: Value, zone: &str| {
            facts(&json!({"DateTime": t, "DateTimeLocalOffset": zone}), noon).ahead_ms
        };
        assert_eq!(ahead(json!("2024-08-15T12:00:07Z"), "+00:00"), Some(7_000));
        assert_eq!(ahead(json!("2024-08-15T07:00:00-05:00"), "-05:00"), Some(0));
        assert_eq!(ahead(json!("2024-08-15T07:00:00"), "-05:00"), Some(0));
        assert_eq!(ahead(json!("T00:00:00Z"), "+00:00"), None);
        assert_eq!(ahead(json!(7), "+00:00"), None);
    }
}
