//! A probe that reads from a slow machine is told from one that waits for a silent one: the edge
//! counts each answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

tokio::task_local! {
    static HEARD: Heard;
}

/// How often the other side of a probe has answered so far.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<AtomicU32>);

impl Heard {
    /// Runs `work`; answers in it are counted here, those in tasks that it spawns are not.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        HEARD.scope(self.clone(), work).await
    }

    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The other side has answered. Outside of a probe nobody counts it.
pub fn answered() {
    HEARD.try_with(|h| h.0.fetch_add(1, Ordering::Relaxed)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_count_for_the_probe_they_belong_to() {
        let (one, other) = (Heard::default(), Heard::default());
        let ask = async || {
            answered();
            tokio::task::yield_now().await;
            answered();
        };
        tokio::join!(one.during(ask()), other.during(async { answered() }));
        answered();
        assert_eq!((one.count(), other.count()), (2, 1));
    }
}
