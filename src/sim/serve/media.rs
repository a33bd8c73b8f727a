//! Virtual media (DSP0268 VirtualMedia): the BMC asks the image's server how long the image is and
//! reads its start, as a BMC that streams does; an image that can't be had is not inserted.

use super::message::{Refusal, because, missing, refusal};
use super::seat::Seat;
use super::{World, call, tree};
use crate::sim::physics::Medium;
use crate::sim::truth::Cause;
use axum::http::StatusCode;
use serde_json::Value;

/// Enough for the volume descriptors of ISO 9660, which begin at 32 KiB.
const START: usize = 64 * 1024;
/// What makes an iPXE image with a script of its own.
const SCRIPT: &[u8] = b"#!ipxe";

fn drive(id: &str) -> Result<usize, Refusal> {
    tree::DRIVES.iter().position(|(name, _)| *name == id).ok_or_else(missing)
}

/// `InsertMedia`.
pub(super) async fn insert(
    world: &World,
    seat: &Seat,
    id: &str,
    body: &Value,
) -> Result<(), Refusal> {
    const ACTION: &str = "VirtualMedia.InsertMedia";
    let drive = drive(id)?;
    let not_in_list = |value: &str, key: &str| {
        refusal(StatusCode::BAD_REQUEST, "ActionParameterValueNotInList", &[value, key, ACTION])
    };
    let Some(members) = body.as_object() else {
        return Err(refusal(StatusCode::BAD_REQUEST, "MalformedJSON", &[]));
    };
    for (key, value) in members {
        let word = value.as_str().unwrap_or_default();
        match key.as_str() {
            "TransferProtocolType" if word != "HTTP" => return Err(not_in_list(word, key)),
            "TransferMethod" if word != "Stream" => return Err(not_in_list(word, key)),
            "Image"
            | "Inserted"
            | "WriteProtected"
            | "TransferProtocolType"
            | "TransferMethod"
            | "UserName"
            | "Password"
            | "MediaType" => {}
            _ => {
                return Err(refusal(
                    StatusCode::BAD_REQUEST,
                    "ActionParameterNotSupported",
                    &[key, ACTION],
                ));
            }
        }
    }
    let Some(url) = body["Image"].as_str().filter(|u| !u.is_empty()) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "ActionParameterMissing", &[ACTION, "Image"]));
    };
    if !url.starts_with("http://") {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "ActionParameterValueFormatError",
            &[url, "Image", ACTION],
        ));
    }
    let now = world.now();
    if seat.with(now, |b| b.vm.board.drives[drive].medium.is_some()) {
        return Err(refusal(StatusCode::CONFLICT, "ResourceInUse", &[]));
    }
    let medium = look(seat, url).await?;
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    match seat.with(now, |b| b.vm.insert_medium(now, by, drive, medium)) {
        true => Ok(()),
        false => Err(refusal(StatusCode::CONFLICT, "ResourceInUse", &[])),
    }
}

/// What lies at `url`.
async fn look(seat: &Seat, url: &str) -> Result<Medium, Refusal> {
    let unreachable =
        |_| refusal(StatusCode::INTERNAL_SERVER_ERROR, "CouldNotEstablishConnection", &[url]);
    let refused = |status: u16| {
        let why = format!("the image's server answers {status} for {url}");
        because(StatusCode::BAD_REQUEST, &why)
    };
    let head = call::head(seat.address, url).await.map_err(unreachable)?;
    // Servers without HEAD are asked by GET alone.
    if !head.ok() && !matches!(head.status, 405 | 501) {
        return Err(refused(head.status));
    }
    let start = call::start(seat.address, url, START).await.map_err(unreachable)?;
    if !start.ok() {
        return Err(refused(start.status));
    }
    if start.body.is_empty() {
        return Err(because(StatusCode::BAD_REQUEST, &format!("the image at {url} is empty")));
    }
    let bytes = head.length.filter(|_| head.ok()).or(start.length).unwrap_or(0);
    let chains = start.body.windows(SCRIPT.len()).any(|w| w == SCRIPT);
    Ok(Medium { url: url.into(), bytes, chains })
}

/// `EjectMedia`: an empty drive is no error.
pub(super) fn eject(world: &World, seat: &Seat, id: &str) -> Result<(), Refusal> {
    let drive = drive(id)?;
    let (now, by) = (world.now(), Cause::Farrier { seq: world.seq() });
    seat.with(now, |b| b.vm.eject_medium(now, by, drive));
    Ok(())
}
