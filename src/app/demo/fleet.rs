//! What the daemon's API says of the fleet. The demo is a client like any other.

use super::{DemoError, Trouble};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A client for plain HTTP on loopback.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    // Another part of the process may have installed it; the first one stays.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
}

/// The daemon's API.
#[derive(Debug)]
pub struct Api {
    http: reqwest::Client,
    base: String,
}

/// One machine, as far as a demo shows it.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub stage: String,
    pub condition: String,
    pub control: String,
    /// Code of the last fault.
    pub fault: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    machines: Vec<PageRow>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct PageRow {
    name: String,
    stage: String,
    condition: String,
    control: String,
    fault: Option<PageFault>,
}

#[derive(Deserialize)]
struct PageFault {
    code: String,
}

/// All machines at one time.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub rows: Vec<Row>,
}

impl Fleet {
    /// Machines that rest at `stage`, the quarantined left out.
    pub fn at(&self, stage: &str) -> usize {
        self.rows.iter().filter(|r| r.stage == stage && r.condition != "quarantined").count()
    }

    pub fn quarantined(&self) -> usize {
        self.with("quarantined")
    }

    pub fn with(&self, condition: &str) -> usize {
        self.rows.iter().filter(|r| r.condition == condition).count()
    }

    /// Machines that are not where they must end: healthy ones at `until`, sick ones quarantined.
    pub fn stuck<'a>(
        &'a self,
        until: &'a str,
        trouble: &'a BTreeMap<String, Trouble>,
    ) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |r| {
            let sick = trouble.get(&r.name).is_some_and(|t| t.is_for_good());
            match sick {
                true => r.condition != "quarantined",
                false => r.stage != until || r.condition != "ok",
            }
        })
    }

    /// Has every machine ended where it must?
    pub fn rests(&self, until: &str, trouble: &BTreeMap<String, Trouble>) -> bool {
        !self.rows.is_empty() && self.stuck(until, trouble).next().is_none()
    }
}

impl Api {
    pub fn new(base: &str) -> Result<Self, DemoError> {
        let http = client().map_err(|e| DemoError::Api(e.to_string()))?;
        Ok(Self { http, base: base.to_string() })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, DemoError> {
        let api = |e: reqwest::Error| DemoError::Api(format!("{path}: {e}"));
        let answer = self.http.get(format!("{}{path}", self.base)).send().await.map_err(api)?;
        answer.error_for_status().map_err(api)?.json().await.map_err(api)
    }

    /// All machines.
    pub async fn fleet(&self) -> Result<Fleet, DemoError> {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let page: Page = self.get(&format!("/v1/machines?limit=1000{after}")).await?;
            rows.extend(page.machines.into_iter().map(|r| Row {
                name: r.name,
                stage: r.stage,
                condition: r.condition,
                control: r.control,
                fault: r.fault.map(|f| f.code),
            }));
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(Fleet { rows }),
            }
        }
    }

    /// Hands every machine to its workflow, once the daemon knows them all.
    pub async fn enroll_all(&self, machines: u32, desired: &str) -> Result<(), DemoError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let wanted = usize::try_from(machines).unwrap_or(usize::MAX);
        loop {
            let fleet = self.fleet().await?;
            let open = fleet.rows.iter().filter(|r| r.control == "unmanaged").count();
            if fleet.rows.len() == wanted && open == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DemoError::Api(format!(
                    "{} of {machines} machines are known, {open} not enrolled",
                    fleet.rows.len()
                )));
            }
            if fleet.rows.len() == wanted {
                let order = json!({
                    "selector": {"control": "unmanaged"}, "confirm": open,
                    "change": {"change": "enroll", "desired": desired},
                });
                self.change(&order).await?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn change(&self, order: &Value) -> Result<(), DemoError> {
        let api = |e: reqwest::Error| DemoError::Api(format!("/v1/changes: {e}"));
        let answer = self
            .http
            .post(format!("{}/v1/changes", self.base))
            .header("x-farrier-by", "demo")
            .json(order)
            .send()
            .await
            .map_err(api)?;
        let status = answer.status();
        // 409: the count changed meanwhile; the caller looks again.
        if status.is_success() || status.as_u16() == 409 {
            return Ok(());
        }
        Err(DemoError::Api(format!("/v1/changes: {status}: {}", answer.text().await.map_err(api)?)))
    }

    /// The explanation of one machine, for people.
    pub async fn explain(&self, name: &str) -> Result<String, DemoError> {
        let value: Value = self.get(&format!("/v1/machines/{name}/explain")).await?;
        let mut out = String::new();
        for (key, label) in [
            ("summary", ""),
            ("attempt", "attempt: "),
            ("waiting_for", "waiting for: "),
            ("last_fault", "last fault: "),
            ("evidence", "evidence: "),
            ("hint", "hint: "),
            ("next", "next: "),
        ] {
            if let Some(text) = value[key].as_str().filter(|t| !t.is_empty()) {
                let text: String = text.chars().take(400).collect();
                out += &format!("{label}{text}\n");
            }
        }
        for way in value["ways_out"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            out += &format!("  {way}\n");
        }
        Ok(out.trim_end().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, stage: &str, condition: &str) -> Row {
        Row {
            name: name.into(),
            stage: stage.into(),
            condition: condition.into(),
            control: "enrolled".into(),
            fault: None,
        }
    }

    #[test]
    fn a_fleet_rests_when_the_healthy_arrived_and_the_sick_are_quarantined() {
        let trouble: BTreeMap<String, Trouble> =
            [("b".to_string(), Trouble::BadGpu), ("c".to_string(), Trouble::BmcOutage)].into();
        let mut fleet = Fleet {
            rows: vec![
                row("a", "in-service", "ok"),
                row("b", "burn-in", "backing-off"),
                row("c", "in-service", "unreachable"),
            ],
        };
        let stuck =
            |f: &Fleet| f.stuck("in-service", &trouble).map(|r| r.name.clone()).collect::<Vec<_>>();
        assert_eq!(stuck(&fleet), ["b", "c"]);
        fleet.rows[1].condition = "quarantined".into();
        fleet.rows[2].condition = "ok".into();
        assert!(fleet.rests("in-service", &trouble));
        assert!(!fleet.rests("ready", &trouble));
        fleet.rows[0].condition = "quarantined".into();
        assert_eq!(stuck(&fleet), ["a"], "a healthy machine in quarantine is a failure");
        assert!(!Fleet::default().rests("in-service", &trouble), "no machine is no fleet");
    }
}
