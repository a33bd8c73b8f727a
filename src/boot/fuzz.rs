//! Ways in for fuzz targets to what is private here.

use super::callback;
use super::deploy;
use super::images;
use super::sendfile::FileRequest;
use super::window::{Call, Mac, VERSION, Window};
use crate::model::MachineId;
use crate::model::facts::Callback;
use crate::port::Secret;
use crate::port::deploy::DeployOrder;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// A boot window's MAC as its URL has it, in the one spelling.
pub fn mac(text: &str) -> Option<String> {
    Mac::parse(text).map(String::from)
}

/// What stands in a callback's body.
///
/// # Errors
/// What is wrong with it, for the host.
pub fn said(body: &[u8]) -> Result<(Secret, Callback), String> {
    callback::parse(body)
}

/// The token of the window in [`calls`].
pub const TOKEN: &str = "token-of-the-window";

/// What one callback does to a window that waits for it.
#[derive(Debug)]
pub struct Calls {
    /// From the host, and then the same again, other words, and the same after the window was closed.
    pub by_host: [&'static str; 4],
    /// With the right token from another address, and with a wrong one.
    pub by_others: [&'static str; 2],
    /// As it is read back from the window's file after a restart.
    pub kept: Option<Callback>,
}

/// Says this to a window, in every order that matters. `None`: never, the window's MAC is ours.
pub fn calls(said: &Callback) -> Option<Calls> {
    let host = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 11));
    let other = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 12));
    let fresh = Window {
        version: VERSION,
        run: "0badcafe-m1-7".into(),
        machine: MachineId(1),
        name: "n1".into(),
        mac: Mac::parse("52:54:00:77:00:01")?,
        image: "img".into(),
        allow_existing_data: false,
        base_url: "http://b".into(),
        open: true,
        token: Some(Secret::new(TOKEN)),
        source: Some(host),
        script_fetched: true,
        seed_fetched: true,
        callback: None,
        other_uuid: None,
        made: None,
        deploys: None,
        keys: vec![],
        profile: "p".into(),
        network: None,
        preseed: None,
        opened_at: 1,
        changed_at: 1,
    };
    let by_others = [
        name(&fresh.call(other, TOKEN, said)),
        name(&fresh.call(host, "token-of-the-windoW", said)),
    ];
    let first = fresh.call(host, TOKEN, said);
    let after = match &first {
        Call::Taken(next) => (**next).clone(),
        _ => fresh,
    };
    let contrary = Callback { ok: !said.ok, ..said.clone() };
    let again = after.call(host, TOKEN, said);
    let changed = after.call(host, TOKEN, &contrary);
    let closed = after.closed().call(host, TOKEN, said);
    let read = serde_json::to_vec(&after).and_then(|text| serde_json::from_slice::<Window>(&text));
    Some(Calls {
        by_host: [name(&first), name(&again), name(&changed), name(&closed)],
        by_others,
        kept: read.ok().and_then(|w| w.callback),
    })
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::NoWindow => "no window",
        Call::WrongToken => "wrong token",
        Call::WrongSource => "wrong source",
        Call::Repeated => "repeated",
        Call::Spent => "spent",
        Call::Taken(_) => "taken",
    }
}

/// What a file of a directory is answered with.
#[derive(Debug)]
pub struct Served {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `None`: it broke off.
    pub body: Option<Bytes>,
}

impl Served {
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A request for a file below `dir`.
pub async fn served(dir: &Path, file: &str, method: Method, headers: HeaderMap) -> Served {
    let answer = images::serve_file(dir, file, &FileRequest { method, headers, lane: None }).await;
    let (parts, body) = answer.into_response().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.ok();
    Served { status: parts.status, headers: parts.headers, body }
}

/// The order that is made of the description of an image.
///
/// # Errors
/// What is wrong with the description.
pub fn described(text: &str) -> Result<DeployOrder, String> {
    let about = deploy::About::read(text)?;
    Ok(DeployOrder {
        image: "img".into(),
        run: "0badcafe-m1-7".into(),
        image_url: format!("http://b/boot/52-54-00-77-00-01/disk/{}", about.file),
        format: about.format,
        sha256: about.sha256,
        size: about.size,
        raw_size: about.raw_size,
        root: crate::model::deploy::RootDisk::default(),
        allow_existing_data: false,
        seed: Vec::new(),
    })
}
