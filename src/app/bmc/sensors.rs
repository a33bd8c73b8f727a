//! `farrier bmc sensors`

use super::One;
use crate::cli::Io;
use crate::cli::out::{Cell, Failure, Paint};
use crate::model::hardware::SensorKind;
use crate::port::capability::BmcSensors;

pub(super) async fn run(one: &One<'_>, io: &mut Io<'_>) -> Result<(), Failure> {
    let mut all = match one.edge.sensors(&one.target).await {
        Ok(all) => all,
        Err(fault) => return Err(one.failed(fault).await),
    };
    if io.json {
        return io.document(&all);
    }
    all.sort_by_key(|s| s.kind);
    let rows: Vec<Vec<Cell>> = all
        .iter()
        .map(|s| {
            let reading = match (s.value, s.unit.as_deref()) {
                (Some(v), Some(unit)) => format!("{v} {unit}"),
                (Some(v), None) => v.to_string(),
                (None, _) => "-".to_string(),
            };
            let health = s.health.as_deref().unwrap_or("-");
            let paint = match health {
                "Critical" => Paint::Red,
                "Warning" => Paint::Yellow,
                _ => Paint::None,
            };
            vec![
                Cell::new(word(s.kind)),
                Cell::new(&s.name),
                Cell::new(reading),
                Cell::new(health).painted(paint),
            ]
        })
        .collect();
    io.table(&["KIND", "SENSOR", "READING", "HEALTH"], &rows)
}

pub(super) fn word(kind: SensorKind) -> &'static str {
    match kind {
        SensorKind::Power => "power",
        SensorKind::Temperature => "temperature",
        SensorKind::Fan => "fan",
        SensorKind::Voltage => "voltage",
        SensorKind::Leak => "leak",
        SensorKind::Other => "other",
    }
}
