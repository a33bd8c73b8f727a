//! Refusals in a vendor's words: the same failure in each shape that the field has (notes R8, R9).

use crate::sim::serve::profile::{Errors, Said, Shape};
use crate::sim::serve::redfish::document;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal of the Base registry.
pub(super) fn base(status: u16, id: &str, message: &str) -> Said {
    Said {
        status,
        id: format!("Base.1.18.{id}"),
        message: message.to_string(),
        args: Vec::new(),
        retry_after_s: None,
    }
}

/// `said` in the shape that this vendor's errors have; `busy`: while the BMC starts.
pub(super) fn refusal(errors: &Errors, said: &Said, busy: bool) -> Response {
    let shape = match (said.status, errors.refused) {
        _ if busy => errors.busy,
        (401, Some(shape)) => shape,
        _ => errors.shape,
    };
    let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut out = match shape {
        Shape::Standard | Shape::Object | Shape::TopLevel => {
            document(status, &body(errors, shape, said))
        }
        Shape::Html => {
            let title = format!("{} - {}", said.status, reason(status));
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html><head><title>{title}\
                 </title></head>\n<body><h1>{title}</h1></body></html>\n"
            );
            (status, [(header::CONTENT_TYPE, "text/html")], text).into_response()
        }
        Shape::Plain => {
            let text = format!("{} {}\n", said.status, reason(status));
            (status, [(header::CONTENT_TYPE, "text/plain")], text).into_response()
        }
        Shape::Empty => status.into_response(),
    };
    if let Some(seconds) = said.retry_after_s
        && let Ok(seconds) = HeaderValue::from_str(&seconds.to_string())
    {
        out.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    out
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// An error document of one of the JSON shapes.
pub(super) fn body(errors: &Errors, shape: Shape, said: &Said) -> Value {
    let message = json!({
        "@odata.type": "#Message.v1_1_1.Message",
        "MessageId": said.id, "Message": said.message, "MessageArgs": said.args,
        "Severity": "Critical", "Resolution": "None.",
    });
    match shape {
        Shape::TopLevel => json!({ "@Message.ExtendedInfo": [message] }),
        _ => {
            let code = errors.code.clone().unwrap_or_else(|| said.id.clone());
            let list = if shape == Shape::Object { message } else { json!([message]) };
            json!({"error": {
                "code": code, "message": "See @Message.ExtendedInfo for more information.",
                "@Message.ExtendedInfo": list,
            }})
        }
    }
}

/// What an error of the clean tree says.
pub(super) fn said_by(status: u16, error: &Value) -> Said {
    let info = &error["error"]["@Message.ExtendedInfo"][0];
    let text = |v: &Value| v.as_str().map(str::to_string);
    let args = info["MessageArgs"].as_array().into_iter().flatten();
    Said {
        status,
        id: text(&info["MessageId"])
            .or_else(|| text(&error["error"]["code"]))
            .unwrap_or_else(|| "Base.1.18.GeneralError".into()),
        message: text(&info["Message"])
            .or_else(|| text(&error["error"]["message"]))
            .unwrap_or_default(),
        args: args.filter_map(text).collect(),
        retry_after_s: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_shape_its_vendor_gives_it() {
        let said = base(503, "ServiceTemporarilyUnavailable", "not now");
        let with = |shape| Errors { shape, ..Errors::default() };
        let info = |shape| body(&with(shape), shape, &said);
        assert!(info(Shape::Standard)["error"]["@Message.ExtendedInfo"].is_array());
        assert!(info(Shape::Object)["error"]["@Message.ExtendedInfo"].is_object());
        assert!(info(Shape::TopLevel)["@Message.ExtendedInfo"].is_array());
        for (shape, kind) in [(Shape::Html, "text/html"), (Shape::Plain, "text/plain")] {
            let out = refusal(&with(shape), &said, false);
            assert_eq!(out.headers()[header::CONTENT_TYPE], kind);
        }
        let empty = Errors { refused: Some(Shape::Empty), ..Errors::default() };
        let out = refusal(&empty, &base(401, "NoValidSession", "log in"), false);
        assert!(out.headers().get(header::CONTENT_TYPE).is_none());
        let back = said_by(503, &info(Shape::Standard));
        assert_eq!(back, said);
    }
}
