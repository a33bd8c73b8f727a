//! The service root, sessions and events.

use super::super::seat::Body;
use super::{V1, collection, healthy, link, typed};
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

pub(super) fn root(vm: &VirtualMachine) -> Value {
    typed(
        "",
        "ServiceRoot",
        json!({
            "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.18.0",
            // The BMC's own, known whether the host is on or not.
            "Vendor": "Farrier", "Product": "Virtual BMC", "UUID": vm.identity.uuid,
            "Systems": link("Systems"), "Chassis": link("Chassis"), "Managers": link("Managers"),
            "AccountService": link("AccountService"), "EventService": link("EventService"),
            "SessionService": link("SessionService"), "UpdateService": link("UpdateService"),
            "Tasks": link("TaskService"), "Registries": link("Registries"),
            "JsonSchemas": link("JsonSchemas"),
            "Links": {"Sessions": link("SessionService/Sessions")},
            "ProtocolFeaturesSupported": {
                "ExpandQuery": {
                    "ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false,
                },
                "ExcerptQuery": false, "FilterQuery": false, "OnlyMemberQuery": false,
                "SelectQuery": false, "TopSkipQuery": false,
            },
        }),
    )
}

/// The OData service document (DSP0266 §8.4.2): the root's links once more.
pub(in crate::sim::serve) fn odata() -> Value {
    let services = [
        "AccountService",
        "Chassis",
        "EventService",
        "JsonSchemas",
        "Managers",
        "Registries",
        "SessionService",
        "Systems",
        "TaskService",
        "UpdateService",
    ];
    let mut all = vec![json!({"name": "Service", "kind": "Singleton", "url": format!("{V1}/")})];
    all.extend(
        services
            .map(|name| json!({"name": name, "kind": "Singleton", "url": format!("{V1}/{name}")})),
    );
    json!({"@odata.context": format!("{V1}/$metadata"), "value": all})
}

pub(super) fn sessions(body: &Body, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(typed(
            "SessionService",
            "SessionService",
            json!({
                "Id": "SessionService", "Name": "Session Service", "ServiceEnabled": true,
                "SessionTimeout": body.accounts.rules.session_idle_ms / 1000,
                "Sessions": link("SessionService/Sessions"), "Status": healthy(),
            }),
        )),
        ["Sessions"] => {
            let ids = body.sessions.values().map(|s| s.id.clone());
            Some(collection("SessionService/Sessions", "Session", ids))
        }
        ["Sessions", id] => {
            let found = body.sessions.values().find(|s| s.id == *id)?;
            Some(session(&found.id, &found.user))
        }
        _ => None,
    }
}

pub(in crate::sim::serve) fn session(id: &str, user: &str) -> Value {
    typed(
        &format!("SessionService/Sessions/{id}"),
        "Session",
        json!({"Id": id, "Name": "User session", "UserName": user, "SessionType": "Redfish"}),
    )
}

/// There, and switched off: who wants to know asks.
pub(super) fn events(rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(typed(
            "EventService",
            "EventService",
            json!({
                "Id": "EventService", "Name": "Event Service", "ServiceEnabled": false,
                "DeliveryRetryAttempts": 3, "DeliveryRetryIntervalSeconds": 60,
                "Status": {"State": "Disabled"},
                "Subscriptions": link("EventService/Subscriptions"),
            }),
        )),
        ["Subscriptions"] => Some(collection("EventService/Subscriptions", "EventDestination", [])),
        _ => None,
    }
}
