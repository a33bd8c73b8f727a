//! One life of a machine under every vendor that ships, by our own client: found, powered, booted
//! from the network, updated, its BMC reset. Each ends at what truly happened, and nothing happened
//! twice.

use super::site::{Site, edge, order, shipped, until};
use farrier::bmc::RedfishBmc;
use farrier::model::action::{BootTarget, Expect, Outcome, PowerOp};
use farrier::model::facts::{Power, Task, TaskState};
use farrier::port::{BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, UpdateOrder};
use farrier::sim::physics::{BootMode, HostState};
use farrier::sim::serve::Profile;
use farrier::sim::truth::What;
use std::cell::Cell;

/// World seconds in a real one.
const SCALE: u32 = 120;

struct One<'a> {
    site: &'a Site,
    edge: &'a RedfishBmc,
    n: usize,
    vendor: String,
    bmc: BmcTarget,
    expect: Expect,
    /// Power orders that the BMC took.
    orders: Cell<usize>,
}

impl One<'_> {
    async fn power(&self, op: PowerOp, wanted: Power) {
        let what = format!("{}: {op:?}", self.vendor);
        let done = order(&what, || self.edge.power(&self.bmc, &self.expect, op)).await;
        assert_eq!(done, Outcome::Applied { handle: None }, "{what}");
        self.orders.set(self.orders.get() + 1);
        until(&what, || async {
            let seen = self.edge.system(&self.bmc).await.ok()?;
            (seen.power == wanted).then_some(())
        })
        .await;
    }

    async fn boots_from_the_network_once(&self) {
        let what = format!("{}: boot override", self.vendor);
        let target = BootTarget::Pxe;
        let done = order(&what, || self.edge.set_boot(&self.bmc, &self.expect, target)).await;
        assert_eq!(done, Outcome::Applied { handle: None }, "{what}");
        let seen = until(&what, || async { self.edge.system(&self.bmc).await.ok() }).await;
        assert_eq!(seen.boot_target.as_deref(), Some("Pxe"), "{what}");
        assert_eq!(seen.boot_enabled.as_deref(), Some("Once"), "{what}");
        let world = self.site.now();
        let boots = self.site.seat(self.n).with(world, |b| b.vm.boots);
        let op = PowerOp::ForceRestart;
        let done = order(&what, || self.edge.power(&self.bmc, &self.expect, op)).await;
        assert_eq!(done, Outcome::Applied { handle: None }, "{what}");
        until(&format!("{what} is used"), || async {
            self.site.seat(self.n).with(self.site.now(), |b| {
                let through = b.vm.boots > boots && b.vm.host != HostState::Post;
                (through && b.vm.boot.mode == BootMode::Disabled).then_some(())
            })
        })
        .await;
        let seen = until(&what, || async { self.edge.system(&self.bmc).await.ok() }).await;
        let enabled = seen.boot_enabled.as_deref();
        assert_eq!(enabled, Some("Disabled"), "{what}: it counts once");
    }

    /// The tasks that are there and not ended.
    fn running(tasks: &[Task]) -> bool {
        tasks.iter().any(|t| t.state == TaskState::InProgress)
    }

    async fn updates_its_bmc(&self) {
        let what = format!("{}: update", self.vendor);
        let from = until(&what, || async {
            let all = self.edge.firmware(&self.bmc).await.ok()?;
            let bmc = all.into_iter().find(|c| c.id == "BMC");
            let bmc = bmc.unwrap_or_else(|| panic!("{what}: it is not missing"));
            assert!(bmc.version.is_some() != bmc.unread.is_some(), "{what}: {bmc:?}");
            bmc.version
        })
        .await;
        let update = UpdateOrder {
            image_url: format!("{}/farrier/virtual-bmc-7.20.bin", self.site.images),
            inventory_id: "BMC".into(),
            from: from.clone(),
            to: "7.20".into(),
            file: None,
        };
        let expect = Expect { from_version: Some(from.clone()), ..self.expect.clone() };
        let done = order(&what, || self.edge.update(&self.bmc, &expect, &update)).await;
        let Outcome::Applied { handle } = done else { panic!("{what}: {done:?}") };
        // Gone is neither success nor failure: the version decides, after the reset.
        until(&format!("{what}: its task ends"), || async {
            let tasks = self.edge.tasks(&self.bmc, handle.as_deref()).await.ok()?;
            (!Self::running(&tasks)).then_some(())
        })
        .await;
        assert!(!self.site.seat(self.n).with(self.site.now(), |b| b.vm.is_flashing()), "{what}");
        let done = order(&what, || self.edge.reset_bmc(&self.bmc, &self.expect)).await;
        assert_eq!(done, Outcome::Applied { handle: None }, "{what}");
        until(&format!("{what}: the new version"), || async {
            let all = self.edge.firmware(&self.bmc).await.ok()?;
            let bmc = all.iter().find(|c| c.id == "BMC")?;
            (bmc.version.as_deref() == Some("7.20")).then_some(())
        })
        .await;
    }
}

impl One<'_> {
    /// Cutting the power meanwhile breaks the component, and no task of the BMC's list says so.
    async fn waits_for_its_copies(&self) {
        let what = format!("{}: its copies", self.vendor);
        let under_way = || self.site.seat(self.n).with(self.site.now(), |b| b.vm.copies.len());
        until(&what, || async {
            let before = under_way();
            let tasks = self.edge.tasks(&self.bmc, None).await.ok()?;
            let copies = tasks.iter().any(|t| t.is_copy() && t.state == TaskState::InProgress);
            let after = under_way();
            assert!(copies || before == 0 || after == 0, "{what}: it copies, and {tasks:?}");
            (!copies && after == 0).then_some(())
        })
        .await;
        let copies = self.site.seat(self.n).profile.physics.copies_images;
        let count = |which: fn(&What) -> bool| self.site.truth(self.n, |e| which(&e.what));
        assert_eq!(count(|w| matches!(w, What::CopyEnded { .. })), usize::from(copies), "{what}");
    }
}

async fn live(site: &Site, edge: &RedfishBmc, n: usize) {
    let vendor = site.seat(n).profile.name.clone();
    let one = One {
        bmc: site.target(n),
        expect: Site::expect(n),
        orders: Cell::new(0),
        site,
        edge,
        n,
        vendor: vendor.clone(),
    };
    let what = format!("{vendor}: its facts");
    let seen = until(&what, || async { edge.system(&one.bmc).await.ok() }).await;
    assert_eq!(seen.power, Power::Off, "{vendor}");
    assert_eq!(
        seen.manufacturer.as_deref(),
        site.seat(n).profile.maker.as_deref().or(Some("Farrier"))
    );
    one.power(PowerOp::On, Power::On).await;
    // A part that could not be read is a warning; all of it comes with patience.
    let what = format!("{vendor}: all parts");
    let parts = until(&what, || async {
        let parts = edge.inventory(&one.bmc).await.ok()?;
        parts.warnings.is_empty().then_some(parts)
    })
    .await;
    assert_eq!(parts.gpus.len(), 8, "{vendor}: {parts:?}");
    assert_eq!(parts.cpus.len(), 2, "{vendor}");
    one.boots_from_the_network_once().await;
    one.updates_its_bmc().await;
    one.waits_for_its_copies().await;
    one.power(PowerOp::ForceOff, Power::Off).await;
    let count = |which: fn(&What) -> bool| site.truth(n, |e| which(&e.what));
    assert_eq!(count(|w| *w == What::PowerOn), 1, "{vendor}");
    // The restart and the end.
    assert_eq!(count(|w| *w == What::PowerCut), 2, "{vendor}");
    assert_eq!(count(|w| *w == What::BmcReset), 1, "{vendor}");
    assert_eq!(count(|w| matches!(w, What::FlashStarted { .. })), 1, "{vendor}");
    assert_eq!(count(|w| matches!(w, What::FlashBroken { .. })), 0, "{vendor}");
    assert_eq!(count(|w| matches!(w, What::CopyBroken { .. })), 0, "{vendor}");
    assert!(site.open_sessions(n).await <= 1, "{vendor}: one session a BMC");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_of_every_vendor_ends_where_it_truly_is() {
    let names = Profile::names();
    let site = Site::of(SCALE, shipped(&names)).await;
    let edge = edge(5_000);
    let lives = (1..=names.len()).map(|n| live(&site, &edge, n));
    futures_util::future::join_all(lives).await;
    edge.log_out().await;
    for n in 1..=names.len() {
        assert_eq!(site.open_sessions(n).await, 0, "{}: logged out", names[n - 1]);
    }
}

/// Every way in which a read fails, of any resource: nothing is taken for missing, nothing is done
/// twice, and each life comes to the same end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_passes_under_reads_that_fail_in_every_way() {
    let names = Profile::names();
    let site = Site::of(SCALE, shipped(&names)).await;
    let effects =
        [r#"{"status": 500}"#, r#""half-reply""#, r#""garbage""#, r#""drop""#, r#""hang""#];
    for (seed, effect) in effects.iter().enumerate() {
        let rare = if effect.contains("hang") { 0.01 } else { 0.03 };
        let rule = format!(
            r#"{{"method": "GET", "effect": {effect}, "probability": {rare}, "seed": {seed}}}"#
        );
        let (status, said) = site.admin(reqwest::Method::POST, "/rules", Some(&rule)).await;
        assert_eq!(status, 201, "{said}");
    }
    let edge = edge(1_000);
    let lives = (1..=names.len()).map(|n| live(&site, &edge, n));
    futures_util::future::join_all(lives).await;
    edge.log_out().await;
    let (_, rules) = site.admin(reqwest::Method::GET, "/rules", None).await;
    for rule in rules.as_array().unwrap() {
        assert!(rule["hits"].as_u64().is_some_and(|n| n > 0), "struck nothing: {rule}");
    }
}
