//! Small getters over what a BMC sent. Nothing is trusted to be there or to have the right type
//! (field notes R23): a wrong value is `None` and, where somebody listens, a warning.

use serde_json::Value;

/// Most warnings one inventory keeps: a broken BMC repeats itself.
const MAX_WARNINGS: usize = 50;
/// Characters of a warning; paths in it are as long as a BMC likes.
const MAX_WARNING: usize = 400;
/// Bytes of a text that are believed. The longest in a captured tree, a chain of certificates, has 5,082.
const MAX_TEXT: usize = 8 << 10;

/// What was odd while reading, for people.
#[derive(Debug, Default)]
pub(super) struct Warnings(pub(super) Vec<String>);

impl Warnings {
    pub(super) fn push(&mut self, text: impl Into<String>) {
        let text = excerpt(&text.into(), MAX_WARNING);
        if self.0.len() < MAX_WARNINGS && !self.0.contains(&text) {
            self.0.push(text);
        }
    }

    /// A text property of the resource at `path`. Numbers are taken as text: serials that look
    /// like numbers are sent as such.
    pub(super) fn text(&mut self, v: &Value, key: &str, path: &str) -> Option<String> {
        match v.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(s)) => not_blank(s),
            Some(Value::Number(n)) => Some(n.to_string()),
            Some(other) => {
                self.push(format!("{path}: `{key}` is {}, not text", kind(other)));
                None
            }
        }
    }

    /// A number property; numbers sent as text are read.
    pub(super) fn number(&mut self, v: &Value, key: &str, path: &str) -> Option<f64> {
        let found = match v.get(key) {
            None | Some(Value::Null) => return None,
            Some(Value::Number(n)) => n.as_f64(),
            Some(Value::String(s)) => s.trim().parse().ok(),
            Some(_) => None,
        };
        let found = found.filter(|n: &f64| n.is_finite() && *n >= 0.0);
        if found.is_none() {
            self.push(format!("{path}: `{key}` is no usable number"));
        }
        found
    }
}

/// What kind of JSON value it is, in words.
pub(super) fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "true/false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn not_blank(s: &str) -> Option<String> {
    let s = s.trim();
    let end = s.floor_char_boundary(MAX_TEXT);
    (!s.is_empty()).then(|| s.get(..end).unwrap_or_default().to_string())
}

/// Text at `path` below `v`; blank and wrong types are `None`.
pub(super) fn text(v: &Value, path: &[&str]) -> Option<String> {
    match at(v, path)? {
        Value::String(s) => not_blank(s),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// The value at `path` below `v`, if it is there and not null.
pub(super) fn at<'v>(v: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(v, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// The link `v[path]["@odata.id"]`.
pub(super) fn link(v: &Value, path: &[&str]) -> Option<String> {
    link_of(at(v, path)?)
}

/// A reference: an object with `@odata.id`, or, wrongly but seen, the URI itself.
pub(super) fn link_of(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => not_blank(s),
        Value::Object(o) => o.get("@odata.id").and_then(Value::as_str).and_then(not_blank),
        _ => None,
    }
}

/// The list at `path`; `null`, absent and wrong types are empty (`Members: null`, R23).
pub(super) fn list<'v>(v: &'v Value, path: &[&str]) -> &'v [Value] {
    at(v, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of the list at `path`; others in it are left out.
pub(super) fn texts(v: &Value, path: &[&str]) -> Vec<String> {
    list(v, path).iter().filter_map(|v| v.as_str().map(str::to_string)).collect()
}

/// Does this member carry its resource, not just the reference (`$expand`)?
pub(super) fn is_expanded(v: &Value) -> bool {
    v.as_object().is_some_and(|o| o.keys().any(|k| !k.starts_with('@')))
}

/// Last segment of a URI: the resource's id on every BMC seen.
pub(super) fn last_segment(uri: &str) -> &str {
    uri.trim_end_matches('/').rsplit('/').next().unwrap_or(uri)
}

/// The same resource? iLO differs in case and in the slash at the end (R23).
pub(super) fn uri_eq(a: &str, b: &str) -> bool {
    a.trim_end_matches('/').eq_ignore_ascii_case(b.trim_end_matches('/'))
}

/// The first `max` characters, on one line and without what a terminal would obey.
pub(super) fn excerpt(text: &str, max: usize) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        if out.len() > max * 4 {
            break;
        }
    }
    match out.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &out[..at]),
        None => out,
    }
}

/// One message of `@Message.ExtendedInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Last dotted segment: registry and version differ between BMCs (R9).
    pub(super) id: String,
    pub(super) text: String,
    pub(super) severity: String,
    pub(super) args: Vec<String>,
}

/// All messages of a body, in whatever shape it has them (R9).
pub(super) fn messages(body: &Value) -> Vec<Message> {
    let mut out = Vec::new();
    let Some(top) = body.as_object() else { return out };
    for wrapper in ["error", "Accepted", "Success"] {
        let Some(inner) = top.get(wrapper) else { continue };
        if let Some(info) = inner.get("@Message.ExtendedInfo") {
            collect(info, &mut out);
        }
        // `error` without messages: its own code and text.
        if wrapper == "error" && out.is_empty() {
            collect(inner, &mut out);
        }
    }
    for (key, value) in top {
        if key.ends_with("@Message.ExtendedInfo") {
            collect(value, &mut out);
        }
    }
    if let Some(list) = top.get("Messages") {
        collect(list, &mut out);
    }
    out
}

fn collect(v: &Value, out: &mut Vec<Message>) {
    match v {
        Value::Array(items) => items.iter().take(50).for_each(|v| collect(v, out)),
        Value::Object(_) => {
            let id = text(v, &["MessageId"]).or_else(|| text(v, &["code"])).unwrap_or_default();
            let words = text(v, &["Message"]).or_else(|| text(v, &["message"])).unwrap_or_default();
            if id.is_empty() && words.is_empty() {
                return;
            }
            out.push(Message {
                id: id.rsplit('.').next().unwrap_or_default().to_string(),
                text: words,
                severity: text(v, &["MessageSeverity"])
                    .or_else(|| text(v, &["Severity"]))
                    .unwrap_or_default(),
                args: list(v, &["MessageArgs"])
                    .iter()
                    .filter_map(|a| match a {
                        Value::String(s) => Some(s.clone()),
                        Value::Number(n) => Some(n.to_string()),
                        _ => None,
                    })
                    .collect(),
            });
        }
        Value::String(s) => {
            out.push(Message {
                id: String::new(),
                text: s.clone(),
                severity: String::new(),
                args: vec![],
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_found_in_every_shape() {
        let shapes = [
            json!({"error": {"code": "x", "@Message.ExtendedInfo": [{"MessageId": "Base.1.8.ResourceInUse", "Message": "busy"}]}}),
            json!({"error": {"@Message.ExtendedInfo": {"MessageId": "iLO.2.14.ResourceInUse", "Message": "busy"}}}),
            json!({"@Message.ExtendedInfo": [{"MessageId": "ResourceInUse", "Message": "busy"}]}),
            json!({"Boot@Message.ExtendedInfo": [{"MessageId": "Base.ResourceInUse", "Message": "busy"}]}),
            json!({"Accepted": {"@Message.ExtendedInfo": [{"MessageId": "SMC.1.0.ResourceInUse", "Message": "busy"}]}}),
            json!({"error": {"code": "Base.1.0.ResourceInUse", "message": "busy"}}),
        ];
        for s in shapes {
            let found = messages(&s);
            assert_eq!(found.len(), 1, "{s}");
            assert_eq!((found[0].id.as_str(), found[0].text.as_str()), ("ResourceInUse", "busy"));
        }
        assert!(messages(&json!({"error": null})).is_empty());
        assert!(messages(&json!([1, 2])).is_empty());
    }

    #[test]
    fn wrong_types_are_none_and_warned_of() {
        let mut w = Warnings::default();
        let v = json!({"Model": {"a": 1}, "SerialNumber": 42, "Name": "  ", "Size": "12"});
        assert_eq!(w.text(&v, "Model", "/x"), None);
        assert_eq!(w.0, ["/x: `Model` is an object, not text"]);
        assert_eq!(w.text(&v, "SerialNumber", "/x").as_deref(), Some("42"));
        assert_eq!(w.text(&v, "Name", "/x"), None);
        assert_eq!(w.number(&v, "Size", "/x"), Some(12.0));
        assert_eq!(w.number(&v, "Model", "/x"), None);
        assert_eq!(w.0.len(), 2);
    }

    #[test]
    fn excerpts_are_cut_at_characters() {
        assert_eq!(excerpt("a\n  b", 10), "a b");
        assert_eq!(excerpt(&"é".repeat(20), 5), "ééééé…");
        assert_eq!(excerpt("\u{1b}[31mred\0", 20), "\u{fffd}[31mred\u{fffd}");
    }

    #[test]
    fn a_text_without_end_is_cut() {
        let v = json!({"Model": "é".repeat(MAX_TEXT)});
        assert!(text(&v, &["Model"]).is_some_and(|t| t.len() == MAX_TEXT));
        let mut w = Warnings::default();
        assert_eq!(w.text(&json!({"x": []}), "x", &"/long".repeat(MAX_TEXT)), None);
        assert_eq!(w.0[0].chars().count(), MAX_WARNING + 1);
    }

    #[test]
    fn uris_compare_without_case_and_slash() {
        assert!(uri_eq("/redfish/v1/systems/1/", "/redfish/v1/Systems/1"));
        assert_eq!(last_segment("/redfish/v1/Systems/1/"), "1");
    }
}
