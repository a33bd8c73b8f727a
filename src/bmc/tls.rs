//! How a BMC proves itself: by a pinned certificate, by a CA, or not at all. BMC certificates are
//! self-signed nearly everywhere and never name the address, so the pin is the usual way.

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The `tls` word of a BMC's inventory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Policy {
    Ca,
    Off,
    /// SHA-256 of the leaf certificate's DER.
    Pin([u8; 32]),
}

impl Policy {
    /// `ca`, `off`, `sha256:<64 hex digits>`; colons between the digits are taken.
    pub(super) fn parse(word: &str) -> Option<Policy> {
        match word.trim() {
            "ca" => Some(Policy::Ca),
            "off" => Some(Policy::Off),
            pin => {
                let digits: String =
                    pin.strip_prefix("sha256:")?.chars().filter(|c| *c != ':').collect();
                let mut bytes = [0; 32];
                hex::decode_to_slice(digits, &mut bytes).ok()?;
                Some(Policy::Pin(bytes))
            }
        }
    }
}

/// Pins by server name (an address counts as one) and port. A verifier is not told the port, so
/// where several BMCs share an address, any of their certificates is taken there.
#[derive(Debug, Default)]
pub(super) struct Pins(RwLock<BTreeMap<(String, u16), [u8; 32]>>);

impl Pins {
    /// Says whether another pin was replaced: connections opened under it must go.
    pub(super) fn set(&self, host: &str, port: u16, pin: [u8; 32]) -> bool {
        let key = (name(host), port);
        if self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) == Some(&pin) {
            return false;
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, pin).is_some()
    }

    fn holds(&self, host: &str, pin: &[u8]) -> bool {
        let host = name(host);
        let pins = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pins.range((host.clone(), 0)..=(host, u16::MAX)).any(|(_, p)| p[..] == *pin)
    }
}

/// One spelling for a name or address, with or without an IPv6 address's brackets.
fn name(host: &str) -> String {
    host.trim_matches(['[', ']']).to_ascii_lowercase()
}

/// The certificate that was shown instead of the pinned one.
#[derive(Debug)]
pub(super) struct OtherCertificate {
    pub(super) seen: String,
}

impl std::fmt::Display for OtherCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the certificate is sha256:{}", self.seen)
    }
}

impl std::error::Error for OtherCertificate {}

#[derive(Debug)]
struct Verifier {
    /// `None`: whatever is shown is taken.
    pins: Option<Arc<Pins>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(pins) = &self.pins else { return Ok(ServerCertVerified::assertion()) };
        let seen = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, end_entity);
        if pins.holds(&server_name.to_str(), seen.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        let other = OtherCertificate { seen: hex::encode(seen) };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(other)))))
    }

    // A certificate is public: only the signature proves that its key is there.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Client side of TLS: pinned, or (`None`) trusting whatever is shown.
pub(super) fn config(pins: Option<Arc<Pins>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { pins, provider }))
        .with_no_client_auth();
    // A resumed session skips the verifier, and with it a pin that has changed since.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What a failed handshake said of the certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not the pinned one; hex SHA-256 of what was shown.
    Changed { seen: String },
    /// The CA check failed: why; for one thing because its time is over.
    Untrusted { why: String, expired: bool },
}

/// Finds a certificate's refusal below a connection error. `io::Error` hides what it wraps from
/// `source()`, hence the walk by hand.
pub(super) fn refused(error: &(dyn std::error::Error + 'static)) -> Option<Refused> {
    let mut next = Some(error);
    for _ in 0..16 {
        let e = next?;
        if let Some(rustls::Error::InvalidCertificate(why)) = e.downcast_ref::<rustls::Error>() {
            if let CertificateError::Other(OtherError(inner)) = why
                && let Some(other) = inner.downcast_ref::<OtherCertificate>()
            {
                return Some(Refused::Changed { seen: other.seen.clone() });
            }
            let expired =
                matches!(why, CertificateError::Expired | CertificateError::ExpiredContext { .. });
            return Some(Refused::Untrusted { why: why.to_string(), expired });
        }
        next = match e.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_parse() {
        let hex = "ab".repeat(32);
        assert_eq!(Policy::parse("ca"), Some(Policy::Ca));
        assert_eq!(Policy::parse(" off "), Some(Policy::Off));
        assert_eq!(Policy::parse(&format!("sha256:{hex}")), Some(Policy::Pin([0xab; 32])));
        let colons = ["AB"; 32].join(":");
        assert_eq!(Policy::parse(&format!("sha256:{colons}")), Some(Policy::Pin([0xab; 32])));
        for bad in ["", "on", "sha256:", "sha256:abcd", "sha1:00"] {
            assert_eq!(Policy::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn pins_hold_by_name() {
        let pins = Pins::default();
        assert!(!pins.set("10.0.0.1", 443, [1; 32]));
        pins.set("[fd00::1]", 443, [2; 32]);
        assert!(pins.holds("10.0.0.1", &[1; 32]));
        assert!(!pins.holds("10.0.0.1", &[2; 32]));
        assert!(!pins.holds("10.0.0.2", &[1; 32]));
        assert!(pins.holds("fd00::1", &[2; 32]));
        assert!(!pins.set("10.0.0.1", 443, [1; 32]), "the same pin replaces none");
        assert!(pins.set("10.0.0.1", 443, [3; 32]));
        assert!(!pins.holds("10.0.0.1", &[1; 32]), "a replaced pin is gone");
    }
}
