//! Changes: what people say. Answered only once durable.

use super::State;
use super::engine::{ask, by_name, unknown};
use super::extract::{By, Json as JsonBody, Key};
use super::journal;
use super::problem::{Body, Code, Problem};
use super::select::nearest;
use super::view::{
    BulkChanged, BulkOrder, ChangeKind, ChangeOrder, Changed, Refused, StopView, WhyOrder,
};
use crate::model::deploy::is_public_key;
use crate::model::{Change, Desired, Fault, MachineId, Stage};
use crate::port::Inward;
use crate::steps::{Step, rescue};
use axum::Json;
use axum::extract::{Path, State as Of};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Longest `why`, in characters: it stands in every row of the journal's reader.
const WHY_MAX: usize = 500;
/// Longest step key, in bytes: that of the workflow files.
const STEP_MAX: usize = 128;

/// Says something about one machine.
#[utoipa::path(post, path = "/v1/machines/{name}/changes", tag = "changes",
    operation_id = "change_machine",
    params(("name" = String, Path, description = "The machine's name"),
        ("idempotency-key" = Option<String>, Header,
            description = "A repeated request with the same key is done once. Made up when absent."),
        ("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = ChangeOrder,
    responses((status = 200, body = Changed),
        (status = "4XX", body = Body, content_type = "application/problem+json"),
        (status = 503, body = Body, content_type = "application/problem+json",
            description = "Not acknowledged in time: it may still become durable")))]
pub(super) async fn one(
    Of(state): Of<State>,
    Path(name): Path<String>,
    By(by): By,
    Key(key): Key,
    JsonBody(order): JsonBody<ChangeOrder>,
) -> Result<Json<Changed>, Problem> {
    let change = read(&order, "")?;
    let wanted = name.clone();
    let id =
        ask(&state, move |d, _| by_name(d, &wanted)).await?.map_err(|near| unknown(&name, near))?;
    bootable(&state, id, &name, &change).await?;
    said(&order, &by, &name);
    let key = key.unwrap_or_else(fresh_key);
    let sent = send(&state, id, &name, &change, &by, &key).await?;
    let seq = acknowledged(&state, id, &name, &change, &key, sent, deadline(&state, 1)).await?;
    Ok(Json(Changed { machine: name, seq, idempotency_key: key }))
}

/// Says the same about every machine that a selector matches.
#[utoipa::path(post, path = "/v1/changes", tag = "changes", operation_id = "change_machines",
    params(("idempotency-key" = Option<String>, Header,
            description = "A repeated request with the same key is done once per machine."),
        ("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = BulkOrder,
    responses((status = 200, body = BulkChanged),
        (status = 409, body = Body, content_type = "application/problem+json",
            description = "`confirm-needed`: nothing was changed; repeat it with `confirm`"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn many(
    Of(state): Of<State>,
    By(by): By,
    Key(key): Key,
    JsonBody(order): JsonBody<BulkOrder>,
) -> Result<Json<BulkChanged>, Problem> {
    let change = read(&order.change, "change.")?;
    if order.selector.is_empty() {
        return Err(Problem::new(Code::BadSelector, "the selector is empty")
            .place("selector")
            .hint("say which machines; `{\"name\": \"*\"}` means every one"));
    }
    if let Change::Rescue { .. } = change {
        return Err(Problem::new(Code::BadBody, "a rescue is for one machine")
            .place("change.change")
            .hint("say it for each of them: POST /v1/machines/{name}/changes"));
    }
    let matcher = order.selector.check("selector.")?;
    let names: BTreeSet<String> = order.selector.names.iter().cloned().collect();
    let found = ask(&state, move |d, now| {
        for name in names {
            if !d.machines().any(|m| m.seq > 0 && *m.name == *name) {
                let near = nearest(&name, d.machines().map(|m| &*m.name));
                return Err(unknown(&name, near).place("selector.names"));
            }
        }
        let mut found: Vec<(String, MachineId)> = d
            .machines()
            .filter(|m| matcher.matches(d, m, now))
            .map(|m| (m.name.to_string(), m.id))
            .collect();
        found.sort_unstable();
        Ok(found)
    })
    .await??;
    confirm(order.confirm, found.len(), state.confirm_max)?;
    let key = key.unwrap_or_else(fresh_key);
    said(&order.change, &by, &format!("{} machines", found.len()));

    let deadline = deadline(&state, found.len());
    let mut sent = Vec::with_capacity(found.len());
    for (name, id) in &found {
        sent.push(send(&state, *id, name, &change, &by, &key).await);
    }
    let mut done = BulkChanged { idempotency_key: key.clone(), ..BulkChanged::default() };
    for ((machine, id), sent) in found.into_iter().zip(sent) {
        let result = match sent {
            Ok(sent) => acknowledged(&state, id, &machine, &change, &key, sent, deadline).await,
            Err(problem) => Err(problem),
        };
        match result {
            Ok(seq) => {
                done.changed.push(Changed { machine, seq, idempotency_key: key.clone() });
            }
            Err(problem) => done.refused.push(Refused { machine, problem: problem.into_body() }),
        }
    }
    Ok(Json(done))
}

fn confirm(confirm: Option<usize>, count: usize, max: usize) -> Result<(), Problem> {
    let detail = match confirm {
        Some(said) if said != count => {
            format!("the change touches {count} machines, and {said} were confirmed")
        }
        None if count > max => {
            format!("the change touches {count} machines; above {max} it waits for a confirm")
        }
        _ => return Ok(()),
    };
    Err(Problem::new(Code::ConfirmNeeded, detail).place("confirm").machines(count).hint(format!(
        "nothing was changed; look at the list, then repeat it with confirm {count}"
    )))
}

/// Stops every action at every machine; probes go on.
#[utoipa::path(post, path = "/v1/stop", tag = "changes", operation_id = "stop",
    params(("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = WhyOrder,
    responses((status = 200, body = StopView),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn stop(
    Of(state): Of<State>,
    By(by): By,
    JsonBody(order): JsonBody<WhyOrder>,
) -> Result<Json<StopView>, Problem> {
    let why = check_why(Some(&order.why), "", "stop")?;
    stop_or_resume(&state, Some(why.clone()), &by).await?;
    Ok(Json(StopView { by, why, for_ms: 0 }))
}

/// Allows actions again.
#[utoipa::path(post, path = "/v1/resume", tag = "changes", operation_id = "resume",
    params(("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = WhyOrder,
    responses((status = 200, body = WhyOrder),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn resume(
    Of(state): Of<State>,
    By(by): By,
    JsonBody(order): JsonBody<WhyOrder>,
) -> Result<Json<WhyOrder>, Problem> {
    let why = check_why(Some(&order.why), "", "resume")?;
    // The engine keeps no reason for a resumption; the daemon's log does.
    tracing::info!(%by, %why, "resume");
    stop_or_resume(&state, None, &by).await?;
    Ok(Json(WhyOrder { why }))
}

async fn stop_or_resume(state: &State, why: Option<String>, by: &str) -> Result<(), Problem> {
    let (ack, answer) = oneshot::channel();
    enqueue(state, Inward::Stop { why, by: by.to_string(), ack }).await?;
    match wait(state, answer, deadline(state, 1)).await? {
        Ok(_) => Ok(()),
        Err(fault) => Err(Problem::refused(&fault)),
    }
}

/// Until when answers are waited for: one time-out, and a little for each change of a batch.
fn deadline(state: &State, changes: usize) -> Instant {
    let each = Duration::from_millis(2).saturating_mul(u32::try_from(changes).unwrap_or(u32::MAX));
    Instant::now() + state.ack_timeout + each
}

type Answer = oneshot::Receiver<Result<u64, Fault>>;

async fn send(
    state: &State,
    machine: MachineId,
    name: &str,
    change: &Change,
    by: &str,
    key: &str,
) -> Result<Answer, Problem> {
    let (ack, answer) = oneshot::channel();
    let (change, by, key) = (change.clone(), by.to_string(), scoped(key, name));
    enqueue(state, Inward::Change { machine, change, by, key, ack }).await?;
    Ok(answer)
}

async fn enqueue(state: &State, inward: Inward) -> Result<(), Problem> {
    match tokio::time::timeout(state.ack_timeout, state.engine.inbox.send(inward)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => {
            Err(Problem::new(Code::EngineBusy, "the engine has ended; nothing was changed"))
        }
        Err(_) => Err(Problem::new(
            Code::EngineBusy,
            "the engine takes no changes at the moment; nothing was changed",
        )),
    }
}

async fn wait(
    state: &State,
    answer: Answer,
    deadline: Instant,
) -> Result<Result<u64, Fault>, Problem> {
    let late = |detail: String| {
        Problem::new(Code::OutcomeUnknown, detail).hint(
            "repeat it with the same Idempotency-Key: it is done once, however often it is said",
        )
    };
    let detail = match tokio::time::timeout_at(deadline, answer).await {
        Ok(Ok(result)) => return Ok(result),
        Ok(Err(_)) => "the engine ended before it acknowledged the change".to_string(),
        Err(_) => match ask(state, |d, _| d.unwritable().map(str::to_string)).await? {
            Some(why) => {
                return Err(late(format!(
                    "the change is not durable: {why}. It is kept and written as soon as that works"
                ))
                .hint(
                    "make it writable again, nothing is lost; then repeat the change with the \
                     same Idempotency-Key: it is done once, however often it is said",
                ));
            }
            None => format!(
                "the change was not acknowledged within {} ms; it may still become durable",
                state.ack_timeout.as_millis()
            ),
        },
    };
    Err(late(detail))
}

/// The seq under which the change is in the journal, also when it was said before.
async fn acknowledged(
    state: &State,
    id: MachineId,
    name: &str,
    change: &Change,
    key: &str,
    answer: Answer,
    deadline: Instant,
) -> Result<u64, Problem> {
    let key = scoped(key, name);
    let (fault, seq) = match wait(state, answer, deadline).await? {
        Ok(seq) => {
            // A first saying stands at exactly this seq. A repeated one is acknowledged with the
            // row's seq of today, so its own is looked up.
            let line = journal::page(state, id, seq.saturating_sub(1), 1).await?;
            let first = line.first().is_some_and(|l| {
                matches!(&l.entry, crate::model::Entry::Changed { key: used, change: said, .. }
                    if *used == key && said == change)
            });
            if first {
                return Ok(seq);
            }
            (None, seq)
        }
        // Said before and done before, it may not fit the machine as it is now.
        Err(fault) if fault.code == "not-now" => {
            let seq = ask(state, move |d, _| d.machine(id).map_or(0, |m| m.seq)).await?;
            (Some(fault), seq)
        }
        Err(fault) => return Err(Problem::refused(&fault)),
    };
    match (journal::by_key(state, id, seq, &key).await?, fault) {
        (Some((at, said)), _) if said == *change => Ok(at),
        (Some((at, said)), _) => Err(Problem::new(
            Code::KeyReused,
            format!(
                "{name} took `{}` under this key before (seq {at}); nothing was changed now",
                said.name()
            ),
        )
        .place("idempotency-key")
        .hint("use a new key for a new change")),
        (None, Some(fault)) => Err(Problem::refused(&fault)),
        // Acknowledged, and its entry is older than what is scanned.
        (None, None) => Ok(seq),
    }
}

/// Keys are unique in the whole journal, and one request may speak of many machines.
fn scoped(key: &str, name: &str) -> String {
    format!("{key}@{name}")
}

fn fresh_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The model has no place for the reason of these; the daemon's log keeps it.
fn said(order: &ChangeOrder, by: &str, what: &str) {
    if let Some(why) = &order.why {
        tracing::info!(%by, machines = %what, change = ?order.change, %why, "change");
    }
}

fn read(order: &ChangeOrder, place: &str) -> Result<Change, Problem> {
    let kind = serde_json::to_value(order.change).ok();
    let kind = kind.as_ref().and_then(|k| k.as_str()).unwrap_or("change").to_string();
    let extra = |part: &str| {
        Problem::new(Code::BadBody, format!("`{kind}` takes no `{part}`"))
            .place(format!("{place}{part}"))
    };
    let wants_desired = matches!(order.change, ChangeKind::Enroll | ChangeKind::Desire);
    if order.desired.is_some() && !wants_desired {
        return Err(extra("desired"));
    }
    if order.allow_existing_data.is_some() && order.change != ChangeKind::Enroll {
        return Err(extra("allow_existing_data"));
    }
    if order.step.is_some() && order.change != ChangeKind::Skip {
        return Err(extra("step"));
    }
    if order.key.is_some() && order.change != ChangeKind::Rescue {
        return Err(extra("key"));
    }
    if order.for_ms.is_some() && order.change != ChangeKind::Rescue {
        return Err(extra("for_ms"));
    }
    let desired = match order.desired.as_deref() {
        None => None,
        Some(text) => Some(Desired::from_name(text).ok_or_else(|| {
            let names: Vec<&str> = Desired::ALL.iter().map(|d| d.name()).collect();
            Problem::new(Code::BadBody, format!("there is no desired state `{text}`"))
                .place(format!("{place}desired"))
                .hint(format!("one of: {}", names.join(", ")))
        })?),
    };
    let why = || check_why(order.why.as_deref(), place, &kind);
    if let Some(text) = order.why.as_deref() {
        check_why(Some(text), place, &kind)?;
    }
    Ok(match order.change {
        ChangeKind::Adopt => Change::Adopt,
        ChangeKind::Enroll => Change::Enroll {
            allow_existing_data: order.allow_existing_data.unwrap_or(false),
            desired: desired.unwrap_or(Desired::Ready),
        },
        ChangeKind::Desire => Change::Desire {
            desired: desired.ok_or_else(|| {
                Problem::new(Code::BadBody, "`desire` needs `desired`")
                    .place(format!("{place}desired"))
            })?,
        },
        ChangeKind::Hold => Change::Hold { why: why()? },
        ChangeKind::Unhold => Change::Unhold { why: why()? },
        ChangeKind::Release => Change::Release { why: why()? },
        // It costs nothing but an attempt; the way out that `explain` names is the whole command.
        ChangeKind::Retry => {
            Change::Retry { why: order.why.as_deref().map_or("asked for", str::trim).to_string() }
        }
        ChangeKind::Skip => Change::Skip { step: check_step(order, place)?, why: why()? },
        ChangeKind::Abort => Change::Abort { why: why()? },
        ChangeKind::Repair => Change::Repair { why: why()? },
        ChangeKind::Rescue => Change::Rescue {
            key: check_key(order, place)?,
            for_ms: check_for(order, place)?,
            why: why()?,
        },
        ChangeKind::EndRescue => Change::EndRescue { why: why()? },
    })
}

/// A workflow of the site's own may be older than rescues.
async fn bootable(
    state: &State,
    id: MachineId,
    name: &str,
    change: &Change,
) -> Result<(), Problem> {
    let Change::Rescue { .. } = change else { return Ok(()) };
    let lacks = ask(state, move |d, _| {
        let site = d.site();
        let profile = d.expected(id).and_then(|e| site.profiles.get(&e.profile));
        let workflow = profile.and_then(|p| site.workflows.get(&p.workflow))?;
        let rescues =
            workflow.of_stage(Stage::Repair).any(|(_, s)| matches!(s.step, Step::Rescue(_)));
        (!rescues).then(|| workflow.name.to_string())
    })
    .await?;
    let Some(workflow) = lacks else { return Ok(()) };
    let hint = "give it one: `[[step]]` with stage = \"repair\", key = \"rescue\", kind = \"rescue\"; \
                `farrier reload` takes it in";
    Err(Problem::new(Code::NotNow, format!("{name}: workflow `{workflow}` has no `rescue` step"))
        .hint(hint))
}

fn check_key(order: &ChangeOrder, place: &str) -> Result<String, Problem> {
    match order.key.as_deref().map(str::trim) {
        Some(key) if is_public_key(key) => Ok(key.to_string()),
        _ => Err(Problem::new(
            Code::BadBody,
            "`rescue` needs `key`, the person's OpenSSH public key",
        )
        .place(format!("{place}key"))
        .hint(
            "the one line of a file like ~/.ssh/id_ed25519.pub, without options before it; a \
             private key has no place here",
        )),
    }
}

fn check_for(order: &ChangeOrder, place: &str) -> Result<u64, Problem> {
    match order.for_ms.unwrap_or(rescue::USUAL.0) {
        ms @ 60_000.. if ms <= rescue::LONGEST.0 => Ok(ms),
        _ => Err(Problem::new(
            Code::BadBody,
            format!("a rescue lasts from a minute to {}", rescue::LONGEST),
        )
        .place(format!("{place}for_ms"))),
    }
}

/// The step is said, never guessed: an order that comes late must not skip the next one.
fn check_step(order: &ChangeOrder, place: &str) -> Result<String, Problem> {
    match order.step.as_deref().map(str::trim) {
        Some(step) if !step.is_empty() && step.len() <= STEP_MAX => Ok(step.to_string()),
        _ => Err(Problem::new(
            Code::BadBody,
            "`skip` needs `step`, the key of the step that is meant",
        )
        .place(format!("{place}step"))
        .hint("`farrier machine show` says at which step a machine is")),
    }
}

fn check_why(why: Option<&str>, place: &str, kind: &str) -> Result<String, Problem> {
    let why = why.unwrap_or("").trim();
    let problem = |detail: String| Problem::new(Code::BadBody, detail).place(format!("{place}why"));
    if why.is_empty() {
        return Err(problem(format!("`{kind}` needs a `why`"))
            .hint("one sentence for the person who reads the history at 3 a.m."));
    }
    if why.chars().count() > WHY_MAX {
        return Err(problem(format!("`why` has more than {WHY_MAX} characters")));
    }
    Ok(why.to_string())
}
