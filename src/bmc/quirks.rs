//! Which quirks one BMC has: what it says of itself, looked up in the table. Asked for before writes
//! and logins, never on the way of a plain probe.

use super::conn::Bmc;
use super::discover::{Root, is_fatal};
use super::{controllers, json, system};
use crate::model::Fault;
use crate::model::quirks::{Quirks, Subject};
use serde_json::Value;
use std::sync::Arc;

impl Bmc<'_> {
    /// The BMC's quirks; its system is read for them where they are not known yet.
    pub(super) async fn quirks(&self) -> Result<Arc<Quirks>, Fault> {
        if let Some(known) = self.conn.quirks() {
            return Ok(known);
        }
        let (_, system) = system::fetch(self).await?;
        self.quirks_of(&system).await
    }

    /// The BMC's quirks, where its system was just read. The manager is asked for its firmware only
    /// where a rule wants to know.
    pub(super) async fn quirks_of(&self, system: &Value) -> Result<Arc<Quirks>, Fault> {
        if let Some(known) = self.conn.quirks() {
            return Ok(known);
        }
        let table = self.edge.table();
        let mut subject = self.root().await?.subject.clone();
        subject.vendors.extend(json::text(system, &["Manufacturer"]));
        subject.model = json::text(system, &["Model"]);
        let mut whole = true;
        if table.asks_manager(&subject) {
            match controllers::host(self, system).await {
                Ok(Some((_, manager))) => {
                    subject.bmc = json::text(&manager, &["Model"]);
                    subject.firmware = json::text(&manager, &["FirmwareVersion"]);
                }
                Ok(None) => {}
                Err(f) if is_fatal(&f) => return Err(f),
                // Half up: what is known so far counts for now, and is not remembered.
                Err(_) => whole = false,
            }
        }
        let quirks = Arc::new(table.resolve(&subject));
        if whole {
            self.conn.keep_quirks(&quirks);
        }
        Ok(quirks)
    }

    /// What is known before a login: the service root alone speaks. Rules that need more (a model, a
    /// firmware) do not fit yet.
    pub(super) fn quirks_of_root(&self, root: &Root) -> Arc<Quirks> {
        match self.conn.quirks() {
            Some(known) => known,
            None => Arc::new(self.edge.table().resolve(&root.subject)),
        }
    }

    /// Is this system's serial its service tag? Asked on every probe, so without a request.
    pub(super) fn by_tag(&self, system: &Value) -> bool {
        self.quirks_at_hand(system).service_tag
    }

    /// What is known of a system's document alone, without a request.
    fn quirks_at_hand(&self, system: &Value) -> Arc<Quirks> {
        if let Some(known) = self.conn.quirks() {
            return known;
        }
        let mut subject = self.conn.root().map_or_else(Subject::default, |r| r.subject.clone());
        subject.vendors.extend(json::text(system, &["Manufacturer"]));
        subject.model = json::text(system, &["Model"]);
        Arc::new(self.edge.table().resolve(&subject))
    }
}
