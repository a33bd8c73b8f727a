//! The Redfish edge on a deck instead of a BMC.

use super::Seen;
use super::deck::{self, Deck, TOKEN};
use crate::bmc::{self, RedfishBmc, Settings};
use crate::config::quirks;
use crate::model::facts::{Component, InventoryFacts, SystemFacts, Task, TaskState};
use crate::model::quirks::QuirkTable;
use crate::model::{BmcEndpoint, Channel, Fault, FaultClass, Identity, MachineId, Outcome};
use crate::port::capability::{
    BmcAbilities, BmcAccounts, BmcBios, BmcClock, BmcLog, BmcMedia, BmcNature, BmcSensors,
    BmcVolumes,
};
use crate::port::{BmcRead, BmcTarget, Credential, Secret, Vault};
use async_trait::async_trait;
use serde::Serialize;
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, Runtime};

/// The password of the fuzzed BMC. No fault may hold it, whatever the BMC sends back.
pub const PASSWORD: &str = "hunter22-of-the-fuzz";

const BASE: &str = "http://bmc.invalid";
/// Where the target `task` looks for its task.
const HANDLE: &str = "/t";

struct OneCredential;

#[async_trait]
impl Vault for OneCredential {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "farrier".into(), password: Secret::new(PASSWORD) })
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Unsupported, Channel::Host, "no-key", "no host is asked"))
    }
}

static SHIPPED: LazyLock<Arc<QuirkTable>> = LazyLock::new(|| Arc::new(quirks::shipped()));

thread_local! {
    /// Nothing waits in it: every answer is at hand.
    static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_time().build().ok();
}

/// Runs this to its end. `None`: there is no runtime.
pub(super) fn run<T>(work: impl Future<Output = T>) -> Option<T> {
    RUNTIME.with(|runtime| Some(runtime.as_ref()?.block_on(work)))
}

fn edge(deck: Arc<Deck>) -> RedfishBmc {
    let settings = Settings { quirks: SHIPPED.clone(), ..Settings::default() };
    RedfishBmc::new(Arc::new(OneCredential), settings).answered_by(deck)
}

fn target() -> BmcTarget {
    BmcTarget {
        machine: MachineId(1),
        name: "fuzzed".into(),
        endpoint: BmcEndpoint {
            url: BASE.into(),
            credential: "bmc".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        identity: Identity::default(),
    }
}

/// What must hold for every fault of this edge.
fn check(fault: &Fault) {
    assert_ne!(fault.class, FaultClass::Bug, "ours: {fault:?}");
    assert!(!fault.is_no_answer(), "there was an answer: {fault:?}");
    assert!(!fault.code.is_empty() && !fault.message.is_empty(), "{fault:?}");
    assert!(fault.message.chars().count() <= 600, "a page: {fault:?}");
    let evidence = fault.evidence.as_deref().unwrap_or_default();
    assert!(evidence.chars().count() <= 301, "more than an excerpt: {fault:?}");
    for text in [&fault.message, evidence] {
        assert!(!text.chars().any(char::is_control), "no text for a terminal: {fault:?}");
    }
    assert!(fault.retry_after_ms.is_none_or(|ms| ms <= 3_600_000), "for ever: {fault:?}");
}

/// The same, and no secret is in it that the BMC could have sent back: the password once it was told,
/// the token once it was given out.
fn check_of(deck: &Deck, fault: &Fault) {
    check(fault);
    let evidence = fault.evidence.as_deref().unwrap_or_default();
    let says = |secret| fault.message.contains(secret) || evidence.contains(secret);
    assert!(!(says(PASSWORD) && deck.was_told_the_password()), "a secret: {fault:?}");
    assert!(!(says(TOKEN) && deck.gave_token()), "a secret: {fault:?}");
}

fn checked<T>(deck: &Deck, read: Result<T, Fault>) -> Result<T, Fault> {
    read.inspect_err(|fault| check_of(deck, fault))
}

/// All that a probe reads.
#[derive(Debug, PartialEq, Serialize)]
pub struct Read {
    pub system: Result<SystemFacts, Fault>,
    pub inventory: Result<InventoryFacts, Fault>,
    pub firmware: Result<Vec<Component>, Fault>,
    pub tasks: Result<Vec<Task>, Fault>,
    /// Once more, with everything known that was found before.
    pub system_again: Result<SystemFacts, Fault>,
}

/// How far a clock is ahead depends on ours, which goes on between two reads of one deck.
fn without_our_clock(mut found: InventoryFacts) -> InventoryFacts {
    if let Some(clock) = &mut found.clock {
        clock.ahead_ms = None;
    }
    found.warnings.retain(|w| !w.starts_with("the BMC's clock "));
    found
}

/// Reads a deck as a probe does, one part after the other. `None`: there is no runtime.
pub fn read(deck: &Arc<Deck>) -> Option<Read> {
    let (edge, target) = (edge(deck.clone()), target());
    run(async {
        Read {
            system: edge.system(&target).await,
            inventory: edge.inventory(&target).await.map(without_our_clock),
            firmware: edge.firmware(&target).await,
            tasks: edge.tasks(&target, None).await,
            system_again: edge.system(&target).await,
        }
    })
}

pub(super) fn facts(data: &[u8]) -> Seen {
    let deck = Arc::new(Deck::read(data));
    let read = read(&deck);
    if let Some(read) = &read {
        let faults = [
            read.system.as_ref().err(),
            read.inventory.as_ref().err(),
            read.firmware.as_ref().err(),
            read.tasks.as_ref().err(),
            read.system_again.as_ref().err(),
        ];
        faults.into_iter().flatten().for_each(|f| check_of(&deck, f));
        if let Ok(found) = &read.inventory {
            assert!(found.warnings.len() <= 50, "{} warnings", found.warnings.len());
            let parts = found.cpus.iter().chain(&found.gpus).chain(&found.disks);
            assert!(parts.clone().all(|p| p.serial.as_deref() != Some("")), "{found:?}");
            assert!(found.nics.iter().all(|n| n.mac.as_ref().is_none_or(|m| m.len() == 17)));
        }
        read.tasks.iter().flatten().for_each(check_task);
    }
    Box::new(read)
}

pub(super) fn capabilities(data: &[u8]) -> Seen {
    read_more(&Arc::new(Deck::read(data)))
}

/// Reads of a deck what a person may ask for beyond a probe.
pub fn read_more(deck: &Arc<Deck>) -> Seen {
    let (edge, target) = (edge(deck.clone()), target());
    Box::new(run(async {
        let nature = (
            checked(deck, edge.controllers(&target).await),
            checked(deck, edge.quirks(&target).await),
            checked(deck, edge.abilities(&target).await),
            checked(deck, edge.accounts(&target).await),
        );
        let parts = (
            checked(deck, edge.media(&target).await),
            checked(deck, edge.bios(&target).await),
            checked(deck, edge.secure_boot(&target).await),
            checked(deck, edge.volumes(&target).await),
        );
        let log = checked(deck, edge.log(&target, 5).await);
        assert!(log.iter().flatten().all(|e| e.message.chars().count() <= 501), "{log:?}");
        let sensors = checked(deck, edge.sensors(&target).await);
        let finite = |v: Option<f64>| v.is_none_or(f64::is_finite);
        assert!(sensors.iter().flatten().all(|s| finite(s.value)), "{sensors:?}");
        // How far ahead the clock is depends on ours.
        let clock = checked(deck, edge.clock(&target).await).map(|c| c.says);
        let storage = checked(deck, edge.storage(&target).await);
        (nature, parts, log, sensors, clock, storage)
    }))
}

fn check_task(task: &Task) {
    assert!(task.percent.is_none_or(|p| p <= 100), "{task:?}");
    assert!(task.message.as_ref().is_none_or(|m| m.chars().count() <= 201), "{task:?}");
    // A word that nobody knows is no success (field notes R14). iLO has one of its own, and vendors'
    // words are told without their case.
    let own = task.uri.contains('#');
    let good = match task.raw_state.to_ascii_lowercase().as_str() {
        "complete" | "completed" if own => true,
        _ => task.raw_state == "Completed",
    };
    assert!(task.state != TaskState::Succeeded || good, "{task:?}");
}

pub(super) fn task(data: &[u8]) -> Seen {
    let deck = &Arc::new(Deck::read(data));
    let (edge, target) = (edge(deck.clone()), target());
    let seen = run(async {
        let one = checked(deck, edge.tasks(&target, Some(HANDLE)).await);
        let all = checked(deck, edge.tasks(&target, None).await);
        (one, all)
    });
    if let Some((one, all)) = &seen {
        one.iter().chain(all).flatten().for_each(check_task);
    }
    Box::new(seen)
}

/// As they are journaled: where iLO and a root of trust say what they do.
const WORKS: [&str; 3] = [
    "/redfish/v1/UpdateService#/Oem/Hpe/State",
    "/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_1#/Oem/Nvidia/BackgroundCopyStatus",
    "/redfish/v1/Chassis/HGX_ERoT_FPGA_0#/Oem/Hpe/State",
];

pub(super) fn work(data: &[u8]) -> Seen {
    let deck = &Arc::new(Deck::read(data));
    let (edge, target) = (edge(deck.clone()), target());
    let seen = run(async {
        let mut seen = vec![checked(deck, edge.tasks(&target, None).await)];
        for handle in WORKS {
            seen.push(checked(deck, edge.tasks(&target, Some(handle)).await));
        }
        seen
    });
    for task in seen.iter().flatten().flatten().flatten() {
        check_task(task);
        let said = task.raw_state.chars().count();
        assert!(!task.uri.contains('#') || (1..=61).contains(&said), "{task:?}");
    }
    Box::new(seen)
}

pub(super) fn headers(data: &[u8]) -> Seen {
    let (edge, target) = (edge(Arc::default()), target());
    let heads = bmc::fuzz::heads(&edge, &target, &deck::one(data));
    if let Ok(heads) = &heads {
        for etags in [&heads.etags, &heads.etags_any_first] {
            assert!((1..=7).contains(&etags.len()), "{etags:?}");
            let twice =
                etags.iter().enumerate().any(|(n, e)| etags.iter().skip(n + 1).any(|o| o == e));
            assert!(!twice, "said twice: {etags:?}");
        }
        assert!(heads.retry_after_ms.is_none_or(|ms| ms <= 3_600_000), "{heads:?}");
        for path in [&heads.path, &heads.task].into_iter().flatten() {
            assert!(path.starts_with('/') && path.len() > 1, "no path: {path:?}");
        }
        let same = |url: &String| *url == BASE || url.starts_with(&format!("{BASE}/"));
        // What is journaled as a path can be followed.
        assert_eq!(heads.path.is_some(), heads.path_url.is_some(), "{heads:?}");
        assert!(heads.url.as_ref().is_none_or(same), "credentials would go to {:?}", heads.url);
    }
    Box::new(heads)
}

pub(super) fn errors(data: &[u8]) -> Seen {
    let canned = deck::one(data);
    let (edge, target) = (edge(Arc::default()), target());
    let faults = bmc::fuzz::faults(&edge, &target, &canned);
    if let Ok(faults) = &faults {
        check(&faults.later);
        faults.of_document.iter().for_each(check);
        let ok = (200..300).contains(&canned.status);
        assert!(ok || faults.of_document.is_some(), "{} is no document", canned.status);
        match &faults.of_action {
            None => assert!(ok, "{} is no success", canned.status),
            Some(Outcome::Failed { fault } | Outcome::Unknown { fault }) => check(fault),
            Some(other) => unreachable!("an answer alone is never {other:?}"),
        }
    }
    Box::new(faults)
}

pub(super) fn service_root(data: &[u8]) -> Seen {
    let root = crate::scan::service_root(data);
    if let Some(root) = &root {
        for text in [&root.version, &root.vendor, &root.product].into_iter().flatten() {
            let fits = (1..=80).contains(&text.chars().count());
            assert!(fits && !text.chars().any(char::is_control), "{root:?}");
        }
        assert!(root.uuid.as_ref().is_none_or(|u| u.len() == 36), "{root:?}");
    }
    Box::new(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(message: &str) -> Fault {
        Fault::new(FaultClass::Transient, Channel::Bmc, "not-redfish", message)
    }

    #[test]
    fn a_fault_in_order_passes() {
        check(&fault("GET /x: the body is no JSON").evidence("<html>").retry_after(3_600_000));
    }

    #[test]
    fn each_rule_of_a_fault_is_looked_at() {
        let bad = [
            Fault { class: FaultClass::Bug, ..fault("x") },
            Fault::no_answer(Channel::Bmc, "x"),
            fault(""),
            fault(&"x".repeat(601)),
            fault("x").evidence("x".repeat(302)),
            fault("two\nlines"),
            fault("x").retry_after(3_600_001),
        ];
        for fault in bad {
            let passed = std::panic::catch_unwind(|| check(&fault)).is_ok();
            assert!(!passed, "{fault:?}");
        }
    }

    #[test]
    fn a_secret_is_one_once_the_bmc_has_it() {
        use crate::bmc::canned::Source;
        let deck = Deck::default();
        let passes = |said: &str| {
            let fault = fault("x").evidence(said);
            std::panic::catch_unwind(|| check_of(&deck, &fault)).is_ok()
        };
        deck.answer("GET", "/redfish/v1/");
        assert!(passes(PASSWORD) && passes(TOKEN));
        deck.answer("GET", "/redfish/v1/Systems");
        assert!(!passes(PASSWORD) && passes(TOKEN));
        deck.answer("POST", "/redfish/v1/SessionService/Sessions");
        assert!(!passes(TOKEN));
    }
}
