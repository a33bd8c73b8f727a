//! smoke.sh against what `nvidia-smi -q -x` and `dcgmi diag -r 1 -j` print.

use crate::world::{World, worlds};
use farrier::model::action::JobScript;
use farrier::shell::script;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// `nvidia-smi -q -x` for `n` GPUs; `extra` goes into the last one.
pub(crate) fn smi(n: usize, extra: &str) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n\
         <nvidia_smi_log>\n\t<driver_version>555.42.06</driver_version>\n\
         \t<attached_gpus>{n}</attached_gpus>\n"
    );
    for i in 0..n {
        let last = if i + 1 == n { extra } else { "" };
        text.push_str(&format!(
            "\t<gpu id=\"00000000:{i:02X}:00.0\">\n\t\t<product_name>NVIDIA H200</product_name>\n\
             \t\t<serial>16500000000{i}</serial>\n\
             \t\t<uuid>GPU-00000000-0000-0000-0000-00000000000{i}</uuid>\n\
             \t\t<gpu_reset_status><reset_required>No</reset_required></gpu_reset_status>\n\
             \t\t<pci><pci_gpu_link_info><link_widths><max_link_width>16x</max_link_width>\
             <current_link_width>16x</current_link_width></link_widths></pci_gpu_link_info></pci>\n\
             \t\t<ecc_errors><volatile><sram_correctable>0</sram_correctable>\
             <sram_uncorrectable_parity>0</sram_uncorrectable_parity>\
             <dram_uncorrectable>0</dram_uncorrectable></volatile>\
             <aggregate><dram_uncorrectable>3</dram_uncorrectable></aggregate></ecc_errors>\n\
             \t\t<remapped_rows><remapped_row_pending>No</remapped_row_pending>\
             <remapped_row_failure>No</remapped_row_failure></remapped_rows>\n\
             \t\t<temperature><gpu_temp>{} C</gpu_temp><memory_temp>N/A</memory_temp></temperature>\n\
             {last}\t</gpu>\n",
            30 + i
        ));
    }
    text.push_str("</nvidia_smi_log>\n");
    text
}

fn print(w: &World, tool: &str, text: &str, exit: i32) {
    let file = w.dir.path().join(format!("{tool}.out"));
    fs::write(&file, text).unwrap();
    w.shim(tool, &format!("cat '{}'\nexit {exit}", file.display()));
}

fn smoke(w: &World) -> Value {
    let payload = w.dir.path().join("smoke.sh");
    let result = w.dir.path().join("result");
    let _ = fs::remove_file(&result);
    fs::write(&payload, script::payload(JobScript::Smoke)).unwrap();
    let out = w.run(Command::new("sh").arg(&payload).env("FARRIER_RESULT", &result), "");
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    serde_json::from_str(&fs::read_to_string(result).unwrap()).unwrap()
}

fn problems(v: &Value) -> String {
    v["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("|")
}

const GOOD_4: &str = r#"{"DCGM Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"name":"software","results":[{"entity_group":"GPU","entity_group_id":1,"entity_id":0,"status":"Pass"},{"entity_group":"GPU","entity_group_id":1,"entity_id":1,"status":"Skip"}],"test_summary":{"status":"Pass","info":["SRAM Threshold checking was skipped."]}}]}]},
 "entity_groups":[{"entity_group":"GPU","entity_group_id":1,"entities":[{"entity_id":0,"device_id":"2335","serial_num":"<<<NOT_SUPPORTED>>>"}]}],
 "metadata":{"Driver Version Detected":"555.42.06","version":"4.2.3"}}
"#;

const BAD_4: &str = r#"{"DCGM Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"name":"software","results":[{"entity_group":"GPU","entity_group_id":1,"entity_id":3,"status":"Fail","warnings":[{"error_category":11,"error_id":81,"error_severity":2,"warning":"GPU 3 had \"uncontained\" errors"},{"error_category":8,"error_id":29,"error_severity":5,"warning":"Persistence Mode: disabled"}]}],"test_summary":{"status":"Fail"}}]}]}}"#;

/// 3.x with a banner that is not JSON, a null test, ids as CSV, capitals.
const GOOD_3: &str = "Successfully ran diagnostic for group.\n\n  {\"DCGM GPU Diagnostic\":{\"test_categories\":[{\"category\":\"Deployment\",\"tests\":[\n  {\"name\":\"Denylist\",\"results\":[{\"gpu_ids\":\"0,1,2\",\"status\":\"PASS\"}]}, null,\n  {\"name\":\"Page Retirement/Row Remap\",\"results\":[null,{\"gpu_ids\":\"0,1\",\"status\":\"PASS\",\"info\":[\"fine\"]}]}]}, null],\n \"version\":\"3.1.0\"}}\n";

const BAD_3: &str = r#"{"DCGM GPU Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"results":[{"gpu_ids":2,"status":"FAIL","warnings":"Pending page retirements"}],"name":"Page Retirement"}]}],"version":"3.1.0"}}"#;

#[test]
fn a_host_without_the_tools_passes_with_no_gpu() {
    for (shell, w) in worlds() {
        let v = smoke(&w);
        assert_eq!(v["ok"], true, "{shell}: {v}");
        assert_eq!(v["gpus"], 0);
        assert_eq!(v["max_temp_c"], Value::Null);
        assert_eq!(v["checks"][1]["detail"], "skipped: not on this host");
    }
}

#[test]
fn healthy_gpus_in_both_dcgm_shapes() {
    for (shell, w) in worlds() {
        print(&w, "nvidia-smi", &smi(8, ""), 0);
        for good in [GOOD_4, GOOD_3] {
            print(&w, "dcgmi", good, 0);
            let v = smoke(&w);
            assert_eq!(v["ok"], true, "{shell}: {v}");
            assert_eq!(problems(&v), "");
            assert_eq!(v["gpus"], 8);
            assert_eq!(v["max_temp_c"], 37, "the hottest of 30..37");
        }
        let v = smoke(&w);
        let names: Vec<_> = v["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["nvidia-smi", "dcgmi Denylist", "dcgmi Page Retirement/Row Remap"]);
        // The XML on one line is the same answer.
        print(&w, "nvidia-smi", &smi(2, "").replace(['\n', '\t'], ""), 0);
        assert_eq!(smoke(&w)["gpus"], 2, "{shell}");
    }
}

#[test]
fn failing_diagnostics_are_told_with_their_reason() {
    for (shell, w) in worlds() {
        print(&w, "dcgmi", BAD_4, 226);
        let v = smoke(&w);
        assert_eq!(v["ok"], false);
        assert_eq!(
            problems(&v),
            "dcgmi software: GPU 3: GPU 3 had \"uncontained\" errors (DCGM error 81, severity 2); \
             setting: Persistence Mode: disabled (DCGM error 29, severity 5)",
            "{shell}"
        );
        print(&w, "dcgmi", BAD_3, 226);
        let v = smoke(&w);
        assert_eq!(problems(&v), "dcgmi Page Retirement: GPU 2: Pending page retirements");
        assert_eq!(v["checks"][1]["ok"], false);
        // A list of both kinds: only the second is a setting.
        let both = r#"["first",{"warning":"second","error_id":29,"error_severity":5}]"#;
        let text = BAD_3.replace("\"Pending page retirements\"", both);
        print(&w, "dcgmi", &text, 226);
        let told =
            "dcgmi Page Retirement: GPU 2: first; setting: second (DCGM error 29, severity 5)";
        assert_eq!(problems(&smoke(&w)), told, "{shell}");
        // Exit 0 with a failing test, and 226 with none: neither is a pass.
        print(&w, "dcgmi", BAD_3, 0);
        assert_eq!(smoke(&w)["ok"], false, "{shell}");
        print(&w, "dcgmi", GOOD_4, 226);
        let v = smoke(&w);
        assert!(problems(&v).starts_with("dcgmi diag ended with 226"), "{shell}: {v}");
    }
}

#[test]
fn a_pass_with_a_warning_is_kept_as_a_warning() {
    for (shell, w) in worlds() {
        let text = BAD_4.replace("Fail", "Pass");
        print(&w, "dcgmi", &text, 0);
        let v = smoke(&w);
        assert_eq!(v["ok"], true, "{shell}: {v}");
        assert!(v["warnings"][0].as_str().unwrap().contains("DCGM error 81"), "{v}");
    }
}

#[test]
fn answers_that_are_none_do_not_pass() {
    for (shell, w) in worlds() {
        for (text, exit, why) in [
            ("", 0, "printed no JSON"),
            (
                "Error: unable to establish a connection to the specified host: localhost\n",
                255,
                "unable to establish a connection",
            ),
            (
                "{\"DCGM Diagnostic\":{\"test_categories\":[{\"tests\":[{\"name\":\"soft",
                0,
                "cut off",
            ),
            ("{}", 0, "no test in its answer"),
            ("{\"DCGM Diagnostic\":{\"runtime_error\":\"No GPUs found\"}}", 226, "No GPUs found"),
            ("{\"a\":[null,null,{}],\"b\":\"\u{fffd}\\u00e9\\\"\"}", 0, "no test in its answer"),
        ] {
            print(&w, "dcgmi", text, exit);
            let v = smoke(&w);
            assert_eq!(v["ok"], false, "{shell}: {text}");
            assert!(problems(&v).contains(why), "{shell}: {text}: {v}");
        }
    }
}

#[test]
fn sick_gpus_are_told_by_their_bus_address() {
    for (shell, w) in worlds() {
        for (extra, why) in [
            (
                "<ecc_errors><volatile><dram_uncorrectable>2</dram_uncorrectable></volatile></ecc_errors>",
                "2 uncorrectable ECC errors",
            ),
            ("<remapped_row_failure>Yes</remapped_row_failure>", "row remapping failed"),
            ("<remapped_row_pending>Yes</remapped_row_pending>", "waits for a reset"),
            ("<gpu_recovery_action>Reset</gpu_recovery_action>", "recovery action: Reset"),
            (
                "<link_widths><max_link_width>16x</max_link_width><current_link_width>8x</current_link_width></link_widths>",
                "8x of 16x",
            ),
            ("<fan_speed>ERR!</fan_speed>", "fan_speed reads ERR!"),
        ] {
            print(&w, "nvidia-smi", &smi(4, extra), 0);
            let v = smoke(&w);
            assert_eq!(v["ok"], false, "{shell}: {extra}");
            assert_eq!(v["gpus"], 4);
            assert!(problems(&v).contains(why), "{extra}: {v}");
            assert!(problems(&v).starts_with("GPU 00000000:03:00.0: "), "{shell}: {v}");
        }
        let fewer = smi(7, "").replace("<attached_gpus>7", "<attached_gpus>8");
        print(&w, "nvidia-smi", &fewer, 0);
        assert!(problems(&smoke(&w)).contains("8 attached, 7 listed"), "{shell}");
        let lost = "Unable to determine the device handle for GPU0000:03:00.0: GPU is lost.\n";
        print(&w, "nvidia-smi", lost, 15);
        let v = smoke(&w);
        assert!(problems(&v).contains("ended with 15: Unable to determine"), "{shell}: {v}");
        assert_eq!(v["gpus"], 0);
    }
}
