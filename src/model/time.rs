//! Engine time: a persisted counter of milliseconds, not wall time (design law 6).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// Milliseconds of engine time since the database was made. Advanced by the driver from the
/// monotonic clock; wall time never enters a decision.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EngineTime(pub u64);

impl EngineTime {
    /// The beginning of the database's life.
    pub const ZERO: Self = Self(0);
    /// Later than any time that occurs: "no due time".
    pub const NEVER: Self = Self(u64::MAX);

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for EngineTime {
    type Output = Self;
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Sub<u64> for EngineTime {
    type Output = Self;
    fn sub(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// A duration in milliseconds, printed as people write it: `90s`, `15m`, `2h05m`.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1000;
        match s {
            0 => write!(f, "{}ms", self.0),
            1..=119 => write!(f, "{s}s"),
            120..=7199 => write!(f, "{}m{:02}s", s / 60, s % 60),
            7200..=172_799 => write!(f, "{}h{:02}m", s / 3600, s % 3600 / 60),
            _ => write!(f, "{}d{:02}h", s / 86_400, s % 86_400 / 3600),
        }
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    /// `250ms`, `90s`, `15m`, `4h`, `7d`, and sums of them: `1h30m`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a duration; write one like `90s`, `15m` or `1h30m`");
        let mut total: u64 = 0;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = match &rest[..letters] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(bad()),
            };
            rest = &rest[letters..];
            let ms = number.checked_mul(unit).ok_or_else(bad)?;
            total = total.checked_add(ms).ok_or_else(bad)?;
        }
        Ok(Span(total))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    /// Exact, so that a normalized workflow hashes the same however it was written.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}ms", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_parse_or_say_why_not() {
        assert_eq!("1h30m".parse(), Ok(Span(5_400_000)));
        assert_eq!("250ms".parse(), Ok(Span(250)));
        for bad in ["", "5", "m", "1x", "-1s", "99999999999999999999d", "99999999999999d", "é"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn spans_read_like_people_write_them() {
        let shown: Vec<String> = [250, 90_000, 900_000, 7_500_000, 200_000_000]
            .iter()
            .map(|ms| Span(*ms).to_string())
            .collect();
        assert_eq!(shown, ["250ms", "90s", "15m00s", "2h05m", "2d07h"]);
    }
}
