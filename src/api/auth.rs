//! Who may speak to the API: a token where one is set, and never another site's page.

use super::State;
use super::extract::text;
use super::problem::{Code, Problem};
use crate::port::Secret;
use axum::extract::{Request, State as Of};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::net::IpAddr;

/// Runs before every route.
pub(super) async fn guard(Of(state): Of<State>, request: Request, next: Next) -> Response {
    if request.uri().path() != "/healthz"
        && let Err(problem) = admit(&state, request.method(), request.headers())
    {
        return problem.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert_with(|| HeaderValue::from_static("no-store"));
    response
}

fn admit(state: &State, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let host = text(headers, "host").unwrap_or("");
    match &state.token {
        Some(token) => {
            let shown = text(headers, "authorization").and_then(credential);
            if !shown.is_some_and(|shown| same(&shown, token)) {
                return Err(Problem::new(
                    Code::Unauthorized,
                    "the request shows no token, or a wrong one",
                )
                .hint(
                    "send `Authorization: Bearer <token>`; the CLI reads it with --token-file; \
                     a browser may give it as the password of any user",
                ));
            }
        }
        // Without a token a web page could rebind its own name to this address (DNS rebinding)
        // and speak as the person who looks at it. An address and `localhost` can't be rebound.
        None if !is_unbindable(host) => {
            return Err(Problem::new(
                Code::WrongHost,
                format!(
                    "without a token the API answers to addresses and `localhost`, not to `{host}`"
                ),
            )
            .place("host")
            .hint("use the address, or set a token"));
        }
        None => {}
    }
    if method != Method::GET
        && method != Method::HEAD
        && let Some(origin) = text(headers, "origin")
        && origin.split_once("://").map(|(_, host)| host) != Some(host)
    {
        return Err(Problem::new(Code::CrossOrigin, format!("a page of {origin} sent this"))
            .place("origin"));
    }
    Ok(())
}

/// The token out of `Bearer <token>`, or the password out of `Basic <base64>`.
fn credential(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_string());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_string())
}

/// Compares in constant time: both sides are hashed first, so that neither the place of the first
/// difference nor the token's length shows.
fn same(shown: &str, token: &Secret) -> bool {
    let digest =
        |text: &str| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let (a, b) = (digest(shown), digest(token.expose()));
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_ref(), b.as_ref()).is_ok()
}

fn is_unbindable(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_both_schemes() {
        assert_eq!(credential("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(credential("bearer abc").as_deref(), Some("abc"));
        let basic = format!("Basic {}", BASE64_STANDARD.encode("ops:a:b"));
        assert_eq!(credential(&basic).as_deref(), Some("a:b"));
        assert_eq!(credential("Basic ???"), None);
        assert_eq!(credential("abc"), None);
        assert!(same("abc", &Secret::new("abc")));
        assert!(!same("abd", &Secret::new("abc")));
        assert!(!same("", &Secret::new("abc")));
    }

    #[test]
    fn names_can_be_rebound_and_addresses_cannot() {
        for good in ["127.0.0.1:7120", "localhost", "LOCALHOST:80", "[::1]:7120", "10.0.0.1"] {
            assert!(is_unbindable(good), "{good}");
        }
        for bad in ["evil.example", "127.0.0.1.evil.example:80", "", "localhost.evil.example"] {
            assert!(!is_unbindable(bad), "{bad}");
        }
    }
}
