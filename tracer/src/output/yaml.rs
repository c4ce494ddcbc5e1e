//! YAML in block style that readers of YAML 1.1 and of YAML 1.2 read alike: whatever one of them might take for something else
//! than a string is quoted.

use std::io;

use serde::Serialize;
use serde_yaml_ng::{Mapping, Value};

use crate::{
    output::kyaml::{begin_line, is_plain, is_plain_char, value},
    sanitize,
};

/// The longest key without a mark before it (YAML 1.2, 7.4.2: 1024 characters), in bytes.
const KEY_MAX: usize = 1000;

/// Appends a document, safe to show, without the end of its last line.
pub(crate) fn write(record: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(b"---\n");
    let start = out.len();
    node(&serde_yaml_ng::to_value(record).map_err(io::Error::other)?, 0, out)?;
    // The end of the last line.
    out.pop();
    sanitize::escape_yaml(out, start);
    Ok(())
}

/// The fields of a mapping; the line of the first one is begun.
fn mapping(fields: &Mapping, indent: usize, out: &mut Vec<u8>) -> io::Result<()> {
    for (index, (name, field)) in fields.iter().enumerate() {
        if index > 0 {
            begin_line(indent, out);
        }
        let is_long = name.as_str().is_some_and(|name| name.len() > KEY_MAX);
        if is_long {
            out.extend_from_slice(b"? ");
        }
        scalar(name, out)?;
        if is_long {
            out.push(b'\n');
            begin_line(indent, out);
        }
        out.push(b':');
        match field {
            Value::Mapping(fields) if !fields.is_empty() => {
                out.push(b'\n');
                begin_line(indent + 1, out);
                mapping(fields, indent + 1, out)?;
            }
            Value::Sequence(items) if !items.is_empty() => {
                out.push(b'\n');
                sequence(items, if is_long { indent + 1 } else { indent }, out)?;
            }
            other => {
                out.push(b' ');
                scalar(other, out)?;
                out.push(b'\n');
            }
        }
    }
    Ok(())
}

fn sequence(items: &[Value], indent: usize, out: &mut Vec<u8>) -> io::Result<()> {
    for item in items {
        begin_line(indent, out);
        out.extend_from_slice(b"- ");
        node(item, indent + 1, out)?;
    }
    Ok(())
}

/// A value that is no field: its first line is begun.
fn node(item: &Value, indent: usize, out: &mut Vec<u8>) -> io::Result<()> {
    match item {
        Value::Mapping(fields) if !fields.is_empty() => mapping(fields, indent, out),
        // In flow style, which may stand anywhere.
        other => {
            scalar(other, out)?;
            out.push(b'\n');
            Ok(())
        }
    }
}

/// A scalar, or anything else in flow style.
fn scalar(of: &Value, out: &mut Vec<u8>) -> io::Result<()> {
    match of.as_str() {
        Some(text) if is_plain(text) || text.starts_with('/') && text.chars().all(is_plain_char) => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
        _ => value(of, 0, out),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::output::kyaml::tests::any_record;

    fn written(record: &serde_json::Value) -> String {
        let mut out = Vec::new();
        write(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_that_some_yaml_takes_for_something_else_are_quoted() {
        let values = [
            "no",
            "12:30:45",
            "1_000",
            "=",
            "y",
            "0x1f",
            "2026-11-28T11:03:22Z",
            "~",
            "1e3",
            "",
            "a: b",
            "<<",
        ];
        for value in values {
            assert_eq!(written(&json!({"comm": value})), format!("---\ncomm: {value:?}"));
        }
        for value in
            ["sh", "/etc/hosts", "/", "kube-system", "app.kubernetes.io/name", "_x", "/usr/lib/x86_64/a.so.1"]
        {
            assert_eq!(written(&json!({"comm": value})), format!("---\ncomm: {value}"));
        }
        assert_eq!(written(&json!({"a": "\u{2028}\u{202e}"})), "---\na: \"\\u2028\\u202e\"");
    }

    #[test]
    fn nested_values_are_in_block_style() {
        let record = json!({
            "node": "n1",
            "k8s": null,
            "open": {"flags": ["O_RDONLY", "no"], "fd": -1, "handle": {}, "empty": []},
            "list": [{"a": 1, "b": [true]}, [1, "x"]],
            "on": {"1": "2"},
        });
        let expected = r#"---
k8s: null
list:
- a: 1
  b:
  - true
- [
  1,
  "x",
]
node: n1
"on":
  "1": "2"
open:
  empty: []
  fd: -1
  flags:
  - O_RDONLY
  - "no"
  handle: {}"#;
        assert_eq!(written(&record), expected);
    }

    proptest! {
        #[test]
        fn it_is_yaml_and_harmless(record in any_record(), long in "[a-z\\u{2028}]{900,1200}") {
            for record in [record.clone(), json!({ long.clone(): [record.clone()] }), json!({ long: { "a": record } })] {
                let text = written(&record);
                prop_assert!(sanitize::is_safe(&text), "{:?}", text);
                prop_assert_eq!(serde_yaml_ng::from_str::<serde_json::Value>(&text).unwrap(), record);
            }
        }
    }
}
