//! The certificate that a BMC shows, read without trusting it and without a login: for people who
//! decide whether to pin it.

use super::tls;
use crate::model::{Channel, Fault, FaultClass};
use reqwest::Url;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer, X509Certificate};

const DEADLINE: Duration = Duration::from_secs(15);

/// What a BMC shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the leaf's DER, 64 hex digits: what a pin holds.
    pub sha256: String,
    /// `CN=…, O=…`; empty where it can't be read.
    pub subject: String,
    pub issuer: String,
    /// Subject and issuer are one, as on nearly every BMC.
    pub self_signed: bool,
    /// As the certificate spells its end.
    pub not_after: String,
}

/// Reads what is shown at `url`. Nothing is sent but the handshake.
///
/// # Errors
/// A plain `http` address has none; else nothing answered, or no handshake came about.
pub(super) async fn read(url: &str) -> Result<Certificate, Fault> {
    let bad = |why: &str| {
        Fault::new(FaultClass::Precondition, Channel::Bmc, "bad-address", format!("`{url}`: {why}"))
    };
    let url = Url::parse(url).map_err(|e| bad(&e.to_string()))?;
    if url.scheme() != "https" {
        return Err(Fault::new(
            FaultClass::Unsupported,
            Channel::Bmc,
            "no-tls",
            format!("{} is not https: there is no certificate", url.as_str()),
        ));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
    let port = url.port_or_known_default().unwrap_or(443);
    let name = ServerName::try_from(host.clone()).map_err(|e| bad(&e.to_string()))?;
    let config = tls::config(None).map_err(|e| bad(&e.to_string()))?;
    let handshake = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let no_answer = |why: String| {
        Fault::no_answer(Channel::Bmc, format!("TLS handshake with {host}:{port}: {why}"))
    };
    let stream = match tokio::time::timeout(DEADLINE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return Err(no_answer(e.to_string())),
        Err(_) => return Err(no_answer(format!("no answer within {} s", DEADLINE.as_secs()))),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    shown.map(described).ok_or_else(|| no_answer("it shows no certificate".into()))
}

fn described(der: &CertificateDer<'_>) -> Certificate {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut out = Certificate {
        sha256: hex::encode(digest),
        subject: String::new(),
        issuer: String::new(),
        self_signed: false,
        not_after: String::new(),
    };
    // A certificate that only rustls can read is pinned all the same.
    if let Ok((_, parsed)) = X509Certificate::from_der(der) {
        out.subject = parsed.subject().to_string();
        out.issuer = parsed.issuer().to_string();
        out.self_signed = parsed.subject() == parsed.issuer();
        out.not_after = parsed.validity().not_after.to_string();
    }
    out
}
