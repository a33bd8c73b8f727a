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

xml() {
    cat <<END
<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>Sun Nov  1 00:00:00 2026</timestamp>
	<driver_version>580.82.09</driver_version>
	<cuda_version>13.0</cuda_version>
	<attached_gpus>$gpus</attached_gpus>
END
    i=0
    while [ "$i" -lt "$gpus" ]; do
        cat <<END
	<gpu id="$(printf '00000000:%02X:00.0' $((i + 27)))">
		<product_name>Virtual GPU</product_name>
		<persistence_mode>Enabled</persistence_mode>
		<mig_mode>
			<current_mig>Disabled</current_mig>
			<pending_mig>Disabled</pending_mig>
		</mig_mode>
		<serial>$(serial "$i")</serial>
		<uuid>$(uuid "$i")</uuid>
		<vbios_version>96.00.99.00.01</vbios_version>
		<gpu_recovery_action>None</gpu_recovery_action>
		<pci>
			<pci_gpu_link_info>
				<pcie_gen>
					<max_link_gen>5</max_link_gen>
					<current_link_gen>1</current_link_gen>
				</pcie_gen>
				<link_widths>
					<max_link_width>16x</max_link_width>
					<current_link_width>16x</current_link_width>
				</link_widths>
			</pci_gpu_link_info>
			<replay_counter>0</replay_counter>
		</pci>
		<ecc_errors>
			<volatile>
				<sram_correctable>0</sram_correctable>
				<sram_uncorrectable_parity>0</sram_uncorrectable_parity>
				<sram_uncorrectable_secded>0</sram_uncorrectable_secded>
				<dram_correctable>0</dram_correctable>
				<dram_uncorrectable>0</dram_uncorrectable>
			</volatile>
		</ecc_errors>
		<remapped_rows>
			<remapped_row_corr>0</remapped_row_corr>
			<remapped_row_unc>0</remapped_row_unc>
			<remapped_row_pending>No</remapped_row_pending>
			<remapped_row_failure>No</remapped_row_failure>
		</remapped_rows>
		<temperature>
			<gpu_temp>$(temp "$i") C</gpu_temp>
			<gpu_temp_tlimit>N/A</gpu_temp_tlimit>
			<memory_temp>$(($(temp "$i") + 4)) C</memory_temp>
		</temperature>
		<processes>
		</processes>
	</gpu>
END
        i=$((i + 1))
    done
    echo '</nvidia_smi_log>'
}

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
