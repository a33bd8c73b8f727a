//! A second system for the GPUs, as HGX baseboards have it (field notes §1.3, R24): the machine is
//! the one with the reset action, the GPUs are below the other one.

use crate::sim::serve::profile::Hgx;
use serde_json::{Value, json};

/// Which resource of the clean tree an HGX path is made from; `None`: it is no HGX path.
pub(super) fn source(hgx: &Hgx, path: &[String]) -> Option<Vec<String>> {
    match path {
        [systems, id, rest @ ..] if systems == "Systems" && *id == hgx.system => {
            let mut out = vec![systems.clone(), "1".to_string()];
            out.extend(rest.iter().cloned());
            matches!(rest.first().map(String::as_str), None | Some("Processors")).then_some(out)
        }
        _ => None,
    }
}

fn is_gpu(v: &Value) -> bool {
    let id = v["@odata.id"].as_str().unwrap_or_default();
    id.rsplit('/').find(|s| !s.is_empty()).is_some_and(|id| id.starts_with("GPU"))
}

fn keep(body: &mut Value, which: impl Fn(&Value) -> bool) {
    if let Some(members) = body.get_mut("Members").and_then(Value::as_array_mut) {
        members.retain(which);
        let count = members.len();
        body["Members@odata.count"] = count.into();
    }
}

/// The baseboard's resource, from the clean one that [`source`] named; `None`: it has none there.
pub(super) fn baseboard(
    hgx: &Hgx,
    path: &[String],
    mut from: Value,
    is_off: bool,
) -> Option<Value> {
    let own = format!("/redfish/v1/Systems/{}", hgx.system);
    let absent = is_off && hgx.absent_when_off;
    let rest: Vec<&str> = path.iter().skip(2).map(String::as_str).collect();
    match rest.as_slice() {
        [] => Some(json!({
            "@odata.id": own, "@odata.type": from["@odata.type"],
            "Id": hgx.system, "Name": "HGX baseboard", "SystemType": "Physical",
            "Manufacturer": "NVIDIA", "Model": null, "SerialNumber": null, "UUID": null,
            "PowerState": from["PowerState"], "Status": from["Status"],
            "Processors": {"@odata.id": format!("{own}/Processors")},
        })),
        ["Processors"] => {
            keep(&mut from, |m| is_gpu(m) && !absent);
            relink(&mut from, &own);
            Some(from)
        }
        ["Processors", ..] if is_gpu(&from) && !absent => {
            relink(&mut from, &own);
            Some(from)
        }
        _ => None,
    }
}

fn relink(v: &mut Value, own: &str) {
    match v {
        Value::String(s) => {
            if let Some(rest) = s.strip_prefix("/redfish/v1/Systems/1/") {
                *s = format!("{own}/{rest}");
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| relink(v, own)),
        Value::Object(o) => o.values_mut().for_each(|v| relink(v, own)),
        _ => {}
    }
}

/// What the other resources show: both systems, and no GPU at the host. `false`: not here.
pub(super) fn host(hgx: &Hgx, path: &[String], body: &mut Value) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["Systems"] => {
            if let Some(members) = body.get_mut("Members").and_then(Value::as_array_mut) {
                members.push(json!({"@odata.id": format!("/redfish/v1/Systems/{}", hgx.system)}));
                let count = members.len();
                body["Members@odata.count"] = count.into();
            }
            true
        }
        ["Systems", "1", "Processors"] => {
            keep(body, |m| !is_gpu(m));
            true
        }
        ["Systems", "1", "Processors", ..] => !is_gpu(body),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_on_the_baseboard_and_processors_on_the_host() {
        let hgx = Hgx { system: "HGX_Baseboard_0".into(), absent_when_off: true };
        let path: Vec<String> =
            ["Systems", "HGX_Baseboard_0", "Processors"].map(String::from).to_vec();
        assert_eq!(source(&hgx, &path).map(|p| p.join("/")), Some("Systems/1/Processors".into()));
        let all = json!({"Members": [
            {"@odata.id": "/redfish/v1/Systems/1/Processors/CPU0"},
            {"@odata.id": "/redfish/v1/Systems/1/Processors/GPU0"}]});
        let board = baseboard(&hgx, &path, all.clone(), false).expect("there");
        assert_eq!(
            board["Members"],
            json!([
            {"@odata.id": "/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU0"}])
        );
        let off = baseboard(&hgx, &path, all.clone(), true).expect("there");
        assert_eq!(off["Members"], json!([]), "an unpowered baseboard lists nothing");
        let mut host_view = all;
        assert!(host(&hgx, &["Systems", "1", "Processors"].map(String::from), &mut host_view));
        assert_eq!(host_view["Members"].as_array().map(Vec::len), Some(1));
    }
}
