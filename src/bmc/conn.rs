//! One BMC: its gate, its session, the links found on it, and requests that are logged in.

use super::discover::{Links, Root};
use super::fault;
use super::http::{Answer, NoAnswer, Request};
use super::session::Auth;
use super::tls::Policy;
use super::{RedfishBmc, Settings};
use crate::model::quirks::Quirks;
use crate::model::{BmcEndpoint, Channel, Fault};
use crate::port::BmcTarget;
use crate::port::session::At;
use backon::{ConstantBuilder, Retryable};
use reqwest::{Method, Url};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Redirects that a GET follows, within the same origin (sushy-tools answers names with 307).
const MAX_HOPS: usize = 2;

/// What is remembered of one BMC. Lost with the process, and nothing is lost by that.
#[derive(Debug)]
pub(super) struct Conn {
    /// Whose BMC it is.
    pub(super) at: At,
    endpoint: BmcEndpoint,
    pub(super) base: Url,
    pub(super) policy: Policy,
    /// Gates: one write and a few reads at a time (R7), whoever asks.
    reads: Semaphore,
    writes: Semaphore,
    pub(super) auth: tokio::sync::Mutex<Auth>,
    known: Mutex<Known>,
    /// `$expand` was tried and is broken here.
    pub(super) no_expand: AtomicBool,
    /// Just reset: what it answers before this is of before the reset (R20).
    settling: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    root: Option<Arc<Root>>,
    links: Option<Arc<Links>>,
    /// Collections by what names them: documents that never say anything else.
    lists: BTreeMap<List, Arc<str>>,
    /// Where each firmware inventory member was last read, by id. Never believed: whoever goes
    /// there compares the id.
    members: BTreeMap<String, String>,
    quirks: Option<Arc<Quirks>>,
}

/// A collection that a service document names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    Firmware,
    Tasks,
}

impl Conn {
    pub(super) fn new(at: At, endpoint: &BmcEndpoint, settings: &Settings) -> Result<Self, Fault> {
        let bad = |why: &str| {
            fault::precondition("bad-address", format!("BMC address `{}`: {why}", endpoint.url))
        };
        let base = Url::parse(&endpoint.url).map_err(|e| bad(&e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("it must be https://… (or http://… in labs)"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(fault::precondition(
                "bad-address",
                "the BMC address holds a user name or password; name a credential instead",
            ));
        }
        let policy = match Policy::parse(&endpoint.tls) {
            Some(p) => p,
            None if base.scheme() == "http" => Policy::Off,
            None => return Err(bad("`tls` must be `ca`, `off` or `sha256:<64 hex digits>`")),
        };
        Ok(Self {
            at,
            endpoint: endpoint.clone(),
            base,
            policy,
            reads: Semaphore::new(settings.reads_per_bmc.max(1)),
            writes: Semaphore::new(1),
            auth: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            no_expand: AtomicBool::new(false),
            settling: Mutex::default(),
        })
    }

    /// The same Redfish service, reached in the same way.
    pub(super) fn is_for(&self, endpoint: &BmcEndpoint) -> bool {
        let own = &self.endpoint;
        (&own.url, &own.credential, &own.tls)
            == (&endpoint.url, &endpoint.credential, &endpoint.tls)
    }

    /// Waits for this BMC's turn to write.
    pub(super) async fn write(&self) -> Option<SemaphorePermit<'_>> {
        self.writes.acquire().await.ok()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn root(&self) -> Option<Arc<Root>> {
        self.known().root.clone()
    }

    pub(super) fn keep_root(&self, root: &Arc<Root>) {
        self.known().root = Some(root.clone());
    }

    pub(super) fn links(&self) -> Option<Arc<Links>> {
        self.known().links.clone()
    }

    pub(super) fn keep_links(&self, links: &Arc<Links>) {
        self.known().links = Some(links.clone());
    }

    pub(super) fn quirks(&self) -> Option<Arc<Quirks>> {
        self.known().quirks.clone()
    }

    pub(super) fn keep_quirks(&self, quirks: &Arc<Quirks>) {
        self.known().quirks = Some(quirks.clone());
    }

    pub(super) fn forget_quirks(&self) {
        self.known().quirks = None;
        self.no_expand.store(false, Ordering::Relaxed);
    }

    pub(super) fn list(&self, of: List) -> Option<Arc<str>> {
        self.known().lists.get(&of).cloned()
    }

    pub(super) fn keep_list(&self, of: List, link: &str) {
        self.known().lists.insert(of, link.into());
    }

    pub(super) fn member(&self, id: &str) -> Option<String> {
        self.known().members.get(id).cloned()
    }

    /// The id of the member that was last read at `path`.
    pub(super) fn member_at(&self, path: &str) -> Option<String> {
        self.known().members.iter().find(|(_, p)| *p == path).map(|(id, _)| id.clone())
    }

    pub(super) fn keep_members(&self, members: BTreeMap<String, String>) {
        self.known().members = members;
    }

    /// After a 404 or a reset nothing found before is believed (R4, R20).
    pub(super) fn forget_links(&self) {
        *self.known() = Known::default();
        self.no_expand.store(false, Ordering::Relaxed);
    }

    /// A link on this BMC as URL. Another origin is refused: credentials go nowhere else.
    pub(super) fn url(&self, link: &str) -> Result<Url, Fault> {
        let mut url = self.base.join(link).map_err(|_| self.foreign(link))?;
        if url.origin() != self.base.origin() || !url.username().is_empty() {
            return Err(self.foreign(link));
        }
        // A fragment names a part inside a document; the document is what is read.
        url.set_fragment(None);
        Ok(url)
    }

    /// A link that leads elsewhere. The BMC may have put anything into it, also what it was told in
    /// confidence: the fault has none of that.
    fn foreign(&self, link: &str) -> Fault {
        // Someone logs in right now: rather no link than an unchecked one.
        let link = self.without_secrets(link);
        fault::foreign_link(link.as_deref().unwrap_or("(not shown while a login is under way)"))
    }

    /// The link as a path on this BMC, whatever authority it was given with: what a task is called.
    pub(super) fn path(&self, link: &str) -> Option<String> {
        let mut url = self.base.join(link).ok()?;
        url.set_fragment(None);
        // Another scheme's path need not be one here (`mailto:x`, backslashes).
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        // Two slashes would be a host.
        let path = url.path().strip_prefix('/')?.trim_start_matches('/');
        let path = match url.query() {
            Some(q) => format!("/{path}?{q}"),
            None => format!("/{path}"),
        };
        (path.len() > 1).then_some(path)
    }
}

/// One BMC for the length of one port call.
#[derive(Debug)]
pub(super) struct Bmc<'a> {
    pub(super) edge: &'a RedfishBmc,
    pub(super) target: &'a BmcTarget,
    pub(super) conn: Arc<Conn>,
}

impl Bmc<'_> {
    /// Sends once, logged in; one new login and one repetition where the session is refused. A 401
    /// says that nothing was done, so this is safe for actions too.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, NoAnswer> {
        let unsent = |fault| NoAnswer { fault, sent: false, cut: false };
        self.settled(&method, &url).map_err(unsent)?;
        let (mut login, mut round) = self.login().await.map_err(unsent)?;
        let mut again = true;
        loop {
            let request =
                Request { method: method.clone(), url: url.clone(), login: &login, if_match, body };
            let answer = self.edge.clients.send(self.conn.policy, request).await?;
            if answer.status != 401 {
                return Ok(answer);
            }
            let what = format!("{method} {}", url.path());
            (login, round) = self.login_refused(round, again, &what).await.map_err(unsent)?;
            again = false;
        }
    }

    /// A BMC goes on answering for some seconds after it took its reset, with sessions, tasks and
    /// versions of before: nothing is asked meanwhile, so that it is not taken for ready (R20).
    pub(super) fn settle(&self, seconds: u32) {
        if self.edge.settings.settle_after_reset && seconds > 0 {
            let until = Instant::now() + Duration::from_secs(u64::from(seconds));
            *self.conn.settling.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
    }

    pub(super) fn settled(&self, method: &Method, url: &Url) -> Result<(), Fault> {
        let mut settling = self.conn.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let left = settling.map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if !left.is_zero() => {
                let what = format!("{method} {}", url.path());
                let s = left.as_secs() + 1;
                let why = format!("{what}: the BMC was just reset; it is asked again in {s} s");
                let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                Err(Fault::no_answer(Channel::Bmc, why).retry_after(ms))
            }
            _ => {
                *settling = None;
                Ok(())
            }
        }
    }

    /// One GET: gated, redirects within the origin followed, repeated once where a kept-alive
    /// connection was cut under it (R6).
    pub(super) async fn get_answer(&self, link: &str) -> Result<Answer, Fault> {
        let mut url = self.conn.url(link)?;
        let _slot = self.conn.reads.acquire().await.ok();
        // The only retry of this edge: an idempotent GET, once, at once.
        let once = ConstantBuilder::default().with_delay(Duration::ZERO).with_max_times(1);
        let mut hops = 0;
        loop {
            let attempt = || self.send(Method::GET, url.clone(), None, None);
            let answer = attempt.retry(once).when(|no: &NoAnswer| no.cut).await;
            match answer {
                Ok(a) if (300..400).contains(&a.status) && hops < MAX_HOPS => {
                    let Some(to) = &a.location else { return Ok(a) };
                    let next = url.join(to).map_err(|_| self.conn.foreign(to))?;
                    url = self.conn.url(next.as_str())?;
                    hops += 1;
                }
                Ok(answer) => return Ok(answer),
                Err(no) => return Err(no.fault),
            }
        }
    }

    /// One document by GET.
    pub(super) async fn get(&self, link: &str) -> Result<Value, Fault> {
        Ok(self.get_with_etag(link).await?.0)
    }

    /// One document and its ETag header.
    pub(super) async fn get_with_etag(&self, link: &str) -> Result<(Value, Option<String>), Fault> {
        let mut answer = self.get_answer(link).await?;
        let etag = answer.etag.take();
        let what = format!("GET {link}");
        let document = fault::document(&what, answer);
        Ok((document.map_err(|f| self.scrubbed(f))?, etag))
    }
}
