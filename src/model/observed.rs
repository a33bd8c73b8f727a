//! What a machine at rest last showed of the things that only Farrier should change: a mark of a few
//! bytes in the row, so that the next probe tells a change. What it was exactly stands in the journal.

use super::facts::Power;
use serde::{Deserialize, Serialize};

/// Digests, not texts: a hundred thousand of these are resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// The boot override is for one boot only.
    pub boot_once: bool,
    /// Components with a version; 0 = not read yet.
    pub components: u8,
    /// Digest of the boot override; 0 = not read yet.
    pub boot: u16,
    /// Digest of all components with their versions.
    pub firmware: u32,
}

impl Observed {
    /// What is known after a probe; parts that it did not read stay as they were.
    pub fn with(self, power: Option<Power>, boot: Option<&str>, firmware: &[String]) -> Observed {
        let mut now = self;
        now.power = power.or(self.power);
        if let Some(boot) = boot {
            now.boot = u16::try_from(digest(boot.as_bytes()) & 0xffff).unwrap_or(0).max(1);
            now.boot_once = boot.ends_with(" once");
        }
        if !firmware.is_empty() {
            now.components = u8::try_from(firmware.len()).unwrap_or(u8::MAX);
            now.firmware = digest(firmware.join("\n").as_bytes());
        }
        now
    }
}

/// FNV-1a, 32 bit: tells a change, is no proof of sameness.
fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &[&str]) -> Vec<String> {
        text.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn parts_that_were_not_read_stay() {
        let first = Observed::default().with(Some(Power::On), Some("none"), &list(&["BMC 1"]));
        assert_eq!(first.with(None, None, &[]), first);
        assert_ne!(first.with(Some(Power::Off), None, &[]), first);
        assert_ne!(first.with(None, Some("pxe once"), &[]), first);
        assert_ne!(first.with(None, None, &list(&["BMC 2"])), first);
    }
}
