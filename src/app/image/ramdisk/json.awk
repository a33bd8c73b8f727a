# Prints a JSON text as lines `path=value`: {"a":["x"],"b":{"c":1}} gives `a.0=x` and `b.c=1`.
# Exit 1 where it is no JSON. Characters below a blank are dropped, so that a value is one line.

function fail() { bad = 1; exit 1 }

function blank() { while (substr(text, at, 1) ~ /[ \t\r\n]/) at++ }

function string(    out, c) {
    at++
    out = ""
    while ((c = substr(text, at, 1)) != "\"") {
        if (c == "") fail()
        if (c == "\\") {
            at++
            c = substr(text, at, 1)
            if (c == "u") { c = sprintf("%c", hex(substr(text, at + 1, 4))); at += 4 }
            else if (c ~ /[bfnrt]/) c = ""
        }
        if (c >= " ") out = out c
        at++
    }
    at++
    return out
}

function hex(digits,    i, n) {
    n = 0
    for (i = 1; i <= 4; i++) n = n * 16 + index("0123456789abcdef", tolower(substr(digits, i, 1))) - 1
    return n < 127 ? n : 63
}

function value(path,    c, i, key, first) {
    blank()
    c = substr(text, at, 1)
    if (c == "{" || c == "[") {
        at++
        i = 0
        blank()
        if (substr(text, at, 1) ~ /[]}]/) { at++; return }
        for (;;) {
            blank()
            if (c == "{") {
                if (substr(text, at, 1) != "\"") fail()
                key = string()
                blank()
                if (substr(text, at, 1) != ":") fail()
                at++
            } else {
                key = i++
            }
            value(path == "" ? key : path "." key)
            blank()
            first = substr(text, at, 1)
            at++
            if (first == ",") continue
            if ((c == "{" && first == "}") || (c == "[" && first == "]")) return
            fail()
        }
    }
    if (c == "\"") {
        printf "%s=%s\n", path, string()
        return
    }
    if (!match(substr(text, at), /^[-+.0-9a-zA-Z]+/)) fail()
    if (substr(text, at, RLENGTH) != "null") printf "%s=%s\n", path, substr(text, at, RLENGTH)
    at += RLENGTH
}

{ text = text $0 "\n" }

END {
    if (bad) exit 1
    at = 1
    value("")
    blank()
    if (at <= length(text)) exit 1
}
