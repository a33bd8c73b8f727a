#!/usr/bin/env bash
# Runs the tests, part by part, against the release binary.
#
#   tests/run.sh                 every part
#   tests/run.sh --list          the parts' names
#   tests/run.sh --only PART     one part (may be given again)
#   tests/run.sh --long          longer simulations and larger fleets, libFuzzer (FARRIER_TEST_LONG=1)
#
# The last line is "N passed, N failed", over all parts. A part that crashes, does not compile,
# has no file or runs no test counts as a failure: silence is never a pass.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

# One line a part: NAME | NEEDS | WHAT
#   NEEDS  comma-separated: ssh, curl, sqlite, sushy, redfish_tools, ipmi, wire, image_tools, vm, or - (see the need_* functions)
#   WHAT   integration tests in tests/ by name (tests/NAME.rs or tests/NAME/main.rs),
#          or one bash function below, as fn:NAME, that runs cargo test itself
parts='
unit   | -          | fn:run_unit
core   | -          | director firmware bios volume ramdisk rescue drift restored outage remediation ways_out
arch   | -          | architecture
sim    | -          | sim
crash  | sqlite     | crash
store  | sqlite     | store fsck backup webhook
bmc    | sushy      | bmc blackhole vbmc_behaviour
vbmc   | redfish_tools | vbmc
ipmi   | ipmi       | ipmi
fuzz   | -          | fn:run_fuzz
scan   | -          | scan
shell  | ssh,busybox,image_tools | shell cluster
credentials | -     | credentials
boot   | curl,busybox | boot netboot render installer
dhcp   | wire       | dhcp
image  | image_tools,busybox | image
config | -          | config
api    | curl,sushy | api cli bmc_cli
serve  | ssh        | serve service restore
demo   | curl,ssh   | demo
kill   | ssh        | kill
disk   | ssh        | durability
sushy  | ssh,sushy  | sushy
vm     | vm         | fn:run_vm
'

cache=${XDG_CACHE_HOME:-$HOME/.cache}/farrier-tests
target=${CARGO_TARGET_DIR:-target}
passed=0
failed=0
trouble=()

run_unit() {
    local rc=0
    cargo_test --lib --bins || rc=$?
    cargo_test --doc || rc=$?
    return "$rc"
}

run_vm() {
    local rc=0
    cargo_test --test vm || rc=$?
    # The lives that look at each step: a quarter of an hour each.
    [ -z "${FARRIER_TEST_LONG:-}" ] || cargo_test --test vm -- --ignored || rc=$?
    return "$rc"
}

run_fuzz() {
    local rc=0
    if [ -n "${FARRIER_TEST_LONG:-}" ]; then
        export FARRIER_FUZZ_SEEDS=$target/fuzz/captured
        rm -rf "$FARRIER_FUZZ_SEEDS"
    fi
    cargo_test --test fuzz || rc=$?
    [ -z "${FARRIER_TEST_LONG:-}" ] || fuzz_long || rc=1
    return "$rc"
}

# Every target to libFuzzer, ten minutes each (FARRIER_FUZZ_S), two side by side; counts one test a
# target. Without a sanitizer: the crate forbids `unsafe`, so what is looked for are panics, endless
# loops and memory without bound, and the stable compiler will do.
fuzz_long() {
    local work=$target/fuzz host names name log rc=0
    if ! need_fuzz; then
        echo "tests/run.sh: could not install what the long form of fuzz needs" >&2
        failed=$((failed + 1)) part_failed=$((part_failed + 1))
        return 1
    fi
    host=$(rustc -vV | sed -n 's/^host: //p')
    # What is fuzzed has the versions that ship.
    cp Cargo.lock fuzz/Cargo.lock
    if ! "$cargo_fuzz/bin/cargo-fuzz" fuzz build --dev --sanitizer none --target-dir "$work"; then
        failed=$((failed + 1)) part_failed=$((part_failed + 1))
        return 1
    fi
    names=$(sed -nE 's/^name = "(.*)"$/\1/p' fuzz/Cargo.toml | grep -v '^farrier-fuzz$')
    mkdir -p "$work/logs" "$work/artifacts"
    export work host
    # shellcheck disable=SC2016
    xargs -P 2 -I NAME bash -c 'fuzz_one NAME' <<<"$names" || true
    for name in $names; do
        log=$work/logs/$name.log
        part_ran=$((part_ran + 1))
        if grep -aq '^Done ' "$log" && ! ls "$work/artifacts/$name-"* >/dev/null 2>&1; then
            passed=$((passed + 1))
            echo "fuzz $name: $(fuzz_figures "$log")"
        else
            failed=$((failed + 1)) part_failed=$((part_failed + 1)) rc=1
            echo "fuzz $name FAILED; what breaks it: $(ls "$work/artifacts/$name-"* 2>/dev/null)" >&2
            tail -n 25 "$log" >&2
        fi
    done
    return "$rc"
}

fuzz_one() { # fuzz_one NAME: its log ends with a line "Done" unless something broke it
    local name=$1 seconds=${FARRIER_FUZZ_S:-600} seeds=()
    # What earlier runs found stays in $work/corpus; the seeds in the checkout are only read.
    mkdir -p "$work/corpus/$name"
    rm -f "$work/artifacts/$name-"*
    seeds=("$work/corpus/$name" "fuzz/corpus/$name")
    [ ! -d "$FARRIER_FUZZ_SEEDS/$name" ] || seeds+=("$FARRIER_FUZZ_SEEDS/$name")
    nice "$work/$host/debug/$name" "${seeds[@]}" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=2048 -max_len=65536 -dict=fuzz/redfish.dict -print_final_stats=1 \
        -artifact_prefix="$work/artifacts/$name-" >"$work/logs/$name.log" 2>&1
}
export -f fuzz_one

fuzz_figures() { # fuzz_figures LOG: executions and coverage in one line
    local executions covered
    executions=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)/\1/p' "$1")
    covered=$(grep -aoE 'cov: [0-9]+ ft: [0-9]+' "$1" | tail -n 1)
    echo "$executions executions, $covered, $(grep -aE '^Done ' "$1" | sed -E 's/.* in ([0-9]+) second.*/\1 s/')"
}

# ---- what the parts need ------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    command -v apt-get >/dev/null 2>&1 || { echo "tests/run.sh: no apt-get here; install $*" >&2; return 1; }
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}
apt_need() { # apt_need PACKAGE COMMAND: installs PACKAGE unless COMMAND is there
    command -v "$2" >/dev/null 2>&1 || [ -x "/usr/sbin/$2" ] || apt_install "$1"
}

need_build() {
    apt_need gcc gcc
    [ -e /usr/include/stdlib.h ] || apt_install libc6-dev
    command -v cargo >/dev/null 2>&1 || { echo "tests/run.sh: no cargo here; install Rust 1.95 or later" >&2; return 1; }
}
need_ssh() {
    apt_need openssh-client ssh
    apt_need openssh-client ssh-keygen
    apt_need openssh-server sshd
}
need_busybox() { apt_need busybox-static busybox; }
need_curl() { apt_need curl curl; }
# A private wire of network namespaces, with other people's DHCP server and clients on it.
need_wire() {
    [ "$(id -u)" = 0 ] || { echo "tests/run.sh: this part makes network namespaces: run it as root" >&2; return 1; }
    apt_need iproute2 ip
    apt_need dnsmasq-base dnsmasq
    apt_need util-linux setpriv
    need_busybox
    need_curl
}
need_sqlite() { apt_need sqlite3 sqlite3; }

# new_venv DIR PACKAGE...: a Python environment outside the checkout, built again when its mark is
# absent.
new_venv() {
    local venv=$1
    shift
    [ ! -e "$venv/.ready" ] || return 0
    rm -rf "$venv"
    mkdir -p "$cache"
    apt_need python3 python3
    # Without ensurepip a venv has no pip; Debian packs it apart.
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    touch "$venv/.ready"
}

# The sushy-tools emulator, a second opinion on Redfish that nobody here wrote. It lives in a
# virtual environment outside the checkout, and is built again when its mark is absent.
sushy_version=2.2.0
sushy_venv=$cache/sushy-tools-$sushy_version
export FARRIER_SUSHY_EMULATOR=$sushy_venv/bin/sushy-emulator
need_sushy() {
    new_venv "$sushy_venv" "sushy-tools==$sushy_version"
    [ -x "$FARRIER_SUSHY_EMULATOR" ]
}

# DMTF's service validator and clients, and OpenStack's client library: programs that drive and judge
# the virtual BMC. The number is raised with any version below.
redfish_tools_venv=$cache/redfish-tools-1
export FARRIER_REDFISH_TOOLS=$redfish_tools_venv/bin
need_redfish_tools() {
    new_venv "$redfish_tools_venv" redfish_service_validator==3.1.8 redfish_utilities==3.5.2 \
        redfishtool==1.1.8 sushy==5.14.0
    [ -x "$FARRIER_REDFISH_TOOLS/rf_service_validator" ]
}

# ipmitool, OpenIPMI's simulator, and pyghmi's BMC in a virtual environment of its own.
pyghmi_version=1.6.19
pyghmi_venv=$cache/pyghmi-$pyghmi_version
export FARRIER_PYGHMI_PYTHON=$pyghmi_venv/bin/python
need_ipmi() {
    apt_need ipmitool ipmitool
    apt_need openipmi ipmi_sim
    new_venv "$pyghmi_venv" "pyghmi==$pyghmi_version"
    [ -x "$FARRIER_PYGHMI_PYTHON" ]
}

# libFuzzer's driver, for the long form of fuzz alone, outside of the checkout and of ~/.cargo/bin.
cargo_fuzz_version=0.13.2
cargo_fuzz=$cache/cargo-fuzz-$cargo_fuzz_version
need_fuzz() {
    apt_need g++ g++ || return 1
    [ ! -e "$cargo_fuzz/.ready" ] || return 0
    rm -rf "$cargo_fuzz"
    cargo install --quiet --locked --root "$cargo_fuzz" "cargo-fuzz@$cargo_fuzz_version" || return 1
    touch "$cargo_fuzz/.ready"
}
# What writes disk images, and what the deploy job calls.
need_image_tools() {
    apt_need curl curl
    apt_need zstd zstd
    apt_need gdisk sgdisk
    apt_need dosfstools mkfs.vfat
    apt_need mtools mcopy
    apt_need qemu-utils qemu-img
}

# Virtual machines under a libvirtd of the test's own, with sushy-tools as their BMCs. The emulator
# needs Debian's Python, whose libvirt module comes with the system.
sushy_libvirt_venv=$cache/sushy-libvirt-$sushy_version
export FARRIER_SUSHY_LIBVIRT=$sushy_libvirt_venv/bin/sushy-emulator
need_vm() {
    if [ "$(id -u)" != 0 ]; then
        echo "tests/run.sh: part vm needs root: it makes network namespaces and runs libvirtd" >&2
        return 1
    fi
    need_image_tools
    local packages=(qemu-system-x86 ovmf ipxe ipxe-qemu libvirt-daemon libvirt-clients python3-libvirt
        python3-venv dnsmasq-base mmdebstrap grub-common grub-pc-bin grub-efi-amd64-bin e2fsprogs
        openssh-client iproute2 openssl)
    # 133 MB: debian-installer's kernel and initrd, and what takes a package apart. The walk-through of
    # vagrant/; libvirt's own networks have rules.
    if [ -n "${FARRIER_TEST_LONG:-}" ]; then
        packages+=(debian-installer-12-netboot-amd64 cpio vagrant vagrant-libvirt iptables)
    fi
    if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
        # A qemu-utils from backports holds back the distribution's qemu-system.
        # shellcheck disable=SC1091
        apt_install "${packages[@]}" "qemu-utils/$(. /etc/os-release && echo "$VERSION_CODENAME")" --allow-downgrades
    fi
    if [ ! -e "$sushy_libvirt_venv/.ready" ]; then
        rm -rf "$sushy_libvirt_venv"
        mkdir -p "$cache"
        /usr/bin/python3 -m venv --system-site-packages "$sushy_libvirt_venv" >&2
        "$sushy_libvirt_venv/bin/pip" install --quiet --disable-pip-version-check \
            "sushy-tools==$sushy_version" >&2
        touch "$sushy_libvirt_venv/.ready"
    fi
    [ -x "$FARRIER_SUSHY_LIBVIRT" ]
}

# ---- running ------------------------------------------------------------------------------------

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo_test() { # cargo test with the release profile, so that dependencies compile only once
    local log rc=0
    log=$(mktemp -p "$out")
    cargo test --release --locked --no-fail-fast --color never "$@" 2>&1 | tee "$log" || rc=$?
    # A test binary killed half-way prints no result line; cargo still named it as Running.
    local started reported
    started=$(grep -cE '^ +(Running|Doc-tests) ' "$log" || true)
    reported=$(grep -cE '^test result: ' "$log" || true)
    if [ "$reported" -lt "$started" ]; then
        failed=$((failed + started - reported))
        part_failed=$((part_failed + started - reported))
        echo "tests/run.sh: $((started - reported)) test binary ended without a result" >&2
    fi
    while read -r p f; do
        passed=$((passed + p))
        failed=$((failed + f))
        part_ran=$((part_ran + p + f))
        part_failed=$((part_failed + f))
    done < <(sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$log")
    return "$rc"
}

count_failure() { # count_failure PART WHY: a failure no test reported
    failed=$((failed + 1))
    trouble+=("$1: $2")
    echo "tests/run.sh: part $1: $2" >&2
}

run_part() { # run_part NAME NEEDS WHAT
    local name=$1 needs=$2 what=$3 need file args=() rc=0
    part_ran=0
    part_failed=0
    echo "== $name"
    if [ "$needs" != - ]; then
        for need in ${needs//,/ }; do
            # `if ! need_x` would switch set -e off inside it, so it gets a shell of its own.
            set +e
            (set -e; "need_$need")
            rc=$?
            set -e
            if [ "$rc" != 0 ]; then
                count_failure "$name" "could not install what it needs: $need"
                return 0
            fi
        done
    fi
    if [[ $what == fn:* ]]; then
        "${what#fn:}" || rc=$?
    else
        for file in $what; do
            if [ ! -f "tests/$file.rs" ] && [ ! -f "tests/$file/main.rs" ]; then
                count_failure "$name" "tests/$file.rs is missing"
                return 0
            fi
            args+=(--test "$file")
        done
        cargo_test "${args[@]}" || rc=$?
    fi
    if [ "$rc" != 0 ] && [ "$part_failed" = 0 ]; then
        count_failure "$name" "crashed or did not compile (exit status $rc)"
    elif [ "$part_ran" = 0 ] && [ "$part_failed" = 0 ]; then
        count_failure "$name" "ran no test"
    elif [ "$part_failed" != 0 ]; then
        trouble+=("$name: $part_failed failed")
    fi
}

table() { # NAME NEEDS WHAT..., blanks squeezed
    sed -nE 's/^ *([a-z0-9_-]+) *\| *([^| ]+) *\| *(.*[^ ]) *$/\1 \2 \3/p' <<<"$parts"
}

names=$(table | cut -d' ' -f1)
only=()
while [ $# -gt 0 ]; do
    case $1 in
    --list)
        echo "$names"
        exit 0
        ;;
    --only)
        [ $# -ge 2 ] || { echo "tests/run.sh: --only wants a part" >&2; exit 2; }
        grep -qxF -- "$2" <<<"$names" || { echo "tests/run.sh: no part $2; see --list" >&2; exit 2; }
        only+=("$2")
        shift
        ;;
    --long) export FARRIER_TEST_LONG=1 ;;
    *)
        echo "usage: tests/run.sh [--list] [--only PART]... [--long]" >&2
        exit 2
        ;;
    esac
    shift
done

# Tests drive the program that ships.
case $target in /*) ;; *) target=$PWD/$target ;; esac
export FARRIER_BIN=$target/release/farrier
# A snapshot that differs is a failure, not a file to write into the checkout.
export INSTA_UPDATE=no
set +e
(set -e; need_build; cargo build --release --locked --bin farrier)
built=$?
set -e
if [ "$built" != 0 ]; then
    echo "FAILED the release binary does not build"
    echo "0 passed, 1 failed"
    exit 1
fi

while read -r name needs what; do
    if [ ${#only[@]} -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then continue; fi
    run_part "$name" "$needs" "$what" </dev/null
done < <(table)

if [ ${#trouble[@]} -gt 0 ]; then
    printf 'FAILED %s\n' "${trouble[@]}"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
