//! HTTP to the daemon.

use super::args::Global;
use super::out::Failure;
use crate::api::problem::Body;
use crate::port::Secret;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;

/// A daemon's API.
pub(super) struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
    by: String,
}

/// An answer, also as it came: `--json` shows what was said, not what was understood.
pub(super) struct Answer<T> {
    pub(super) value: T,
    pub(super) raw: serde_json::Value,
}

impl Api {
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        let base = global.api.trim_end_matches('/').to_string();
        let url = reqwest::Url::parse(&base)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
            .ok_or_else(|| {
                Failure::usage(format!("`{base}` is not the address of an API"))
                    .hint("it looks like http://127.0.0.1:7120")
            })?;
        let token = match &global.token_file {
            Some(file) => Some(read_token(file)?),
            None => None,
        };
        if token.is_some() && url.scheme() == "http" && !is_loopback(&url) {
            return Err(Failure::usage(format!("a token would go to {base} unencrypted"))
                .hint("use https, or an address of this machine"));
        }
        // A second installation is refused; the first one is as good.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(5))
            // Longer than the daemon's keep-alive of an event stream.
            .read_timeout(Duration::from_secs(40))
            .user_agent(concat!("farrier/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" || global.ca_file.is_some() {
            // Where no certificate is looked at, the system's are not needed either.
            let mut roots = rustls::RootCertStore::empty();
            if let Some(file) = &global.ca_file {
                for certificate in read_certificates(file)? {
                    roots
                        .add(certificate)
                        .map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
                }
            }
            let tls =
                rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            builder = builder.tls_backend_preconfigured(tls);
        }
        let http = builder.build().map_err(|e| {
            Failure::error(format!("no HTTP client: {}", causes(&e)))
                .hint("--ca-file names the certificates to trust")
        })?;
        Ok(Self { http, base, token, by: speaker(global) })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        let request = self.request(Method::GET, path).timeout(Duration::from_secs(30));
        self.read(request, None).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: Option<&str>,
    ) -> Result<Answer<T>, Failure> {
        let mut request = self
            .request(Method::POST, path)
            .header("x-farrier-by", &self.by)
            .timeout(Duration::from_secs(60))
            .json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.read(request, key).await
    }

    /// A body that is not JSON.
    pub(super) async fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let request = self.request(Method::GET, path).timeout(Duration::from_secs(60));
        let response = request.send().await.map_err(|e| self.unreachable(&e, None))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| self.unreachable(&e, None))?;
        if status.is_success() { Ok(bytes.to_vec()) } else { Err(self.refused(status, &bytes)) }
    }

    /// An open event stream.
    pub(super) async fn stream(&self, path: &str) -> Result<Response, Failure> {
        let request = self.request(Method::GET, path).header("accept", "text/event-stream");
        let response = request.send().await.map_err(|e| self.unreachable(&e, None))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.bytes().await.unwrap_or_default();
        Err(self.refused(status, &bytes))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        key: Option<&str>,
    ) -> Result<Answer<T>, Failure> {
        let response = request.send().await.map_err(|e| self.unreachable(&e, key))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| self.unreachable(&e, key))?;
        if !status.is_success() {
            return Err(self.refused(status, &bytes));
        }
        let strange = |e: serde_json::Error| {
            Failure::error(format!("{} answered something else than expected: {e}", self.base))
                .hint("is it a Farrier daemon, and of the same version as this command?")
        };
        let raw: serde_json::Value = serde_json::from_slice(&bytes).map_err(strange)?;
        let value = serde_json::from_slice(&bytes).map_err(strange)?;
        Ok(Answer { value, raw })
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> Failure {
        match serde_json::from_slice::<Body>(bytes) {
            Ok(problem) => Failure::of(&problem),
            Err(_) => Failure::error(format!("{} answered {status}", self.base))
                .hint("is it a Farrier daemon? --api or FARRIER_API says where it is"),
        }
    }

    fn unreachable(&self, e: &reqwest::Error, key: Option<&str>) -> Failure {
        if e.is_connect() {
            return Failure::error(format!("no daemon at {}: {}", self.base, causes(e)))
                .hint("is `farrier serve` running? --api or FARRIER_API says where it is");
        }
        let what = if e.is_timeout() { "no answer in time".into() } else { causes(e) };
        let failure = Failure::error(format!("{}: {what}", self.base));
        match key {
            Some(key) => failure.hint(format!(
                "the change may have become durable; say it again with --key {key}: it is done once"
            )),
            None => failure,
        }
    }
}

/// The innermost cause: what people know by name ("connection refused").
fn causes(e: &dyn std::error::Error) -> String {
    let mut innermost = e;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn read_token(file: &Path) -> Result<Secret, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::usage(format!("the token's file {} can't be read: {e}", file.display()))
    })?;
    let token = text.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Failure::usage(format!("{} holds no token", file.display()))
            .hint("it holds one line of printable ASCII"));
    }
    Ok(Secret::new(token))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bad = |e: String| Failure::usage(format!("{} can't be read: {e}", file.display()));
    let pem = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = read.map_err(|e| bad(e.to_string()))?;
    if certificates.is_empty() {
        return Err(Failure::usage(format!("{} holds no certificate", file.display())));
    }
    Ok(certificates)
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn speaker(global: &Global) -> String {
    let name = global.by.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    if name.is_empty() { "cli".into() } else { name }
}

/// A path segment or query value, percent-encoded (RFC 3986 §2.3).
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}
