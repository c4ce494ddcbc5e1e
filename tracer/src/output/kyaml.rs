//! KYAML, as kubectl's `-o kyaml` writes it (<https://kep.k8s.io/5295>): YAML in flow style that depends on no
//! indentation, and quotes what other YAML might take for something else.

use std::io;

use serde::Serialize;
use serde_yaml_ng::Value;

use crate::sanitize;

/// Appends a document, safe to show, without the end of its last line.
pub(crate) fn write(record: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(b"---\n");
    let start = out.len();
    value(&serde_yaml_ng::to_value(record).map_err(io::Error::other)?, 0, out)?;
    sanitize::escape_yaml(out, start);
    Ok(())
}

pub(super) fn value(of: &Value, indent: usize, out: &mut Vec<u8>) -> io::Result<()> {
    match of {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(is) => out.extend_from_slice(is.to_string().as_bytes()),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => serde_json::to_writer(out, text)?,
        Value::Sequence(items) if items.is_empty() => out.extend_from_slice(b"[]"),
        Value::Sequence(items) => sequence(items, indent, out)?,
        Value::Mapping(fields) if fields.is_empty() => out.extend_from_slice(b"{}"),
        Value::Mapping(fields) => {
            out.extend_from_slice(b"{\n");
            for (name, field) in fields {
                begin_line(indent + 1, out);
                key(name, out)?;
                out.extend_from_slice(b": ");
                value(field, indent + 1, out)?;
                out.extend_from_slice(b",\n");
            }
            begin_line(indent, out);
            out.push(b'}');
        }
        Value::Tagged(tagged) => value(&tagged.value, indent, out)?,
    }
    Ok(())
}

fn sequence(items: &[Value], indent: usize, out: &mut Vec<u8>) -> io::Result<()> {
    out.push(b'[');
    // Brackets stand side by side.
    if items.iter().all(|item| item.is_mapping() || item.is_sequence()) {
        for (index, item) in items.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b", " } else { b"" });
            value(item, indent, out)?;
        }
    } else {
        out.push(b'\n');
        for item in items {
            begin_line(indent + 1, out);
            value(item, indent + 1, out)?;
            out.extend_from_slice(b",\n");
        }
        begin_line(indent, out);
    }
    out.push(b']');
    Ok(())
}

pub(super) fn begin_line(indent: usize, out: &mut Vec<u8>) {
    out.extend(std::iter::repeat_n(b' ', indent * 2));
}

/// A field's name, without quotes where no YAML takes it for anything else.
fn key(name: &Value, out: &mut Vec<u8>) -> io::Result<()> {
    match name.as_str() {
        Some(name) if is_plain(name) => out.extend_from_slice(name.as_bytes()),
        Some(name) => serde_json::to_writer(out, name)?,
        None => value(name, 0, out)?,
    }
    Ok(())
}

pub(super) fn is_plain(name: &str) -> bool {
    /// Words of YAML 1.1 and 1.2.
    const WORDS: [&str; 14] =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "nan", "inf", "infinity"];
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(is_plain_char) && !WORDS.contains(&name.to_ascii_lowercase().as_str())
}

/// Whether a character behind the first needs no quotes.
pub(super) fn is_plain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(record: &serde_json::Value) -> String {
        let mut out = Vec::new();
        write(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What kubectl 1.36 prints of such an object.
    #[test]
    fn it_looks_as_kubectls() {
        let record = json!({
            "a-map": {"app.kubernetes.io/name": "x", "on": "x", "True": "y", "1": "2", "f": "1.5", "e": {}},
            "containers": [{"args": [], "name": "y"}, {"key": "a"}],
            "words": ["a b", "l1\nl2"],
            "z": [1, null, true],
        });
        let expected = r#"---
{
  a-map: {
    "1": "2",
    "True": "y",
    app.kubernetes.io/name: "x",
    e: {},
    "f": "1.5",
    "on": "x",
  },
  containers: [{
    args: [],
    name: "y",
  }, {
    key: "a",
  }],
  words: [
    "a b",
    "l1\nl2",
  ],
  z: [
    1,
    null,
    true,
  ],
}"#;
        assert_eq!(written(&record), expected);
    }

    proptest! {
        #[test]
        fn it_is_yaml_and_harmless(record in any_record()) {
            let text = written(&record);
            prop_assert!(sanitize::is_safe(&text), "{:?}", text);
            prop_assert_eq!(serde_yaml_ng::from_str::<serde_json::Value>(&text).unwrap(), record);
        }
    }

    pub(in crate::output) fn any_record() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<String>().prop_map(serde_json::Value::from),
            "yes|no|null|1e3|0x1f|~|-|: |#".prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            let key = prop_oneof!["[a-z./-]{0,8}", any::<String>(), "yes|No|1e3|0x1f|~|null"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
