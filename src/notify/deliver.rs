//! One task a hook.

use super::sign::signature;
use crate::port::Vault;
use crate::port::outbox::{EventKind, Outbox, OutboxLine};
use backon::BackoffBuilder;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// A webhook as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    pub url: String,
    /// Name of the kept secret that signs; `None`: deliveries are not signed.
    pub secret: Option<String>,
    pub events: BTreeSet<EventKind>,
    /// For one delivery, answer included.
    pub timeout: Duration,
}

/// How a hook stands. Counters start with the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookNumbers {
    /// Lines of the outbox that it still has to go through.
    pub depth: u64,
    pub delivered: u64,
    /// Deliveries that failed and are tried again.
    pub failures: u64,
    /// Lines that were gone before it could have them.
    pub missed: u64,
    /// Since when it fails (seconds since 1970), and how; `None`: the last delivery went through.
    pub failing: Option<(u64, String)>,
}

type Numbers = Arc<Mutex<BTreeMap<String, HookNumbers>>>;

/// The running hooks. Clones share them.
#[derive(Clone)]
pub struct Notifier {
    outbox: Arc<dyn Outbox>,
    vault: Arc<dyn Vault>,
    http: reqwest::Client,
    running: Arc<Mutex<BTreeMap<String, (Hook, JoinHandle<()>)>>>,
    numbers: Numbers,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

/// Lines read at once.
const PAGE: u32 = 64;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Notifier {
    /// No hook runs until [`Notifier::set`].
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(outbox: Arc<dyn Outbox>, vault: Arc<dyn Vault>) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .no_proxy()
            // What is signed for one address is not carried to another.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("farrier/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("no HTTP client for webhooks: {e}"))?;
        let (running, numbers) = (Arc::default(), Arc::default());
        Ok(Self { outbox, vault, http, running, numbers })
    }

    /// From here on exactly these hooks run; one that did not change goes on undisturbed. A hook
    /// that is new has its place in the outbox when this returns: what comes later is for it.
    pub async fn set(&self, hooks: Vec<Hook>) {
        for hook in &hooks {
            if let Err(e) = self.outbox.stand(&hook.name).await {
                tracing::warn!(webhook = hook.name, error = %e, "its place in the outbox is not known yet");
            }
        }
        let mut running = held(&self.running);
        running.retain(|name, (hook, task)| {
            let stays = hooks.iter().any(|h| h == hook);
            if !stays {
                task.abort();
                held(&self.numbers).remove(name);
            }
            stays
        });
        for hook in hooks {
            if !running.contains_key(&hook.name) {
                held(&self.numbers).insert(hook.name.clone(), HookNumbers::default());
                let task = tokio::spawn(self.clone().run(hook.clone()));
                running.insert(hook.name.clone(), (hook, task));
            }
        }
    }

    /// By hook.
    pub fn numbers(&self) -> BTreeMap<String, HookNumbers> {
        held(&self.numbers).clone()
    }

    /// Sends a `test` event now, past the outbox. `None`: there is no such hook.
    ///
    /// # Errors
    /// Why the delivery failed.
    pub async fn test(&self, name: &str) -> Option<Result<u16, String>> {
        let hook = held(&self.running).get(name).map(|(hook, _)| hook.clone())?;
        let line = OutboxLine {
            number: 0,
            id: format!("test-{}", now_s()),
            event: EventKind::Test.name().into(),
            wall_ms: now_s() * 1000,
            body: Map::new(),
        };
        Some(self.post(&hook, &line).await)
    }

    async fn run(self, hook: Hook) {
        let mut news = self.outbox.news();
        let mut pauses = Pauses::new();
        let mut stand = loop {
            match self.outbox.stand(&hook.name).await {
                Ok(number) => break number,
                Err(e) => self.failed(&hook, &e.to_string(), pauses.next()).await,
            }
        };
        pauses = Pauses::new();
        loop {
            // Marked as seen before reading: what comes meanwhile wakes us again.
            news.borrow_and_update();
            let lines = match self.outbox.after(stand, PAGE).await {
                Ok(lines) => lines,
                Err(e) => {
                    self.failed(&hook, &e.to_string(), pauses.next()).await;
                    continue;
                }
            };
            if lines.is_empty() {
                self.note(&hook, |n| n.depth = 0);
                if news.changed().await.is_err() {
                    return;
                }
                continue;
            }
            for line in lines {
                self.count(&hook, stand, &line).await;
                let wanted = hook.events.iter().any(|e| e.name() == line.event);
                if wanted {
                    while let Err(why) = self.post(&hook, &line).await {
                        self.failed(&hook, &why, pauses.next()).await;
                        self.count(&hook, line.number - 1, &line).await;
                    }
                    pauses = Pauses::new();
                    self.note(&hook, |n| {
                        n.delivered += 1;
                        n.failing = None;
                    });
                }
                stand = line.number;
                // A kill before this is durable delivers it once more, under the same id.
                while let Err(e) = self.outbox.delivered(&hook.name, stand).await {
                    self.failed(&hook, &e.to_string(), pauses.next()).await;
                }
            }
        }
    }

    async fn count(&self, hook: &Hook, stand: u64, line: &OutboxLine) {
        let depth = self.outbox.depth(stand).await.ok();
        self.note(hook, |n| {
            n.missed += (line.number - 1).saturating_sub(stand);
            n.depth = depth.unwrap_or(n.depth);
        });
    }

    async fn post(&self, hook: &Hook, line: &OutboxLine) -> Result<u16, String> {
        let mut said = Map::new();
        said.insert("id".into(), line.id.as_str().into());
        said.insert("event".into(), line.event.as_str().into());
        said.insert("at".into(), date(line.wall_ms).into());
        said.extend(line.body.clone());
        let body = Value::from(said).to_string();
        let mut request = self
            .http
            .post(&hook.url)
            .timeout(hook.timeout)
            .header("content-type", "application/json")
            .header("x-farrier-event", &line.event)
            .header("x-farrier-delivery", &line.id);
        if let Some(name) = &hook.secret {
            let secret = self.vault.credential(name).await.map_err(|f| f.to_string())?;
            let sealed = signature(secret.password.expose(), now_s(), body.as_bytes());
            request = request.header("x-farrier-signature", sealed);
        }
        // The URL may hold a token of the receiver's: it is no part of a message.
        let answer = request.body(body).send().await.map_err(|e| causes(&e.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(status.as_u16()),
            status => Err(format!("it answered {status}")),
        }
    }

    fn note(&self, hook: &Hook, change: impl FnOnce(&mut HookNumbers)) {
        if let Some(numbers) = held(&self.numbers).get_mut(&hook.name) {
            change(numbers);
        }
    }

    /// Tells of it (the first time and then rarely) and waits.
    async fn failed(&self, hook: &Hook, why: &str, pause: Duration) {
        let mut first = false;
        self.note(hook, |n| {
            first = n.failing.is_none();
            n.failures += 1;
            let since = n.failing.take().map_or_else(now_s, |f| f.0);
            n.failing = Some((since, why.to_string()));
        });
        if first {
            tracing::warn!(webhook = %hook.name, why, "a webhook can't be reached; what it should be told is kept and tried again");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Exponential with jitter, up to [`LONGEST_PAUSE`], without an end.
struct Pauses(backon::ExponentialBackoff);

impl Pauses {
    fn new() -> Self {
        let policy = backon::ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        Self(policy.build())
    }

    fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST_PAUSE)
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only plain values are stored under it: nothing half-done can be seen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn date(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().to_string()
}

fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}
