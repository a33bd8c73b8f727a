//! The signature of a delivery: HMAC-SHA256 (RFC 2104) over time and body, as the large senders of
//! webhooks have it.

use aws_lc_rs::hmac;

/// `t=<at_s>,v1=<hex>`; `at_s`: seconds since 1970.
pub fn signature(secret: &str, at_s: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &signed(at_s, body));
    format!("t={at_s},v1={}", hex::encode(tag.as_ref()))
}

/// What a receiver does. `age_s`: how far its time may be from `now_s`.
pub fn verify(secret: &str, header: &str, body: &[u8], now_s: u64, age_s: u64) -> bool {
    let part =
        |name: &str| header.split(',').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='));
    let (Some(at), Some(hex)) = (part("t"), part("v1")) else { return false };
    let (Ok(at), Ok(tag)) = (at.parse::<u64>(), hex::decode(hex)) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    at.abs_diff(now_s) <= age_s && hmac::verify(&key, &signed(at, body), &tag).is_ok()
}

fn signed(at_s: u64, body: &[u8]) -> Vec<u8> {
    let mut signed = format!("{at_s}.").into_bytes();
    signed.extend_from_slice(body);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_algorithm() {
        // Made with: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        let by_openssl = "a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        assert_eq!(
            signature("key", 1_700_000_000, b"{\"a\":1}"),
            format!("t=1700000000,v1={by_openssl}")
        );
    }

    #[test]
    fn any_other_word_is_refused() {
        let header = signature("key", 1_000, b"body");
        assert!(verify("key", &header, b"body", 1_100, 300));
        assert!(!verify("key", &header, b"bodY", 1_100, 300));
        assert!(!verify("other", &header, b"body", 1_100, 300));
        assert!(!verify("key", &header, b"body", 1_301, 300), "sent again later");
        assert!(!verify("key", &header.replace("t=1000", "t=1001"), b"body", 1_100, 300));
        for bad in ["", "t=1000", "v1=00", "t=x,v1=00", "t=1000,v1=zz"] {
            assert!(!verify("key", bad, b"body", 1_000, 300), "{bad}");
        }
    }
}
