#!/bin/sh
# Speaks nvidia-smi's formats for the GPUs of a virtual host: `-L`, `-q -x`, and the
# `--query-gpu=… --format=csv[,noheader][,nounits]` form.
world=$FARRIER_ROOT/.world
gpus=$(cat "$world/gpus" 2>/dev/null) || gpus=0
seed=$(cat "$world/seed" 2>/dev/null) || seed=0
uuid() { printf 'GPU-%08x-0000-4000-8000-%012x' "$seed" "$1"; }
serial() { printf '165%06d%02d' "$((seed % 1000000))" "$1"; }
temp() { echo $((38 + ($1 * 7 + seed) % 24)); }

list() {
    i=0
    while [ "$i" -lt "$gpus" ]; do
        echo "GPU $i: Virtual GPU (UUID: $(uuid "$i"))"
        i=$((i + 1))
    done
}

query() {
    fields=$1 format=$2
    case $format in
    *noheader*) ;;
    *) echo "$fields" | sed 's/,/, /g' ;;
    esac
    unit=' MiB'
    case $format in *nounits*) unit= ;; esac
    i=0
    while [ "$i" -lt "$gpus" ]; do
        line=
        for field in $(echo "$fields" | tr ',' ' '); do
            case $field in
            index) value=$i ;;
            name | gpu_name) value='Virtual GPU' ;;
            uuid | gpu_uuid) value=$(uuid "$i") ;;
            serial | gpu_serial) value=$(serial "$i") ;;
            temperature.gpu) value=$(temp "$i") ;;
            driver_version) value=580.82.09 ;;
            memory.total) value="81559$unit" ;;
            pci.bus_id | gpu_bus_id) value=$(printf '00000000:%02X:00.0' $((i + 27))) ;;
            *)
                echo "Field \"$field\" is not a valid field to query."
                exit 2
                ;;
            esac
            line="${line:+$line, }$value"
        done
        echo "$line"
        i=$((i + 1))
    done
}

# Made when the host was: a real one takes a second, and is asked often.
xml() { cat "$world/smi.xml"; }

fields='' format='' want=
for arg in "$@"; do
    case $arg in
    -L | --list-gpus) want=list ;;
    -q) want=${want:-text} ;;
    -x | --xml-format) want=xml ;;
    --query-gpu=*) fields=${arg#--query-gpu=} want=query ;;
    --format=*) format=${arg#--format=} ;;
    esac
done
if [ "$gpus" -eq 0 ]; then
    echo 'No devices were found'
    exit 6
fi
case $want in
list) list ;;
query) query "$fields" "$format" ;;
xml) xml ;;
*) xml | sed -e '/^<[?!]/d' -e 's/<[^>]*>/ /g' ;;
esac
