//! What the chassis measures, from how the machine stands: off, on, under load, a sick GPU that
//! becomes hot, a leak.

use super::{V1, collection, healthy, typed};
use crate::sim::physics::{HostState, PowerState, VirtualMachine};
use serde_json::{Value, json};

pub(super) const FANS: usize = 6;
/// Above it a GPU shuts down, °C.
const GPU_CRITICAL_C: u16 = 92;

/// One sensor with its reading now; `None`: nothing to measure while the host is off.
pub(super) struct Sensor {
    pub(super) id: String,
    kind: &'static str,
    unit: &'static str,
    context: &'static str,
    pub(super) reading: Option<u16>,
    critical: Option<u16>,
}

/// How hard the machine works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Off,
    Idle,
    Full,
}

fn load(vm: &VirtualMachine) -> Load {
    match vm.power {
        PowerState::Off => Load::Off,
        _ if vm.host == HostState::Running && vm.running_jobs() > 0 => Load::Full,
        _ => Load::Idle,
    }
}

fn by(load: Load, idle: u16, full: u16) -> Option<u16> {
    match load {
        Load::Off => None,
        Load::Idle => Some(idle),
        Load::Full => Some(full),
    }
}

/// How many power supplies the chassis has.
pub(super) fn supplies(vm: &VirtualMachine) -> u16 {
    if vm.gpus > 0 { 6 } else { 2 }
}

/// Power drawn from the wall, W.
pub(super) fn watts(vm: &VirtualMachine) -> u16 {
    let load = load(vm);
    let cpus = 2 * by(load, 110, 290).unwrap_or(0);
    let gpus = vm.gpus * by(load, 75, 640).unwrap_or(0);
    // The BMC has standby power.
    18 + cpus + gpus + by(load, 180, 420).unwrap_or(0)
}

pub(super) fn all(vm: &VirtualMachine) -> Vec<Sensor> {
    let load = load(vm);
    let heat = |id: String, context, reading, critical| Sensor {
        id,
        kind: "Temperature",
        unit: "Cel",
        context,
        reading,
        critical: Some(critical),
    };
    let mut out = vec![heat("Inlet".into(), "Intake", Some(24), 47)];
    out.extend((0..2).map(|n| heat(format!("CPU{n}Temp"), "CPU", by(load, 41, 78), 100)));
    let sick = vm.hot_gpu();
    out.extend((0..vm.gpus).map(|n| {
        let reading = match sick == Some(n) {
            true => Some(GPU_CRITICAL_C + 4),
            false => by(load, 34, 68),
        };
        heat(format!("GPU{n}Temp"), "GPU", reading, GPU_CRITICAL_C)
    }));
    let power = |id: String, context, reading| Sensor {
        id,
        kind: "Power",
        unit: "W",
        context,
        reading: Some(reading),
        critical: None,
    };
    let watts = watts(vm);
    out.push(power("TotalPower".into(), "Chassis", watts));
    let supplies = supplies(vm);
    out.extend(
        (0..supplies).map(|n| power(format!("PSU{n}Power"), "PowerSupply", watts / supplies)),
    );
    out.extend((0..FANS).map(|n| Sensor {
        id: format!("Fan{n}Speed"),
        kind: "Rotational",
        unit: "RPM",
        context: "Fan",
        reading: Some(rpm(vm)),
        critical: None,
    }));
    out
}

/// All fans turn alike.
pub(super) fn rpm(vm: &VirtualMachine) -> u16 {
    by(load(vm), 5_400, 14_600).unwrap_or(0)
}

pub(super) fn resource(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(collection("Chassis/1/Sensors", "Sensor", all(vm).into_iter().map(|s| s.id))),
        [id] => all(vm).into_iter().find(|s| s.id == *id).map(shown),
        _ => None,
    }
}

/// The short form in which other resources show a sensor.
pub(super) fn excerpt(id: &str, reading: Option<u16>) -> Value {
    json!({"DataSourceUri": format!("{V1}/Chassis/1/Sensors/{id}"), "Reading": reading})
}

fn shown(s: Sensor) -> Value {
    let status = match (s.reading, s.critical) {
        (None, _) => json!({"State": "StandbyOffline"}),
        (Some(r), Some(c)) if r >= c => json!({"State": "Enabled", "Health": "Critical"}),
        _ => healthy(),
    };
    let mut body = json!({
        "Id": s.id, "Name": format!("Sensor {}", s.id), "ReadingType": s.kind,
        "ReadingUnits": s.unit, "PhysicalContext": s.context, "Reading": s.reading,
        "Status": status,
    });
    if let Some(critical) = s.critical {
        body["Thresholds"] = json!({"UpperCritical": {"Reading": critical}});
    }
    typed(&format!("Chassis/1/Sensors/{}", s.id), "Sensor", body)
}
