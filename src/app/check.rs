//! `farrier check`: everything that is wrong with the files, in one report.

use super::files;
use std::path::Path;
use std::process::ExitCode;

/// Prints the report; exit 0 when the configuration can be used, 2 when it can't.
pub fn check(config: &Path, json: bool) -> ExitCode {
    match files::load(config) {
        Ok(loaded) => {
            let warnings = crate::config::render(&loaded.warnings);
            if json {
                let summary = serde_json::json!({
                    "ok": true,
                    "machines": loaded.expected.len(),
                    "profiles": loaded.site.profiles.len(),
                    "workflows": loaded.site.workflows.len(),
                    "limits": loaded.site.limits.len(),
                    "warnings": loaded.warnings.len(),
                });
                println!("{summary}");
            } else {
                eprint!("{warnings}");
                println!(
                    "ok: {} machines, {} profiles, {} workflows, {} limits",
                    loaded.expected.len(),
                    loaded.site.profiles.len(),
                    loaded.site.workflows.len(),
                    loaded.site.limits.len(),
                );
            }
            ExitCode::SUCCESS
        }
        Err(problems) => {
            if json {
                println!("{}", serde_json::json!({"ok": false, "report": problems.report}));
            } else {
                eprint!("{}", problems.report);
            }
            ExitCode::from(2)
        }
    }
}
