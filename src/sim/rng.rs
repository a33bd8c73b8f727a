//! A small seeded generator. Only wrapping integer arithmetic and IEEE multiplications, so that a
//! seed gives the same run on every platform.

/// One step of SplitMix64's finalizer: spreads a seed's bits.
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// xoshiro256++ (Blackman and Vigna), written from its published recurrence.
#[derive(Clone, Debug)]
pub struct Rng {
    s: [u64; 4],
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut s = [0; 4];
        let mut x = seed;
        for word in &mut s {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *word = mix(x);
        }
        Self { s }
    }

    /// A generator of its own for `stream`: what one machine draws never shifts another's draws.
    pub fn stream(seed: u64, stream: u64) -> Self {
        Self::new(mix(seed) ^ mix(stream.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.s;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// `0..n`; 0 when `n` is 0. By multiplication: the bias below 2^-32 does not matter here.
    pub fn below(&mut self, n: u64) -> u64 {
        #[allow(clippy::cast_possible_truncation, reason = "the high half of the product is < n")]
        let x = ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64;
        x
    }

    /// `lo..=hi`.
    pub fn between(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi.saturating_sub(lo) + 1)
    }

    /// True in `per_million` of a million draws.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million != 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// An element of `of`; `None` when it is empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0))
    }

    /// About normal with mean 0 and deviation 1: four uniform draws of one word, summed.
    pub fn normal(&mut self) -> f64 {
        let x = self.next_u64();
        let sum: u64 = (0..4).map(|i| (x >> (16 * i)) & 0xffff).sum();
        #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
        let centred = sum as f64 - 131_070.0;
        // Deviation of the sum of four uniforms on 0..65536: 65536 / sqrt(3).
        centred / 37_837.2
    }
}

/// e^x by squarings: exact to about 1 % for |x| < 3 and the same on every platform.
pub fn exp(x: f64) -> f64 {
    let mut y = 1.0 + x / 256.0;
    for _ in 0..8 {
        y *= y;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_in_range_and_repeat() {
        let (mut a, mut b) = (Rng::stream(7, 1), Rng::stream(7, 1));
        let mut mean = 0.0;
        for _ in 0..10_000 {
            assert!(a.below(10) < 10);
            b.below(10);
            let n = a.normal();
            assert!(n.abs() < 4.0);
            mean += n / 10_000.0;
            b.normal();
        }
        assert!(mean.abs() < 0.05, "{mean}");
        assert_eq!(a.next_u64(), b.next_u64());
        assert_ne!(Rng::stream(7, 1).next_u64(), Rng::stream(7, 2).next_u64());
        assert!((exp(1.0) - std::f64::consts::E).abs() < 0.02);
    }
}
