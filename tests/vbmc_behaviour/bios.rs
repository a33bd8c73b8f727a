//! The BIOS step itself over the wire of every vendor that ships: probe, decide, act, and what truly
//! happened to the board.

use super::one::{One, SCALE};
use super::site::{Site, edge, order, shipped, until};
use farrier::bmc::RedfishBmc;
use farrier::model::facts::Power;
use farrier::model::*;
use farrier::port::BmcRead;
use farrier::port::capability::BmcBios;
use farrier::sim::physics::Attribute;
use farrier::sim::serve::Profile as Vendor;
use farrier::sim::truth::What;
use farrier::sim::workflows;
use farrier::steps::site::Profile;
use farrier::steps::{Step, bios, settings};
use std::collections::BTreeMap;
use std::sync::Arc;

async fn live(site: &Site, edge: &Arc<RedfishBmc>, n: usize) {
    // Half of them run already.
    let runs = n.is_multiple_of(2);
    let now = site.now();
    if runs {
        site.seat(n).with(now, |b| b.vm.found_running(false, 0));
    }
    let mut wanted = workflows::bios();
    // One vendor's BMCs say another model.
    let same = wanted.rules[0].clone();
    wanted.rules.push(settings::Rule { model: "DGXH100*".into(), ..same });
    let profile = Profile { bios: wanted, ..Profile::default() };
    let mut one = One::new(site, edge, n, Step::Bios(bios::Params::default()), profile);
    let vendor = one.vendor.clone();
    let count = |which: fn(&What) -> bool| site.truth(n, |e| which(&e.what));
    let ended = one.ends().await;
    assert!(ended.contains("SriovGlobalEnable = Enabled, Secure Boot on"), "{vendor}: {ended}");
    let boot = if runs { "power-restart" } else { "power-on" };
    let mut done = one.said.clone();
    // A BMC that was busy is asked again.
    done.dedup();
    assert_eq!(done, ["set-bios", "set-secure-boot", boot], "{vendor}");
    assert!(one.was_pending, "{vendor}: pending, then in force");
    assert_eq!(count(|w| *w == What::BiosSet), 1, "{vendor}");
    assert_eq!(count(|w| *w == What::SecureBootSet), 1, "{vendor}");
    assert_eq!(count(|w| *w == What::SettingsApplied), 1, "{vendor}: by one POST");
    let boots = count(|w| matches!(w, What::PowerOn | What::PowerCut));
    assert_eq!(boots, 1, "{vendor}: one reboot");
    site.seat(n).with(site.now(), |b| {
        for (name, value) in workflows::BIOS {
            let attribute = Attribute::of(name).unwrap();
            assert_eq!(b.vm.board.attribute(attribute), value, "{vendor}");
        }
        assert!(b.vm.board.secure_boot_now && !b.vm.board.has_pending(), "{vendor}");
        assert!(!b.vm.board.has_bios_job(), "{vendor}");
    });
    // The same once more: all is there, nothing is done.
    one.begin();
    assert!(one.ends().await.contains("Done"), "{vendor}");
    assert_eq!(one.said, [""; 0], "{vendor}");
    assert_eq!(edge.system(&site.target(n)).await.unwrap().power, Power::On, "{vendor}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bios_of_every_vendor_is_set_by_one_post_and_read_again() {
    let names = Vendor::names();
    // Each of them off and running.
    let twice: Vec<&str> = names.iter().flat_map(|n| [*n, *n]).collect();
    let site = Site::of(SCALE, shipped(&twice)).await;
    let edge = Arc::new(edge(5_000));
    let lives = (1..=twice.len()).map(|n| live(&site, &edge, n));
    futures_util::future::join_all(lives).await;
    edge.log_out().await;
}

#[tokio::test]
async fn dells_job_waits_for_the_post_and_takes_no_second_change() {
    let site = Site::of(SCALE, shipped(&["dell"])).await;
    let (edge, bmc, expect) = (edge(5_000), site.target(1), Site::expect(1));
    let ask = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.into())]);
    let first = ask("SriovGlobalEnable", "Enabled");
    let Outcome::Applied { handle: Some(job) } =
        order("the job", || edge.set_bios(&bmc, &expect, &first)).await
    else {
        panic!("no job")
    };
    let tasks = edge.tasks(&bmc, Some(&job)).await.unwrap();
    assert_eq!((tasks.len(), &*tasks[0].raw_state), (1, "Pending"), "{tasks:?}");
    let second = ask("LogicalProc", "Disabled");
    let said = edge.set_bios(&bmc, &expect, &second).await;
    assert!(matches!(said, Outcome::Failed { .. }), "{said:?}");
    assert_eq!(site.truth(1, |e| e.what == What::BiosSet), 1);
}

#[tokio::test]
async fn what_the_registry_calls_read_only_is_not_sent() {
    let site = Site::of(SCALE, shipped(&["clean", "supermicro"])).await;
    let edge = edge(5_000);
    for n in 1..=2 {
        let ask = BTreeMap::from([
            ("SriovGlobalEnable".to_string(), "Enabled".into()),
            ("SystemModelName".to_string(), "mine".into()),
        ]);
        let fault = until("read-only", || async {
            match edge.set_bios(&site.target(n), &Site::expect(n), &ask).await {
                Outcome::Failed { fault } if fault.class == FaultClass::Precondition => Some(fault),
                Outcome::Failed { .. } => None,
                other => panic!("{other:?}"),
            }
        })
        .await;
        assert_eq!(fault.code, "read-only-bios-attribute");
        assert!(fault.message.contains("SystemModelName"), "{}", fault.message);
        assert!(!fault.message.contains("Sriov"), "{}", fault.message);
        assert_eq!(site.truth(n, |e| e.what == What::BiosSet), 0);
    }
}
