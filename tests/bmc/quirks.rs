//! Quirks: which BMC has which, and what the client does for each.

use super::server::{Reply, SYSTEM, Seen, Server, calm};
use super::{OneCredential, edge, settings, target};
use farrier::bmc::{RedfishBmc, Settings};
use farrier::config::{self, Source};
use farrier::model::action::{BootTarget, Expect, Outcome, PowerOp};
use farrier::model::hardware::ControllerKind;
use farrier::model::quirks::{
    AcCycle, ActionOn, BootForm, IfMatch, MediaFirst, QuirkTable, Subject,
};
use farrier::model::{Fault, FaultClass};
use farrier::port::capability::{BmcBoot, BmcNature, BootMode, BootOrder};
use farrier::port::{BmcCare, BmcPower, BmcRead, BmcUpdate, UpdateOrder};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
const MANAGER: &str = "/redfish/v1/Managers/1";
const MANAGER_RESET: &str = "/redfish/v1/Managers/1/Actions/Manager.Reset";
const SIMPLE_UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";

const APPLIED: Outcome = Outcome::Applied { handle: None };

fn anybody() -> Expect {
    Expect::default()
}

fn shipped() -> QuirkTable {
    config::quirks::shipped()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A BMC in order but for what `changes` lays over its documents, by path.
fn bmc_with(changes: Value) -> impl Fn(&Seen) -> Reply + Clone {
    move |r| {
        let path = r.path.trim_end_matches('/');
        match calm(r) {
            Reply::Json(200, h, mut v) => {
                if let Some(change) = changes.get(path) {
                    merge(&mut v, change);
                }
                Reply::Json(200, h, v)
            }
            other => match changes.get(path) {
                Some(whole) if r.method == "GET" && r.header("x-auth-token").is_some() => {
                    Reply::ok(whole.clone())
                }
                _ => other,
            },
        }
    }
}

fn made_by(vendor: &str, model: &str) -> Value {
    json!({
        "/redfish/v1": {"Vendor": vendor},
        SYSTEM: {"Manufacturer": vendor, "Model": model,
                 "Boot": {"BootSourceOverrideMode": "UEFI"}},
    })
}

fn fault_of(outcome: Outcome) -> Fault {
    match outcome {
        Outcome::Failed { fault } => fault,
        o => panic!("{o:?}"),
    }
}

fn patches(server: &Server) -> Vec<Seen> {
    server.seen().into_iter().filter(|s| s.method == "PATCH").collect()
}

#[test]
fn the_captured_bmcs_have_their_quirks() {
    // As the captured trees, and the notes on others, name themselves.
    let who = |vendors: &[&str], product: &str, model: &str, bmc: &str, firmware: &str| Subject {
        vendors: vendors.iter().map(ToString::to_string).collect(),
        products: vec![product.into()],
        model: Some(model.into()),
        bmc: Some(bmc.into()),
        firmware: Some(firmware.into()),
    };
    let table = shipped();
    let rules = |of: &Subject| table.resolve(of).rules.join(" ");
    let idrac = "Integrated Dell Remote Access Controller";
    let r750 = who(&["Dell", "Dell Inc."], idrac, "PowerEdge R750", "15G Monolithic", "7.10.30.00");
    assert_eq!(rules(&r750), "dell-idrac");
    let q = table.resolve(&r750);
    assert!(q.service_tag && !q.boot.continuous && q.update.oem);
    assert_eq!((q.media.first, q.account.password_max), (MediaFirst::Managers, Some(40)));
    assert_eq!((q.session.most, q.account.user_max), (Some(8), Some(16)));
    match q.ac_cycle {
        Some(AcCycle::Action(cycle)) => {
            let chassis = ActionOn::Chassis("System.Embedded.1".into());
            assert_eq!((cycle.on, cycle.path), (chassis, None));
        }
        other => panic!("{other:?}"),
    }
    let older =
        who(&["Dell", "Dell Inc."], idrac, "PowerEdge R750", "15G Monolithic", "6.00.30.00");
    assert_eq!(rules(&older), "dell-idrac9-before-7.00.60 dell-idrac");
    let by_bios =
        AcCycle::Setting { attribute: "PowerCycleRequest".into(), value: "FullPowerCycle".into() };
    assert_eq!(table.resolve(&older).ac_cycle, Some(by_bios));
    let r770 = who(&["Dell", "Dell Inc."], idrac, "PowerEdge R770", "17G Monolithic", "1.20.50.50");
    assert_eq!(rules(&r770), "dell-idrac10 dell-idrac");
    assert_eq!(table.resolve(&r770).media.first, MediaFirst::Systems);
    let ilo = who(
        &["HPE", "Hpe"],
        "ProLiant DL380a Gen12",
        "ProLiant DL380a Gen12",
        "iLO 7",
        "iLO 7 v1.11",
    );
    assert_eq!(rules(&ilo), "hpe-ilo");
    let q = table.resolve(&ilo);
    assert_eq!((q.boot.form, q.session.timeout_s), (BootForm::NoMode, Some(30)));
    let xcc = who(
        &["Lenovo"],
        "",
        "ThinkSystem SR670 V2",
        "Lenovo XClarity Controller",
        "TGBT42S 2.83 2023-07-05",
    );
    assert_eq!(rules(&xcc), "lenovo-xcc");
    match table.resolve(&xcc).ac_cycle {
        Some(AcCycle::Action(cycle)) => {
            assert_eq!((cycle.on, &*cycle.reset_type), (ActionOn::System, "ACPowerCycle"));
        }
        other => panic!("{other:?}"),
    }
    let x13 = who(&["Supermicro"], "", "SYS-821GE-TNHR", "ASPEED", "11.01.01");
    assert_eq!(rules(&x13), "supermicro");
    let q = table.resolve(&x13);
    assert_eq!((q.boot.form, q.etag.patch), (BootForm::Triple, IfMatch::Never));
    assert_eq!((q.session.lockout_threshold, q.session.lockout_s), (Some(3), Some(30)));
    assert_eq!(q.boot.names[&BootTarget::Cd], ["UsbCd", "Cd"]);
    let dgx =
        who(&["AMI", "Ami", "NVIDIA"], "AMI Redfish Server", "DGXH100", "77171220", "23.11.20");
    assert_eq!(rules(&dgx), "nvidia-dgx ami");
    let q = table.resolve(&dgx);
    assert_eq!((q.etag.action, q.expand), (IfMatch::Any, false));
    assert_eq!((q.account.password_min, q.session.timeout_s), (Some(13), Some(30)));
    let gb200 = who(&["NVIDIA"], "GB200 NVL", "GB200 NVL", "OpenBmc", "GB200Nvl-24.12-8");
    assert_eq!(rules(&gb200), "nvidia-gb200 nvidia-openbmc openbmc");
    match table.resolve(&gb200).ac_cycle {
        Some(AcCycle::Action(cycle)) => assert_eq!(cycle.on, ActionOn::Chassis("BMC_0".into())),
        other => panic!("{other:?}"),
    }
    let gb300 = who(&["Supermicro"], "GB300", "ARS-121GL-NB3B-LCC", "OpenBmc", "GB300-25.1");
    assert_eq!(table.resolve(&gb300).boot.form, BootForm::Minimal);
    assert_eq!(rules(&who(&[], "Redvirt Service", "", "", "")), "sushy-tools");
    assert_eq!(rules(&who(&["Contoso"], "", "3500", "Joo Janta 200", "1.45.455b66-rev4")), "");
}

#[tokio::test]
async fn the_boot_override_has_the_form_that_the_vendor_takes() {
    let minimal = json!({"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"});
    let mut triple = minimal.clone();
    triple["BootSourceOverrideMode"] = json!("UEFI");
    for (vendor, first, then) in [
        ("Acme", &minimal, Some(&triple)),
        ("Supermicro", &triple, Some(&minimal)),
        ("ASRockRack", &triple, Some(&minimal)),
        // Never a mode, not even where the first body was turned down.
        ("HPE", &minimal, None),
    ] {
        for turned_down in [false, true] {
            let bmc = bmc_with(made_by(vendor, "x"));
            let server = Server::start(move |r, before| {
                let first = !before.iter().any(|s| s.method == "PATCH");
                if turned_down && first && r.method == "PATCH" {
                    return Reply::said(400, "PropertyNotWritable");
                }
                bmc(r)
            })
            .await;
            let outcome = edge().set_boot(&target(&server.url), &anybody(), BootTarget::Pxe).await;
            let sent: Vec<Value> =
                patches(&server).iter().map(|p| p.body["Boot"].clone()).collect();
            assert_eq!(&sent[0], first, "{vendor}");
            assert_eq!(sent.get(1), then.filter(|_| turned_down), "{vendor}");
            assert_eq!(outcome == APPLIED, !turned_down || then.is_some(), "{vendor}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_boot_override_may_have_a_mode_and_last() {
    let order =
        BootOrder { target: BootTarget::Cd, mode: Some(BootMode::Legacy), continuous: true };
    let bmc = bmc_with(made_by("Acme", "x"));
    let server = Server::start(move |r, _| bmc(r)).await;
    assert_eq!(edge().boot(&target(&server.url), &anybody(), &order).await, APPLIED);
    let sent = patches(&server);
    assert_eq!(
        sent[0].body["Boot"],
        json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd",
               "BootSourceOverrideMode": "Legacy"})
    );
    // XCC forgets it: said before anything is written.
    let bmc = bmc_with(made_by("Lenovo", "ThinkSystem SR670 V2"));
    let server = Server::start(move |r, _| bmc(r)).await;
    let f = fault_of(edge().boot(&target(&server.url), &anybody(), &order).await);
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Unsupported, "boot-once-only"));
    assert!(patches(&server).is_empty());
}

#[tokio::test]
async fn a_boot_target_goes_by_the_vendors_name() {
    let listed = json!({"Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues":
        ["None", "Pxe", "Cd", "UsbCd"]}});
    for (vendor, name) in [("Acme", "Cd"), ("Supermicro", "UsbCd")] {
        let mut changes = made_by(vendor, "x");
        merge(&mut changes[SYSTEM], &listed);
        let bmc = bmc_with(changes);
        let server = Server::start(move |r, _| bmc(r)).await;
        assert_eq!(
            edge().set_boot(&target(&server.url), &anybody(), BootTarget::Cd).await,
            APPLIED
        );
        assert_eq!(patches(&server)[0].body["Boot"]["BootSourceOverrideTarget"], json!(name));
    }
}

#[tokio::test]
async fn an_override_that_works_with_errors_inside_is_applied_when_it_shows() {
    for shows in [true, false] {
        let bmc = bmc_with(made_by("Dell", "PowerEdge R730"));
        let server = Server::start(move |r, before| {
            if r.method == "PATCH" {
                return Reply::Json(
                    200,
                    vec![],
                    json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.0.GeneralError",
                        "Severity": "Critical", "Message": "no"}]}}),
                );
            }
            match bmc(r) {
                Reply::Json(200, h, mut v)
                    if shows && r.path == SYSTEM && before.iter().any(|s| s.method == "PATCH") =>
                {
                    v["Boot"]["BootSourceOverrideEnabled"] = json!("Once");
                    v["Boot"]["BootSourceOverrideTarget"] = json!("Pxe");
                    Reply::Json(200, h, v)
                }
                other => other,
            }
        })
        .await;
        let outcome = edge().set_boot(&target(&server.url), &anybody(), BootTarget::Pxe).await;
        assert_eq!(outcome == APPLIED, shows, "{outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Unknown { .. }), !shows, "{outcome:?}");
    }
}

#[tokio::test]
async fn if_match_is_said_as_the_vendor_wants_it() {
    for (vendor, model, patch, action) in [
        ("Acme", "x", Some("W/\"7\""), None),
        ("Supermicro", "SYS-821GE-TNHR", None, None),
        ("Dell", "PowerEdge R770", Some("W/\"7\""), None),
        ("AMI", "DGXH100", Some("W/\"7\""), Some("*")),
    ] {
        let bmc = bmc_with(made_by(vendor, model));
        let server = Server::start(move |r, _| {
            let reply = bmc(r);
            if r.path == SYSTEM && r.method == "GET" {
                reply.with("ETag", "W/\"7\"")
            } else {
                reply
            }
        })
        .await;
        let (edge, bmc) = (edge(), target(&server.url));
        assert_eq!(edge.set_boot(&bmc, &anybody(), BootTarget::Pxe).await, APPLIED);
        assert_eq!(edge.power(&bmc, &anybody(), PowerOp::ForceRestart).await, APPLIED);
        let seen = server.seen();
        let said = |method| {
            let found = seen.iter().find(|s| s.method == method && !s.path.contains("Sessions"));
            found.unwrap().header("if-match")
        };
        assert_eq!((said("PATCH"), said("POST")), (patch, action), "{vendor}");
    }
}

#[tokio::test]
async fn a_restart_that_takes_two_acts_is_not_one() {
    // ForceRestart is listed, and hangs this one.
    let bmc = bmc_with(made_by("Lenovo", "ThinkSystem SR675 V3"));
    let server = Server::start(move |r, _| bmc(r)).await;
    let f = fault_of(edge().power(&target(&server.url), &anybody(), PowerOp::ForceRestart).await);
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Unsupported, "reset-type-unsupported"));
    assert!(f.message.contains("ForceOff, then On") && f.hint.is_some(), "{f:?}");
    assert_eq!(server.count("POST", RESET), 0);
    assert_eq!(edge().power(&target(&server.url), &anybody(), PowerOp::ForceOff).await, APPLIED);
    assert_eq!(server.count("POST", RESET), 1);
}

#[tokio::test]
async fn a_reset_refused_for_the_moment_says_when_to_come_again() {
    for (vendor, status, id, class, ms) in [
        ("HPE", 400, "InvalidOperationForSystemState", FaultClass::Throttled, 30_000),
        ("Dell", 409, "ActionParameterValueConflict", FaultClass::Throttled, 10_000),
        // A 409 that says nothing may be anything: it is charged.
        ("Acme", 409, "", FaultClass::Transient, 10_000),
    ] {
        let bmc = bmc_with(made_by(vendor, "x"));
        let server = Server::start(move |r, _| match id {
            "" if r.is("POST", RESET) => Reply::status(status),
            id if r.is("POST", RESET) => Reply::said(status, id),
            _ => bmc(r),
        })
        .await;
        let outcome = edge().power(&target(&server.url), &anybody(), PowerOp::ForceOff).await;
        let f = fault_of(outcome);
        assert_eq!((f.class, f.retry_after_ms), (class, Some(ms)), "{vendor}: {f:?}");
        assert_eq!(server.count("POST", RESET), 1, "the edge does not wait it out");
    }
    let bmc = bmc_with(made_by("HPE", "x"));
    let server = Server::start(move |r, _| match r.method.as_str() {
        "PATCH" => Reply::said(400, "UnableToModifyDuringSystemPOST"),
        _ => bmc(r),
    })
    .await;
    let f = fault_of(edge().set_boot(&target(&server.url), &anybody(), BootTarget::Pxe).await);
    assert_eq!((f.class, f.retry_after_ms), (FaultClass::Throttled, Some(30_000)));
    assert_eq!(patches(&server).len(), 1);
}

#[tokio::test]
async fn all_power_is_cut_only_where_it_is_known_how_and_with_the_host_off() {
    const AC: &str = "/redfish/v1/Systems/1/Actions/Oem/LenovoComputerSystem.SystemReset";
    let lenovo = |power: &str| {
        let mut changes = made_by("Lenovo", "ThinkSystem SR670 V2");
        merge(
            &mut changes[SYSTEM],
            &json!({"PowerState": power, "Actions": {"Oem": {
                "#LenovoComputerSystem.SystemReset": {"target": AC}}}}),
        );
        let bmc = bmc_with(changes);
        move |r: &Seen| if r.is("POST", AC) { Reply::status(204) } else { bmc(r) }
    };
    let on = lenovo("On");
    let server = Server::start(move |r, _| on(r)).await;
    match edge().ac_cycle(&target(&server.url), &anybody()).await {
        Outcome::Refused { saw, wrong_machine: false } => assert!(saw.contains("off"), "{saw}"),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("POST", AC), 0);
    let off = lenovo("Off");
    let server = Server::start(move |r, _| off(r)).await;
    assert_eq!(edge().ac_cycle(&target(&server.url), &anybody()).await, APPLIED);
    let seen = server.seen();
    let post = seen.iter().find(|s| s.is("POST", AC)).unwrap();
    assert_eq!(post.body, json!({"ResetType": "ACPowerCycle"}));
    // Dell has it on the chassis, from some firmware on.
    const EXTENDED: &str =
        "/redfish/v1/Chassis/System.Embedded.1/Actions/Oem/DellOemChassis.ExtendedReset";
    for offered in [true, false] {
        let mut changes = made_by("Dell Inc.", "PowerEdge R750");
        merge(&mut changes[SYSTEM], &json!({"PowerState": "Off"}));
        let actions = json!({"Oem": {"#DellOemChassis.ExtendedReset": {"target": EXTENDED}}});
        changes["/redfish/v1/Chassis/System.Embedded.1"] = json!({"Id": "System.Embedded.1", "Actions": if offered { actions } else { json!({}) }});
        let bmc = bmc_with(changes);
        let server = Server::start(move |r, _| match r.is("POST", EXTENDED) {
            true => Reply::status(204),
            false => bmc(r),
        })
        .await;
        let outcome = edge().ac_cycle(&target(&server.url), &anybody()).await;
        assert_eq!(outcome == APPLIED, offered, "{outcome:?}");
        let sent: Vec<Value> = server
            .seen()
            .into_iter()
            .filter(|s| s.method == "POST" && !s.path.contains("Sessions"))
            .map(|s| s.body)
            .collect();
        let want = if offered { vec![json!({"ResetType": "PowerCycle"})] } else { vec![] };
        assert_eq!(sent, want);
    }
    // Nobody knows how: nothing is tried.
    let bmc = bmc_with(json!({SYSTEM: {"PowerState": "Off"}}));
    let server = Server::start(move |r, _| bmc(r)).await;
    let f = fault_of(edge().ac_cycle(&target(&server.url), &anybody()).await);
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Unsupported, "no-ac-cycle"));
    assert!(server.seen().iter().all(|s| s.method == "GET" || s.path.contains("Sessions")));
    // Not advertised, known by heart, below the system that was proven.
    let mut changes = made_by("Supermicro", "SYS-821GE-TNHR");
    merge(&mut changes[SYSTEM], &json!({"PowerState": "Off"}));
    let smc = "/redfish/v1/Systems/1/Actions/Oem/OemSystemExtensions.Reset";
    let bmc = bmc_with(changes);
    let server =
        Server::start(move |r, _| if r.is("POST", smc) { Reply::status(200) } else { bmc(r) })
            .await;
    assert_eq!(edge().ac_cycle(&target(&server.url), &anybody()).await, APPLIED);
    assert_eq!(server.count("POST", smc), 1);
}

const BIOS: &str = "/redfish/v1/Systems/1/Bios";
const BIOS_SETTINGS: &str = "/redfish/v1/Systems/1/Bios/Settings";

/// An iDRAC9 that has no action for it, with its BIOS; what is left for the next POST shows.
async fn idrac_without_an_action(power: &str, locked: bool, starts: bool) -> Server {
    let power = power.to_string();
    Server::start(move |r, before| {
        let left = before.iter().any(|s| s.is("PATCH", BIOS_SETTINGS));
        let mut changes = made_by("Dell Inc.", "PowerEdge R750");
        merge(&mut changes[SYSTEM], &json!({"PowerState": power, "Bios": {"@odata.id": BIOS}}));
        changes["/redfish/v1"]["Registries"] = json!({"@odata.id": "/redfish/v1/Registries"});
        changes[MANAGER] = json!({"Model": "15G", "FirmwareVersion": "6.10.30.00"});
        changes[BIOS] = json!({
            "Attributes": {"PowerCycleRequest": "None", "BootMode": "Uefi"},
            "AttributeRegistry": "R",
            "@Redfish.Settings": {"SupportedApplyTimes": ["OnReset"],
                "SettingsObject": {"@odata.id": BIOS_SETTINGS}}});
        let wanted = if left { "FullPowerCycle" } else { "None" };
        changes[BIOS_SETTINGS] = json!({"Attributes": {"PowerCycleRequest": wanted}});
        changes["/redfish/v1/Registries/R"] = json!({"Location": [{"Uri": "/redfish/v1/R.json"}]});
        changes["/redfish/v1/R.json"] = json!({"RegistryEntries": {"Attributes": [
            {"AttributeName": "PowerCycleRequest", "ReadOnly": locked}]}});
        match r {
            r if r.is("PATCH", BIOS_SETTINGS) => {
                Reply::status(202).with("Location", "/redfish/v1/TaskService/Tasks/JID_1")
            }
            r if r.is("POST", RESET) && !starts => Reply::said(409, "InvalidOperation"),
            r => bmc_with(changes)(r),
        }
    })
    .await
}

#[tokio::test]
async fn an_older_idrac_cuts_all_power_by_a_bios_setting() {
    let server = idrac_without_an_action("Off", false, true).await;
    assert_eq!(edge().ac_cycle(&target(&server.url), &anybody()).await, APPLIED);
    let seen = server.seen();
    let writes: Vec<&Seen> =
        seen.iter().filter(|s| s.method != "GET" && !s.path.contains("Sessions")).collect();
    // First the setting, told when to apply it; then the start of the host that applies it.
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(writes[0].is("PATCH", BIOS_SETTINGS) && writes[1].is("POST", RESET), "{writes:?}");
    assert_eq!(writes[0].body["Attributes"], json!({"PowerCycleRequest": "FullPowerCycle"}));
    assert_eq!(writes[0].body["@Redfish.SettingsApplyTime"]["ApplyTime"], "OnReset");
    assert_eq!(writes[1].body, json!({"ResetType": "On"}));
}

#[tokio::test]
async fn a_bios_setting_for_it_is_guarded_and_never_waits_in_silence() {
    // The host runs: nothing is written.
    let server = idrac_without_an_action("On", false, true).await;
    match edge().ac_cycle(&target(&server.url), &anybody()).await {
        Outcome::Refused { saw, wrong_machine: false } => assert!(saw.contains("off"), "{saw}"),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("PATCH", BIOS_SETTINGS), 0);
    // Read-only, as on the captured R750: refused before it is sent, with another way.
    let server = idrac_without_an_action("Off", true, true).await;
    let f = fault_of(edge().ac_cycle(&target(&server.url), &anybody()).await);
    assert_eq!(f.code, "read-only-bios-attribute");
    assert!(f.hint.as_deref().is_some_and(|h| h.contains("power strip")), "{f:?}");
    assert_eq!((server.count("PATCH", BIOS_SETTINGS), server.count("POST", RESET)), (0, 0));
    // The host does not start: what waits in the BIOS is said.
    let server = idrac_without_an_action("Off", false, false).await;
    let f = fault_of(edge().ac_cycle(&target(&server.url), &anybody()).await);
    assert!(f.hint.as_deref().is_some_and(|h| h.contains("`PowerCycleRequest` waits")), "{f:?}");
    assert_eq!((server.count("PATCH", BIOS_SETTINGS), server.count("POST", RESET)), (1, 1));
    // Asked for again, it is found waiting and not written twice.
    let f = fault_of(edge().ac_cycle(&target(&server.url), &anybody()).await);
    assert!(f.hint.as_deref().is_some_and(|h| h.contains("waits")), "{f:?}");
    assert_eq!((server.count("PATCH", BIOS_SETTINGS), server.count("POST", RESET)), (1, 2));
}

#[tokio::test]
async fn quirks_that_were_read_again_count_for_bmcs_that_are_known() {
    let bmc = bmc_with(made_by("Acme", "x"));
    let server = Server::start(move |r, _| bmc(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let form = || async { edge.quirks(&bmc).await.unwrap().boot.form };
    assert_eq!(form().await, BootForm::Minimal);
    let sessions = server.count("POST", "/redfish/v1/SessionService/Sessions");
    let text = "schema = 1\n[[quirk]]\nname = \"acme\"\n[quirk.match]\nvendor = \"^Acme\"\n\
                [quirk.boot]\nform = \"triple\"\n";
    let (table, found) = farrier::config::quirks::parse(&Source::new("quirks.toml", text));
    assert!(found.is_empty());
    edge.set_quirks(Arc::new(table));
    assert_eq!(form().await, BootForm::Triple);
    edge.set_quirks(Arc::new(shipped()));
    assert_eq!(form().await, BootForm::Minimal);
    assert_eq!(server.count("POST", "/redfish/v1/SessionService/Sessions"), sessions);
}

#[tokio::test]
async fn the_hosts_bmc_is_told_from_the_baseboards() {
    let managers = "/redfish/v1/Managers";
    let manager = |id: &str, kind: &str, model: &str| {
        json!({"Id": id, "ManagerType": kind, "Model": model, "FirmwareVersion": "24.1-1",
               "Actions": {"#Manager.Reset": {
                   "target": format!("{managers}/{id}/Actions/Manager.Reset")}}})
    };
    // As DGX H100 lists them; nothing says who manages the system.
    let bmc = bmc_with(json!({
        "/redfish/v1": {"Vendor": "AMI"},
        SYSTEM: {"Model": "DGXH100", "Links": {"ManagedBy": []}},
        managers: {"Members": [
            {"@odata.id": "/redfish/v1/Managers/HGX_FabricManager_0"},
            {"@odata.id": "/redfish/v1/Managers/HGX_BMC_0"},
            {"@odata.id": "/redfish/v1/Managers/BMC"}]},
        "/redfish/v1/Managers/HGX_FabricManager_0": manager("HGX_FabricManager_0", "Service", ""),
        "/redfish/v1/Managers/HGX_BMC_0": manager("HGX_BMC_0", "BMC", "OpenBmc"),
        "/redfish/v1/Managers/BMC": manager("BMC", "BMC", "77171220"),
    }));
    let server = Server::start(move |r, _| {
        if r.method == "POST" && r.path.ends_with("Manager.Reset") {
            Reply::status(204)
        } else {
            bmc(r)
        }
    })
    .await;
    let settings = Settings { settle_after_reset: false, ..settings() };
    let (edge, bmc) = (RedfishBmc::new(Arc::new(OneCredential), settings), target(&server.url));
    let all = edge.controllers(&bmc).await.unwrap();
    let kinds: Vec<_> = all.iter().map(|c| (c.id.as_str(), c.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("BMC", ControllerKind::Host),
            ("HGX_BMC_0", ControllerKind::Baseboard),
            ("HGX_FabricManager_0", ControllerKind::Service),
        ]
    );
    assert_eq!(edge.reset_bmc(&bmc, &anybody()).await, APPLIED);
    assert_eq!(server.count("POST", "/redfish/v1/Managers/BMC/Actions/Manager.Reset"), 1);
}

#[tokio::test]
async fn the_manager_is_asked_once_and_only_where_a_rule_wants_its_firmware() {
    for (vendor, reads) in [("Dell", 1), ("HPE", 0)] {
        let mut changes = made_by(vendor, "x");
        changes[MANAGER] = json!({"Model": "m", "FirmwareVersion": "1.20.50.50"});
        let bmc = bmc_with(changes);
        let server = Server::start(move |r, _| bmc(r)).await;
        let rules = "schema = 1\n[[quirk]]\nname = \"dell\"\n[quirk.match]\nvendor = \"^Dell\"\n\
                     firmware_before = \"2.0\"\n[quirk.reset]\n\
                     force_off = [[\"PushPowerButton\"]]\n";
        let (table, found) = config::quirks::parse(&Source::new("q.toml", rules));
        assert!(found.is_empty(), "{}", config::render(&found));
        let settings = Settings { quirks: Arc::new(table), ..settings() };
        let (edge, bmc) = (RedfishBmc::new(Arc::new(OneCredential), settings), target(&server.url));
        let names = edge.quirks(&bmc).await.unwrap().rules.clone();
        assert_eq!(names.len(), reads, "{vendor}: {names:?}");
        for _ in 0..3 {
            edge.power(&bmc, &anybody(), PowerOp::ForceOff).await;
            edge.system(&bmc).await.unwrap();
        }
        assert_eq!(server.count("GET", MANAGER), reads, "{vendor}");
        // iDRAC of that firmware has no other way off in this table, and lists no such type.
        assert_eq!(server.count("POST", RESET), if vendor == "Dell" { 0 } else { 3 });
    }
}

#[tokio::test]
async fn a_plain_probe_asks_for_no_quirks() {
    let bmc = bmc_with(made_by("Dell", "PowerEdge R750"));
    let server = Server::start(move |r, _| bmc(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    edge.system(&bmc).await.unwrap();
    let before = server.seen().len();
    edge.system(&bmc).await.unwrap();
    assert_eq!(server.seen().len(), before + 1);
    assert_eq!(server.count("GET", MANAGER), 0);
}

#[tokio::test]
async fn a_simple_update_goes_where_it_works() {
    let rules = "schema = 1\n[[quirk]]\nname = \"emulated-ilo\"\n[quirk.match]\nvendor = \"^HPE\"\n\
                 [quirk.update]\nsimple_update = \"/redfish/v1/UpdateService/SimpleUpdate\"\n";
    let (site, found) = config::quirks::parse(&Source::new("q.toml", rules));
    assert!(found.is_empty(), "{}", config::render(&found));
    let table = config::quirks::over(site, shipped());
    let works = "/redfish/v1/UpdateService/SimpleUpdate";
    let bmc = bmc_with(made_by("HPE", "x"));
    let server = Server::start(move |r, _| match r {
        r if r.is("POST", SIMPLE_UPDATE) => Reply::status(405),
        r if r.is("POST", works) => Reply::status(200),
        r => bmc(r),
    })
    .await;
    let settings = Settings { quirks: Arc::new(table), ..settings() };
    let edge = RedfishBmc::new(Arc::new(OneCredential), settings);
    let order = UpdateOrder {
        image_url: "http://192.0.2.1/bios.bin".into(),
        inventory_id: "BIOS".into(),
        from: "1.0".into(),
        to: "2.0".into(),
        file: None,
    };
    assert_eq!(edge.update(&target(&server.url), &anybody(), &order).await, APPLIED);
    assert_eq!((server.count("POST", works), server.count("POST", SIMPLE_UPDATE)), (1, 0));
}

#[tokio::test]
async fn the_manager_s_reset_types_are_a_ladder_too() {
    let bmc = bmc_with(json!({MANAGER: {"Actions": {"#Manager.Reset": {
        "target": MANAGER_RESET,
        "ResetType@Redfish.AllowableValues": ["GracefulRestart", "ForceRestart"]}}}}));
    let server = Server::start(move |r, _| bmc(r)).await;
    assert_eq!(edge().reset_bmc(&target(&server.url), &anybody()).await, APPLIED);
    let seen = server.seen();
    let post = seen.iter().find(|s| s.is("POST", MANAGER_RESET)).unwrap();
    assert_eq!(post.body, json!({"ResetType": "GracefulRestart"}));
}

/// The shipped text without some of its lines.
fn without(lines: &[bool]) -> String {
    let kept = config::shipped::QUIRKS.lines().zip(lines.iter().chain(std::iter::repeat(&true)));
    kept.filter(|(_, keep)| **keep).map(|(line, _)| format!("{line}\n")).collect()
}

#[test]
fn the_table_without_any_one_line_still_loads_or_says_what_is_missing() {
    let whole = shipped();
    let all: Vec<&str> = config::shipped::QUIRKS.lines().collect();
    for (n, line) in all.iter().enumerate() {
        let mut lines = vec![true; all.len()];
        lines[n] = false;
        let (table, found) = config::quirks::parse(&Source::new("q.toml", without(&lines)));
        let report = config::render(&found);
        for d in &found {
            assert!(d.line >= 1 && d.line <= all.len(), "without line {}: {d}", n + 1);
        }
        // A line inside a list of several breaks the syntax: said, and nothing is taken.
        let broken = found.iter().any(|d| d.is_error());
        let rules = table.rules.len();
        assert!(broken || rules + 1 >= whole.rules.len(), "without `{line}`: {rules}\n{report}");
        if line.starts_with("name = ") || line.starts_with("schema") {
            assert!(report.contains("is missing"), "without `{line}`:\n{report}");
        }
        if line.starts_with("[quirk.match]") {
            assert!(broken, "a rule for nobody in particular: line {}", n + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_part_of_the_table_is_read_without_a_panic(lines in prop::collection::vec(prop::bool::weighted(0.9), 300)) {
        let (table, found) = config::quirks::parse(&Source::new("q.toml", without(&lines)));
        // Whatever was read can be asked.
        let of = Subject { vendors: vec!["Dell".into()], ..Subject::default() };
        let quirks = table.resolve(&of);
        prop_assert!(quirks.reset.ladders.len() >= 5);
        prop_assert!(found.iter().all(|d| d.line >= 1));
    }
}

#[test]
fn the_rules_in_the_pages_name_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let mut code = String::new();
    let mut dirs = vec![root.join("src"), root.join("tests")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                code.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let page = read("src/bmc/mod.rs");
    let others = [read("src/ipmi/mod.rs"), read("src/sim/serve/mod.rs")].concat();
    let all = [page.as_str(), others.as_str()].concat();
    let rows = all.lines().filter(|l| l.starts_with("//! | R") || l.starts_with("//! | §"));
    let names =
        rows.flat_map(|l| l.split('`').skip(1).step_by(2).filter(|w| w.matches('_').count() > 3));
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 40, "{}", names.len());
    let missing: Vec<&&str> =
        names.iter().filter(|n| !code.contains(&format!("fn {n}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for n in 1..=24 {
        assert!(
            page.contains(&format!("R{n} ")) || page.contains(&format!("R{n},")),
            "R{n} has no row"
        );
    }
    for n in 1..=20 {
        let row = |end: &str| all.contains(&format!("§6.{n}{end}"));
        assert!(row(" ") || row(","), "§6.{n} has no row");
    }
}

#[test]
fn a_sites_own_table_is_checked_with_the_rest_and_comes_first() {
    let file = |path: &str| {
        let at = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        Source::new(path, std::fs::read_to_string(at).unwrap())
    };
    let with = |quirks: &str| {
        let catalog = ["dell/poweredge-xe9680", "farrier/virtual", "supermicro/sys-821ge-tnhr"];
        config::load(
            &config::Sources {
                daemon: file("farrier.example.toml"),
                inventory: vec![file("inventory.example.toml")],
                workflows: vec![file("workflows/gpu-node.toml"), file("workflows/cpu-node.toml")],
                catalog: catalog
                    .iter()
                    .map(|f| file(&format!("firmware-catalog/{f}.toml")))
                    .collect(),
                catalog_root: "firmware-catalog".into(),
                quirks: Some(Source::new("site-quirks.toml", quirks)),
                ..config::Sources::default()
            },
            &|_| true,
        )
    };
    let rule = "schema = 1\n[[quirk]]\nname = \"ours\"\n[quirk.match]\nvendor = \"^Dell\"\n";
    let loaded = with(&format!("{rule}[quirk.bmc]\nsettle = \"5m\"\n")).unwrap();
    let dell = Subject { vendors: vec!["Dell".into()], ..Subject::default() };
    let quirks = loaded.quirks.resolve(&dell);
    assert_eq!(quirks.rules, ["ours", "dell-idrac"]);
    assert_eq!((quirks.bmc_settle_s, quirks.service_tag), (300, true));
    let found = with(&format!("{rule}[quirk.bmc]\nsettel = \"5m\"\n")).unwrap_err();
    let report = config::render(&found);
    assert!(
        report.contains("unknown key `settel`") && report.contains("site-quirks.toml:7"),
        "{report}"
    );
}
