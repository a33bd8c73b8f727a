//! One request and its bounded answer. Nothing here follows links, logs in or retries.

use super::Settings;
use super::canned::{Canned, Instead};
use super::fault;
use super::tls::{self, Pins, Policy};
use crate::model::{Channel, Fault, FaultClass};
use crate::port::Secret;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a BMC answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) etag: Option<String>,
    pub(super) location: Option<String>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) token: Option<Secret>,
    pub(super) body: Body,
}

/// A body, as far as it could be read.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Json(Value),
    /// Not JSON: HTML, plain text, half a document. Bounded.
    Text(String),
    /// Longer than the cap; the rest was not read.
    TooLarge,
    /// The connection ended in the middle: what had come. Bounded.
    Half(String),
}

impl Answer {
    /// All but the body.
    fn head(status: u16, headers: &HeaderMap) -> Self {
        Self {
            status,
            etag: text_header(headers, header::ETAG.as_str()),
            location: text_header(headers, header::LOCATION.as_str()),
            retry_after_ms: retry_after(headers),
            token: text_header(headers, "X-Auth-Token").map(Secret::new),
            body: Body::Empty,
        }
    }

    pub(super) fn of(canned: &Canned, max_body_bytes: usize) -> Self {
        let body = match &*canned.body {
            long if long.len() > max_body_bytes => Body::TooLarge,
            bytes => body(bytes),
        };
        Self { body, ..Self::head(canned.status, &canned.headers()) }
    }

    pub(super) fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The JSON body, or null.
    pub(super) fn json(&self) -> &Value {
        match &self.body {
            Body::Json(v) => v,
            _ => &Value::Null,
        }
    }
}

/// No answer came.
#[derive(Debug)]
pub(super) struct NoAnswer {
    pub(super) fault: Fault,
    /// The request may have reached the BMC.
    pub(super) sent: bool,
    /// The connection was cut (not: timed out): a kept-alive one may just have been closed (R6).
    pub(super) cut: bool,
}

/// How a request proves who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    None,
    Token(Secret),
    Basic { user: String, password: Secret },
}

/// A request, complete.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) login: &'a Login,
    pub(super) if_match: Option<&'a str>,
    pub(super) body: Option<&'a Value>,
}

/// A file on its way to a BMC.
pub(super) struct Upload<'a> {
    pub(super) url: Url,
    pub(super) login: &'a Login,
    /// Content type.
    pub(super) kind: &'a str,
    /// Bytes of the whole body.
    pub(super) length: u64,
    pub(super) body: reqwest::Body,
    /// Bytes that the connection has taken so far.
    pub(super) handed: Arc<AtomicU64>,
    pub(super) deadline_ms: u64,
}

/// The HTTP clients of all BMCs: a client costs 115 KB, so there is none per BMC. There is one pair
/// per way of trusting certificates, made when first needed, so that no connection opened under
/// `off` is ever reused where a pin is asked for.
#[derive(Debug)]
pub(super) struct Clients {
    settings: Arc<Settings>,
    pins: Arc<Pins>,
    made: Mutex<[Option<Pair>; 3]>,
    /// Who answers in the place of BMCs; never set in the daemon.
    pub(super) canned: Option<Instead>,
}

/// For reads: keep-alive. For action POSTs: a fresh connection each, because hyper sends a request
/// again by itself when a reused connection turns out closed, and an action must go out once.
#[derive(Clone, Debug)]
struct Pair {
    reads: Client,
    actions: Client,
}

impl Clients {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, pins: Arc::default(), made: Mutex::default(), canned: None }
    }

    fn client(&self, url: &Url, policy: Policy, action: bool) -> Result<Client, Fault> {
        let mut repinned = false;
        let slot = match policy {
            _ if url.scheme() == "http" => 0,
            Policy::Off => 0,
            Policy::Ca => 1,
            Policy::Pin(pin) => {
                let port = url.port_or_known_default().unwrap_or_default();
                repinned = self.pins.set(url.host_str().unwrap_or_default(), port, pin);
                2
            }
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if repinned {
            // With the client go its idle connections, which an older pin let in.
            made[slot] = None;
        }
        let pair = match &made[slot] {
            Some(pair) => pair.clone(),
            None => {
                let pair = Pair { reads: self.make(slot, false)?, actions: self.make(slot, true)? };
                made[slot].insert(pair).clone()
            }
        };
        Ok(if action { pair.actions } else { pair.reads })
    }

    fn make(&self, slot: usize, action: bool) -> Result<Client, Fault> {
        let s = &self.settings;
        let bug = |e: &dyn std::fmt::Display| {
            Fault::new(
                FaultClass::Bug,
                Channel::Bmc,
                "tls-setup",
                format!("the TLS client cannot be set up: {e}"),
            )
            .hint("check `ca` certificates in the configuration")
        };
        let builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .tcp_nodelay(true)
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_millis(s.connect_timeout_ms))
            // Long enough within a probe, and from it to what the following action reads again. The
            // next probe comes after the BMC's own limit anyway, and thousands of BMCs times three
            // idle connections are memory.
            .pool_idle_timeout(Duration::from_secs(1))
            .pool_max_idle_per_host(if action { 0 } else { s.reads_per_bmc })
            .user_agent("farrier");
        let builder = match slot {
            0 => builder.tls_backend_preconfigured(tls::config(None).map_err(|e| bug(&e))?),
            2 => builder.tls_backend_preconfigured(
                tls::config(Some(self.pins.clone())).map_err(|e| bug(&e))?,
            ),
            _ => {
                // Fails only where one is installed already, which is as well.
                rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
                let mut extra = Vec::new();
                if let Some(pem) = &s.ca_pem {
                    extra = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                        .map_err(|e| bug(&e))?;
                }
                builder.tls_certs_merge(extra)
            }
        };
        builder.build().map_err(|e| bug(&e))
    }

    /// Sends one request once. POSTs go out on a connection of their own.
    pub(super) async fn send(
        &self,
        policy: Policy,
        request: Request<'_>,
    ) -> Result<Answer, NoAnswer> {
        let Some(trace) = self.settings.trace.clone() else {
            return self.send_once(policy, request).await;
        };
        let (method, path) = (request.method.to_string(), request.url.path().to_string());
        let started = Instant::now();
        let answer = self.send_once(policy, request).await;
        trace.note(&method, &path, answer.as_ref().ok(), started.elapsed());
        answer
    }

    async fn send_once(&self, policy: Policy, request: Request<'_>) -> Result<Answer, NoAnswer> {
        if let Some(answer) = self.canned(&request.method, &request.url) {
            return Ok(answer);
        }
        let action = request.method == Method::POST;
        let what = format!("{} {}", request.method, request.url.path());
        let client = self.client(&request.url, policy, action).map_err(unsent)?;
        let timeout = if request.method == Method::GET {
            self.settings.read_timeout_ms
        } else {
            self.settings.write_timeout_ms
        };
        let built = client.request(request.method, request.url);
        let mut built = headers(built, request.login, &what)
            .map_err(unsent)?
            .timeout(Duration::from_millis(timeout));
        if let Some(etag) = request.if_match
            && let Ok(value) = HeaderValue::from_str(etag)
        {
            built = built.header(header::IF_MATCH, value);
        }
        if let Some(body) = request.body {
            built = built.json(body);
        }
        self.receive(built.send().await, &what, timeout).await
    }

    /// Pushes a file once, as long as it moves and no longer than its deadline.
    pub(super) async fn upload(
        &self,
        policy: Policy,
        upload: Upload<'_>,
    ) -> Result<Answer, NoAnswer> {
        let Upload { url, login, kind, length, body, handed, deadline_ms } = upload;
        if let Some(answer) = self.canned(&Method::POST, &url) {
            return Ok(answer);
        }
        let what = format!("POST {}", url.path());
        let client = self.client(&url, policy, true).map_err(unsent)?;
        let built = headers(client.post(url), login, &what)
            .map_err(unsent)?
            .timeout(Duration::from_millis(deadline_ms))
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, length)
            .body(body);
        let answer = built.send();
        tokio::pin!(answer);
        let mut before = 0;
        let stall_ms = self.settings.write_timeout_ms;
        loop {
            let stall = tokio::time::sleep(Duration::from_millis(stall_ms));
            tokio::select! {
                response = &mut answer => return self.receive(response, &what, deadline_ms).await,
                () = stall => {}
            }
            let now = handed.load(Ordering::Relaxed);
            // All of it is there: the BMC verifies, which takes what it takes (bmcweb: 15 min).
            if now == before && now < length {
                let s = stall_ms.div_ceil(1000);
                let why =
                    format!("{what}: the upload stood still for {s} s at {now} of {length} bytes");
                let fault = Fault::no_answer(Channel::Bmc, why);
                return Err(NoAnswer { fault, sent: true, cut: false });
            }
            before = now;
        }
    }

    async fn receive(
        &self,
        sent: Result<reqwest::Response, reqwest::Error>,
        what: &str,
        timeout: u64,
    ) -> Result<Answer, NoAnswer> {
        let response = match sent {
            Ok(r) => r,
            Err(e) => {
                return Err(NoAnswer {
                    // A builder error never left; a connect error includes DNS and handshakes.
                    sent: !(e.is_connect() || e.is_builder()),
                    cut: !(e.is_connect() || e.is_builder() || e.is_timeout()),
                    fault: fault::no_connection(what, &e, timeout),
                });
            }
        };
        crate::port::heard::answered();
        let answer = Answer::head(response.status().as_u16(), response.headers());
        let body = read_body(response, self.settings.max_body_bytes).await;
        // Whoever got a status line got an answer: a timeout in the body is half a body.
        Ok(Answer { body, ..answer })
    }

    fn canned(&self, method: &Method, url: &Url) -> Option<Answer> {
        let Instead(source) = self.canned.as_ref()?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_string(),
        };
        Some(Answer::of(&source.answer(method.as_str(), &path), self.settings.max_body_bytes))
    }
}

fn unsent(fault: Fault) -> NoAnswer {
    NoAnswer { fault, sent: false, cut: false }
}

/// What every request has; the login goes with the first request, never after a challenge.
fn headers(
    built: reqwest::RequestBuilder,
    login: &Login,
    what: &str,
) -> Result<reqwest::RequestBuilder, Fault> {
    let built = built.header(header::ACCEPT, "application/json").header("OData-Version", "4.0");
    Ok(match login {
        Login::None => built,
        Login::Token(token) => {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| {
                fault::not_redfish(what, "its session token has control characters")
            })?;
            value.set_sensitive(true);
            built.header("X-Auth-Token", value)
        }
        Login::Basic { user, password } => built.basic_auth(user, Some(password.expose())),
    })
}

/// A header as text; the first one where it is repeated (duplicate ETags exist).
fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_string())
}

/// Retry-After in seconds (RFC 9110 §10.2.3); the date form is not used by BMCs, whose clocks are
/// wrong anyway. At most an hour is believed.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = text_header(headers, header::RETRY_AFTER.as_str())?.parse().ok()?;
    Some(seconds.min(3600) * 1000)
}

async fn read_body(mut response: reqwest::Response, max: usize) -> Body {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > max => return Body::TooLarge,
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => return Body::Half(head(&bytes)),
        }
    }
    body(&bytes)
}

/// A whole body, with or without a mark of UTF-8 before it.
fn body(bytes: &[u8]) -> Body {
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Body::Empty;
    }
    // Some BMCs send Latin-1 in names: a wrong letter must not cost the document.
    match serde_json::from_str(&String::from_utf8_lossy(bytes)) {
        Ok(v) => Body::Json(v),
        Err(_) => Body::Text(head(bytes)),
    }
}

fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]).into_owned()
}
