# DESTROYS DATA. Sanitizes every local disk of this host by the best that each supports, proves that
# what was on it is gone, and says so in $FARRIER_RESULT:
#   {"verified","drives":[{"name","serial","bytes","method","class","claims","started","ended",
#     "verified","tried"?,"error"?}],"skipped":[{"name","why"}],"not_sanitized":[{"drive","why",
#     "advice"}],"tpm","boot_entries","error"?,"refused"?}
#
#   wipe.sh UUID SERIAL [DRIVES]   the machine that is meant, as its BMC says it; `-` for unknown.
#                                  DRIVES: serials that must be here, separated by commas
#   wipe.sh --list                 what would be wiped and what not, and why; changes nothing
#
# identity.sh and disks.sh stand before this text: the process that writes is the one that has just
# compared DMI. It refuses another machine, and one of which nobody can tell. Before the first byte is
# written, all disks are looked at; one doubt about any of them and none is touched.
#
# `class` is what IEEE 2883-2022 grants, to which NIST SP 800-88r2 defers; `claims` names the editions.
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

# ---- which disks ------------------------------------------------------------------------------------

# Prints `wipe NAME PATH HOW` | `skip NAME WHY` | `raid NAME WHY` | `doubt NAME WHY`, tab-separated, for
# each disk.
disks() {
    if [ -n "$root" ]; then
        for disk in "$root"/dev/disk/*; do
            if [ -f "$disk" ] && [ ! -L "$disk" ]; then
                printf 'wipe\t%s\t%s\tfile\n' "${disk##*/}" "$disk"
            fi
        done
        return 0
    fi
    # -P: KEY="value" pairs. An empty column must not shift the others.
    listed=$(lsblk -dnP -o NAME,TYPE,RM,RO,TRAN,WWN 2>/dev/null)
    printf '%s\n' "$listed" | while read -r line; do
        name=$(disk_column NAME "$line")
        type=$(disk_column TYPE "$line")
        wwn=$(disk_column WWN "$line")
        if [ -z "$name" ]; then continue; fi
        if [ "$type" != disk ]; then
            printf 'skip\t%s\tnot a disk (%s)\n' "$name" "$type"
            continue
        fi
        how=$(disk_how "$name" "$(disk_column TRAN "$line")" "$(disk_column RM "$line")")
        case $name in
            sd*)
                # One name for the world on two disks: two paths to a disk that others may see too.
                if [ -n "$wwn" ] && [ "$(printf '%s\n' "$listed" | grep -c "WWN=\"$wwn\"")" -gt 1 ]; then how=shared; fi
                ;;
        esac
        case $how in
            nvme | sata | sas | virtio)
                if [ "$(disk_column RO "$line")" != 0 ]; then
                    printf 'doubt\t%s\tread-only\n' "$name"
                else
                    printf 'wipe\t%s\t/dev/%s\t%s\n' "$name" "$name" "$how"
                fi
                ;;
            raid) printf 'raid\t%s\ta volume of a RAID controller: the drives behind it can not be reached\n' "$name" ;;
            unknown) printf 'doubt\t%s\tcannot tell whether it is local (transport %s)\n' "$name" "$(disk_column TRAN "$line")" ;;
            *) printf 'skip\t%s\tnot local (%s)\n' "$name" "$how" ;;
        esac
    done
}

in_use() {
    [ -z "$root" ] && disk_in_use "$1" "$2"
}

bytes_of() {
    if [ -f "$1" ]; then
        wc -c <"$1" | tr -d ' '
    else
        blockdev --getsize64 "$1" 2>/dev/null
    fi
}

serial_of() {
    if [ -b "$1" ]; then lsblk -dn -o SERIAL "$1" 2>/dev/null | sed 's/^ *//; s/ *$//'; fi
}

# ---- proof --------------------------------------------------------------------------------------------

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

places() { # places BYTES: sectors for markers, from the first to the last
    last=$((($1 / 512) - 1))
    # shellcheck disable=SC1102,SC2086
    printf '%s\n' 0 $((last / 8)) $((last / 4)) $((last * 3 / 8)) $((last / 2)) $((last * 5 / 8)) \
        $((last * 3 / 4)) $((last * 7 / 8)) "$last" | sort -nu
}

put_markers() { # put_markers PATH BYTES
    for sector in $(places "$2"); do
        mark "$1" "$sector" || { why='cannot be written' && return 1; }
    done
    fresh "$1"
    for sector in $(places "$2"); do
        marked "$1" "$sector" || { why="a marker at sector $sector was not read back" && return 1; }
    done
}

markers_gone() {
    fresh "$1"
    for sector in $(places "$2"); do
        if marked "$1" "$sector"; then why="the marker at sector $sector is still there" && return 1; fi
    done
}

zero() { # zero PATH BYTES: all of it reads as zero
    if [ ! -b "$1" ] || ! dd if=/dev/null of="$work/sparse" conv=sparse 2>/dev/null; then
        cmp -s -n "$2" "$1" /dev/zero
        return
    fi
    # In windows of 64 MiB, of which dd keeps in memory what is not zero: a file of that size without a
    # block is a proof, at the disk's speed. cmp reads 4 KiB at a time.
    at=0
    while [ "$at" -lt "$2" ]; do
        window=$(($2 - at < 67108864 ? $2 - at : 67108864))
        rm -f "$work/window-${1##*/}"
        dd if="$1" of="$work/window-${1##*/}" bs=1048576 iflag=skip_bytes,count_bytes skip="$at" \
            count="$window" conv=sparse 2>/dev/null || return 1
        [ "$(stat -c '%s %b' "$work/window-${1##*/}")" = "$window 0" ] || return 1
        at=$((at + window))
    done
    rm -f "$work/window-${1##*/}"
}

# ---- what a drive can do ----------------------------------------------------------------------------------

ways() { # ways NAME PATH HOW: from the best to the last resort
    case $3 in
        nvme) nvme_ways "$1" ;;
        sata) ata_ways "$2" ;;
        sas) if command -v sg_sanitize >/dev/null 2>&1; then echo scsi-block scsi-crypto; fi ;;
        # What a virtual disk gives back to its host is the host's; here it counts that it reads as zero.
        virtio) if command -v blkdiscard >/dev/null 2>&1; then echo discard; fi ;;
    esac
    echo overwrite
}

byte() { # byte FILE OFFSET: as a number, 0 where there is none
    b=$(od -An -tu1 -j "$2" -N 1 "$1" 2>/dev/null | tr -d ' ')
    echo "${b:-0}"
}

controller() { # controller NAME: of an NVMe namespace
    c=$(readlink -f "/sys/block/$1/device" 2>/dev/null)
    c=${c##*/}
    case $c in
        nvme-subsys*) for c in "/sys/block/$1/device"/nvme[0-9]*; do c=${c##*/} && break; done ;;
    esac
    printf '%s\n' "$c"
}

nvme_ways() { # by Identify Controller (NVMe base 2.0 §5.17.2.1): SANICAP 328, OACS 256, FNA 524
    command -v nvme >/dev/null 2>&1 || return 0
    c=$(controller "$1")
    nvme id-ctrl -b "/dev/$c" >"$work/$1.id" 2>/dev/null
    can=$(byte "$work/$1.id" 328)
    # Sanitizing takes all namespaces of the subsystem at once: not while each has a job of its own.
    set -- "$1" "/sys/block/${c}n"*
    if [ $# -eq 2 ]; then
        if [ $((can & 2)) != 0 ]; then echo nvme-block; fi
        if [ $((can & 1)) != 0 ]; then echo nvme-crypto; fi
        if [ $((can & 4)) != 0 ]; then echo nvme-overwrite; fi
    fi
    if [ $(($(byte "$work/$1.id" 256) & 2)) != 0 ]; then
        if [ $(($(byte "$work/$1.id" 524) & 4)) != 0 ]; then echo nvme-format-crypto; fi
        echo nvme-format
    fi
    rm -f "$work/$1.id"
}

ata_ways() { # by IDENTIFY DEVICE, as hdparm spells it
    command -v hdparm >/dev/null 2>&1 || return 0
    hdparm -I "$1" 2>/dev/null >"$work/${1##*/}.id"
    if grep -q '\*.*SANITIZE feature set' "$work/${1##*/}.id"; then
        if grep -q '\*.*BLOCK_ERASE_EXT' "$work/${1##*/}.id"; then echo ata-block; fi
        if grep -q '\*.*CRYPTO_SCRAMBLE_EXT' "$work/${1##*/}.id"; then echo ata-crypto; fi
    fi
    sed -n '/^Security:/,/^[A-Z][a-z ]*:/p' "$work/${1##*/}.id" | tr -s '\t ' '  ' >"$work/${1##*/}.security"
    if grep -q '^ supported$' "$work/${1##*/}.security"; then
        # The firmware freezes it at boot; a drive that is enabled or locked has somebody's password.
        if ! grep -q 'not frozen' "$work/${1##*/}.security"; then
            echo ata-frozen
        elif grep -q 'not enabled' "$work/${1##*/}.security" && grep -q 'not locked' "$work/${1##*/}.security"; then
            if grep -q 'supported: enhanced erase' "$work/${1##*/}.security"; then echo ata-enhanced; fi
            echo ata-erase
        fi
    fi
    rm -f "$work/${1##*/}.id" "$work/${1##*/}.security"
}

purge='IEEE 2883-2022 purge, NIST SP 800-88r2 purge'
clear='IEEE 2883-2022 clear, NIST SP 800-88r2 clear'

about() { # about WAY: leaves method, class and claims
    class=clear
    claims=$clear
    case $1 in
        nvme-block) method='NVMe Sanitize, block erase' class=purge claims=$purge ;;
        nvme-crypto) method='NVMe Sanitize, crypto erase' class=purge claims=$purge ;;
        nvme-overwrite) method='NVMe Sanitize, overwrite' class=purge claims=$purge ;;
        nvme-format-crypto) method='NVMe Format, cryptographic erase' claims="$clear (NIST SP 800-88r1 table A-8: purge)" ;;
        nvme-format) method='NVMe Format, user data erase' claims="$clear (NIST SP 800-88r1 table A-8: purge)" ;;
        ata-block) method='ATA Sanitize, block erase' class=purge claims=$purge ;;
        ata-crypto) method='ATA Sanitize, crypto scramble' class=purge claims=$purge ;;
        ata-enhanced) method='ATA Security Erase Unit, enhanced' claims="$clear (NIST SP 800-88r1 table A-5, hard disks: purge)" ;;
        ata-erase) method='ATA Security Erase Unit' ;;
        scsi-block) method='SCSI Sanitize, block erase' class=purge claims=$purge ;;
        scsi-crypto) method='SCSI Sanitize, cryptographic erase' class=purge claims=$purge ;;
        discard) method='virtual disk, zeroes written by command, read back' ;;
        *) method='overwrite with zeros, read back' ;;
    esac
}

perform() { # perform WAY NAME PATH BYTES: leaves why it failed in $why
    case $1 in
        nvme-block) nvme_sanitize "$2" 2 ;;
        nvme-crypto) nvme_sanitize "$2" 4 ;;
        nvme-overwrite) nvme_sanitize "$2" 3 ;;
        nvme-format-crypto) tool nvme format "$3" --ses=2 --force ;;
        nvme-format) tool nvme format "$3" --ses=1 --force ;;
        ata-frozen) why='security is frozen by the firmware: a cold start of the drive would free it' && return 1 ;;
        ata-block) ata_sanitize "$3" --sanitize-block-erase ;;
        ata-crypto) ata_sanitize "$3" --sanitize-crypto-scramble ;;
        ata-enhanced) ata_erase "$3" --security-erase-enhanced ;;
        ata-erase) ata_erase "$3" --security-erase ;;
        scsi-block) tool sg_sanitize --block --quick --wait "$3" ;;
        scsi-crypto) tool sg_sanitize --crypto --quick --wait "$3" ;;
        discard) tool blkdiscard -f -z "$3" ;;
        overwrite) fill "$3" "$4" || { why='the overwrite ended with an error' && return 1; } ;;
    esac
}

tool() { # a drive's own command; it says why not
    said=$("$@" 2>&1) || {
        why="$1 ended with $?: $(printf '%s\n' "$said" | tail -n 1)"
        return 1
    }
}

nvme_sanitize() { # nvme_sanitize NAME ACTION, then the log until it says how it ended
    c=/dev/$(controller "$1")
    tool nvme sanitize "$c" --sanact="$2" || return 1
    while :; do
        sleep 2
        nvme sanitize-log "$c" -b >"$work/$1.log" 2>/dev/null
        # Sanitize status log (NVMe base 2.0 §5.16.1.25): progress in 65536ths, SSTAT in bytes 3:2.
        state=$(($(byte "$work/$1.log" 2) & 7))
        case $state in
            1 | 4) break ;;
            2) echo "$1: sanitizing, $(($(byte "$work/$1.log" 1) * 100 / 256)) %" ;;
            *) why="the sanitize log says state $state" && return 1 ;;
        esac
    done
    rm -f "$work/$1.log"
    nvme ns-rescan "$c" >/dev/null 2>&1
    return 0
}

ata_sanitize() { # ata_sanitize PATH OPTION
    tool hdparm --yes-i-know-what-i-am-doing "$2" "$1" || return 1
    while :; do
        sleep 5
        case $(hdparm --sanitize-status "$1" 2>/dev/null) in
            *'In Process'*) echo "$1: sanitizing" ;;
            *'Completed Without Error'*) return 0 ;;
            *) why='the sanitize status tells of no success' && return 1 ;;
        esac
    done
}

ata_erase() { # ata_erase PATH OPTION. The password is no secret: the erase takes it away again
    tool hdparm --user-master u --security-set-pass farrier "$1" || return 1
    tool hdparm --user-master u "$2" farrier "$1" && return 0
    hdparm --user-master u --security-disable farrier "$1" >/dev/null 2>&1
    return 1
}

# ---- one drive ------------------------------------------------------------------------------------------------

one_way() { # one_way WAY NAME PATH BYTES: markers, the act, proof
    put_markers "$3" "$4" || return 1
    perform "$1" "$2" "$3" "$4" || return 1
    markers_gone "$3" "$4" || return 1
    case $1 in
        overwrite | discard)
            zero "$3" "$4" || { why='not all of it reads as zero' && return 1; }
            ;;
        *)
            # What the drive now gives back is its own choice: no firmware may find a start in it.
            head -c 1048576 /dev/zero | dd of="$3" bs=1048576 iflag=fullblock conv=notrunc,fsync 2>/dev/null
            ;;
    esac
}

now() {
    date -u +%Y-%m-%dT%H:%M:%SZ
}

wipe_one() { # wipe_one NAME PATH HOW BYTES: one JSON object
    started=$(now)
    tried=
    ok=false
    for way in $(ways "$1" "$2" "$3"); do
        about "$way"
        why=
        echo "$1: $method" >&2
        if one_way "$way" "$1" "$2" "$4"; then
            ok=true
            why=
            break
        fi
        echo "$1: $method: $why" >&2
        tried="$tried${tried:+; }$method: $why"
    done
    if [ "$ok" = false ]; then class=none claims=; fi
    printf '{"name":%s,"serial":%s,"bytes":%s,"method":%s,"class":%s,"claims":%s,"started":%s,"ended":%s' \
        "$(quote "$1")" "$(quote "$(serial_of "$2")")" "$4" "$(quote "$method")" "$(quote "$class")" \
        "$(quote "$claims")" "$(quote "$started")" "$(quote "$(now)")"
    if [ -n "$why" ]; then printf ',"error":%s' "$(quote "$why")"; fi
    if [ -n "$tried" ]; then printf ',"tried":%s' "$(quote "$tried")"; fi
    printf ',"verified":%s}' "$ok"
}

# ---- what else is ours to undo -----------------------------------------------------------------------------------

clear_tpm() { # by the firmware's own interface (TCG PPI 1.3: request 5); it happens at the next start
    request=/sys/class/tpm/tpm0/ppi/request
    if [ -n "$root" ] || [ ! -e /sys/class/tpm/tpm0 ]; then
        echo none
    elif [ ! -w "$request" ]; then
        echo 'not cleared: the firmware takes no request'
    elif echo 5 >"$request" 2>/dev/null && [ "$(cut -d ' ' -f 1 "$request" 2>/dev/null)" = 5 ]; then
        echo 'clear requested, done by the firmware at the next start'
    else
        echo 'not cleared: the firmware refused the request'
    fi
}

boot_entries() { # removes the entries that carry our name, never another
    [ -z "$root" ] && command -v efibootmgr >/dev/null 2>&1 || return 0
    efibootmgr 2>/dev/null |
        sed -n "s/^Boot\([0-9A-Fa-f]\{4\}\)[* ] \(Farrier\([ $tab].*\)\{0,1\}\)\$/\1 \2/p" |
        while read -r number label; do
            if efibootmgr -q -b "$number" -B 2>/dev/null; then
                printf 'Boot%s %s\n' "$number" "${label%%"$tab"*}"
            fi
        done
}

main() {
    if [ "${1:-}" = --list ]; then
        disks
        exit 0
    fi
    [ $# -eq 2 ] || [ $# -eq 3 ] || stop "two or three arguments are needed, $# were given"
    # FIRST: is this the machine? Anything but a clear yes ends here.
    identity_check "$1" "$2"
    case $? in
        0) ;;
        1) refuse "another machine: $saw" ;;
        *) refuse "nobody can tell which machine this is: $saw" ;;
    esac
    echo "this is the machine: $saw"
    expected=${3:-}

    list=$(disks)
    skipped=
    drives=
    left=
    serials=,
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
            raid) left="$left${left:+,}{\"drive\":$(quote "$name"),\"why\":$(quote "$path"),\"advice\":\"not sanitized: destroy\"}" ;;
            doubt) stop "$name: $path" ;;
            wipe)
                path=${path%%"$tab"*}
                if [ -z "$root" ]; then disk_apart "$name"; fi
                if in_use "$name" "$path"; then stop "$name is in use ($use): boot a ramdisk to wipe it"; fi
                bytes=$(bytes_of "$path")
                case $bytes in
                    '' | *[!0-9]*) stop "$name: its size cannot be read" ;;
                esac
                if [ "$bytes" -lt 4096 ]; then stop "$name: $bytes bytes is no disk"; fi
                if [ ! -w "$path" ]; then stop "$name: no permission to write to $path"; fi
                serials=$serials$(serial_of "$path"),
                count=$((count + 1))
                ;;
            *) stop "unreadable line about a disk: $line" ;;
        esac
    done
    [ "$count" -gt 0 ] || [ -n "$left" ] || stop 'no local disk was found'
    IFS=,
    for serial in $expected; do
        case $serials in
            *",$serial,"*) ;;
            *) left="$left${left:+,}{\"drive\":$(quote "$serial"),\"why\":\"expected by its serial and not seen\",\"advice\":\"not sanitized: destroy\"}" ;;
        esac
    done

    marker="farrier-wipe-$$-$(date +%s)"
    work=${FARRIER_RESULT:-$PWD/wipe}.work
    rm -rf "${work:?}"
    mkdir -p "$work/drives" || stop "cannot make $work"
    IFS='
'
    for line in $list; do
        case $line in "wipe$tab"*) ;; *) continue ;; esac
        name=${line#*"$tab"}
        path=${name#*"$tab"}
        how=${path#*"$tab"}
        path=${path%%"$tab"*}
        name=${name%%"$tab"*}
        bytes=$(bytes_of "$path")
        echo "wiping $path ($how), $bytes bytes"
        # Side by side: each disk has its own speed. The words of $IFS are for this loop alone.
        (unset IFS && set +f && wipe_one "$name" "$path" "$how" "$bytes") >"$work/drives/$name" &
    done
    wait
    unset IFS
    set +f
    verified=true
    if [ -n "$left" ]; then verified=false; fi
    for file in "$work/drives"/*; do
        [ -e "$file" ] || continue
        object=$(cat "$file")
        case $object in
            *'"verified":true}') ;;
            *) verified=false ;;
        esac
        drives="$drives${drives:+,}$object"
    done
    rm -rf "${work:?}"
    if [ "$verified" = true ]; then code=0; else code=5; fi
    finish "$code" "{\"verified\":$verified,\"drives\":[$drives],\"skipped\":[$skipped],\"not_sanitized\":[$left],\"tpm\":$(quote "$(clear_tpm)"),\"boot_entries\":$(quote "$(boot_entries)")}"
}

main "$@"
