//! Where a write goes: who may, whether its ETag still fits, and which part of the BMC takes it. A
//! `PATCH` answers with the resource as it is afterwards.

use super::accounts::{self, Caller, Role};
use super::message::{Refusal, missing, refusal};
use super::redfish::{apply, document, etag, show};
use super::seat::Seat;
use super::{World, bios, logs, media, tree, update, volumes};
use crate::model::action::BootTarget;
use crate::model::{Action, PowerOp};
use crate::sim::physics::{BootMode, PowerState};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

fn bad(id: &'static str, args: &[&str]) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, id, args)
}

/// A write of a caller who is logged in. `path`: segments below `/redfish/v1`.
pub(super) async fn write(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    caller: &Caller,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Result<Response, Refusal> {
    let own_account = matches!(path, ["AccountService", "Accounts", _]);
    if caller.role < needed(path) && !(parts.method == Method::PATCH && own_account) {
        return Err(refusal(StatusCode::FORBIDDEN, "InsufficientPrivilege", &[]));
    }
    let body = match body {
        [] => Value::Object(Map::new()),
        text => serde_json::from_slice(text).map_err(|_| bad("MalformedJSON", &[]))?,
    };
    match parts.method {
        Method::PATCH => {
            fits(world, seat, parts, path)?;
            if ["Systems", "1", "Bios", "Settings"] == *path && seat.profile.tasks.bios_job {
                let job = bios::patch_by_job(world, seat, &body)?;
                let task = format!("{}/TaskService/Tasks/{job}", tree::V1);
                return Ok(update::accepted(world, seat, &task));
            }
            patch(world, seat, caller, path, &body)?;
            let now = world.now();
            let after = seat.with(now, |b| tree::resource(b, now, path));
            Ok(show(StatusCode::OK, &after.ok_or_else(missing)?))
        }
        Method::POST => post(world, seat, path, body).await,
        Method::DELETE => delete(world, seat, caller, path),
        _ => Err(not_so(world, seat, path)),
    }
}

/// What may be done with a resource, as the header `Allow` says it.
pub(super) fn allowed(path: &[&str]) -> &'static str {
    match path {
        ["Systems" | "Chassis" | "Managers", "1"]
        | ["Systems", "1", "SecureBoot"]
        | ["Systems", "1", "Bios", "Settings"]
        | ["SessionService" | "AccountService"] => "GET, HEAD, PATCH",
        ["AccountService", "Accounts", _] => "GET, HEAD, PATCH, DELETE",
        ["SessionService", "Sessions"]
        | ["AccountService", "Accounts"]
        | ["Systems", "1", "Storage", "1", "Volumes"] => "GET, HEAD, POST",
        ["SessionService", "Sessions", _] | ["Systems", "1", "Storage", "1", "Volumes", _] => {
            "GET, HEAD, DELETE"
        }
        [.., "Actions", _] => "POST",
        _ => "GET, HEAD",
    }
}

/// The role that a write takes (DSP0266 §13.3, the Base privilege registry in brief).
fn needed(path: &[&str]) -> Role {
    match path {
        ["Systems" | "Chassis", ..] | ["Managers", "1", "VirtualMedia", ..] => Role::Operator,
        ["SessionService", "Sessions", _] => Role::ReadOnly,
        _ => Role::Administrator,
    }
}

/// 405 for what is there, 404 for what is not.
fn not_so(world: &World, seat: &Seat, path: &[&str]) -> Refusal {
    let now = world.now();
    match seat.with(now, |b| tree::resource(b, now, path)) {
        Some(_) => refusal(StatusCode::METHOD_NOT_ALLOWED, "OperationNotAllowed", &[]),
        None => missing(),
    }
}

/// A differing `If-Match` is refused, a missing one is not.
fn fits(world: &World, seat: &Seat, parts: &Parts, path: &[&str]) -> Result<(), Refusal> {
    let Some(wanted) = parts.headers.get(header::IF_MATCH).and_then(|h| h.to_str().ok()) else {
        return Ok(());
    };
    let now = world.now();
    let current = seat.with(now, |b| tree::resource(b, now, path)).ok_or_else(missing)?;
    let current = etag(&current);
    match wanted.split(',').any(|w| w.trim() == "*" || w.trim() == current) {
        true => Ok(()),
        false => Err(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", &[])),
    }
}

fn patch(
    world: &World,
    seat: &Seat,
    caller: &Caller,
    path: &[&str],
    body: &Value,
) -> Result<(), Refusal> {
    let now = world.now();
    match path {
        ["Systems", "1"] => patch_system(world, seat, body),
        ["Systems", "1", "Bios", "Settings"] => bios::patch(world, seat, body),
        ["Systems", "1", "SecureBoot"] => bios::patch_secure_boot(world, seat, body),
        ["Chassis", "1"] => {
            for (key, value) in members(body)? {
                patch_label(world, seat, key, value)?;
            }
            Ok(())
        }
        ["Managers", "1"] => patch_clock(world, seat, body),
        ["SessionService"] => {
            for (key, value) in members(body)? {
                let seconds = value.as_u64().filter(|s| (30..=86_400).contains(s));
                match (key.as_str(), seconds) {
                    ("SessionTimeout", Some(s)) => {
                        seat.with(now, |b| b.accounts.rules.session_idle_ms = s * 1000);
                    }
                    ("SessionTimeout", None) => {
                        return Err(bad("PropertyValueOutOfRange", &[&value.to_string(), key]));
                    }
                    _ => return Err(bad("PropertyNotWritable", &[key])),
                }
            }
            Ok(())
        }
        ["AccountService"] => seat.with(now, |b| accounts::patch_rules(b, body)),
        ["AccountService", "Accounts", id] => {
            seat.with(now, |b| accounts::patch(b, caller, id, body))?;
            accounts::changed(world, seat);
            Ok(())
        }
        _ => Err(not_so(world, seat, path)),
    }
}

async fn post(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    path: &[&str],
    body: Value,
) -> Result<Response, Refusal> {
    let done = || StatusCode::NO_CONTENT.into_response();
    match path {
        ["Systems", "1", "Actions", "ComputerSystem.Reset"] => {
            reset(world, seat, &body).map(|()| done())
        }
        ["Managers", "1", "Actions", "Manager.Reset"] => {
            reset_bmc(world, seat, &body).map(|()| done())
        }
        ["UpdateService", "Actions", "UpdateService.SimpleUpdate"] => {
            update::simple_update(world.clone(), seat.clone(), body).await
        }
        [
            "Systems" | "Managers",
            "1",
            "VirtualMedia",
            id,
            "Actions",
            "VirtualMedia.InsertMedia",
        ] => media::insert(world, seat, id, &body).await.map(|()| done()),
        ["Systems" | "Managers", "1", "VirtualMedia", id, "Actions", "VirtualMedia.EjectMedia"] => {
            media::eject(world, seat, id).map(|()| done())
        }
        ["Systems", "1", "Bios", "Actions", "Bios.ResetBios"] => {
            bios::reset(world, seat);
            Ok(done())
        }
        ["Systems", "1", "LogServices", "SEL", "Actions", "LogService.ClearLog"]
        | ["Managers", "1", "LogServices", "BMC", "Actions", "LogService.ClearLog"] => {
            logs::clear(world, seat);
            Ok(done())
        }
        ["Systems", "1", "Storage", "1", "Volumes"] => volumes::create(world, seat, &body),
        ["AccountService", "Accounts"] => {
            let now = world.now();
            let id = seat.with(now, |b| accounts::create(b, &body))?;
            accounts::changed(world, seat);
            let path = ["AccountService", "Accounts", id.as_str()];
            let made = seat.with(now, |b| tree::resource(b, now, &path)).unwrap_or_default();
            let mut out = document(StatusCode::CREATED, &made);
            if let Some(at) = made["@odata.id"].as_str().and_then(|p| p.parse().ok()) {
                out.headers_mut().insert(header::LOCATION, at);
            }
            Ok(out)
        }
        _ => Err(not_so(world, seat, path)),
    }
}

fn delete(world: &World, seat: &Seat, caller: &Caller, path: &[&str]) -> Result<Response, Refusal> {
    let now = world.now();
    match path {
        ["SessionService", "Sessions", id] => seat.with(now, |b| {
            let owner = b.sessions.values().find(|s| s.id == *id).map(|s| s.user.clone());
            let owner = owner.ok_or_else(missing)?;
            if caller.role != Role::Administrator && owner != caller.user {
                return Err(refusal(StatusCode::FORBIDDEN, "InsufficientPrivilege", &[]));
            }
            b.sessions.retain(|_, s| s.id != *id);
            Ok(())
        })?,
        ["AccountService", "Accounts", id] => {
            seat.with(now, |b| accounts::delete(b, id))?;
            accounts::changed(world, seat);
        }
        ["Systems", "1", "Storage", "1", "Volumes", id] => volumes::delete(world, seat, id)?,
        _ => return Err(not_so(world, seat, path)),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn members(body: &Value) -> Result<&Map<String, Value>, Refusal> {
    match body.as_object() {
        None => Err(bad("UnrecognizedRequestBody", &[])),
        Some(o) if o.is_empty() => Err(bad("EmptyJSON", &[])),
        Some(o) => Ok(o),
    }
}

fn reset(world: &World, seat: &Seat, body: &Value) -> Result<(), Refusal> {
    const ACTION: &str = "ComputerSystem.Reset";
    let word = body["ResetType"].as_str();
    let word = word.ok_or_else(|| bad("ActionParameterMissing", &[ACTION, "ResetType"]))?;
    let op = match word {
        "On" => PowerOp::On,
        "ForceOff" => PowerOp::ForceOff,
        "GracefulShutdown" => PowerOp::GracefulShutdown,
        "ForceRestart" => PowerOp::ForceRestart,
        _ => return Err(bad("ActionParameterValueNotInList", &[word, "ResetType", ACTION])),
    };
    let power = seat.with(world.now(), |b| b.vm.power);
    if power != PowerState::On && matches!(op, PowerOp::GracefulShutdown | PowerOp::ForceRestart) {
        return Err(refusal(StatusCode::CONFLICT, "ResourceInUse", &[]));
    }
    apply(world, seat, &Action::Power { op });
    Ok(())
}

/// The answer goes out before the BMC does, as most do it.
fn reset_bmc(world: &World, seat: &Seat, body: &Value) -> Result<(), Refusal> {
    if let Some(word) = body["ResetType"].as_str().filter(|t| !tree::BMC_RESETS.contains(t)) {
        let args = [word, "ResetType", "Manager.Reset"];
        return Err(bad("ActionParameterValueNotInList", &args));
    }
    let now = world.now();
    let at = now + world.world_ms(Duration::from_millis(100)).max(1000);
    let seq = world.seq();
    seat.with(now, |b| b.vm.apply_late(at, seq, &Action::BmcReset { controller: None }));
    Ok(())
}

/// The BMC's clock; nothing else of it can be written.
fn patch_clock(world: &World, seat: &Seat, body: &Value) -> Result<(), Refusal> {
    let now = world.now();
    for (key, value) in members(body)? {
        match key.as_str() {
            "DateTime" => {
                let date_ms = value.as_str().and_then(tree::date_ms);
                let format = || bad("PropertyValueFormatError", &[&value.to_string(), key]);
                let date_ms = date_ms.ok_or_else(format)?;
                seat.with(now, |b| b.vm.board.set_clock(now, date_ms));
            }
            "DateTimeLocalOffset" if value == "+00:00" => {}
            _ => return Err(bad("PropertyNotWritable", &[key])),
        }
    }
    Ok(())
}

/// The asset tag and the light, which system and chassis share.
fn patch_label(world: &World, seat: &Seat, key: &str, value: &Value) -> Result<(), Refusal> {
    let now = world.now();
    match (key, value) {
        ("AssetTag", Value::String(tag)) if tag.chars().count() <= 64 => {
            seat.with(now, |b| b.vm.board.asset_tag = tag.as_str().into());
        }
        ("LocationIndicatorActive", Value::Bool(lit)) => {
            seat.with(now, |b| b.vm.board.lit = *lit);
        }
        ("AssetTag" | "LocationIndicatorActive", other) => {
            return Err(bad("PropertyValueTypeError", &[&other.to_string(), key]));
        }
        _ => return Err(bad("PropertyNotWritable", &[key])),
    }
    Ok(())
}

fn patch_system(world: &World, seat: &Seat, body: &Value) -> Result<(), Refusal> {
    let members = members(body)?;
    // Refused as a whole or written as a whole, as far as one property goes.
    let boot = match members.get("Boot") {
        Some(boot) => Some(boot_order(boot)?),
        None => None,
    };
    for (key, value) in members.iter().filter(|(key, _)| *key != "Boot") {
        patch_label(world, seat, key, value)?;
    }
    if let Some((target, continuous)) = boot {
        apply(world, seat, &Action::SetBoot { target });
        if continuous {
            seat.with(world.now(), |b| b.vm.boot.mode = BootMode::Continuous);
        }
    }
    Ok(())
}

/// What the boot override is to be, and whether it stays.
fn boot_order(boot: &Value) -> Result<(BootTarget, bool), Refusal> {
    let wanted =
        boot.as_object().ok_or_else(|| bad("PropertyValueTypeError", &["Boot", "Boot"]))?;
    for (key, value) in wanted {
        let word = value.as_str().unwrap_or_default();
        match key.as_str() {
            "BootSourceOverrideEnabled" if ["Disabled", "Once", "Continuous"].contains(&word) => {}
            "BootSourceOverrideTarget" if tree::BOOT_TARGETS.contains(&word) => {}
            "BootSourceOverrideMode" if word == "UEFI" => {}
            "BootSourceOverrideEnabled" | "BootSourceOverrideTarget" | "BootSourceOverrideMode" => {
                return Err(bad("PropertyValueNotInList", &[&value.to_string(), key]));
            }
            _ => return Err(bad("PropertyNotWritable", &[key])),
        }
    }
    let enabled = boot["BootSourceOverrideEnabled"].as_str();
    let target = match (enabled, boot["BootSourceOverrideTarget"].as_str()) {
        (Some("Disabled"), _) | (_, Some("None")) => BootTarget::None,
        (_, Some("Pxe")) => BootTarget::Pxe,
        (_, Some("UefiHttp")) => BootTarget::UefiHttp,
        (_, Some("Cd")) => BootTarget::Cd,
        (_, Some("Hdd")) => BootTarget::Disk,
        _ => return Err(bad("PropertyMissing", &["BootSourceOverrideTarget"])),
    };
    Ok((target, enabled == Some("Continuous") && target != BootTarget::None))
}
