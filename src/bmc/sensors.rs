//! Readings: power, temperature, fans, voltages, leaks. They are in `Thermal` and `Power`, or in
//! what replaced these (`ThermalSubsystem`, `PowerSubsystem`, `EnvironmentMetrics`, `Sensors`), and
//! vendors have one, the other or both (DSP0268; field notes §1.3). Per chassis the two old
//! resources are preferred: they hold everything in two requests instead of one a sensor.

use super::conn::Bmc;
use super::{around, fault, json, system};
use crate::model::Fault;
use crate::model::hardware::{Sensor, SensorKind};
use serde_json::Value;

/// Single sensors that are read at most: an HGX machine has some hundred.
const MAX_SENSORS: usize = 600;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Vec<Sensor>, Fault> {
    let (links, v) = system::fetch(bmc).await?;
    let all = around::chassis(bmc, &v, &links.system, &links.others).await?;
    let mut out: Vec<Sensor> = Vec::new();
    for (path, chassis) in &all {
        let mut found = of_chassis(bmc, chassis, MAX_SENSORS.saturating_sub(out.len())).await?;
        if all.len() > 1 {
            // GPUs call their sensors all the same.
            for sensor in &mut found {
                if out.iter().any(|s| s.name == sensor.name) {
                    sensor.name = format!("{} {}", json::last_segment(path), sensor.name);
                }
            }
        }
        out.append(&mut found);
    }
    if out.is_empty() {
        return Err(fault::unsupported("no-sensors", "the BMC shows no sensors"));
    }
    Ok(out)
}

async fn of_chassis(bmc: &Bmc<'_>, chassis: &Value, room: usize) -> Result<Vec<Sensor>, Fault> {
    let mut out = Vec::new();
    if let Some(v) = below(bmc, chassis, "Thermal").await? {
        thermal(&v, &mut out);
    }
    if let Some(v) = below(bmc, chassis, "Power").await? {
        power(&v, &mut out);
    }
    let old = !out.is_empty();
    if !old && let Some(link) = json::link(chassis, &["Sensors"]) {
        single(bmc, &link, room, &mut out).await?;
    }
    if let Some(v) = below(bmc, chassis, "ThermalSubsystem").await? {
        leaks(bmc, &v, &mut out).await?;
        if out.is_empty() {
            fans_and_temperatures(bmc, &v, &mut out).await?;
        }
    }
    if !out.iter().any(|s| s.kind == SensorKind::Power)
        && let Some(v) = below(bmc, chassis, "EnvironmentMetrics").await?
    {
        environment(&v, out.is_empty(), &mut out);
    }
    Ok(out)
}

async fn below(bmc: &Bmc<'_>, v: &Value, key: &str) -> Result<Option<Value>, Fault> {
    match json::link(v, &[key]) {
        Some(link) => around::maybe(bmc, &link).await,
        None => Ok(None),
    }
}

/// A number that may be negative (inlets in winter); numbers sent as text are read.
fn number(v: &Value, path: &[&str]) -> Option<f64> {
    let n = match json::at(v, path)? {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    n.filter(|n| n.is_finite())
}

fn is_absent(v: &Value) -> bool {
    json::text(v, &["Status", "State"])
        .is_some_and(|s| ["absent", "disabled"].iter().any(|a| s.eq_ignore_ascii_case(a)))
}

/// One reading of `v`, unless nothing is there to be read.
fn sensor(v: &Value, kind: SensorKind, at: &[&str], unit: &str) -> Option<Sensor> {
    let value = number(v, at);
    let health = json::text(v, &["Status", "Health"]);
    let name = json::text(v, &["Name"])
        .or_else(|| json::text(v, &["FanName"]))
        .or_else(|| json::text(v, &["DeviceName"]))
        .or_else(|| json::text(v, &["Id"]))
        .or_else(|| json::text(v, &["MemberId"]))?;
    (!is_absent(v) && (value.is_some() || health.is_some())).then(|| Sensor {
        name,
        kind,
        value,
        unit: Some(unit.to_string()),
        health,
    })
}

fn thermal(v: &Value, out: &mut Vec<Sensor>) {
    for t in json::list(v, &["Temperatures"]) {
        out.extend(sensor(t, SensorKind::Temperature, &["ReadingCelsius"], "Cel"));
    }
    for f in json::list(v, &["Fans"]) {
        let unit = match json::text(f, &["ReadingUnits"]) {
            Some(u) if u.eq_ignore_ascii_case("percent") => "%".to_string(),
            Some(u) => u,
            None => "RPM".to_string(),
        };
        // The name of the first version: ReadingRPM.
        let at = if f.get("Reading").is_some() { "Reading" } else { "ReadingRPM" };
        out.extend(sensor(f, SensorKind::Fan, &[at], &unit));
    }
}

fn power(v: &Value, out: &mut Vec<Sensor>) {
    for p in json::list(v, &["PowerControl"]) {
        out.extend(sensor(p, SensorKind::Power, &["PowerConsumedWatts"], "W"));
    }
    for p in json::list(v, &["PowerSupplies"]) {
        let at = ["PowerInputWatts", "LastPowerOutputWatts", "PowerOutputWatts"]
            .into_iter()
            .find(|key| number(p, &[key]).is_some())
            .unwrap_or("PowerInputWatts");
        out.extend(sensor(p, SensorKind::Power, &[at], "W"));
    }
    for u in json::list(v, &["Voltages"]) {
        out.extend(sensor(u, SensorKind::Voltage, &["ReadingVolts"], "V"));
    }
}

/// Sensors one by one; where the BMC expands collections it is one request all the same.
async fn single(
    bmc: &Bmc<'_>,
    link: &str,
    room: usize,
    out: &mut Vec<Sensor>,
) -> Result<(), Fault> {
    let mut members = match bmc.members(link, true).await {
        Ok(members) => members,
        Err(f) if super::discover::is_fatal(&f) => return Err(f),
        Err(_) => return Ok(()),
    };
    members.truncate(room);
    let read = if members.iter().all(json::is_expanded) {
        members
    } else {
        let links = members.iter().filter_map(json::link_of).collect();
        around::readable(bmc, bmc.get_all(links).await?).into_iter().map(|(_, v)| v).collect()
    };
    for v in &read {
        let kind = match json::text(v, &["ReadingType"]).unwrap_or_default().as_str() {
            "Power" => SensorKind::Power,
            "Temperature" => SensorKind::Temperature,
            "Rotational" => SensorKind::Fan,
            "Voltage" => SensorKind::Voltage,
            _ => SensorKind::Other,
        };
        let unit = json::text(v, &["ReadingUnits"]);
        let found = sensor(v, kind, &["Reading"], unit.as_deref().unwrap_or_default());
        out.extend(found.map(|s| Sensor { unit, ..s }));
    }
    Ok(())
}

/// Leak detectors (DSP0268 LeakDetection, LeakDetector): below the thermal subsystem, as members of
/// a collection or inline in groups.
async fn leaks(bmc: &Bmc<'_>, thermal: &Value, out: &mut Vec<Sensor>) -> Result<(), Fault> {
    let Some(link) = json::link(thermal, &["LeakDetection"]) else { return Ok(()) };
    let Some(detection) = around::maybe(bmc, &link).await? else { return Ok(()) };
    let mut found = Vec::new();
    if let Some(link) = json::link(&detection, &["LeakDetectors"]) {
        found.extend(around::members(bmc, &link).await?.into_iter().map(|(_, v)| v));
    }
    if found.is_empty() {
        let groups = json::list(&detection, &["LeakDetectorGroups"]);
        found.extend(groups.iter().flat_map(|g| json::list(g, &["Detectors"])).cloned());
    }
    for v in &found {
        let state =
            json::text(v, &["DetectorState"]).or_else(|| json::text(v, &["Status", "Health"]));
        let name = json::text(v, &["Name"]).or_else(|| json::text(v, &["Id"]));
        if is_absent(v) || state.is_none() && name.is_none() {
            continue;
        }
        out.push(Sensor {
            name: name.unwrap_or_else(|| "leak detector".into()),
            kind: SensorKind::Leak,
            value: None,
            unit: None,
            health: state,
        });
    }
    Ok(())
}

async fn fans_and_temperatures(
    bmc: &Bmc<'_>,
    thermal: &Value,
    out: &mut Vec<Sensor>,
) -> Result<(), Fault> {
    if let Some(link) = json::link(thermal, &["Fans"]) {
        for (_, fan) in around::members(bmc, &link).await? {
            let rpm = number(&fan, &["SpeedPercent", "SpeedRPM"]).is_some();
            let (at, unit) = if rpm { ("SpeedRPM", "RPM") } else { ("Reading", "%") };
            out.extend(sensor(&fan, SensorKind::Fan, &["SpeedPercent", at], unit));
        }
    }
    if let Some(link) = json::link(thermal, &["ThermalMetrics"])
        && let Some(v) = around::maybe(bmc, &link).await?
    {
        for t in json::list(&v, &["TemperatureReadingsCelsius"]) {
            out.extend(sensor(t, SensorKind::Temperature, &["Reading"], "Cel"));
        }
    }
    Ok(())
}

/// The excerpt that a chassis gives of itself.
fn environment(v: &Value, all: bool, out: &mut Vec<Sensor>) {
    let mut take = |key: &str, name: &str, kind, unit: &str| {
        if let Some(value) = number(v, &[key, "Reading"]) {
            out.push(Sensor {
                name: name.into(),
                kind,
                value: Some(value),
                unit: Some(unit.into()),
                health: None,
            });
        }
    };
    take("PowerWatts", "power", SensorKind::Power, "W");
    if all {
        take("TemperatureCelsius", "temperature", SensorKind::Temperature, "Cel");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readings_may_be_negative_and_absent_parts_are_left_out() {
        let mut out = Vec::new();
        thermal(
            &json!({"Temperatures": [
                {"Name": "Inlet", "ReadingCelsius": -4, "Status": {"Health": "OK"}},
                {"Name": "GPU9", "ReadingCelsius": null, "Status": {"State": "Absent"}},
                {"Name": "None"}, 7],
              "Fans": [{"Name": "F1", "Reading": 45, "ReadingUnits": "Percent"},
                       {"FanName": "F2", "ReadingRPM": "9000"}]}),
            &mut out,
        );
        let seen: Vec<_> =
            out.iter().map(|s| (s.name.as_str(), s.value, s.unit.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("Inlet", Some(-4.0), Some("Cel")),
                ("F1", Some(45.0), Some("%")),
                ("F2", Some(9000.0), Some("RPM"))
            ]
        );
    }
}
