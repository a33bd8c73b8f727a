//! A wall clock that is set by a day, forth and back, while the daemon works and over restarts.

use crate::fixture::Fixture;
use std::time::Duration;

const DAY_S: i64 = 86_400;

async fn engine_ms(f: &Fixture) -> u64 {
    f.get("/v1/status").await["engine_ms"].as_u64().expect("engine time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_times_nothing_out() {
    let f = Fixture::new().await;
    let mut daemon = f.start().await;
    f.enroll().await;
    f.until_done("flash-started").await;
    // While it runs: engine time goes on as before.
    let mut last = engine_ms(&f).await;
    for offset in [DAY_S, -DAY_S, 0] {
        f.order(&format!("clock {offset}\n"));
        tokio::time::sleep(Duration::from_millis(700)).await;
        let now = engine_ms(&f).await;
        assert!(now > last, "engine time went from {last} to {now}");
        // Far below a day, far above what passed: the machine may be busy.
        assert!(now - last < 12 * 3_600_000, "engine time went from {last} to {now}");
        last = now;
    }
    // Over restarts, each with work under way; stopped gently and killed.
    for (n, offset) in [DAY_S, 0, -DAY_S, DAY_S, 0].into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        match n % 2 {
            0 => daemon.kill().await,
            _ => daemon.stop().await,
        };
        f.order(&format!("clock {offset}\n"));
        daemon = f.start().await;
        let now = engine_ms(&f).await;
        assert!(now >= last, "engine time went from {last} to {now}");
        last = now;
    }
    f.arrives(daemon).await;
    for entry in f.journal() {
        let text = entry.to_string();
        for code in ["step-timeout", "no-callback", "stalled", "\"quarantined\""] {
            assert!(!text.contains(code), "a clock's jump was taken for time: {text}");
        }
    }
    f.site.stop(false).await;
}
