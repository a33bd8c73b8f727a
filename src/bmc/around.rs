//! What stands around a system: the managers that manage it and the chassis that hold it. Vendors
//! hang drives, logs and sensors on any of them.

use super::conn::Bmc;
use super::{discover, json};
use crate::model::Fault;
use serde_json::Value;

/// Managers of the system, those of HGX baseboards last: they are not the machine's BMC.
pub(super) async fn managers(bmc: &Bmc<'_>, system: &Value) -> Result<Vec<(String, Value)>, Fault> {
    let mut paths = linked(system, "ManagedBy");
    if paths.is_empty()
        && let Some(all) = bmc.root().await?.managers.clone()
    {
        paths = listed(bmc, &all).await?;
    }
    paths.sort_by_key(|p| json::last_segment(p).to_ascii_uppercase().starts_with("HGX"));
    read(bmc, paths).await
}

/// Every chassis of the service that does not belong to another system alone: baseboards, power
/// shelves and GPUs are chassis of their own, which few systems link to.
pub(super) async fn chassis(
    bmc: &Bmc<'_>,
    system: &Value,
    path: &str,
    others: &[String],
) -> Result<Vec<(String, Value)>, Fault> {
    let mut paths = linked(system, "Chassis");
    if let Some(all) = bmc.root().await?.chassis.clone() {
        paths.extend(listed(bmc, &all).await?);
    }
    let mut all = read(bmc, paths).await?;
    all.retain(|(_, v)| {
        let holds = linked(v, "ComputerSystems");
        let foreign = |link: &String| {
            !json::uri_eq(link, path) && others.iter().any(|other| json::uri_eq(link, other))
        };
        // Another machine's, unless it is a part of this one, as HGX baseboards are.
        holds.is_empty()
            || !holds.iter().all(foreign)
            || holds.iter().any(|h| json::last_segment(h).to_ascii_uppercase().starts_with("HGX"))
    });
    Ok(all)
}

fn linked(v: &Value, key: &str) -> Vec<String> {
    json::list(v, &["Links", key]).iter().filter_map(json::link_of).collect()
}

async fn listed(bmc: &Bmc<'_>, collection: &str) -> Result<Vec<String>, Fault> {
    match bmc.members(collection, false).await {
        Ok(members) => Ok(members.iter().filter_map(json::link_of).collect()),
        Err(f) if discover::is_fatal(&f) => Err(f),
        Err(_) => Ok(vec![]),
    }
}

/// The resources that can be read, each once.
async fn read(bmc: &Bmc<'_>, paths: Vec<String>) -> Result<Vec<(String, Value)>, Fault> {
    let mut once: Vec<String> = Vec::new();
    for path in paths {
        if !once.iter().any(|p| json::uri_eq(p, &path)) {
            once.push(path);
        }
    }
    Ok(readable(bmc, bmc.get_all(once).await?))
}

/// Those that could be read; the others leave a line in the log.
pub(super) fn readable(
    bmc: &Bmc<'_>,
    read: Vec<(String, Result<Value, Fault>)>,
) -> Vec<(String, Value)> {
    let good = read.into_iter().filter_map(|(path, v)| match v {
        Ok(v) => Some((path, v)),
        Err(fault) => {
            tracing::debug!(machine = %bmc.target.name, %path, %fault, "not read");
            None
        }
    });
    good.collect()
}

/// The members of `collection` that can be read; a collection that is not there has none.
pub(super) async fn members(
    bmc: &Bmc<'_>,
    collection: &str,
) -> Result<Vec<(String, Value)>, Fault> {
    match bmc.resources(collection).await {
        Ok(read) => Ok(readable(bmc, read)),
        Err(f) if discover::is_fatal(&f) => Err(f),
        Err(fault) => {
            tracing::debug!(machine = %bmc.target.name, %collection, %fault, "not read");
            Ok(vec![])
        }
    }
}

/// Like a GET; a resource that can't be read is none.
pub(super) async fn maybe(bmc: &Bmc<'_>, path: &str) -> Result<Option<Value>, Fault> {
    match bmc.get(path).await {
        Ok(v) => Ok(Some(v)),
        Err(f) if discover::is_fatal(&f) => Err(f),
        Err(_) => Ok(None),
    }
}
