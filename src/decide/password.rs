//! New passwords for BMCs: made from random bytes that are handed in, so that the rules can be
//! tested. Pure.

use crate::model::hardware::AccountRules;

/// Without the look-alikes `0O1lI`: such a password may be read out over the phone.
const LOWER: &[u8] = b"abcdefghijkmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
const DIGIT: &[u8] = b"23456789";
/// No vendor's shell, URL or XML layer stumbles over these.
const MARK: &[u8] = b"-_.";

/// What is used where the BMC allows it. IPMI 1.5 knows 16 bytes (IPMI 2.0 table 22-30), and BMCs
/// that cut longer ones off say nothing; 16 of 60 characters are 94 bits.
const LENGTH: u32 = 16;
/// Shorter than this is no password, whatever a BMC allows.
const SHORTEST: u32 = 8;
/// More would not be kept by IPMI 2.0, which shares the account on most BMCs.
const LONGEST: u32 = 20;

/// The length of a new password under `rules`.
///
/// # Errors
/// A sentence for a person: the BMC's rules leave no usable length.
pub fn length(rules: &AccountRules) -> Result<usize, String> {
    // 0 and none: it does not say. 127 and more exist; so do 13 to 20.
    let least = rules.min_length.unwrap_or(0).max(SHORTEST);
    let most = rules.max_length.filter(|m| *m > 0).unwrap_or(LONGEST).min(LONGEST);
    if least > most {
        return Err(format!(
            "the BMC asks for passwords of at least {} and at most {} characters; Farrier makes \
             such of {SHORTEST} to {LONGEST}",
            rules.min_length.unwrap_or(0),
            rules.max_length.unwrap_or(0),
        ));
    }
    Ok(usize::try_from(LENGTH.clamp(least, most)).unwrap_or(16))
}

/// A password of `length` characters from `random`: a letter first, every kind of character in it,
/// no character twice in a row, and the user's name not inside. `None`: the bytes did not give one
/// (rare); ask with others.
pub fn make(random: &[u8], length: usize, user: &str) -> Option<String> {
    let mut bytes = random.iter().copied();
    // Bytes beyond the last whole multiple are thrown away, so that every character is as likely.
    let mut draw = |from: &[u8]| -> Option<u8> {
        let n = u8::try_from(from.len()).ok()?;
        let usable = u8::MAX - u8::MAX % n;
        let byte = bytes.by_ref().find(|b| *b < usable)?;
        from.get(usize::from(byte % n)).copied()
    };
    let all = [LOWER, UPPER, DIGIT, MARK].concat();
    let letters = [LOWER, UPPER].concat();
    let mut out: Vec<u8> = Vec::with_capacity(length);
    while out.len() < length {
        let from = if out.is_empty() { &letters } else { &all };
        let next = draw(from)?;
        if out.last() != Some(&next) {
            out.push(next);
        }
    }
    let has = |kind: &[u8]| out.iter().any(|c| kind.contains(c));
    let text = String::from_utf8(out.clone()).ok()?;
    let named = !user.is_empty() && text.to_lowercase().contains(&user.to_lowercase());
    let whole = [LOWER, UPPER, DIGIT, MARK].into_iter().all(has);
    (whole && !named && !text.ends_with('.')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(min: Option<u32>, max: Option<u32>) -> AccountRules {
        AccountRules { min_length: min, max_length: max, ..AccountRules::default() }
    }

    #[test]
    fn lengths_obey_the_rules_of_the_captured_trees() {
        // Dell, Dell 6.00, HPE, Lenovo, Supermicro, DGX, GB200; then one that says nothing.
        let cases = [
            (Some(0), Some(127)),
            (Some(0), Some(40)),
            (Some(8), None),
            (Some(10), Some(32)),
            (Some(8), Some(20)),
            (Some(13), Some(20)),
            (None, None),
        ];
        for (min, max) in cases {
            assert_eq!(length(&rules(min, max)), Ok(16), "{min:?} {max:?}");
        }
        assert_eq!(length(&rules(Some(18), Some(20))), Ok(18));
        assert_eq!(length(&rules(Some(1), Some(12))), Ok(12));
        assert!(length(&rules(Some(1), Some(6))).unwrap_err().contains("at most 6"));
        assert!(length(&rules(Some(24), Some(64))).is_err());
    }

    proptest! {
        #[test]
        fn a_password_has_every_kind_of_character(
            random in proptest::collection::vec(any::<u8>(), 512),
            length in 8_usize..=20,
        ) {
            if let Some(p) = make(&random, length, "root") {
                prop_assert_eq!(p.chars().count(), length);
                prop_assert!(p.starts_with(|c: char| c.is_ascii_alphabetic()));
                prop_assert!(p.contains(|c: char| c.is_ascii_digit()));
                prop_assert!(p.contains(['-', '_', '.']));
                prop_assert!(!p.to_lowercase().contains("root"));
                let bytes = p.as_bytes();
                prop_assert!(bytes.windows(2).all(|w| w[0] != w[1]));
            }
        }
    }

    #[test]
    fn most_draws_give_one_and_too_few_bytes_give_none() {
        let draws = (0..200_u8).filter(|seed| {
            let bytes: Vec<u8> = (0..255_u32)
                .map(|i| {
                    u8::try_from((i * 167 + u32::from(*seed) * 91 + i * i * 3) % 256).unwrap_or(0)
                })
                .collect();
            make(&bytes, 16, "farrier").is_some()
        });
        assert!(draws.count() > 20);
        assert_eq!(make(&[1, 2, 3], 16, "farrier"), None);
    }
}
