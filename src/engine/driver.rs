//! The thin tokio driver: carries commands out and brings events in. It decides nothing.

use super::clock::{Clock, Stopwatch, wall_ms};
use super::meter::Meter;
use super::perform::{Context, perform, read};
use super::{Command, Director, Event};
use crate::model::{
    Channel, Condition, EngineTime, Fault, FaultClass, MachineId, Outcome, Read, Report,
};
use crate::port::heard::Heard;
use crate::port::store::{CommitItem, Stopped, Store, StoreError};
use crate::port::{Inward, Ports};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

/// Items that one transaction takes at most (design §8: set-based statements over batches).
const BATCH: usize = 512;
/// Probes of machines on their way that are under way at once over the whole site; per-BMC gates
/// are the edge's. Each may hold three connections, so this is also what bounds the memory of a
/// site that starts.
const PROBES: usize = 640;
/// The same for machines at rest: under load they are looked at less often, and nobody who is on
/// the way waits behind them.
const PROBES_AT_REST: usize = 128;
/// The same for machines that are known to be unreachable: they never take a place from the others.
const PROBES_SILENT: usize = 256;
/// A probe that heard nothing for so long waits for somebody silent, which costs neither CPU nor
/// bandwidth: it goes on without its place. So a thousand BMCs that die together hold up the others
/// for seconds, not until their own deadlines.
const PLACE: Duration = Duration::from_secs(4);
/// How long a graceful stop waits for actions under way: the longest short deadline and a margin.
const STOP_WAIT: Duration = Duration::from_secs(130);

/// A question to the director, answered between two events.
pub type Query = Box<dyn FnOnce(&Director, EngineTime) + Send>;

/// What became durable, for streams and hooks.
#[derive(Clone, Debug)]
pub struct Durable {
    pub item: Arc<CommitItem>,
}

/// How the rest of the program speaks to a running engine.
#[derive(Clone, Debug)]
pub struct Handle {
    pub inbox: mpsc::Sender<Inward>,
    queries: mpsc::Sender<Query>,
    pub durable: broadcast::Sender<Durable>,
    pub meter: Arc<Meter>,
}

impl Handle {
    /// Asks the director; `None` when the engine has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Director, EngineTime) -> T + Send + 'static,
    ) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        let query: Query = Box::new(move |d, now| drop(tx.send(question(d, now))));
        self.queries.send(query).await.ok()?;
        rx.await.ok()
    }
}

/// The receiving ends of a [`Handle`].
#[derive(Debug)]
pub struct Ends {
    inbox: mpsc::Receiver<Inward>,
    queries: mpsc::Receiver<Query>,
}

/// A handle and its receiving ends: made first, because edges need the inbox.
pub fn channels() -> (Handle, Ends) {
    let (inbox_tx, inbox) = mpsc::channel(1024);
    let (queries_tx, queries) = mpsc::channel(256);
    let (durable, _) = broadcast::channel(4096);
    let meter = Arc::default();
    (Handle { inbox: inbox_tx, queries: queries_tx, durable, meter }, Ends { inbox, queries })
}

/// What the driver needs besides the director.
#[derive(Clone)]
pub struct Wiring {
    pub ports: Ports,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
}

impl std::fmt::Debug for Wiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wiring")
    }
}

enum Write {
    Item(Box<CommitItem>),
    Stop(Option<Stopped>),
}

/// The engine's loop. Returns when `stop` fires and everything under way has ended, or with the
/// reason why the process must end.
pub struct Driver {
    director: Director,
    wiring: Wiring,
    inbox: mpsc::Receiver<Inward>,
    queries: mpsc::Receiver<Query>,
    events: mpsc::UnboundedReceiver<Event>,
    send: mpsc::UnboundedSender<Event>,
    writer: mpsc::UnboundedSender<Write>,
    tickets: BTreeMap<u64, oneshot::Sender<Result<u64, Fault>>>,
    ticket: u64,
    probes: Arc<Semaphore>,
    at_rest: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    meter: Arc<Meter>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

impl Driver {
    /// Makes the driver and starts its writer; nothing else runs until [`Driver::run`].
    pub fn new(director: Director, wiring: Wiring, handle: &Handle, ends: Ends) -> Self {
        let (send, events) = mpsc::unbounded_channel();
        let (writer, writes) = mpsc::unbounded_channel();
        tokio::spawn(write_loop(
            wiring.store.clone(),
            wiring.clock,
            writes,
            send.clone(),
            handle.durable.clone(),
            handle.meter.clone(),
        ));
        Self {
            director,
            wiring,
            inbox: ends.inbox,
            queries: ends.queries,
            events,
            send,
            writer,
            tickets: BTreeMap::new(),
            ticket: 0,
            probes: Arc::new(Semaphore::new(PROBES)),
            at_rest: Arc::new(Semaphore::new(PROBES_AT_REST)),
            silent: Arc::new(Semaphore::new(PROBES_SILENT)),
            meter: handle.meter.clone(),
        }
    }

    /// Runs until `stop` resolves (graceful) or the store can't be trusted (`Err`: exit and
    /// recover at the next start).
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), String> {
        tokio::pin!(stop);
        let mut out = Vec::new();
        loop {
            let wait = self.wiring.clock.until(self.director.next_due());
            let event = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(event) = self.events.recv() => event,
                Some(inward) = self.inbox.recv() => match self.inward(inward) {
                    Some(event) => event,
                    None => continue,
                },
                Some(query) = self.queries.recv() => {
                    query(&self.director, self.wiring.clock.now());
                    continue;
                }
                () = pause(wait) => Event::Tick,
            };
            self.feed(event, &mut out)?;
            // Due machines are looked at even while events keep coming.
            if self.director.next_due() <= self.wiring.clock.now() {
                self.feed(Event::Tick, &mut out)?;
            }
        }
        self.finish(out).await
    }

    /// No action is abandoned half-way: what is under way ends and its outcome becomes durable.
    async fn finish(mut self, mut out: Vec<Command>) -> Result<(), String> {
        let deadline = pause(STOP_WAIT);
        tokio::pin!(deadline);
        while self.director.acting() > 0 || self.director.committing() > 0 {
            tracing::info!(
                actions = self.director.acting(),
                commits = self.director.committing(),
                "stopping: waiting for what is under way"
            );
            tokio::select! {
                Some(event) = self.events.recv() => self.feed_stopping(event, &mut out)?,
                () = &mut deadline => {
                    tracing::warn!("stopping with actions under way; the next start recovers them");
                    break;
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, event: Event, out: &mut Vec<Command>) -> Result<(), String> {
        let now = self.wiring.clock.now();
        self.director.on(now, event, out);
        for command in out.drain(..) {
            self.carry_out(command, true)?;
        }
        Ok(())
    }

    /// While stopping, commits are made and nothing new is started: an intent that became durable
    /// just now is recovered at the next start.
    fn feed_stopping(&mut self, event: Event, out: &mut Vec<Command>) -> Result<(), String> {
        let now = self.wiring.clock.now();
        self.director.on(now, event, out);
        for command in out.drain(..) {
            if let Command::Act { machine, seq, .. } = &command {
                let why = "the daemon is stopping".to_string();
                let outcome = Outcome::Withdrawn { why };
                let event = Event::Acted { machine: *machine, seq: *seq, outcome };
                self.send.send(event).ok();
                continue;
            }
            self.carry_out(command, false)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command, probing: bool) -> Result<(), String> {
        match command {
            Command::Commit(item) => {
                self.writer.send(Write::Item(item)).map_err(|_| "the writer has ended")?;
            }
            Command::CommitStop { stopped } => {
                self.writer.send(Write::Stop(stopped)).map_err(|_| "the writer has ended")?;
            }
            Command::Probe { machine, token, set, job, handle, run } => {
                if !probing {
                    return Ok(());
                }
                let gate = match self.director.machine(machine) {
                    Some(m) if m.is_unreachable() => self.silent.clone(),
                    Some(m) if m.run.is_none() && m.stage.is_resting() => self.at_rest.clone(),
                    _ => self.probes.clone(),
                };
                let (send, clock) = (self.send.clone(), self.wiring.clock);
                let Some(context) = self.context(machine) else {
                    // Its profile is gone: an empty answer, so that it is looked at again.
                    let report = Box::new(Report { at: clock.now(), ..Report::default() });
                    send.send(Event::Probed { machine, token, report }).ok();
                    return Ok(());
                };
                let meter = self.meter.clone();
                tokio::spawn(async move {
                    let mut place = Some(gate.acquire_owned().await);
                    let heard = Heard::default();
                    let counted = heard.clone();
                    let watch = Stopwatch::start();
                    // In a task of its own: a panic in an edge must not leave the machine waiting.
                    let mut part = tokio::spawn(async move {
                        let (job, handle, run) =
                            (job.as_deref(), handle.as_deref(), run.as_deref());
                        counted.during(read(&context, set, job, handle, run)).await
                    });
                    let mut before = 0;
                    let part = loop {
                        match tokio::time::timeout(PLACE, &mut part).await {
                            Ok(part) => break part,
                            Err(_) if heard.count() == before => place = None,
                            Err(_) => before = heard.count(),
                        }
                    };
                    drop(place);
                    let mut report = Box::new(part.unwrap_or_else(|e| Report {
                        system: Read::Failed(broke(&e)),
                        ..Report::default()
                    }));
                    meter.probed(&report, watch.elapsed());
                    report.at = clock.now();
                    send.send(Event::Probed { machine, token, report }).ok();
                });
            }
            Command::Act { machine, seq, action, expect } => {
                let (send, meter, kind) = (self.send.clone(), self.meter.clone(), action.kind());
                let Some(context) = self.context(machine) else {
                    let why = "the machine's profile is not in the configuration".to_string();
                    let outcome = Outcome::Withdrawn { why };
                    send.send(Event::Acted { machine, seq, outcome }).ok();
                    return Ok(());
                };
                tokio::spawn(async move {
                    let act = tokio::spawn(async move { perform(&context, action, &expect).await });
                    let outcome =
                        act.await.unwrap_or_else(|e| Outcome::Unknown { fault: broke(&e) });
                    meter.acted(kind, &outcome);
                    send.send(Event::Acted { machine, seq, outcome }).ok();
                });
            }
            Command::Halt { why } => return Err(why),
            Command::Ack { ticket, result } => {
                if let Some(ack) = self.tickets.remove(&ticket) {
                    ack.send(result).ok();
                }
            }
        }
        Ok(())
    }

    fn context(&self, id: MachineId) -> Option<Context> {
        let row = self.director.machine(id)?;
        let expected = self.director.expected(id)?.clone();
        let profile = self.director.site().profiles.get(&expected.profile)?.clone();
        Some(Context {
            ports: self.wiring.ports.clone(),
            machine: id,
            identity: row.identity.or(&expected.identity),
            host_key: row.host_key.as_deref().map(Arc::from),
            ramdisk: row.ramdisk.as_deref().cloned(),
            answers: row.condition == Condition::Ok,
            expected,
            profile,
        })
    }

    fn ticket(&mut self, ack: oneshot::Sender<Result<u64, Fault>>) -> u64 {
        self.ticket += 1;
        self.tickets.insert(self.ticket, ack);
        self.ticket
    }

    fn inward(&mut self, inward: Inward) -> Option<Event> {
        Some(match inward {
            Inward::Change { machine, change, by, key, ack } => {
                let ticket = self.ticket(ack);
                Event::Change { machine, change, by, key, ticket }
            }
            Inward::Stop { why, by, ack } => {
                let ticket = self.ticket(ack);
                Event::Stop { why, by, ticket }
            }
            Inward::Expect { machines } => Event::Expect { machines },
            Inward::Site { site } => Event::Site { site },
            Inward::Poke { machine } => Event::Poke { machine },
        })
    }
}

/// An edge panicked: a defect of ours, told like any other fault.
fn broke(e: &tokio::task::JoinError) -> Fault {
    Fault::new(
        FaultClass::Bug,
        Channel::Engine,
        "edge-broke-off",
        format!("an edge broke off: {e}"),
    )
    .hint("please report this with the daemon's log")
}

/// The one writer: takes what has gathered, makes it durable in one transaction, answers each.
async fn write_loop(
    store: Arc<dyn Store>,
    clock: Clock,
    mut writes: mpsc::UnboundedReceiver<Write>,
    events: mpsc::UnboundedSender<Event>,
    durable: broadcast::Sender<Durable>,
    meter: Arc<Meter>,
) {
    let mut gathered = Vec::with_capacity(BATCH);
    while writes.recv_many(&mut gathered, BATCH).await > 0 {
        let mut batch = Vec::with_capacity(gathered.len());
        for write in gathered.drain(..) {
            match write {
                Write::Item(item) => batch.push(*item),
                Write::Stop(stopped) => {
                    // In order: what was said before the stop is written before it.
                    flush(&store, clock, &mut batch, &events, &durable, &meter).await;
                    let result = store.set_stopped(stopped.as_ref(), clock.now()).await;
                    events.send(Event::StopCommitted { result }).ok();
                }
            }
        }
        flush(&store, clock, &mut batch, &events, &durable, &meter).await;
    }
}

async fn flush(
    store: &Arc<dyn Store>,
    clock: Clock,
    batch: &mut Vec<CommitItem>,
    events: &mpsc::UnboundedSender<Event>,
    durable: &broadcast::Sender<Durable>,
    meter: &Meter,
) {
    if batch.is_empty() {
        return;
    }
    let items = std::mem::take(batch);
    let watch = Stopwatch::start();
    let result = store.commit(&items, clock.now(), wall_ms()).await;
    meter.commit_time.add(watch.elapsed());
    if result.is_ok() { &meter.commits } else { &meter.commits_failed }.add(1);
    match result {
        Ok(each) => {
            let complete = each.len() == items.len();
            for (item, result) in items.into_iter().zip(each) {
                let machine = item.machine;
                if result == crate::port::store::Committed::Durable {
                    meter.durable(&item);
                    if durable.receiver_count() > 0 {
                        durable.send(Durable { item: Arc::new(item) }).ok();
                    }
                }
                events.send(Event::Committed { machine, result: Ok(result) }).ok();
            }
            if !complete {
                tracing::error!("the store answered for fewer items than it was given");
            }
        }
        Err(e) => {
            match &e {
                StoreError::NotWritten(_) | StoreError::Full(_) => {
                    tracing::warn!(error = %e, items = items.len(), "commit failed; trying again, no new actions meanwhile");
                }
                _ => tracing::error!(error = %e, "commit failed"),
            }
            for item in items {
                let result = Err(e.clone());
                events.send(Event::Committed { machine: item.machine, result }).ok();
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver's timer")]
async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}
