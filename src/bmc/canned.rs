//! Answers out of memory in the place of a connection, for fuzz targets and benches: from the bytes
//! of an answer on, everything is done by the code that reads a BMC.

use super::RedfishBmc;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;

/// What a BMC's web server says to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canned {
    pub status: u16,
    /// Names and values as they stand in the answer; what is no header is left out.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Arc<[u8]>,
}

impl Canned {
    pub(super) fn headers(&self) -> HeaderMap {
        let header = |(name, value): &(String, Vec<u8>)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value).ok()?))
        };
        let mut out = HeaderMap::new();
        for (name, value) in self.headers.iter().filter_map(header) {
            // Fails where there are more than HTTP has room for.
            out.try_append(name, value).ok();
        }
        out
    }
}

/// Who answers instead of BMCs.
pub trait Source: Send + Sync {
    /// `path` with its query.
    fn answer(&self, method: &str, path: &str) -> Canned;
}

#[derive(Clone)]
pub(super) struct Instead(pub(super) Arc<dyn Source>);

impl std::fmt::Debug for Instead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Instead")
    }
}

impl RedfishBmc {
    /// Asks `source` and nobody else: no connection is ever opened.
    pub fn answered_by(mut self, source: Arc<dyn Source>) -> Self {
        self.clients.canned = Some(Instead(source));
        self
    }
}
