#!/bin/sh
# Speaks dcgmi's formats for the GPUs of a virtual host: `diag -r N [-j]` takes its time and answers
# in the JSON of DCGM 3 or 4 (by host); a sick GPU fails it with exit 226.
world=$FARRIER_ROOT/.world
gpus=$(cat "$world/gpus" 2>/dev/null) || gpus=0
sick=$(cat "$world/sick_gpu" 2>/dev/null) || sick=
shape=$(cat "$world/dcgm" 2>/dev/null) || shape=4

case $1 in
--version | -v)
    echo "dcgmi  version: $shape.2.3"
    exit 0
    ;;
discovery)
    echo "$gpus GPUs found."
    exit 0
    ;;
diag) ;;
*)
    echo "dcgmi: \`$1\` is not part of this virtual host" >&2
    exit 1
    ;;
esac

echo $(($(cat "$world/diags" 2>/dev/null || echo 0) + 1)) >"$world/diags"
sleep "$(cat "$world/diag_s" 2>/dev/null || echo 0)"
why='Detected an uncontained memory error on GPU 3: drain it and run a field diagnostic.'

v3() {
    all=
    i=0
    while [ "$i" -lt "$gpus" ]; do
        all="${all:+$all,}$i"
        i=$((i + 1))
    done
    memory="{\"gpu_ids\":\"$all\",\"status\":\"PASS\"}"
    if [ -n "$sick" ]; then
        memory="$memory,{\"gpu_ids\":\"$sick\",\"status\":\"FAIL\",\"warnings\":[\"$why\"]}"
    fi
    cat <<END
{"DCGM GPU Diagnostic":{"test_categories":[{"category":"Deployment","tests":[
{"name":"Denylist","results":[{"gpu_ids":"$all","status":"PASS"}]},
null,
{"name":"Page Retirement/Row Remap","results":[$memory]},
{"name":"Graphics Processes","results":[{"gpu_ids":"$all","status":"PASS"}]}]}],
"version":"3.3.5"}}
END
}

v4() {
    results='' summary=Pass
    i=0
    while [ "$i" -lt "$gpus" ]; do
        one="{\"entity_group\":\"GPU\",\"entity_group_id\":1,\"entity_id\":$i,\"status\":\"Pass\"}"
        if [ "$i" = "$sick" ]; then
            summary=Fail
            one="{\"entity_group\":\"GPU\",\"entity_group_id\":1,\"entity_id\":$i,\"status\":\"Fail\",\"warnings\":[{\"error_category\":10,\"error_id\":81,\"error_severity\":2,\"warning\":\"$why\"}]}"
        fi
        results="${results:+$results,}$one"
        i=$((i + 1))
    done
    cat <<END
{"DCGM Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"name":"software",
"results":[$results],
"test_summary":{"status":"$summary"}}]}]},
"metadata":{"Driver Version Detected":"580.82.09","version":"4.2.3"}}
END
}

case $shape in
3)
    # Old versions greet before they answer.
    echo 'Successfully ran diagnostic for group.'
    v3
    ;;
*) v4 ;;
esac
[ -z "$sick" ] || exit 226
