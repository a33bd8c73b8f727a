//! What `farrier serve` needs to take the virtual machines for real ones: inventory, daemon
//! configuration, password, SSH key, workflows, and a catalog that knows these makers.

use super::{Ask, Fleet, VbmcError};
use crate::app::demo::site::{free_ports, identity, quoted};
use crate::app::demo::{DemoError, io};
use crate::config::shipped;
use russh::keys::ssh_key::LineEnding;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// First line of the files that may be written over.
const MARK: &str = "# Made by `farrier vbmc`";
const IMAGE: &str = "virtual-linux-1";

/// Writes everything; returns the path of the daemon's configuration.
pub(super) fn write(inventory: &Path, ask: &Ask, fleet: &Fleet) -> Result<PathBuf, VbmcError> {
    let dir = match inventory.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let config = dir.join("farrier.toml");
    for file in [inventory, &config] {
        let old = fs::read_to_string(file).unwrap_or_default();
        if file.exists() && !old.starts_with(MARK) {
            return Err(VbmcError::NotOurs(file.display().to_string()));
        }
    }
    let exe = std::env::current_exe().map_err(io("this program's own file"))?;
    let [api, boot, images] = free_ports()?;
    fleet.serving.world.set_boot_url(format!("http://127.0.0.1:{boot}"));
    let inventory_name = inventory.file_name().unwrap_or_default().to_string_lossy();
    let daemon = format!(
        "{MARK}: a rehearsal on its virtual machines.\nschema = 1\n\n\
         [paths]\nstate = \"state\"\ninventory = [{}]\n\n\
         [listen.api]\nbind = \"127.0.0.1:{api}\"\n\n\
         [listen.boot]\nbind = \"127.0.0.1:{boot}\"\nadvertise_url = \"http://127.0.0.1:{boot}\"\n\n\
         [listen.images]\nbind = \"127.0.0.1:{images}\"\n\
         advertise_url = \"http://127.0.0.1:{images}\"\n\n\
         [ssh]\nuser = \"root\"\nkey = \"ssh_key\"\n\n\
         [[credential]]\nname = \"vbmc\"\nuser = {}\nfrom = {{ file = \"vbmc-password\" }}\n\n\
         [[cluster]]\nname = \"virtual\"\nkind = \"hooks\"\n\
         command = [{}, \"demo-hook\", \"{}/hook\"]\nwhere = \"local\"\ntimeout = \"30s\"\n\n\
         [confirm]\nmax_machines = {}\n",
        quoted(&inventory_name),
        quoted(&fleet.user),
        quoted(&exe.display().to_string()),
        fleet.serving.admin_url,
        ask.machines.max(1),
    );
    put(&config, daemon.as_bytes(), 0o644)?;
    put(inventory, machines(ask, fleet).as_bytes(), 0o644)?;
    put(&dir.join("vbmc-password"), fleet.password.as_bytes(), 0o600)?;
    let pem = fleet.key.to_openssh(LineEnding::LF).map_err(|e| DemoError::Key(e.to_string()))?;
    put(&dir.join("ssh_key"), pem.as_bytes(), 0o600)?;
    for (file, text) in shipped::WORKFLOWS {
        put(&dir.join("workflows").join(file), text.as_bytes(), 0o644)?;
    }
    let catalog = dir.join("firmware-catalog");
    let (file, text) = shipped::VIRTUAL_CATALOG;
    put(&catalog.join(file), for_makers(text, fleet).as_bytes(), 0o644)?;
    for (file, bytes) in shipped::VIRTUAL_IMAGES {
        put(&catalog.join(file), bytes, 0o644)?;
    }
    let image = dir.join("images").join(IMAGE);
    put(&image.join("vmlinuz"), b"a kernel would be here\n", 0o644)?;
    put(&image.join("initrd.img"), b"a ramdisk would be here\n", 0o644)?;
    Ok(config)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DemoError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io(parent.display().to_string()))?;
    }
    let shown = path.display().to_string();
    fs::write(path, bytes).map_err(io(shown.clone()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io(shown))
}

/// The virtual family's catalog, for the makers whose names the machines bear.
fn for_makers(catalog: &str, fleet: &Fleet) -> String {
    let seats = &fleet.serving.world.seats;
    let makers: BTreeSet<&str> =
        seats.iter().map(|s| s.profile.maker.as_deref().unwrap_or("Farrier")).collect();
    let patterns: Vec<String> =
        makers.into_iter().map(|m| format!("'^{}$'", regex::escape(m))).collect();
    let line = format!("manufacturer = [{}]", patterns.join(", "));
    catalog.replace("manufacturer = [\"^Farrier$\"]", &line)
}

fn machines(ask: &Ask, fleet: &Fleet) -> String {
    let mut text = format!(
        "{MARK}.\nschema = 1\n\n[[site]]\nname = \"virtual\"\n\n\
         [[profile]]\nname = \"virtual-gpu\"\nworkflow = \"gpu-node\"\nfirmware_set = \"2026.11\"\n\
         image = \"{IMAGE}\"\ngpus = 8\ncluster = \"virtual\"\n\n\
         [[pool]]\nname = \"rehearsal\"\nprofile = \"virtual-gpu\"\n"
    );
    let serving = &fleet.serving;
    for rack in 1..=serving.world.seats.len().div_ceil(8) {
        let _ = write!(
            text,
            "\n[[rack]]\nname = \"r{rack:02}\"\nsite = \"virtual\"\n\
             power = [\"feed-{rack:02}a\", \"feed-{rack:02}b\"]\nswitch = \"leaf-{rack:02}\"\n"
        );
    }
    for (n, seat) in serving.world.seats.iter().enumerate() {
        let who = identity(ask.seed, u32::try_from(n).unwrap_or(u32::MAX));
        let _ = write!(
            text,
            "\n[[machine]]\nname = \"{}\"\nserial = \"{}\"\nmac = \"{}\"\n\
             rack = \"r{:02}\"\nposition = {}\npool = \"rehearsal\"\n\
             bmc = {{ url = \"{}\", credential = \"vbmc\"{} }}\n\
             host = {{ address = \"{}:{}\" }}\n",
            seat.name,
            who.serial.unwrap_or_default(),
            who.mac.unwrap_or_default(),
            n / 8 + 1,
            n % 8 * 8 + 1,
            serving.bmc_url(seat),
            // As with real BMCs: a person accepts them with `farrier bmc pin`.
            if seat.profile.tls.is_some() { ", tls = \"pin\"" } else { "" },
            seat.address,
            serving.ssh_port,
        );
    }
    text
}
