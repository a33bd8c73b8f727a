//! Volumes over whole drives (DSP0268 Volume): made by a task, whose end makes them visible.

use super::message::{Refusal, missing, refusal};
use super::redfish::document;
use super::seat::Seat;
use super::{World, tree};
use crate::sim::physics::{Making, Raid};
use crate::sim::truth::Cause;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::Value;

fn bad(id: &'static str, args: &[&str]) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, id, args)
}

/// `POST` to the collection: 202 and a task, or 201 and the volume where the vendor makes it at once.
pub(super) fn create(world: &World, seat: &Seat, body: &Value) -> Result<Response, Refusal> {
    let word = body["RAIDType"].as_str().ok_or_else(|| bad("PropertyMissing", &["RAIDType"]))?;
    let raid = Raid::ALL.into_iter().find(|r| r.word() == word);
    let raid = raid.ok_or_else(|| bad("PropertyValueNotInList", &[word, "RAIDType"]))?;
    let named = [&body["DisplayName"], &body["Name"]].into_iter().find_map(|n| n.as_str());
    let name = named.filter(|n| n.len() <= 64).unwrap_or("Volume").to_string();
    let links = body["Links"]["Drives"].as_array().or_else(|| body["Drives"].as_array());
    let links = links.ok_or_else(|| bad("PropertyMissing", &["Links/Drives"]))?;
    let now = world.now();
    let disks = seat.with(now, |b| b.vm.inventory().disks);
    let mut drives = Vec::with_capacity(links.len());
    for link in links {
        let id = link["@odata.id"].as_str().unwrap_or_default();
        let id = id.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        match disks.iter().position(|d| d.id == id) {
            Some(n) if !drives.contains(&n) => drives.push(n),
            _ => return Err(bad("PropertyValueNotInList", &[&link.to_string(), "Links/Drives"])),
        }
    }
    if drives.len() < 2 {
        let count = drives.len().to_string();
        return Err(bad("PropertyValueOutOfRange", &[&count, "Links/Drives"]));
    }
    let by = Cause::Farrier { seq: world.seq() };
    let at_post = seat.with(now, |b| b.vm.quirks.volumes_at_post);
    let making = match (at_post, seat.profile.tasks.volume_at_once) {
        (true, _) => Making::AtPost,
        (_, true) => Making::AtOnce,
        _ => Making::ByTask,
    };
    let made = seat.with(now, |b| b.vm.make_volume(now, by, (&name, raid), &drives, making));
    let task = made.ok_or_else(|| refusal(StatusCode::CONFLICT, "ResourceInUse", &[]))?;
    if making == Making::AtOnce {
        return Ok(there(world, seat));
    }
    Ok(super::update::accepted(world, seat, &format!("{}/TaskService/Tasks/{task}", tree::V1)))
}

/// 201: the youngest volume.
fn there(world: &World, seat: &Seat) -> Response {
    let now = world.now();
    let made = seat.with(now, |b| {
        let id = b.vm.board.volumes(now).map(|v| v.id).max().unwrap_or_default().to_string();
        tree::resource(b, now, &["Systems", "1", "Storage", "1", "Volumes", id.as_str()])
    });
    let made = made.unwrap_or_default();
    let mut out = document(StatusCode::CREATED, &made);
    if let Some(at) = made["@odata.id"].as_str().and_then(|p| p.parse().ok()) {
        out.headers_mut().insert(header::LOCATION, at);
    }
    out
}

pub(super) fn delete(world: &World, seat: &Seat, id: &str) -> Result<(), Refusal> {
    let id: u32 = id.parse().map_err(|_| missing())?;
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    match seat.with(now, |b| b.vm.delete_volume(now, by, id)) {
        true => Ok(()),
        false => Err(missing()),
    }
}
