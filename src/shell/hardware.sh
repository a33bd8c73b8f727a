# Prints what is in the machine as its own kernel sees it, one key=value a line, fields separated by
# tabs, an empty field for what can't be told. Changes nothing. disks.sh stands before this text.
#
#   vendor= product= board_serial= bios_version=          DMI
#   cpu=SOCKET<TAB>MODEL<TAB>CORES<TAB>THREADS            one a socket
#   memory_mib=
#   disk=NAME<TAB>HOW<TAB>BYTES<TAB>SECTOR<TAB>SERIAL<TAB>MODEL<TAB>ROTATES
#   nic=NAME<TAB>MAC<TAB>LINK<TAB>MBIT<TAB>DRIVER<TAB>PCI
#   lldp=NAME<TAB>CHASSIS<TAB>PORT<TAB>SYSTEM             heard by the ramdisk since it came up
#   gpu=PCI<TAB>VENDOR:DEVICE<TAB>SUBVENDOR:SUBDEVICE     display and 3D controllers

LC_ALL=C
export LC_ALL

hardware() {
    dmi=${FARRIER_ROOT:-}/sys/class/dmi/id
    show uuid "$dmi/product_uuid"
    show serial "$dmi/product_serial"
    show vendor "$dmi/sys_vendor"
    show product "$dmi/product_name"
    show board_serial "$dmi/board_serial"
    show bios_version "$dmi/bios_version"
    cpus
    sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' "${FARRIER_ROOT:-}/proc/meminfo" 2>/dev/null |
        awk '{ printf "memory_mib=%d\n", $1 / 1024 }'
    if [ -z "${FARRIER_ROOT:-}" ]; then disks; fi
    nics
    gpus
    # The last line: without it the answer was cut off.
    printf 'end=hardware\n'
}

show() { # show KEY FILE: its first line
    if [ -r "$2" ]; then printf '%s=%s\n' "$1" "$(head -n 1 "$2" 2>/dev/null)"; fi
}

first() { # first FILE: its first line, or nothing
    head -n 1 "$1" 2>/dev/null | tr -d '\t'
}

cpus() {
    awk -F ':' '
        { gsub(/[ \t]+$/, "", $1); sub(/^[ \t]+/, "", $2) }
        $1 == "physical id" { socket = $2; seen[socket] = 1; threads[socket]++ }
        $1 == "model name" { name = $2 }
        $1 == "cpu cores" { cores[socket] = $2; model[socket] = name }
        $1 == "processor" { all++ }
        END {
            n = 0
            for (s = 0; s < 64; s++) if (s in seen) {
                printf "cpu=%d\t%s\t%d\t%d\n", s, model[s], cores[s], threads[s]
                n++
            }
            if (!n && all) printf "cpu=0\t%s\t\t%d\n", name, all
        }' "${FARRIER_ROOT:-}/proc/cpuinfo" 2>/dev/null
}

disks() {
    scratch=$(mktemp) || return
    disk_table "$scratch" | while IFS='|' read -r name _ how bytes sector serial model rotates; do
        printf 'disk=%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
            "$name" "$how" "$bytes" "$sector" "$serial" "$model" "$rotates"
    done
    rm -f "$scratch"
}

nics() {
    for dir in "${FARRIER_ROOT:-}"/sys/class/net/*; do
        [ -e "$dir/device" ] || continue
        name=${dir##*/}
        driver=$(readlink "$dir/device/driver" 2>/dev/null)
        pci=$(readlink -f "$dir/device" 2>/dev/null | grep -o '[0-9a-f]\{4\}:[0-9a-f:]*\.[0-7]' | tail -n 1)
        printf 'nic=%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$(first "$dir/address")" \
            "$(first "$dir/carrier")" "$(first "$dir/speed")" "${driver##*/}" "$pci"
        if [ -s "${FARRIER_ROOT:-}/run/farrier/lldp/$name" ]; then
            neighbour "$name" "${FARRIER_ROOT:-}/run/farrier/lldp/$name"
        fi
    done
}

# One LLDP frame in a file as tcpdump writes it: 24 bytes about the file, 16 about the frame, 14 of
# Ethernet, then TLVs (IEEE 802.1AB §8.4): 7 bits of type, 9 of length. Of chassis and port the first
# byte says what kind of name it is; a MAC address is printed as one.
neighbour() { # neighbour NAME FILE
    od -An -v -tu1 "$2" 2>/dev/null | awk -v name="$1" '
        { for (i = 1; i <= NF; i++) b[n++] = $i }
        function text(from, to,    out, i) {
            out = ""
            for (i = from; i < to; i++) if (b[i] >= 32 && b[i] < 127) out = out sprintf("%c", b[i])
            return out
        }
        function mac(from,    out, i) {
            out = ""
            for (i = from; i < from + 6; i++) out = out (i > from ? ":" : "") sprintf("%02x", b[i])
            return out
        }
        END {
            at = 54
            while (at + 2 <= n) {
                type = int(b[at] / 2)
                size = (b[at] % 2) * 256 + b[at + 1]
                at += 2
                if (type == 0 || at + size > n) break
                if (type == 1) chassis = b[at] == 4 && size == 7 ? mac(at + 1) : text(at + 1, at + size)
                if (type == 2) port = b[at] == 3 && size == 7 ? mac(at + 1) : text(at + 1, at + size)
                if (type == 5) system_name = text(at, at + size)
                at += size
            }
            if (chassis != "" || port != "") printf "lldp=%s\t%s\t%s\t%s\n", name, chassis, port, system_name
        }'
}

gpus() {
    for dir in "${FARRIER_ROOT:-}"/sys/bus/pci/devices/*; do
        case $(first "$dir/class") in
            0x0300* | 0x0302*) ;;
            *) continue ;;
        esac
        vendor=$(first "$dir/vendor")
        # What the board draws its console with is no accelerator: ASPEED, Matrox, Cirrus, QEMU.
        case $vendor in 0x1a03 | 0x102b | 0x1013 | 0x1234 | 0x1af4 | 0x1b36) continue ;; esac
        printf 'gpu=%s\t%s:%s\t%s:%s\n' "${dir##*/}" "${vendor#0x}" "$(first "$dir/device" | cut -c 3-)" \
            "$(first "$dir/subsystem_vendor" | cut -c 3-)" "$(first "$dir/subsystem_device" | cut -c 3-)"
    done
}
