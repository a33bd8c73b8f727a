#!/bin/sh
# Stands in for partman, base-installer and grub-installer, which are udebs of Debian's archive, where a
# test has no archive with udebs. debian-installer fetches and runs it as one of its own components.
# It asks of Farrier's seed what they ask: the early command's answers, leave to write, the late command.
set -e
. /usr/share/debconf/confmodule

say() { echo "stand-in: $1" >/dev/console; }
answer() { db_get "$1" && printf '%s' "$RET"; }

depmod -a 2>/dev/null || true
for module in virtio_blk ext4; do modprobe "$module"; done
udevadm trigger --subsystem-match=block && udevadm settle

say "early command"
preseed_command partman/early_command
disk=$(answer partman-auto/disk) || disk=
if [ ! -b "$disk" ] || [ "$(answer partman/confirm)" != true ] || [ "$(answer grub-installer/bootdev)" != "$disk" ]; then
    say "no disk, or no leave to write to it"
    exit 1
fi
say "the kernel is $(answer base-installer/kernel/image), the disk is $disk"
db_get mirror/http/hostname
mirror=http://$RET
wget -q -O - "$mirror/system.gz" | zcat >"$disk"
sync
blockdev --rereadpt "$disk" || true
udevadm settle
mkdir -p /target
mount -t ext4 "${disk}3" /target
touch /target/etc/cloud/cloud-init.disabled
printf 'auto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\n' >/target/etc/network/interfaces
chroot /target /usr/bin/ssh-keygen -A
say "late command"
preseed_command preseed/late_command
umount /target
sync
say "done"
[ "$(answer debian-installer/exit/poweroff)" = true ] && poweroff -f
exit 1
