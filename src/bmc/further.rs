//! A machine's controllers at addresses of their own, beside its host's BMC: an HGX baseboard's, a DPU's.
//! Each has its own gate, session and links. What they show is read side by side and stands beside what
//! the host's BMC says, under their names. One that does not answer hides nothing of the others, and is
//! never taken for idle. A write proves the host by its BMC and the controller by the serial that the
//! inventory gives it, both just before.

mod accounts;

use super::conn::Bmc;
use super::guard::Stop;
use super::{RedfishBmc, fault, firmware, guard, inventory, power, system, task, update};
use crate::model::action::{Expect, Outcome};
use crate::model::controller::place;
use crate::model::facts::{Component, InventoryFacts, Nic, Part, Task, TaskState};
use crate::model::identity::clean_serial;
use crate::model::{BmcEndpoint, Channel, Fault, FaultClass, Further, Identity};
use crate::port::{BmcTarget, UpdateOrder};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;

/// Serials that a refusal names.
const SHOWN: usize = 8;

/// The controller as a BMC by itself. Nothing is said of its system: that is not the machine's.
fn alone(of: &BmcTarget, c: &Further) -> BmcTarget {
    BmcTarget {
        machine: of.machine,
        name: place(&of.name, Some(&c.name)).into(),
        endpoint: BmcEndpoint {
            url: c.url.clone(),
            credential: c.credential.clone(),
            tls: c.tls.clone(),
            ..BmcEndpoint::default()
        },
        identity: Identity::default(),
    }
}

/// The controller at `alone`.
///
/// # Errors
/// Nobody may go to it now; its address or trust makes no sense.
fn open<'a>(edge: &'a RedfishBmc, alone: &'a BmcTarget, c: &Further) -> Result<Bmc<'a>, Fault> {
    match &c.barred {
        Some(why) => Err(Fault::clone(why)),
        None => edge.at(alone, Some(c.name.clone())),
    }
}

/// The fault, with whose it is.
fn told(c: &Further, fault: Fault) -> Fault {
    Fault { message: format!("{}: {}", c.called(), fault.message), ..fault }
}

/// One read of a controller, within its own deadline: the host's BMC was asked in the same probe.
async fn within<T>(
    edge: &RedfishBmc,
    c: &Further,
    read: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let most = Duration::from_millis(edge.settings.further_read_ms);
    match tokio::time::timeout(most, read).await {
        Ok(read) => read.map_err(|f| told(c, f)),
        Err(_) => {
            let why = format!("not read to its end within {} s", most.as_secs());
            Err(told(c, Fault::no_answer(Channel::Bmc, why)))
        }
    }
}

/// Reads every further controller side by side, in the inventory's order.
macro_rules! each {
    ($edge:ident, $target:ident, $bmc:ident => $read:expr) => {
        join_all($target.endpoint.controllers.iter().map(|c| async move {
            let target = alone($target, c);
            let read = async {
                let $bmc = open($edge, &target, c)?;
                $read.await
            };
            (c, within($edge, c, read).await)
        }))
    };
}

/// The firmware of all; `own` is the host BMC's.
pub(super) async fn firmware(
    edge: &RedfishBmc,
    target: &BmcTarget,
    own: impl Future<Output = Result<Vec<Component>, Fault>>,
) -> Result<Vec<Component>, Fault> {
    let (own, others) = tokio::join!(own, each!(edge, target, bmc => firmware::read(&bmc)));
    let mut out = Vec::new();
    for (c, read) in others {
        match read {
            Ok(all) => {
                let named = |one: Component| Component { id: c.prefixed(&one.id), ..one };
                out.extend(all.into_iter().map(named));
            }
            // It has no firmware inventory at all.
            Err(f) if f.class == FaultClass::Unsupported => {}
            Err(f) => {
                tracing::debug!(machine = %target.name, controller = %c.name, fault = %f, "not read");
                out.push(Component {
                    id: c.prefixed(""),
                    unread: Some(Box::new(f)),
                    ..Component::default()
                });
            }
        }
    }
    match own {
        Ok(mut own) => {
            own.extend(out);
            Ok(own)
        }
        Err(f) if f.class == FaultClass::Unsupported && !out.is_empty() => Ok(out),
        Err(f) => Err(f),
    }
}

/// The tasks of all. A controller that can't be asked is one task that may run.
pub(super) async fn tasks(
    edge: &RedfishBmc,
    target: &BmcTarget,
    own: impl Future<Output = Result<Vec<Task>, Fault>>,
) -> Result<Vec<Task>, Fault> {
    let (own, others) = tokio::join!(own, each!(edge, target, bmc => task::read(&bmc, None)));
    let mut out = Vec::new();
    for (c, read) in others {
        match read {
            Ok(all) => out.extend(all.into_iter().map(|t| named(c, t))),
            Err(f) if f.class == FaultClass::Unsupported => {}
            Err(f) => out.push(Task {
                uri: c.prefixed(""),
                state: TaskState::Unread,
                raw_state: f.code.to_string(),
                percent: None,
                message: Some(f.message),
            }),
        }
    }
    match own {
        Ok(mut own) => {
            own.extend(out);
            Ok(own)
        }
        // Of a host's BMC without a task service nothing may be concluded from the tasks of others.
        Err(f) if f.class == FaultClass::Unsupported => match out.iter().find(|t| t.may_run()) {
            Some(busy) => Err(Fault::new(
                FaultClass::Transient,
                Channel::Bmc,
                Fault::CONTROLLER_BUSY,
                format!("work may go on at {}, and the host's BMC lists no tasks", busy.uri),
            )),
            None => Err(f),
        },
        Err(f) => Err(f),
    }
}

fn named(c: &Further, task: Task) -> Task {
    Task { uri: c.prefixed(&task.uri), ..task }
}

/// The task with this handle of a controller; where it has gone, that controller's others.
pub(super) async fn task(
    edge: &RedfishBmc,
    target: &BmcTarget,
    (c, handle): (&Further, &str),
) -> Result<Vec<Task>, Fault> {
    let alone = alone(target, c);
    let read = async { task::read(&open(edge, &alone, c)?, Some(handle)).await };
    let tasks = within(edge, c, read).await?;
    Ok(tasks.into_iter().map(|t| named(c, t)).collect())
}

/// What is in the machine. Of other controllers the GPUs and ports alone: a DPU's disks, cores and memory
/// are not the host's, and nobody may miss them at a wipe.
pub(super) async fn inventory(
    edge: &RedfishBmc,
    target: &BmcTarget,
    own: impl Future<Output = Result<InventoryFacts, Fault>>,
) -> Result<InventoryFacts, Fault> {
    let (own, others) = tokio::join!(own, each!(edge, target, bmc => inventory::read(&bmc)));
    let mut facts = own?;
    for (c, read) in others {
        match read {
            Ok(seen) => {
                let named = |one: Part| Part { id: c.prefixed(&one.id), ..one };
                gpus(&mut facts.gpus, seen.gpus.into_iter().map(named).collect());
                ports(&mut facts.nics, c, seen.nics);
                let about = |warning| format!("{}: {warning}", c.called());
                facts.warnings.extend(seen.warnings.into_iter().map(about));
            }
            Err(f) => facts.warnings.push(format!("{} ({})", f.message, f.code)),
        }
    }
    Ok(facts)
}

/// Adds a controller's GPUs. The same one is told by its serial; those that the host lists without any
/// are the baseboard's, where it lists as many.
fn gpus(known: &mut Vec<Part>, more: Vec<Part>) {
    let nameless = known.iter().filter(|p| p.serial.is_none()).count();
    if nameless > 0 && nameless <= more.iter().filter(|p| p.serial.is_some()).count() {
        known.retain(|p| p.serial.is_some());
    }
    for one in more {
        let same = known.iter_mut().find(|k| k.serial.is_some() && k.serial == one.serial);
        let Some(same) = same else {
            known.push(one);
            continue;
        };
        // What the host's BMC does not say of it.
        same.slot = same.slot.take().or(one.slot);
        same.firmware = same.firmware.take().or(one.firmware);
        same.model = same.model.take().or(one.model);
    }
}

/// Adds a controller's ports; one with a MAC that is listed already is the same.
fn ports(known: &mut Vec<Nic>, c: &Further, more: Vec<Nic>) {
    for one in more {
        if one.mac.is_none() || !known.iter().any(|k| k.mac == one.mac) {
            known.push(Nic { id: c.prefixed(&one.id), ..one });
        }
    }
}

/// An update at a controller: the host is proven at its own BMC, then the controller, then it is sent.
pub(super) async fn update(
    edge: &RedfishBmc,
    target: &BmcTarget,
    (c, id): (&Further, &str),
    expect: &Expect,
    order: &UpdateOrder,
) -> Result<Outcome, Stop> {
    guard::check(&edge.bmc(target)?, expect).await?;
    let alone = alone(target, c);
    let bmc = open(edge, &alone, c).map_err(|f| told(c, f))?;
    let _one = bmc.conn.write().await;
    let sent = async {
        prove(&bmc, c).await?;
        let (_, system) = system::fetch(&bmc).await?;
        let order = UpdateOrder { inventory_id: id.to_string(), ..order.clone() };
        update::send(&bmc, &system, expect, &order).await
    };
    said(c, sent.await)
}

/// The restart of a controller's own manager.
pub(super) async fn reset(
    edge: &RedfishBmc,
    target: &BmcTarget,
    name: &str,
    expect: &Expect,
) -> Result<Outcome, Stop> {
    let Some(c) = target.endpoint.controllers.named(name) else {
        let why = format!("the inventory gives this machine no controller `{name}` any more");
        return Ok(Outcome::Failed { fault: fault::precondition("no-controller", why) });
    };
    guard::check(&edge.bmc(target)?, expect).await?;
    let alone = alone(target, c);
    let bmc = open(edge, &alone, c).map_err(|f| told(c, f))?;
    let _one = bmc.conn.write().await;
    let sent = async {
        prove(&bmc, c).await?;
        let (_, system) = system::fetch(&bmc).await?;
        power::reset_manager(&bmc, &system).await
    };
    said(c, sent.await)
}

/// Logs out of the machine's further controllers, those that are logged in to.
pub(super) async fn end_sessions(edge: &RedfishBmc, target: &BmcTarget) {
    for c in target.endpoint.controllers.iter() {
        let alone = alone(target, c);
        let Ok(bmc) = open(edge, &alone, c) else { continue };
        let _one = bmc.conn.write().await;
        if let Err(fault) = super::session::end(edge, &bmc.conn).await {
            tracing::debug!(machine = %alone.name, %fault, "a session was not ended; it will time out");
        }
    }
}

/// An outcome at a controller, with whose it is: handle, refusal, fault.
fn said(c: &Further, done: Result<Outcome, Stop>) -> Result<Outcome, Stop> {
    match done {
        Ok(Outcome::Applied { handle }) => {
            Ok(Outcome::Applied { handle: handle.map(|h| c.prefixed(&h)) })
        }
        Ok(Outcome::Failed { fault }) => Ok(Outcome::Failed { fault: told(c, fault) }),
        Ok(Outcome::Unknown { fault }) => Ok(Outcome::Unknown { fault: told(c, fault) }),
        Ok(other) => Ok(other),
        Err(Stop::Refused { saw, wrong_machine }) => {
            Err(Stop::Refused { saw: format!("{}: {saw}", c.called()), wrong_machine })
        }
        Err(Stop::Fault(fault)) => Err(told(c, *fault).into()),
    }
}

/// Is it the controller that the inventory means? By the serials that its systems, managers and chassis
/// show now.
async fn prove(bmc: &Bmc<'_>, c: &Further) -> Result<(), Stop> {
    let Some(wanted) = c.serial.as_deref() else {
        let why = "its serial is not in the inventory, so nothing is written to it";
        return Err(fault::precondition("controller-unproven", why)
            .hint("give `serial` in `[[machine.controller]]`, as its own Redfish shows it")
            .into());
    };
    let root = bmc.root().await?;
    let mut shown = BTreeSet::new();
    for collection in [&root.systems, &root.managers, &root.chassis].into_iter().flatten() {
        let read = match bmc.resources(collection).await {
            Ok(read) => read,
            // Named, and not there.
            Err(f) if f.class == FaultClass::Unsupported => continue,
            Err(f) => return Err(f.into()),
        };
        for (_, read) in read {
            let Ok(v) = read else { continue };
            let serial = super::json::text(&v, &["SerialNumber"]);
            shown.extend(serial.as_deref().and_then(clean_serial));
        }
        if shown.contains(wanted) {
            return Ok(());
        }
    }
    if shown.is_empty() {
        let saw = format!("it shows no serial, expected `{wanted}`");
        return Err(Stop::Refused { saw, wrong_machine: false });
    }
    let more = shown.len().saturating_sub(SHOWN);
    let mut list: Vec<String> = shown.iter().take(SHOWN).map(|s| format!("`{s}`")).collect();
    if more > 0 {
        list.push(format!("{more} more"));
    }
    let saw = format!("it shows serial {}, expected `{wanted}`", list.join(", "));
    Err(Stop::Refused { saw, wrong_machine: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, serial: Option<&str>) -> Part {
        Part { id: id.into(), serial: serial.map(Into::into), ..Part::default() }
    }

    fn merged(host: Vec<Part>, board: Vec<Part>) -> Vec<String> {
        let mut all = host;
        gpus(&mut all, board);
        all.into_iter().map(|p| p.id).collect()
    }

    #[test]
    fn a_gpu_that_both_list_is_one() {
        let board = || vec![part("hgx:GPU_1", Some("A")), part("hgx:GPU_2", Some("B"))];
        assert_eq!(merged(vec![], board()), ["hgx:GPU_1", "hgx:GPU_2"]);
        assert_eq!(merged(vec![part("1", Some("A"))], board()), ["1", "hgx:GPU_2"]);
        let both = vec![part("1", Some("B")), part("2", Some("A"))];
        assert_eq!(merged(both, board()), ["1", "2"]);
        // Without serials they are the same ones only where there may be as many.
        assert_eq!(
            merged(vec![part("1", None), part("2", None)], board()),
            ["hgx:GPU_1", "hgx:GPU_2"]
        );
        let three = vec![part("1", None), part("2", None), part("3", None)];
        assert_eq!(merged(three, board()), ["1", "2", "3", "hgx:GPU_1", "hgx:GPU_2"]);
        let mut all = vec![part("1", Some("A"))];
        gpus(
            &mut all,
            vec![Part { firmware: Some("96.00".into()), ..part("hgx:GPU_1", Some("A")) }],
        );
        assert_eq!(all[0].firmware.as_deref(), Some("96.00"));
    }

    #[test]
    fn a_port_that_both_list_is_one() {
        let hgx = Further {
            name: "dpu".into(),
            kind: crate::model::FurtherKind::Dpu,
            url: "https://10.0.0.6".into(),
            credential: "dpu".into(),
            tls: "ca".into(),
            serial: None,
            barred: None,
        };
        let nic = |id: &str, mac: Option<&str>| Nic {
            id: id.into(),
            mac: mac.map(Into::into),
            link_up: None,
        };
        let mut known = vec![nic("eth0", Some("02:00:00:00:00:01"))];
        let more = vec![
            nic("a", Some("02:00:00:00:00:01")),
            nic("b", Some("02:00:00:00:00:02")),
            nic("c", None),
        ];
        ports(&mut known, &hgx, more);
        let ids: Vec<&str> = known.iter().map(|n| n.id.as_str()).collect();
        assert_eq!(ids, ["eth0", "dpu:b", "dpu:c"]);
    }
}
