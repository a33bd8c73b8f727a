//! Parsers of text: what programs print, what people hand over as files.

use super::Seen;
use crate::app::inventory_import;
use crate::config::{self, Source};
use crate::ipmi::parse as ipmitool;
use crate::model::{Channel, FaultClass};
use crate::shell::parse as shell;

pub(super) fn ipmi(data: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(data);
    let gist = ipmitool::gist(&text);
    assert!(gist.chars().count() <= 400 && !gist.chars().any(char::is_control), "{gist:?}");
    let fru = ipmitool::fru(&text);
    let short =
        |s: &Option<String>| s.as_ref().is_none_or(|s| (1..=64).contains(&s.chars().count()));
    let fields = [
        &fru.product_manufacturer,
        &fru.product_name,
        &fru.product_part,
        &fru.product_serial,
        &fru.asset_tag,
        &fru.board_manufacturer,
        &fru.board_product,
        &fru.board_serial,
        &fru.board_part,
        &fru.chassis_serial,
        &fru.chassis_part,
    ];
    assert!(fields.into_iter().all(short), "{fru:?}");
    assert!(fru.serials().iter().all(|s| !s.is_empty()), "{fru:?}");
    let log = ipmitool::sel(&text);
    let of_log = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(log.iter().all(|e| of_log(&e.id) && !e.message.is_empty()), "{log:?}");
    let flags = ipmitool::boot_flags(&text);
    assert!(flags.is_none_or(|f| f.device <= 15), "{flags:?}");
    let raw = ipmitool::raw(&text);
    assert!(raw.as_ref().is_none_or(|r| r.len() <= data.len().div_ceil(2)), "{raw:?}");
    let state = (ipmitool::said(&text), ipmitool::power(&text), ipmitool::guid(&text));
    Box::new((state, gist, fru, log, flags, raw))
}

/// What the host printed, and what it complained of, stand on two sides of a line `--`.
pub(super) fn ssh(data: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(data);
    let (out, complaints) = text.split_once("\n--\n").unwrap_or((&text, ""));
    let facts = shell::facts(out, complaints);
    let hardware = shell::hardware(out, complaints);
    let job = shell::job("burn-in-a-m1-7", out, complaints);
    let faults = [facts.as_ref().err(), hardware.as_ref().err(), job.as_ref().err()];
    for fault in faults.into_iter().flatten() {
        assert_eq!(fault.channel, Channel::Host);
        assert!(
            matches!(fault.class, FaultClass::Transient | FaultClass::Precondition),
            "{fault:?}"
        );
        let evidence = fault.evidence.as_deref().unwrap_or_default();
        assert!(evidence.chars().count() <= 2_000, "{fault:?}");
    }
    if let Ok(facts) = &facts {
        let whole = out.lines().any(|l| l.starts_with("end="));
        assert!(whole, "an answer cut short is no answer: {facts:?}");
    }
    if let Ok(found) = &hardware {
        assert!(out.lines().any(|l| l.starts_with("end=")), "cut short: {found:?}");
        let given = |t: &Option<String>| t.as_ref().is_none_or(|t| !t.trim().is_empty());
        assert!(
            found.disks.iter().all(|d| given(&d.serial) && !d.attached.is_empty()),
            "{found:?}"
        );
        assert!(found.nics.iter().all(|n| given(&n.mac)), "{found:?}");
    }
    Box::new((facts, hardware, job, shell::started(out)))
}

pub(super) fn delivery_notes(data: &[u8]) -> Seen {
    let note = inventory_import::read(data);
    let Ok(note) = note else { return Box::new(note.err()) };
    let lines = data.iter().filter(|b| **b == b'\n').count() + 1;
    let in_file = |line: u64| line >= 1 && usize::try_from(line).is_ok_and(|n| n <= lines);
    assert!(note.bad.iter().all(|b| in_file(b.line) && !b.why.is_empty()), "{:?}", note.bad);
    let mut seen = std::collections::BTreeSet::new();
    for (line, machine) in &note.good {
        assert!(in_file(*line), "line {line} of {lines}");
        assert!(!machine.serial.is_empty() && machine.bmc_mac.len() == 17, "line {line}");
        assert!(seen.insert(machine.serial.clone()), "the serial of line {line} is there twice");
    }
    let good: Vec<_> =
        note.good.iter().map(|(line, m)| (*line, m.serial.clone(), m.bmc_mac.clone())).collect();
    Box::new((good, note.bad, note.extra))
}

pub(super) fn quirks(data: &[u8]) -> Seen {
    let source = Source::new("bmc-quirks.toml", String::from_utf8_lossy(data));
    let (table, found) = config::quirks::parse(&source);
    // What a person is shown points into the text.
    let shown = config::render(&found);
    let names: Vec<_> = table.rules.into_iter().map(|r| r.name).collect();
    Box::new((names, shown))
}
