//! Certificates as BMCs have them (field notes §6.17), and clocks that are off: what our side makes of
//! them, over the wire.

use super::program::{Vbmc, farrier, fetch};
use super::site::{Site, edge, own, until};
use farrier::app::demo::daemon::Daemon;
use farrier::app::demo::fleet::Api;
use farrier::bmc::RedfishBmc;
use farrier::model::FaultClass;
use farrier::model::facts::Power;
use farrier::port::capability::BmcClock;
use farrier::port::{BmcRead, BmcTarget};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const V1: &str = "/redfish/v1";

/// Machine `n` with its certificate of now accepted.
async fn pinned(site: &Site, edge: &RedfishBmc, n: usize) -> BmcTarget {
    let mut target = site.target(n);
    let url = target.endpoint.url.to_string();
    assert!(url.starts_with("https://"), "{url}");
    let shown = until("a certificate", || async { edge.certificate(&url).await.ok() }).await;
    assert!(shown.self_signed && shown.subject.contains("CN=bmc-node-"), "{shown:?}");
    target.endpoint.tls = format!("sha256:{}", shown.sha256).into();
    target
}

#[tokio::test]
async fn a_certificate_that_a_reboot_changes_is_another_machines_until_it_is_accepted() {
    let site = Site::of(60, own("[tls]\ncertificate = \"new-each-reboot\"\n")).await;
    let edge = edge(5_000);
    let old = pinned(&site, &edge, 1).await;
    assert_eq!(edge.system(&old).await.unwrap().power, Power::Off);
    site.seat(1).with(site.now(), |b| b.vm.reset_bmc_by_hand(site.now()));
    let fault = until("it is back", || async {
        let fault = edge.system(&old).await.err()?;
        (!fault.is_no_answer()).then_some(fault)
    })
    .await;
    assert_eq!((fault.class, &*fault.code), (FaultClass::Identity, "certificate-changed"));
    assert!(fault.to_string().contains("another certificate"), "{fault}");
    let now = pinned(&site, &edge, 1).await;
    assert_ne!(now.endpoint.tls, old.endpoint.tls);
    until("it is taken", || async { edge.system(&now).await.ok() }).await;
}

#[tokio::test]
async fn a_kept_certificate_outlives_reboots_and_not_somebodys_new_one() {
    let site = Site::of(60, own("[tls]\ncertificate = \"stable\"\n")).await;
    let (edge, unconnected) = (edge(5_000), edge(5_000));
    let bmc = pinned(&site, &edge, 1).await;
    site.seat(1).with(site.now(), |b| b.vm.reset_bmc_by_hand(site.now()));
    until("it is back", || async { edge.system(&bmc).await.ok() }).await;
    let (status, _) = site.admin(Method::POST, "/machines/node-1/renew-certificate", None).await;
    assert_eq!(status, 204);
    // A connection that is kept alive asks for no certificate.
    let fault = until("another one", || async { unconnected.system(&bmc).await.err() }).await;
    assert_eq!(&*fault.code, "certificate-changed");
}

#[tokio::test]
async fn an_expired_certificate_is_good_where_it_is_pinned_and_refused_under_a_ca() {
    let site = Site::of(60, own("[tls]\ncertificate = \"expired\"\n")).await;
    let edge = edge(5_000);
    let bmc = pinned(&site, &edge, 1).await;
    let shown = edge.certificate(&bmc.endpoint.url).await.unwrap();
    assert!(shown.not_after.contains("2020"), "{shown:?}");
    assert_eq!(edge.system(&bmc).await.unwrap().power, Power::Off);
    let mut under_ca = bmc.clone();
    under_ca.endpoint.tls = "ca".into();
    let fault = edge.system(&under_ca).await.unwrap_err();
    assert_eq!((fault.class, &*fault.code), (FaultClass::Precondition, "certificate-expired"));
    let hint = fault.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("farrier bmc pin") && hint.contains("your CA"), "{hint}");
}

/// Ten minutes and more: what the BMC dates is as wrong as its clock, and our side says how wrong.
#[tokio::test]
async fn a_clock_that_is_off_shows_in_all_that_the_bmc_dates() {
    let skewed = |s: i64| own(&format!("[clock]\nskew_s = [{s}, {s}]\n")).remove(0);
    let site = Site::of(1, vec![skewed(600), skewed(-600)]).await;
    let edge = edge(5_000);
    let mut ahead = Vec::new();
    for n in [1, 2] {
        let facts = edge.clock(&site.target(n)).await.unwrap();
        ahead.push(facts.ahead_ms.expect("it says its time"));
        site.seat(n).with(site.now(), |b| b.vm.press_power(site.now()));
    }
    let apart = ahead[0] - ahead[1];
    assert!((1_190_000..1_210_000).contains(&apart), "{apart}");
    let at = |text: &Value| -> i64 {
        let text = text.as_str().unwrap_or_default();
        text.parse::<jiff::Timestamp>().unwrap_or_else(|e| panic!("{text}: {e}")).as_second()
    };
    let mut dates = Vec::new();
    for n in [1, 2] {
        let path = format!("{V1}/Managers/1");
        let (_, headers, manager) = site.call(n, Method::GET, &path, &[], None).await;
        let log = site.get(n, &format!("{V1}/Systems/1/LogServices/SEL/Entries")).await;
        let said = headers["date"].to_str().unwrap();
        let said = jiff::fmt::rfc2822::parse(said).unwrap().timestamp().as_second();
        dates.push([at(&manager["DateTime"]), said, at(&log["Members"][0]["Created"])]);
    }
    for (fast, slow) in dates[0].iter().zip(&dates[1]) {
        assert!((1_180..1_220).contains(&(fast - slow)), "{dates:?}");
    }
    // Somebody sets it: from then on, and what was written before keeps its date.
    let sets = serde_json::json!({"DateTime": "2026-11-01T00:00:00Z"});
    let path = format!("{V1}/Managers/1");
    let (status, _, body) = site.call(1, Method::PATCH, &path, &[], Some(sets)).await;
    assert!(status < 300, "{status}: {body}");
    let log = site.get(1, &format!("{V1}/Systems/1/LogServices/SEL/Entries")).await;
    assert_eq!(at(&log["Members"][0]["Created"]), dates[0][2]);
    let manager = site.get(1, &path).await;
    assert!(at(&manager["DateTime"]) < dates[0][0] - 500, "{manager}");
}

/// `tls = "pin"` in a daemon: a certificate that its own update made new is a person's to accept and no
/// identity fault; the same after somebody's reset is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_put_down_to_our_own_update_and_to_nothing_else() {
    const SCALE: u32 = 80;
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.toml").display().to_string();
    let scale = SCALE.to_string();
    let args = ["--quick", "--time-scale", &scale, "--tls", "new-each-reboot"];
    let vbmc = Vbmc::start(&[&args[..], &["--inventory-out", &inventory]].concat()).await;
    let config = PathBuf::from(vbmc.text("config"));
    let text = std::fs::read_to_string(&config).unwrap();
    let bind = text.lines().find_map(|l| l.strip_prefix("bind = ")).unwrap();
    let api_url = format!("http://{}", bind.trim_matches('"'));
    let log = dir.path().join("daemon.log");
    let mut daemon = Daemon::start(&farrier(), &config, SCALE, &log).unwrap();
    daemon.healthy(&api_url, Duration::from_secs(30)).await.unwrap();
    let api = Api::new(&api_url).unwrap();
    let name = vbmc.said["bmcs"][0]["name"].as_str().unwrap().to_string();
    let pin = || {
        let mut command = Command::new(farrier());
        command.args(["--api", &api_url, "--by", "test", "bmc", "pin", &name, "--yes"]);
        let out = command.args(["--why", "compared"]).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    let says = |wanted: &'static str| {
        let (api, name) = (&api, &name);
        async move {
            let deadline = Instant::now() + Duration::from_secs(120);
            loop {
                let said = api.explain(name).await.unwrap().to_string();
                if said.contains(wanted) {
                    return said;
                }
                assert!(Instant::now() < deadline, "never `{wanted}`:\n{said}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    api.enroll_all(1, "ready").await.unwrap();
    says("accept the BMC's certificate").await;
    pin();
    let said = says("accept the BMC's new certificate").await;
    assert!(!said.contains("quarantined"), "{said}");
    let flashed = fetch(&format!("{}/machines", vbmc.text("admin"))).await;
    assert_eq!(flashed[&name]["firmware"]["BMC"], "7.20", "its own update did it");
    pin();
    let deadline = Instant::now() + Duration::from_secs(200);
    while !api.fleet().await.unwrap().rests("ready", &BTreeMap::new()) {
        let said = api.explain(&name).await.unwrap();
        assert!(Instant::now() < deadline, "not at rest: {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let deed = format!("{}/machines/{name}/reset-bmc", vbmc.text("admin"));
    let done = super::program::client().post(deed).send().await.unwrap();
    assert_eq!(done.status(), 204);
    let said = says("another certificate").await;
    assert!(said.contains("quarantined"), "{said}");
    daemon.stop().await;
    vbmc.end().await;
}
