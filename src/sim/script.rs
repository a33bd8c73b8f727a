//! A run as a script that a person can read: what people did and what went wrong, one line each,
//! and nothing drawn. It is recorded from a run that broke a rule, shrunk ([`super::shrink`]) and
//! played again.

use super::faults::{FaultKind, Injected};
use super::invariants::Violation;
use super::profile::Profile;
use super::run::Spec;
use super::scenario::{DAY, Deed, HOUR, MINUTE};
use crate::model::{EngineTime, MachineId};
use std::fmt;
use std::sync::Arc;

/// One line: when, and what.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub at: EngineTime,
    pub what: Told,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Deed(Deed),
    /// Strikes at the first chance at or after its time; `machine`: whose call, flash, boot, job;
    /// `None`: the daemon and its store. `note`: the command before which it dies.
    Fault {
        machine: Option<MachineId>,
        kind: FaultKind,
        note: Option<Box<str>>,
    },
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    pub profile: String,
    pub machines: u32,
    pub days: u64,
    pub seed: u64,
    pub sick_per_million: u32,
    pub copies_per_million: u32,
    pub boards_per_million: u32,
    pub breaker: (u32, u64),
    /// The rule that it broke when it was recorded, on which machine and when.
    pub rule: String,
    pub machine: MachineId,
    pub broke_at: EngineTime,
    /// End of the safety phase.
    pub until: EngineTime,
    /// 0: nothing needs to arrive.
    pub liveness_days: u64,
    pub lines: Vec<Line>,
}

impl Script {
    /// What happened in a run that broke a rule.
    pub fn record<'a>(
        spec: &Spec,
        broke: &Violation,
        until: EngineTime,
        deeds: &[(EngineTime, Deed)],
        site: &[Injected],
        machines: impl IntoIterator<Item = (MachineId, &'a [Injected])>,
    ) -> Script {
        let fault = |machine: Option<MachineId>, log: &[Injected]| -> Vec<Line> {
            let thrown = log.iter().filter(|i| {
                // What struck the store is in its own log, what people did in theirs.
                !i.kind.is_deed() && (i.kind < FaultKind::CommitFails || machine.is_none())
            });
            thrown
                .map(|i| {
                    let what = Told::Fault { machine, kind: i.kind, note: i.note.clone() };
                    Line { at: i.at, what }
                })
                .collect()
        };
        let mut lines: Vec<Line> = deeds
            .iter()
            .filter(|(at, _)| *at < until)
            .map(|(at, deed)| Line { at: *at, what: Told::Deed(deed.clone()) })
            .collect();
        lines.extend(fault(None, site));
        for (id, log) in machines {
            lines.extend(fault(Some(id), log));
        }
        lines.sort_by_key(|l| l.at);
        Script {
            profile: spec.profile.name.clone(),
            machines: spec.machines,
            days: spec.days,
            seed: spec.seed,
            sick_per_million: spec.profile.sick_per_million,
            copies_per_million: spec.profile.copies_per_million,
            boards_per_million: spec.profile.boards_per_million,
            breaker: spec.profile.breaker,
            rule: broke.rule.to_string(),
            machine: broke.machine,
            broke_at: broke.at,
            until,
            liveness_days: spec.liveness_days,
            lines,
        }
    }

    /// The run that plays it.
    pub fn spec(&self) -> Spec {
        let profile = Profile {
            sick_per_million: self.sick_per_million,
            copies_per_million: self.copies_per_million,
            boards_per_million: self.boards_per_million,
            breaker: self.breaker,
            ..Profile::none(&self.profile)
        };
        Spec {
            machines: self.machines,
            days: self.days,
            seed: self.seed,
            profile,
            liveness_days: self.liveness_days,
            stop_after: 100,
            script: Some(Arc::new(self.clone())),
        }
    }

    /// What people and the building do.
    pub fn deeds(&self) -> Vec<(EngineTime, Deed)> {
        let deed = |l: &Line| match &l.what {
            Told::Deed(deed) => Some((l.at, deed.clone())),
            Told::Fault { .. } => None,
        };
        self.lines.iter().filter_map(deed).collect()
    }

    /// What the dice of a machine (`None`: of the site) throw.
    pub fn faults(&self, of: Option<MachineId>) -> Vec<Injected> {
        let fault = |l: &Line| match &l.what {
            Told::Fault { machine, kind, note } if *machine == of => {
                Some(Injected { at: l.at, kind: *kind, note: note.clone() })
            }
            _ => None,
        };
        self.lines.iter().filter_map(fault).collect()
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script {
            profile: String::new(),
            machines: 0,
            days: 0,
            seed: 0,
            sick_per_million: 0,
            copies_per_million: 0,
            boards_per_million: 0,
            breaker: (0, 0),
            rule: String::new(),
            machine: MachineId(0),
            broke_at: EngineTime::ZERO,
            until: EngineTime::ZERO,
            liveness_days: 0,
            lines: Vec::new(),
        };
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = match line.split_once(char::is_whitespace) {
                Some(("world", rest)) => script.read_world(rest),
                Some(("broke", rest)) => script.read_broke(rest),
                Some((at, rest)) => script.read_line(at, rest.trim()),
                None => None,
            };
            read.ok_or_else(|| format!("line {}: not understood: {line}", n + 1))?;
        }
        (script.machines > 0).then_some(script).ok_or_else(|| "there is no `world` line".into())
    }

    fn read_world(&mut self, rest: &str) -> Option<()> {
        let mut words = rest.split_whitespace();
        self.profile = words.next()?.to_string();
        while let Some(key) = words.next() {
            let value = words.next()?;
            match key {
                "machines" => self.machines = value.parse().ok()?,
                "days" => self.days = value.parse().ok()?,
                "seed" => self.seed = value.parse().ok()?,
                "sick" => self.sick_per_million = value.parse().ok()?,
                "copies" => self.copies_per_million = value.parse().ok()?,
                "boards" => self.boards_per_million = value.parse().ok()?,
                "until" => self.until = parse_time(value)?,
                "liveness" => self.liveness_days = value.parse().ok()?,
                "breaker" => {
                    let (n, ms) = value.split_once('/')?;
                    self.breaker = (n.parse().ok()?, ms.parse().ok()?);
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn read_broke(&mut self, rest: &str) -> Option<()> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [rule, "on", machine, "at", at] = words[..] else { return None };
        self.rule = rule.to_string();
        self.machine = parse_machine(machine)?;
        self.broke_at = parse_time(at)?;
        Some(())
    }

    fn read_line(&mut self, at: &str, rest: &str) -> Option<()> {
        let at = parse_time(at)?;
        let (who, what) = rest.split_once(char::is_whitespace)?;
        let machine = if who == "-" { None } else { Some(parse_machine(who)?) };
        let what = parse_told(machine, what.trim())?;
        self.lines.push(Line { at, what });
        Some(())
    }
}

fn parse_machine(text: &str) -> Option<MachineId> {
    text.strip_prefix('m')?.parse().ok().map(MachineId)
}

fn parse_told(machine: Option<MachineId>, text: &str) -> Option<Told> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let deed = match (word, machine) {
        ("fault", _) => {
            let (kind, note) = rest.split_once(" before ").unwrap_or((rest, ""));
            return Some(Told::Fault {
                machine,
                kind: FaultKind::from_name(kind)?,
                note: (!note.is_empty()).then(|| note.into()),
            });
        }
        ("expect", None) => Deed::Expect {
            machines: rest.split_whitespace().map(parse_machine).collect::<Option<_>>()?,
        },
        ("say", Some(machine)) => Deed::Say { machine, change: serde_json::from_str(rest).ok()? },
        ("stop", None) => Deed::Stop { why: Some(rest.into()) },
        ("resume", None) => Deed::Stop { why: None },
        ("press-power", Some(machine)) => Deed::PressPower { machine },
        ("swap", Some(machine)) => Deed::Swap { machine },
        ("cross", Some(machine)) => Deed::Cross { machine },
        ("mend", Some(machine)) => Deed::Mend { machine },
        ("rebuild", Some(machine)) => Deed::Rebuild { machine },
        ("evict", Some(machine)) => Deed::Evict { machine },
        ("flash", Some(machine)) => {
            let (slot, to) = rest.split_once(' ')?;
            Deed::Flash { machine, own: slot == "bmc", to: to.into() }
        }
        ("task", Some(machine)) => Deed::Task { machine },
        ("boot-order", Some(machine)) => Deed::BootOrder { machine, disk: rest == "disk" },
        ("board-outage", Some(machine)) => {
            Deed::BoardOut { machine, until: parse_time(rest.strip_prefix("until ")?)? }
        }
        ("board-crash", Some(machine)) => Deed::BoardCrash { machine },
        ("bmc-port-outage", Some(machine)) => {
            Deed::BmcOut { machine, until: parse_time(rest.strip_prefix("until ")?)? }
        }
        ("outage", None) => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let [place, "until", until, ref cut @ ..] = words[..] else { return None };
            Deed::Outage {
                rack: if place == "site" {
                    None
                } else {
                    Some(place.strip_prefix('r')?.parse().ok()?)
                },
                until: parse_time(until)?,
                hosts: cut.contains(&"hosts"),
                bmcs: cut.contains(&"bmcs"),
            }
        }
        ("dark", None) => {
            let (rack, until) = rest.split_once(" until ")?;
            Deed::Dark { rack: rack.strip_prefix('r')?.parse().ok()?, until: parse_time(until)? }
        }
        ("second-daemon", None) => Deed::SecondDaemon,
        ("old-database", None) => Deed::OldDatabase,
        _ => return None,
    };
    Some(Told::Deed(deed))
}

/// `2d03:04:05.678`.
struct At(EngineTime);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.0;
        let (day, hour, minute) = (ms / DAY, ms % DAY / HOUR, ms % HOUR / MINUTE);
        write!(f, "{day}d{hour:02}:{minute:02}:{:02}.{:03}", ms % MINUTE / 1000, ms % 1000)
    }
}

fn parse_time(text: &str) -> Option<EngineTime> {
    let (day, rest) = text.split_once('d')?;
    let (clock, ms) = rest.split_once('.')?;
    let mut parts = clock.split(':').map(|p| p.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let day: u64 = day.parse().ok()?;
    let ms: u64 = ms.parse().ok()?;
    let ms = day.checked_mul(DAY)? + hour * HOUR + minute * MINUTE + second * 1000 + ms;
    Some(EngineTime(ms))
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "world {} machines {} days {} seed {} sick {} copies {} boards {} breaker {}/{} liveness {} until {}",
            self.profile,
            self.machines,
            self.days,
            self.seed,
            self.sick_per_million,
            self.copies_per_million,
            self.boards_per_million,
            self.breaker.0,
            self.breaker.1,
            self.liveness_days,
            At(self.until),
        )?;
        writeln!(f, "broke {} on {} at {}", self.rule, self.machine, At(self.broke_at))?;
        for line in &self.lines {
            write!(f, "{}  ", At(line.at))?;
            match &line.what {
                Told::Fault { machine, kind, note } => {
                    let who = machine.map_or_else(|| "-".into(), |m| m.to_string());
                    write!(f, "{who:<5} fault {}", kind.name())?;
                    if let Some(note) = note {
                        write!(f, " before {note}")?;
                    }
                    writeln!(f)?;
                }
                Told::Deed(deed) => writeln!(f, "{}", Shown(deed))?,
            }
        }
        Ok(())
    }
}

struct Shown<'a>(&'a Deed);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = |m: &MachineId, what: &str| write!(f, "{:<5} {what}", m.to_string());
        match self.0 {
            Deed::Say { machine, change } => {
                at(machine, &format!("say {}", serde_json::json!(change)))
            }
            Deed::PressPower { machine } => at(machine, "press-power"),
            Deed::Swap { machine } => at(machine, "swap"),
            Deed::Cross { machine } => at(machine, "cross"),
            Deed::Mend { machine } => at(machine, "mend"),
            Deed::Rebuild { machine } => at(machine, "rebuild"),
            Deed::Evict { machine } => at(machine, "evict"),
            Deed::Flash { machine, own, to } => {
                at(machine, &format!("flash {} {to}", if *own { "bmc" } else { "bios" }))
            }
            Deed::Task { machine } => at(machine, "task"),
            Deed::BootOrder { machine, disk } => {
                at(machine, if *disk { "boot-order disk" } else { "boot-order net" })
            }
            Deed::BoardOut { machine, until } => {
                at(machine, &format!("board-outage until {}", At(*until)))
            }
            Deed::BoardCrash { machine } => at(machine, "board-crash"),
            Deed::BmcOut { machine, until } => {
                at(machine, &format!("bmc-port-outage until {}", At(*until)))
            }
            Deed::Expect { machines } => {
                write!(f, "-     expect")?;
                machines.iter().try_for_each(|m| write!(f, " {m}"))
            }
            Deed::Stop { why: Some(why) } => write!(f, "-     stop {why}"),
            Deed::Stop { why: None } => write!(f, "-     resume"),
            Deed::Outage { rack, until, hosts, bmcs } => {
                write!(f, "-     outage ")?;
                match rack {
                    Some(rack) => write!(f, "r{rack}")?,
                    None => write!(f, "site")?,
                }
                write!(f, " until {}", At(*until))?;
                write!(f, "{}", if *bmcs { " bmcs" } else { "" })?;
                write!(f, "{}", if *hosts { " hosts" } else { "" })
            }
            Deed::Dark { rack, until } => write!(f, "-     dark r{rack} until {}", At(*until)),
            Deed::SecondDaemon => write!(f, "-     second-daemon"),
            Deed::OldDatabase => write!(f, "-     old-database"),
            Deed::Rounds => write!(f, "-     rounds"),
        }
    }
}

impl Deed {
    /// The machine that this is about, when it is about one.
    pub fn machine(&self) -> Option<MachineId> {
        match self {
            Deed::Say { machine, .. }
            | Deed::PressPower { machine }
            | Deed::Swap { machine }
            | Deed::Cross { machine }
            | Deed::Mend { machine }
            | Deed::Rebuild { machine }
            | Deed::Evict { machine }
            | Deed::Flash { machine, .. }
            | Deed::Task { machine }
            | Deed::BootOrder { machine, .. }
            | Deed::BoardOut { machine, .. }
            | Deed::BoardCrash { machine }
            | Deed::BmcOut { machine, .. } => Some(*machine),
            _ => None,
        }
    }
}
