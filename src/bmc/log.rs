//! Logs: the SEL and every other log service of the system, its managers and its chassis (DSP0268
//! LogService, LogEntry). Some list the newest entry first and some last; some hold a hundred
//! thousand, so that only the end that is asked for is read.

use super::conn::Bmc;
use super::{around, discover, fault, json, system};
use crate::model::Fault;
use crate::model::hardware::LogEntry;
use serde_json::Value;

/// Pages that are followed to the end of one log where the BMC cannot skip.
const MAX_PAGES: usize = 20;

/// A log service with a name that no other one has.
#[derive(Debug)]
struct Log {
    name: String,
    entries: String,
}

pub(super) async fn read(bmc: &Bmc<'_>, most: usize) -> Result<Vec<LogEntry>, Fault> {
    let (links, v) = system::fetch(bmc).await?;
    let mut owners = vec![(links.system.clone(), v.clone())];
    owners.extend(around::managers(bmc, &v).await?);
    owners.extend(around::chassis(bmc, &v, &links.system, &links.others).await?);
    let logs = services(bmc, &owners).await?;
    if logs.is_empty() {
        return Err(fault::unsupported("no-log", "the BMC has no log service"));
    }
    let mut out = Vec::new();
    let mut lost = None;
    let mut good = false;
    for log in logs {
        match newest(bmc, &log.entries, most).await {
            Ok(found) => {
                good = true;
                out.extend(found.iter().map(|(path, v)| entry(&log.name, path, v)));
            }
            Err(f) if discover::is_fatal(&f) => return Err(f),
            Err(f) => lost = Some(f),
        }
    }
    match lost {
        Some(f) if !good => Err(f),
        _ => Ok(out),
    }
}

async fn services(bmc: &Bmc<'_>, owners: &[(String, Value)]) -> Result<Vec<Log>, Fault> {
    let mut logs: Vec<Log> = Vec::new();
    for (owner, v) in owners {
        let Some(link) = json::link(v, &["LogServices"]) else { continue };
        for (path, service) in around::members(bmc, &link).await? {
            // XCC lists a SEL without entries.
            let Some(entries) = json::link(&service, &["Entries"]) else { continue };
            if logs.iter().any(|l| json::uri_eq(&l.entries, &entries)) {
                continue;
            }
            let id = json::text(&service, &["Id"])
                .unwrap_or_else(|| json::last_segment(&path).to_string());
            let taken = logs.iter().any(|l| l.name == id);
            let name = if taken { format!("{}/{id}", place(owner)) } else { id };
            logs.push(Log { name, entries });
        }
    }
    Ok(logs)
}

/// The end of a path, with the collection it is in: `Managers/1`.
fn place(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let at = path.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    path.get(at..).unwrap_or(path)
}

/// The newest entries of one log, newest first, with their paths.
async fn newest(bmc: &Bmc<'_>, link: &str, most: usize) -> Result<Vec<(String, Value)>, Fault> {
    let page = bmc.get(link).await?;
    let mut members = json::list(&page, &["Members"]).to_vec();
    let mut next = json::text(&page, &["Members@odata.nextLink"]);
    let oldest_first = is_oldest_first(&members);
    if oldest_first && next.is_some() {
        // The end is what is wanted: skipped to, or walked to.
        let all = json::at(&page, &["Members@odata.count"]).and_then(Value::as_u64).unwrap_or(0);
        let skip = all.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX));
        let seen = u64::try_from(members.len()).unwrap_or(0);
        if skip > seen
            && !link.contains('?')
            && let Some(end) = around::maybe(bmc, &format!("{link}?$skip={skip}")).await?
            && !json::list(&end, &["Members"]).is_empty()
        {
            members = json::list(&end, &["Members"]).to_vec();
            next = json::text(&end, &["Members@odata.nextLink"]);
        }
    }
    for _ in 0..MAX_PAGES {
        let Some(link) = next.take().filter(|_| oldest_first || members.len() < most) else {
            break;
        };
        let Some(page) = around::maybe(bmc, &link).await? else { break };
        members.extend(json::list(&page, &["Members"]).iter().cloned());
        next = json::text(&page, &["Members@odata.nextLink"]);
    }
    if oldest_first {
        members.reverse();
    }
    members.truncate(most);
    let links = members.iter().filter(|m| !json::is_expanded(m)).filter_map(json::link_of);
    let mut read = around::readable(bmc, bmc.get_all(links.collect()).await?).into_iter();
    let mut read_next = read.next();
    let mut out = Vec::new();
    for member in members {
        let path = json::link_of(&member).unwrap_or_default();
        if json::is_expanded(&member) {
            out.push((path, member));
        } else if read_next.as_ref().is_some_and(|(p, _)| *p == path) {
            out.extend(read_next.take());
            read_next = read.next();
        }
    }
    Ok(out)
}

/// Told by the times of the first and the last entry, else by their numbers.
fn is_oldest_first(members: &[Value]) -> bool {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return false };
    let time =
        |v: &Value| json::text(v, &["Created"]).and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let number = |v: &Value| {
        let id = json::text(v, &["Id"])
            .or_else(|| Some(json::last_segment(&json::link_of(v)?).to_string()))?;
        id.parse::<u64>().ok()
    };
    match (time(first), time(last)) {
        (Some(a), Some(b)) if a != b => a < b,
        _ => matches!((number(first), number(last)), (Some(a), Some(b)) if a < b),
    }
}

fn entry(log: &str, path: &str, v: &Value) -> LogEntry {
    LogEntry {
        log: log.to_string(),
        id: json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string()),
        at: json::text(v, &["Created"]).or_else(|| json::text(v, &["EventTimestamp"])),
        severity: json::text(v, &["Severity"]).or_else(|| json::text(v, &["MessageSeverity"])),
        code: json::text(v, &["MessageId"]).or_else(|| json::text(v, &["EntryCode"])),
        message: json::text(v, &["Message"])
            .or_else(|| json::text(v, &["Description"]))
            .map(|m| json::excerpt(&m, 500))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_a_log_is_seen() {
        let at = |t: &str| json!({"Created": t});
        let a = at("2024-01-01T00:00:00Z");
        let b = at("2024-01-01T02:00:00+01:00");
        assert!(is_oldest_first(&[a.clone(), b.clone()]));
        assert!(!is_oldest_first(&[b, a]));
        let n = |id: &str| json!({"@odata.id": format!("/x/{id}"), "Created": "T00:00:00Z"});
        assert!(is_oldest_first(&[n("9"), n("10")]));
        assert!(!is_oldest_first(&[n("FFDC"), n("MPFA")]));
        assert!(!is_oldest_first(&[]));
        assert_eq!(place("/redfish/v1/Managers/1/"), "Managers/1");
        assert_eq!(place("x"), "x");
    }
}
