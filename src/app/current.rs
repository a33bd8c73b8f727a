//! The configuration in force, shared by what needs it; swapped whole on reload.

use crate::config::{self, Purpose};
use crate::model::Expected;
use crate::model::quirks::PushForm;
use crate::port::{Advertise, ImageFile};
use crate::steps::catalog::Method;
use std::sync::{Arc, RwLock};

/// The last good configuration.
#[derive(Clone, Debug)]
pub struct Current(Arc<RwLock<Arc<config::Loaded>>>);

impl Current {
    pub fn new(loaded: config::Loaded) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(loaded))))
    }

    pub fn get(&self) -> Arc<config::Loaded> {
        match self.0.read() {
            Ok(guard) => guard.clone(),
            // A writer only stores a pointer: nothing half-done can be seen.
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub fn set(&self, loaded: config::Loaded) {
        let fresh = Arc::new(loaded);
        match self.0.write() {
            Ok(mut guard) => *guard = fresh,
            Err(poisoned) => *poisoned.into_inner() = fresh,
        }
    }
}

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
}
