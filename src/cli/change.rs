//! Changes, of one machine or of many.

use super::args::{SetTarget, Target};
use super::client::{Api, encode};
use super::out::{Cell, Failure, Io, Paint};
use crate::api::select::Selector;
use crate::api::view::{
    BulkChanged, BulkOrder, ChangeKind, ChangeOrder, Changed, MachineRow, MachineView,
};
use std::collections::BTreeMap;

/// `set`: the last word is the desired state.
pub(super) fn target(set: SetTarget) -> Result<(Target, String), Failure> {
    let mut names = set.words;
    let desired = names.pop().unwrap_or_default();
    if names.is_empty() && set.how.selector.is_none() {
        return Err(Failure::usage("which machines?")
            .hint("farrier machine set <NAME>... <DESIRED>, or --selector"));
    }
    Ok((Target { names, how: set.how }, desired))
}

/// `skip`: without `--step`, the step at which the machines are now, said aloud: what they have
/// moved on to by the time the order arrives is not skipped.
pub(super) async fn skip(
    api: &Api,
    target: Target,
    step: Option<String>,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let step = match step {
        Some(step) => step,
        None => common_step(&meant(api, &target).await?)?,
    };
    let order =
        ChangeOrder { change: ChangeKind::Skip, step: Some(step), ..ChangeOrder::default() };
    change(api, target, order, io).await
}

async fn meant(api: &Api, target: &Target) -> Result<Vec<MachineRow>, Failure> {
    if let Some(text) = &target.how.selector {
        let selector = Selector::parse(text).map_err(Failure::usage)?;
        return super::machine::fetch(api, &selector).await;
    }
    let mut rows = Vec::with_capacity(target.names.len());
    for name in &target.names {
        let path = format!("/v1/machines/{}", encode(name));
        rows.push(api.get::<MachineView>(&path).await?.value.row);
    }
    Ok(rows)
}

/// The step at which all of them are.
fn common_step(machines: &[MachineRow]) -> Result<String, Failure> {
    if machines.is_empty() {
        return Err(Failure::error("no machine matches"));
    }
    let mut steps: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for m in machines {
        steps.entry(m.step.as_deref()).or_default().push(&m.name);
    }
    if let (1, Some((Some(step), _))) = (steps.len(), steps.first_key_value()) {
        return Ok(step.to_string());
    }
    if let (1, Some(names)) = (steps.len(), steps.get(&None)) {
        let (who, are) = match &names[..] {
            [one] => ((*one).to_string(), "is"),
            many => (format!("the {} machines", many.len()), "are"),
        };
        return Err(Failure::error(format!("{who} {are} at no step: there is nothing to skip")));
    }
    let counts: Vec<String> = steps
        .iter()
        .map(|(step, names)| match step {
            Some(step) => format!("{} at `{step}`", names.len()),
            None => format!("{} at none", names.len()),
        })
        .collect();
    Err(Failure::usage(format!("the machines are at different steps: {}", counts.join(", ")))
        .hint("say which one with --step KEY; the others refuse it"))
}

pub(super) async fn change(
    api: &Api,
    target: Target,
    mut order: ChangeOrder,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let Target { names, how } = target;
    order.why = how.why;
    let key = how.key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let word = serde_json::to_value(order.change).ok();
    let word = match (word.as_ref().and_then(|w| w.as_str()), &order.desired, &order.step) {
        (Some("desire"), Some(desired), _) => format!("desired {desired}"),
        (Some("skip"), _, Some(step)) => format!("skip of `{step}`"),
        (word, _, _) => word.unwrap_or("change").to_string(),
    };
    if let ([name], None, None) = (&names[..], &how.selector, how.confirm) {
        let path = format!("/v1/machines/{}/changes", encode(name));
        let answer = api.post::<Changed>(&path, &order, Some(&key)).await?;
        if io.json {
            return io.document(&answer.raw);
        }
        let done = answer.value;
        return io.line(format_args!("{}: {word} is durable (seq {})", done.machine, done.seq));
    }
    let selector = match &how.selector {
        Some(text) if names.is_empty() => Selector::parse(text).map_err(Failure::usage)?,
        Some(_) => return Err(Failure::usage("give names or --selector, not both")),
        None => Selector { names, ..Selector::default() },
    };
    let bulk = BulkOrder { selector, change: order, confirm: how.confirm };
    let answer = api.post::<BulkChanged>("/v1/changes", &bulk, Some(&key)).await?;
    let done = answer.value;
    if io.json {
        io.document(&answer.raw)?;
    } else {
        report(&done, &word, io)?;
    }
    match (done.changed.len(), done.refused.len()) {
        (0, 0) => Err(Failure::error("no machine matches")),
        (_, 0) => Ok(()),
        _ => Err(Failure::Said),
    }
}

fn report(done: &BulkChanged, word: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let changed = done.changed.len();
    if changed > 0 {
        let s = if changed == 1 { "" } else { "s" };
        io.line(format_args!("{word} is durable on {changed} machine{s}"))?;
    }
    if done.refused.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = done
        .refused
        .iter()
        .map(|r| {
            let detail = &r.problem.detail;
            let detail = detail.strip_prefix(&format!("{}: ", r.machine)).unwrap_or(detail);
            vec![
                Cell::new(&r.machine).painted(Paint::Bold),
                Cell::new(&r.problem.code).painted(Paint::Red),
                Cell::new(detail),
            ]
        })
        .collect();
    io.table(&["REFUSED", "CODE", "WHY"], &rows)
}
