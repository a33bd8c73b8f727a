# DESTROYS DATA. Writes an operating system's image to the one local disk that the order's rule fits, or
# to an md mirror of the two that do, and says what came of it in $FARRIER_RESULT:
#   {"ok":true,"disk":{"name","path","serial","model","bytes"},"mirror"?:{"bytes","copied_percent",
#     "disks":[like "disk",…]},"image","run","written","sha256","seconds"}
#   {"ok":false,"refused":WHY}          another machine, or nobody can tell which
#   {"ok":false,"error":CODE,"message":WHY}
#
#   deploy.sh UUID SERIAL     the machine that is meant, as its BMC says it; `-` for unknown
#
# identity.sh, disks.sh, the functions `order` and `seed_files`, and mirror.sh stand before this text:
# the process that writes is the one that has just compared DMI.
#
# Where memory has room for the image's file, it is fetched and proven before the disk is touched.
# Until the image is proven right the disk can't boot: its first MiB is zero. That one is kept back,
# changed in memory (the partition table grows to the disk's end and gets the seed volume), and
# written last. A cut at any moment leaves a disk that boots nothing, or one that is finished.
#
# With FARRIER_ROOT set (tests) the disks are the plain files below $FARRIER_ROOT/dev/disk.

# shellcheck disable=SC2154 # `order` sets the order's variables
# shellcheck disable=SC2015 # A && B || C: B fails as A does, with the same end

LC_ALL=C
export LC_ALL
root=${FARRIER_ROOT:-}
MIB=1048576
array= # the mirror that is to be stopped, whatever the end
front= # the device in front of the disk that is to be removed, whatever the end

# Each program that is started costs: under software emulation this job was a fifth of them. What the
# shell can do itself, it does.

quote() { # a JSON string of ASCII
    case $1 in *[!A-Za-z0-9._:/,\ -]*) ;; *) printf '"%s"' "$1" && return ;; esac
    printf '"%s"' "$(printf %s "$1" | tr '\t\r\n' '   ' | tr -cd '\040-\176' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

finish() { # finish EXIT JSON
    front_down
    if [ -n "$array" ]; then mirror_undo; fi
    rm -rf "${work:?}"
    printf '%s\n' "$2"
    if [ -n "${FARRIER_RESULT:-}" ]; then printf '%s\n' "$2" >"$FARRIER_RESULT"; fi
    exit "$1"
}

fail() { # fail CODE WHY
    finish 4 "{\"ok\":false,\"error\":$(quote "$1"),\"message\":$(quote "$2")}"
}

blocks() { [ -b "$1" ]; }

# ---- which disk -------------------------------------------------------------------------------------

table() { # into $work/disks
    if [ -z "$root" ]; then
        disk_table "$work/lsblk" >"$work/disks"
        return
    fi
    for disk in "$root"/dev/disk/*; do
        if [ -f "$disk" ] && [ ! -L "$disk" ]; then
            name=${disk##*/}
            printf '%s|%s|virtio|%s|512|S-%s|test disk|0\n' "$name" "$disk" \
                "$(wc -c <"$disk" | tr -d ' ')" "$name"
        fi
    done >"$work/disks"
}

fits() { # one row of the table against the rule; leaves in $why what does not fit
    why=
    case $how in
        nvme) kind=nvme ;;
        virtio) kind=virtio ;;
        sata | sas) if [ "$rotates" = 1 ]; then kind=hdd; else kind=ssd; fi ;;
        raid)
            # A controller's volume: only one that the rule names.
            kind=raid
            [ -n "$want_by_id$want_serial$want_model" ] || [ "$want_kind" = raid ] ||
                why="a RAID volume that the rule does not name"
            ;;
        *) why="not local ($how)" && return 1 ;;
    esac
    if [ -n "$want_kind" ] && [ "$want_kind" != "$kind" ]; then why="is $kind, not $want_kind"; fi
    if [ -n "$want_serial" ] && [ "$want_serial" != "$serial" ]; then why="serial is $serial"; fi
    if [ -n "$want_min" ] && [ "$bytes" -lt "$want_min" ]; then why="smaller than $want_min bytes"; fi
    if [ -n "$want_max" ] && [ "$bytes" -gt "$want_max" ]; then why="larger than $want_max bytes"; fi
    if [ -n "$want_by_id" ]; then
        link=$(readlink -f "/dev/disk/by-id/$want_by_id" 2>/dev/null)
        [ "$link" = "$path" ] || why="is not $want_by_id"
    fi
    case $want_model in
        '') ;;
        *'*') case $model in "${want_model%\*}"*) ;; *) why="model is $model" ;; esac ;;
        *) [ "$model" = "$want_model" ] || why="model is $model" ;;
    esac
    [ -z "$why" ]
}

choose() { # the rows of the disks that fit into $work/chosen: one, or two for a mirror
    count=0
    seen=
    while IFS='|' read -r name path how bytes sector serial model rotates; do
        if fits; then
            count=$((count + 1))
            printf '%s\n' "$name|$path|$how|$bytes|$sector|$serial|$model|$rotates" >>"$work/chosen"
            why=fits
        fi
        echo "disk $name: $how, $bytes bytes, serial ${serial:-unknown}, model ${model:-unknown}: $why"
        seen="$seen${seen:+; }$name ($how, serial ${serial:-unknown}, $bytes bytes): $why"
    done <"$work/disks"
    case $mirror-$count in
        no-1 | yes-2) ;;
        *-0) fail no-root-disk "no local disk fits the rule: ${seen:-there is none}" ;;
        yes-1) fail one-root-disk "one disk fits the rule, and a mirror takes two: $seen" ;;
        *) fail several-root-disks "$count disks fit the rule, and it is never guessed: $seen" ;;
    esac
    [ "$(wc -l 2>/dev/null <"$work/chosen")" -eq "$count" ] || fail ramdisk-full "no room below $work"
    if [ "$mirror" = yes ]; then mirror_sizes; fi
}

each() { # each COMMAND: once for each chosen disk, whose row the variables hold
    while IFS='|' read -r name path how bytes sector serial model rotates <&3; do
        "$1"
    done 3<"$work/chosen"
}

the_disk() { # the variables hold the first chosen disk again
    IFS='|' read -r name path how bytes sector serial model rotates <"$work/chosen"
}

# ---- what is on it ------------------------------------------------------------------------------------

zeros() { # zeros PATH BYTES: do its first BYTES read as zero?
    [ "$(head -c "$2" "$1" | tr -d '\0' | head -c 1 | wc -c)" -eq 0 ]
}

partitions() { # paths of the disk's partitions
    if blocks "$path"; then lsblk -lnpo NAME,TYPE "$path" 2>/dev/null | awk '$2 == "part" { print $1 }'; fi
}

ours() { # does it have a seed volume that a run of ours made?
    for part in $(partitions); do
        if [ "$(blkid -p -o value -s LABEL "$part" 2>/dev/null)" = CIDATA ] &&
            mtype -i "$part" ::farrier 2>/dev/null | grep -q '^run='; then
            return 0
        fi
    done
    return 1
}

examine() {
    disk_apart "$name"
    if blocks "$path" && disk_in_use "$name" "$path"; then
        fail disk-in-use "$name is in use ($use): this is to run in the deploy ramdisk"
    fi
    [ -w "$path" ] || fail disk-not-writable "$name can't be written to"
    more=$((2 * MIB))
    if [ "$mirror" = yes ]; then more=$((3 * MIB)); fi
    [ "$bytes" -ge "$((raw_size + more + seed_bytes))" ] ||
        fail disk-too-small "$name has $bytes bytes; the image takes $raw_size and the seed $seed_bytes behind it"
    [ "$sector" = 512 ] ||
        fail sector-size "$name has sectors of $sector bytes, the image's partition table is for 512"
    if [ "$allow" != yes ]; then
        if ! zeros "$path" "$MIB" || [ -n "$(partitions)" ] ||
            { blocks "$path" && blkid -p "$path" >/dev/null 2>&1; }; then
            ours || mirror_left || fail holds-data "$name holds data that no run of Farrier's wrote, and the order does not allow to overwrite it"
            echo "$name was written by a run of ours before"
        fi
    fi
}

put() { # put FILE OFFSET: its bytes to the disk, on the medium when it returns
    dd if="$1" of="$path" bs=1048576 seek="$2" oflag=seek_bytes conv=notrunc,fsync 2>"$work/dd"
}

clear_disk() { # nothing on it may be taken for an array, a volume group or a partition table
    for part in $(partitions); do wipefs -a -q "$part" 2>/dev/null; done
    if blocks "$path"; then wipefs -a -q "$path" 2>/dev/null; fi
    head -c "$MIB" /dev/zero >"$work/zero" || fail ramdisk-full "no room below $work"
    put "$work/zero" 0 && put "$work/zero" "$((bytes - MIB))" ||
        fail write-failed "$name can't be written to: $(tail -n 1 "$work/dd")"
    if blocks "$path"; then blockdev --rereadpt "$path" 2>/dev/null; fi
    return 0
}

# ---- the image ----------------------------------------------------------------------------------------

fetch() { # the bytes as they are served, over as many connections as it takes
    at=0
    idle=0
    etag=
    while [ "$at" -lt "$size" ]; do
        # The rest of the same file or nothing (RFC 9110 §13.1.5, which knows no weak tags there).
        set --
        case $etag in
            '' | W/*) ;;
            *) if [ "$at" -gt 0 ]; then set -- --header "If-Range: $etag"; fi ;;
        esac
        # A server that ignores the range ends it (33), so no byte comes twice. 30 s without a
        # kilobyte a second is a connection that died without a word.
        curl --silent --fail --globoff --connect-timeout 10 --speed-limit 1024 --speed-time 30 \
            --continue-at "$at" --max-filesize "$((size - at))" --dump-header "$work/headers" "$@" \
            --write-out '%{stderr}%{http_code} %{size_download}' "$url" 2>"$work/attempt"
        curl=$?
        read -r code got rest <"$work/attempt"
        case $got in '' | *[!0-9]*) got=0 ;; esac
        tag=$(tr -d '\r' 2>/dev/null <"$work/headers" | sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' | tail -n 1)
        case $code in 2??) etag=${etag:-$tag} ;; *) tag= ;; esac
        if [ -n "$tag" ] && [ "$tag" != "$etag" ]; then
            echo "the server has another file since byte $at: $tag instead of $etag" >"$work/changed"
            return 1
        fi
        at=$((at + got))
        case $curl in
            0) break ;;
            23) return 1 ;; # what reads has ended; that tells why
            33 | 36) echo "the server can't go on at byte $at" >"$work/fetch" && return 1 ;;
            63) echo "the server's file is larger than $size bytes" >"$work/fetch" && return 1 ;;
            22) case $code in 408 | 425 | 429 | 5??) ;; *) echo "the server says $code" >"$work/fetch" && return 1 ;; esac ;;
        esac
        if [ "$got" -gt 0 ]; then idle=0; else idle=$((idle + 1)); fi
        if [ "$idle" -ge "${FARRIER_FETCH_TRIES:-40}" ]; then
            echo "no byte in $idle attempts, curl ended with $curl, HTTP $code" >"$work/fetch"
            return 1
        fi
        echo "the connection ended at byte $at of $size (curl $curl, HTTP $code); going on there" >&2
        if [ "$got" -eq 0 ]; then sleep 3; fi
    done
    if [ "$at" -ne "$size" ]; then
        echo "the server has $at bytes, $size were expected: it was cut off" >"$work/fetch"
        return 1
    fi
}

# The device in front of the disk: the same bytes at the same places, but for its first MiB and the image's
# last sector, which are a file in memory. It ends where the image ends. So zstd itself writes the image
# to the disk, and what is kept back of it is kept back by the kernel. Without it each unpacked byte goes
# through a pipe of 64 KiB and one more process.
FRONT=farrier-image # disks.sh takes away what a cut left of it

front_up() { # fails where it can't be: plain files (tests), a ramdisk that was built before it
    blocks "$path" && command -v dmsetup >/dev/null && [ "$((raw_size % 512))" -eq 0 ] || return 1
    modprobe -q -a dm-mod loop
    truncate -s "$((MIB + 512))" "$work/held" && loop=$(losetup -f 2>/dev/null) &&
        losetup "$loop" "$work/held" 2>/dev/null || return 1
    sectors=$((raw_size / 512))
    # No udev rule of the ramdisk knows such devices: its node is made here.
    printf '0 2048 linear %s 0\n2048 %s linear %s 2048\n%s 1 linear %s 2048\n' "$loop" \
        "$((sectors - 2049))" "$path" "$((sectors - 1))" "$loop" |
        DM_DISABLE_UDEV=1 dmsetup create "$FRONT" --noudevsync >/dev/null 2>&1 &&
        front=/dev/mapper/$FRONT
    # Held by the front, it goes when that goes.
    losetup -d "$loop" 2>/dev/null
    [ -b "$front" ]
}

front_down() { # the disk is the disk again, and nothing that was read of it before counts
    [ -n "$front" ] || return 0
    DM_DISABLE_UDEV=1 dmsetup remove --noudevsync --retry "$FRONT" >/dev/null 2>&1
    gone=$?
    front=
    blockdev --flushbufs "$path" 2>/dev/null
    return "$gone"
}

unpack() {
    case $format in
        raw-zst) zstd -q -d -c ;;
        *) cat ;;
    esac
    echo $? >"$work/unpacked"
}

lay_down() { # the first MiB to memory, the rest to the disk, never more than was promised
    head -c "$MIB" >"$work/head" || { : >"$work/full" && return 1; }
    # All but the last sector. Whether that one is whole tells whether everything before it came: what
    # dd says about bytes differs between its makers.
    dd of="$path" bs=4194304 iflag=fullblock,count_bytes count="$((raw_size - MIB - 512))" \
        oflag=seek_bytes seek="$MIB" conv=notrunc,fsync 2>"$work/dd"
    echo $? >"$work/written"
    head -c 512 >"$work/last"
    head -c 1 | wc -c >"$work/more"
}

lay_piped() {
    unpack | lay_down
}

lay_front() { # the same through the device in front of the disk, and the same said of it
    exec 8<>"$front"
    unpack >&8 2>"$work/said"
    at=$(sed -n 's/^pos:[[:space:]]*//p' /proc/self/fdinfo/8)
    if [ -s "$work/said" ]; then cat "$work/said" >&2; fi
    # On the medium. The kernel tells a write that failed after it was taken here, and only here.
    dd if=/dev/null conv=notrunc,fsync >&8 2>"$work/dd"
    synced=$?
    exec 8>&-
    over=0
    case $(cat "$work/said") in
        *'No space left'*) over=1 ;;
        *'nput/output error'*) cp "$work/said" "$work/dd" && synced=1 ;;
    esac
    echo "$synced" >"$work/written"
    echo "$over" >"$work/more"
    head -c "$MIB" "$work/held" >"$work/head" || : >"$work/full"
    if [ "$at" = "$raw_size" ]; then tail -c 512 "$work/held"; fi >"$work/last"
}

sectors_written() { # of the disk, since the machine is up, into $now
    { read -r _ _ _ _ _ _ now _ <"/sys/block/$name/stat"; } 2>/dev/null
}

progress() { # until $work/done appears: what the disk has taken
    sectors_written || return 0
    was=$now
    # Also where the job has ended, and its directory with it, during a sleep.
    while [ -d "$work" ] && [ ! -e "$work/done" ]; do
        sleep 5
        sectors_written
        copied=
        if [ -n "$array" ]; then copied=$(mirror_copied); fi
        echo "written $(((now - was) / 2048)) of $((raw_size / MIB)) MiB${copied:+, mirror $copied % in step}"
    done
}

is_zero() { # is_zero FILE: did what leaves its word there say 0?
    n=
    { read -r n <"$work/$1"; } 2>/dev/null
    [ "$n" = 0 ]
}

# What stays free beside an image that is held in memory: of memory, which also takes what is written to
# the disk on its way there, and of the file system in which this job's files are. KiB.
BESIDE=262144
BESIDE_HERE=32768

# The whole file in memory, where there is room for it. What is wrong with it is known before the disk is
# touched, and nothing but zstd stands between the file and the disk: each pipe costs.
may_hold() {
    case ${FARRIER_HOLD:-} in yes) return 0 ;; no) return 1 ;; esac # tests
    kib=$((size / 1024))
    left=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
    # A ramfs has no size, and says 0.
    stat -f -c '%a %S' "$work" 2>/dev/null >"$work/room"
    read -r blocks_left block <"$work/room"
    left_here=$((${blocks_left:-0} * ${block:-0} / 1024))
    [ "${left:-0}" -ge "$((kib + BESIDE))" ] && [ "$left_here" -ge "$((kib + BESIDE_HERE))" ]
}

hold() {
    echo "fetching $image, $size bytes"
    if blocks "$path"; then fetching & fi
    fetch >"$work/image" || echo failed >"$work/cut"
    : >"$work/fetched"
    fetched
    # Nothing but memory can have refused it.
    [ ! -e "$work/cut" ] || fail ramdisk-full "no room for the image below $work"
    sha256sum <"$work/image" >"$work/sha256"
    right
    held=yes
}

fetching() { # until $work/fetched appears: what has come
    while [ -d "$work" ] && [ ! -e "$work/fetched" ]; do
        sleep 5
        come=$(stat -c %s "$work/image" 2>/dev/null) &&
            echo "fetched $((come / MIB)) of $((size / MIB)) MiB"
    done
}

fetched() { # or how it failed, in the order in which one mistake causes the next
    [ ! -e "$work/changed" ] || fail image-changed "$(cat "$work/changed")"
    [ ! -s "$work/fetch" ] || fail fetch-failed "$(cat "$work/fetch")"
}

right() {
    read -r sha256_is rest <"$work/sha256"
    [ "$sha256_is" = "$sha256" ] ||
        fail wrong-sha256 "the image's sha256 is $sha256_is, $sha256 was expected"
}

write_image() {
    echo "writing $image to $path ($serial), $raw_size bytes"
    if blocks "$path"; then progress & fi
    lay=lay_front
    if ! front_up; then
        front_down || fail write-failed "the device $FRONT in front of $name can't be removed"
        echo "no device in front of $name: the image goes through a pipe"
        lay=lay_piped
    fi
    if [ "$held" = yes ]; then
        $lay <"$work/image"
        rm -f "$work/image"
    else
        echo "no room in memory for $size bytes: the image is written as it comes"
        mkfifo "$work/sum" || fail ramdisk-full "no room below $work"
        sha256sum <"$work/sum" >"$work/sha256" &
        summing=$!
        { fetch || echo failed >"$work/cut"; } | tee "$work/sum" | $lay
        wait "$summing"
    fi
    front_down || fail write-failed "the device $FRONT in front of $name can't be removed"
    : >"$work/done"
    fetched
    [ ! -e "$work/full" ] || fail ramdisk-full "no room below $work"
    if ! is_zero written; then
        fail write-failed "$name: $(tail -n 1 "$work/dd" 2>/dev/null)"
    fi
    if ! is_zero more; then
        fail image-larger "the image is larger than the $raw_size bytes that were promised"
    fi
    if [ -e "$work/cut" ] && ! is_zero unpacked; then
        fail image-broken 'the image can not be unpacked'
    fi
    if [ -e "$work/cut" ]; then fail fetch-failed "the image could not be fetched whole"; fi
    right
    is_zero unpacked || fail image-broken 'the image can not be unpacked'
    [ "$(wc -c <"$work/last")" -eq 512 ] ||
        fail image-smaller "the image ends before the $raw_size bytes that were promised"
    put "$work/last" "$((raw_size - 512))" || fail write-failed "$name: $(tail -n 1 "$work/dd")"
    written=$raw_size
}

# ---- the end of the disk ----------------------------------------------------------------------------------

make_seed() { # $work/seed: a FAT volume, label CIDATA; $seed_bytes
    mkdir "$work/files" || fail ramdisk-full "no room below $work"
    printf 'image=%s\nrun=%s\n' "$image" "$run" >"$work/files/farrier"
    seed_files | while read -r file text; do
        printf %s "$text" | base64 -d >"$work/files/$file" || echo "$file" >"$work/bad-seed"
    done
    if [ -e "$work/bad-seed" ]; then fail ramdisk-full "the seed file $(cat "$work/bad-seed") could not be written"; fi
    need=$(cat "$work/files"/* | wc -c)
    seed_bytes=$(((need / MIB + 2) * MIB))
    { truncate -s "$seed_bytes" "$work/seed" && mkfs.vfat -n CIDATA "$work/seed" &&
        mcopy -i "$work/seed" "$work/files"/* ::; } >"$work/mkfs" 2>&1 ||
        fail ramdisk-full "the seed volume could not be made: $(tail -n 1 "$work/mkfs")"
    rm -rf "$work/files"
}

table_of_partitions() { # the image's, moved to the disk's end, in a file that is nothing but it
    seed_at=$((bytes / MIB * MIB - MIB - seed_bytes))
    { truncate -s "$bytes" "$work/gpt" &&
        dd if="$work/head" of="$work/gpt" bs=1048576 conv=notrunc &&
        dd if="$path" of="$work/gpt" bs=1048576 iflag=skip_bytes,count_bytes \
            skip="$((raw_size - MIB))" count="$MIB" oflag=seek_bytes seek="$((raw_size - MIB))" \
            conv=notrunc; } 2>"$work/dd" || fail ramdisk-full "$(tail -n 1 "$work/dd")"
    if [ "$(dd if="$work/head" bs=512 skip=1 count=1 2>/dev/null | head -c 8)" != 'EFI PART' ]; then
        fail image-without-gpt 'the image has no GUID partition table'
    fi
    sgdisk -e "$work/gpt" >"$work/sgdisk" 2>&1 &&
        sgdisk -a 1 -n "0:$((seed_at / 512)):$(((seed_at + seed_bytes) / 512 - 1))" -t 0:0700 \
            -c 0:CIDATA "$work/gpt" >>"$work/sgdisk" 2>&1 ||
        fail partition-table "the seed volume does not fit into the partition table: $(tail -n 1 "$work/sgdisk")"
    for at in 0 "$((bytes - MIB))"; do
        dd if="$work/gpt" bs=1048576 iflag=skip_bytes,count_bytes skip="$at" count="$MIB" \
            2>/dev/null >"$work/part-$at"
    done
    rm -f "$work/gpt"
}

same() { # same FILE OFFSET: does the disk hold it there? Read from the medium, not from memory
    if blocks "$path"; then blockdev --flushbufs "$path" 2>/dev/null; fi
    length=$(wc -c <"$1")
    dd if="$path" bs=1048576 iflag=skip_bytes,count_bytes skip="$2" count="$length" 2>/dev/null |
        cmp -s - "$1"
}

seal() { # the last writes, each read back; the first MiB is the very last
    last=$((bytes - MIB))
    for step in "part-$last $last" "seed $seed_at" 'part-0 0'; do
        file=${step% *}
        offset=${step#* }
        put "$work/$file" "$offset" || fail write-failed "$name: $(tail -n 1 "$work/dd")"
        same "$work/$file" "$offset" || {
            # What does not read back must not boot.
            put "$work/zero" 0
            fail read-back "$name does not give back what was written at byte $offset"
        }
    done
    if blocks "$path"; then
        blockdev --rereadpt "$path" 2>/dev/null
        sync
    fi
    return 0
}

about_disks() { # JSON of all chosen
    comma=
    each next_disk
}

next_disk() {
    printf %s "$comma"
    comma=,
    about_disk
}

about_disk() {
    printf '{"name":%s,"path":%s,"serial":%s,"model":%s,"bytes":%s}' "$(quote "$name")" \
        "$(quote "$path")" "$(quote "$serial")" "$(quote "$model")" "$bytes"
}

main() {
    read -r began rest </proc/uptime
    # Secrets are in this text; whoever looks at the job later must not find them.
    case $0 in *payload.sh) rm -f "$0" ;; esac
    umask 077
    work=${FARRIER_RESULT:-$PWD/deploy}.work
    rm -rf "${work:?}"
    # The room for the result is taken now: it is given back when the rest of the ramdisk is full.
    mkdir "$work" && head -c 65536 /dev/zero >"$work/reserve" || finish 4 '{"ok":false,"error":"ramdisk-full","message":"no room for the job"}'
    [ $# -eq 2 ] || fail bad-order "two arguments are needed, $# were given"
    # FIRST: is this the machine? Anything but a clear yes ends here.
    identity_check "$1" "$2"
    case $? in
        0) ;;
        1) finish 3 "{\"ok\":false,\"refused\":$(quote "another machine: $saw")}" ;;
        *) finish 3 "{\"ok\":false,\"refused\":$(quote "nobody can tell which machine this is: $saw")}" ;;
    esac
    echo "this is the machine: $saw"
    order
    [ "$raw_size" -gt "$((2 * MIB))" ] || fail bad-order "an image of $raw_size bytes"
    make_seed
    table || fail no-lsblk 'lsblk does not run: is this the deploy ramdisk?'
    choose
    each examine
    the_disk
    held=no
    if may_hold; then hold; fi
    each clear_disk
    the_disk
    mirrored=
    if [ "$mirror" = yes ]; then mirror_up; fi
    write_image
    table_of_partitions
    seal
    if [ "$mirror" = yes ]; then
        mirror_apart
        mirrored=",\"mirror\":{\"bytes\":$mirror_bytes,\"copied_percent\":${copied:-0},\"disks\":[$(about_disks)]}"
    fi
    the_disk
    read -r ended rest </proc/uptime
    finish 0 "{\"ok\":true,\"disk\":$(about_disk)$mirrored,\"image\":$(quote "$image"),\"run\":$(quote "$run"),\"written\":$written,\"sha256\":$(quote "$sha256_is"),\"seconds\":$((${ended%%.*} - ${began%%.*}))}"
}

main "$@"
