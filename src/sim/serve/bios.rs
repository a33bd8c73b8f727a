//! Writes of BIOS settings and Secure Boot: all wait for the next POST.

use super::World;
use super::message::{Refusal, refusal};
use super::seat::Seat;
use crate::sim::physics::{Attribute, Kind};
use crate::sim::truth::Cause;
use axum::http::StatusCode;
use serde_json::Value;

fn bad(id: &'static str, args: &[&str]) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, id, args)
}

/// `PATCH` of the settings object. One wrong attribute refuses all.
pub(super) fn patch(world: &World, seat: &Seat, body: &Value) -> Result<(), Refusal> {
    let Some(wanted) = body["Attributes"].as_object().filter(|o| !o.is_empty()) else {
        return Err(bad("PropertyMissing", &["Attributes"]));
    };
    let mut values = Vec::with_capacity(wanted.len());
    for (name, value) in wanted {
        let attribute = Attribute::of(name).ok_or_else(|| bad("PropertyUnknown", &[name]))?;
        if !attribute.takes(value) {
            let id = match attribute.kind {
                Kind::Enumeration(_) => "PropertyValueNotInList",
                Kind::Integer { .. } if value.is_i64() => "PropertyValueOutOfRange",
                Kind::Text(_) if value.is_string() => "PropertyValueFormatError",
                Kind::Fixed(_) => return Err(bad("PropertyNotWritable", &[name])),
                _ => "PropertyValueTypeError",
            };
            return Err(bad(id, &[&value.to_string(), name]));
        }
        values.push((attribute, value.clone()));
    }
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    seat.with(now, |b| b.vm.set_bios(now, by, &values));
    Ok(())
}

/// The same where it becomes a job: the job's number.
pub(super) fn patch_by_job(world: &World, seat: &Seat, body: &Value) -> Result<u32, Refusal> {
    let now = world.now();
    if seat.with(now, |b| b.vm.board.has_bios_job()) {
        return Err(bad("ResourceInUse", &[]));
    }
    patch(world, seat, body)?;
    Ok(seat.with(now, |b| b.vm.add_bios_job(now)))
}

/// `ResetBios`.
pub(super) fn reset(world: &World, seat: &Seat) {
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    seat.with(now, |b| b.vm.reset_bios(now, by));
}

/// `PATCH` of Secure Boot.
pub(super) fn patch_secure_boot(world: &World, seat: &Seat, body: &Value) -> Result<(), Refusal> {
    let members = body.as_object().ok_or_else(|| bad("MalformedJSON", &[]))?;
    if let Some(other) = members.keys().find(|k| *k != "SecureBootEnable") {
        return Err(bad("PropertyNotWritable", &[other]));
    }
    let on = match members.get("SecureBootEnable") {
        Some(Value::Bool(on)) => *on,
        Some(other) => {
            return Err(bad("PropertyValueTypeError", &[&other.to_string(), "SecureBootEnable"]));
        }
        None => return Err(bad("EmptyJSON", &[])),
    };
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    seat.with(now, |b| b.vm.set_secure_boot(now, by, on));
    Ok(())
}
