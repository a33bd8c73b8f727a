# DESTROYS DATA, by what it lets debian-installer do. Runs inside that installer, in two places of its
# order that preseed.cfg names:
#
#   disk      before anything is partitioned: is this the machine that is meant, and which one disk fits
#             the rule? Only then is the installer told that disk, and that it may write.
#   finish    the system is installed: our mark, our keys, and one callback with its SSH host key.
#
# identity.sh and this window's variables stand before this text. There is busybox and not much else:
# its wget can't POST, so nc does.
#
# With FARRIER_ROOT set (tests) disks are the plain files below $FARRIER_ROOT/dev/disk.

# shellcheck disable=SC2154 # the window's variables
# shellcheck disable=SC2015 # A && B || C: B fails as A does, with the same end

root=${FARRIER_ROOT:-}
work=$root/tmp/farrier
MIB=1048576
# Between the partition table's end and the first partition, where no partitioner writes.
MARK_AT=524288

quote() { # a JSON string of ASCII
    printf '"%s"' "$(printf %s "$1" | tr '\t\r\n' '   ' | tr -cd '\040-\176' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

# ---- the callback -----------------------------------------------------------------------------------

call_back() { # call_back JSON: until it is heard, or the window says no
    mkdir -p "$work" && chmod 700 "$work" || return 1
    authority=${callback#http://}
    path=/${authority#*/}
    authority=${authority%%/*}
    address=${authority%:*}
    port=${authority##*:}
    if [ "$address" = "$authority" ]; then port=80; fi
    address=${address#[}
    address=${address%]}
    # A file: arguments are seen by every process.
    {
        printf 'POST %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/json\r\n' "$path" "$authority"
        printf 'Content-Length: %s\r\nConnection: close\r\n\r\n%s' "${#1}" "$1"
    } >"$work/request"
    # nc ends with its standard input; what it runs instead ends with the answer.
    printf '#!/bin/sh\ncat %s/request\nread -r version code rest && echo "$code" >%s/code\n' \
        "$work" "$work" >"$work/speak"
    chmod 700 "$work/speak"
    try=0
    while [ "$try" -lt 60 ]; do
        rm -f "$work/code"
        nc -w 20 "$address" "$port" -e "$work/speak" 2>/dev/null
        case $(cat "$work/code" 2>/dev/null) in
            200) rm -rf "$work" && return 0 ;;
            408 | 429) ;;
            4*) break ;;
        esac
        try=$((try + 1))
        sleep 10
    done
    rm -rf "$work"
    return 1
}

refuse() { # refuse CODE WHY: told, shown, and nothing is installed
    call_back "{\"token\":\"$token\",\"ok\":false,\"code\":$(quote "$1"),\"message\":$(quote "$2")}"
    echo "Farrier: nothing is installed: $2" >"${root:-/dev/console}${root:+/console}"
    [ -z "$root" ] || exit 4
    # The installer would go on and ask: here it stands until somebody powers it off.
    while :; do sleep 3600; done
}

# ---- which disk -------------------------------------------------------------------------------------

property() { # property NAME: of the disk that is looked at
    printf '%s\n' "$properties" | sed -n "s/^$1=//p" | head -n 1
}

look() { # look PATH: leaves name, how, bytes, rotates, serial, model, links
    name=${1##*/}
    if [ -n "$root" ]; then
        how=virtio rotates=0 serial="S-$name" model="test disk" links=
        bytes=$(wc -c <"$1" | tr -d ' ')
        return
    fi
    sys=/sys/block/$name
    properties=$(udevadm info --query=property --name="$1" 2>/dev/null)
    bytes=$(($(cat "$sys/size") * 512))
    rotates=$(cat "$sys/queue/rotational" 2>/dev/null)
    serial=$(property ID_SCSI_SERIAL)
    [ -n "$serial" ] || serial=$(property ID_SERIAL_SHORT)
    [ -n "$serial" ] || serial=$(cat "$sys/serial" "$sys/device/serial" 2>/dev/null | head -n 1)
    [ -n "$serial" ] || serial=$(property ID_SERIAL)
    serial=$(printf %s "$serial" | sed 's/^ *//; s/ *$//')
    model=$(cat "$sys/device/model" 2>/dev/null | sed 's/^ *//; s/ *$//')
    links=$(property DEVLINKS)
    how=unknown
    where=$(readlink -f "$sys/device")
    case $name in
        nvme*) case $(cat "$sys/device/transport" "$sys"/device/nvme*/transport 2>/dev/null) in
            *tcp* | *rdma* | *fc* | *loop*) ;;
            *pcie*) how=nvme ;;
        esac ;;
        vd*) how=virtio ;;
        sd*) if [ "$(cat "$sys/removable")" = 0 ]; then
            case $where in
                */usb[0-9]* | */rport-* | */session[0-9]*) ;;
                */virtio[0-9]*) how=virtio ;;
                */ata[0-9]* | */end_device-*) how=ssd && [ "$rotates" != 1 ] || how=hdd ;;
            esac
        fi ;;
    esac
}

fits() { # what is looked at, against the rule; leaves in $why what does not fit
    why=
    if [ "$how" = unknown ]; then why="not local, or nobody can tell" && return 1; fi
    if [ -n "$rule_kind" ] && [ "$rule_kind" != "$how" ]; then why="is $how, not $rule_kind"; fi
    if [ -n "$rule_serial" ] && [ "$rule_serial" != "$serial" ]; then why="another serial"; fi
    if [ -n "$rule_min" ] && [ "$bytes" -lt "$rule_min" ]; then why="smaller than $rule_min bytes"; fi
    if [ -n "$rule_max" ] && [ "$bytes" -gt "$rule_max" ]; then why="larger than $rule_max bytes"; fi
    if [ -n "$rule_by_id" ]; then
        case " $links " in *" /dev/disk/by-id/$rule_by_id "*) ;; *) why="is not $rule_by_id" ;; esac
    fi
    case $rule_model in
        '') ;;
        *'*') case $model in "${rule_model%\*}"*) ;; *) why="model is $model" ;; esac ;;
        *) [ "$model" = "$rule_model" ] || why="model is $model" ;;
    esac
    [ -z "$why" ]
}

disks() {
    if [ -n "$root" ]; then ls -d "$root"/dev/disk/*; else list-devices disk; fi
}

choose() { # leaves the path of the one disk that fits
    count=0
    seen=
    for path in $(disks); do
        look "$path"
        if fits; then
            count=$((count + 1))
            chosen=$path
            why=fits
        fi
        seen="$seen${seen:+; }$name ($how, serial ${serial:-unknown}, $bytes bytes): $why"
    done
    echo "disks: $seen"
    case $count in
        1) ;;
        0) refuse no-root-disk "no local disk fits the rule: ${seen:-there is none}" ;;
        *) refuse several-root-disks "$count disks fit the rule, and it is never guessed: $seen" ;;
    esac
    path=$chosen
    look "$path"
}

# ---- what is on it ----------------------------------------------------------------------------------

zeros() { # zeros OFFSET: does the MiB there read as zero?
    [ "$(dd if="$path" bs="$MIB" skip="$(($1 / MIB))" count=1 2>/dev/null | tr -d '\0' | head -c 1 | wc -c)" -eq 0 ]
}

examine() {
    if [ "$allow" = yes ]; then return 0; fi
    # An installation of ours that did not come to its end left this.
    if dd if="$path" bs=512 skip="$((MARK_AT / 512))" count=1 2>/dev/null | grep -q '^farrier run='; then
        echo "$name was given to an installer of ours before"
        return 0
    fi
    for part in "$root/sys/block/$name/$name"*; do
        [ ! -e "$part" ] || refuse holds-data "$name has partitions that no run of Farrier's made, and the order does not allow to overwrite them"
    done
    zeros 0 && zeros "$((bytes - MIB))" ||
        refuse holds-data "$name holds data that no run of Farrier's wrote, and the order does not allow to overwrite it"
}

take() { # from here on the disk is ours, and the installer may write to it
    printf 'farrier run=%s\n' "$run" |
        dd of="$path" bs=512 seek="$((MARK_AT / 512))" conv=notrunc,sync,fsync 2>/dev/null ||
        refuse write-failed "$name can't be written to"
    cat >"$root/tmp/farrier.answers" <<EOF
d-i partman-auto/disk string $path
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-lvm/device_remove_lvm boolean true
d-i partman-md/device_remove_md boolean true
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i grub-installer/bootdev string $path
EOF
    [ -n "$root" ] || debconf-set-selections "$root/tmp/farrier.answers"
}

# ---- the installed system ---------------------------------------------------------------------------

finish() {
    target=$root/target
    umask 022
    mkdir -p "$target/etc/farrier"
    printf 'image=%s\nrun=%s\n' "$image" "$run" >"$target/etc/farrier/image"
    mkdir -p "$target/root/.ssh"
    chmod 700 "$target/root/.ssh"
    printf '%s\n' "$authorized_keys" >"$target/root/.ssh/authorized_keys"
    chmod 600 "$target/root/.ssh/authorized_keys"
    host_key=$(cut -d ' ' -f 1,2 "$target/etc/ssh/ssh_host_ed25519_key.pub")
    [ -n "$host_key" ] || refuse no-host-key "the installed system has no SSH host key"
    sync
    call_back "{\"token\":\"$token\",\"ok\":true,\"host_key\":$(quote "$host_key"),\"message\":null}"
}

case $1 in
    disk)
        identity_check "$expect_uuid" "$expect_serial" || refuse wrong-machine "$saw"
        choose
        examine
        take
        ;;
    finish) finish ;;
esac
