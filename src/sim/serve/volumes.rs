//! Volumes over whole drives (DSP0268 Volume): made by a task, whose end makes them visible.

use super::message::{Refusal, missing, refusal};
use super::seat::Seat;
use super::{World, tree};
use crate::sim::physics::Raid;
use crate::sim::truth::Cause;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

fn bad(id: &'static str, args: &[&str]) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, id, args)
}

/// `POST` to the collection: 202 and a task.
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
    let made = seat.with(now, |b| b.vm.make_volume(now, by, (&name, raid), &drives));
    let task = made.ok_or_else(|| refusal(StatusCode::CONFLICT, "ResourceInUse", &[]))?;
    Ok(super::update::accepted(world, seat, &format!("{}/TaskService/Tasks/{task}", tree::V1)))
}

pub(super) fn delete(world: &World, seat: &Seat, id: &str) -> Result<(), Refusal> {
    let id: u32 = id.parse().map_err(|_| missing())?;
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    match seat.with(now, |b| b.vm.delete_volume(now, by, id)) {
        true => Ok(()),
        false => Err(missing()),
    }
}
