# The disks of this host and how each hangs on it, by sysfs and lsblk. Stands before the scripts that
# write to disks; looks only, prints lines of fields that are separated by `|`:
#
#   NAME|PATH|HOW|BYTES|SECTOR|SERIAL|MODEL|ROTATES
#
# HOW: nvme, sata, sas, virtio: local. raid: a volume that a RAID controller made. Everything else is
# not local or can't be told: usb, removable, fc, iscsi, nvme-fabrics, shared (seen on two paths),
# multipath, virtual, unknown.

disk_column() { # disk_column NAME LINE: a value of lsblk -P
    case " $2" in *" $1=\""*) ;; *) return 0 ;; esac
    value=" $2"
    value=${value##*" $1=\""}
    value=${value%%\"*}
    # No more programs are started than must be: there are many columns.
    while :; do
        case $value in
            ' '*) value=${value# } ;;
            *' ') value=${value% } ;;
            *'|'*) value="${value%%'|'*} ${value#*'|'}" ;;
            *) break ;;
        esac
    done
    printf '%s' "$value"
}

# What the path through sysfs says; the kernel names each layer that a disk hangs from.
disk_how() { # disk_how NAME TRAN REMOVABLE
    case $1 in
        zram* | ram* | nbd* | rbd* | drbd* | pmem* | fd*) echo virtual && return ;;
    esac
    where=$(readlink -f "/sys/block/$1/device" 2>/dev/null)
    case $1 in
        nvme*)
            # lsblk calls NVMe over fabrics `nvme` as well; each path's own transport tells.
            ways=
            for file in "/sys/block/$1/device/transport" "/sys/block/$1/device"/nvme*/transport; do
                if [ -r "$file" ]; then ways="$ways $(cat "$file")"; fi
            done
            case $ways in
                *tcp* | *rdma* | *fc* | *loop*) echo nvme-fabrics ;;
                *pcie*) echo nvme ;;
                *) echo unknown ;;
            esac
            return
            ;;
        vd*)
            case $(readlink -f "/sys/block/$1/device/driver" 2>/dev/null) in
                */virtio_blk) echo virtio ;;
                *) echo unknown ;;
            esac
            return
            ;;
    esac
    case $2 in
        usb | iscsi | fc | fcoe) echo "$2" && return ;;
        ata-over-ethernet) echo virtual && return ;;
    esac
    case $where in
        */usb[0-9]*) echo usb ;;
        */rport-*) echo fc ;;
        */session[0-9]*) echo iscsi ;;
        *) if [ "$3" != 0 ]; then echo removable; else disk_bus "$2" "$where"; fi ;;
    esac
}

disk_bus() { # disk_bus TRAN SYSFS
    case $1 in
        sata | ata) echo sata && return ;;
        sas) echo sas && return ;;
    esac
    case $2 in
        */virtio[0-9]*) echo virtio ;;
        */ata[0-9]*) echo sata ;;
        */end_device-*) echo sas ;;
        */pci*/host[0-9]*)
            # Disks that the controller passes through are shown with their transport; these are not.
            case $(disk_driver "$2") in
                megaraid_sas | mpt3sas | mpi3mr | smartpqi | hpsa | aacraid | arcmsr) echo raid ;;
                *) echo unknown ;;
            esac
            ;;
        *) echo unknown ;;
    esac
}

disk_driver() { # disk_driver SYSFS: the driver of the PCI device that it hangs from
    at=$1
    while [ "${at#/sys/devices/}" != "$at" ]; do
        case $(readlink "$at/subsystem" 2>/dev/null) in
            */pci)
                driver=$(readlink "$at/driver" 2>/dev/null)
                printf '%s\n' "${driver##*/}"
                return
                ;;
        esac
        at=${at%/*}
    done
}

disk_table() { # disk_table SCRATCH
    # Some versions write the dash of a column's name as an underscore.
    lsblk -bdnP -o NAME,TYPE,RM,TRAN,SIZE,LOG-SEC,SERIAL,MODEL,ROTA,WWN 2>/dev/null |
        sed 's/LOG_SEC=/LOG-SEC=/' >"$1"
    [ -s "$1" ] || return 1
    # shellcheck disable=SC2094 # it is only read
    while read -r line; do
        [ "$(disk_column TYPE "$line")" = disk ] || continue
        name=$(disk_column NAME "$line")
        how=$(disk_how "$name" "$(disk_column TRAN "$line")" "$(disk_column RM "$line")")
        wwn=$(disk_column WWN "$line")
        case $name in
            # One name for the world on two disks: two paths to the same one.
            sd*) if [ -n "$wwn" ] && [ "$(grep -c "TYPE=\"disk\".* WWN=\"$wwn\"" "$1")" -gt 1 ]; then how=shared; fi ;;
        esac
        for holder in "/sys/block/$name/holders"/*; do
            case $(cat "$holder/dm/uuid" 2>/dev/null) in mpath-*) how=multipath ;; esac
        done
        printf '%s|/dev/%s|%s|%s|%s|%s|%s|%s\n' "$name" "$name" "$how" \
            "$(disk_column SIZE "$line")" "$(disk_column LOG-SEC "$line")" \
            "$(disk_column SERIAL "$line")" "$(disk_column MODEL "$line")" "$(disk_column ROTA "$line")"
    done <"$1"
}

# What the kernel may still write to comes back after an overwrite: mounts, swap, md, LVM, crypt.
disk_in_use() { # disk_in_use NAME PATH: leaves by what in $use
    use=$(lsblk -nr -o MOUNTPOINT "$2" 2>/dev/null | tr -s ' \n' ' ' | sed 's/^ //; s/ $//')
    for holder in "/sys/block/$1/holders"/* "/sys/block/$1/$1"*/holders/*; do
        if [ -e "$holder" ]; then use="$use ${holder##*/}"; fi
    done
    [ -n "$use" ]
}

# In the deploy ramdisk nothing assembles an array, or stands a device in front of a disk, but a job of
# ours, and one that was cut off leaves its own running. It is stopped, so that what it lies on are disks
# again; one that is in use refuses that.
disk_apart() { # disk_apart NAME
    [ -s /etc/farrier/ramdisk ] || return 0
    for holder in "/sys/block/$1/holders"/dm-* "/sys/block/$1/holders"/md*/holders/dm-*; do
        [ "$(cat "$holder/dm/name" 2>/dev/null)" = farrier-image ] || continue
        DM_DISABLE_UDEV=1 dmsetup remove --noudevsync --retry farrier-image >/dev/null 2>&1
    done
    for holder in "/sys/block/$1/holders"/md* "/sys/block/$1/$1"*/holders/md*; do
        if [ -e "$holder" ]; then mdadm --stop "/dev/${holder##*/}" >/dev/null 2>&1; fi
    done
}
