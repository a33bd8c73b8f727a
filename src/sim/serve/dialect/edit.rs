//! What a vendor's resources have otherwise: single properties set, nulled or left out.

use crate::sim::serve::profile::Profile;
use serde_json::Value;

/// Applies every edit that is for the resource at `path` (segments below `/redfish/v1`).
pub(super) fn apply(profile: &Profile, path: &[String], body: &mut Value) {
    for edit in profile.edit.iter().filter(|e| fits(&e.path, path)) {
        let Some((parent, key)) = edit.at.rsplit_once('/') else { continue };
        let key = key.replace("~1", "/").replace("~0", "~");
        let Some(parent) = body.pointer_mut(parent).and_then(Value::as_object_mut) else {
            continue;
        };
        match &edit.set {
            Some(value) => {
                parent.insert(key, value.clone());
            }
            None if edit.to_null => {
                parent.insert(key, Value::Null);
            }
            None => {
                parent.remove(&key);
            }
        }
    }
}

fn fits(pattern: &str, path: &[String]) -> bool {
    let mut wanted = pattern.split('/').filter(|s| !s.is_empty());
    let mut found = path.iter();
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(w), Some(f)) if w == "*" || w == f => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn edits_set_null_and_remove_where_the_path_fits() {
        let text = "name = \"x\"\n\
            [[edit]]\npath = \"A/*\"\nat = \"/Boot/Mode\"\nto_null = true\n\
            [[edit]]\npath = \"A/*\"\nat = \"/Gone\"\n\
            [[edit]]\npath = \"A/*\"\nat = \"/New\"\nset = [1, \"two\"]\n\
            [[edit]]\npath = \"A/*\"\nat = \"/No/Such/Parent\"\nset = 1\n";
        let profile = Profile::parse("x", text).expect("valid");
        let before = json!({"Boot": {"Mode": "UEFI"}, "Gone": 1});
        let mut v = before.clone();
        apply(&profile, &["B".into(), "1".into()], &mut v);
        assert_eq!(v, before);
        apply(&profile, &["A".into(), "1".into()], &mut v);
        assert_eq!(v, json!({"Boot": {"Mode": null}, "New": [1, "two"]}));
    }
}
