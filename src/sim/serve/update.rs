//! SimpleUpdate (DSP0268 UpdateService): the virtual BMC really fetches the image over HTTP and
//! reads in it what it is. An image of the virtual family is its id, `farrier-virtual-bmc-7.20`,
//! on every line.

use super::redfish::{apply, document, fault};
use super::seat::{Counters, Seat};
use super::{World, call, tree};
use crate::model::{Action, Outcome};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;

/// Longest fetch, bytes.
const IMAGE_MAX: usize = 16 << 20;

pub(super) async fn simple_update(world: Arc<World>, seat: Arc<Seat>, body: Value) -> Response {
    Counters::count(&seat.counters.updates);
    let Some(url) = body["ImageURI"].as_str().map(String::from) else {
        return fault(StatusCode::BAD_REQUEST, "`ImageURI` is missing");
    };
    if body["TransferProtocol"].as_str().is_some_and(|p| p != "HTTP") {
        return fault(StatusCode::BAD_REQUEST, "only `TransferProtocol` HTTP");
    }
    let targets: Vec<&str> =
        body["Targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let target = match targets.as_slice() {
        [one] => one.rsplit('/').next().unwrap_or_default().to_string(),
        _ => return fault(StatusCode::BAD_REQUEST, "exactly one of `Targets`"),
    };
    // A task of its own: the BMC goes on when the caller hangs up.
    let work = tokio::spawn(async move { install(&world, &seat, &url, &target).await });
    match work.await {
        Ok(answer) => answer,
        Err(_) => fault(StatusCode::INTERNAL_SERVER_ERROR, "the update service stopped"),
    }
}

async fn install(world: &World, seat: &Seat, url: &str, target: &str) -> Response {
    let image = match fetch(seat, url).await {
        Ok(image) => image,
        Err(why) => return fault(StatusCode::BAD_REQUEST, &format!("no image: {why}")),
    };
    let Some((component, to)) = read_image(&image) else {
        return fault(StatusCode::BAD_REQUEST, "the image is not one of this BMC's family");
    };
    if !component.eq_ignore_ascii_case(target) {
        let why = format!("an image of `{component}` is not for `{target}`");
        return fault(StatusCode::BAD_REQUEST, &why);
    }
    let action = Action::UpdateFirmware {
        component: component.clone(),
        inventory_id: target.to_string(),
        from: String::new(),
        to,
        file: String::new(),
        sha256: String::new(),
    };
    let Outcome::Applied { handle: Some(task) } = apply(world, seat, &action) else {
        return fault(StatusCode::BAD_REQUEST, &format!("no component `{target}`"));
    };
    let now = world.now();
    let id = task.rsplit('/').next().unwrap_or_default();
    let shown = seat.with(now, |b| tree::task(&b.vm, now, id)).unwrap_or_default();
    let mut out = document(StatusCode::ACCEPTED, &shown);
    if let Ok(task) = task.parse() {
        out.headers_mut().insert(header::LOCATION, task);
    }
    out
}

async fn fetch(seat: &Seat, url: &str) -> Result<Vec<u8>, String> {
    match call::get(seat.address, url, IMAGE_MAX).await {
        Err(e) => Err(e.to_string()),
        Ok(answer) if !answer.ok() => Err(format!("the image server answers {}", answer.status)),
        Ok(answer) if answer.body.is_empty() => Err("it is empty".into()),
        Ok(answer) => Ok(answer.body),
    }
}

/// Component and version in the image; every line must be the same, so half an image is none.
fn read_image(image: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(image).ok()?;
    let first = text.lines().next()?;
    if !text.ends_with('\n') || text.lines().any(|l| l != first) {
        return None;
    }
    let (component, version) = first.strip_prefix("farrier-virtual-")?.split_once('-')?;
    Some((component.to_string(), version.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_its_component_and_version() {
        let good = "farrier-virtual-bmc-7.20\n".repeat(64);
        assert_eq!(read_image(good.as_bytes()), Some(("bmc".into(), "7.20".into())));
        assert_eq!(read_image(&good.as_bytes()[..good.len() - 5]), None);
        assert_eq!(read_image(b"<html>not found</html>\n"), None);
        assert_eq!(read_image(b""), None);
    }
}
