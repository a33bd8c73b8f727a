# The job contract on the host: start, show, tail. Farrier sends this text on stdin with
# identity.sh before it and, for a start, the functions `runner` and `payload` that print what is
# to run. The call is the last line, so a text that was cut off does nothing.

jobs=${FARRIER_ROOT:-}/var/lib/farrier/jobs

boot_id() {
    cat "${FARRIER_ROOT:-}/proc/sys/kernel/random/boot_id" 2>/dev/null
}

# start NAME TIMEOUT_S UUID SERIAL [ARGUMENT…]
# Prints one line: farrier started DRIVER | exists | refused WHAT | failed WHY. With our name in
# front, so that nothing a login shell prints can pass for it.
start() {
    name=$1 timeout_s=$2 uuid=$3 serial=$4
    shift 4
    identity_check "$uuid" "$serial"
    if [ $? -eq 1 ]; then
        printf 'farrier refused %s\n' "$saw"
        return 0
    fi
    dir=$jobs/$name
    umask 077
    mkdir -p "$jobs" 2>/dev/null
    # The one atomic act: whoever makes the directory starts the job, nobody else ever does.
    if ! why=$(mkdir "$dir" 2>&1); then
        if [ -d "$dir" ]; then
            echo 'farrier exists'
        else
            printf 'farrier failed %s\n' "$why"
        fi
        return 0
    fi
    if ! { boot_id >"$dir/boot_id" && printf '%s\n' "$name" >"$dir/run" &&
        payload >"$dir/payload.sh" && runner >"$dir/runner.sh"; } 2>/dev/null; then
        rm -rf "${jobs:?}/${name:?}"
        printf 'farrier failed cannot write below %s: is the disk full?\n' "$dir"
        return 0
    fi
    launch "$@"
}

launch() {
    if [ "$(id -u)" = 0 ] && [ -d "${FARRIER_ROOT:-}/run/systemd/system" ] &&
        command -v systemd-run >/dev/null 2>&1 &&
        systemd-run --quiet --collect --unit="farrier-$name" \
            --description="Farrier job $name" \
            --setenv=FARRIER_ROOT="${FARRIER_ROOT:-}" --setenv=PATH="$PATH" \
            /bin/sh "$dir/runner.sh" "$dir" "$timeout_s" "$@" </dev/null >/dev/null 2>&1; then
        echo 'farrier started systemd-run'
        return 0
    fi
    # The runner takes only one launch, so falling back after a failed systemd-run is safe.
    if command -v setsid >/dev/null 2>&1; then
        setsid sh "$dir/runner.sh" "$dir" "$timeout_s" "$@" </dev/null >/dev/null 2>&1 &
    else
        (
            trap '' HUP
            exec sh "$dir/runner.sh" "$dir" "$timeout_s" "$@"
        ) </dev/null >/dev/null 2>&1 &
    fi
    echo 'farrier started sh'
}

# Is the runner alive? Its pid alone would be fooled by a reused number, a zombie by /proc.
alive() {
    pid=$(cat "$dir/pid" 2>/dev/null)
    [ -n "$pid" ] || return 1
    stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086 # split on purpose
    set -- $stat
    [ "$1" != Z ] && [ "${20}" = "$(cat "$dir/start" 2>/dev/null)" ]
}

count() { # a file's number, 0 for none
    n=$(cat "$1" 2>/dev/null)
    case $n in
        '' | *[!0-9]*) echo 0 ;;
        *) echo "$n" ;;
    esac
}

size() {
    if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

finished() {
    printf 'state=finished\nexit=%s\n' "$(cat "$dir/exit")"
}

# show NAME: key=value lines, then `result BYTES` and the result file, then `tail` and the last
# output up to the end.
show() {
    dir=$jobs/$1
    now=$(boot_id)
    was=$(cat "$dir/boot_id" 2>/dev/null)
    printf 'boot_id=%s\n' "$now"
    if [ -d "$jobs" ] && [ ! -x "$jobs" ]; then
        printf 'state=unreadable\nwhy=%s belongs to another user\n' "$jobs"
    elif [ ! -d "$dir" ]; then
        echo state=absent
    elif [ -f "$dir/exit" ]; then
        finished
    elif [ -n "$was" ] && [ "$was" != "$now" ]; then
        printf 'state=lost\nwhy=the host rebooted (boot id %s, was %s)\n' "$now" "$was"
    elif alive; then
        printf 'state=running\nprogress=%s\n' $(($(size "$dir/out") + $(count "$dir/heartbeat")))
    elif [ -f "$dir/exit" ]; then
        # It ended between the two looks.
        finished
    elif [ -n "$pid" ]; then
        # As `alive` read it: the file may have come only after that look.
        printf 'state=lost\nwhy=process %s is gone and left no result\n' "$pid"
    elif [ -z "$(find "$dir" -prune -mmin +1 2>/dev/null)" ]; then
        # The directory is made, the runner has not said its pid yet.
        printf 'state=running\nprogress=0\n'
    else
        printf 'state=lost\nwhy=its start was cut off\n'
    fi
    bytes=$(size "$dir/result.json")
    if [ "$bytes" -gt 32768 ]; then bytes=0; fi
    printf 'result %s\n' "$bytes"
    if [ "$bytes" -gt 0 ]; then head -c "$bytes" "$dir/result.json"; fi
    printf '\ntail\n'
    tail -c 4096 "$dir/out" 2>/dev/null
    return 0
}

# tail NAME BYTES: the last output of a job.
last_output() {
    tail -c "$2" "$jobs/$1/out" 2>/dev/null
}
