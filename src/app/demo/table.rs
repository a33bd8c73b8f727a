//! What a run took and cost beside what it might have: the figures under a site's demo.

use super::bound::{self, Floor};
use super::daemon::Daemon;
use super::measure::{self, Usage};
use super::site::{Options, Site};
use std::fmt;
use std::time::Duration;

/// Bars of a site's run: longest makespan over the lower bound, longest makespan, CPU and requests
/// per machine, memory.
const RATIO_MAX: f64 = 1.15;
const SECONDS_MAX: f64 = 15.0 * 60.0;
const CPU_MS_MAX: f64 = 150.0;
const REQUESTS_MAX: f64 = 600.0;
const RSS_MB_MAX: f64 = 300.0;

/// The figures of one run.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    machines: f64,
    time_scale: u32,
    makespan_s: f64,
    floors: Vec<Floor>,
    daemon: Usage,
    fleet: Usage,
    /// To all BMCs together.
    requests: f64,
    /// Programs started on hosts over SSH, together.
    execs: f64,
}

fn float(n: u64) -> f64 {
    // Exact below 2^53.
    #[allow(clippy::cast_precision_loss, reason = "counts and milliseconds of one run")]
    let n = n as f64;
    n
}

impl Cost {
    /// `None`: the kernel does not tell what the processes cost.
    pub(super) fn of(
        options: &Options,
        site: &Site,
        daemon: &Daemon,
        makespan: Duration,
    ) -> Option<Cost> {
        let counted = |name: &str| -> f64 {
            let seats = site.serving.world.seats.iter();
            let all = seats.flat_map(|s| s.counters.list());
            float(all.filter(|(n, _)| *n == name).map(|(_, v)| v).sum())
        };
        Some(Cost {
            machines: f64::from(options.machines.max(1)),
            time_scale: options.time_scale,
            makespan_s: makespan.as_secs_f64(),
            floors: bound::floors(site, &options.profile.limits(options.machines)),
            daemon: daemon.usage()?,
            fleet: measure::usage(std::process::id())?,
            requests: counted("requests"),
            execs: counted("execs"),
        })
    }

    fn bound_s(&self) -> f64 {
        self.floors.first().map_or(0.0, |f| f.seconds)
    }

    fn ratio(&self) -> f64 {
        self.makespan_s / self.bound_s().max(0.001)
    }

    fn each(&self, total: u64) -> f64 {
        float(total) / self.machines
    }

    fn rss_mb(&self) -> f64 {
        float(self.daemon.rss_peak_kib) * 1024.0 / 1e6
    }

    /// Fields for the last line, each with a comma before it.
    pub(super) fn json(&self) -> String {
        let bounded_by = self.floors.first().map_or("", |f| f.why.as_str());
        format!(
            ",\"time_scale\":{},\"makespan_s\":{:.1},\"bound_s\":{:.1},\"bounded_by\":\"{}\",\
             \"ratio\":{:.3},\"daemon_cpu_ms_per_machine\":{:.1},\
             \"hooks_cpu_ms_per_machine\":{:.1},\"fleet_cpu_ms_per_machine\":{:.1},\
             \"requests_per_machine\":{:.1},\"ssh_commands_per_machine\":{:.1},\
             \"daemon_rss_peak_mb\":{:.1}",
            self.time_scale,
            self.makespan_s,
            self.bound_s(),
            bounded_by,
            self.ratio(),
            self.each(self.daemon.cpu_ms),
            self.each(self.daemon.children_ms),
            self.each(self.fleet.cpu_ms),
            self.requests / self.machines,
            self.execs / self.machines,
            self.rss_mb(),
        )
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bar = |value: f64, most: f64| if value <= most { "kept" } else { "NOT KEPT" };
        writeln!(
            f,
            "{:.0} machines, physical durations 1/{}, answer times of the BMCs unscaled",
            self.machines, self.time_scale
        )?;
        let minutes = self.makespan_s / 60.0;
        let seconds = bar(self.makespan_s, SECONDS_MAX);
        writeln!(
            f,
            "  makespan                {:>8.1} s    {minutes:.1} min; at most 15: {seconds}",
            self.makespan_s
        )?;
        writeln!(f, "  lower bound             {:>8.1} s", self.bound_s())?;
        for floor in &self.floors {
            writeln!(f, "    {:>8.1} s  {}", floor.seconds, floor.why)?;
        }
        let ratio = self.ratio();
        writeln!(
            f,
            "  makespan / bound        {ratio:>8.2}      at most {RATIO_MAX}: {}",
            bar(ratio, RATIO_MAX)
        )?;
        let cpu = self.each(self.daemon.cpu_ms);
        writeln!(
            f,
            "  daemon's CPU            {cpu:>8.1} ms   a machine; at most {CPU_MS_MAX}: {}",
            bar(cpu, CPU_MS_MAX)
        )?;
        let (hooks, fleet) = (self.each(self.daemon.children_ms), self.each(self.fleet.cpu_ms));
        writeln!(f, "    its cluster hooks     {hooks:>8.1} ms   a machine (programs it started)")?;
        writeln!(f, "  the virtual fleet's CPU {fleet:>8.1} ms   a machine, on the same cores")?;
        let requests = self.requests / self.machines;
        writeln!(
            f,
            "  requests to BMCs        {requests:>8.1}      a machine; at most {REQUESTS_MAX}: {}",
            bar(requests, REQUESTS_MAX)
        )?;
        writeln!(
            f,
            "  commands over SSH       {:>8.1}      a machine",
            self.execs / self.machines
        )?;
        let rss = self.rss_mb();
        write!(
            f,
            "  daemon's memory, peak   {rss:>8.1} MB   at most {RSS_MB_MAX}: {}",
            bar(rss, RSS_MB_MAX)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_kept_and_what_not() {
        let cost = Cost {
            machines: 10.0,
            time_scale: 30,
            makespan_s: 120.0,
            floors: vec![Floor { why: "n1 all alone".into(), seconds: 100.0 }],
            daemon: Usage { cpu_ms: 2_000, children_ms: 100, rss_peak_kib: 50_000 },
            fleet: Usage::default(),
            requests: 1_000.0,
            execs: 50.0,
        };
        let shown = cost.to_string();
        assert!(shown.contains("makespan / bound            1.20      at most 1.15: NOT KEPT"));
        assert!(shown.contains("200.0 ms   a machine; at most 150: NOT KEPT"), "{shown}");
        assert!(shown.contains("100.0      a machine; at most 600: kept"), "{shown}");
        let line = format!("{{\"machines\":10{}}}", cost.json());
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["ratio"], 1.2);
        assert_eq!(value["bounded_by"], "n1 all alone");
    }
}
