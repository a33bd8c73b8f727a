//! The body of a callback: outside data, read strictly and bounded.

use crate::model::facts::Callback;
use crate::port::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Longest message that is kept, characters.
const MESSAGE: usize = 500;

#[derive(Deserialize)]
struct Body {
    token: String,
    ok: bool,
    #[serde(default)]
    host_key: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

/// The token and what was said. `Err`: what is wrong, quoting nothing of the body.
pub(super) fn parse(body: &[u8]) -> Result<(Secret, Callback), String> {
    let body: Body = serde_json::from_slice(body).map_err(|e| {
        // serde's own text may quote a value, and a value may be the token.
        let (line, column) = (e.line(), e.column());
        format!(
            "the body is not the JSON object `token`, `ok`, `host_key`, `message` \
             (line {line}, column {column})"
        )
    })?;
    let host_key = match body.host_key.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(
            public_key(text)
                .ok_or("`host_key` is not an OpenSSH public key line like `ssh-ed25519 AAAA…`")?,
        ),
    };
    let message = body.message.map(|m| bounded(&m)).filter(|m| !m.is_empty());
    let code = body.code.filter(|code| is_code(code));
    Ok((Secret::new(body.token), Callback { ok: body.ok, message, code, host_key }))
}

/// `type base64`, without the comment: it differs from read to read and proves nothing.
fn public_key(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let (kind, blob) = (words.next()?, words.next()?);
    if text.contains(['\n', '\r']) {
        return None;
    }
    // RFC 4253 §6.6: the blob starts with its own type as a string.
    let bytes = STANDARD.decode(blob).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let inner = rest.get(..length)?;
    (inner == kind.as_bytes() && rest.len() > length).then(|| format!("{kind} {blob}"))
}

/// One word, as fault codes are.
fn is_code(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn bounded(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(MESSAGE).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn a_key_loses_its_comment() {
        assert_eq!(public_key(KEY).as_deref(), Some(KEY));
        assert_eq!(public_key(&format!("{KEY} root@n1 x")).as_deref(), Some(KEY));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in [
            "ssh-ed25519",
            "ssh-ed25519 !!!!",
            "ssh-ed25519 AAAA",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert_eq!(public_key(bad), None, "{bad}");
        }
        assert_eq!(public_key(&format!("{KEY}\n{KEY}")), None);
    }

    #[test]
    fn errors_quote_nothing() {
        for body in [r#"{"token":"s3cret","ok":"s3cret"}"#, r#""s3cret""#, r#"{"token":"s3cret"}"#]
        {
            assert!(!parse(body.as_bytes()).unwrap_err().contains("s3cret"), "{body}");
        }
    }

    #[test]
    fn a_message_is_bounded() {
        let body =
            serde_json::json!({"token": "t", "ok": false, "message": "x\n\u{1b}".repeat(999)});
        let (_, said) = parse(body.to_string().as_bytes()).unwrap();
        let message = said.message.unwrap();
        assert!(message.chars().count() <= MESSAGE && !message.contains(char::is_control));
    }
}
