//! Updates (DSP0268 UpdateService): by SimpleUpdate the virtual BMC really fetches the image over
//! HTTP, by multipart push the image comes in the request. It reads in the image what it is: an
//! image of the virtual family is its id, `farrier-virtual-bmc-7.20`, on every line.

use super::message::{Refusal, because, refusal};
use super::multipart::Parts;
use super::redfish::{apply, document};
use super::seat::{Counters, Seat};
use super::{World, call, tree};
use crate::model::{Action, Outcome};
use axum::body::BodyDataStream;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;

/// Longest image, bytes.
pub(super) const IMAGE_MAX: usize = 16 << 20;
const PARAMETERS_MAX: usize = 64 * 1024;
/// No image of the family has a longer line.
const LINE_MAX: usize = 1024;

fn bad(why: &str) -> Refusal {
    because(StatusCode::BAD_REQUEST, why)
}

pub(super) async fn simple_update(
    world: Arc<World>,
    seat: Arc<Seat>,
    body: Value,
) -> Result<Response, Refusal> {
    const ACTION: &str = "UpdateService.SimpleUpdate";
    Counters::count(&seat.counters.updates);
    let missing =
        || refusal(StatusCode::BAD_REQUEST, "ActionParameterMissing", &[ACTION, "ImageURI"]);
    let url = body["ImageURI"].as_str().ok_or_else(missing)?.to_string();
    if let Some(protocol) = body["TransferProtocol"].as_str().filter(|p| *p != "HTTP") {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "ActionParameterValueNotInList",
            &[protocol, "TransferProtocol", ACTION],
        ));
    }
    let target = target(&body)?;
    // A task of its own: the BMC goes on when the caller hangs up.
    let work = tokio::spawn(async move {
        let image = fetch(&seat, &url).await.map_err(|why| bad(&format!("no image: {why}")))?;
        let mut reading = Reading::default();
        reading.take(&image);
        install(&world, &seat, reading, target.as_deref())
    });
    work.await
        .unwrap_or_else(|_| Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &[])))
}

/// `POST` to `MultipartHttpPushUri`: parts `UpdateParameters` (JSON) and `UpdateFile`. The caller is
/// logged in already. Nothing is installed before the last byte is there.
pub(super) async fn push(
    world: &World,
    seat: &Seat,
    content_type: &str,
    body: BodyDataStream,
) -> Result<Response, Refusal> {
    Counters::count(&seat.counters.updates);
    let broken = |_| refusal(StatusCode::BAD_REQUEST, "MissingOrMalformedPart", &[]);
    let mut parts = Parts::new(content_type, body).map_err(broken)?;
    let (mut parameters, mut image) = (None, None);
    while let Some(name) = parts.next().await.map_err(broken)? {
        match name.as_str() {
            "UpdateParameters" => {
                let mut text = Vec::new();
                while let Some(piece) = parts.piece().await.map_err(broken)? {
                    text.extend(piece);
                    if text.len() > PARAMETERS_MAX {
                        return Err(bad("`UpdateParameters` is too long"));
                    }
                }
                let value = serde_json::from_slice::<Value>(&text)
                    .map_err(|_| refusal(StatusCode::BAD_REQUEST, "MalformedJSON", &[]))?;
                parameters = Some(value);
            }
            "UpdateFile" => {
                let mut reading = Reading::default();
                while let Some(piece) = parts.piece().await.map_err(broken)? {
                    reading.take(&piece);
                    if reading.bytes > IMAGE_MAX {
                        return Err(because(
                            StatusCode::PAYLOAD_TOO_LARGE,
                            "the image is larger than `MaxImageSizeBytes`",
                        ));
                    }
                }
                image = Some(reading);
            }
            // OEM parts and the like.
            _ => {}
        }
    }
    let (Some(parameters), Some(image)) = (parameters, image) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "MissingOrMalformedPart", &[]));
    };
    let target = target(&parameters)?;
    install(world, seat, image, target.as_deref())
}

/// The component that `Targets` names; `None`: the image says it.
fn target(body: &Value) -> Result<Option<String>, Refusal> {
    let targets: Vec<&str> =
        body["Targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match targets.as_slice() {
        [] => Ok(None),
        [one] => {
            let segments: Vec<&str> = one.split('/').filter(|s| !s.is_empty()).collect();
            Ok(Some(match segments.as_slice() {
                [.., "Managers", "1"] => "BMC".to_string(),
                [.., "Systems", "1"] => "BIOS".to_string(),
                [.., last] => (*last).to_string(),
                [] => String::new(),
            }))
        }
        _ => Err(bad("at most one of `Targets`")),
    }
}

fn install(
    world: &World,
    seat: &Seat,
    image: Reading,
    target: Option<&str>,
) -> Result<Response, Refusal> {
    let Some((component, to)) = image.end() else {
        return Err(bad("the image is not one of this BMC's family"));
    };
    if target.is_some_and(|target| !component.eq_ignore_ascii_case(target)) {
        let why = format!("an image of `{component}` is not for `{}`", target.unwrap_or_default());
        return Err(bad(&why));
    }
    let inventory_id = component.to_uppercase();
    let action = Action::UpdateFirmware {
        component: component.clone(),
        inventory_id,
        from: String::new(),
        to,
        file: String::new(),
        sha256: String::new(),
    };
    match apply(world, seat, &action) {
        Outcome::Applied { handle: Some(task) } => Ok(accepted(world, seat, &task)),
        _ => Err(bad(&format!("no component `{component}`"))),
    }
}

/// 202 with the task in the body, and its monitor in `Location` (DSP0266 §14.4).
pub(super) fn accepted(world: &World, seat: &Seat, task: &str) -> Response {
    let now = world.now();
    let id = task.rsplit('/').next().unwrap_or_default();
    let shown = seat.with(now, |b| tree::task(&b.vm, now, id)).unwrap_or_default();
    let mut out = document(StatusCode::ACCEPTED, &shown);
    if let Some(monitor) = shown["TaskMonitor"].as_str().and_then(|m| m.parse().ok()) {
        out.headers_mut().insert(header::LOCATION, monitor);
    }
    out
}

/// A task's monitor: 202 while it runs, then how the operation ended.
pub(super) fn monitor(world: &World, seat: &Seat, id: &str) -> Result<Response, Refusal> {
    let now = world.now();
    let task = seat.with(now, |b| tree::task(&b.vm, now, id));
    let Some(task) = task else { return Err(super::message::missing()) };
    match task["TaskState"].as_str() {
        Some("Completed") => Ok(document(StatusCode::OK, &task)),
        Some("Exception") => Err(bad("the image was not taken")),
        _ => {
            let own = format!("{}/TaskService/Tasks/{id}", tree::V1);
            Ok(accepted(world, seat, &own))
        }
    }
}

async fn fetch(seat: &Seat, url: &str) -> Result<Vec<u8>, String> {
    match call::get(seat.address, url, IMAGE_MAX).await {
        Err(e) => Err(e.to_string()),
        Ok(answer) if !answer.ok() => Err(format!("the image server answers {}", answer.status)),
        Ok(answer) if answer.body.is_empty() => Err("it is empty".into()),
        Ok(answer) => Ok(answer.body),
    }
}

/// An image as it passes by: all its lines must be the same, so half an image is none.
#[derive(Debug, Default)]
struct Reading {
    first: Option<Vec<u8>>,
    line: Vec<u8>,
    bytes: usize,
    wrong: bool,
}

impl Reading {
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len();
        for line in piece.split_inclusive(|b| *b == b'\n') {
            if self.wrong {
                return;
            }
            self.line.extend_from_slice(line);
            self.wrong = self.line.len() > LINE_MAX;
            if self.line.ends_with(b"\n") {
                match &self.first {
                    None => self.first = Some(std::mem::take(&mut self.line)),
                    Some(first) => {
                        self.wrong |= *first != self.line;
                        self.line.clear();
                    }
                }
            }
        }
    }

    /// Component and version in the image.
    fn end(self) -> Option<(String, String)> {
        if self.wrong || !self.line.is_empty() {
            return None;
        }
        let first = String::from_utf8(self.first?).ok()?;
        let id = first.trim_end().strip_prefix("farrier-virtual-")?;
        let (component, version) = id.split_once('-')?;
        Some((component.to_string(), version.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(image: &[u8], step: usize) -> Option<(String, String)> {
        let mut reading = Reading::default();
        image.chunks(step).for_each(|piece| reading.take(piece));
        reading.end()
    }

    #[test]
    fn an_image_names_its_component_and_version() {
        let good = "farrier-virtual-bmc-7.20\n".repeat(64);
        for step in [1, 7, 25, 4096] {
            assert_eq!(read(good.as_bytes(), step), Some(("bmc".into(), "7.20".into())));
            assert_eq!(read(&good.as_bytes()[..good.len() - 5], step), None);
            assert_eq!(read(b"<html>not found</html>\n", step), None);
        }
        assert_eq!(read(b"", 1), None);
        assert_eq!(read(&[b'x'; 5000], 64), None, "a line that never ends");
    }

    #[test]
    fn targets_name_a_component_by_any_of_its_paths() {
        let of = |path: &str| {
            target(&serde_json::json!({"Targets": [path]})).ok().flatten().unwrap_or_default()
        };
        assert_eq!(of("/redfish/v1/UpdateService/FirmwareInventory/BMC"), "BMC");
        assert_eq!(of("/redfish/v1/Managers/1"), "BMC");
        assert_eq!(of("/redfish/v1/Systems/1/Bios"), "Bios");
        assert_eq!(of("/"), "");
        assert!(target(&serde_json::json!({"Targets": []})).is_ok_and(|t| t.is_none()));
        assert!(target(&serde_json::json!({"Targets": ["a", "b"]})).is_err());
    }
}
