//! The boot volume over the wire of every vendor that ships: with a task, at once, or as a job that waits
//! for a POST; and where the answer to the order is lost.

use super::one::{One, SCALE};
use super::site::{Site, edge, shipped};
use farrier::bmc::RedfishBmc;
use farrier::port::BmcRead;
use farrier::sim::physics::Raid;
use farrier::sim::serve::Profile as Vendor;
use farrier::sim::truth::What;
use farrier::sim::workflows;
use farrier::steps::site::Profile;
use farrier::steps::{Step, volume};
use reqwest::Method;
use std::sync::Arc;

fn one<'a>(site: &'a Site, edge: &Arc<RedfishBmc>, n: usize) -> One<'a> {
    let profile = Profile { boot_volume: Some(workflows::boot_volume()), ..Profile::default() };
    let mut one = One::new(site, edge, n, Step::Volume(volume::Params::default()), profile);
    // Nobody boots a ramdisk here: what is on the drives may be lost.
    one.m.allow_existing_data = true;
    one
}

async fn live(site: &Site, edge: &Arc<RedfishBmc>, n: usize) {
    // Half of them run already.
    let runs = n.is_multiple_of(2);
    if runs {
        site.seat(n).with(site.now(), |b| b.vm.found_running(false, 0));
    }
    let mut one = one(site, edge, n);
    let vendor = one.vendor.clone();
    let ended = one.ends().await;
    assert!(ended.contains("RAID1 `boot`"), "{vendor}: {ended}");
    let mut done = one.said.clone();
    // A BMC that was busy is asked again.
    done.dedup();
    let mut wanted = vec!["create-volume"];
    if !runs {
        wanted.insert(0, "power-on");
    }
    if vendor == "dell" {
        wanted.push("power-restart");
    }
    assert_eq!(done, wanted, "{vendor}");
    once(site, n, &vendor);
    // The same once more: it is there, and nothing is done.
    one.begin();
    assert!(one.ends().await.contains("Done"), "{vendor}");
    assert_eq!(one.said, [""; 0], "{vendor}");
    once(site, n, &vendor);
}

fn once(site: &Site, n: usize, vendor: &str) {
    let count = |which: fn(&What) -> bool| site.truth(n, |e| which(&e.what));
    assert_eq!(count(|w| matches!(w, What::VolumeMade { .. })), 1, "{vendor}");
    assert_eq!(count(|w| matches!(w, What::VolumeAgain)), 0, "{vendor}");
    site.seat(n).with(site.now(), |b| {
        let now = site.now();
        let all: Vec<_> = b.vm.board.volumes(now).collect();
        assert_eq!(all.len(), 1, "{vendor}");
        assert_eq!((all[0].raid, &all[0].drives[..]), (Raid::Raid1, &[0, 1][..]), "{vendor}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_volume_of_every_vendor_is_made_once_and_read_again() {
    let names = Vendor::names();
    let twice: Vec<&str> = names.iter().flat_map(|n| [*n, *n]).collect();
    let site = Site::of(SCALE, shipped(&twice)).await;
    let edge = Arc::new(edge(5_000));
    let lives = (1..=twice.len()).map(|n| live(&site, &edge, n));
    futures_util::future::join_all(lives).await;
    edge.log_out().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_answer_was_lost_is_found_and_not_sent_again() {
    let names = ["clean", "dell", "hpe"];
    let site = Site::of(SCALE, shipped(&names)).await;
    let edge = Arc::new(edge(5_000));
    let rule = "{\"method\": \"POST\", \"path\": \"/redfish/v1/Systems/*/Storage/*/Volumes\", \
                \"effect\": \"drop\", \"applied\": true}";
    let (status, said) = site.admin(Method::POST, "/rules", Some(rule)).await;
    assert!(status < 300, "{said}");
    let lives = (1..=names.len()).map(|n| {
        let (site, edge) = (&site, &edge);
        async move {
            site.seat(n).with(site.now(), |b| b.vm.found_running(false, 0));
            let mut one = one(site, edge, n);
            let ended = one.ends().await;
            assert!(ended.contains("RAID1 `boot`"), "{}: {ended}", one.vendor);
            let orders = one.said.iter().filter(|s| *s == "create-volume").count();
            assert_eq!(orders, 1, "{}: {:?}", one.vendor, one.said);
            once(site, n, &one.vendor);
        }
    });
    futures_util::future::join_all(lives).await;
    edge.log_out().await;
}

#[tokio::test]
async fn storage_on_the_wire_is_the_storage_of_the_machine() {
    let names = Vendor::names();
    let site = Site::of(SCALE, shipped(&names)).await;
    let edge = edge(5_000);
    for n in 1..=names.len() {
        let vendor = &site.seat(n).profile.name;
        let read = edge.storage(&site.target(n)).await;
        let read = read.unwrap_or_else(|f| panic!("{vendor}: {f}"));
        let truth = site.seat(n).with(site.now(), |b| b.vm.storage(site.now()));
        assert_eq!((read.parts.len(), read.parts[0].volumes.len()), (1, 0), "{vendor}");
        assert_eq!(read.parts[0].levels, truth.parts[0].levels, "{vendor}");
        let facts = |s: &farrier::model::storage::StorageFacts| {
            let drives = s.parts[0].drives.iter();
            drives.map(|d| (d.serial.clone(), d.bytes, d.kind)).collect::<Vec<_>>()
        };
        assert_eq!(facts(&read), facts(&truth), "{vendor}");
    }
}
