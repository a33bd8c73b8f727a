//! `bmc-quirks.toml`: what BMCs do otherwise than the standard. The shipped table is inside the
//! binary; a site's own comes before it, rule by rule.

use super::book::{Book, Place};
use super::diagnostic::Diagnostic;
use super::names::unique;
use super::table::{Table, Text};
use super::{Source, shipped};
use crate::model::action::BootTarget;
use crate::model::quirks::{
    AcAction, AcCycle, ActionOn, BootAt, BootForm, IfMatch, Ladder, MediaBody, MediaField,
    MediaFirst, PushForm, PushTarget, QuirkSet, QuirkTable, ResetOf, Rule, UpdateWay, When, Work,
    WorkOn, numbers,
};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeValue;

/// Reads one file.
pub fn parse(source: &Source) -> (QuirkTable, Vec<Diagnostic>) {
    let book = Book::new(vec![source]);
    let table = read(&book, 0);
    (table, book.finish())
}

/// The table that ships with Farrier.
pub fn shipped() -> QuirkTable {
    parse(&shipped::quirks()).0
}

/// The site's rules, then the shipped ones that they do not replace by their name.
pub fn over(site: QuirkTable, shipped: QuirkTable) -> QuirkTable {
    let mut rules = site.rules;
    let own = rules.len();
    for rule in shipped.rules {
        if !rules.iter().take(own).any(|r| r.name == rule.name) {
            rules.push(rule);
        }
    }
    QuirkTable { rules }
}

pub(super) fn read(book: &Book<'_>, file: usize) -> QuirkTable {
    book.read(file, |mut top| {
        top.schema();
        let mut seen: BTreeMap<String, Place> = BTreeMap::new();
        let tables = top.tables("quirk");
        let rules = tables.into_iter().filter_map(|t| rule(t, &mut seen)).collect();
        top.done();
        QuirkTable { rules }
    })
}

fn rule(mut t: Table<'_, '_>, seen: &mut BTreeMap<String, Place>) -> Option<Rule> {
    let name = t.need_name("name");
    if let Some(name) = name {
        unique(&t, seen, name, "quirk");
    }
    let found = t.table("match").map(when);
    if found.is_none() && t.lacks("match") {
        t.error(t.at, "`[quirk.match]` is missing")
            .hint("say which BMCs it is for: `vendor`, `product`, `model`, `bmc` or firmware");
    }
    let mut set = QuirkSet::default();
    each(&mut t, "boot", |t| boot(t, &mut set));
    each(&mut t, "reset", |t| reset(t, &mut set));
    each(&mut t, "media", |t| media(t, &mut set));
    each(&mut t, "session", |t| session(t, &mut set));
    each(&mut t, "etag", |t| etag(t, &mut set));
    each(&mut t, "update", |t| update(t, &mut set));
    each(&mut t, "account", |t| account(t, &mut set));
    each(&mut t, "bmc", |t| bmc(t, &mut set));
    each(&mut t, "ac_cycle", |t| set.ac_cycle = ac_cycle(t));
    t.done();
    // A rule whose regexes can't be read would be for every BMC there is.
    Some(Rule { name: name?.value.to_string(), when: found??, set })
}

/// Reads a sub-table where it is there.
fn each(t: &mut Table<'_, '_>, key: &'static str, mut read: impl FnMut(&mut Table<'_, '_>)) {
    if let Some(mut below) = t.table(key) {
        read(&mut below);
        below.done();
    }
}

/// `None`: something in it can't be read.
fn when(mut t: Table<'_, '_>) -> Option<When> {
    let mut whole = true;
    let mut list = |t: &mut Table<'_, '_>, key| -> Vec<Regex> {
        let texts = t.texts(key);
        whole &= t.lacks(key) || !texts.is_empty();
        let mut out = Vec::new();
        for text in texts {
            match pattern(t, key, text) {
                Some(regex) => out.push(regex),
                None => whole = false,
            }
        }
        out
    };
    let mut out = When {
        vendor: list(&mut t, "vendor"),
        product: list(&mut t, "product"),
        model: list(&mut t, "model"),
        bmc: list(&mut t, "bmc"),
        ..When::default()
    };
    let from = version(&mut t, "firmware_from", &mut whole);
    let before = version(&mut t, "firmware_before", &mut whole);
    if let (Some(from), Some(before)) = (from, before)
        && numbers(from.value).cmp(&numbers(before.value)) != Ordering::Less
    {
        t.error(before.at, "`firmware_before` must be above `firmware_from`");
    }
    out.firmware_from = from.map(|t| t.value.to_string());
    out.firmware_before = before.map(|t| t.value.to_string());
    let says = !(out.vendor.is_empty()
        && out.product.is_empty()
        && out.model.is_empty()
        && out.bmc.is_empty()
        && out.firmware_from.is_none()
        && out.firmware_before.is_none());
    if whole && !says {
        t.error(t.at, "this rule is for every BMC")
            .hint("give `vendor`, `product`, `model`, `bmc`, `firmware_from` or `firmware_before`");
        whole = false;
    }
    t.done();
    whole.then_some(out)
}

fn version<'b>(t: &mut Table<'b, '_>, key: &'static str, whole: &mut bool) -> Option<Text<'b>> {
    let text = t.text(key);
    *whole &= t.lacks(key) || text.is_some();
    let text = text?;
    if numbers(text.value).is_empty() {
        t.error(text.at, format!("`{key}` has no number in it"));
        *whole = false;
    }
    Some(text)
}

/// A regex that starts with `^`; case does not count, as BMCs of one vendor differ in it.
fn pattern(t: &Table<'_, '_>, key: &str, text: Text<'_>) -> Option<Regex> {
    if !text.value.starts_with('^') {
        t.error(text.at, format!("`{key}` must start with `^`"))
            .hint("without it the regex also matches in the middle of other names");
        return None;
    }
    match RegexBuilder::new(text.value).case_insensitive(true).size_limit(1 << 20).build() {
        Ok(regex) => Some(regex),
        Err(e) => {
            let shown = e.to_string();
            let why = shown.lines().rev().find_map(|l| l.strip_prefix("error: "));
            let why = why.unwrap_or("too long").to_string();
            t.error(text.at, format!("`{key}` is not a regex: {why}"));
            None
        }
    }
}

fn boot(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    set.boot_form = t.choice(
        "form",
        &[
            ("minimal", BootForm::Minimal),
            ("triple", BootForm::Triple),
            ("no-mode", BootForm::NoMode),
        ],
    );
    set.boot_at = t.choice("at", &[("found", BootAt::Found), ("system", BootAt::System)]);
    set.boot_continuous = t.boolean("continuous");
    for (key, target) in [
        ("pxe", BootTarget::Pxe),
        ("uefi_http", BootTarget::UefiHttp),
        ("cd", BootTarget::Cd),
        ("disk", BootTarget::Disk),
    ] {
        let names = owned(t.texts(key));
        if !names.is_empty() {
            set.boot_names.insert(target, names);
        }
    }
}

fn owned(texts: Vec<Text<'_>>) -> Vec<String> {
    texts.iter().map(|t| t.value.to_string()).collect()
}

/// ResetType of DSP0268 Resource.
const RESET_TYPES: [&str; 13] = [
    "On",
    "ForceOff",
    "GracefulShutdown",
    "GracefulRestart",
    "ForceRestart",
    "Nmi",
    "ForceOn",
    "PushPowerButton",
    "PowerCycle",
    "Suspend",
    "Pause",
    "Resume",
    "FullPowerCycle",
];

fn reset(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    for (key, of) in [
        ("on", ResetOf::On),
        ("force_off", ResetOf::ForceOff),
        ("graceful_shutdown", ResetOf::GracefulShutdown),
        ("restart", ResetOf::Restart),
        ("bmc", ResetOf::Bmc),
    ] {
        if let Some(ladder) = ladder(t, key) {
            set.resets.insert(of, ladder);
        }
    }
    set.conflict_retry_s = seconds(t, "conflict_retry");
}

/// A list of ways, each a list of words.
fn lists<'b>(t: &mut Table<'b, '_>, key: &'static str) -> Option<Vec<(Vec<Text<'b>>, Place)>> {
    let value = t.take(key)?;
    let at = t.value_at(value);
    let wrong = |at| {
        t.error(at, format!("`{key}` must be a list of lists of words"))
            .hint(format!("as `{key} = [[\"A\"], [\"B\", \"C\"]]`: first A, else B and then C"));
    };
    let DeValue::Array(ways) = value.get_ref() else {
        wrong(at);
        return None;
    };
    let mut out = Vec::new();
    for way in ways {
        let place = t.value_at(way);
        match way.get_ref() {
            DeValue::Array(words) => {
                out.push((words.iter().filter_map(|w| t.as_text(key, w)).collect(), place));
            }
            _ => wrong(place),
        }
    }
    Some(out)
}

fn ladder(t: &mut Table<'_, '_>, key: &'static str) -> Option<Ladder> {
    let mut out = Ladder::new();
    for (words, at) in lists(t, key)? {
        if words.is_empty() {
            t.error(at, format!("a way of `{key}` names no reset type"));
            continue;
        }
        let types =
            words.iter().filter_map(|w| t.pick("reset type", *w, &RESET_TYPES.map(|r| (r, r))));
        let types: Vec<String> = types.map(str::to_string).collect();
        if types.len() == words.len() {
            out.push(types);
        }
    }
    (!out.is_empty()).then_some(out)
}

fn media(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    set.media_first =
        t.choice("first", &[("managers", MediaFirst::Managers), ("systems", MediaFirst::Systems)]);
    let slots = owned(t.texts("slots"));
    set.media_slots = (!slots.is_empty()).then_some(slots);
    let protocols: Vec<String> =
        t.texts("protocols").iter().map(|p| p.value.to_ascii_lowercase()).collect();
    set.media_protocols = (!protocols.is_empty()).then_some(protocols);
    set.media_settle_s = seconds(t, "settle");
    let fields = [
        ("Image", None),
        ("Inserted", Some(MediaField::Inserted)),
        ("WriteProtected", Some(MediaField::WriteProtected)),
        ("TransferProtocolType", Some(MediaField::TransferProtocolType)),
        ("TransferMethod", Some(MediaField::TransferMethod)),
        ("Credentials", Some(MediaField::Credentials)),
    ];
    let Some(ways) = lists(t, "bodies") else { return };
    let mut bodies = Vec::new();
    for (words, at) in ways {
        let patch = words.first().is_some_and(|w| w.value == "PATCH");
        let words = words.get(usize::from(patch)..).unwrap_or_default();
        let picked: Vec<_> = words.iter().filter_map(|w| t.pick("property", *w, &fields)).collect();
        if picked.len() < words.len() {
            continue;
        }
        if !words.iter().any(|w| w.value == "Image") {
            t.error(at, "a body without `Image` inserts nothing");
            continue;
        }
        bodies.push(MediaBody { patch, fields: picked.into_iter().flatten().collect() });
    }
    set.media_bodies = (!bodies.is_empty()).then_some(bodies);
}

fn ac_cycle(t: &mut Table<'_, '_>) -> Option<AcCycle> {
    #[derive(Clone, Copy)]
    enum On {
        System,
        Manager,
        Chassis,
        Bios,
    }
    let on = t.need_choice(
        "on",
        &[
            ("system", On::System),
            ("manager", On::Manager),
            ("chassis", On::Chassis),
            ("bios", On::Bios),
        ],
    );
    if let Some(On::Bios) = on {
        let (attribute, value) = (t.need_text("attribute"), t.need_text("value"));
        return Some(AcCycle::Setting {
            attribute: attribute?.value.to_string(),
            value: value?.value.to_string(),
        });
    }
    let chassis = t.text("chassis");
    let action = t.need_text("action");
    let path = t.text("path");
    let reset_type = t.need_text("reset_type");
    if let Some(path) = path
        && !path.value.starts_with('/')
        && !path.value.starts_with("{system}/")
    {
        t.error(path.at, "`path` must start with `/` or `{system}/`");
    }
    if let (Some(On::Chassis), None) = (on, chassis)
        && t.lacks("chassis")
    {
        t.missing("chassis");
    }
    let on = match on? {
        On::System => ActionOn::System,
        On::Manager => ActionOn::Manager,
        On::Chassis => ActionOn::Chassis(chassis?.value.to_string()),
        On::Bios => return None,
    };
    let action = action?.value.trim_start_matches('#');
    Some(AcCycle::Action(AcAction {
        on,
        action: format!("#{action}"),
        path: path.map(|p| p.value.to_string()),
        reset_type: reset_type?.value.to_string(),
    }))
}

fn session(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    set.session_timeout_s = seconds(t, "timeout");
    set.lockout_threshold = number(t, "lockout_threshold", 1..101);
    set.lockout_s = seconds(t, "lockout");
    set.session_most = number(t, "most", 1..1001);
}

fn etag(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    let patch = [("ladder", IfMatch::Ladder), ("never", IfMatch::Never), ("any", IfMatch::Any)];
    set.if_match = t.choice("patch", &patch);
    set.if_match_action = t.choice("action", &[("never", IfMatch::Never), ("any", IfMatch::Any)]);
}

fn update(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    let ways = [
        ("found", UpdateWay::Found),
        ("pull", UpdateWay::Pull),
        ("push", UpdateWay::Push),
        ("push-first", UpdateWay::PushFirst),
    ];
    set.update_way = t.choice("way", &ways);
    set.push = t.choice(
        "push",
        &[
            ("found", PushForm::Found),
            ("multipart", PushForm::Multipart),
            ("raw", PushForm::Raw),
            ("none", PushForm::None),
        ],
    );
    set.push_oem = t.boolean("oem");
    set.push_busy_flag = t.boolean("busy_flag");
    if let Some(target) = t.text("simple_update") {
        if target.value.starts_with('/') {
            set.update_target = Some(target.value.to_string());
        } else {
            t.error(target.at, "`simple_update` must be a path on the BMC: it starts with `/`");
        }
    }
    let mut targets = Vec::new();
    for mut target in t.tables("target") {
        let member = target.need_text("member").and_then(|m| pattern(&target, "member", m));
        // Empty: no target is named.
        let none = target.boolean("none") == Some(true);
        let uri = target.text("uri");
        let oem = target.take("oem").and_then(|v| as_json(&target, v));
        if none == uri.is_some() {
            target.error(target.at, "a target has `uri`, or `none = true`");
        }
        target.done();
        let uri = uri.map(|u| u.value.to_string()).unwrap_or_default();
        targets.extend(member.map(|member| PushTarget { member, target: uri, oem }));
    }
    let works: Vec<Work> = t.tables("work").into_iter().filter_map(work).collect();
    set.works = (!works.is_empty()).then_some(works);
    set.push_targets = (!targets.is_empty()).then_some(targets);
}

fn work(mut t: Table<'_, '_>) -> Option<Work> {
    #[derive(Clone, Copy, PartialEq)]
    enum On {
        Service,
        Chassis,
    }
    let on = t.need_choice("on", &[("service", On::Service), ("chassis", On::Chassis)]);
    let member = t.text("member");
    let property = t.need_text("property");
    let mut words = |key| owned(t.texts(key));
    let (idle, done, failed) = (words("idle"), words("done"), words("failed"));
    if let Some(property) = property
        && !property.value.starts_with('/')
    {
        t.error(property.at, "`property` must start with `/`");
    }
    if idle.is_empty() && done.is_empty() {
        t.error(t.at, "no word says that nothing goes on").hint("name them in `idle` or `done`");
    }
    let on = match (on, member) {
        (Some(On::Service), None) => Some(WorkOn::Service),
        (Some(On::Chassis), Some(member)) => pattern(&t, "member", member).map(WorkOn::Chassis),
        (Some(_), _) => {
            t.error(t.at, "`member` says which chassis, and is for `on = \"chassis\"` alone");
            None
        }
        (None, _) => None,
    };
    t.done();
    Some(Work { on: on?, property: property?.value.to_string(), idle, done, failed })
}

/// A table as the JSON that is sent.
fn as_json<'a>(t: &Table<'_, 'a>, value: &Spanned<DeValue<'a>>) -> Option<Value> {
    Some(match value.get_ref() {
        DeValue::Table(entries) => {
            let pairs = entries.iter();
            let pairs = pairs.map(|(k, v)| Some((k.get_ref().to_string(), as_json(t, v)?)));
            Value::Object(pairs.collect::<Option<_>>()?)
        }
        DeValue::Boolean(yes) => Value::from(*yes),
        DeValue::String(text) => Value::from(text.to_string()),
        _ => {
            t.error(t.value_at(value), "only tables, words, `true` and `false` are sent");
            return None;
        }
    })
}

fn account(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    set.password_min = number(t, "password_min", 1..257);
    set.password_max = number(t, "password_max", 1..257);
    set.user_max = number(t, "user_max", 1..257);
    if let (Some(min), Some(max)) = (set.password_min, set.password_max)
        && min > max
    {
        t.error(t.at, "`password_min` is above `password_max`");
    }
}

fn bmc(t: &mut Table<'_, '_>, set: &mut QuirkSet) {
    set.bmc_settle_s = seconds(t, "settle");
    set.expand = t.boolean("expand");
    set.service_tag = t.boolean("service_tag");
}

fn number(t: &mut Table<'_, '_>, key: &'static str, range: std::ops::Range<u64>) -> Option<u32> {
    t.integer(key, range).and_then(|n| u32::try_from(n).ok())
}

fn seconds(t: &mut Table<'_, '_>, key: &'static str) -> Option<u32> {
    let (span, at) = t.span(key)?;
    if span.0 > 86_400_000 {
        t.error(at, format!("`{key}` must be a day at most"));
        return None;
    }
    u32::try_from(span.0.div_ceil(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_has_no_mistake() {
        let (table, found) = parse(&shipped::quirks());
        assert_eq!(super::super::render(&found), "");
        assert!(table.rules.len() > 10, "{} rules", table.rules.len());
    }

    #[test]
    fn every_mistake_is_found_at_its_place() {
        let text = "schema = 1\n[[quirk]]\nname = \"a\"\n[quirk.match]\nvendor = \"Dell\"\n\
                    model = \"^(\"\n[quirk.boot]\nform = \"tripple\"\n[quirk.reset]\n\
                    restart = [[\"ForceRestat\"], []]\non = \"On\"\n[quirk.media]\n\
                    bodies = [[\"Inserted\"]]\n[quirk.ac_cycle]\non = \"chassis\"\n\
                    [quirk.session]\ntimeout = 30\nlimits = 1\nmost = 0\n\
                    [quirk.account]\nuser_max = \"16\"\n\
                    [[quirk.update.target]]\nmember = \"^B\"\nuri = \"/b\"\noem = { Keep = 1 }\n\
                    [[quirk.update.work]]\non = \"service\"\nmember = \"^x\"\nproperty = \"State\"\n\
                    [[quirk]]\nname = \"a\"\n[quirk.match]\n";
        let (table, found) = parse(&Source::new("q.toml", text));
        let report = super::super::render(&found);
        for wanted in [
            "`vendor` must start with `^`",
            "`model` is not a regex: unclosed group",
            "unknown form `tripple`",
            "unknown reset type `ForceRestat`",
            "did you mean `ForceRestart`?",
            "names no reset type",
            "`on` must be a list of lists of words",
            "a body without `Image` inserts nothing",
            "`chassis` is missing",
            "`action` is missing",
            "must be a duration in quotes",
            "unknown key `limits`",
            "`most` in `quirk.session` must be from 1 to 1000",
            "`user_max` in `quirk.account` must be an integer",
            "only tables, words, `true` and `false` are sent",
            "`property` must start with `/`",
            "no word says that nothing goes on",
            "`member` says which chassis",
            "this rule is for every BMC",
        ] {
            assert!(report.contains(wanted), "{wanted} is not in\n{report}");
        }
        assert!(table.rules.is_empty(), "a rule without its conditions is no rule");
    }

    #[test]
    fn a_sites_rules_come_first_and_replace_their_namesakes() {
        let named = |name: &str| Rule { name: name.into(), ..Rule::default() };
        let table = |names: &[&str]| QuirkTable { rules: names.iter().map(|n| named(n)).collect() };
        let both = over(table(&["x", "dell"]), table(&["hpe", "dell", "ami"]));
        let names: Vec<&str> = both.rules.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["x", "dell", "hpe", "ami"]);
    }
}
