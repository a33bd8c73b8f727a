//! People who keep every machine busy: what has arrived is sent on, round and round, and each word
//! is said again under the same key until it is acknowledged.

use farrier::app::demo::Site;
use farrier::app::demo::fleet::{Api, Fleet, Row};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// One station of a round: how one goes there, and where the machine rests then.
#[derive(Clone, Copy)]
struct Station {
    verb: &'static str,
    desired: &'static str,
}

/// Installed, emptied for good, enrolled anew. Every third one sees the cluster in between; to drain
/// it takes hours of the world's time, so in a short run it stays there.
fn round(n: usize, long: bool) -> &'static [Station] {
    const SPARE: Station = Station { verb: "enroll", desired: "ready" };
    const SERVICE: Station = Station { verb: "desire", desired: "in-service" };
    const RETIRED: Station = Station { verb: "desire", desired: "retired" };
    match (n % 3, long) {
        (0, true) => &[SPARE, SERVICE, RETIRED],
        (0, false) => &[SPARE, SERVICE],
        _ => &[SPARE, RETIRED],
    }
}

/// How far a machine has come.
#[derive(Default)]
struct Trip {
    /// Stations that were ordered and acknowledged.
    ordered: usize,
    said: usize,
    /// Said and not acknowledged: the answer died with the daemon, the order may stand.
    in_air: bool,
}

pub(crate) struct People<'a> {
    site: &'a Site,
    http: reqwest::Client,
    trips: BTreeMap<String, Trip>,
    long: bool,
}

impl<'a> People<'a> {
    pub(crate) fn new(site: &'a Site, long: bool) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(3))
            .build()
            .expect("a client");
        Self { site, http, trips: BTreeMap::new(), long }
    }

    fn is_sick(&self, name: &str) -> bool {
        self.site.trouble.get(name).is_some_and(|t| t.is_for_good())
    }

    /// Where a machine is wanted now; `None` before its first order.
    fn wanted(&self, n: usize, name: &str) -> Option<&'static str> {
        let trip = self.trips.get(name)?;
        let round = round(n, self.long);
        Some(round[trip.ordered.checked_sub(1)? % round.len()].desired)
    }

    fn has_arrived(&self, n: usize, row: &Row) -> bool {
        match self.wanted(n, &row.name) {
            None => row.control == "unmanaged",
            Some(stage) => row.stage == stage && row.condition == "ok",
        }
    }

    /// Sends on whoever has arrived. A daemon that is being killed under it hears it next time.
    pub(crate) async fn send_on(&mut self, fleet: &Fleet) {
        for (n, row) in fleet.rows.iter().enumerate() {
            let ordered = self.trips.get(&row.name).map_or(0, |t| t.ordered);
            let in_air = self.trips.get(&row.name).is_some_and(|t| t.in_air);
            let stays = ordered > 0 && (self.is_sick(&row.name) || self.stays(n, ordered));
            if !in_air && (stays || !self.has_arrived(n, row)) {
                continue;
            }
            self.say(n, &row.name).await;
        }
    }

    /// Its round ends in service, and there it stays.
    fn stays(&self, n: usize, ordered: usize) -> bool {
        let round = round(n, self.long);
        ordered == round.len() && round.last().is_some_and(|s| s.desired == "in-service")
    }

    async fn say(&mut self, n: usize, name: &str) {
        let trip = self.trips.entry(name.to_string()).or_default();
        let round = round(n, self.long);
        let station = round[trip.ordered % round.len()];
        let url = format!("{}/v1/machines/{name}/changes", self.site.api_url);
        trip.said += 1;
        trip.in_air = true;
        let answer = self
            .http
            .post(url)
            .header("x-farrier-by", "people")
            .header("idempotency-key", format!("{name}-{}", trip.ordered))
            .json(&json!({"change": station.verb, "desired": station.desired}))
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status().is_success() => {
                trip.ordered += 1;
                trip.in_air = false;
            }
            Ok(answer) if answer.status().is_server_error() => {}
            Ok(answer) => panic!("{name}: {} {:?}", answer.status(), answer.text().await),
            Err(_) => {}
        }
    }

    /// Machines that are not yet where they were sent last; the sick ones: in quarantine.
    pub(crate) fn under_way(&self, fleet: &Fleet) -> Vec<Row> {
        let there = |n: usize, row: &Row| match self.is_sick(&row.name) {
            true => row.condition == "quarantined",
            false => self.has_arrived(n, row),
        };
        fleet
            .rows
            .iter()
            .enumerate()
            .filter(|(n, r)| !there(*n, r))
            .map(|(_, r)| r.clone())
            .collect()
    }

    /// Machines in quarantine that nothing is wrong with but the daemon's ends.
    pub(crate) fn given_up(&self, fleet: &Fleet) -> Vec<Row> {
        let is = |r: &&Row| r.condition == "quarantined" && !self.is_sick(&r.name);
        fleet.rows.iter().filter(is).cloned().collect()
    }

    /// Healthy machines that have not been through a retirement yet.
    pub(crate) fn new_comers(&self, fleet: &Fleet) -> usize {
        let whole = |n: usize, row: &Row| {
            let through = |t: &Trip| t.ordered > round(n, self.long).len();
            let trip = self.trips.get(&row.name);
            trip.is_some_and(|t| !t.in_air && (through(t) || self.stays(n, t.ordered)))
        };
        fleet
            .rows
            .iter()
            .enumerate()
            .filter(|(n, r)| !self.is_sick(&r.name) && !whole(*n, r))
            .count()
    }

    /// Orders acknowledged, and how often they had to be said.
    pub(crate) fn words(&self) -> (usize, usize) {
        self.trips.values().fold((0, 0), |(o, s), t| (o + t.ordered, s + t.said))
    }

    /// Everybody's explanation, for a test that fails.
    pub(crate) async fn explain(&self, api: &Api, rows: &[Row]) {
        for row in rows {
            println!("--- {row:?}\n{}", api.explain(&row.name).await.unwrap_or_default());
        }
    }
}
