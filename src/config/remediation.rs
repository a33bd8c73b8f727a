//! `remediation.toml`: what is tried before a person is called.

use super::book::{Book, Place};
use super::diagnostic::Diagnostic;
use super::table::Table;
use super::{Source, shipped};
use crate::model::remedy::Remedy;
use crate::model::time::Span;
use crate::model::{Channel, FaultClass};
use crate::steps::remediation::{Ladder, OutageRule, Relogin, Remediation, Rung};

/// Reads one file.
pub fn parse(source: &Source) -> (Remediation, Vec<Diagnostic>) {
    let book = Book::new(vec![source]);
    let found = read(&book, 0);
    (found, book.finish())
}

/// The rules that ship with Farrier.
pub fn shipped() -> Remediation {
    parse(&shipped::remediation()).0
}

pub(super) fn read(book: &Book<'_>, file: usize) -> Remediation {
    book.read(file, remediation)
}

fn remediation(mut top: Table<'_, '_>) -> Remediation {
    top.schema();
    let default = Remediation::default();
    let outage = top.table("outage").map_or(default.outage, outage);
    let relogin = top.table("relogin").map_or(default.relogin, relogin);
    let mut interval = default.interval;
    if let Some(mut t) = top.table("resets") {
        if let Some((span, at)) = t.span("interval") {
            // A BMC reboots in up to 5 minutes and is half up for some more.
            at_least(&t, "interval", span, at, Span(600_000));
            interval = span;
        }
        t.done();
    }
    let mut ladders: Vec<Ladder> = Vec::new();
    for table in top.tables("ladder") {
        let at = table.at;
        let Some(ladder) = ladder(table) else { continue };
        let hidden = ladders.iter().any(|l| {
            l.class == ladder.class
                && l.channel == ladder.channel
                && (l.codes.is_empty() || ladder.codes.iter().any(|c| l.codes.contains(c)))
        });
        if hidden {
            top.error(at, "an earlier ladder has these faults already")
                .hint("the first that fits counts: join the two, or give them different `codes`");
        }
        ladders.push(ladder);
    }
    top.done();
    Remediation { outage, relogin, interval, ladders }
}

fn at_least(t: &Table<'_, '_>, key: &str, span: Span, at: Place, least: Span) {
    if span.0 < least.0 {
        t.error(at, format!("`{key}` must be at least {least}, not {span}"));
    }
}

fn outage(mut t: Table<'_, '_>) -> OutageRule {
    let mut rule = OutageRule::default();
    let number = |t: &mut Table<'_, '_>, key, range, out: &mut u32| {
        if let Some(n) = t.integer(key, range) {
            *out = u32::try_from(n).unwrap_or(*out);
        }
    };
    number(&mut t, "machines", 2..1_000_001, &mut rule.machines);
    number(&mut t, "share", 1..101, &mut rule.share);
    number(&mut t, "site_share", 1..101, &mut rule.site_share);
    for (key, out) in
        [("window", &mut rule.window), ("grace", &mut rule.grace), ("spread", &mut rule.spread)]
    {
        if let Some((span, _)) = t.span(key) {
            *out = span;
        }
    }
    t.done();
    rule
}

fn relogin(mut t: Table<'_, '_>) -> Relogin {
    let mut out = Relogin::default();
    // Three tries lock accounts: one more after the first is all there is.
    if let Some(n) = t.integer("limit", 0..2) {
        out.limit = u16::try_from(n).unwrap_or(out.limit);
    }
    if let Some((span, at)) = t.span("pause") {
        at_least(&t, "pause", span, at, Span(300_000));
        out.pause = span;
    }
    t.done();
    out
}

/// What passes by itself or by a reset; the rest is for people, whatever is tried.
const CLASSES: [(&str, FaultClass); 3] = [
    ("transient", FaultClass::Transient),
    ("throttled", FaultClass::Throttled),
    ("outcome-unknown", FaultClass::OutcomeUnknown),
];

fn ladder(mut t: Table<'_, '_>) -> Option<Ladder> {
    let class = t.need_choice("class", &CLASSES);
    let channel = t.need_choice("channel", &[("bmc", Channel::Bmc), ("host", Channel::Host)]);
    let codes: Vec<String> = t.texts("codes").iter().map(|c| c.value.to_string()).collect();
    let tables = t.tables("rung");
    if tables.is_empty() {
        t.missing("rung");
    }
    let mut rungs: Vec<Rung> = Vec::new();
    for table in tables {
        let at = table.at;
        let Some(rung) = rung(table, channel) else { continue };
        if rungs.last().is_some_and(|before| before.after >= rung.after) {
            t.error(at, "`after` must grow from rung to rung");
        }
        rungs.push(rung);
    }
    t.done();
    Some(Ladder { class: class?, channel: channel?, codes, rungs })
}

fn rung(mut t: Table<'_, '_>, channel: Option<Channel>) -> Option<Rung> {
    let remedy = t
        .need_choice("do", &[("bmc-reset", Remedy::BmcReset), ("power-cycle", Remedy::PowerCycle)]);
    match (remedy, channel) {
        (Some(Remedy::PowerCycle), Some(Channel::Bmc)) => {
            t.error(t.at, "a power cycle does not mend a BMC").hint("use `do = \"bmc-reset\"`");
        }
        (Some(Remedy::BmcReset), Some(Channel::Host)) => {
            t.error(t.at, "a BMC reset does not mend a host").hint("use `do = \"power-cycle\"`");
        }
        _ => {}
    }
    // One failure may be chance; two may not.
    let after = t.integer("after", 2..1_000);
    if t.lacks("after") {
        t.missing("after");
    }
    let limit = t.integer("limit", 1..11).unwrap_or(1);
    let window = t.span("window").map_or(Span(86_400_000), |(span, _)| span);
    t.done();
    Some(Rung {
        remedy: remedy?,
        after: u32::try_from(after?).ok()?,
        limit: u32::try_from(limit).ok()?,
        window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_has_no_mistake_and_says_what_the_defaults_are() {
        let (read, found) = parse(&shipped::remediation());
        assert_eq!(super::super::render(&found), "");
        let default = Remediation { ladders: read.ladders.clone(), ..Remediation::default() };
        assert_eq!(read, default);
        assert_eq!(read.ladders.len(), 3);
    }

    #[test]
    fn every_mistake_is_found_at_its_place() {
        let text = "schema = 1\n[relogin]\nlimit = 3\npause = \"30s\"\n[resets]\ninterval = \"1m\"\n\
                    every = 1\n[[ladder]]\nclass = \"auth\"\nchannel = \"bmc\"\n[[ladder.rung]]\n\
                    do = \"power-cycle\"\nafter = 1\n[[ladder]]\nclass = \"transient\"\n\
                    channel = \"host\"\n";
        let (_, found) = parse(&Source::new("r.toml", text));
        let report = super::super::render(&found);
        for wanted in [
            "`limit` in `[relogin]` must be from 0 to 1",
            "`pause` must be at least 5m00s, not 30s",
            "`interval` must be at least 10m00s, not 60s",
            "unknown key `every`",
            "unknown class `auth`",
            "a power cycle does not mend a BMC",
            "`rung` is missing",
        ] {
            assert!(report.contains(wanted), "{wanted} is not in\n{report}");
        }
    }
}
