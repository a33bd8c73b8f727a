# Is this host the machine that is meant? DMI against what the BMC said, by the rules of
# src/model/identity.rs: placeholders are unknown, UUIDs compare in both byte orders.

LC_ALL=C
export LC_ALL

# 32 lower-case hex digits; nothing for placeholders and garbage.
clean_uuid() {
    cu=$1
    case $cu in
        *[!0-9a-f-]*) cu=$(printf %s "$cu" | tr -d ' \t\r\n-' | tr A-F a-f) ;;
        *) while [ "${cu#*-}" != "$cu" ]; do cu=${cu%%-*}${cu#*-}; done ;;
    esac
    case $cu in
        *[!0-9a-f]*) return 0 ;;
        00000000000000000000000000000000 | ffffffffffffffffffffffffffffffff) return 0 ;;
    esac
    if [ "${#cu}" -eq 32 ]; then printf %s "$cu"; fi
}

# SMBIOS before 2.6 and some BMCs give the first three fields with swapped bytes.
swap_uuid() {
    printf %s "$1" | sed 's/^\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)/\4\3\2\1\6\5\8\7/'
}

# A serial number without blanks around it; nothing for what boards say when none was programmed.
clean_serial() {
    cs=$(printf %s "$1" | tr -d '\r\n' | sed 's/^[[:space:]]*//; s/[[:space:]]*$//')
    case $cs in
        *[!0Ff.xX\ -]*) ;;
        *) return 0 ;;
    esac
    case $(printf %s "$cs" | tr A-Z a-z) in
        none | n/a | na) return 0 ;;
        *"to be filled"* | *"default string"* | *"system serial number"*) return 0 ;;
        *"not specified"* | *unknown* | *0123456789* | *empty*) return 0 ;;
    esac
    printf %s "$cs"
}

# identity_check UUID SERIAL: 0 it is the machine, 1 it is another one, 2 nobody can tell.
# Leaves what was seen in $saw.
identity_check() {
    want_uuid=$(clean_uuid "$1")
    want_serial=$(clean_serial "$2")
    dmi=${FARRIER_ROOT:-}/sys/class/dmi/id
    have_uuid=$(clean_uuid "$(cat "$dmi/product_uuid" 2>/dev/null)")
    have_serial=$(clean_serial "$(cat "$dmi/product_serial" 2>/dev/null)")
    saw="DMI uuid ${have_uuid:-unknown}, serial ${have_serial:-unknown};"
    saw="$saw expected uuid ${want_uuid:-unknown}, serial ${want_serial:-unknown}"
    same=
    if [ -n "$want_uuid" ] && [ -n "$have_uuid" ]; then
        if [ "$have_uuid" != "$want_uuid" ] && [ "$(swap_uuid "$have_uuid")" != "$want_uuid" ]; then
            return 1
        fi
        same=1
    fi
    if [ -n "$want_serial" ] && [ -n "$have_serial" ]; then
        [ "$have_serial" = "$want_serial" ] || return 1
        same=1
    fi
    [ -n "$same" ] || return 2
}
