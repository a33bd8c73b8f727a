//! A host that knows the answers to Farrier's scripts instead of running them, for sites of
//! thousands: the SSH is real, the programs are not. What it understands is the last call of the
//! text on stdin (facts, the job contract); its answers come from the physics.
//!
//! The texts are those of the job contract; nothing of the client's code is used.

use super::World;
use super::seat::Seat;
use crate::model::facts::JobState;
use crate::model::{Action, Identity, JobScript};
use crate::sim::physics::HostState;
use std::fmt::Write as _;

/// What the shell would have printed, and its exit status.
pub(super) fn answer(world: &World, seat: &Seat, text: &str) -> (String, u32) {
    let words = last_call(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["facts"] => (facts(world, seat), 0),
        ["show", name] => (show(world, seat, name), 0),
        ["last_output", ..] => (String::new(), 0),
        ["start", name, _timeout_s, uuid, serial, ..] => {
            (start(world, seat, name, uuid, serial), 0)
        }
        _ => ("sh: not one of the calls that this virtual host knows\n".into(), 127),
    }
}

/// Function and arguments of the text's last call: `{`, the call, `exit`, `}`.
fn last_call(text: &str) -> Vec<String> {
    let Some((_, call)) = text.rsplit_once("\n{\n") else { return Vec::new() };
    // A text that was cut off does nothing.
    let Some(line) = call.strip_suffix(" </dev/null\nexit\n}\n") else { return Vec::new() };
    line.split_whitespace().map(|word| word.trim_matches('\'').to_string()).collect()
}

fn facts(world: &World, seat: &Seat) -> String {
    let now = world.now();
    let (facts, boots, id) = seat.with(now, |b| (b.vm.host_facts(), b.vm.boots, b.vm.id.0));
    let mut out = String::new();
    let mut line = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(out, "{key}={value}");
        }
    };
    line("uuid", facts.identity.uuid.as_deref());
    line("serial", facts.identity.serial.as_deref());
    line("boot_id", Some(&super::sandbox::boot_id(id, boots)));
    line("hostname", Some(&seat.name));
    line("os", Some("Virtual Linux"));
    line("kernel", Some("6.12.0-virtual"));
    line("image", facts.image.as_deref());
    line("image_run", facts.image_run.as_deref());
    let mirror = facts.root_mirror.map(|m| format!("{} {}", m.disks, m.missing));
    line("root_mirror", mirror.as_deref());
    line("holds_data", facts.holds_data.map(|data| if data { "true" } else { "false" }));
    for gpu in &facts.gpus {
        let model = gpu.model.as_deref().unwrap_or_default();
        let _ = writeln!(out, "gpu={}\t{model}\t", gpu.id);
    }
    out += "end=facts\n";
    out
}

fn show(world: &World, seat: &Seat, name: &str) -> String {
    let now = world.now();
    let (job, boots, id) = seat.with(now, |b| (b.vm.job_facts(now, name), b.vm.boots, b.vm.id.0));
    let mut result = String::new();
    let state = match job.state {
        JobState::Absent => "state=absent".to_string(),
        JobState::Running { progress } => format!("state=running\nprogress={progress}"),
        JobState::Lost { why } => format!("state=lost\nwhy={why}"),
        JobState::Finished { exit, result: said } => {
            result = said.map(|v| v.to_string()).unwrap_or_default();
            format!("state=finished\nexit={exit}")
        }
    };
    let boot_id = super::sandbox::boot_id(id, boots);
    format!("boot_id={boot_id}\n{state}\nresult {}\n{result}\ntail\n", result.len())
}

fn start(world: &World, seat: &Seat, name: &str, uuid: &str, serial: &str) -> String {
    let stated = |word: &str| (word != "-").then(|| word.to_string());
    let wanted = Identity::new(stated(serial).as_deref(), stated(uuid).as_deref(), None);
    let script =
        if name.contains(JobScript::Wipe.name()) { JobScript::Wipe } else { JobScript::Smoke };
    let now = world.now();
    let seq = world.draw() >> 40;
    seat.with(now, |b| {
        let here = b.vm.host_identity();
        let other = |a: Option<&str>, b: Option<&str>| a.is_some() && b.is_some() && a != b;
        let serial = other(wanted.serial.as_deref(), here.serial.as_deref());
        if serial || other(wanted.uuid.as_deref(), here.uuid.as_deref()) {
            let (uuid, serial) = (here.uuid.as_deref(), here.serial.as_deref());
            return format!(
                "farrier refused DMI uuid {}, serial {}\n",
                uuid.unwrap_or("unknown"),
                serial.unwrap_or("unknown")
            );
        }
        if b.vm.host != HostState::Running {
            return "farrier failed the host goes down\n".into();
        }
        if b.vm.jobs.iter().any(|j| &*j.name == name) {
            return "farrier exists\n".into();
        }
        let action = Action::StartJob { script, name: name.to_string(), timeout_ms: 0 };
        b.vm.apply(now, seq, &action);
        "farrier started sh\n".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_is_found_and_half_a_text_has_none() {
        let text = "start() {\n:\n}\n\n{\nstart 'smoke-a-1' '1800' '-' 'S-1' </dev/null\nexit\n}\n";
        assert_eq!(last_call(text), ["start", "smoke-a-1", "1800", "-", "S-1"]);
        assert!(last_call(&text[..text.len() - 3]).is_empty());
        assert_eq!(last_call("x\n{\nfacts </dev/null\nexit\n}\n"), ["facts"]);
    }
}
