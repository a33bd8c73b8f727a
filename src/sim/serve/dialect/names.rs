//! What a vendor calls its resources, and how it spells paths.

use crate::sim::serve::profile::Profile;
use serde_json::Value;

const V1: &str = "/redfish/v1/";

/// Segments that the clean tree has, for BMCs that take them in any case.
const WORDS: &[&str] = &[
    "Systems",
    "Managers",
    "Chassis",
    "SessionService",
    "Sessions",
    "UpdateService",
    "FirmwareInventory",
    "TaskService",
    "Tasks",
    "TaskMonitors",
    "AccountService",
    "Accounts",
    "Roles",
    "Processors",
    "Memory",
    "Storage",
    "Drives",
    "Volumes",
    "EthernetInterfaces",
    "PCIeDevices",
    "Bios",
    "Settings",
    "SecureBoot",
    "BootOptions",
    "VirtualMedia",
    "LogServices",
    "Entries",
    "Sensors",
    "Actions",
    "JobService",
    "Jobs",
];

/// Stands for an id that the vendor's tree does not have.
const NOBODY: &str = "-";

/// A path as called → as the clean tree has it (segments below `/redfish/v1`).
pub(super) fn inward(profile: &Profile, path: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = path.iter().map(|s| (*s).to_string()).collect();
    if profile.uris.ignores_case {
        for (n, segment) in out.iter_mut().enumerate() {
            // A component of the firmware inventory is called BIOS.
            let is_id = n > 0 && path[n - 1].eq_ignore_ascii_case("FirmwareInventory");
            if let Some(word) = WORDS.iter().find(|w| w.eq_ignore_ascii_case(segment))
                && !is_id
            {
                *segment = (*word).to_string();
            }
        }
    }
    let ids = &profile.ids;
    let own = match out.first().map(String::as_str) {
        Some("Systems") => &ids.system,
        Some("Managers") => &ids.manager,
        Some("Chassis") => &ids.chassis,
        Some("TaskService") => {
            if let Some(id) = out.get_mut(2).filter(|_| !ids.task_prefix.is_empty()) {
                *id = id.strip_prefix(&ids.task_prefix).unwrap_or(NOBODY).to_string();
            }
            return out;
        }
        _ => return out,
    };
    if let Some(id) = out.get_mut(1).filter(|_| !own.is_empty()) {
        if id == own || profile.uris.ignores_case && id.eq_ignore_ascii_case(own) {
            *id = "1".into();
        } else if id == "1" {
            *id = NOBODY.into();
        }
    }
    out
}

/// The paths in a body that came in: a vendor takes its own names, as it spells them.
pub(super) fn body_inward(profile: &Profile, v: &mut Value) {
    match v {
        Value::String(s) => {
            if let Some(rest) = s.strip_prefix(V1) {
                let path: Vec<&str> = rest.split('/').filter(|s| !s.is_empty()).collect();
                *s = format!("{V1}{}", inward(profile, &path).join("/"));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| body_inward(profile, v)),
        Value::Object(o) => o.values_mut().for_each(|v| body_inward(profile, v)),
        _ => {}
    }
}

/// A path of the clean tree → as this vendor spells it; `None`: it is no path of the tree.
pub(super) fn outward(profile: &Profile, path: &str) -> Option<String> {
    let rest = path.strip_prefix(V1)?;
    let ids = &profile.ids;
    let mut segments: Vec<String> = rest.split('/').map(String::from).collect();
    let own = match segments.first().map(String::as_str) {
        Some("Systems") => &ids.system,
        Some("Managers") => &ids.manager,
        Some("Chassis") => &ids.chassis,
        Some("TaskService") => {
            if let Some(id) = segments.get_mut(2).filter(|id| !id.is_empty()) {
                *id = format!("{}{id}", ids.task_prefix);
            }
            return Some(format!("{V1}{}", segments.join("/")));
        }
        _ => return Some(path.to_string()),
    };
    if let Some(id) = segments.get_mut(1).filter(|id| *id == "1" && !own.is_empty()) {
        own.clone_into(id);
    }
    Some(format!("{V1}{}", segments.join("/")))
}

/// Rewrites every path in a document; `path`: the document's own, for its `Id`.
pub(super) fn rewrite(profile: &Profile, path: &[String], v: &mut Value) {
    if let [kind, id] = path
        && id == "1"
        && let Some(shown) = v.get_mut("Id")
    {
        let own = match kind.as_str() {
            "Systems" => &profile.ids.system,
            "Managers" => &profile.ids.manager,
            "Chassis" => &profile.ids.chassis,
            _ => "",
        };
        if !own.is_empty() {
            *shown = own.into();
        }
    }
    if let [service, tasks, id] = path
        && service == "TaskService"
        && tasks == "Tasks"
        && let Some(shown) = v.get_mut("Id")
    {
        *shown = format!("{}{id}", profile.ids.task_prefix).into();
    }
    walk(profile, v, false);
}

fn walk(profile: &Profile, v: &mut Value, is_link: bool) {
    match v {
        Value::String(s) => {
            if let Some(mut new) = outward(profile, s) {
                if profile.uris.slash && is_link && !new.ends_with('/') && !new.contains(['#', '?'])
                {
                    new.push('/');
                }
                *s = new;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| walk(profile, v, false)),
        Value::Object(o) => {
            o.iter_mut().for_each(|(key, v)| walk(profile, v, key == "@odata.id"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_go_out_and_come_back() {
        let dell = Profile::named("dell").expect("ships");
        let path = ["Systems", "System.Embedded.1", "Processors", "GPU0"];
        assert_eq!(inward(&dell, &path), ["Systems", "1", "Processors", "GPU0"]);
        assert_eq!(inward(&dell, &["Systems", "1"]), ["Systems", "-"], "it has another name");
        assert_eq!(
            inward(&dell, &["TaskService", "Tasks", "JID_7"]),
            ["TaskService", "Tasks", "7"]
        );
        let mut v = json!({"Id": "1", "@odata.id": "/redfish/v1/Systems/1", "x": ["/redfish/v1/Systems/1/Bios"]});
        rewrite(&dell, &["Systems".into(), "1".into()], &mut v);
        assert_eq!(
            v,
            json!({"Id": "System.Embedded.1", "@odata.id": "/redfish/v1/Systems/System.Embedded.1",
                   "x": ["/redfish/v1/Systems/System.Embedded.1/Bios"]})
        );
    }

    #[test]
    fn a_vendor_that_ignores_case_ends_its_links_with_a_slash() {
        let hpe = Profile::named("hpe").expect("ships");
        assert_eq!(inward(&hpe, &["systems", "1", "bios"]), ["Systems", "1", "Bios"]);
        let path = ["updateservice", "firmwareinventory", "BIOS"];
        assert_eq!(inward(&hpe, &path), ["UpdateService", "FirmwareInventory", "BIOS"]);
        let mut v = json!({"@odata.id": "/redfish/v1/Systems/1", "target": "/redfish/v1/Systems/1/Actions/A"});
        rewrite(&hpe, &[], &mut v);
        assert_eq!(v["@odata.id"], "/redfish/v1/Systems/1/");
        assert_eq!(v["target"], "/redfish/v1/Systems/1/Actions/A");
        let mut body = json!({"Targets": ["/redfish/v1/UpdateService/FirmwareInventory/BMC/"]});
        body_inward(&hpe, &mut body);
        let target = &body["Targets"][0];
        assert_eq!(target, "/redfish/v1/UpdateService/FirmwareInventory/BMC");
    }
}
