//! The ramdisk as a CD for a BMC's virtual drive: one image for all machines, for UEFI (Debian's signed
//! shim and GRUB, so Secure Boot may be on) and BIOS. What one machine is told lies in a file of fixed
//! size at a known place, which the boot server overlays while it serves the image.

use super::Trouble;
use super::build::quietly;
use super::tree::Tree;
use std::fs;
use std::path::Path;

/// Packages that the ISO is made of and with.
pub(super) const PACKAGES: &[&str] =
    &["shim-signed", "grub-efi-amd64-signed", "grub-common", "grub-pc-bin", "xorriso"];

/// First line of the configuration. It is found by this, so it stands nowhere else in the image.
pub(super) const MAGIC: &str = "# farrier ramdisk configuration, version 1";
/// Bytes of the configuration, padded with newlines.
pub(super) const CONFIG_SIZE: u64 = 65_536;

const GRUB: &str = include_str!("ramdisk/grub.cfg");

/// What GRUB for BIOS has built in; the signed one for UEFI has its own.
const BIOS_MODULES: &[&str] = &[
    "biosdisk",
    "iso9660",
    "linux",
    "normal",
    "configfile",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
    "echo",
    "test",
    "boot",
];

/// Makes the ISO; the offset of the configuration in it.
pub(super) fn make(
    tree: &Tree,
    kernel: &Path,
    initrd: &Path,
    date: u32,
    root: &Path,
    image: &Path,
) -> Result<u64, Trouble> {
    let dir = |below: &str| {
        let path = root.join(below);
        fs::create_dir_all(&path).map_err(|e| Trouble::file("making", &path, &e))
    };
    for below in ["farrier", "boot/grub", ".disk"] {
        dir(below)?;
    }
    let mut config = format!("{MAGIC}\n").into_bytes();
    config.resize(usize::try_from(CONFIG_SIZE).unwrap_or(0), b'\n');
    for (below, bytes) in [
        // By this file the signed GRUB finds its medium.
        (".disk/info", b"Farrier deploy ramdisk\n".to_vec()),
        ("boot/grub/grub.cfg", GRUB.as_bytes().to_vec()),
        ("farrier/ramdisk.cfg", config),
    ] {
        let path = root.join(below);
        fs::write(&path, bytes).map_err(|e| Trouble::file("writing", &path, &e))?;
    }
    for (from, below) in [(kernel, "farrier/vmlinuz"), (initrd, "farrier/initrd.img")] {
        let path = root.join(below);
        fs::copy(from, &path).map_err(|e| Trouble::file("copying", from, &e))?;
    }
    efi_image(tree, date, &root.join("boot/efi.img"))?;
    bios_image(tree, &root.join("boot/bios.img"))?;
    same_dates(root, date)?;

    let mut xorriso = tree.command("xorriso")?;
    xorriso.env("SOURCE_DATE_EPOCH", date.to_string());
    xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-V", "FARRIER", "-o"]).arg(image);
    xorriso.args(["-b", "boot/bios.img", "-no-emul-boot", "-boot-load-size", "4"]);
    xorriso.args(["-boot-info-table", "--grub2-boot-info", "-eltorito-alt-boot"]);
    xorriso.args(["-e", "boot/efi.img", "-no-emul-boot"]).arg(root);
    quietly(&mut xorriso, "making the ISO")?;
    offset(&super::contents::read(image)?)
}

/// The small FAT volume that UEFI boots from: shim, and GRUB under the name that shim looks for.
fn efi_image(tree: &Tree, date: u32, image: &Path) -> Result<(), Trouble> {
    let file = fs::File::create(image).map_err(|e| Trouble::file("writing", image, &e))?;
    file.set_len(8 << 20).map_err(|e| Trouble::file("writing", image, &e))?;
    let mut mkfs = tree.command("mkfs.fat")?;
    mkfs.args(["--invariant", "-F", "12", "-n", "FARRIER_EFI"]).arg(image);
    quietly(&mut mkfs, "making the EFI volume")?;
    let mtools = |name: &str| {
        tree.command(name).map(|mut c| {
            c.env("SOURCE_DATE_EPOCH", date.to_string()).arg("-i").arg(image);
            c
        })
    };
    quietly(mtools("mmd")?.args(["::EFI", "::EFI/BOOT"]), "making the EFI volume")?;
    for (from, name) in [
        ("usr/lib/shim/shimx64.efi.signed", "BOOTX64.EFI"),
        ("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed", "grubx64.efi"),
        ("usr/lib/shim/mmx64.efi.signed", "mmx64.efi"),
    ] {
        let path = tree.path(from);
        let mut copy = mtools("mcopy")?;
        copy.arg(&path).arg(format!("::EFI/BOOT/{name}"));
        quietly(&mut copy, "filling the EFI volume")?;
    }
    Ok(())
}

/// GRUB for BIOS, as one file that El Torito loads.
fn bios_image(tree: &Tree, image: &Path) -> Result<(), Trouble> {
    let mut make = tree.command("grub-mkimage")?;
    make.args(["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-d"]);
    make.arg(tree.path("usr/lib/grub/i386-pc")).arg("-o").arg(image).args(BIOS_MODULES);
    quietly(&mut make, "making GRUB for BIOS")
}

fn same_dates(path: &Path, date: u32) -> Result<(), Trouble> {
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| Trouble::file("looking at", path, &e))?;
        for entry in entries.flatten() {
            same_dates(&entry.path(), date)?;
        }
    }
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(date.into());
    fs::File::open(path)
        .and_then(|f| f.set_modified(then))
        .map_err(|e| Trouble::file("dating", path, &e))
}

/// Where the configuration starts, in bytes.
fn offset(image: &[u8]) -> Result<u64, Trouble> {
    let magic = MAGIC.as_bytes();
    // Files start at sectors of 2 KiB.
    let mut found = image.chunks(2048).enumerate().filter(|(_, s)| s.starts_with(magic));
    match (found.next(), found.next()) {
        (Some((sector, _)), None) => Ok(u64::try_from(sector).unwrap_or(0) * 2048),
        (None, _) => Err(Trouble::new("the ISO does not hold its configuration")),
        _ => Err(Trouble::new("the ISO's configuration can't be told from a copy of it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_found_once_or_not_at_all() {
        let mut image = vec![0; 10 * 2048];
        assert!(offset(&image).is_err());
        image[3 * 2048..3 * 2048 + MAGIC.len()].copy_from_slice(MAGIC.as_bytes());
        assert_eq!(offset(&image).unwrap(), 3 * 2048);
        image[7 * 2048..7 * 2048 + MAGIC.len()].copy_from_slice(MAGIC.as_bytes());
        assert!(offset(&image).is_err());
    }
}
