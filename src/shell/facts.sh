# Prints what the host is, one key=value a line. Changes nothing. Needs root for the UUID and the
# disks; what it can't tell it leaves out.
facts() {
    root=${FARRIER_ROOT:-}
    show uuid "$root/sys/class/dmi/id/product_uuid"
    show serial "$root/sys/class/dmi/id/product_serial"
    show boot_id "$root/proc/sys/kernel/random/boot_id"
    if [ -r "$root/etc/hostname" ]; then
        show hostname "$root/etc/hostname"
    else
        printf 'hostname=%s\n' "$(uname -n)"
    fi
    sed -n 's/^PRETTY_NAME=/os=/p' "$root/etc/os-release" 2>/dev/null | tr -d "\"'" | head -n 1
    printf 'kernel=%s\n' "$(uname -r)"
    root_mirror
    mark=$root/etc/farrier/image
    sed -n 's/^image=/image=/p; s/^run=/image_run=/p' "$mark" 2>/dev/null
    if [ -s "$root/etc/farrier/ramdisk" ]; then
        sed -n 's/^run=/ramdisk_run=/p' "$root/etc/farrier/ramdisk"
        disk_run
    fi
    if [ -s "$mark" ]; then
        printf 'holds_data=false\n'
    elif [ -n "$root" ]; then
        file_disks
    else
        block_disks
    fi
    gpus
    job_names
    # The last line: without it the answer was cut off.
    printf 'end=facts\n'
}

show() { # show KEY FILE: its first line
    if [ -r "$2" ]; then printf '%s=%s\n' "$1" "$(head -n 1 "$2" 2>/dev/null)"; fi
}

root_mirror() { # the md RAID1 under the root file system: disks, missing ones, percent of a copy under way
    [ -z "$root" ] && command -v lsblk >/dev/null 2>&1 || return 0
    below=$(awk '$2 == "/" && $1 ~ /^\/dev\// { device = $1 } END { print device }' /proc/self/mounts)
    [ -n "$below" ] || return 0
    for name in $(lsblk -nrs -o NAME,TYPE "$below" 2>/dev/null | awk '$2 == "raid1" { print $1 }'); do
        at=/sys/class/block/$name/md
        [ -r "$at/degraded" ] || continue
        copied=$(awk '$2 == "/" && $3 > 0 { print int($1 * 100 / $3) }' "$at/sync_completed" 2>/dev/null)
        printf 'root_mirror=%s %s %s\n' "$(cat "$at/raid_disks")" "$(cat "$at/degraded")" "$copied"
        return 0
    done
}

disk_run() { # whose deployment is on a disk: the run that its seed volume names
    seeds=/run/farrier/seed-volume
    mkdir -p "$seeds" 2>/dev/null || return 0
    for volume in $(blkid -t LABEL=CIDATA -o device 2>/dev/null); do
        mount -t vfat -o ro "$volume" "$seeds" 2>/dev/null || continue
        sed -n 's/^instance-id: *"\{0,1\}\([A-Za-z0-9._-]*\)"\{0,1\}$/disk_run=\1/p' \
            "$seeds/meta-data" 2>/dev/null | head -n 1
        umount "$seeds"
    done
}

blank() { # blank FILE BLOCKS: are its first BLOCKS × 4 KiB all zero? 2: can't be read
    dd if="$1" of=/dev/null bs=4096 count=1 2>/dev/null || return 2
    [ "$(dd if="$1" bs=4096 count="$2" 2>/dev/null | tr -d '\0' | head -c 1 | wc -c)" -eq 0 ]
}

file_disks() {
    held=
    for disk in "$root"/dev/disk/*; do
        [ -f "$disk" ] || continue
        blank "$disk" 1
        case $? in
            0) held=${held:-false} ;;
            1) held=true ;;
        esac
    done
    if [ -n "$held" ]; then printf 'holds_data=%s\n' "$held"; fi
}

block_disks() {
    command -v lsblk >/dev/null 2>&1 || return 0
    # No disk at all holds no data: they may all be behind a RAID controller that gives none out.
    held=false
    listed=$(lsblk -dnr -o NAME,TYPE,RM 2>/dev/null) || return 0
    for name in $(printf '%s\n' "$listed" | awk '$2 == "disk" && $3 == 0 { print $1 }'); do
        case $name in zram* | ram* | loop*) continue ;; esac
        # Partition tables and most file systems start in the first MiB; what is at the end of the
        # disk (md 1.0, ZFS) and what has children shows in blkid and lsblk.
        blank "/dev/$name" 256
        case $? in
            2) return 0 ;;
            1) held=true ;;
            0)
                if [ "$(lsblk -nr -o NAME "/dev/$name" 2>/dev/null | wc -l)" -gt 1 ]; then
                    held=true
                elif command -v blkid >/dev/null 2>&1 && blkid -p "/dev/$name" >/dev/null 2>&1; then
                    held=true
                fi
                ;;
        esac
    done
    printf 'holds_data=%s\n' "$held"
}

job_names() { # the youngest 40; `open`: of this boot and without a result
    ls -1t "$root/var/lib/farrier/jobs" 2>/dev/null | head -n 40 | while read -r name; do
        dir=$root/var/lib/farrier/jobs/$name
        [ -f "$dir/boot_id" ] || continue
        state=ended
        if [ ! -f "$dir/exit" ] &&
            [ "$(cat "$dir/boot_id")" = "$(cat "$root/proc/sys/kernel/random/boot_id")" ]; then
            state=open
        fi
        printf 'job=%s\t%s\n' "$name" "$state"
    done
}

gpus() {
    # The driver's own list answers at once; nvidia-smi wakes every GPU, and hangs on a lost one.
    listed=
    for about in "$root"/proc/driver/nvidia/gpus/*/information; do
        if [ -r "$about" ]; then
            listed=1
            awk '
                { value = $0; sub(/^[^:]*:[ \t]*/, "", value); sub(/[ \t]+$/, "", value) }
                /^Model:/ { model = value }
                /^GPU UUID:/ && value !~ /[?]/ { id = value }
                /^Bus Location:/ { bus = value }
                END { printf "gpu=%s\t%s\t\n", (id == "" ? bus : id), model }' "$about"
        fi
    done
    if [ -z "$listed" ] && command -v nvidia-smi >/dev/null 2>&1; then smi_gpus; fi
}

smi_gpus() {
    limit=
    if command -v timeout >/dev/null 2>&1; then limit='timeout 15'; fi
    # One element a record, however the XML is laid out; no document type is ever fetched.
    $limit nvidia-smi -q -x 2>/dev/null | awk '
        BEGIN { RS = "<" }
        function flush() { if (id != "") printf "gpu=%s\t%s\t%s\n", id, model, serial }
        { at = index($0, ">"); if (!at) next
          tag = substr($0, 1, at - 1); text = substr($0, at + 1); gsub(/[\t\r\n]/, " ", text)
          sub(/ +$/, "", text) }
        tag ~ /^gpu id=/ { id = tag; sub(/^gpu id="/, "", id); sub(/".*$/, "", id); model = serial = "" }
        tag == "product_name" && model == "" { model = text }
        tag == "serial" && serial == "" { serial = text }
        tag == "uuid" && id ~ /:/ { id = text }
        tag == "/gpu" { flush(); id = "" }'
}
