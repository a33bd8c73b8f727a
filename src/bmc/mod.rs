//! The BMC edge: a thin Redfish client (DSP0266, DSP0268) that trusts nothing it reads. It follows
//! links and action targets, classifies every failure, keeps one session per BMC and sends every
//! action once. Comparing what an action expects is done here, deciding never.
//!
//! What the field taught (field notes §3, §4), where it is kept and which test holds it. Tests named
//! without a file are in `tests/bmc/faults.rs`.
//!
//! | rule | what | where | test |
//! | --- | --- | --- | --- |
//! | R1 | the service root needs no login and names the sessions | `discover`, `session` | `a_calm_bmc_is_read_with_one_login_and_then_one_get` |
//! | R2 | one session, kept over restarts, of this login alone; one new login after a 401 | `session`, `store/sessions` | sessions: `a_session_is_taken_up_again_after_a_kill`, `a_session_of_another_login_is_not_used`, `a_log_out_ends_the_session_and_forgets_it`; `an_expired_session_is_renewed_once` |
//! | R2 | below what locks the account, after what outlasts the lock | `session` | sessions: `refused_logins_stay_below_what_locks_the_account`, `a_lock_is_outlasted_before_the_next_login`; `refused_logins_are_never_looped` |
//! | R2 | sessions of 30 s | `session` | sessions: `a_short_session_is_learnt_and_renewed_without_a_refused_request` |
//! | R3 | out of sessions is not down; no Basic after a failed renewal | `session`, `fault` | `without_a_session_left_basic_is_used`; sessions: `a_session_is_not_traded_for_basic_when_its_renewal_fails`, `sessions_that_may_still_be_open_count_towards_the_most_that_a_bmc_has`, `a_login_is_tried_without_a_session_where_there_is_none_to_spare` |
//! | R4 | a BMC reset takes links, tasks and sessions with it | `power`, `conn` | `a_moved_system_is_found_again`, `an_expired_session_is_renewed_once`; `tests/vbmc_behaviour`: `a_machine_of_every_vendor_ends_where_it_truly_is` |
//! | R5 | Retry-After, ServiceTemporarilyUnavailable, SYS518; an action is never resent | `fault`, `guard` | `fault`: `a_bmc_says_how_long_to_wait_in_three_ways`; writes: `a_post_dropped_after_it_arrived_is_unknown_and_was_sent_once` |
//! | R6 | a cut kept-alive connection: one more GET, never one more POST | `conn`, `http` | `a_cut_kept_alive_connection_is_tried_once_more` |
//! | R7 | one write, few reads, deadlines per request and in all; uploads by size and while they move | `conn`, `http`, `push` | `one_bmc_gets_one_write_at_a_time`, `one_bmc_gets_three_reads_at_a_time`, `a_part_of_a_probe_has_a_deadline_for_all_its_requests`; push: `an_upload_that_stands_still_is_given_up` |
//! | R8 | bodies that are no JSON | `http`, `fault` | `html_and_half_a_body_are_not_redfish` |
//! | R9 | errors in every shape, in a 200 too | `json`, `fault`, `guard`, `boot` | `json`: `messages_are_found_in_every_shape`; `a_success_that_is_an_error_alone_is_no_empty_system`; quirks: `an_override_that_works_with_errors_inside_is_applied_when_it_shows` |
//! | R10 | an expired password; lengths; an account that is there is changed, none is made | `fault`, `accounts` | `an_expired_password_is_said`; `tests/credentials`: `a_factory_password_that_must_change_first_is_the_same_flow`, `what_is_known_of_a_kind_narrows_what_its_bmc_says`, `a_name_that_is_longer_than_the_bmc_has_them_is_told_so` |
//! | R11 | 409 and its kin: already so, or not now and when | `power`, `boot`, `fault` | writes: `already_so_is_applied_when_the_system_shows_it`; quirks: `a_reset_refused_for_the_moment_says_when_to_come_again` |
//! | R12 | ETags | `patch`, `guard` | writes: `the_boot_override_is_minimal_and_speaks_the_bmcs_etag`; quirks: `if_match_is_said_as_the_vendor_wants_it` |
//! | R13 | a task's handle, wherever it is said; a task that became a job | `task` | writes: `handles_are_found_in_every_place`; `a_task_that_became_a_job_is_as_far_as_the_job` |
//! | R14, R16, R17 | states by state, status and messages, never by percent | `task` | `task`: `states_are_read_by_state_status_and_messages` |
//! | §3.1 | updates and copies that no task shows | `work` | work: `an_ilo_that_flashes_says_so_without_a_task`, `a_root_of_trust_that_copies_is_waited_for`, `work_that_can_not_be_read_may_go_on`, `a_board_that_lists_no_chassis_yet_may_be_copying` |
//! | §3.1 | what a vendor resets unless it is told not to | `push` | push: `a_supermicro_is_told_to_keep_its_serial_and_settings` |
//! | §6.15 | a full job queue, a lifecycle controller in use: not now, and who fills it; no job of others is deleted | `jobs`, `fault` | `tests/vbmc_behaviour`: `a_full_job_queue_is_said_with_who_fills_it_and_nothing_of_theirs_is_deleted`, `a_lifecycle_controller_in_use_is_waited_for` |
//! | R15 | a task that is gone is neither done nor failed | `task` | writes: `an_update_names_its_target_and_leaves_a_handle` |
//! | R16, R18, R19 | stalls, versions by component, activation | above the edge: `decide::judge`, `steps::firmware` | `tests/firmware.rs` |
//! | R20 | not taken for ready too early | `conn`, `discover` | sessions: `a_bmc_just_reset_is_left_alone_and_then_asked_again`; `a_service_that_is_half_up_is_not_called_unsupported` |
//! | R21 | service enabled, busy flag, protocol, size; streamed with its length | `update`, `push` | push: `an_image_is_streamed_whole_with_its_length_and_login`, `lenovos_service_is_taken_used_and_given_back`, `another_file_than_the_approved_one_is_not_sent` |
//! | R22 | plain image URLs | `config::catalog`, `boot::images` | `tests/config.rs`, `tests/boot.rs` |
//! | R22 | a clock that is off by more than five minutes | `clock`, `inventory` | logs: `an_inventory_warns_of_a_clock_that_is_off_and_costs_nothing_else` |
//! | R23 | nothing in a document is sure | `json`, `discover` | `null_members_are_an_empty_collection`, `collections_are_read_page_by_page_and_not_in_a_circle`, `expand_is_used_where_it_works_and_dropped_where_it_does_not`; `tests/bmc/trees.rs` |
//! | R24 | never the first system, never the first manager | `discover`, `controllers` | `discover`: `the_system_is_chosen_by_identity_then_by_what_it_can_do`; quirks: `the_hosts_bmc_is_told_from_the_baseboards` |
//! | §4 boot | the body, place and names that a vendor takes | `boot` | quirks: `the_boot_override_has_the_form_that_the_vendor_takes`, `a_boot_target_goes_by_the_vendors_name`, `a_boot_override_may_have_a_mode_and_last`; writes: `the_settings_object_takes_the_override_where_it_has_one` |
//! | §4 power | reset types that there are; all power cut | `power` | quirks: `a_restart_that_takes_two_acts_is_not_one`, `all_power_is_cut_only_where_it_is_known_how_and_with_the_host_off`; writes: `what_a_bmc_lacks_is_unsupported_with_a_hint`, `an_older_idrac_cuts_all_power_by_a_bios_setting`, `a_bios_setting_for_it_is_guarded_and_never_waits_in_silence` |
//! | §4 media | which drive, emptied first, forms in turn | `media` | media: `a_drive_is_emptied_before_it_is_filled_whatever_it_says`, `the_next_form_is_sent_only_where_one_was_turned_down`, `a_drive_without_actions_is_patched_with_its_etag`, `a_5xx_right_after_an_eject_means_not_yet` |
//! | volumes | drives by their serials, all of storage read or none, ordered once | `storage`, `volumes` | bios: `storage_is_read_whole_or_not_at_all`, `a_volume_is_made_of_the_drives_with_these_serials_and_read_back`, `drives_that_are_not_there_once_stop_everything` |
//! | §4 trust | pins; a changed certificate under its CA; expired ones | `tls` | `tests/vbmc_behaviour`: `an_expired_certificate_is_good_where_it_is_pinned_and_refused_under_a_ca`, `a_new_certificate_is_put_down_to_our_own_update_and_to_nothing_else`; `tests/credentials`: `a_changed_certificate_under_an_unchanged_ca_is_fine`, `the_certificates_of_a_rack_are_accepted_at_once_and_a_changed_one_is_not_trusted` |
//! | §4 events | none are subscribed to: polling is the truth | | |
//! | §6, 10 HGX | a baseboard or DPU at an address of its own: read beside the host's BMC, never taken for idle unread, written only where its serial is proven | `further` | controllers: `a_controller_that_is_down_hides_nothing_of_the_host`, `nothing_is_written_to_a_controller_that_is_not_proven`, `an_update_goes_to_the_controller_that_has_the_component`, `a_reset_goes_to_the_controller_that_is_meant`, `a_controller_is_read_under_the_certificate_that_was_accepted_for_it` |
//! | same origin | credentials and images go to this BMC alone | `conn` | `credentials_go_to_no_other_server`, `an_action_goes_to_no_other_server`; push: `an_image_goes_to_no_other_server` |
//!
//! What differs between vendors is data: `bmc-quirks.toml`, looked up in `quirks`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: session ages and pauses are measured on the monotonic clock"
)]

mod abilities;
mod accounts;
mod around;
mod bios;
mod boot;
#[doc(hidden)]
pub mod canned;
mod capable;
mod certificate;
mod clock;
mod conn;
mod controllers;
mod discover;
mod fault;
mod firmware;
mod further;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod http;
mod inventory;
mod jobs;
mod json;
mod log;
mod media;
mod patch;
mod power;
mod push;
mod quirks;
mod secure_boot;
mod sensors;
mod session;
mod storage;
mod system;
mod task;
mod tls;
mod trace;
mod update;
mod volumes;
mod work;

pub use trace::{Asked, Trace};

pub use certificate::Certificate;

use crate::model::action::{BootTarget, Expect, Outcome, PowerOp};
use crate::model::facts::{Component, InventoryFacts, SystemFacts, Task};
use crate::model::hardware::{Account, AccountRules, BiosFacts, Controller, SecureBootFacts};
use crate::model::quirks::{QuirkTable, Quirks};
use crate::model::storage::StorageFacts;
use crate::model::{Channel, Fault};
use crate::port::capability::{
    BmcAccounts, BmcBios, BmcBoot, BmcMedia, BmcNature, BmcVolumes, BootOrder, MediaOrder,
    VolumeOrder,
};
use crate::port::session::{At, SessionStore};
use crate::port::stop::settle;
use crate::port::{BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, Secret, UpdateOrder, Vault};
use async_trait::async_trait;
use conn::{Bmc, Conn};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How the client behaves. The defaults are those of field notes R7.
#[derive(Clone, Debug)]
pub struct Settings {
    pub connect_timeout_ms: u64,
    pub read_timeout_ms: u64,
    pub write_timeout_ms: u64,
    /// Documents above this are not read; the largest seen is a 3.1 MB registry.
    pub max_body_bytes: usize,
    pub reads_per_bmc: usize,
    /// PEM certificates that `tls = "ca"` trusts besides the system's.
    pub ca_pem: Option<String>,
    /// A refused login is not repeated for this long; some BMCs lock after 3 tries in 30 s.
    pub login_pause_ms: u64,
    /// Longest time for one part of a probe, all its requests together.
    pub total_read_ms: u64,
    /// The same of a further controller: the host's BMC, asked in the same probe, has 90 s.
    pub further_read_ms: u64,
    /// After a BMC reset, ask nothing for as long as its quirks say.
    pub settle_after_reset: bool,
    /// What BMCs do otherwise than the standard; empty: nothing.
    pub quirks: Arc<QuirkTable>,
    /// After a BMC ran out of sessions, how long Basic is used before a session is tried again.
    pub basic_for_ms: u64,
    /// Pause between reads that wait for a change to show, as after an eject.
    pub settle_ms: u64,
    /// Notes every request, for a person's report.
    pub trace: Option<Arc<Trace>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            read_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            max_body_bytes: 4 << 20,
            reads_per_bmc: 3,
            ca_pem: None,
            login_pause_ms: 180_000,
            total_read_ms: 120_000,
            further_read_ms: 60_000,
            settle_after_reset: true,
            quirks: Arc::default(),
            basic_for_ms: 1_800_000,
            settle_ms: 1_000,
            trace: None,
        }
    }
}

/// All BMCs of a site over Redfish.
pub struct RedfishBmc {
    vault: Arc<dyn Vault>,
    settings: Arc<Settings>,
    /// As the configuration in force has them; the settings' at first.
    table: RwLock<Arc<QuirkTable>>,
    clients: http::Clients,
    /// Where sessions are kept for the next start.
    sessions: Option<Arc<dyn SessionStore>>,
    /// What is remembered per BMC: gate, session, links.
    conns: Mutex<BTreeMap<At, Arc<Conn>>>,
}

impl std::fmt::Debug for RedfishBmc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedfishBmc")
    }
}

impl RedfishBmc {
    pub fn new(vault: Arc<dyn Vault>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let clients = http::Clients::new(settings.clone());
        let table = RwLock::new(settings.quirks.clone());
        Self { vault, settings, table, clients, sessions: None, conns: Mutex::default() }
    }

    /// Other quirks count from here on, for every BMC. Sessions and links stay.
    pub fn set_quirks(&self, table: Arc<QuirkTable>) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        let conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
        for conn in conns.values() {
            conn.forget_quirks();
        }
    }

    fn table(&self) -> Arc<QuirkTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps sessions there, and takes up those that are kept there.
    pub fn keeping(self, sessions: Arc<dyn SessionStore>) -> Self {
        Self { sessions: Some(sessions), ..self }
    }

    /// One BMC with what is remembered of it. A changed address, trust or credential name starts
    /// afresh.
    fn bmc<'a>(&'a self, target: &'a BmcTarget) -> Result<Bmc<'a>, Fault> {
        self.at(target, None)
    }

    /// The same of the machine's further controller with this name; `target` is that one's.
    fn at<'a>(
        &'a self,
        target: &'a BmcTarget,
        controller: Option<Arc<str>>,
    ) -> Result<Bmc<'a>, Fault> {
        let at = At { machine: target.machine, controller };
        let mut conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
        let conn = match conns.get(&at) {
            Some(c) if c.is_for(&target.endpoint) => c.clone(),
            _ => {
                let conn = Arc::new(Conn::new(at.clone(), &target.endpoint, &self.settings)?);
                conns.insert(at, conn.clone());
                conn
            }
        };
        Ok(Bmc { edge: self, target, conn })
    }

    /// A part of a probe within its total deadline (R7): a BMC that answers each request just in time
    /// has hundreds of documents.
    async fn within<T>(&self, read: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let total = Duration::from_millis(self.settings.total_read_ms);
        match tokio::time::timeout(total, read).await {
            Ok(result) => result,
            Err(_) => {
                let why = format!("the BMC was not read to its end within {} s", total.as_secs());
                Err(Fault::no_answer(Channel::Bmc, why))
            }
        }
    }

    /// The certificate that is shown at a BMC's `url`, trusted or not; nothing else is sent.
    ///
    /// # Errors
    /// Nothing answered, or the address is not https.
    pub async fn certificate(&self, url: &str) -> Result<Certificate, Fault> {
        certificate::read(url).await
    }

    /// Logs out everywhere, for a graceful stop: sessions are few and outlive us by half an hour.
    pub async fn log_out(&self) {
        let all: Vec<Arc<Conn>> = {
            let mut conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *conns).into_values().collect()
        };
        let ends = all.iter().map(|c| session::end(self, c));
        for fault in futures_util::future::join_all(ends).await.into_iter().filter_map(Result::err)
        {
            tracing::debug!(%fault, "a session was not ended; it will time out");
        }
    }
}

#[async_trait]
impl BmcRead for RedfishBmc {
    async fn system(&self, target: &BmcTarget) -> Result<SystemFacts, Fault> {
        self.within(system::read(&self.bmc(target)?)).await
    }

    async fn inventory(&self, target: &BmcTarget) -> Result<InventoryFacts, Fault> {
        let own = async { self.within(inventory::read(&self.bmc(target)?)).await };
        if target.endpoint.controllers.is_empty() {
            return own.await;
        }
        Box::pin(further::inventory(self, target, own)).await
    }

    async fn firmware(&self, target: &BmcTarget) -> Result<Vec<Component>, Fault> {
        let own = async { self.within(firmware::read(&self.bmc(target)?)).await };
        if target.endpoint.controllers.is_empty() {
            return own.await;
        }
        Box::pin(further::firmware(self, target, own)).await
    }

    async fn tasks(&self, target: &BmcTarget, handle: Option<&str>) -> Result<Vec<Task>, Fault> {
        let controllers = &target.endpoint.controllers;
        if let Some(there) = handle.and_then(|h| controllers.of(h)) {
            return further::task(self, target, there).await;
        }
        let own = async { self.within(task::read(&self.bmc(target)?, handle)).await };
        // Who follows a task of the host's BMC asks for nothing else.
        if controllers.is_empty() || handle.is_some() {
            return own.await;
        }
        Box::pin(further::tasks(self, target, own)).await
    }

    async fn inserted_media(&self, target: &BmcTarget) -> Result<Vec<String>, Fault> {
        let slots = self.within(media::read(&self.bmc(target)?)).await?;
        let held = slots.into_iter().filter(|s| s.inserted != Some(false));
        Ok(held.filter_map(|s| s.image).collect())
    }

    async fn bios_settings(&self, target: &BmcTarget) -> Result<BiosFacts, Fault> {
        self.within(bios::read_for_step(&self.bmc(target)?)).await
    }

    async fn secure_boot_state(&self, target: &BmcTarget) -> Result<SecureBootFacts, Fault> {
        self.within(secure_boot::read(&self.bmc(target)?)).await
    }

    async fn storage(&self, target: &BmcTarget) -> Result<StorageFacts, Fault> {
        self.within(storage::read(&self.bmc(target)?)).await
    }
}

#[async_trait]
impl BmcPower for RedfishBmc {
    async fn power(&self, target: &BmcTarget, expect: &Expect, op: PowerOp) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(power::power(&bmc, expect, op).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn set_boot(&self, target: &BmcTarget, expect: &Expect, to: BootTarget) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(boot::set(&bmc, expect, &BootOrder::once(to)).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcUpdate for RedfishBmc {
    async fn update(&self, target: &BmcTarget, expect: &Expect, order: &UpdateOrder) -> Outcome {
        if let Some(there) = target.endpoint.controllers.of(&order.inventory_id) {
            return settle(further::update(self, target, there, expect, order).await);
        }
        match self.bmc(target) {
            Ok(bmc) => settle(update::update(&bmc, expect, order).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcCare for RedfishBmc {
    async fn reset_bmc(&self, target: &BmcTarget, expect: &Expect) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(power::reset_bmc(&bmc, expect).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn reset_controller(&self, target: &BmcTarget, expect: &Expect, name: &str) -> Outcome {
        settle(further::reset(self, target, name, expect).await)
    }

    async fn insert_media(&self, target: &BmcTarget, expect: &Expect, image_url: &str) -> Outcome {
        let order = MediaOrder { image_url: image_url.into(), kind: "CD".into() };
        BmcMedia::insert(self, target, expect, &order).await
    }

    async fn eject_media(&self, target: &BmcTarget, expect: &Expect) -> Outcome {
        BmcMedia::eject(self, target, expect).await
    }

    async fn change_bios(
        &self,
        target: &BmcTarget,
        expect: &Expect,
        attributes: &BTreeMap<String, Value>,
    ) -> Outcome {
        self.set_bios(target, expect, attributes).await
    }

    async fn change_secure_boot(&self, target: &BmcTarget, expect: &Expect, on: bool) -> Outcome {
        self.set_secure_boot(target, expect, on).await
    }

    async fn make_volume(
        &self,
        target: &BmcTarget,
        expect: &Expect,
        order: &VolumeOrder,
    ) -> Outcome {
        self.create(target, expect, order).await
    }

    async fn ac_cycle(&self, target: &BmcTarget, expect: &Expect) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(power::ac_cycle(&bmc, expect).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn end_sessions(&self, target: &BmcTarget) -> Outcome {
        let own = match self.bmc(target) {
            Ok(bmc) => {
                let _one = bmc.conn.write().await;
                session::end(self, &bmc.conn).await
            }
            Err(fault) => Err(fault),
        };
        // A further controller drops its session by itself, where it can't be told.
        further::end_sessions(self, target).await;
        match own {
            Ok(()) => Outcome::Applied { handle: None },
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcBoot for RedfishBmc {
    async fn boot(&self, target: &BmcTarget, expect: &Expect, order: &BootOrder) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(boot::set(&bmc, expect, order).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcNature for RedfishBmc {
    async fn controllers(&self, target: &BmcTarget) -> Result<Vec<Controller>, Fault> {
        self.within(controllers::read(&self.bmc(target)?)).await
    }

    async fn quirks(&self, target: &BmcTarget) -> Result<Arc<Quirks>, Fault> {
        self.within(self.bmc(target)?.quirks()).await
    }
}

#[async_trait]
impl BmcAccounts for RedfishBmc {
    async fn accounts(&self, target: &BmcTarget) -> Result<(AccountRules, Vec<Account>), Fault> {
        accounts::read(&self.bmc(target)?).await
    }

    async fn known_rules(&self, target: &BmcTarget) -> Result<AccountRules, Fault> {
        Ok(accounts::known(&self.bmc(target)?).await)
    }

    async fn set_password(&self, target: &BmcTarget, user: &str, password: &Secret) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(accounts::set(&bmc, user, password).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn verify(&self, target: &BmcTarget, user: &str, password: &Secret) -> Result<(), Fault> {
        accounts::verify(&self.bmc(target)?, user, password).await
    }
}
