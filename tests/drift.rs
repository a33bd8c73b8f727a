//! Machines at rest: what changes behind Farrier's back is recorded once, counted, and never undone.

use farrier::decide::{Decide, Input, Room, Rules, Verdict};
use farrier::model::facts::*;
use farrier::model::machine::{Control, Machine};
use farrier::model::*;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::Workflow;

const UUID: &str = "11111111-2222-3333-4444-555555555501";

struct Free;
impl Room for Free {
    fn full(&self, _: MachineId, _: LimitClass) -> Option<String> {
        None
    }
}

struct Rest {
    m: Machine,
    report: Report,
    now: EngineTime,
    controllers: Controllers,
}

impl Rest {
    /// An adopted machine that takes workloads, powered on, with two firmware components.
    fn new() -> Self {
        let mut m = Machine::blank(MachineId(1));
        m.name = "n1".into();
        m.control = Control::Adopted;
        m.stage = Stage::InService;
        m.identity = Identity::new(None, Some(UUID), None).into();
        let mut rest = Self {
            m,
            report: Report::default(),
            now: EngineTime(1_000_000),
            controllers: Controllers::default(),
        };
        rest.system(Power::On, Some("None"), "Disabled");
        rest
    }

    fn system(&mut self, power: Power, target: Option<&str>, enabled: &str) {
        self.report.system = Read::Seen(SystemFacts {
            identity: Identity::new(None, Some(UUID), None),
            power,
            boot_target: target.map(Into::into),
            boot_enabled: Some(enabled.into()),
            ..SystemFacts::default()
        });
    }

    fn firmware(&mut self, list: &[(&str, &str)]) {
        let component = |(id, version): &(&str, &str)| Component {
            id: (*id).into(),
            version: Some((*version).into()),
            ..Component::default()
        };
        self.report.firmware = Read::Seen(list.iter().map(component).collect());
    }

    /// One look; what it said was changed behind Farrier's back.
    fn look(&mut self) -> Vec<String> {
        self.now = self.now + 60_000;
        let workflow =
            Workflow { name: "w".into(), watch: time::Span(60_000), ..workflow_without_steps() };
        let expected = Expected {
            name: "n1".into(),
            identity: Identity::default().into(),
            rack: "r".into(),
            position: 0,
            pool: "p".into(),
            profile: "p".into(),
            domains: [].into(),
            labels: Default::default(),
            bmc: BmcEndpoint { controllers: self.controllers.clone(), ..BmcEndpoint::default() },
            host: HostEndpoint::default(),
        };
        let verdict = Rules.decide(&Input {
            m: &self.m,
            expected: &expected,
            profile: &Profile::default(),
            site: &Site::default(),
            workflow: &workflow,
            report: &self.report,
            now: self.now,
            room: &Free,
            outage: None,
            stopped: false,
            resumed: EngineTime::ZERO,
        });
        let entries = match verdict {
            Verdict::Rest { .. } => Vec::new(),
            Verdict::Write { entries, .. } => entries,
            Verdict::Act { entries } => panic!("drift is report-only: {entries:?}"),
        };
        let mut changes = Vec::new();
        for entry in &entries {
            fold::apply(&mut self.m, entry, self.now).expect("it fits");
            if let Entry::OutOfBand { what } = entry {
                changes.push(what.clone());
            }
        }
        changes
    }
}

fn workflow_without_steps() -> Workflow {
    let (list, _) = farrier::config::workflow::parse(&farrier::config::shipped::workflows());
    let mut workflow = (*list[0]).clone();
    workflow.steps.clear();
    workflow
}

#[test]
fn the_first_look_is_a_mark_and_no_change() {
    let mut n1 = Rest::new();
    n1.firmware(&[("BIOS", "2.1"), ("BMC", "7.20")]);
    assert!(n1.look().is_empty());
    assert_eq!(n1.m.observed.power, Some(Power::On));
    assert_eq!(n1.m.observed.components, 2);
    let seq = n1.m.seq;
    assert!(n1.look().is_empty());
    assert_eq!(n1.m.seq, seq, "a probe that shows the same writes nothing");
}

#[test]
fn power_firmware_and_boot_override_are_recorded_once_and_counted() {
    let mut n1 = Rest::new();
    n1.firmware(&[("BIOS", "2.1"), ("BMC", "7.20")]);
    n1.look();
    n1.system(Power::Off, Some("Pxe"), "Continuous");
    n1.firmware(&[("BIOS", "2.2"), ("BMC", "7.20")]);
    assert_eq!(
        n1.look(),
        [
            "power went off",
            "the boot override is now pxe continuous",
            "firmware is now BIOS 2.2, BMC 7.20"
        ]
    );
    assert_eq!(n1.m.out_of_band, 3);
    assert!(n1.look().is_empty(), "said once");
    assert!(n1.m.notice.as_deref().is_some_and(|n| n.contains("power is off")));
    n1.system(Power::On, Some("None"), "Disabled");
    assert_eq!(n1.look(), ["power went on", "the boot override is now none"]);
    assert_eq!(n1.m.out_of_band, 5);
}

#[test]
fn what_a_bmc_does_by_itself_is_nobodys_change() {
    let mut n1 = Rest::new();
    n1.firmware(&[("BIOS", "2.1"), ("BMC", "7.20")]);
    n1.system(Power::On, Some("Pxe"), "Once");
    n1.look();
    n1.system(Power::On, Some("Pxe"), "Disabled");
    assert!(n1.look().is_empty(), "a single-use override was used up by a boot");
    n1.firmware(&[("BMC", "7.20")]);
    assert!(n1.look().is_empty(), "half a list after a BMC restart");
    n1.firmware(&[]);
    assert!(n1.look().is_empty(), "an empty list");
    n1.system(Power::PoweringOff, Some("Pxe"), "Disabled");
    assert!(n1.look().is_empty(), "a power state that settles");
}

#[test]
fn during_a_run_and_on_unmanaged_machines_nothing_is_marked() {
    let mut n1 = Rest::new();
    n1.look();
    n1.m.control = Control::Unmanaged;
    n1.system(Power::Off, Some("None"), "Disabled");
    assert!(n1.look().is_empty());
    n1.m.control = Control::Adopted;
    let began = Entry::RunBegan { workflow: "h".into(), reason: "t".into() };
    fold::apply(&mut n1.m, &began, n1.now).expect("it fits");
    assert_eq!(n1.m.observed, observed::Observed::default(), "a run's own changes are Farrier's");
}

#[test]
fn over_ipmi_nothing_is_known_of_override_and_firmware() {
    let mut n1 = Rest::new();
    n1.system(Power::On, Some("Hdd"), "Continuous");
    n1.look();
    let over_ipmi = SystemFacts {
        identity: Identity::new(None, Some(UUID), None),
        power: Power::On,
        over_ipmi: true,
        ..SystemFacts::default()
    };
    n1.report.system = Read::Seen(over_ipmi);
    assert!(n1.look().is_empty(), "no word of the override is no change of it");
    assert!(n1.m.notice.as_deref().is_some_and(|n| n.contains("Redfish does not answer")));
    n1.system(Power::On, Some("Hdd"), "Continuous");
    assert!(n1.look().is_empty());
    assert!(n1.m.notice.as_deref().is_none_or(|n| !n.contains("Redfish")));
}

#[test]
fn a_further_controller_that_is_silent_is_named_and_is_no_change_of_firmware() {
    let mut n1 = Rest::new();
    n1.firmware(&[("BIOS", "2.1"), ("BMC", "7.20")]);
    n1.look();
    // It is new in the inventory, and shows itself.
    n1.controllers = vec![Further {
        name: "hgx".into(),
        kind: FurtherKind::Hgx,
        url: "https://10.0.0.9".into(),
        credential: "hgx".into(),
        tls: "ca".into(),
        serial: None,
        barred: None,
    }]
    .into();
    n1.firmware(&[("BIOS", "2.1"), ("BMC", "7.20"), ("hgx:HGX_FW_BMC_0", "1.0")]);
    assert!(n1.look().is_empty());
    assert!(n1.m.notice.as_deref().is_none_or(str::is_empty));
    let silent = |n1: &mut Rest| {
        let Read::Seen(all) = &mut n1.report.firmware else { panic!("none") };
        all.retain(|c| !c.id.starts_with("hgx:"));
        let why = Fault::no_answer(Channel::Bmc, "no answer");
        all.push(Component { id: "hgx:".into(), unread: Some(why.into()), ..Component::default() });
    };
    silent(&mut n1);
    assert!(n1.look().is_empty());
    let notice = "controller `hgx` (https://10.0.0.9) does not show its firmware";
    assert_eq!(n1.m.notice.as_deref(), Some(notice));
    assert!(!n1.m.is_unreachable());
    // Not read this time: it stays said.
    n1.report.firmware = Read::NotAsked;
    let seq = n1.m.seq;
    n1.look();
    assert_eq!((n1.m.notice.as_deref(), n1.m.seq), (Some(notice), seq));
    // What changes at the host's BMC is seen all the same.
    n1.firmware(&[("BIOS", "2.2"), ("BMC", "7.20")]);
    silent(&mut n1);
    assert_eq!(n1.look(), ["firmware is now BIOS 2.2, BMC 7.20"]);
    n1.firmware(&[("BIOS", "2.2"), ("BMC", "7.20"), ("hgx:HGX_FW_BMC_0", "1.0")]);
    n1.look();
    assert!(n1.m.notice.as_deref().is_none_or(str::is_empty));
}
