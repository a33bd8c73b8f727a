#!/usr/bin/env bash
# What the machines of the Vagrantfile have besides themselves.
#
#   ./lab.sh network   their private network; `vagrant up` calls this
#   ./lab.sh bmcs      a BMC for each of them, and the keys that farrier.toml names
#   ./lab.sh clean     ends the BMCs, takes away the network and lab/
#
# A BMC is a sushy-tools emulator that sees one machine: https://10.78.0.1:8441 is node1's. Environment:
# LAB_MACHINES (3), LAB_LIBVIRT_URI (qemu:///system), LAB_SUSHY (the emulator; else one is installed
# into lab/).
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

machines=${LAB_MACHINES:-3}
uri=${LAB_LIBVIRT_URI:-qemu:///system}
address=10.78.0.1
bridge=farrier0
sushy_version=2.2.0

say() { echo "lab.sh: $*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1 || die "no $1 here; on Debian and Ubuntu: sudo apt-get install $2"; }
ask() { virsh -q -c "$uri" "$@"; }

network() {
    have virsh libvirt-clients
    # `vagrant up` starts the machines side by side, and each one's trigger comes here.
    exec 9<"${BASH_SOURCE[0]}"
    flock 9
    if ! ask net-info farrier-lab >/dev/null 2>&1; then
        local file
        file=$(mktemp)
        # No DHCP and no DNS of libvirt's: both are Farrier's here, or nobody's.
        cat >"$file" <<EOF
<network>
  <name>farrier-lab</name>
  <bridge name='$bridge' stp='off' delay='0'/>
  <dns enable='no'/>
  <ip address='$address' netmask='255.255.255.0'/>
</network>
EOF
        ask net-define "$file" >/dev/null
        rm -f "$file"
    fi
    ask net-list --name | grep -qx farrier-lab || ask net-start farrier-lab >/dev/null
    say "network farrier-lab: $address/24 on $bridge"
}

emulator() { # leaves its path in $sushy
    sushy=${LAB_SUSHY:-lab/venv/bin/sushy-emulator}
    [ -x "$sushy" ] && return
    [ -z "${LAB_SUSHY:-}" ] || die "LAB_SUSHY names no program: $LAB_SUSHY"
    # The system's Python, whose libvirt module fits the system's libvirt.
    /usr/bin/python3 -c 'import libvirt' 2>/dev/null ||
        die "no libvirt for Python here; on Debian and Ubuntu: sudo apt-get install python3-libvirt"
    /usr/bin/python3 -m venv --system-site-packages lab/venv ||
        die "no venv for Python here; on Debian and Ubuntu: sudo apt-get install python3-venv"
    lab/venv/bin/pip install --quiet --disable-pip-version-check "sushy-tools==$sushy_version"
}

bmcs() {
    have openssl openssl
    have ssh-keygen openssh-client
    have curl curl
    umask 077
    mkdir -p lab
    emulator
    [ -f lab/ssh_key ] || ssh-keygen -q -t ed25519 -N '' -C farrier-lab -f lab/ssh_key
    [ -f lab/bmc-password ] || openssl rand -hex 12 | tr -d '\n' >lab/bmc-password
    [ -f lab/bmc.crt ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -days 365 -subj /CN=bmc -addext "subjectAltName=IP:$address" -keyout lab/bmc.key -out lab/bmc.crt 2>/dev/null
    # From a file: the arguments of a process are for everybody to read.
    "$(dirname "$sushy")/python" - lab/bmc-password >lab/htpasswd <<'EOF'
import bcrypt, sys
password = open(sys.argv[1], "rb").read()
print("admin:" + bcrypt.hashpw(password, bcrypt.gensalt(4)).decode())
EOF
    local n
    for n in $(seq "$machines"); do
        bmc "$n"
    done
    say "$machines BMCs: https://$address:8441 and up, user admin, password in lab/bmc-password"
}

bmc() { # bmc N
    local n=$1 dir=lab/bmc$1 port=$((8440 + $1)) uuid
    uuid=$(printf '7e57ab1e-0078-4000-8000-%012x' "$n")
    ask dominfo "$uuid" >/dev/null 2>&1 || die "libvirt knows no node$n; \`vagrant up\` makes it"
    if [ -f "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; then return; fi
    mkdir -p "$dir/state"
    cat >"$dir/conf.py" <<EOF
SUSHY_EMULATOR_LISTEN_IP = '$address'
SUSHY_EMULATOR_LISTEN_PORT = $port
SUSHY_EMULATOR_SSL_CERT = '$PWD/lab/bmc.crt'
SUSHY_EMULATOR_SSL_KEY = '$PWD/lab/bmc.key'
SUSHY_EMULATOR_AUTH_FILE = '$PWD/lab/htpasswd'
SUSHY_EMULATOR_STATE_DIR = '$PWD/$dir/state'
SUSHY_EMULATOR_LIBVIRT_URI = '$uri'
SUSHY_EMULATOR_ALLOWED_INSTANCES = ['$uuid']
SUSHY_EMULATOR_VMEDIA_VERIFY_SSL = False
EOF
    nohup "$sushy" --config "$PWD/$dir/conf.py" </dev/null >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    local tries=0
    until curl -sk -o /dev/null "https://$address:$port/redfish/v1/"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 150 ] || ! kill -0 "$(cat "$dir/pid")" 2>/dev/null; then
            tail -n 5 "$dir/log" >&2
            die "the BMC of node$n does not start; its log is $PWD/$dir/log"
        fi
        sleep 0.2
    done
}

clean() {
    local pid
    for pid in lab/bmc*/pid; do
        [ -f "$pid" ] || continue
        kill "$(cat "$pid")" 2>/dev/null || true
        rm -f "$pid"
    done
    ask net-destroy farrier-lab >/dev/null 2>&1 || true
    ask net-undefine farrier-lab >/dev/null 2>&1 || true
    rm -rf lab
}

case ${1:-} in
    network | bmcs | clean) "$1" ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
