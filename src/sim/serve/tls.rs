//! The BMCs' certificates: self-signed, as they nearly all are in the field, named after the BMC and
//! never after its address (field notes §4, §6.17). Kept, made anew by every start of the BMC or by
//! somebody at it, or long expired.

use super::profile::Certificate;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The certificate of one BMC, made when it is first asked for.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By whose hands how often.
    renewed: u64,
    /// The life of the BMC and the renewal that it is of.
    made: Option<((u64, u64), Arc<ServerConfig>)>,
}

impl Shown {
    /// What the BMC `name` shows in its `life`.
    pub(super) fn config(
        &self,
        kind: Certificate,
        name: &str,
        life: u64,
    ) -> io::Result<Arc<ServerConfig>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let life = if kind == Certificate::NewEachReboot { life } else { 0 };
        let of = (life, state.renewed);
        if let Some((made, config)) = &state.made
            && *made == of
        {
            return Ok(config.clone());
        }
        let config = Arc::new(make(kind, name).map_err(io::Error::other)?);
        state.made = Some((of, config.clone()));
        Ok(config)
    }

    /// Somebody has it make another one: a factory reset, an update, a new board.
    pub(super) fn renew(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).renewed += 1;
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn make(kind: Certificate, name: &str) -> Result<ServerConfig, Failed> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![format!("bmc-{name}")])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("bmc-{name}"));
    (params.not_before, params.not_after) = match kind {
        Certificate::Expired => (date_time_ymd(2015, 1, 1), date_time_ymd(2020, 1, 1)),
        Certificate::Stable | Certificate::NewEachReboot => {
            (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1))
        }
    };
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_or_new_with_each_life() {
        let same = |kind, lives: (u64, u64)| {
            let shown = Shown::default();
            let first = shown.config(kind, "n1", lives.0).unwrap();
            Arc::ptr_eq(&first, &shown.config(kind, "n1", lives.1).unwrap())
        };
        assert!(same(Certificate::Stable, (1, 2)));
        assert!(same(Certificate::Expired, (1, 2)));
        assert!(same(Certificate::NewEachReboot, (2, 2)));
        assert!(!same(Certificate::NewEachReboot, (1, 2)));
        let shown = Shown::default();
        let first = shown.config(Certificate::Stable, "n1", 1).unwrap();
        shown.renew();
        assert!(!Arc::ptr_eq(&first, &shown.config(Certificate::Stable, "n1", 1).unwrap()));
    }
}
