//! A BMC's way back after its restart: it takes connections before it speaks HTTP, speaks HTTP
//! before it has a tree, and has a root before there is anything behind it (field notes §6 line 5).

use super::say;
use crate::model::EngineTime;
use crate::sim::rng::Rng;
use crate::sim::serve::World;
use crate::sim::serve::profile::Profile;
use crate::sim::serve::seat::Seat;
use axum::response::Response;
use serde_json::{Value, json};

/// Where on its way a BMC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim::serve) enum Phase {
    Mute,
    Busy,
    Bare,
    Partial,
    Up,
}

/// The phase at `now`. How long each takes is drawn once a life of the BMC.
pub(in crate::sim::serve) fn phase(world: &World, seat: &Seat, now: EngineTime) -> Phase {
    match seat.with(now, |b| b.back()) {
        None => Phase::Up,
        Some((life, since)) => {
            let stream = u64::from(u32::from(seat.address)) << 32 | life & 0xffff_ffff;
            let rng = Rng::stream(world.seed ^ 0x57a7, stream);
            at(&seat.profile, rng, now.since(since))
        }
    }
}

fn at(profile: &Profile, mut rng: Rng, mut since_ms: u64) -> Phase {
    let start = &profile.start;
    for (phase, (from, to)) in [
        (Phase::Mute, start.mute_s),
        (Phase::Busy, start.busy_s),
        (Phase::Bare, start.bare_s),
        (Phase::Partial, start.partial_s),
    ] {
        let lasts = rng.between(from * 1000, to * 1000);
        if since_ms < lasts {
            return phase;
        }
        since_ms -= lasts;
    }
    Phase::Up
}

/// What a BMC says while it starts; `None`: it has this already.
pub(super) fn answer(profile: &Profile, phase: Phase, path: &[String]) -> Option<Response> {
    let busy = || {
        let mut said = say::base(503, "ServiceTemporarilyUnavailable", "The service is starting.");
        said.args = vec!["30".into()];
        Some(say::refusal(&profile.errors, &said, true))
    };
    match phase {
        // A request on a connection from before: nothing reads it yet either.
        Phase::Mute | Phase::Busy => busy(),
        Phase::Bare if path.is_empty() => None,
        Phase::Bare => busy(),
        Phase::Partial | Phase::Up => None,
    }
}

/// What is not there yet of a document that is.
pub(super) fn thin_out(phase: Phase, path: &[String], body: &mut Value) {
    match phase {
        Phase::Bare if path.is_empty() => {
            if let Some(root) = body.as_object_mut() {
                root.retain(|_, v| v.get("@odata.id").is_none());
                root.remove("Links");
                root.insert("@odata.id".into(), "/redfish/v1".into());
            }
        }
        // The systems are there first; what is gathered from parts comes later.
        Phase::Partial if path.len() > 1 && body.get("Members").is_some() => {
            body["Members"] = json!([]);
            body["Members@odata.count"] = 0.into();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_come_in_their_order_and_end() {
        let dgx = Profile::named("dgx").expect("ships");
        let mut seen = Vec::new();
        for s in 0..300 {
            let now = at(&dgx, Rng::stream(1, 2), s * 1000);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        assert_eq!(seen, [Phase::Mute, Phase::Busy, Phase::Bare, Phase::Partial, Phase::Up]);
        let clean = Profile::named("clean").expect("ships");
        assert_eq!(at(&clean, Rng::stream(1, 2), 0), Phase::Up);
    }

    #[test]
    fn a_bare_root_has_no_links() {
        let mut root = json!({"@odata.id": "/redfish/v1", "Id": "RootService",
            "Systems": {"@odata.id": "/redfish/v1/Systems"}, "Links": {}});
        thin_out(Phase::Bare, &[], &mut root);
        assert_eq!(root, json!({"@odata.id": "/redfish/v1", "Id": "RootService"}));
    }
}
