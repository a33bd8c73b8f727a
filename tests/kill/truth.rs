//! The judge: what the world's own log says was done twice and must not be.

use serde_json::Value;
use std::collections::BTreeMap;

/// How often what happened, over all machines.
pub(crate) type Tally = BTreeMap<String, u32>;

/// What was done to the fleet, by the words of the log.
pub(crate) fn tally(truth: &Value) -> Tally {
    let mut tally = Tally::new();
    for log in truth.as_object().expect("machines").values() {
        for effect in log.as_array().expect("a log") {
            let what = effect["what"].as_str().expect("a word");
            *tally.entry(what.to_string()).or_default() += 1;
        }
    }
    tally
}

/// What must never happen twice and did. No machine here is taken back to old firmware, and none
/// gets an image but on blank disks: so a component is flashed once for good, and wipes and
/// installations take turns.
pub(crate) fn repeated(truth: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, log) in truth.as_object().expect("machines") {
        let mut flashes: BTreeMap<u64, u32> = BTreeMap::new();
        let (mut wiped, mut installed) = (false, false);
        for effect in log.as_array().expect("a log") {
            let at = &effect["at_ms"];
            let what = effect["what"].as_str().expect("a word");
            let mut find = |why: &str| found.push(format!("{name} at {at}: `{what}` {why}"));
            if effect["right_machine"] == false
                && matches!(
                    what,
                    "flash-started" | "install-started" | "wipe-started" | "power-cut" | "hook"
                )
            {
                find("of the wrong machine");
            }
            match what {
                "flash-started" => {
                    for flaw in ["already", "staged", "busy"] {
                        if effect[flaw] == true {
                            find(&format!("while `{flaw}`"));
                        }
                    }
                    *flashes.entry(effect["slot"].as_u64().unwrap_or(9)).or_default() += 1;
                }
                // The next flash of a slot whose flash failed is a new attempt, not a repetition.
                "flash-ended" if effect["ok"] == false => {
                    flashes.remove(&effect["slot"].as_u64().unwrap_or(9));
                }
                "flash-broken" => find("an update was cut off"),
                "wipe-started" => {
                    if std::mem::replace(&mut wiped, true) {
                        find("of disks that were wiped already");
                    }
                    installed = false;
                }
                "install-started" => {
                    if std::mem::replace(&mut installed, true) {
                        find("over an image of ours");
                    }
                    wiped = false;
                }
                "install-ended" if effect["ok"] == false => installed = false,
                _ => {}
            }
        }
        for (slot, times) in flashes.into_iter().filter(|(_, n)| *n > 1) {
            found.push(format!("{name}: slot {slot} was flashed {times} times"));
        }
    }
    found
}

#[test]
fn the_judge_of_repetitions_can_find_one() {
    let flash = |extra: &str| {
        format!(
            r#"{{"what":"flash-started","at_ms":1,"slot":0,"already":false,"staged":false,"busy":false{extra}}}"#
        )
    };
    let judge = |log: &[String]| {
        repeated(&serde_json::from_str(&format!(r#"{{"a":[{}]}}"#, log.join(","))).expect("JSON"))
    };
    let failed = r#"{"what":"flash-ended","at_ms":2,"slot":0,"ok":false}"#.to_string();
    assert!(judge(&[flash(""), failed, flash("")]).is_empty());
    assert_eq!(judge(&[flash(""), flash("")]).len(), 1);
    assert_eq!(judge(&[flash(r#","staged":true"#)]).len(), 1);
    assert_eq!(judge(&[flash(r#","right_machine":false"#)]).len(), 1);
    let plain = |what: &str| format!(r#"{{"what":"{what}","at_ms":1}}"#);
    let (wipe, install) = (plain("wipe-started"), plain("install-started"));
    assert_eq!(judge(&[wipe.clone(), wipe.clone()]).len(), 1);
    assert_eq!(judge(&[install.clone(), install.clone()]).len(), 1);
    assert!(judge(&[install.clone(), wipe.clone(), install.clone(), wipe]).is_empty());
    let failed = r#"{"what":"install-ended","at_ms":1,"ok":false}"#.to_string();
    assert!(judge(&[install.clone(), failed, install]).is_empty());
}
