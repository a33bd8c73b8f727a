//! The ramdisk's medium for a BMC's virtual drive. One ISO lies on the disk; what it tells one machine
//! is laid over a place kept free for that, while it is served.

use super::images::{Overlay, serve_overlaid};
use super::problem::Problem;
use super::render::here;
use super::sendfile::FileRequest;
use super::server::Shared;
use crate::model::deploy::RAMDISK;
use crate::model::network::Mac;
use crate::port::netboot::Roster;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

/// What of `ramdisk.toml` counts here.
#[derive(Debug, Deserialize)]
struct Built {
    overlay: Place,
}

/// Where the configuration lies in the ISO, how long it is, and its first line.
#[derive(Debug, Deserialize)]
struct Place {
    offset: u64,
    size: u64,
    magic: String,
}

type Sources = (Arc<Shared>, Arc<dyn Roster>);

pub(super) fn router(shared: Arc<Shared>, roster: Arc<dyn Roster>) -> Router {
    Router::new().route("/media/{file}", get(medium)).with_state((shared, roster))
}

async fn medium(
    State((shared, roster)): State<Sources>,
    file: Path<String>,
    request: FileRequest,
) -> Result<Response, Problem> {
    let run = file.strip_suffix(".iso").ok_or_else(Problem::not_found)?;
    let slot = shared.by_run(run).ok_or_else(Problem::not_found)?;
    let window = slot.lock().await.clone();
    let images = shared.settings.images.as_ref().ok_or_else(Problem::not_found)?;
    // BMCs read as the host reads: the medium stays there after the callback too.
    if !window.open || !window.is_of_ramdisk() {
        return Err(Problem::not_found());
    }
    let dir = images.join(RAMDISK);
    let text = tokio::fs::read_to_string(dir.join("ramdisk.toml")).await;
    let built: Option<Built> = text.ok().and_then(|t| toml::from_str(&t).ok());
    let Some(Built { overlay: place }) = built else {
        tracing::error!(machine = window.name, dir = %dir.display(),
            "there is no ramdisk medium to serve; `farrier image build-ramdisk` makes one");
        return Err(Problem::not_found());
    };
    let mut config = format!("{}\nseed={}/\nmac={}\n", place.magic, here(&window), window.mac);
    if let Ok(mac) = window.mac.to_string().parse() {
        config.push_str(&network(&*roster, mac).await);
    }
    let mut config = config.into_bytes();
    config.resize(usize::try_from(place.size).unwrap_or(0).max(config.len()), b'\n');
    let overlay = Overlay { offset: place.offset, bytes: Bytes::from(config) };
    serve_overlaid(&dir, "ramdisk.iso", &request, overlay, &window.run).await
}

/// The machine's own address, where the inventory says one that lies in a network of it; else nothing, and
/// the ramdisk asks for one by DHCP.
async fn network(roster: &dyn Roster, mac: Mac) -> String {
    let (all, lans) = (roster.residents(mac).await, roster.lans().await);
    let address = all.by_mac.get(&mac).and_then(|r| r.address).map(IpAddr::V4);
    let Some(address) = address else { return String::new() };
    let Some(lan) = lans.iter().find(|l| l.subnet.contains(address)) else { return String::new() };
    let mut text = format!("address={address}/{}\n", lan.subnet.prefix());
    if let Some(gateway) = lan.gateway {
        let _ = writeln!(text, "gateway={gateway}");
    }
    if !lan.dns.is_empty() {
        let dns: Vec<String> = lan.dns.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "dns={}", dns.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MachineId;
    use crate::model::network::Lan;
    use crate::port::netboot::{Resident, Residents};
    use async_trait::async_trait;

    struct Fixed(Option<&'static str>);

    #[async_trait]
    impl Roster for Fixed {
        async fn lans(&self) -> Arc<[Lan]> {
            let mut lan = Lan::new("provision", "10.30.0.0/22".parse().unwrap());
            lan.gateway = "10.30.0.1".parse().ok();
            lan.dns = vec!["10.30.0.3".parse().unwrap(), "10.30.0.4".parse().unwrap()];
            [Lan::new("other", "10.40.0.0/24".parse().unwrap()), lan].into()
        }

        async fn residents(&self, wanted: Mac) -> Arc<Residents> {
            let resident = Resident {
                machine: MachineId(1),
                name: "n1".into(),
                address: self.0.map(|a| a.parse().unwrap()),
                uuid: None,
                rack: "r".into(),
            };
            let mut all = Residents::default();
            all.by_mac.insert(wanted, resident);
            Arc::new(all)
        }
    }

    #[tokio::test]
    async fn a_medium_names_the_address_that_the_inventory_names() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let own = network(&Fixed(Some("10.30.1.9")), mac).await;
        assert_eq!(own, "address=10.30.1.9/22\ngateway=10.30.0.1\ndns=10.30.0.3,10.30.0.4\n");
        for unknown in [None, Some("192.168.1.9")] {
            assert_eq!(network(&Fixed(unknown), mac).await, "");
        }
    }
}
