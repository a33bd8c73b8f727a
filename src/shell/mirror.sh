# An md mirror of the two disks that the rule fits: RAID1 with metadata 1.0. Its superblock lies behind all
# else, so each disk alone starts like a plain one, with the image's partition table, and neither firmware
# nor boot loader has to know of it. The image's initramfs must: it assembles the array before it looks
# for the root file system (Debian: package mdadm). Else the system would run on one disk behind the
# other's back; the first login tells.
#
# The array is not called clean: an image is smaller than a disk, and of what it leaves out nobody knows
# that both disks hold the same. The kernel copies it from one to the other while the image is written,
# as far as it gets; the rest is left to the installed system. What is written goes to both disks at
# once, so each of them boots from now on.
#
# Stands before deploy.sh, whose functions and variables it takes. With FARRIER_ROOT set (tests) mdadm is
# the test's, and the array is a plain file.

# shellcheck disable=SC2154 # deploy.sh and `order` set them
# shellcheck disable=SC2034 # and read these

# `any` in front of the name: every host takes the array for its own.
MIRROR=any:farrier

mirror_sizes() { # two disks of one size, but for what makers mean by it: a hundredth
    small=
    large=0
    while IFS='|' read -r name path how bytes rest; do
        if [ -z "$small" ] || [ "$bytes" -lt "$small" ]; then small=$bytes; fi
        if [ "$bytes" -gt "$large" ]; then large=$bytes; fi
    done <"$work/chosen"
    [ "$((large - small))" -le "$((large / 100))" ] ||
        fail unequal-root-disks "the two disks of the mirror differ by $((large - small)) bytes: $seen"
}

mirror_left() { # is the disk of a mirror that a run of ours did not get to write?
    zeros "$path" "$MIB" && [ -z "$(partitions)" ] &&
        mdadm --examine --export "$path" 2>/dev/null | grep -q "^MD_NAME=$MIRROR\$"
}

mirror_up() { # makes the array; name, path and bytes are its own from here on
    set --
    while IFS='|' read -r name path rest; do set -- "$@" "$path"; done <"$work/chosen"
    name=md127
    path=$root/dev/$name
    if [ -z "$root" ]; then
        modprobe -q raid1
        udevadm settle --timeout=30
    fi
    # With a bitmap a disk that comes back is brought up to date in seconds.
    mdadm --create "$path" --run --metadata=1.0 --level=1 --raid-devices=2 --bitmap=internal \
        --homehost=any --name=farrier "$@" >"$work/mdadm" 2>&1 ||
        fail mirror-not-made "$* can't be made a mirror: $(tail -n 1 "$work/mdadm")"
    array=$path
    serial="a mirror of $*"
    if blocks "$path"; then bytes=$(blockdev --getsize64 "$path"); else bytes=$(wc -c <"$path" | tr -d ' '); fi
    mirror_bytes=${bytes:-0}
    [ "$mirror_bytes" -ge "$((raw_size + 2 * MIB + seed_bytes))" ] ||
        fail disk-too-small "the mirror has $mirror_bytes bytes; the image takes $raw_size and the seed $seed_bytes behind it"
    echo "a mirror of $*: $mirror_bytes bytes"
}

mirror_copied() { # how far the copy is, in percent
    at=/sys/block/${array##*/}/md
    if [ "$(cat "$at/resync_start" 2>/dev/null)" = none ]; then
        echo 100
    else
        awk '$2 == "/" && $3 > 0 { print int($1 * 100 / $3) }' "$at/sync_completed" 2>/dev/null
    fi
}

mirror_stop() { # its members are plain disks again. udev looks at what was written, and is waited for
    tries=0
    while :; do
        if [ -z "$root" ]; then udevadm settle --timeout=30; fi
        if mdadm --stop "$array" >/dev/null 2>&1; then break; fi
        tries=$((tries + 1))
        if [ "$tries" -ge 10 ]; then return 1; fi
        sleep 1
    done
    array=
}

mirror_undo() { # a disk of a mirror that was not finished says nothing of it
    mirror_stop || return 0
    each mirror_clear
}

mirror_clear() {
    put "$work/zero" 0
    put "$work/zero" "$((bytes - MIB))"
}

mirror_apart() { # stopped, and proven: what makes a disk boot is on each of the two
    copied=$(mirror_copied)
    echo "the copy from one disk to the other is at ${copied:-0} %, and goes on in the installed system"
    mirror_stop || fail mirror-not-stopped "the mirror $array can't be stopped: something still uses it"
    each mirror_member
}

mirror_member() {
    for step in "part-$last $last" "seed $seed_at" 'part-0 0'; do
        same "$work/${step% *}" "${step#* }" && continue
        why="$name ($serial) does not give back what was written to the mirror at byte ${step#* }"
        each mirror_clear
        fail read-back "$why"
    done
    echo "disk $name: boots alone as well"
}
