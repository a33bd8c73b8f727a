//! What a run cost: the daemon's and the fleet's own CPU and memory, as the kernel counts them.

use std::fs;

/// One process, at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of the process itself.
    pub cpu_ms: u64,
    /// Of its children that have ended: cluster hooks.
    pub children_ms: u64,
    /// The most memory it ever had resident.
    pub rss_peak_kib: u64,
}

/// `None`: there is no such process, or no /proc.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    read(&stat, &status)
}

/// proc_pid_stat(5): fields 14 to 17, after the name in brackets, in ticks of 10 ms (`USER_HZ` is
/// 100 on every Linux); proc_pid_status(5): `VmHWM`.
fn read(stat: &str, status: &str) -> Option<Usage> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = |nth: usize| rest.split_whitespace().nth(nth - 3)?.parse::<u64>().ok();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(Usage {
        cpu_ms: (ticks(14)? + ticks(15)?) * 10,
        children_ms: (ticks(16)? + ticks(17)?) * 10,
        rss_peak_kib: peak.trim().trim_end_matches("kB").trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 25 3 4 20 0 9 0 100 1 1 1";
        let status = "Name:\ta) b\nVmPeak:\t  900 kB\nVmHWM:\t  1234 kB\nVmRSS:\t 1000 kB\n";
        let want = Usage { cpu_ms: 1_750, children_ms: 70, rss_peak_kib: 1_234 };
        assert_eq!(read(stat, status), Some(want));
        assert!(usage(std::process::id()).is_some_and(|u| u.rss_peak_kib > 0));
    }
}
