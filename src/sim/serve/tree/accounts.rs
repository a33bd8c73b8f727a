//! Accounts and roles (DSP0268 AccountService, ManagerAccount, Role).

use super::super::accounts::{Account, Accounts, Role};
use super::{collection, healthy, link, typed};
use crate::model::EngineTime;
use serde_json::{Value, json};

pub(super) fn resource(accounts: &Accounts, now: EngineTime, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(service(accounts)),
        ["Accounts"] => {
            let ids = accounts.list.iter().map(|a| a.id.clone());
            Some(collection("AccountService/Accounts", "ManagerAccount", ids))
        }
        ["Accounts", id] => accounts.list.iter().find(|a| a.id == *id).map(|a| account(a, now)),
        ["Roles"] => {
            let ids = Role::ALL.iter().map(|r| r.word().to_string());
            Some(collection("AccountService/Roles", "Role", ids))
        }
        ["Roles", id] => Role::ALL.into_iter().find(|r| r.word() == *id).map(role),
        _ => None,
    }
}

fn service(accounts: &Accounts) -> Value {
    let rules = &accounts.rules;
    typed(
        "AccountService",
        "AccountService",
        json!({
            "Id": "AccountService", "Name": "Account Service", "ServiceEnabled": true,
            "Status": healthy(),
            "MinPasswordLength": rules.min_length, "MaxPasswordLength": rules.max_length,
            "AccountLockoutThreshold": rules.lockout_threshold,
            "AccountLockoutDuration": rules.lockout_s,
            "AccountLockoutCounterResetAfter": rules.lockout_s,
            "SupportedAccountTypes": ["Redfish"],
            "Accounts": link("AccountService/Accounts"), "Roles": link("AccountService/Roles"),
        }),
    )
}

fn account(a: &Account, now: EngineTime) -> Value {
    let role = if a.is_empty() { "None" } else { a.role.word() };
    let links = match a.is_empty() {
        true => json!({}),
        false => json!({"Role": link(&format!("AccountService/Roles/{role}"))}),
    };
    typed(
        &format!("AccountService/Accounts/{}", a.id),
        "ManagerAccount",
        json!({
            "Id": a.id, "Name": "User account", "UserName": a.user, "Password": null,
            "RoleId": role, "Enabled": a.enabled, "Locked": a.is_locked(now),
            "PasswordChangeRequired": a.must_change, "AccountTypes": ["Redfish"],
            "Links": links,
        }),
    )
}

fn role(r: Role) -> Value {
    typed(
        &format!("AccountService/Roles/{}", r.word()),
        "Role",
        json!({
            "Id": r.word(), "RoleId": r.word(), "Name": format!("{} role", r.word()),
            "IsPredefined": true, "AssignedPrivileges": r.privileges(), "OemPrivileges": [],
        }),
    )
}
