# DESTROYS DATA. Overwrites every local disk of this host with zeros, reads all of it back, and
# says so as {"verified","drives","skipped","error"?,"refused"?} in $FARRIER_RESULT.
#
#   wipe.sh UUID SERIAL     the machine that is meant, as its BMC says it; `-` for unknown
#   wipe.sh --list          what would be wiped and what not, and why; changes nothing
#
# identity.sh stands before this text: the process that writes is the one that has just compared
# DMI. It refuses another machine, and one of which nobody can tell. Before the first byte is
# written, all disks are looked at; one doubt about any of them and none is touched.
#
# With FARRIER_ROOT set (tests, virtual hosts) the disks are the plain files below
# $FARRIER_ROOT/dev/disk and nothing else.

LC_ALL=C
export LC_ALL
root=${FARRIER_ROOT:-}
tab=$(printf '\t')

quote() { # a JSON string of ASCII
    printf '"%s"' "$(printf %s "$1" | tr '\t\r\n' '   ' | tr -cd '\040-\176' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

finish() { # finish EXIT JSON
    printf '%s\n' "$2"
    if [ -n "${FARRIER_RESULT:-}" ]; then printf '%s\n' "$2" >"$FARRIER_RESULT"; fi
    exit "$1"
}

refuse() {
    finish 3 "{\"verified\":false,\"drives\":[],\"refused\":$(quote "$1")}"
}

stop() { # something is in the way; nothing was written
    finish 4 "{\"verified\":false,\"drives\":[],\"error\":$(quote "$1, nothing was written")}"
}

# Prints `wipe NAME PATH` | `skip NAME WHY` | `doubt NAME WHY`, tab-separated, for each disk.
disks() {
    if [ -n "$root" ]; then
        for disk in "$root"/dev/disk/*; do
            if [ -f "$disk" ] && [ ! -L "$disk" ]; then
                printf 'wipe\t%s\t%s\n' "${disk##*/}" "$disk"
            fi
        done
        return 0
    fi
    # -P: KEY="value" pairs. An empty column must not shift the others.
    lsblk -dnP -o NAME,TYPE,RM,RO,TRAN 2>/dev/null | while read -r line; do
        name=$(column NAME "$line")
        tran=$(column TRAN "$line")
        case $(column TYPE "$line")/$name in
            disk/zram* | disk/ram* | disk/nbd* | disk/rbd* | disk/drbd* | disk/pmem*)
                printf 'skip\t%s\tno disk of its own\n' "$name"
                continue
                ;;
            disk/*) ;;
            *)
                printf 'skip\t%s\tnot a disk (%s)\n' "$name" "$(column TYPE "$line")"
                continue
                ;;
        esac
        case $tran in
            iscsi | fc | fcoe | usb | ata-over-ethernet)
                printf 'skip\t%s\tnot local (%s)\n' "$name" "$tran"
                continue
                ;;
        esac
        if [ "$(column RM "$line")" != 0 ]; then
            printf 'skip\t%s\tremovable\n' "$name"
        elif [ "$(column RO "$line")" != 0 ]; then
            printf 'doubt\t%s\tread-only\n' "$name"
        else
            case $tran in
                sata | sas) printf 'wipe\t%s\t/dev/%s\n' "$name" "$name" ;;
                nvme) nvme "$name" ;;
                # A RAID controller's disk, or storage that belongs to somebody else.
                *) printf 'doubt\t%s\ttransport %s: cannot tell whether it is local\n' "$name" "${tran:-unknown}" ;;
            esac
        fi
    done
}

column() { # column NAME LINE
    printf '%s' " $2" | sed -n "s/.* $1=\"\([^\"]*\)\".*/\1/p"
}

# lsblk calls NVMe over fabrics `nvme` as well; each path's own transport tells.
nvme() {
    paths=
    for file in "/sys/block/$1/device/transport" "/sys/block/$1/device"/nvme*/transport; do
        if [ -r "$file" ]; then paths="$paths $(cat "$file")"; fi
    done
    case $paths in
        '') printf 'doubt\t%s\tNVMe transport unknown\n' "$1" ;;
        *tcp* | *rdma* | *fc* | *loop*) printf 'skip\t%s\tnot local (NVMe over%s)\n' "$1" "$paths" ;;
        *pcie*) printf 'wipe\t%s\t/dev/%s\n' "$1" "$1" ;;
        *) printf 'doubt\t%s\tNVMe transport%s\n' "$1" "$paths" ;;
    esac
}

# What the kernel may still write to comes back after the overwrite: mounts, swap, md, LVM, crypt.
in_use() {
    if [ -n "$root" ]; then return 1; fi
    use=$(lsblk -nr -o MOUNTPOINT "$2" 2>/dev/null | tr -s ' \n' ' ' | sed 's/^ //; s/ $//')
    for holder in "/sys/block/$1/holders"/* "/sys/block/$1/$1"*/holders/*; do
        if [ -e "$holder" ]; then use="$use ${holder##*/}"; fi
    done
    [ -n "$use" ]
}

bytes_of() {
    if [ -f "$1" ]; then
        wc -c <"$1" | tr -d ' '
    else
        blockdev --getsize64 "$1" 2>/dev/null
    fi
}

# fill PATH BYTES: zeros from the first to the last byte, on the medium when it returns. Whole
# mebibytes, then the rest; never a byte beyond the end, never a truncation.
fill() {
    mebi=$(($2 / 1048576))
    if [ "$mebi" -gt 0 ]; then
        dd if=/dev/zero of="$1" bs=1048576 count="$mebi" conv=notrunc,fsync 2>/dev/null || return 1
    fi
    sectors=$((($2 - mebi * 1048576) / 512))
    if [ "$sectors" -gt 0 ]; then
        dd if=/dev/zero of="$1" bs=512 seek=$((mebi * 2048)) count="$sectors" conv=notrunc,fsync 2>/dev/null || return 1
    fi
    rest=$(($2 % 512))
    if [ "$rest" -gt 0 ]; then
        dd if=/dev/zero of="$1" bs=1 seek=$(($2 - rest)) count="$rest" conv=notrunc,fsync 2>/dev/null || return 1
    fi
}

fresh() { # the next read comes from the disk, not from memory
    if [ -b "$1" ]; then blockdev --flushbufs "$1" 2>/dev/null; fi
}

# The marker proves that what is read is what was written: a disk that drops writes or a stale
# cache would pass for zero.
mark() { # mark PATH SECTOR
    printf '%s' "$marker" | dd of="$1" bs=512 seek="$2" conv=notrunc,fsync 2>/dev/null
}

marked() {
    [ "$(dd if="$1" bs=512 skip="$2" count=1 2>/dev/null | tr -d '\0' | head -c ${#marker})" = "$marker" ]
}

zero() { # zero PATH BYTES: as many zero bytes are read as there are bytes
    [ "$(tr -cd '\0' <"$1" 2>/dev/null | wc -c | tr -d ' ')" = "$2" ]
}

overwrite() { # overwrite PATH BYTES: leaves why it failed in $why
    last=$((($2 / 512) - 1))
    middle=$((last / 2))
    for sector in 0 "$middle" "$last"; do
        mark "$1" "$sector" || { why='cannot be written' && return 1; }
    done
    fresh "$1"
    for sector in 0 "$middle" "$last"; do
        marked "$1" "$sector" || { why="a marker at sector $sector was not read back" && return 1; }
    done
    fill "$1" "$2" || { why='the overwrite ended with an error' && return 1; }
    fresh "$1"
    for sector in 0 "$middle" "$last"; do
        if marked "$1" "$sector"; then why="the marker at sector $sector is still there" && return 1; fi
    done
    zero "$1" "$2" || { why='not all of it reads as zero' && return 1; }
}

wipe_one() { # wipe_one NAME PATH BYTES: one JSON object
    why=
    if overwrite "$2" "$3"; then ok=true; else ok=false; fi
    serial=
    if [ -b "$2" ]; then serial=$(lsblk -dn -o SERIAL "$2" 2>/dev/null); fi
    printf '{"name":%s,"serial":%s,"bytes":%s,"method":"overwrite with zeros, read back","verified":%s' \
        "$(quote "$1")" "$(quote "$serial")" "$3" "$ok"
    if [ -n "$why" ]; then printf ',"error":%s' "$(quote "$why")"; fi
    printf '}'
}

main() {
    if [ "${1:-}" = --list ]; then
        disks
        exit 0
    fi
    [ $# -eq 2 ] || stop "two arguments are needed, $# were given"
    # FIRST: is this the machine? Anything but a clear yes ends here.
    identity_check "$1" "$2"
    case $? in
        0) ;;
        1) refuse "another machine: $saw" ;;
        *) refuse "nobody can tell which machine this is: $saw" ;;
    esac
    echo "this is the machine: $saw"

    list=$(disks)
    skipped=
    drives=
    count=0
    # All are looked at before any is written.
    IFS='
'
    set -f
    for line in $list; do
        what=${line%%"$tab"*}
        name=${line#*"$tab"}
        path=${name#*"$tab"}
        name=${name%%"$tab"*}
        case $what in
            skip) skipped="$skipped${skipped:+,}{\"name\":$(quote "$name"),\"why\":$(quote "$path")}" ;;
            doubt) stop "$name: $path" ;;
            wipe)
                if in_use "$name" "$path"; then stop "$name is in use ($use): boot a ramdisk to wipe it"; fi
                bytes=$(bytes_of "$path")
                case $bytes in
                    '' | *[!0-9]*) stop "$name: its size cannot be read" ;;
                esac
                if [ "$bytes" -lt 4096 ]; then stop "$name: $bytes bytes is no disk"; fi
                if [ ! -w "$path" ]; then stop "$name: no permission to write to $path"; fi
                count=$((count + 1))
                ;;
            *) stop "unreadable line about a disk: $line" ;;
        esac
    done
    [ "$count" -gt 0 ] || stop 'no local disk was found'

    marker="farrier-wipe-$$-$(date +%s)"
    work=${FARRIER_RESULT:-$PWD/wipe}.work
    rm -rf "${work:?}"
    mkdir "$work" || stop "cannot make $work"
    for line in $list; do
        case $line in "wipe$tab"*) ;; *) continue ;; esac
        name=${line#*"$tab"}
        path=${name#*"$tab"}
        name=${name%%"$tab"*}
        bytes=$(bytes_of "$path")
        echo "overwriting $path, $bytes bytes"
        # Side by side: each disk has its own speed.
        wipe_one "$name" "$path" "$bytes" >"$work/$name" &
    done
    wait
    unset IFS
    set +f
    verified=true
    for file in "$work"/*; do
        object=$(cat "$file")
        case $object in
            *'"verified":true}') ;;
            *) verified=false ;;
        esac
        drives="$drives${drives:+,}$object"
    done
    rm -rf "${work:?}"
    if [ "$verified" = true ]; then code=0; else code=5; fi
    finish "$code" "{\"verified\":$verified,\"drives\":[$drives],\"skipped\":[$skipped]}"
}

main "$@"
