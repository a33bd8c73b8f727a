//! The child: `farrier serve` as an operator would start it.

use super::measure::{self, Usage};
use super::{DemoError, fleet, io};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long a graceful stop may take before the child is killed.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says is appended to `log`.
    pub fn start(
        exe: &Path,
        config: &Path,
        time_scale: u32,
        log: &Path,
    ) -> Result<Self, DemoError> {
        let shown = log.display().to_string();
        let out = File::options().create(true).append(true).open(log).map_err(io(shown.clone()))?;
        let err = out.try_clone().map_err(io(shown))?;
        let child = Command::new(exe)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .args(["--time-scale", &time_scale.to_string()])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // A Ctrl-C at the terminal is for the parent; it stops the child gracefully.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io(exe.display().to_string()))?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// Waits until the API answers.
    pub async fn healthy(&mut self, api_url: &str, longest: Duration) -> Result<(), DemoError> {
        let http = fleet::client().map_err(|e| DemoError::Api(e.to_string()))?;
        let url = format!("{api_url}/healthz");
        let deadline = Instant::now() + longest;
        loop {
            if let Some(error) = self.check() {
                return Err(error);
            }
            let answer = http.get(&url).timeout(Duration::from_secs(5)).send().await;
            if answer.is_ok_and(|a| a.status().is_success()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let seconds = longest.as_secs();
                return Err(DemoError::NoDaemon { url, seconds, tail: self.tail() });
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Why it is no longer there; `None` while it runs.
    pub fn check(&mut self) -> Option<DemoError> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => {
                Some(DemoError::DaemonEnded { status: status.to_string(), tail: self.tail() })
            }
            Err(error) => Some(DemoError::Io { what: "the daemon's process".into(), error }),
        }
    }

    /// What it has cost until now.
    pub fn usage(&self) -> Option<Usage> {
        measure::usage(self.child.id()?)
    }

    /// Ends with the daemon.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks it to end and waits; kills it when it does not.
    pub async fn stop(mut self) -> Option<ExitStatus> {
        let Some(pid) = self.child.id() else { return self.child.try_wait().ok().flatten() };
        let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
        if asked.is_ok_and(|s| s.success())
            && let Ok(Ok(status)) = tokio::time::timeout(STOP_WAIT, self.child.wait()).await
        {
            return Some(status);
        }
        eprintln!("the daemon does not end within {} s; it is killed", STOP_WAIT.as_secs());
        self.kill().await
    }

    /// `kill -9`.
    pub async fn kill(mut self) -> Option<ExitStatus> {
        self.child.start_kill().ok()?;
        self.child.wait().await.ok()
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
