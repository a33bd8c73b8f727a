# Burn-in preset `smoke`: a few minutes. What nvidia-smi and `dcgmi diag -r 1` say about the GPUs,
# as {"ok","gpus","max_temp_c","problems","warnings","checks"} in $FARRIER_RESULT. A tool that is
# not on the host is a skipped check: how many GPUs there must be is the workflow's to say.
#
# Findings are lines `kind<TAB>…` in a scratch file: gpus N | temp C | problem TEXT |
# warning TEXT | check NAME OK DETAIL.

LC_ALL=C
export LC_ALL
result=${FARRIER_RESULT:?names the file to write}
scratch=$result.work
tab=$(printf '\t')

note() { # note KIND FIELD…
    line=$1
    shift
    for field in "$@"; do line="$line$tab$(printf %s "$field" | tr '\t\r\n' '   ')"; done
    printf '%s\n' "$line" >>"$scratch/findings"
}

smi() {
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        note check nvidia-smi true 'skipped: not on this host'
        return 0
    fi
    echo 'nvidia-smi -q -x'
    nvidia-smi -q -x >"$scratch/smi" 2>"$scratch/smi.err"
    code=$?
    if [ "$code" -ne 0 ]; then
        # The reason is on stdout for most errors.
        why=$(cat "$scratch/smi.err" "$scratch/smi" | grep -v '^[[:space:]]*<' | head -c 300)
        note problem "nvidia-smi ended with $code: $why"
    fi
    # One element a record, so that the layout does not matter; the DTD is never fetched.
    # Values carry units, "N/A" or "Requested functionality has been deprecated".
    awk '
        BEGIN { RS = "<"; attached = -1; hot = "" }
        function problem(text) { printf "problem\tGPU %s: %s\n", (id == "" ? "?" : id), text; bad++ }
        { at = index($0, ">"); if (!at) next
          tag = substr($0, 1, at - 1); text = substr($0, at + 1)
          gsub(/[\t\r\n]/, " ", text); sub(/^ +/, "", text); sub(/ +$/, "", text) }
        tag == "attached_gpus" && text ~ /^[0-9]+$/ { attached = text + 0 }
        tag ~ /^gpu id=/ { id = tag; sub(/^gpu id="/, "", id); sub(/".*$/, "", id); gpus++
                           max_width = ""; part = "" }
        tag == "/gpu" { id = "" }
        tag == "volatile" || tag == "aggregate" { part = tag }
        tag == "/volatile" || tag == "/aggregate" { part = "" }
        text ~ /GPU is lost|ERR!|Unknown Error/ { problem(tag " reads " text) }
        tag == "gpu_temp" && text ~ /^[0-9]/ { if (hot == "" || text + 0 > hot) hot = text + 0 }
        # Aggregate counts are history and survive a repaired row; volatile ones are since boot.
        part == "volatile" && tag ~ /uncorrectable/ && text ~ /^[0-9]+$/ && text + 0 > 0 {
            problem(text " uncorrectable ECC errors since boot (" tag ")") }
        tag ~ /sram_threshold_exceeded$/ && text == "Yes" { problem("SRAM error threshold exceeded") }
        tag == "remapped_row_failure" && text == "Yes" { problem("row remapping failed") }
        tag == "remapped_row_pending" && text == "Yes" { problem("a row remapping waits for a reset") }
        tag ~ /^pending_(retirement|blacklist)$/ && text == "Yes" { problem("a page retirement waits for a reset") }
        tag == "reset_required" && text == "Yes" { problem("needs a reset") }
        tag == "gpu_recovery_action" && text != "None" && text !~ /^N\/A/ && text != "" {
            problem("recovery action: " text) }
        # Width does not drop at idle; the PCIe generation does, so it is not looked at here.
        tag == "max_link_width" && text ~ /^[0-9]+x$/ { max_width = text + 0 }
        tag == "current_link_width" && text ~ /^[0-9]+x$/ && max_width != "" && text + 0 < max_width {
            problem("PCIe link is " text " of " max_width "x") }
        END {
            if (attached >= 0 && attached != gpus + 0) {
                id = "count"; problem(attached " attached, " gpus + 0 " listed") }
            printf "gpus\t%d\n", gpus
            if (hot != "") printf "temp\t%s\n", hot
            printf "check\tnvidia-smi\t%s\t%d GPUs, hottest %s C\n", \
                (bad ? "false" : "true"), gpus, (hot == "" ? "unknown" : hot)
        }' "$scratch/smi" >>"$scratch/findings"
    awk 'BEGIN { RS = "<" } /^product_name>/ { sub(/^[^>]*>/, ""); print }' "$scratch/smi" | sort | uniq -c
}

# DCGM 3.x and 4.x JSON by its paths: …/tests/[]/{name,results/[]/…,test_summary/…}. A banner may
# come before the brace, arrays may hold null, `warnings` is a string, an object or a list of both.
read_dcgm='
    { if (!seen && $0 !~ /^[ \t]*[{]/) next; seen = 1; json = json $0 "\n" }
    function add(list, more) { return list == "" ? more : list "; " more }
    function leaf(p, v) {
        if (v == "" ) return
        if (p ~ /\/tests\/\[\]\/name$/) name = v
        else if (p ~ /\/results\/\[\]\/status$/) status = tolower(v)
        else if (p ~ /\/results\/\[\]\/entity_group$/) group = v
        else if (p ~ /\/results\/\[\]\/(gpu_ids?|entity_id)(\/\[\])?$/) who = (who == "" ? v : who "," v)
        else if (p ~ /\/test_summary\/status$/) summary = tolower(v)
        else if (p ~ /\/warnings?(\/\[\])?\/error_id$/) error_id = v
        else if (p ~ /\/warnings?(\/\[\])?\/error_severity$/) severity = v
        else if (p ~ /\/warnings?(\/\[\])?\/warning$/) warning = add(warning, v)
        else if (p ~ /\/warnings?(\/\[\])?$/) said = add(said, v)
        else if (p ~ /\/runtime_error$/) { printf "problem\tdcgmi: %s\n", v; bad++ }
    }
    # Severity 5 is a setting (persistence mode off), not broken hardware.
    function end_warning() {
        if (warning == "" && error_id == "") return
        text = warning (error_id == "" ? "" : " (DCGM error " error_id ", severity " severity ")")
        if (severity == 5) text = "setting: " text
        said = add(said, text); warning = error_id = severity = ""
    }
    function end_result() {
        end_warning()
        results++
        if (status ~ /^fail/) { failed = add(failed, (group == "" ? "GPU" : group) " " who (said == "" ? "" : ": " said)) }
        else if (said != "") warned = add(warned, (group == "" ? "GPU" : group) " " who ": " said)
        said = status = group = who = ""
    }
    function end_test() {
        end_warning()
        if (said != "") { warned = add(warned, said); said = "" }
        tests++
        if (summary ~ /^fail/ && failed == "") failed = warned == "" ? "summary says fail" : warned
        if (failed != "") { printf "problem\tdcgmi %s: %s\n", name, failed; bad++ }
        else if (warned != "") printf "warning\tdcgmi %s: %s\n", name, warned
        printf "check\tdcgmi %s\t%s\t%s\n", name, (failed == "" ? "true" : "false"), \
            (failed != "" ? failed : warned != "" ? warned : results + 0 " results")
        name = failed = warned = summary = ""; results = 0
    }
    function path(  k, p) { p = ""; for (k = 1; k <= depth; k++) p = p "/" (kind[k] == "[" ? "[]" : key[k]); return p }
    END {
        n = length(json); depth = 0; i = 1
        while (i <= n) {
            c = substr(json, i, 1)
            if (c == "{" || c == "[") {
                depth++; kind[depth] = c; key[depth] = ""; want = (c == "{"); begun = 1
            } else if (c == "}" || c == "]") {
                depth--; p = path()
                if (c == "}" && p ~ /\/warnings?(\/\[\])?$/) end_warning()
                else if (c == "}" && p ~ /\/tests\/\[\]\/results\/\[\]$/) end_result()
                else if (c == "}" && p ~ /\/tests\/\[\]$/) end_test()
                if (depth == 0) break
            } else if (c == ",") {
                want = (kind[depth] == "{")
            } else if (c == ":") {
                want = 0
            } else if (c == "\"") {
                s = ""
                for (i++; i <= n; i++) {
                    c = substr(json, i, 1)
                    if (c == "\"") break
                    if (c == "\\") {
                        i++; c = substr(json, i, 1)
                        if (c == "u") { i += 4; c = "?" }
                        else if (c ~ /[nrtbf]/) c = " "
                    }
                    s = s c
                }
                if (want) key[depth] = s; else leaf(path(), s)
            } else if (c !~ /[ \t\r\n]/) {
                s = ""
                for (; i <= n; i++) {
                    c = substr(json, i, 1)
                    if (c ~ /[][{},: \t\r\n]/) break
                    s = s c
                }
                if (s != "null") leaf(path(), s)
                continue
            }
            i++
        }
        if (!begun) { print "problem\tdcgmi printed no JSON"; bad++ }
        else if (depth > 0) { print "problem\tdcgmi: its JSON is cut off"; bad++ }
        else if (!tests && !bad) { print "problem\tdcgmi: no test in its answer"; bad++ }
        exit (bad ? 1 : 0)
    }'

dcgm() {
    if ! command -v dcgmi >/dev/null 2>&1; then
        note check dcgmi true 'skipped: not on this host'
        return 0
    fi
    echo 'dcgmi diag -r 1 -j'
    dcgmi diag -r 1 -j >"$scratch/dcgm" 2>"$scratch/dcgm.err"
    code=$?
    # ASCII from here on: the result must be readable JSON whatever the tool prints.
    tr -cd '\011\012\040-\176' <"$scratch/dcgm" | awk "$read_dcgm" >"$scratch/dcgm.out"
    told=$?
    cat "$scratch/dcgm.out" >>"$scratch/findings"
    # 226 is "a test failed" (DCGM_ST_NVVS_ERROR); the tests above say which.
    if [ "$code" -ne 0 ] && { [ "$code" -ne 226 ] || [ "$told" -eq 0 ]; }; then
        why=$(cat "$scratch/dcgm.err" "$scratch/dcgm" | grep -v '^[[:space:]]*[]{}"[]' | head -c 300)
        note problem "dcgmi diag ended with $code: $why"
    fi
}

report() {
    tr -cd '\011\012\040-\176' <"$scratch/findings" | awk '
        BEGIN { FS = "\t" }
        function quote(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" substr(s, 1, 600) "\"" }
        function join(list, item) { return list == "" ? item : list "," item }
        $1 == "gpus" { gpus = $2 }
        $1 == "temp" { temp = $2 }
        $1 == "problem" && problems_n++ < 40 { problems = join(problems, quote($2)) }
        $1 == "warning" && warnings_n++ < 40 { warnings = join(warnings, quote($2)) }
        $1 == "check" && checks_n++ < 40 {
            if ($3 == "false") bad = 1
            checks = join(checks, "{\"name\":" quote($2) ",\"ok\":" $3 ",\"detail\":" quote($4) "}") }
        END { printf "{\"ok\":%s,\"gpus\":%d,\"max_temp_c\":%s,\"problems\":[%s],\"warnings\":[%s],\"checks\":[%s]}\n", \
            (problems_n || bad ? "false" : "true"), gpus, (temp == "" ? "null" : temp), problems, warnings, checks }'
}

main() {
    rm -rf "${scratch:?}"
    mkdir "$scratch" || exit 1
    : >"$scratch/findings"
    smi
    dcgm
    report >"$result" || exit 1
    rm -rf "${scratch:?}"
    cat "$result"
    # A sick GPU is a result, not a failed job: exit 0 and "ok" tell the two apart.
    exit 0
}

main "$@"
