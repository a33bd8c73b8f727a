//! The store in memory: rows and journals as a database would hold them, with its sequence and
//! idempotency checks. No I/O.

use crate::model::{EngineTime, Entry, Expected, Machine, MachineId, fold};
use crate::port::store::{CommitItem, Committed, Loaded, SiteState, Stopped};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See [`MemStore::snapshot`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    rows: Vec<Option<Machine>>,
    lengths: Vec<usize>,
    stopped: Option<Stopped>,
    resumed_at: EngineTime,
}

/// Everything durable.
#[derive(Debug, Default)]
pub struct MemStore {
    pub rows: Vec<Option<Machine>>,
    pub journal: Vec<Vec<(EngineTime, Entry)>>,
    pub stopped: Option<Stopped>,
    resumed_at: EngineTime,
    expected: BTreeMap<MachineId, Arc<Expected>>,
    keys: Vec<BTreeSet<String>>,
    incarnation: Arc<str>,
}

impl MemStore {
    pub fn new(machines: usize, incarnation: Arc<str>) -> Self {
        Self {
            rows: vec![None; machines],
            journal: vec![Vec::new(); machines],
            keys: vec![BTreeSet::new(); machines],
            incarnation,
            ..Self::default()
        }
    }

    /// Stop or resume, durable.
    pub fn set_stopped(&mut self, stopped: Option<Stopped>, now: EngineTime) {
        if stopped.is_none() {
            self.resumed_at = now;
        }
        self.stopped = stopped;
    }

    /// A copy to go back to: rows and how long the journals were.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            rows: self.rows.clone(),
            lengths: self.journal.iter().map(Vec::len).collect(),
            stopped: self.stopped.clone(),
            resumed_at: self.resumed_at,
        }
    }

    /// The copy becomes the database: what came after it is forgotten, every machine is told so,
    /// and from here on it is another incarnation.
    pub fn restore(&mut self, copy: &Snapshot, incarnation: Arc<str>, now: EngineTime) {
        self.rows.clone_from(&copy.rows);
        self.stopped.clone_from(&copy.stopped);
        self.resumed_at = copy.resumed_at;
        let was = std::mem::replace(&mut self.incarnation, incarnation);
        for (i, journal) in self.journal.iter_mut().enumerate() {
            journal.truncate(copy.lengths.get(i).copied().unwrap_or(0));
            self.keys[i] = journal
                .iter()
                .filter_map(|(_, entry)| match entry {
                    Entry::Changed { key, .. } => Some(key.clone()),
                    _ => None,
                })
                .collect();
            if let Some(row) = &mut self.rows[i] {
                let entry =
                    Entry::Restored { incarnation: self.incarnation.clone(), was: was.clone() };
                if fold::apply(row, &entry, now).is_ok() {
                    journal.push((now, entry));
                }
            }
        }
    }

    /// A disk that lied: the last commit of a machine is not there after a crash.
    pub fn forget_last(&mut self) {
        let moved = |r: &&mut Option<Machine>| r.as_ref().is_some_and(|r| r.run.is_some());
        let Some(row) =
            self.rows.iter_mut().filter(moved).max_by_key(|r| r.as_ref().map(|r| r.seq))
        else {
            return;
        };
        let Some(id) = row.as_ref().map(|r| r.id) else { return };
        let journal = &mut self.journal[id.0 as usize];
        journal.pop();
        *row = fold::fold(id, journal.iter().map(|(at, e)| (*at, e))).ok();
    }

    /// The inventory's lines: kept before the director hears of them.
    pub fn expect(&mut self, id: MachineId, expected: Arc<Expected>) {
        self.expected.insert(id, expected);
    }

    pub fn row(&self, id: MachineId) -> Option<&Machine> {
        self.rows.get(id.0 as usize)?.as_ref()
    }

    /// Why this item would not become durable.
    pub fn refusal(&self, item: &CommitItem) -> Option<Committed> {
        let stored_seq = self.row(item.machine).map_or(0, |r| r.seq);
        if stored_seq != item.after_seq {
            return Some(Committed::Conflict { stored_seq });
        }
        item.entries.iter().find_map(|entry| match entry {
            Entry::Changed { key, .. } if self.has_key(item.machine, key) => {
                Some(Committed::Repeated { key: key.clone() })
            }
            _ => None,
        })
    }

    /// A change with this idempotency key is in the journal.
    pub fn has_key(&self, machine: MachineId, key: &str) -> bool {
        self.keys.get(machine.0 as usize).is_some_and(|keys| keys.contains(key))
    }

    /// One item of a batch: durable, or not and why.
    pub fn commit(&mut self, item: CommitItem) -> Committed {
        if let Some(refused) = self.refusal(&item) {
            return refused;
        }
        let i = item.machine.0 as usize;
        for entry in &item.entries {
            if let Entry::Changed { key, .. } = entry {
                self.keys[i].insert(key.clone());
            }
        }
        let at = item.at;
        self.journal[i].extend(item.entries.into_iter().map(|e| (at, e)));
        self.rows[i] = Some(item.row);
        Committed::Durable
    }

    /// All that a starting daemon finds.
    pub fn load(&self, now: EngineTime) -> Loaded {
        Loaded {
            state: SiteState {
                incarnation: self.incarnation.clone(),
                engine_time: now,
                wall_ms: 0,
                stopped: self.stopped.clone(),
                resumed_at: self.resumed_at,
            },
            machines: self.rows.iter().flatten().cloned().collect(),
            expected: self.expected.clone(),
            workflows: BTreeMap::new(),
        }
    }
}
