//! The HTTP API over a real engine: reads, changes, errors, the stream, who may speak.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test: waits, reads")]

mod support;

use farrier::model::facts::Power;
use farrier::model::{Condition, MachineId, Stage};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{PLANTED, Plan, Served, serve};

fn plan(machines: u32) -> Plan {
    Plan { machines, ..Plan::default() }
}

fn hold(why: &str) -> Value {
    json!({"change": "hold", "why": why})
}

/// Checks the shape every error has.
fn problem<'a>(answer: &'a (u16, Value), status: u16, code: &str) -> &'a Value {
    let (got, body) = answer;
    assert_eq!((*got, body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:farrier:problem:{code}"));
    assert!(!body["title"].as_str().unwrap().is_empty());
    body
}

#[test]
fn the_checked_in_description_is_the_api() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = farrier::app::routes::openapi();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == made,
        "openapi.json is not what the API is; after a look at the change: \
         UPDATE_OPENAPI=1 cargo test --test api the_checked_in_description"
    );
    let doc: Value = serde_json::from_str(&made).unwrap();
    for path in [
        "/v1/machines/{name}/changes",
        "/v1/changes",
        "/v1/events",
        "/metrics",
        "/v1/pins",
        "/v1/rotations",
    ] {
        assert!(doc["paths"][path].is_object(), "{path}");
    }
    assert!(doc["components"]["schemas"]["Problem"].is_object());
}

#[tokio::test]
async fn machines_are_listed_by_selector_and_page() {
    let s = serve(plan(20)).await;
    let (status, all) = s.get("/v1/machines").await;
    assert_eq!((status, all["total"].as_u64()), (200, Some(20)));
    let names: Vec<&str> =
        all["machines"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.len() == 20);

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let (_, page) = s.get(&format!("/v1/machines?limit=7&after={after}")).await;
        assert_eq!(page["total"], 20);
        let machines = page["machines"].as_array().unwrap();
        seen.extend(machines.iter().map(|m| m["name"].as_str().unwrap().to_string()));
        match page["next"].as_str() {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    assert_eq!(seen, names);

    for (query, count) in [
        ("rack=r2", 8),
        ("pool=h100", 10),
        ("pool=h100&rack=r3", 2),
        ("name=n0*", 9),
        ("name=n?5", 2),
        ("control=unmanaged&stage=discover&desired=none&held=false", 20),
        ("stage=ready", 0),
        ("held=true", 0),
        ("held_by=restore", 0),
    ] {
        assert_eq!(s.get(&format!("/v1/machines?{query}")).await.1["total"], count, "{query}");
    }
    let bad = s.get("/v1/machines?stage=redy").await;
    let body = problem(&bad, 400, "bad-selector");
    assert_eq!((&body["nearest"], &body["place"]), (&json!(["ready"]), &json!("query stage")));
    // A typing error in a key must not select everything.
    problem(&s.get("/v1/machines?rak=r1").await, 400, "bad-query");
    problem(&s.get("/v1/machines?limit=0").await, 400, "bad-query");
    problem(&s.get("/v1/machines?limit=x").await, 400, "bad-query");
    problem(&s.get("/v1/machines?held=maybe").await, 400, "bad-query");
}

#[tokio::test]
async fn a_machine_goes_to_ready_and_its_run_tells_how() {
    let s = serve(plan(2)).await;
    s.settled().await;
    let (status, done) = s
        .post(
            "/v1/machines/n01/changes",
            &json!({"change": "enroll", "desired": "ready"}),
            &[("x-farrier-by", "ann")],
        )
        .await;
    assert_eq!(status, 200, "{done}");
    s.until_machine(1, "ready", |m| m.stage == Stage::Ready && m.run.is_none()).await;
    let (_, m) = s.get("/v1/machines/n01").await;
    assert_eq!((&m["stage"], &m["condition"]), (&json!("ready"), &json!("ok")));
    assert_eq!(m["expected"]["bmc_url"], "https://10.0.0.1");
    assert_eq!(m["facts"]["system"]["value"]["power"], "on");
    assert_eq!(m["facts"]["system"]["freshness"], "fresh");
    assert!(m["facts"]["system"]["age_ms"].is_u64());
    assert_eq!(m["facts"]["cluster"]["freshness"], "unknown");

    let (_, runs) = s.get("/v1/machines/n01/runs").await;
    let run = &runs["runs"][0];
    assert_eq!((&run["state"], &run["outcome"]), (&json!("ended"), &json!("arrived in ready")));
    let steps: Vec<(&str, &str, &str)> = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            let word = |k: &str| s[k].as_str().unwrap();
            (word("stage"), word("key"), word("state"))
        })
        .collect();
    assert_eq!(
        steps,
        [
            ("discover", "identify", "done"),
            ("firmware", "off", "done"),
            ("provision", "on", "done")
        ]
    );
    assert_eq!(run["steps"][1]["actions"][0]["action"], "power-off");
    assert_eq!(run["steps"][1]["actions"][0]["state"], "happened");
    assert_eq!(runs["runs"][1]["outcome"], "discovered; adopt or enroll it");
    let id = run["id"].as_u64().unwrap();
    assert_eq!(&s.get(&format!("/v1/machines/n01/runs/{id}")).await.1, run);
    problem(&s.get("/v1/machines/n01/runs/999").await, 404, "no-such-run");
    problem(&s.get("/v1/machines/n01/runs/x").await, 404, "no-such-run");

    let (_, first) = s.get("/v1/machines/n01/history?limit=2").await;
    assert_eq!(first["lines"][0]["entry"]["entry"], "registered");
    assert_eq!(first["lines"][1]["entry"]["entry"], "run-began");
    assert_eq!(first["next"], 2);
    let (_, all) = s.get("/v1/machines/n01/history").await;
    let texts: Vec<&str> =
        all["lines"].as_array().unwrap().iter().map(|l| l["text"].as_str().unwrap()).collect();
    assert!(texts.contains(&"ann: enroll, desired ready"), "{texts:?}");
    let (_, rest) = s.get("/v1/machines/n01/history?limit=1000&after=2").await;
    assert_eq!(rest["lines"][0]["seq"], 3);
    assert!(rest.get("next").is_none());
    let (_, last) = s.get("/v1/machines/n01/history?limit=1&last=true").await;
    assert_eq!(last["lines"][0]["seq"], m["seq"]);
    let (_, why) = s.get("/v1/machines/n01/explain").await;
    assert_eq!(why["summary"], "n01 rests in ready");
}

#[tokio::test]
async fn the_same_key_twice_is_one_entry_with_one_seq() {
    let s = serve(plan(2)).await;
    let key = [("idempotency-key", "k-1"), ("x-farrier-by", "ann")];
    let first = s.post("/v1/machines/n01/changes", &hold("cabling"), &key).await;
    assert_eq!(first.0, 200, "{}", first.1);
    let again = s.post("/v1/machines/n01/changes", &hold("cabling"), &key).await;
    assert_eq!(first, again);
    // Said again after the machine has moved on, it neither happens again nor is it refused.
    let end = json!({"change": "unhold", "why": "done"});
    let ended = s.post("/v1/machines/n01/changes", &end, &[("idempotency-key", "k-2")]).await;
    assert_eq!(ended.0, 200);
    assert_eq!(first, s.post("/v1/machines/n01/changes", &hold("cabling"), &key).await);
    let unheld = s.post("/v1/machines/n01/changes", &end, &[("idempotency-key", "k-2")]).await;
    assert_eq!(ended, unheld);
    assert!(s.get("/v1/machines/n01").await.1.get("hold").is_none());
    let changes = s.store.journal(1).iter().filter(|l| l.entry.name() == "changed").count();
    assert_eq!(changes, 2);
    // Another change under an old key is a mistake, not a repetition.
    let reused = s.post("/v1/machines/n01/changes", &hold("other"), &key).await;
    problem(&reused, 422, "key-reused");
    // The same key at another machine is another change.
    assert_eq!(s.post("/v1/machines/n02/changes", &hold("cabling"), &key).await.0, 200);
    // Without a key one is made up, and told.
    let (_, made) = s.post("/v1/machines/n02/changes", &hold("again"), &[]).await;
    assert!(made["idempotency_key"].as_str().unwrap().len() >= 32);
    for bad in ["", " ", &"x".repeat(129)] {
        let headers = [("idempotency-key", bad)];
        let answer = s.post("/v1/machines/n01/changes", &hold("x"), &headers).await;
        problem(&answer, 400, "bad-header");
    }
}

#[tokio::test]
async fn a_change_of_many_machines_waits_for_a_confirm() {
    let s = serve(plan(9)).await;
    let order = |confirm: Value| json!({"selector": {"rack": "r1"}, "change": hold("power work"), "confirm": confirm});
    let asked = s.post("/v1/changes", &order(Value::Null), &[]).await;
    let body = problem(&asked, 409, "confirm-needed");
    assert_eq!(body["machines"], 8);
    assert!(body["hint"].as_str().unwrap().contains("confirm 8"));
    problem(&s.post("/v1/changes", &order(json!(7)), &[]).await, 409, "confirm-needed");
    assert_eq!(s.get("/v1/machines?held=true").await.1["total"], 0, "nothing was changed");

    let key = [("idempotency-key", "bulk-1")];
    let (status, done) = s.post("/v1/changes", &order(json!(8)), &key).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["changed"].as_array().unwrap().len(), 8);
    assert_eq!(s.get("/v1/machines?held=true").await.1["total"], 8);
    assert_eq!(done, s.post("/v1/changes", &order(json!(8)), &key).await.1, "repeated");
    assert_eq!(s.store.journal(3).iter().filter(|l| l.entry.name() == "changed").count(), 1);

    // One loser does not take the others down.
    let unhold = json!({"selector": {"names": ["n08", "n09"]},
        "change": {"change": "unhold", "why": "done"}});
    let (status, mixed) = s.post("/v1/changes", &unhold, &[]).await;
    assert_eq!(status, 200);
    assert_eq!(mixed["changed"][0]["machine"], "n08");
    assert_eq!(mixed["refused"][0]["machine"], "n09");
    assert_eq!(mixed["refused"][0]["problem"]["code"], "not-now");

    let unknown = json!({"selector": {"names": ["n01", "n0l"]}, "change": hold("x")});
    let answer = s.post("/v1/changes", &unknown, &[]).await;
    assert!(problem(&answer, 404, "no-such-machine")["detail"].as_str().unwrap().contains("n0l"));
    let empty = json!({"selector": {}, "change": hold("x")});
    problem(&s.post("/v1/changes", &empty, &[]).await, 400, "bad-selector");
}

#[tokio::test]
async fn bad_bodies_are_refused_with_their_place() {
    let s = serve(plan(1)).await;
    let path = "/v1/machines/n01/changes";
    for (body, place) in [
        (json!({"change": "hold", "wy": "x"}), "line 1, column "),
        (json!({"change": "explode"}), "line 1, column "),
        (json!({"change": "hold"}), "why"),
        (json!({"change": "hold", "why": "  "}), "why"),
        (json!({"change": "hold", "why": "x".repeat(501)}), "why"),
        (json!({"change": "desire"}), "desired"),
        (json!({"change": "desire", "desired": "happy"}), "desired"),
        (json!({"change": "adopt", "desired": "ready"}), "desired"),
        (json!({"change": "hold", "why": "x", "allow_existing_data": true}), "allow_existing_data"),
        (json!([1]), "line 1, column "),
        (json!(null), "line 1, column "),
    ] {
        let answer = s.post(path, &body, &[]).await;
        let problem = problem(&answer, 400, "bad-body");
        assert!(problem["place"].as_str().unwrap().starts_with(place), "{body} {problem}");
    }
    let bulk = json!({"selector": {"stge": "ready"}, "change": hold("x")});
    problem(&s.post("/v1/changes", &bulk, &[]).await, 400, "bad-body");
    let raw = |kind: &'static str, body: String| {
        let request = s.http.post(format!("{}{path}", s.url)).header("content-type", kind);
        async move {
            let response = request.body(body).send().await.unwrap();
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            (response.status().as_u16(), response.json::<Value>().await.unwrap())
        }
    };
    let cut = raw("application/json", "{\n  \"change\": ".into()).await;
    assert!(problem(&cut, 400, "bad-body")["place"].as_str().unwrap().starts_with("line 2"));
    problem(&raw("text/plain", "{}".into()).await, 415, "not-json");
    let huge = format!("{{\"why\": \"{}\"}}", "x".repeat(1 << 20));
    problem(&raw("application/json", huge).await, 413, "body-too-large");
    assert_eq!(s.store.journal(1).iter().filter(|l| l.entry.name() == "changed").count(), 0);

    let unknown = s.post("/v1/machines/n0/changes", &hold("x"), &[]).await;
    assert_eq!(problem(&unknown, 404, "no-such-machine")["nearest"], json!(["n01"]));
    problem(&s.get("/v1/machine").await, 404, "no-such-path");
    problem(&s.post("/v1/status", &json!({}), &[]).await, 405, "method-not-allowed");
    let refused = s.post(path, &json!({"change": "desire", "desired": "ready"}), &[]).await;
    let body = problem(&refused, 409, "not-now");
    assert!(body["detail"].as_str().unwrap().contains("adopt or enroll"), "{body}");
}

#[tokio::test]
async fn a_change_that_is_not_durable_in_time_says_that_it_may_become_so() {
    let s = serve(Plan { ack_timeout: Some(Duration::from_millis(50)), ..plan(1) }).await;
    s.store.hung.store(true, Ordering::Relaxed);
    let key = [("idempotency-key", "late")];
    let late = s.post("/v1/machines/n01/changes", &hold("x"), &key).await;
    let body = problem(&late, 503, "outcome-unknown");
    assert!(body["hint"].as_str().unwrap().contains("same Idempotency-Key"));
    assert!(s.get("/v1/machines/n01").await.1.get("hold").is_none(), "not shown before durable");
    s.store.hung.store(false, Ordering::Relaxed);
    s.until_machine(1, "held", |m| m.hold.is_some()).await;
    let (status, done) = s.post("/v1/machines/n01/changes", &hold("x"), &key).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(s.store.journal(1).iter().filter(|l| l.entry.name() == "changed").count(), 1);
}

#[tokio::test]
async fn a_rescue_names_a_key_and_a_time_that_are_one() {
    let s = serve(plan(2)).await;
    s.settled().await;
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJsaHlEdYCtVIbYwvEdqLi1Yg8qnmPTOL1vXVXNVvZ8e ann";
    let path = "/v1/machines/n01/changes";
    let order = json!({"change": "rescue", "key": key, "why": "ECC errors"});
    let with = |field: &str, value: Value| {
        let mut order = order.clone();
        order[field] = value;
        order
    };
    for (bad, place) in [
        (with("key", json!(null)), "key"),
        (with("key", json!(format!("command=\"id\" {key}"))), "key"),
        (with("key", json!("-----BEGIN OPENSSH PRIVATE KEY-----")), "key"),
        (with("for_ms", json!(1)), "for_ms"),
        (with("for_ms", json!(73 * 3_600_000)), "for_ms"),
        (with("why", json!("")), "why"),
        (with("change", json!("hold")), "key"),
    ] {
        let answer = s.post(path, &bad, &[]).await;
        assert_eq!(problem(&answer, 400, "bad-body")["place"], place, "{bad}");
    }
    let bulk = json!({"selector": {"name": "*"}, "change": order});
    problem(&s.post("/v1/changes", &bulk, &[]).await, 400, "bad-body");
    // A workflow that is older than rescues.
    let answer = s.post(path, &order, &[]).await;
    let hint = problem(&answer, 409, "not-now")["hint"].as_str().unwrap();
    assert!(hint.contains("[[step]]") && hint.contains("reload"), "{hint}");
    let end = json!({"change": "end-rescue", "why": "done"});
    problem(&s.post(path, &end, &[]).await, 409, "not-now");
}

#[tokio::test]
async fn a_skip_names_its_step() {
    let s = serve(Plan { refuses: &["n01"], ..plan(2) }).await;
    s.settled().await;
    assert_eq!(s.post("/v1/machines/n01/changes", &json!({"change": "enroll"}), &[]).await.0, 200);
    s.until_machine(1, "quarantined", |m| m.is_quarantined()).await;
    let path = "/v1/machines/n01/changes";
    let no_step = s.post(path, &json!({"change": "skip", "why": "x"}), &[]).await;
    assert_eq!(problem(&no_step, 400, "bad-body")["place"], "step");
    let other = json!({"change": "hold", "why": "x", "step": "off"});
    assert_eq!(problem(&s.post(path, &other, &[]).await, 400, "bad-body")["place"], "step");
    let late = json!({"change": "skip", "step": "identify", "why": "x"});
    let late = s.post(path, &late, &[]).await;
    let detail = problem(&late, 409, "not-now")["detail"].as_str().unwrap();
    assert!(detail.contains("the current step is `off`, not `identify`"), "{detail}");
    for (query, count) in [("step=off", 1), ("step=on", 0), ("stuck=true", 0), ("stuck=false", 2)] {
        assert_eq!(s.get(&format!("/v1/machines?{query}")).await.1["total"], count, "{query}");
    }
    let order = json!({"selector": {"step": "off"},
        "change": {"change": "skip", "step": "off", "why": "no relay"}});
    let (status, done) = s.post("/v1/changes", &order, &[]).await;
    assert_eq!((status, &done["changed"][0]["machine"]), (200, &json!("n01")), "{done}");
    s.until_machine(1, "ready", |m| m.stage == Stage::Ready && m.run.is_none()).await;
    let (_, runs) = s.get("/v1/machines/n01/runs").await;
    assert_eq!(runs["runs"][0]["steps"][1]["state"], "skipped");
    let (_, why) = s.get("/v1/machines/n01/explain").await;
    assert_eq!(why["skipped"][0], "`off` in firmware: a person said so: no relay");
}

/// The files of an archive by name, without its directory.
fn unpacked(archive: &[u8]) -> BTreeMap<String, String> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let files = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        (path.split_once('/').unwrap().1.to_string(), text)
    });
    files.collect()
}

async fn evidence(s: &Served, name: &str) -> BTreeMap<String, String> {
    let path = format!("{}/v1/machines/{name}/evidence", s.url);
    let response = s.http.get(path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/gzip");
    let file = response.headers()["content-disposition"].to_str().unwrap().to_string();
    assert_eq!(file, format!("attachment; filename=\"{name}-evidence.tar.gz\""));
    unpacked(&response.bytes().await.unwrap())
}

#[tokio::test]
async fn a_failed_runs_console_is_shown_and_commands_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = farrier::ipmi::Bounds { bytes: 4096, runs: 5, age: Duration::from_secs(3600) };
    let shelf = farrier::ipmi::Shelf::new(dir.path().join("consoles"), bounds).unwrap();
    let consoles = Some(shelf.clone());
    let s = serve(Plan { refuses: &["n01"], consoles, ..plan(2) }).await;
    s.settled().await;
    let missing = s.get("/v1/machines/n01/console").await;
    problem(&missing, 404, "no-console");
    assert_eq!(s.post("/v1/machines/n01/changes", &json!({"change": "enroll"}), &[]).await.0, 200);
    s.until_machine(1, "quarantined", |m| m.is_quarantined()).await;
    let run = s.handle.ask(|d, _| d.machine(MachineId(1)).unwrap().run_name(&d.site().incarnation));
    let run = run.await.unwrap();
    let mut live = shelf.follow("n01", &run).unwrap();
    live.push(b"\x1b[2J\x1b]0;owned\x07GRUB loading\r\nKernel panic - not syncing\r\n").unwrap();
    shelf.keep(live);

    let response = s.http.get(format!("{}/v1/machines/n01/console", s.url)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["farrier-run"], run.as_str());
    let said = "GRUB loading\nKernel panic - not syncing\n";
    assert_eq!(response.text().await.unwrap(), said);
    let (_, why) = s.get("/v1/machines/n01/explain").await;
    assert_eq!(why["console"], json!(["GRUB loading", "Kernel panic - not syncing"]));
    assert_eq!(evidence(&s, "n01").await["console-tail.txt"], said);
    let (status, out, err) = s.cli_raw(&["machine", "console", "n01"]).await;
    assert_eq!((status, out.as_str()), (0, said), "{err}");
    let (_, out, _) = s.cli_raw(&["machine", "explain", "n01"]).await;
    assert!(out.contains("the console's last lines:\n  GRUB loading\n"), "{out}");
    problem(&s.get("/v1/machines/n01/console?run=abc").await, 404, "no-console");
    problem(&s.get("/v1/machines/n02/console").await, 404, "no-console");
    problem(&s.get("/v1/machines/n09/console").await, 404, "no-such-machine");
}

#[tokio::test]
async fn evidence_is_one_archive_and_outlives_the_release() {
    let s = serve(Plan { refuses: &["n01"], ..plan(2) }).await;
    s.settled().await;
    assert_eq!(s.post("/v1/machines/n01/changes", &json!({"change": "enroll"}), &[]).await.0, 200);
    s.until_machine(1, "quarantined", |m| m.is_quarantined()).await;
    let files = evidence(&s, "n01").await;
    for name in [
        "README.txt",
        "machine.json",
        "explain.json",
        "site.json",
        "journal.jsonl",
        "faults.json",
        "log-tail.txt",
        "facts/system.json",
    ] {
        assert!(files.contains_key(name), "{name} is not in {:?}", files.keys());
        let told = name == "README.txt" || files["README.txt"].contains(name);
        assert!(told, "README.txt does not tell of {name}");
    }
    for (name, text) in &files {
        assert!(!text.contains(PLANTED), "a secret in {name}");
        if name.ends_with(".json") {
            serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
    assert!(files["README.txt"].contains("console-tail.txt"), "{}", files["README.txt"]);
    let lines: Vec<Value> =
        files["journal.jsonl"].lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), s.store.journal(1).len(), "from the first entry on");
    assert_eq!(lines[0]["entry"]["entry"], "registered");
    let faults: Value = serde_json::from_str(&files["faults.json"]).unwrap();
    let last = faults.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["entry"], &last["fault"]["code"]),
        (&json!("quarantined"), &json!("bmc-internal"))
    );
    assert!(last["fault"]["evidence"].as_str().unwrap().contains("HTTP 500"));
    let facts: Value = serde_json::from_str(&files["facts/system.json"]).unwrap();
    assert!(facts["age_ms"].is_u64() && facts["value"]["power"] == "on", "{facts}");
    let why: Value = serde_json::from_str(&files["explain.json"]).unwrap();
    assert!(why["summary"].as_str().unwrap().contains("is quarantined in firmware"));

    let skip = json!({"change": "skip", "step": "off", "why": "no relay"});
    assert_eq!(s.post("/v1/machines/n01/changes", &skip, &[]).await.0, 200);
    s.until_machine(1, "ready", |m| m.stage == Stage::Ready && m.run.is_none()).await;
    let after = evidence(&s, "n01").await;
    let faults: Value = serde_json::from_str(&after["faults.json"]).unwrap();
    assert!(faults.as_array().unwrap().contains(last), "the old quarantine: {faults}");

    // A machine without any trouble has evidence too, and one that is not there has none.
    let calm = evidence(&s, "n02").await;
    assert_eq!(calm["faults.json"].trim(), "[]");
    let missing = s.get("/v1/machines/n0l/evidence").await;
    assert_eq!(problem(&missing, 404, "no-such-machine")["nearest"][0], "n01");
    let (_, page) = s.get("/machines/n01").await;
    assert!(page.as_str().unwrap().contains("href=\"/v1/machines/n01/evidence\""));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("e.tar.gz").display().to_string();
    let words = ["machine", "evidence", "n01", "-o", &file];
    let (code, out, err) = s.cli_raw(&words).await;
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.starts_with(&file) && out.contains("begin with README.txt"), "{out}");
    assert_eq!(unpacked(&std::fs::read(&file).unwrap()).len(), after.len());
    let (code, _, err) = s.cli_raw(&words).await;
    assert!(code == 1 && err.contains("is there already") && err.contains("--force"), "{err}");
    let (code, _, err) = s.cli_raw(&["machine", "evidence", "n0l", "-o", &file]).await;
    assert!(code == 1 && err.contains("there is no machine `n0l`"), "{err}");
}

#[tokio::test]
async fn stop_and_resume() {
    let s = serve(plan(1)).await;
    problem(&s.post("/v1/stop", &json!({"why": ""}), &[]).await, 400, "bad-body");
    let by = [("x-farrier-by", "ann")];
    assert_eq!(s.post("/v1/stop", &json!({"why": "smoke"}), &by).await.0, 200);
    let (_, status) = s.get("/v1/status").await;
    assert_eq!(
        (&status["stopped"]["by"], &status["stopped"]["why"]),
        (&json!("ann"), &json!("smoke"))
    );
    let metrics = s.get("/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("\nfarrier_stopped 1\n"));
    assert_eq!(s.post("/v1/resume", &json!({"why": "clear"}), &by).await.0, 200);
    assert!(s.get("/v1/status").await.1.get("stopped").is_none());
}

/// Type and lines by family.
type Families = BTreeMap<String, (String, Vec<(String, f64)>)>;

/// Reads the text as strictly as the format's description says: each family once, its help and type
/// before its lines, lines of no other family between them, no line twice, histograms that add up.
fn exposition(text: &str) -> Families {
    assert!(text.ends_with('\n'), "the last line ends too");
    let is_name = |n: &str| {
        let mut chars = n.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut families = Families::new();
    let mut current = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(is_name(name) && name.starts_with("farrier_") && text.ends_with('.'), "{line}");
            let kind = lines.next().unwrap();
            let kind =
                kind.strip_prefix(&format!("# TYPE {name} ")).unwrap_or_else(|| panic!("{kind}"));
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{kind}");
            current = name.to_string();
            let new = families.insert(current.clone(), (kind.to_string(), vec![]));
            assert!(new.is_none(), "{name} is told twice");
            assert!(lines.peek().is_some_and(|l| l.starts_with(name)), "{name} has no line");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let (kind, found) = families.get_mut(&current).unwrap_or_else(|| panic!("{line}"));
        let bare = match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|e| name.strip_suffix(e)),
            _ => Some(name),
        };
        assert_eq!(bare, Some(current.as_str()), "{line}");
        assert!(
            kind != "counter" || name.ends_with("_total") || name.ends_with("_seconds"),
            "{line}"
        );
        assert!(value >= 0.0 && value.is_finite(), "{line}");
        for pair in labels.split("\",").filter(|p| !p.is_empty()) {
            let (key, _) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(key), "{line}");
        }
        assert!(found.iter().all(|(s, _)| s != series), "{series} twice");
        found.push((series.to_string(), value));
    }
    for (name, (_, found)) in families.iter().filter(|(_, (kind, _))| kind == "histogram") {
        let buckets: Vec<f64> =
            found.iter().filter(|(s, _)| s.contains("_bucket{le=")).map(|(_, v)| *v).collect();
        assert!(buckets.is_sorted(), "{name}: {buckets:?}");
        let count = found.iter().find(|(s, _)| *s == format!("{name}_count")).unwrap().1;
        assert!(found.iter().any(|(s, v)| s.contains("le=\"+Inf\"") && *v == count), "{name}");
    }
    families
}

#[tokio::test]
async fn a_machine_past_its_sla_and_a_change_behind_our_back_are_shown() {
    let s = serve(Plan { dead: &["n02"], sla_s: Some(60), ..plan(3) }).await;
    s.until_machine(1, "known", |m| m.run.is_none() && !m.identity.is_unknown()).await;
    s.until_machine(2, "unreachable", |m| m.is_unreachable()).await;
    let (_, one) = s.get("/v1/machines/n01").await;
    assert!(one.get("stuck").is_none() && one.get("out_of_band").is_none(), "{one}");
    let stuck = async {
        loop {
            let (_, list) = s.get("/v1/machines?stuck=true").await;
            if list["total"] == 1 {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let list = tokio::time::timeout(Duration::from_secs(60), stuck).await.expect("never stuck");
    let row = &list["machines"][0];
    assert_eq!(row["name"], "n02");
    let what = row["stuck"]["what"].as_str().unwrap();
    assert!(
        what.starts_with("in discover for longer than 60s; its BMC has not answered for"),
        "{what}"
    );
    assert_eq!(s.get("/v1/status").await.1["stuck"], 1);
    let page = s.get("/").await.1;
    assert!(page.as_str().unwrap().contains("longer in a stage than the workflow expects"));
    let metrics = s.get("/metrics").await.1;
    let families = exposition(metrics.as_str().unwrap());
    let found = &families["farrier_stuck"].1;
    assert!(found.contains(&("farrier_stuck{stage=\"discover\"}".into(), 1.0)), "{found:?}");
    // A hold is an answer: people are on it.
    assert_eq!(s.post("/v1/machines/n02/changes", &hold("cabling"), &[]).await.0, 200);
    assert_eq!(s.get("/v1/machines?stuck=true").await.1["total"], 0);

    let order = json!({"change": "enroll"});
    assert_eq!(s.post("/v1/machines/n03/changes", &order, &[]).await.0, 200);
    s.until_machine(3, "ready", |m| m.stage == Stage::Ready && m.run.is_none()).await;
    s.until_machine(3, "looked at, at rest", |m| m.observed.power.is_some()).await;
    s.switch(3, Power::Off);
    s.until_machine(3, "known to be switched", |m| m.out_of_band > 0).await;
    let (_, m) = s.get("/v1/machines/n03").await;
    assert_eq!(m["out_of_band"], 1);
    let change = &m["out_of_band_changes"][0];
    assert!(change["what"].as_str().unwrap().contains("power"), "{change}");
    assert!(change["at"].as_str().unwrap().ends_with('Z') && change["seq"].is_u64());
    assert_eq!(s.get("/v1/machines?out_of_band=true").await.1["machines"][0]["name"], "n03");
    assert_eq!(s.get("/v1/status").await.1["out_of_band"], 1);
    let page = s.get("/machines/n03").await.1;
    assert!(page.as_str().unwrap().contains("Not done by Farrier"));
    assert!(s.get("/").await.1.as_str().unwrap().contains("changed behind Farrier"));
    let (code, shown, _) = s.cli_raw(&["machine", "show", "n03"]).await;
    assert!(code == 0 && shown.contains("not done by Farrier (1 in all)"), "{shown}");
}

#[tokio::test]
async fn a_rack_that_is_out_is_told_until_it_is_back() {
    let s = serve(plan(16)).await;
    s.settled().await;
    assert_eq!(s.get("/v1/status").await.1["outages"], json!([]));
    let domains_out = |metrics: &Value| {
        let families = exposition(metrics.as_str().unwrap());
        families["farrier_domains_out"].1[0].1
    };
    assert_eq!(domains_out(&s.get("/metrics").await.1), 0.0);
    s.silence(1..=7);
    s.until("r1 is out", |d| d.outages().any(|o| !o.is_over() && o.out == 7)).await;
    let (_, status) = s.get("/v1/status").await;
    let out = &status["outages"][0];
    assert_eq!(
        (&out["per"], &out["domain"], &out["channel"], &out["out"], &out["of"]),
        (&json!("rack"), &json!("r1"), &json!("bmc"), &json!(7), &json!(8))
    );
    let text = out["text"].as_str().unwrap();
    assert!(text.starts_with("rack r1: 7 of 8 machines stopped answering"), "{text}");
    assert_eq!(domains_out(&s.get("/metrics").await.1), 1.0);
    let page = s.get("/").await.1;
    assert!(page.as_str().unwrap().contains("rack r1: 7 of 8"), "{page}");
    let (code, shown, _) = s.cli_raw(&["status"]).await;
    assert!(code == 0 && shown.contains("rack r1: 7 of 8"), "{shown}");
    s.answer();
    s.until("r1 is back", |d| d.outages().all(|o| o.is_over())).await;
    assert_eq!(s.get("/v1/status").await.1["outages"], json!([]));
}

#[tokio::test]
async fn status_limits_metrics_and_health() {
    let s = serve(Plan { sick: &["n02"], dead: &["n03"], ..plan(4) }).await;
    for id in [1, 2, 3] {
        let order = json!({"change": "enroll"});
        let path = format!("/v1/machines/{}/changes", support::name(id));
        assert_eq!(s.post(&path, &order, &[]).await.0, 200);
    }
    s.until_machine(1, "ready", |m| m.stage == Stage::Ready && m.run.is_none()).await;
    s.until_machine(2, "quarantined", |m| m.is_quarantined()).await;
    s.until_machine(3, "unreachable", |m| m.is_unreachable()).await;
    let (_, status) = s.get("/v1/status").await;
    assert_eq!(status["machines"], 4);
    assert_eq!(status["by_control"], json!({"enrolled": 3, "unmanaged": 1}));
    assert_eq!(status["by_condition"], json!({"ok": 2, "quarantined": 1, "unreachable": 1}));
    assert_eq!(status["site"], "test site");
    let (_, limits) = s.get("/v1/limits").await;
    assert_eq!(
        limits["limits"],
        json!([{"class": "power", "per": "rack", "domain": "r1", "taken": 0, "max": 4, "waiting": 0}])
    );
    let (_, metrics) = s.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "farrier_machines{stage=\"ready\"} 1",
        "farrier_machines{stage=\"retired\"} 0",
        "farrier_machines_by_condition{condition=\"quarantined\"} 1",
        "farrier_machines_by_control{control=\"enrolled\"} 3",
        "farrier_limit_max{class=\"power\",per=\"rack\",domain=\"r1\"} 4",
        "farrier_stopped 0",
        "farrier_info{version=\"0.0.0-test\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    let families = exposition(metrics);
    for name in ["n01", "n02", "n03", "n04", "m1", "m2"] {
        assert!(!metrics.contains(name), "{name} is named in\n{metrics}");
    }
    let value = |family: &str, labels: &str| -> f64 {
        families[family].1.iter().find(|(l, _)| l == labels).unwrap_or_else(|| panic!("{labels}")).1
    };
    // What happened here, counted once each.
    let action = |kind: &str, outcome: &str| {
        let labels = format!("farrier_actions_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}");
        value("farrier_actions_total", &labels)
    };
    assert_eq!((action("power-off", "applied"), action("power-on", "applied")), (1.0, 1.0));
    assert_eq!((action("power-off", "failed"), action("update-firmware", "applied")), (0.0, 0.0));
    let observed = "farrier_actions_observed_total";
    assert_eq!(value(observed, &format!("{observed}{{happened=\"true\"}}")), 2.0);
    let quarantines = "farrier_quarantines_total";
    assert_eq!(value(quarantines, &format!("{quarantines}{{class=\"identity\"}}")), 1.0);
    assert!(value("farrier_faults_total", "farrier_faults_total{class=\"transient\"}") >= 1.0);
    let entries: usize = (1..=4).map(|id| s.store.journal(id).len()).sum();
    assert!(value("farrier_entries_total", "farrier_entries_total") <= entries as f64);
    let commits = value("farrier_commits_total", "farrier_commits_total");
    let histogram = value("farrier_commit_seconds", "farrier_commit_seconds_count");
    assert!(commits > 0.0 && histogram >= commits, "{commits} {histogram}");
    let reads = "farrier_probe_reads_total";
    assert!(value(reads, &format!("{reads}{{part=\"system\",result=\"seen\"}}")) >= 2.0);
    assert!(value(reads, &format!("{reads}{{part=\"system\",result=\"failed\"}}")) >= 1.0);
    assert_eq!(value("farrier_quarantined", "farrier_quarantined{stage=\"discover\"}"), 1.0);
    assert_eq!(value("farrier_stuck", "farrier_stuck{stage=\"firmware\"}"), 0.0);
    assert_eq!(s.get("/healthz").await, (200, json!("ok\n")));
}

/// Reads the stream until an event of this name about this machine has come.
async fn hears(s: &Served, path: &str, wanted: &str, machine: &str, act: impl Future) -> Value {
    let response = s.http.get(format!("{}{path}", s.url)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    act.await;
    let mut bytes = response.bytes_stream();
    let mut text = String::new();
    let listen = async {
        loop {
            text += std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap();
            while let Some((event, rest)) = text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_string())
                };
                if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                    let data: Value = serde_json::from_str(&data).unwrap();
                    let about = data.get("machine").or(data.get("name"));
                    if name == wanted && about == Some(&json!(machine)) {
                        return data;
                    }
                }
                text = rest.to_string();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listen).await.expect("the event never came")
}

#[tokio::test]
async fn the_stream_tells_what_became_durable() {
    let s = serve(plan(2)).await;
    let act = async {
        assert_eq!(s.post("/v1/machines/n01/changes", &hold("other"), &[]).await.0, 200);
        assert_eq!(s.post("/v1/machines/n02/changes", &hold("this"), &[]).await.0, 200);
    };
    let data = hears(&s, "/v1/events?machine=n02", "changed", "n02", act).await;
    assert_eq!(data["entry"]["change"], "hold");
    assert_eq!(data["entry"]["why"], "this");
    assert_eq!(data["text"], "api: hold (this)");
    let line = s.store.journal(2).into_iter().find(|l| l.entry.name() == "changed").unwrap();
    assert_eq!((data["seq"].as_u64(), data["at"].as_u64()), (Some(line.seq), Some(line.at.0)));

    let act = async {
        let end = json!({"change": "unhold", "why": "done"});
        assert_eq!(s.post("/v1/machines/n01/changes", &end, &[]).await.0, 200);
    };
    let cell = hears(&s, "/live", "cell", "n01", act).await;
    assert_eq!((&cell["stage"], &cell["mark"]), (&json!("discover"), &json!("unmanaged")));

    // A stopping daemon ends its streams.
    let response = s.http.get(format!("{}/v1/events", s.url)).send().await.unwrap();
    s.ending.send(true).unwrap();
    let rest = tokio::time::timeout(Duration::from_secs(30), response.text()).await;
    assert!(rest.expect("the stream did not end").is_ok());
}

#[tokio::test]
async fn with_a_token_only_health_answers_without_it() {
    let token = "s3cret-token-of-the-test";
    let s = serve(Plan { token: Some(token), ..plan(1) }).await;
    for path in [
        "/v1/status",
        "/v1/machines/n01",
        "/v1/events",
        "/metrics",
        "/",
        "/live",
        "/machines/n01",
        "/assets/farrier.js",
        "/v1/openapi.json",
        "/nothing",
    ] {
        let response = s.http.get(format!("{}{path}", s.url)).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        assert!(response.headers().contains_key("www-authenticate"));
        assert!(!response.text().await.unwrap().contains(token));
    }
    problem(&s.post("/v1/stop", &json!({"why": "x"}), &[]).await, 401, "unauthorized");
    assert_eq!(s.get("/healthz").await.0, 200);
    let ask = |value: String| {
        let request = s.http.get(format!("{}/v1/status", s.url)).header("authorization", value);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(format!("Bearer {token}")).await, 200);
    assert_eq!(ask(format!("Bearer {token}x")).await, 401);
    assert_eq!(ask(format!("Bearer {}", &token[1..])).await, 401);
    assert_eq!(ask("Bearer".into()).await, 401);
    assert_eq!(ask(token.into()).await, 401);
    // A browser can only be asked for a user and a password.
    use base64::Engine;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("ann:{token}"));
    assert_eq!(ask(format!("Basic {basic}")).await, 200);
    let (code, out, _) = s.cli_raw(&["status"]).await;
    assert_eq!(code, 0);
    assert!(out.starts_with("test site"));
}

#[tokio::test]
async fn another_sites_page_can_neither_change_nor_rebind() {
    let s = serve(plan(1)).await;
    let from =
        s.post("/v1/stop", &json!({"why": "x"}), &[("origin", "https://evil.example")]).await;
    problem(&from, 403, "cross-origin");
    let own = s.url.clone();
    assert_eq!(s.post("/v1/stop", &json!({"why": "x"}), &[("origin", &own)]).await.0, 200);
    let rebound = s.post("/v1/resume", &json!({"why": "x"}), &[("host", "evil.example")]).await;
    problem(&rebound, 403, "wrong-host");
}

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let s = serve(Plan { refuses: &["n01"], ..plan(2) }).await;
    assert_eq!(s.post("/v1/machines/n01/changes", &json!({"change": "enroll"}), &[]).await.0, 200);
    s.until_machine(1, "failing", |m| m.last_fault.is_some()).await;
    let known = s.handle.ask(|d, _| d.expected(MachineId(1)).unwrap().bmc.url.clone()).await;
    assert!(known.unwrap().contains(PLANTED), "the test plants it");
    for path in [
        "/",
        "/machines/n01",
        "/v1/machines",
        "/v1/machines/n01",
        "/v1/machines/n01/explain",
        "/v1/machines/n01/history",
        "/v1/machines/n01/runs",
        "/v1/status",
        "/v1/limits",
        "/metrics",
        "/v1/openapi.json",
    ] {
        let (status, body) = s.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(!body.to_string().contains(PLANTED), "{path}");
    }
}

#[tokio::test]
async fn the_page_is_whole_and_escapes_everything() {
    let s = serve(Plan { refuses: &["n01"], sick: &["n02"], ..plan(10) }).await;
    for id in [1, 2, 3] {
        let path = format!("/v1/machines/{}/changes", support::name(id));
        assert_eq!(s.post(&path, &json!({"change": "enroll"}), &[]).await.0, 200);
    }
    let why = "<img src=x onerror=alert(2)>";
    assert_eq!(s.post("/v1/machines/n04/changes", &hold(why), &[]).await.0, 200);
    assert_eq!(s.post("/v1/stop", &json!({"why": why}), &[]).await.0, 200);
    assert_eq!(s.post("/v1/resume", &json!({"why": "go"}), &[]).await.0, 200);
    s.until_machine(1, "quarantined", |m| m.is_quarantined()).await;
    s.until_machine(2, "quarantined", |m| m.is_quarantined()).await;
    s.until_machine(3, "ready", |m| m.stage == Stage::Ready).await;
    assert_eq!(s.post("/v1/stop", &json!({"why": why}), &[]).await.0, 200);

    let response = s.http.get(&s.url).send().await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_string();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
    let page = response.text().await.unwrap();
    for part in [
        "class=\"cell s-provision",
        "class=\"cell s-ready\"",
        "m-quarantined\"",
        "m-held\"",
        "m-unmanaged\"",
        "Actions are stopped",
        "<h2>r1 <small>8</small>",
        "<h2>r2 <small>2</small>",
    ] {
        let firmware = part.replace("s-provision", "s-firmware");
        assert!(page.contains(part) || page.contains(&firmware), "{part} is not in the page");
    }
    assert!(!page.contains("<img"), "unescaped");
    assert!(!page.contains("http://") || !page.contains("src=\"http"), "an asset from elsewhere");

    let (status, page) = s.get("/machines/n01").await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("is quarantined in firmware") && page.contains("Ways out"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)"), "the evidence is shown, escaped");
    assert!(!page.contains("<script>alert") && !page.contains("<b>bold"), "unescaped");
    assert!(page.contains("<ol class=\"timeline\">") && page.contains("power-off"));
    let (status, page) = s.get("/machines/n0l").await;
    assert_eq!(status, 404);
    assert!(page.as_str().unwrap().contains("<a href=\"/machines/n01\">n01</a>"));
    let (status, page) = s.get("/machines/%3Cimg%20src%3Dx%3E").await;
    assert_eq!((status, page.as_str().unwrap().contains("<img")), (404, false));
}

#[tokio::test]
async fn ten_thousand_machines_are_listed() {
    let s = serve(plan(10_000)).await;
    let (code, out, err) = s.cli_raw(&["--json", "machine", "list"]).await;
    assert_eq!((code, &*err), (0, ""));
    let page: Value = serde_json::from_str(&out).unwrap();
    let machines = page["machines"].as_array().unwrap();
    assert_eq!(machines.len(), 10_000);
    let names: Vec<&str> = machines.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert!(names.windows(2).all(|w| w[0] < w[1]), "sorted, none twice");
    assert!(s.get("/").await.1.as_str().unwrap().contains("racks dense"));
    let (_, status) = s.get("/v1/status").await;
    assert_eq!(status["machines"], 10_000);
}

#[tokio::test]
async fn a_machine_that_backs_off_or_is_away_says_so() {
    let s = serve(Plan { refuses: &["n01"], dead: &["n02"], ..plan(2) }).await;
    for id in [1, 2] {
        let path = format!("/v1/machines/{}/changes", support::name(id));
        assert_eq!(s.post(&path, &json!({"change": "enroll"}), &[]).await.0, 200);
    }
    s.until_machine(1, "backing off", |m| m.condition != Condition::Ok).await;
    s.until_machine(2, "unreachable", |m| m.is_unreachable()).await;
    let (_, m) = s.get("/v1/machines/n01").await;
    assert_eq!(m["fault"]["code"], "bmc-internal");
    let (_, why) = s.get("/v1/machines/n02/explain").await;
    assert!(why["summary"].as_str().unwrap().contains("BMC has not answered"), "{why}");
}
