//! Processes that end with the test, and waits with a deadline.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The whole scenario must be over by then.
const WHOLE: Duration = Duration::from_secs(235);

/// The scenario's clock: no wait goes beyond its end.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn until(&self, what: &str, seconds: u64, mut yes: impl FnMut() -> bool) {
        self.wait(what, seconds, || yes().then_some(()));
    }

    /// Asks until there is an answer; panics when there never is one.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        seconds: u64,
        mut ask: impl FnMut() -> Option<T>,
    ) -> T {
        let began = Instant::now();
        let end = (began + Duration::from_secs(seconds)).min(self.began + WHOLE);
        loop {
            if let Some(found) = ask() {
                let (at, took) = (self.began.elapsed(), began.elapsed());
                println!("{:6.1} s  {what} (waited {:.1} s)", at.as_secs_f64(), took.as_secs_f64());
                return found;
            }
            assert!(Instant::now() < end, "not within {:?}: {what}", began.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

/// [`Clock::wait`] without a word.
pub(crate) fn poll<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child process; dropping it kills it.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self { child },
            Err(e) => panic!("{command:?}: {e}"),
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free now, below those that the system gives to clients: a host's port must stay
/// free while the host is off.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..2_000)
        .map(|_| std::process::id().wrapping_mul(131) + NEXT.fetch_add(1, Ordering::Relaxed))
        .filter_map(|n| u16::try_from(20_000 + n % 12_000).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

pub(crate) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {}\n{err}", out.status);
    String::from_utf8_lossy(&out.stdout).trim().to_string()
}
