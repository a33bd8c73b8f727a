//! The texts that go to a host's `sh -s` on stdin. Each ends with its only call, so a text that
//! was cut off by a lost connection does nothing.

use crate::model::Identity;
use crate::model::action::JobScript;

const IDENTITY: &str = include_str!("identity.sh");
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
        JobScript::Wipe => format!("{IDENTITY}{WIPE}"),
    }
}

/// Compares DMI, makes the job's directory (once), launches the runner. Prints one line; see
/// [`super::parse::started`].
pub fn start(expect: &Identity, script: JobScript, name: &str, timeout_ms: u64) -> String {
    let payload = payload(script);
    let uuid = expect.uuid.as_deref().unwrap_or("-");
    let serial = expect.serial.as_deref().unwrap_or("-");
    let timeout_s = timeout_ms.div_ceil(1000).to_string();
    let mut arguments = vec![name, &*timeout_s, uuid, serial];
    if script == JobScript::Wipe {
        arguments.extend([uuid, serial]);
    }
    format!(
        "{IDENTITY}{JOB}{}{}{}",
        printing("payload", &payload),
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
