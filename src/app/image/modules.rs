//! Which kernel modules the ramdisk carries: what finds, drives and reads a server's local disks and
//! network cards, and what those need. Storage networks (Fibre Channel, iSCSI, NVMe over fabrics) are
//! left out on purpose: a disk that the kernel can't see can't be overwritten.

use std::collections::{BTreeMap, BTreeSet};

/// Directories (ending in `/`) and modules below `kernel/`. What a kernel does not have, or has built
/// in, is left out silently: names come and go with versions.
const WANTED: &[&str] = &[
    // Disks and what they hang from.
    "drivers/ata/",
    "drivers/nvme/host/nvme.ko",
    "drivers/pci/controller/vmd.ko",
    "drivers/scsi/sd_mod.ko",
    "drivers/scsi/sr_mod.ko",
    "drivers/scsi/sg.ko",
    "drivers/scsi/virtio_scsi.ko",
    "drivers/scsi/vmw_pvscsi.ko",
    "drivers/scsi/hv_storvsc.ko",
    "drivers/scsi/megaraid/megaraid_sas.ko",
    "drivers/scsi/mpt3sas/",
    "drivers/scsi/mpi3mr/",
    "drivers/scsi/smartpqi/",
    "drivers/scsi/hpsa.ko",
    "drivers/scsi/aacraid/",
    "drivers/scsi/arcmsr/",
    "drivers/scsi/isci/",
    "drivers/scsi/mvsas/",
    "drivers/scsi/pm8001/",
    "drivers/message/fusion/mptsas.ko",
    "drivers/message/fusion/mptspi.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/block/loop.ko",
    "drivers/md/dm-mod.ko",
    "drivers/md/raid1.ko",
    "drivers/usb/host/",
    "drivers/usb/storage/usb-storage.ko",
    "drivers/usb/storage/uas.ko",
    // Network cards.
    "drivers/net/bonding/",
    "net/8021q/",
    "drivers/net/virtio_net.ko",
    "drivers/net/vmxnet3/",
    "drivers/net/hyperv/",
    "drivers/net/ethernet/amazon/",
    "drivers/net/ethernet/amd/",
    "drivers/net/ethernet/aquantia/",
    "drivers/net/ethernet/broadcom/",
    "drivers/net/ethernet/chelsio/cxgb4/",
    "drivers/net/ethernet/cisco/",
    "drivers/net/ethernet/emulex/",
    "drivers/net/ethernet/huawei/",
    "drivers/net/ethernet/intel/",
    "drivers/net/ethernet/marvell/",
    "drivers/net/ethernet/mellanox/",
    "drivers/net/ethernet/pensando/",
    "drivers/net/ethernet/qlogic/qed/",
    "drivers/net/ethernet/qlogic/qede/",
    "drivers/net/ethernet/realtek/",
    "drivers/net/ethernet/sfc/",
    // What virtual and BMC devices need.
    "drivers/virtio/",
    "drivers/char/hw_random/virtio-rng.ko",
    "drivers/char/ipmi/ipmi_si.ko",
    "drivers/char/ipmi/ipmi_devintf.ko",
    "drivers/hv/",
    // File systems: the boot CD, the seed volume, what is on a disk; and checksums asked for by name.
    "fs/ext4/",
    "fs/fat/",
    "fs/isofs/",
    "fs/efivarfs/",
    "fs/nls/nls_ascii.ko",
    "fs/nls/nls_cp437.ko",
    "fs/nls/nls_iso8859-1.ko",
    "fs/nls/nls_utf8.ko",
    "crypto/crc32c_generic.ko",
    "arch/x86/crypto/crc32c-intel.ko",
    "arch/x86/crypto/crct10dif-pclmul.ko",
];

/// Modules that come with a wanted directory and drive what is not to be seen.
const UNWANTED: &[&str] = &["drivers/usb/host/xen-hcd.ko", "drivers/virtio/virtio_mem.ko"];

/// The wanted modules of `dep` (the text of modules.dep: `module: what it needs…`) with all that they
/// need, sorted.
pub(super) fn wanted(dep: &str) -> Vec<String> {
    let needs: BTreeMap<&str, Vec<&str>> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (module, needs.split_whitespace().collect()))
        .collect();
    let mut all = BTreeSet::new();
    for module in needs.keys() {
        let Some(below) = module.strip_prefix("kernel/") else { continue };
        let named = |w: &str| below == w || (w.ends_with('/') && below.starts_with(w));
        if WANTED.iter().any(|w| named(w)) && !UNWANTED.contains(&below) {
            all.insert(*module);
            // modules.dep names all of them, not only the nearest.
            all.extend(needs.get(module).into_iter().flatten());
        }
    }
    all.into_iter().map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_what_it_needs_and_no_storage_network_does() {
        let dep = "kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko kernel/lib/t10.ko\n\
                   kernel/drivers/nvme/host/nvme-core.ko: kernel/lib/t10.ko\n\
                   kernel/lib/t10.ko:\n\
                   kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme-core.ko\n\
                   kernel/drivers/scsi/qla2xxx/qla2xxx.ko:\n\
                   kernel/drivers/scsi/iscsi_tcp.ko:\n\
                   kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko:\n";
        assert_eq!(
            wanted(dep),
            [
                "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko",
                "kernel/drivers/nvme/host/nvme-core.ko",
                "kernel/drivers/nvme/host/nvme.ko",
                "kernel/lib/t10.ko",
            ]
        );
    }
}
