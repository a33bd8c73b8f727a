#!/bin/sh
# First process of the deploy ramdisk: devices, one network interface, an SSH server with a host key
# of its own, and a call home. What comes then, Farrier does over SSH. It starts nothing on a disk and
# never ends: a machine that waits says on its consoles what for.
#
# Where it is told what to do, in this order:
#   kernel command line   farrier.seed=URL BOOTIF=01-<mac>
#   the CD it came from   /farrier/ramdisk.cfg: seed= mac= address=A/N gateway= dns=

PATH=/usr/bin
HOME=/root
LC_ALL=C
export PATH HOME LC_ALL

say() { # say TEXT: on every console there is
    for tty in /dev/console /dev/tty0 /dev/ttyS0 /dev/ttyS1; do
        # Opened in a shell of its own: a console without a device must not end this one.
        [ -c "$tty" ] && (printf 'farrier: %s\r\n' "$1" >"$tty") 2>/dev/null
    done
}

wait_s() { # as process 1 also takes in the children that lost their parent
    sleep "$1" &
    wait $!
}

devices() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs -o mode=0755 dev /dev
    mkdir -p /dev/pts /dev/shm /run/udev /run/farrier
    mount -t devpts -o gid=5,mode=620 devpts /dev/pts
    mount -t tmpfs -o mode=0755,size=16m tmpfs /run
    mkdir -p /run/udev /run/farrier
    ln -sf /proc/self/fd /dev/fd
    say "kernel $(uname -r) is up, looking for devices"
    modprobe -q -a efivarfs ipmi_devintf 2>/dev/null
    if [ -d /sys/firmware/efi/efivars ]; then
        mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null
    fi
    systemd-udevd --daemon 2>/dev/null
    udevadm trigger --action=add --type=subsystems
    udevadm trigger --action=add --type=devices
    udevadm settle --timeout=60
    modprobe -q -a af_packet sd_mod sr_mod sg loop vfat isofs 2>/dev/null
    udevadm settle --timeout=30
}

# ---- what to do -------------------------------------------------------------------------------

word() { # word NAME: its value on the kernel's command line
    tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1
}

setting() { # setting NAME: its value in the CD's file
    tr -d '\r' <"$config" 2>/dev/null | sed -n "s/^$1=//p" | head -n 1
}

from_cd() {
    config=/run/farrier/ramdisk.cfg
    [ -s "$config" ] && return 0
    for device in /dev/sr* /dev/disk/by-label/FARRIER; do
        [ -b "$device" ] || continue
        mkdir -p /run/farrier/cd
        mount -t iso9660 -o ro "$device" /run/farrier/cd 2>/dev/null || continue
        # The padding of the file is left behind: it may be 64 KiB of nothing.
        sed -n '/^[a-z#]/p' /run/farrier/cd/farrier/ramdisk.cfg >"$config.new" 2>/dev/null
        umount /run/farrier/cd
        if grep -q '^seed=' "$config.new"; then
            mv "$config.new" "$config"
            return 0
        fi
    done
    return 1
}

told() { # leaves seed, mac, address, gateway, dns
    seed=$(word farrier.seed)
    mac=$(word BOOTIF | sed 's/^01-//' | tr 'A-F-' 'a-f:')
    address='' gateway='' dns=''
    if [ -z "$seed" ] && from_cd; then
        seed=$(setting seed)
        mac=$(setting mac | tr 'A-F-' 'a-f:')
        address=$(setting address)
        gateway=$(setting gateway)
        dns=$(setting dns)
    fi
    [ -n "$seed" ]
}

# ---- network ----------------------------------------------------------------------------------

interfaces() { # the one that was booted from, or all that are there
    for dir in /sys/class/net/*; do
        name=${dir##*/}
        [ -e "$dir/device" ] || continue
        if [ -z "$mac" ] || [ "$(cat "$dir/address" 2>/dev/null)" = "$mac" ]; then
            printf '%s\n' "$name"
        fi
    done
}

carrier() { # carrier INTERFACE: within ten seconds; a port of a switch may take that long
    ip link set "$1" up 2>/dev/null
    n=0
    while [ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" != 1 ]; do
        n=$((n + 1))
        [ "$n" -le 10 ] || return 1
        wait_s 1
    done
}

network() { # one interface with an address; says why not
    list=$(interfaces)
    if [ -z "$list" ]; then
        say "no network interface${mac:+ with MAC $mac}; looking again"
        udevadm trigger --action=add --subsystem-match=net --subsystem-match=pci
        return 1
    fi
    for name in $list; do
        if ! carrier "$name"; then
            say "$name: no link"
            continue
        fi
        if [ -n "$address" ]; then
            ip addr flush dev "$name"
            ip addr add "$address" dev "$name" || continue
            if [ -n "$gateway" ]; then ip route replace default via "$gateway" dev "$name"; fi
            : >/etc/resolv.conf
            for server in $(printf %s "$dns" | tr ',' ' '); do
                echo "nameserver $server" >>/etc/resolv.conf
            done
        elif ! udhcpc -i "$name" -n -q -t 6 -T 2 -s /usr/lib/farrier/dhcp.sh >/dev/null 2>&1; then
            say "$name: no DHCP server answers"
            continue
        fi
        say "$name has $(ip -4 -o addr show dev "$name" | awk '{ print $4; exit }')"
        return 0
    done
    return 1
}

# Switches say twice a minute who they are (IEEE 802.1AB); hardware.sh reads what was heard.
neighbours() {
    mkdir -p /run/farrier/lldp
    for dir in /sys/class/net/*; do
        [ -e "$dir/device" ] || continue
        ip link set "${dir##*/}" up 2>/dev/null
        tcpdump -i "${dir##*/}" -Z root -c 1 -s 1600 -w "/run/farrier/lldp/${dir##*/}" \
            'ether proto 0x88cc and inbound' >/dev/null 2>&1 &
    done
}

lease() { # keeps the address that was leased; one process in the background
    [ -z "$address" ] || return 0
    [ ! -e /run/farrier/udhcpc.pid ] || return 0
    udhcpc -i "$name" -b -S -t 4 -A 10 -p /run/farrier/udhcpc.pid -s /usr/lib/farrier/dhcp.sh >/dev/null 2>&1
}

# ---- the seed, the SSH server, the call home ------------------------------------------------------

fetch_seed() {
    why=$(curl --silent --show-error --fail --location --max-time 30 --connect-timeout 5 \
        --max-filesize 1048576 --output /run/farrier/seed.json "${seed%/}/seed.json" 2>&1) || {
        say "cannot fetch ${seed%/}/seed.json: ${why:-no reason given}; trying again"
        return 1
    }
    if ! awk -f /usr/lib/farrier/json.awk /run/farrier/seed.json >/run/farrier/seed 2>/dev/null ||
        [ "$(field kind)" != ramdisk ] || [ -z "$(field run)" ] || [ -z "$(field callback)" ]; then
        say "what ${seed%/}/seed.json answers is no seed for a ramdisk; trying again"
        return 1
    fi
}

field() { # field PATH: a value of the seed
    sed -n "s/^$1=//p" /run/farrier/seed | head -n 1
}

ssh_server() {
    umask 077
    mkdir -p /root/.ssh /etc/dropbear
    sed -n 's/^authorized_keys\.[0-9]*=//p' /run/farrier/seed >/root/.ssh/authorized_keys
    printf 'run=%s\nname=%s\n' "$(field run)" "$(field name)" >/etc/farrier/ramdisk
    hostname "$(field name)" 2>/dev/null
    if [ ! -s /etc/dropbear/host_key ]; then
        dropbearkey -t ed25519 -f /etc/dropbear/host_key >/dev/null 2>&1
    fi
    host_key=$(dropbearkey -y -f /etc/dropbear/host_key 2>/dev/null |
        awk '$1 == "ssh-ed25519" { print $1, $2; exit }')
    umask 022
    if [ -z "$host_key" ]; then
        say 'no SSH host key could be made'
        return 1
    fi
    # Keys only, no forwarding; root's authorized_keys are the seed's.
    [ -e /run/dropbear.pid ] ||
        dropbear -r /etc/dropbear/host_key -s -j -k -p 22 -P /run/dropbear.pid 2>/dev/null
}

call_home() { # 0 taken, 1 never will be
    (
        umask 077
        printf '{"token":"%s","ok":true,"host_key":"%s","message":null}' \
            "$(field token)" "$host_key" >/run/farrier/callback.json
    )
    while :; do
        # The token is in the file: a command line can be read by every process.
        code=$(curl --silent --output /run/farrier/answer --write-out '%{http_code}' \
            --max-time 30 --connect-timeout 5 --header 'Content-Type: application/json' \
            --data-binary @/run/farrier/callback.json "$(field callback)" 2>/dev/null)
        case $code in
            2??)
                rm -f /run/farrier/callback.json
                return 0
                ;;
            408 | 429) say "calling home: the server says $code; trying again" ;;
            4??)
                say "calling home: the server says $code, this run is over; boot the machine again"
                return 1
                ;;
            *) say "calling home: no answer ($code); trying again" ;;
        esac
        wait_s 5
    done
}

# ---- main ---------------------------------------------------------------------------------------

devices
ip link set lo up
n=0
until told; do
    say 'no farrier.seed= on the command line and no seed on a CD; looking again'
    udevadm settle --timeout=5
    n=$((n + 1))
    wait_s $((n < 10 ? 2 : 15))
done
until network; do wait_s 3; done
lease
neighbours
n=0
until fetch_seed; do
    n=$((n + 1))
    # A link that went, or a lease from the wrong network.
    if [ $((n % 10)) -eq 0 ] && [ -z "$address" ]; then network; fi
    wait_s $((n < 10 ? 3 : 15))
done
until ssh_server; do wait_s 5; done
say "run $(field run): SSH is up, host key $host_key"
if call_home; then
    say "ready for $(field name), up for $(cut -d ' ' -f 1 /proc/uptime) s"
fi
rm -f /run/farrier/seed.json
while :; do wait_s 3600; done
