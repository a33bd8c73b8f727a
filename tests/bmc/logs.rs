//! Logs: the newest lines, whichever way round a BMC lists them and however many there are.

use super::server::{Reply, SYSTEM, Seen, Server, calm};
use super::{edge, target};
use farrier::model::FaultClass;
use farrier::port::BmcRead;
use farrier::port::capability::{BmcClock, BmcLog, BmcSensors};
use serde_json::{Value, json};

const ENTRIES: &str = "/redfish/v1/Systems/1/LogServices/SEL/Entries";
const ALL: u64 = 1_000;
const PAGE: u64 = 50;

/// A log of a thousand lines in pages of fifty, oldest or newest first, with entries in the page or
/// as links.
fn log(r: &Seen, oldest_first: bool, inline: bool, skips: bool) -> Reply {
    let link = |p: &str| json!({ "@odata.id": p });
    let (path, query) = r.path.split_once('?').unwrap_or((&r.path, ""));
    let entry = |n: u64| {
        json!({"@odata.id": format!("{ENTRIES}/{n}"), "Id": n.to_string(), "Severity": "OK",
               "Message": format!("line {n}"), "MessageId": "X.1.Line"})
    };
    match path {
        SYSTEM => match calm(r) {
            Reply::Json(200, h, mut v) => {
                v["LogServices"] = link("/redfish/v1/Systems/1/LogServices");
                Reply::Json(200, h, v)
            }
            other => other,
        },
        "/redfish/v1/Systems/1/LogServices" => Reply::ok(json!({"Members": [
            link("/redfish/v1/Systems/1/LogServices/SEL"),
            // XCC's SEL has no entries, and some links lead nowhere.
            link("/redfish/v1/Systems/1/LogServices/Empty"),
            link("/redfish/v1/Systems/1/LogServices/Gone")]})),
        "/redfish/v1/Systems/1/LogServices/SEL" => {
            Reply::ok(json!({"Id": "SEL", "Entries": link(ENTRIES)}))
        }
        "/redfish/v1/Systems/1/LogServices/Empty" => Reply::ok(json!({"Id": "Empty"})),
        ENTRIES => {
            let skip = query.strip_prefix("$skip=");
            let next = query.strip_prefix("page=");
            if skip.is_some() && !skips {
                return Reply::said(400, "QueryNotSupported");
            }
            let from: u64 = skip.or(next).map_or(0, |n| n.parse().unwrap());
            let page = from..(from + PAGE).min(ALL);
            let members: Vec<Value> = page
                .map(|n| if oldest_first { n } else { ALL - 1 - n })
                .map(|n| if inline { entry(n) } else { link(&format!("{ENTRIES}/{n}")) })
                .collect();
            let mut v = json!({"Members": members, "Members@odata.count": ALL});
            if from + PAGE < ALL {
                v["Members@odata.nextLink"] = json!(format!("{ENTRIES}?page={}", from + PAGE));
            }
            Reply::ok(v)
        }
        path if path.starts_with(ENTRIES) => {
            Reply::ok(entry(path.rsplit('/').next().unwrap().parse().unwrap()))
        }
        _ => calm(r),
    }
}

#[tokio::test]
async fn the_newest_lines_come_first_however_a_bmc_lists_them() {
    for oldest_first in [true, false] {
        for inline in [true, false] {
            for skips in [true, false] {
                let server = Server::start(move |r, _| log(r, oldest_first, inline, skips)).await;
                let found = edge().log(&target(&server.url), 3).await.unwrap();
                let lines: Vec<&str> = found.iter().map(|e| e.message.as_str()).collect();
                let how = format!("oldest first {oldest_first}, inline {inline}, skips {skips}");
                assert_eq!(lines, ["line 999", "line 998", "line 997"], "{how}");
                assert!(found.iter().all(|e| e.log == "SEL"));
                let asked = server.seen().iter().filter(|s| s.path.starts_with(ENTRIES)).count();
                assert!(asked <= if skips { 5 } else { 25 }, "{how}: {asked} requests");
            }
        }
    }
}

#[tokio::test]
async fn a_bmc_without_logs_sensors_or_a_clock_says_so() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let log = edge.log(&bmc, 3).await.unwrap_err();
    let sensors = edge.sensors(&bmc).await.unwrap_err();
    assert_eq!((log.class, log.code.as_ref()), (FaultClass::Unsupported, "no-log"));
    assert_eq!((sensors.class, sensors.code.as_ref()), (FaultClass::Unsupported, "no-sensors"));
    let clock = edge.clock(&bmc).await.unwrap();
    assert_eq!((clock.says, clock.ahead_ms), (None, None));
}

/// What an inventory says of the clock of a BMC whose manager answers so.
async fn noticed(manager: impl Fn() -> Reply + Send + Sync + 'static) -> Vec<String> {
    let server = Server::start(move |r, _| match r.path.as_str() {
        "/redfish/v1/Managers/1" => manager(),
        _ => calm(r),
    })
    .await;
    let found = edge().inventory(&target(&server.url)).await.unwrap();
    found.warnings.into_iter().filter(|w| w.contains("clock")).collect()
}

fn date(ahead_s: i64) -> impl Fn() -> Reply {
    move || {
        let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead_s);
        Reply::ok(json!({"DateTime": then.to_string()}))
    }
}

#[tokio::test]
async fn an_inventory_warns_of_a_clock_that_is_off_and_costs_nothing_else() {
    for (ahead_s, wanted) in [(600, "ahead"), (-600, "behind"), (-86_400 * 9_000, "behind")] {
        let said = noticed(date(ahead_s)).await;
        assert_eq!(said.len(), 1, "{ahead_s}: {said:?}");
        for part in [wanted, "it says ", "Farrier's says ", "hint: "] {
            assert!(said[0].contains(part), "{part} is not in {}", said[0]);
        }
    }
    for ahead_s in [0, 200, -200] {
        assert_eq!(noticed(date(ahead_s)).await, Vec::<String>::new(), "{ahead_s}");
    }
    // Field notes §1.3: such dates were seen.
    let said = noticed(|| Reply::ok(json!({"DateTime": "T00:00:00Z"}))).await;
    assert!(said[0].contains("`T00:00:00Z`, which is no time"), "{said:?}");
    // Missing, of another type, unreadable: the rest of the inventory is read all the same.
    for broken in [
        Reply::ok(json!({})),
        Reply::ok(json!({"DateTime": null})),
        Reply::ok(json!({"DateTime": [1, {"a": 2}], "DateTimeLocalOffset": 7})),
        Reply::ok(json!([])),
        Reply::status(500),
        Reply::status(404),
    ] {
        assert_eq!(noticed(move || broken.clone()).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_is_told_by_how_much() {
    let server = Server::start(|r, _| {
        if r.path == "/redfish/v1/Managers/1" {
            let ahead = jiff::Timestamp::now() + std::time::Duration::from_secs(600);
            return Reply::ok(json!({"DateTime": ahead.to_string()}));
        }
        calm(r)
    })
    .await;
    let clock = edge().clock(&target(&server.url)).await.unwrap();
    let ahead = clock.ahead_ms.unwrap();
    // The answer was written within the round trip, whose half is taken off.
    assert!((595_000..=605_000).contains(&ahead), "{ahead}");
}
