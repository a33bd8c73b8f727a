//! Redfish first, IPMI for what it can where Redfish is wedged: when a program is started, and when
//! it must not be.

use super::fake::{Fake, WHOLE};
use super::{edge, expect, target};
use async_trait::async_trait;
use farrier::app::fallback::{Settings, WithFallback};
use farrier::model::action::{BootTarget, PowerOp};
use farrier::model::facts::{Component, InventoryFacts, Power, SystemFacts, Task};
use farrier::model::{Channel, Expect, Fault, FaultClass, Identity, Outcome};
use farrier::port::{BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, UpdateOrder};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const APPLIED: Outcome = Outcome::Applied { handle: None };

/// A Redfish that answers what it was told to, and notes what it was asked.
#[derive(Default)]
struct Scripted {
    /// `None`: in order.
    system: Mutex<Option<Fault>>,
    write: Mutex<Option<Outcome>>,
    asked: Mutex<Vec<String>>,
    hangs: Mutex<bool>,
}

impl Scripted {
    fn wedge(&self, fault: Option<Fault>) {
        *self.write.lock().unwrap() = fault.clone().map(|fault| Outcome::Failed { fault });
        *self.system.lock().unwrap() = fault;
    }

    fn wrote(&self, what: &str) -> Outcome {
        self.asked.lock().unwrap().push(what.into());
        self.write.lock().unwrap().clone().unwrap_or(APPLIED)
    }

    fn writes(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl BmcRead for Scripted {
    async fn system(&self, _: &BmcTarget) -> Result<SystemFacts, Fault> {
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        match self.system.lock().unwrap().clone() {
            None => Ok(SystemFacts { identity: s1(), power: Power::On, ..SystemFacts::default() }),
            Some(fault) => Err(fault),
        }
    }
    async fn inventory(&self, _: &BmcTarget) -> Result<InventoryFacts, Fault> {
        Ok(InventoryFacts::default())
    }
    async fn firmware(&self, _: &BmcTarget) -> Result<Vec<Component>, Fault> {
        Ok(Vec::new())
    }
    async fn tasks(&self, _: &BmcTarget, handle: Option<&str>) -> Result<Vec<Task>, Fault> {
        self.asked.lock().unwrap().push(format!("tasks {handle:?}"));
        Ok(Vec::new())
    }
}

#[async_trait]
impl BmcPower for Scripted {
    async fn power(&self, _: &BmcTarget, _: &Expect, op: PowerOp) -> Outcome {
        self.wrote(&format!("{op:?}"))
    }
    async fn set_boot(&self, _: &BmcTarget, _: &Expect, to: BootTarget) -> Outcome {
        self.wrote(&format!("{to:?}"))
    }
}

#[async_trait]
impl BmcUpdate for Scripted {
    async fn update(&self, _: &BmcTarget, _: &Expect, _: &UpdateOrder) -> Outcome {
        self.wrote("update")
    }
}

#[async_trait]
impl BmcCare for Scripted {
    async fn reset_bmc(&self, _: &BmcTarget, _: &Expect) -> Outcome {
        self.wrote("reset")
    }
    async fn ac_cycle(&self, _: &BmcTarget, _: &Expect) -> Outcome {
        self.wrote("ac-cycle")
    }
    async fn end_sessions(&self, _: &BmcTarget) -> Outcome {
        APPLIED
    }
}

fn s1() -> Identity {
    Identity::new(Some("S1"), None, None)
}

fn bmc() -> BmcTarget {
    target("192.0.2.1", 623, s1())
}

fn silence() -> Fault {
    Fault::no_answer(Channel::Bmc, "GET /redfish/v1/: connection refused")
}

fn fault(class: FaultClass, code: &'static str) -> Fault {
    Fault::new(class, Channel::Bmc, code, "as the test says")
}

struct Place {
    redfish: Arc<Scripted>,
    both: WithFallback,
    tool: Fake,
}

impl Place {
    fn new(tool: &str) -> Place {
        let tool = Fake::new(tool);
        let redfish = Arc::new(Scripted::default());
        let settings =
            Settings { retry_redfish: Duration::from_millis(300), ..Settings::default() };
        let both = WithFallback::new(redfish.clone(), edge(tool.settings()), settings);
        Place { redfish, both, tool }
    }

    async fn off(&self) -> Outcome {
        self.both.power(&bmc(), &expect(s1()), PowerOp::ForceOff).await
    }
}

#[tokio::test]
async fn a_bmc_in_order_costs_no_run_of_ipmitool() {
    let p = Place::new(WHOLE);
    for _ in 0..5 {
        assert!(!p.both.system(&bmc()).await.unwrap().over_ipmi);
    }
    assert_eq!(p.off().await, APPLIED);
    assert_eq!(p.both.reset_bmc(&bmc(), &expect(s1())).await, APPLIED);
    assert_eq!(p.redfish.writes(), ["ForceOff", "reset"]);
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_wedged_redfish_leaves_power_boot_and_reset_to_ipmi() {
    for wedged in [
        silence(),
        fault(FaultClass::Transient, "bmc-error"),
        fault(FaultClass::Transient, "not-redfish"),
    ] {
        let p = Place::new(WHOLE);
        p.redfish.wedge(Some(wedged));
        let over = |what: &str| Outcome::Applied { handle: Some(format!("ipmi:{what}")) };
        assert_eq!(p.off().await, over("power force-off"));
        let (bmc, expect) = (bmc(), expect(s1()));
        assert_eq!(p.both.set_boot(&bmc, &expect, BootTarget::Pxe).await, over("boot pxe"));
        assert_eq!(p.both.reset_bmc(&bmc, &expect).await, over("BMC cold reset"));
        let calls = p.tool.calls();
        for words in ["chassis power off", "chassis bootdev pxe options=efiboot", "mc reset cold"] {
            assert_eq!(
                calls.iter().filter(|c| c.ends_with(words)).count(),
                1,
                "{words}: {calls:?}"
            );
        }
        // What the handle says is for people: Redfish is not asked for such a task.
        p.both.tasks(&bmc, Some("ipmi:power force-off")).await.unwrap();
        assert_eq!(p.redfish.writes().last().map(String::as_str), Some("tasks None"));
        // Firmware is never IPMI's, nor all of the machine's power.
        p.tool.forget();
        assert!(matches!(p.both.ac_cycle(&bmc, &expect).await, Outcome::Failed { .. }));
        assert_eq!(p.redfish.writes().last().map(String::as_str), Some("ac-cycle"));
        let order = UpdateOrder {
            image_url: "http://192.0.2.9/x".into(),
            inventory_id: "BIOS".into(),
            from: "1".into(),
            to: "2".into(),
            file: None,
        };
        assert!(matches!(p.both.update(&bmc, &expect, &order).await, Outcome::Failed { .. }));
        assert_eq!(p.tool.calls().len(), 0);
    }
}

#[tokio::test]
async fn what_may_have_gone_out_over_redfish_is_never_sent_again() {
    let p = Place::new(WHOLE);
    p.redfish.wedge(Some(silence()));
    // The last read was good; the call itself got no answer.
    *p.redfish.write.lock().unwrap() = Some(Outcome::Unknown { fault: silence() });
    assert!(matches!(p.off().await, Outcome::Unknown { .. }));
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_redfish_that_refuses_is_not_wedged() {
    for refusal in [
        fault(FaultClass::Auth, "bad-credentials"),
        fault(FaultClass::Throttled, "session-limit"),
        fault(FaultClass::Transient, "conflict"),
        fault(FaultClass::Identity, "certificate-changed"),
        fault(FaultClass::Precondition, "foreign-link"),
        fault(FaultClass::Unsupported, "no-reset"),
    ] {
        let p = Place::new(WHOLE);
        p.redfish.wedge(Some(refusal.clone()));
        assert_eq!(p.off().await, Outcome::Failed { fault: refusal.clone() });
        for _ in 0..3 {
            assert_eq!(p.both.system(&bmc()).await.unwrap_err(), refusal);
        }
        assert_eq!(p.tool.calls(), Vec::<String>::new(), "{refusal}");
    }
    let refused = Outcome::Refused { saw: "power is Off".into(), wrong_machine: false };
    let p = Place::new(WHOLE);
    *p.redfish.write.lock().unwrap() = Some(refused.clone());
    assert_eq!(p.off().await, refused);
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn one_bad_answer_moves_nothing_to_another_channel() {
    let p = Place::new(WHOLE);
    let once = fault(FaultClass::Transient, "bmc-error");
    *p.redfish.write.lock().unwrap() = Some(Outcome::Failed { fault: once.clone() });
    assert_eq!(p.off().await, Outcome::Failed { fault: once }, "the system can be read");
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn without_an_address_there_is_no_fallback() {
    let p = Place::new(WHOLE);
    p.redfish.wedge(Some(silence()));
    let mut bmc = bmc();
    bmc.endpoint.ipmi = None;
    for _ in 0..3 {
        assert_eq!(p.both.system(&bmc).await.unwrap_err(), silence());
    }
    let outcome = p.both.power(&bmc, &expect(s1()), PowerOp::On).await;
    assert_eq!(outcome, Outcome::Failed { fault: silence() });
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn facts_over_ipmi_are_power_and_a_proven_identity() {
    let p = Place::new(WHOLE);
    p.redfish.wedge(Some(silence()));
    assert_eq!(p.both.system(&bmc()).await.unwrap_err(), silence(), "once is usual");
    assert_eq!(p.tool.calls(), Vec::<String>::new());
    let facts = p.both.system(&bmc()).await.unwrap();
    let want =
        SystemFacts { identity: s1(), power: Power::On, over_ipmi: true, ..SystemFacts::default() };
    assert_eq!(facts, want);
    // Redfish is back: so is what it says.
    p.redfish.wedge(None);
    p.tool.forget();
    assert!(!p.both.system(&bmc()).await.unwrap().over_ipmi);
    p.redfish.wedge(Some(silence()));
    assert_eq!(p.both.system(&bmc()).await.unwrap_err(), silence());
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn another_machine_over_ipmi_is_evidence_and_no_fact() {
    let p = Place::new(&WHOLE.replace("S1", "S9"));
    p.redfish.wedge(Some(silence()));
    p.both.system(&bmc()).await.unwrap_err();
    let fault = p.both.system(&bmc()).await.unwrap_err();
    assert!(fault.is_no_answer(), "decided as silence: {fault:?}");
    assert!(fault.evidence.is_some_and(|e| e.contains("`S9`")));
    match p.off().await {
        Outcome::Refused { wrong_machine: true, saw } => {
            assert!(saw.contains("over IPMI"), "{saw}");
        }
        o => panic!("{o:?}"),
    }
    assert!(!p.tool.calls().iter().any(|c| c.contains("power off")));
}

#[tokio::test]
async fn a_bmc_that_is_dead_on_both_is_asked_over_ipmi_now_and_then() {
    let p = Place::new("echo 'Error: Unable to establish IPMI v2 / RMCP+ session' >&2; exit 1");
    p.redfish.wedge(Some(silence()));
    for _ in 0..6 {
        assert!(p.both.system(&bmc()).await.unwrap_err().is_no_answer());
    }
    assert_eq!(p.tool.calls().len(), 1, "five minutes of rest after a silence");
    match p.off().await {
        Outcome::Failed { fault } => {
            assert!(fault.is_no_answer());
            assert!(fault.evidence.is_some_and(|e| e.contains("because of Redfish")));
        }
        o => panic!("{o:?}"),
    }
}

#[tokio::test]
async fn after_its_own_reset_a_bmc_is_not_back_before_its_redfish_is() {
    let p = Place::new(WHOLE);
    assert_eq!(p.both.reset_bmc(&bmc(), &expect(s1())).await, APPLIED);
    p.redfish.wedge(Some(silence()));
    for _ in 0..4 {
        assert!(p.both.system(&bmc()).await.unwrap_err().is_no_answer());
    }
    assert_eq!(p.tool.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_redfish_that_hangs_leaves_time_for_ipmi() {
    let p = Place::new(WHOLE);
    p.redfish.wedge(Some(silence()));
    p.both.system(&bmc()).await.unwrap_err();
    *p.redfish.hangs.lock().unwrap() = true;
    let outcome = tokio::time::timeout(Duration::from_secs(20), p.off()).await.unwrap();
    assert_eq!(outcome, Outcome::Applied { handle: Some("ipmi:power force-off".into()) });
    assert_eq!(p.redfish.writes(), Vec::<String>::new(), "nothing went out over Redfish");
}

#[tokio::test]
async fn an_unclear_end_over_ipmi_is_an_unknown_outcome() {
    let p = Place::new(&format!(
        "[ \"$words\" = 'chassis power off' ] && {{ echo 'Unable to set Chassis Power Control to Down/Off' >&2; exit 1; }}\n{WHOLE}"
    ));
    p.redfish.wedge(Some(silence()));
    match p.off().await {
        Outcome::Unknown { fault } => {
            assert_eq!(fault.class, FaultClass::OutcomeUnknown);
            assert!(
                fault.evidence.is_some_and(|e| e.contains("because of Redfish")),
                "who reads it knows the way it went"
            );
        }
        o => panic!("{o:?}"),
    }
}
