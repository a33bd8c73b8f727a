# Runs one job to its end and leaves what it came to, whatever becomes of the SSH connection.
# runner.sh DIR TIMEOUT_S [ARGUMENT…] runs DIR/payload.sh with its output in DIR/out.

# The job's files are replaced whole and are on the disk before the next one says so.
settle() { # settle FILE: fsync
    sync "$1" 2>/dev/null || sync
}

leave() { # leave FILE TEXT
    printf '%s\n' "$2" >"$1.tmp" && settle "$1.tmp" && mv "$1.tmp" "$1"
}

uptime_s() { # not the wall clock: it is often set while a new machine boots
    read -r up rest </proc/uptime 2>/dev/null || up=0
    up=${up%%.*}
}

stop_payload() { # stop_payload SIGNAL
    if [ -n "$grouped" ]; then
        kill -s "$1" -- "-$child" 2>/dev/null
    else
        kill -s "$1" "$child" 2>/dev/null
    fi
}

watch() { # the heartbeat, and the end of a job that takes too long
    uptime_s
    began=$up
    beat=0
    while [ ! -e exit ] && kill -0 "$child" 2>/dev/null; do
        uptime_s
        if [ $((up - began)) -ge "$timeout_s" ]; then
            # No heartbeat from here on: what can't be killed must look stalled.
            : >timed-out
            stop_payload TERM
            sleep 5
            stop_payload KILL
            return
        fi
        beat=$((beat + 1))
        if [ $((beat % 5)) -eq 1 ]; then printf '%s\n' "$beat" >heartbeat; fi
        sleep 1
    done
}

main() {
    cd "$1" || exit 1
    timeout_s=$2
    shift 2
    # A second launch (a driver that failed after it had started us) ends here.
    mkdir started 2>/dev/null || exit 0
    FARRIER_RESULT=$PWD/result.tmp
    export FARRIER_RESULT
    # With the start time a pid names one process, also after the numbers have wrapped around.
    stat=$(cat "/proc/$$/stat" 2>/dev/null)
    stat=${stat##*) }
    # shellcheck disable=SC2086 # split on purpose
    start=$(set -- $stat && printf %s "${20}")
    leave start "$start"
    leave pid "$$"
    grouped=
    if command -v setsid >/dev/null 2>&1; then
        # Its own process group, so that the timeout reaches everything it started.
        setsid sh ./payload.sh "$@" >out 2>&1 </dev/null &
        child=$!
        grouped=1
    else
        sh ./payload.sh "$@" >out 2>&1 </dev/null &
        child=$!
    fi
    watch &
    wait "$child"
    code=$?
    if [ -e timed-out ]; then
        code=124
        printf 'ended by farrier after %s s\n' "$timeout_s" >>out
    fi
    settle out
    if [ -f result.tmp ]; then
        settle result.tmp
        mv result.tmp result.json
    fi
    leave exit "$code"
    settle .
}

main "$@"
