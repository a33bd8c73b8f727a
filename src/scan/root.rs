//! The unauthenticated service root (DSP0268 ServiceRoot) of whoever answers.

use super::Settings;
use reqwest::{Client, header};
use serde::Serialize;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A service root is 1–4 KiB; what is longer is none.
const BODY_MAX: usize = 256 * 1024;

/// What a Redfish service says to everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Redfish {
    /// `https://10.0.0.5`
    pub url: String,
    pub version: Option<String>,
    /// The service's; most BMCs give the system's, some their own.
    pub uuid: Option<String>,
    pub vendor: Option<String>,
    pub product: Option<String>,
    /// SHA-256 of the certificate that was shown, for `tls = "sha256:…"`. It was not checked.
    pub certificate: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Heard {
    Silence,
    /// HTTP, and no Redfish: in words.
    Other(String),
    Redfish(Redfish),
}

pub(super) fn client(settings: &Settings) -> Result<Client, String> {
    // Fails only where one is installed already, which is as well.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let timeout = Duration::from_millis(settings.timeout_ms);
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .connect_timeout(timeout)
        .timeout(timeout)
        .pool_max_idle_per_host(0)
        // Nothing secret goes out here; who it is is decided later, with the certificate checked.
        .tls_danger_accept_invalid_certs(true)
        .tls_info(true)
        .user_agent("farrier")
        .build()
        .map_err(|e| format!("the scan's HTTP client can't be set up: {e}"))
}

pub(super) async fn ask(client: &Client, scheme: &str, address: IpAddr, port: u16) -> Heard {
    let usual = if scheme == "https" { 443 } else { 80 };
    let authority = match (port == usual, address) {
        (true, IpAddr::V4(a)) => a.to_string(),
        (true, IpAddr::V6(a)) => format!("[{a}]"),
        (false, address) => SocketAddr::new(address, port).to_string(),
    };
    let url = format!("{scheme}://{authority}");
    let request = client
        .get(format!("{url}/redfish/v1/"))
        .header(header::ACCEPT, "application/json")
        .header("OData-Version", "4.0");
    let response = match request.send().await {
        Ok(response) => response,
        Err(e) if e.is_connect() || e.is_timeout() || e.is_request() => return Heard::Silence,
        Err(_) => return Heard::Other("answers, and not in HTTP".into()),
    };
    let status = response.status();
    let certificate = response
        .extensions()
        .get::<reqwest::tls::TlsInfo>()
        .and_then(|tls| tls.peer_certificate())
        .map(|der| {
            let seen = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
            format!("sha256:{}", hex::encode(seen))
        });
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        return Heard::Other(format!("redirects to {}", plain(to.unwrap_or("nowhere"), 120)));
    }
    if !status.is_success() {
        return Heard::Other(format!("answers {} for its service root", status.as_u16()));
    }
    match body(response).await.as_deref().and_then(read) {
        Some(root) => Heard::Redfish(Redfish { url, certificate, ..root }),
        None => Heard::Other("a web server without Redfish".into()),
    }
}

async fn body(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if bytes.len() + chunk.len() > BODY_MAX {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

/// `None`: the body is no service root.
pub(super) fn read(body: &[u8]) -> Option<Redfish> {
    service_root(&serde_json::from_str(&String::from_utf8_lossy(body)).ok()?)
}

/// `None`: it is JSON, and no service root.
fn service_root(v: &Value) -> Option<Redfish> {
    let text =
        |key| v.get(key).and_then(Value::as_str).map(|t| plain(t, 80)).filter(|t| !t.is_empty());
    let version = text("RedfishVersion");
    let typed = text("@odata.type").is_some_and(|t| t.contains("ServiceRoot"));
    if version.is_none() && !typed {
        return None;
    }
    Some(Redfish {
        url: String::new(),
        version,
        uuid: text("UUID").and_then(|u| crate::model::identity::clean_uuid(&u)),
        vendor: text("Vendor"),
        product: text("Product"),
        certificate: None,
    })
}

/// Text from whoever answered, fit for a terminal.
fn plain(text: &str, max: usize) -> String {
    text.trim().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_service_root_is_known_by_its_version_or_type() {
        let root = service_root(&json!({
            "RedfishVersion": "1.18.0", "UUID": "33221100-5544-7766-8899-AABBCCDDEEFF",
            "Vendor": "ACME\u{1b}[31m", "Product": 7,
        }))
        .unwrap();
        assert_eq!(root.uuid.as_deref(), Some("33221100-5544-7766-8899-aabbccddeeff"));
        assert_eq!(root.vendor.as_deref(), Some("ACME\u{fffd}[31m"), "no escapes on a terminal");
        assert_eq!(root.product, None);
        let typed = json!({"@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot", "UUID": ""});
        assert_eq!(service_root(&typed), Some(Redfish::default()));
        assert_eq!(service_root(&json!({"status": "ok"})), None);
        assert_eq!(service_root(&json!([1])), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,200}") {
            if let Ok(v) = serde_json::from_str::<Value>(&text) {
                let _ = service_root(&v);
            }
            prop_assert!(plain(&text, 80).chars().all(|c| !c.is_control()));
        }
    }
}
