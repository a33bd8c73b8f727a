//! The Redfish resources of a virtual machine as JSON, made from its physics at each read and only
//! for the path that was asked. Shapes follow DSP0266 (protocol) and DSP0268 (schemas). No link in
//! the tree leads nowhere, and DMTF's service validator finds no fault with it.

mod accounts;
mod bios;
mod chassis;
mod logs;
mod manager;
mod media;
mod parts;
mod registry;
mod roots;
mod schemas;
mod sensors;
mod service;
mod storage;
mod system;
mod tasks;
mod updates;

pub(super) use media::DRIVES;
pub(super) use schemas::metadata;
pub(super) use service::{odata, session};
pub(super) use system::BOOT_TARGETS;
pub(super) use tasks::task;

use super::seat::Body;
use crate::model::EngineTime;
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

pub(super) const V1: &str = "/redfish/v1";

/// Reset types that the system takes.
pub(super) const RESETS: [&str; 4] = ["On", "ForceOff", "GracefulShutdown", "ForceRestart"];
/// Reset types that the BMC takes for itself.
pub(super) const BMC_RESETS: [&str; 2] = ["GracefulRestart", "ForceRestart"];

/// When that was by the BMC's clock.
fn date(vm: &VirtualMachine, at: EngineTime) -> String {
    timestamp(vm, at).map_or_else(String::new, |t| t.to_string())
}

/// The BMC's time as HTTP spells it (RFC 9110 §5.6.7).
pub(super) fn http_date(vm: &VirtualMachine, now: EngineTime) -> Option<String> {
    Some(timestamp(vm, now)?.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

fn timestamp(vm: &VirtualMachine, at: EngineTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(vm.board.clock_ms(at)).ok()
}

/// A date as milliseconds since 1970; `None`: not a date.
pub(super) fn date_ms(date: &str) -> Option<i64> {
    Some(date.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// The resource at `path` (segments below `/redfish/v1`); `None`: there is none.
pub(super) fn resource(body: &Body, now: EngineTime, path: &[&str]) -> Option<Value> {
    let vm = &body.vm;
    match path {
        [] => Some(service::root(vm)),
        ["SessionService", rest @ ..] => service::sessions(body, rest),
        ["EventService", rest @ ..] => service::events(rest),
        ["AccountService", rest @ ..] => accounts::resource(&body.accounts, now, rest),
        ["Systems"] => Some(collection("Systems", "ComputerSystem", ["1".to_string()])),
        ["Systems", "1", rest @ ..] => system::resource(vm, now, rest),
        ["Managers"] => Some(collection("Managers", "Manager", ["1".to_string()])),
        ["Managers", "1", rest @ ..] => manager::resource(vm, now, rest),
        ["Chassis"] => {
            let ids = std::iter::once("1".to_string()).chain(roots::ids(vm));
            Some(collection("Chassis", "Chassis", ids))
        }
        ["Chassis", "1", rest @ ..] => chassis::resource(vm, rest),
        ["Chassis", id] => roots::resource(vm, id),
        ["UpdateService", rest @ ..] => updates::resource(vm, rest),
        ["TaskService", rest @ ..] => tasks::resource(vm, now, rest),
        ["Registries", rest @ ..] => registry::resource(rest),
        ["JsonSchemas"] => {
            let ids = schemas::SCHEMAS.iter().map(|(name, _)| (*name).to_string());
            Some(collection("JsonSchemas", "JsonSchemaFile", ids))
        }
        ["JsonSchemas", id] => schemas::file(id),
        _ => None,
    }
}

pub(super) fn link(path: &str) -> Value {
    json!({"@odata.id": format!("{V1}/{path}")})
}

/// `body` with the annotations every resource has.
fn typed(path: &str, kind: &str, mut body: Value) -> Value {
    let id = if path.is_empty() { V1.to_string() } else { format!("{V1}/{path}") };
    body["@odata.id"] = id.into();
    body["@odata.type"] = schemas::annotation(kind).into();
    body
}

fn collection(path: &str, of: &str, ids: impl IntoIterator<Item = String>) -> Value {
    let members = ids.into_iter().map(|id| link(&format!("{path}/{id}"))).collect();
    collection_of(path, of, members)
}

fn collection_of(path: &str, of: &str, members: Vec<Value>) -> Value {
    typed(
        path,
        &format!("{of}Collection"),
        json!({
            "Name": format!("{of} collection"),
            "Members@odata.count": members.len(), "Members": members,
        }),
    )
}

fn healthy() -> Value {
    json!({"State": "Enabled", "Health": "OK"})
}

/// The target of an action of the resource at `path`.
fn action(path: &str, name: &str) -> String {
    format!("{V1}/{path}/Actions/{name}")
}
