//! One field of one secret of a Vault-style server, by its KV version 2 API
//! (`GET /v1/<mount>/data/<path>`, answer `data.data.<field>`). Read each time it is needed.

use crate::port::Secret;
use reqwest::{Client, StatusCode, Url};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Where a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// `https://vault.example:8200`.
    pub address: String,
    /// Where the KV engine is mounted: `secret`.
    pub mount: String,
    pub path: String,
    pub field: String,
    /// First line of the file; an agent may renew it.
    pub token_file: PathBuf,
    pub namespace: Option<String>,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

const DEADLINE: Duration = Duration::from_secs(10);
/// Answers above this are not read: a secret has some KiB.
const MAX_BYTES: usize = 256 * 1024;
const MAX_TOKEN_BYTES: u64 = 8 * 1024;

/// One client for each way of trusting: a client costs 100 KB and a read of the system's roots.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients(Arc<Mutex<BTreeMap<Option<PathBuf>, Client>>>);

impl Clients {
    fn client(&self, ca: Option<&Path>) -> Result<Client, String> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&ca.map(Path::to_path_buf)) {
            return Ok(client.clone());
        }
        // Fails only where one is installed already, which is as well.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut builder = Client::builder()
            .no_proxy()
            // A redirect would carry the token to another server.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .timeout(DEADLINE)
            .user_agent("farrier");
        if let Some(path) = ca {
            let shown = path.display();
            let pem = std::fs::read(path).map_err(|e| format!("`{shown}`: {e}"))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|e| format!("`{shown}` holds no certificates: {e}"))?;
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|e| format!("no HTTP client: {e}"))?;
        made.insert(ca.map(Path::to_path_buf), client.clone());
        Ok(client)
    }
}

impl Kv {
    fn url(&self) -> Result<Url, String> {
        let bad = |why: &str| format!("`{}` is no usable address: {why}", self.address);
        let mut url = Url::parse(&self.address).map_err(|e| bad(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() {
            return Err(bad("it looks like https://vault.example:8200"));
        }
        // By segments: what stands in a path is escaped, and `..` climbs nowhere.
        let mut segments = url.path_segments_mut().map_err(|()| bad("it has no path"))?;
        segments.pop_if_empty().push("v1");
        segments.extend(self.mount.split('/').filter(|s| !s.is_empty()));
        segments.push("data");
        segments.extend(self.path.split('/').filter(|s| !s.is_empty()));
        drop(segments);
        Ok(url)
    }

    /// The field. What comes back is in no message, the token neither.
    pub(super) async fn read(&self, clients: &Clients) -> Result<Secret, String> {
        let token = self.token().await?;
        let url = self.url()?;
        let what = format!("{}{}", self.address.trim_end_matches('/'), url.path());
        let mut header = reqwest::header::HeaderValue::from_str(token.expose())
            .map_err(|_| format!("`{}` holds no token", self.token_file.display()))?;
        header.set_sensitive(true);
        let client = self.client(clients).await?;
        let mut request = client.get(url).header("X-Vault-Token", header);
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let mut answer = request.send().await.map_err(|e| format!("{what}: {}", innermost(&e)))?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(format!("{what} answered {}{}", status.as_u16(), meaning(status)));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|e| format!("{what}: {}", innermost(&e)))?
        {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(format!("{what}: the answer is longer than a secret"));
            }
            bytes.extend_from_slice(&chunk);
        }
        self.field_of(&what, &bytes)
    }

    /// The field of an answer's body.
    pub(crate) fn field_of(&self, what: &str, body: &[u8]) -> Result<Secret, String> {
        let body: serde_json::Value =
            serde_json::from_slice(body).map_err(|_| format!("{what}: the answer is no JSON"))?;
        let fields = body.pointer("/data/data").and_then(serde_json::Value::as_object);
        let Some(fields) = fields else {
            return Err(format!(
                "{what} answered 200 without `data.data`; is `{}` a KV engine of version 2?",
                self.mount
            ));
        };
        match fields.get(&self.field) {
            Some(serde_json::Value::String(value)) => Ok(Secret::new(value)),
            Some(_) => Err(format!("{what}: the field `{}` is no text", self.field)),
            None => Err(format!("{what} has no field `{}`", self.field)),
        }
    }

    /// Certificates are read on a thread that may block.
    async fn client(&self, clients: &Clients) -> Result<Client, String> {
        let (clients, ca) = (clients.clone(), self.ca_file.clone());
        let made = tokio::task::spawn_blocking(move || clients.client(ca.as_deref()));
        made.await.map_err(|e| e.to_string())?
    }

    async fn token(&self) -> Result<Secret, String> {
        let shown = self.token_file.display();
        let bad = |e: std::io::Error| format!("the token's file `{shown}`: {e}");
        let file = tokio::fs::File::open(&self.token_file).await.map_err(bad)?;
        let mut text = String::new();
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).await.map_err(bad)?;
        match text.lines().next().map(str::trim).filter(|t| !t.is_empty()) {
            Some(token) => Ok(Secret::new(token)),
            None => Err(format!("the token's file `{shown}` is empty")),
        }
    }
}

/// What a status means there, for people. <https://developer.hashicorp.com/vault/api-docs>
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => " (a bad request: is the namespace right?)",
        403 => " (permission denied: the token has expired, or its policy lacks `read` there)",
        404 => " (nothing there, or its latest version is deleted)",
        429 | 472 | 473 => " (a standby: give the address of the active server)",
        301..=308 => " (a redirect, which Farrier does not follow with a token: give that address)",
        503 => " (it is sealed or in maintenance)",
        _ => "",
    }
}

/// The cause that people know by name: "connection refused", "certificate".
fn innermost(e: &reqwest::Error) -> String {
    if e.is_timeout() {
        return format!("no answer within {} s", DEADLINE.as_secs());
    }
    let mut cause: &dyn std::error::Error = e;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(address: &str, mount: &str, path: &str) -> Kv {
        Kv {
            address: address.into(),
            mount: mount.into(),
            path: path.into(),
            field: "password".into(),
            token_file: "/nowhere".into(),
            namespace: None,
            ca_file: None,
        }
    }

    #[test]
    fn addresses_are_made_of_segments() {
        let url = |a, m, p| kv(a, m, p).url().map(|u| u.to_string());
        assert_eq!(
            url("https://v:8200", "secret", "bmc/n1").as_deref(),
            Ok("https://v:8200/v1/secret/data/bmc/n1")
        );
        assert_eq!(
            url("https://v:8200/prefix/", "/kv/team/", "/a b?c").as_deref(),
            Ok("https://v:8200/prefix/v1/kv/team/data/a%20b%3Fc")
        );
        assert!(url("v:8200", "secret", "x").is_err());
        assert!(url("https://u:p@v", "secret", "x").is_err());
    }
}
