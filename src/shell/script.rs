//! The texts that go to a host's `sh -s` on stdin. Each ends with its only call, so a text that
//! was cut off by a lost connection does nothing.

use crate::model::Identity;
use crate::model::action::JobScript;
use crate::port::deploy::DeployOrder;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const IDENTITY: &str = include_str!("identity.sh");
const DISKS: &str = include_str!("disks.sh");
const DEPLOY: &str = include_str!("deploy.sh");
const MIRROR: &str = include_str!("mirror.sh");
const HARDWARE: &str = include_str!("hardware.sh");
const FACTS: &str = include_str!("facts.sh");
const JOB: &str = include_str!("job.sh");
const RUNNER: &str = include_str!("runner.sh");
const SMOKE: &str = include_str!("smoke.sh");
const WIPE: &str = include_str!("wipe.sh");

/// What the login shell is asked to run: the same for every script, so that nothing depends on
/// how that shell quotes.
pub(super) const STDIN_SHELL: &str = "exec sh -s";

/// A word as POSIX sh reads it back unchanged.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn call(function: &str, arguments: &[&str]) -> String {
    // In braces: a line that was cut off would run with the arguments that came.
    let mut line = format!("\n{{\n{function}");
    for a in arguments {
        line.push(' ');
        line.push_str(&quote(a));
    }
    // Nothing that the script starts may read the rest of its text.
    line.push_str(" </dev/null\nexit\n}\n");
    line
}

pub fn facts() -> String {
    format!("{FACTS}{}", call("facts", &[]))
}

/// Answers with the lines that the head of hardware.sh tells of.
pub fn hardware() -> String {
    format!("{DISKS}{HARDWARE}{}", call("hardware", &[]))
}

/// Answers with `key=value` lines, the result file and the last output; see [`super::parse::job`].
pub fn show(name: &str) -> String {
    format!("{IDENTITY}{JOB}{}", call("show", &[name]))
}

pub(super) fn tail(name: &str, bytes: usize) -> String {
    format!("{IDENTITY}{JOB}{}", call("last_output", &[name, &bytes.to_string()]))
}

/// The job's own text, as it lies on the host.
pub fn payload(script: JobScript) -> String {
    match script {
        JobScript::Smoke => SMOKE.to_string(),
        // One process compares DMI and writes.
        JobScript::Wipe => format!("{IDENTITY}{DISKS}{WIPE}"),
    }
}

/// Compares DMI, makes the job's directory (once), launches the runner. Prints one line; see
/// [`super::parse::started`].
pub fn start(expect: &Identity, script: JobScript, name: &str, timeout_ms: u64) -> String {
    let destroys = script == JobScript::Wipe;
    launch(expect, &payload(script), destroys, None, name, timeout_ms)
}

/// Like [`start`], for the deploy job. The order is part of the payload, which the host keeps in a
/// file of its own in memory and deletes when it has read it.
pub fn start_deploy(expect: &Identity, order: &DeployOrder, name: &str, timeout_ms: u64) -> String {
    launch(expect, &deploy(order), true, None, name, timeout_ms)
}

/// The wipe job, which also tells which of the drives with these serials it did not see.
pub fn start_wipe(expect: &Identity, drives: &[String], name: &str, timeout_ms: u64) -> String {
    // The script splits at commas; a serial number with one is not looked for, which is told as such.
    let serials: Vec<String> = drives.iter().map(|d| d.trim().replace(',', " ")).collect();
    let serials = serials.join(",");
    launch(expect, &payload(JobScript::Wipe), true, Some(&serials), name, timeout_ms)
}

/// The deploy job's text, as it lies on the host. It holds secrets.
pub fn deploy(order: &DeployOrder) -> String {
    let root = &order.root;
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let mut variables = String::new();
    for (key, value) in [
        ("image", order.image.clone()),
        ("run", order.run.clone()),
        ("url", order.image_url.clone()),
        ("format", order.format.name().to_string()),
        ("sha256", order.sha256.clone()),
        ("size", order.size.to_string()),
        ("raw_size", order.raw_size.to_string()),
        ("allow", if order.allow_existing_data { "yes" } else { "no" }.to_string()),
        ("want_by_id", text(&root.by_id)),
        ("want_serial", text(&root.serial)),
        ("want_model", text(&root.model)),
        ("want_kind", root.kind.map(|k| k.name().to_string()).unwrap_or_default()),
        ("want_min", number(root.min_bytes)),
        ("want_max", number(root.max_bytes)),
        ("mirror", if root.mirror { "yes" } else { "no" }.to_string()),
    ] {
        // One line each: a line of this text must not be taken for the end of a here-document.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        variables.push_str(&format!("{key}={}\n", quote(&value)));
    }
    let files: String = order
        .seed
        .iter()
        .map(|f| format!("{} {}\n", f.name, STANDARD.encode(f.content.expose())))
        .collect();
    format!(
        "{IDENTITY}{DISKS}\norder() {{\n{variables}}}\n\
         seed_files() {{\ncat <<'FARRIER_END_OF_SEED'\n{files}FARRIER_END_OF_SEED\n}}\n{MIRROR}{DEPLOY}"
    )
}

/// `destroys`: the payload compares DMI as well, in the process that writes. `more`: its last argument.
fn launch(
    expect: &Identity,
    payload: &str,
    destroys: bool,
    more: Option<&str>,
    name: &str,
    timeout_ms: u64,
) -> String {
    let uuid = expect.uuid.as_deref().unwrap_or("-");
    let serial = expect.serial.as_deref().unwrap_or("-");
    let timeout_s = timeout_ms.div_ceil(1000).to_string();
    let mut arguments = vec![name, &*timeout_s, uuid, serial];
    if destroys {
        arguments.extend([uuid, serial]);
    }
    arguments.extend(more);
    format!(
        "{IDENTITY}{JOB}{}{}{}",
        printing("payload", payload),
        printing("runner", RUNNER),
        call("start", &arguments),
    )
}

/// A function that prints `text` as it is.
fn printing(function: &str, text: &str) -> String {
    format!("\n{function}() {{\ncat <<'FARRIER_END_OF_TEXT'\n{text}\nFARRIER_END_OF_TEXT\n}}\n")
}

/// `argv` on the host; with `expect` only after DMI was compared in the same shell. As one
/// command line, because stdin belongs to the program. Exit [`REFUSED`]: another machine.
pub(super) fn command(expect: Option<&Identity>, argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|a| quote(a)).collect();
    let Some(expect) = expect else {
        return format!("exec {}", words.join(" "));
    };
    let guard = format!(
        "{IDENTITY}\nidentity_check \"$1\" \"$2\"\nif [ $? -eq 1 ]; then\n\
         printf '%s\\n' \"$saw\"\nexit {REFUSED}\nfi\nshift 2\nexec \"$@\"\n"
    );
    format!(
        "exec sh -c {} farrier {} {} {}",
        quote(&guard),
        quote(expect.uuid.as_deref().unwrap_or("-")),
        quote(expect.serial.as_deref().unwrap_or("-")),
        words.join(" "),
    )
}

/// Exit status of [`command`] on another machine; hooks do not use it by accident (sysexits end
/// at 78, shells begin at 126).
pub(super) const REFUSED: u32 = 117;

/// Takes all of stdin or nothing: a lost connection looks like the end of the file, so the size
/// is compared before the file gets its name.
pub(super) fn put(path: &str, mode: u32, size: usize) -> String {
    let text = format!(
        "umask 077\ntmp=$1.farrier.$$\n\
         cat >\"$tmp\" && [ \"$(wc -c <\"$tmp\")\" -eq {size} ] && chmod {mode:o} \"$tmp\" &&\n\
         {{ sync \"$tmp\" 2>/dev/null || sync; }} && mv \"$tmp\" \"$1\" && exit 0\n\
         rm -f \"$tmp\"\nexit 1\n"
    );
    format!("exec sh -c {} farrier {}", quote(&text), quote(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_quoting() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn a_wipe_always_gets_its_expectation() {
        let id = Identity::new(Some("S-1"), None, None);
        let text = start(&id, JobScript::Wipe, "wipe-1", 1500);
        assert!(
            text.ends_with("\n{\nstart 'wipe-1' '2' '-' 'S-1' '-' 'S-1' </dev/null\nexit\n}\n")
        );
        assert!(payload(JobScript::Wipe).contains("identity_check \"$1\" \"$2\""));
    }
}
