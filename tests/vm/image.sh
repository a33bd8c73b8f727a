#!/bin/sh
# Builds the disk image that the virtual machines get: Debian with cloud-init, bootable by BIOS and by
# UEFI, without a loop device, a mount or a chroot of our own. Its initramfs assembles the mirror that
# it may lie on (mdadm).
#
#   image.sh OUT.raw.zst
set -eu

out=$1
work=$(mktemp -d "$(dirname "$out")/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree

# Debian's archive as this machine's apt knows it.
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep '/debian/*$' | head -n 1)
mirror=${mirror:-$(sed -n 's/^deb \(\[.*\] \)*\([^ ]*\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1)}
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

mmdebstrap --quiet --mode=root --variant=minbase \
    --include=systemd-sysv,udev,dbus,linux-image-cloud-amd64,openssh-server,iproute2,isc-dhcp-client,ifupdown,cloud-init,cloud-guest-utils,locales,mdadm \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname' \
    --customize-hook=': >"$1"/etc/machine-id' \
    --customize-hook='echo "datasource_list: [ NoCloud, None ]" >"$1"/etc/cloud/cloud.cfg.d/90-farrier-test.cfg' \
    "$suite" "$tree" "$mirror"

kernel=$(basename "$tree"/boot/vmlinuz-*)
echo 'LABEL=farrier-root / ext4 errors=remount-ro 0 1' >"$tree/etc/fstab"
mkdir -p "$tree/boot/grub"
cat >"$tree/boot/grub/grub.cfg" <<EOF
serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
search --no-floppy --label farrier-root --set=root
linux /boot/$kernel root=LABEL=farrier-root ro console=tty0 console=ttyS0,115200 net.ifnames=0 quiet
initrd /boot/initrd.img-${kernel#vmlinuz-}
boot
EOF

# GRUB for both kinds of firmware, each finding the root file system by its label.
cat >"$work/early.cfg" <<'EOF'
search --no-floppy --label farrier-root --set=root
configfile ($root)/boot/grub/grub.cfg
EOF
modules='part_gpt ext2 fat normal linux configfile search search_label echo serial terminal boot'
for platform in x86_64-efi i386-pc; do
    more=
    if [ "$platform" = i386-pc ]; then more=biosdisk; fi
    # shellcheck disable=SC2086 # lists of modules
    grub-mkimage -O "$platform" -p /boot/grub -c "$work/early.cfg" -o "$work/$platform.img" $modules $more
done

# BIOS boot partition at 1 MiB, ESP of 32 MiB, root behind it.
size=$(($(du -sm --apparent-size "$tree" | cut -f 1) * 13 / 10 + 96))
disk=$work/disk.raw
truncate -s "$((34 + size + 2))M" "$disk"
sgdisk -a 2048 -n 1:2048:4095 -t 1:ef02 -n 2:4096:+32M -t 2:ef00 -n "3:0:+${size}M" -t 3:8300 "$disk" >/dev/null
esp=$((4096 * 512))
root=$(sgdisk -i 3 "$disk" | awk '/^First sector/ { print $3 * 512 }')
mkfs.vfat -F 16 -n ESP --offset 4096 "$disk" 32768 >/dev/null
mmd -i "$disk@@$esp" ::EFI ::EFI/BOOT
mcopy -i "$disk@@$esp" "$work/x86_64-efi.img" ::EFI/BOOT/BOOTX64.EFI
mkfs.ext4 -q -F -L farrier-root -m 1 -E "offset=$root,lazy_itable_init=1,nodiscard" -d "$tree" "$disk" "${size}M"

# What grub-install would do: boot.img in the MBR points at core.img, core.img at its own second sector.
boot=/usr/lib/grub/i386-pc/boot.img
poke() { # poke FILE OFFSET OCTAL…
    file=$1 at=$2
    shift 2
    # shellcheck disable=SC2059 # the bytes are the format
    printf "$(printf '\\%s' "$@")" | dd of="$file" bs=1 seek="$at" conv=notrunc 2>/dev/null
}
cp "$boot" "$work/boot.img"
poke "$work/boot.img" 92 000 010 000 000 000 000 000 000       # 0x5c: sector 2048
poke "$work/boot.img" 102 220 220                              # 0x66: take the drive that the BIOS says
poke "$work/i386-pc.img" 500 001 010 000 000 000 000 000 000   # 0x1f4: sector 2049
dd if="$work/boot.img" of="$disk" bs=440 count=1 conv=notrunc 2>/dev/null
dd if="$work/i386-pc.img" of="$disk" bs=512 seek=2048 conv=notrunc 2>/dev/null

zstd -q -3 -T0 -f "$disk" -o "$work/disk.raw.zst"
mv "$work/disk.raw.zst" "$out"
