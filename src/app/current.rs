//! The configuration in force, shared by what needs it; swapped whole on reload.

use super::system_network;
use crate::config::{self, Purpose};
use crate::model::quirks::PushForm;
use crate::model::{Expected, Fault};
use crate::port::netboot::Lessor;
use crate::port::{Advertise, ImageFile};
use crate::steps::catalog::Method;
use async_trait::async_trait;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock, RwLock};

/// The last good configuration, and who gives addresses in its networks.
#[derive(Clone)]
pub struct Current {
    loaded: Arc<RwLock<Arc<config::Loaded>>>,
    lessor: Arc<OnceLock<Arc<dyn Lessor>>>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Current({:?})", self.get().daemon.state)
    }
}

impl Current {
    pub fn new(loaded: config::Loaded) -> Self {
        Self { loaded: Arc::new(RwLock::new(Arc::new(loaded))), lessor: Arc::default() }
    }

    /// The DHCP server, once it is open; a later one changes nothing, as its listeners don't.
    pub fn lend(&self, lessor: Option<Arc<dyn Lessor>>) {
        if let Some(lessor) = lessor {
            self.lessor.set(lessor).ok();
        }
    }

    pub fn get(&self) -> Arc<config::Loaded> {
        match self.loaded.read() {
            Ok(guard) => guard.clone(),
            // A writer only stores a pointer: nothing half-done can be seen.
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub fn set(&self, loaded: config::Loaded) {
        let fresh = Arc::new(loaded);
        match self.loaded.write() {
            Ok(mut guard) => *guard = fresh,
            Err(poisoned) => *poisoned.into_inner() = fresh,
        }
    }
}

#[async_trait]
impl Advertise for Current {
    fn images(&self, machine: &Expected) -> Option<String> {
        let loaded = self.get();
        let listener = loaded.daemon.image_server.as_ref()?;
        let address = config::Loaded::address_of(&machine.bmc.url);
        loaded.advertised(listener, address, Purpose::Bmc).map(str::to_string)
    }

    fn boot(&self, machine: &Expected) -> Option<String> {
        let loaded = self.get();
        let listener = loaded.daemon.boot.as_ref()?;
        let address = config::Loaded::address_of(&machine.host.address);
        loaded.advertised(listener, address, Purpose::Provision).map(str::to_string)
    }

    fn firmware_file(&self, file: &str) -> Option<ImageFile> {
        let loaded = self.get();
        // Only what the catalog names, as at the image listener.
        let sets = loaded.site.catalog.families.iter().flat_map(|f| f.sets.values());
        let firmware = sets.flat_map(|s| &s.firmware).find(|fw| fw.file == file)?;
        let form = match firmware.method {
            Method::SimpleUpdate => return None,
            Method::Found => None,
            Method::Multipart => Some(PushForm::Multipart),
            Method::HttpPush => Some(PushForm::Raw),
        };
        Some(ImageFile {
            form,
            path: loaded.daemon.catalog.join(file),
            size: firmware.size,
            sha256: firmware.sha256.clone(),
        })
    }

    async fn system_network(
        &self,
        machine: &Expected,
        mac: Option<&str>,
    ) -> Result<Option<String>, Fault> {
        let lessor = self.lessor.get().map(|l| &**l);
        system_network::system_network(&self.get(), machine, mac, lessor).await
    }

    fn leased_address(&self, machine: &Expected, mac: Option<&str>) -> Option<Ipv4Addr> {
        let lessor = self.lessor.get()?;
        system_network::leased_address(&self.get(), machine, mac, &**lessor)
    }
}
