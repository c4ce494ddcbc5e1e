//! Forms of output, as `-o` names them.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::{
    output::{Layout, kyaml},
    sanitize,
};

/// A form of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns.
    Table(Layout),
    /// Documents for programs.
    Document(Document),
}

impl Format {
    /// From what `-o` was given.
    pub(crate) fn parse(output: &str) -> Result<Self, String> {
        Ok(match output {
            "columns" => Self::Table(Layout::Narrow),
            "wide" => Self::Table(Layout::Wide),
            "json" => Self::Document(Document::Json),
            "jsonpretty" => Self::Document(Document::JsonPretty),
            "yaml" => Self::Document(Document::Yaml),
            "kyaml" => Self::Document(Document::Kyaml),
            _ => match output.strip_prefix("custom-columns=") {
                Some(names) => Self::Table(Layout::Custom(names.split(',').map(str::to_owned).collect())),
                None => {
                    return Err(format!(
                        "{output:?} is none of columns, wide, json, jsonpretty, yaml, kyaml, custom-columns=A,B"
                    ));
                }
            },
        })
    }
}

/// A form for programs to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// One JSON object a line.
    Json,
    /// JSON over many lines.
    JsonPretty,
    /// YAML documents.
    Yaml,
    /// KYAML documents.
    Kyaml,
}

impl Document {
    /// Appends a record.
    pub(crate) fn write(self, record: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Json => write_json(record, out)?,
            Self::JsonPretty => {
                let start = out.len();
                record.serialize(&mut Serializer::with_formatter(&mut *out, PrettyFormatter::new()))?;
                sanitize::escape_json(out, start);
            }
            Self::Kyaml => kyaml::write(record, out)?,
            Self::Yaml => {
                // One document for each, so that a stream that was cut off can be read up to there.
                out.extend_from_slice(b"---\n");
                let start = out.len();
                serde_yaml_ng::to_writer(&mut *out, record).map_err(io::Error::other)?;
                if std::str::from_utf8(&out[start..]).is_ok_and(sanitize::is_safe) {
                    return Ok(());
                }
                // Nearly none is. What is not can be escaped in YAML's other style only, which is JSON's.
                out.truncate(start);
                record.serialize(&mut Serializer::with_formatter(&mut *out, Flow))?;
                sanitize::escape_yaml(out, start);
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// YAML's flow style: JSON, but for the marks before keys, which may be of any length only so (YAML 1.2, 7.4.2).
struct Flow;

impl Formatter for Flow {
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"? " } else { b", ? " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Appends a record as JSON, safe to show.
pub(crate) fn write_json(record: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    serde_json::to_writer(&mut *out, record)?;
    sanitize::escape_json(out, start);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_unknown_output_is_an_error_that_lists_all() {
        let error = Format::parse("xml").unwrap_err();
        assert!(error.contains("\"xml\"") && error.contains("custom-columns"), "{error}");
    }

    #[test]
    fn yaml_keeps_its_meaning_without_what_a_terminal_would_act_on() {
        let yaml = |text: &str| {
            let mut out = Vec::new();
            let record: BTreeMap<&str, [&str; 1]> = [("a", [text]), (text, ["\"\\n"])].into();
            Document::Yaml.write(&record, &mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            let read: BTreeMap<String, [String; 1]> = serde_yaml_ng::from_str(&out).unwrap();
            assert_eq!((&*read["a"][0], &*read[text][0]), (text, "\"\\n"), "{out}");
            assert!(out.starts_with("---\n") && out.ends_with('\n') && sanitize::is_safe(&out), "{out:?}");
            out
        };
        assert!(yaml("plain").ends_with("\na:\n- plain\nplain:\n- '\"\\n'\n"));
        assert!(yaml("a\u{202e}b").contains(r#"? "a": ["a\u202eb"]"#));
        for text in ["\u{2028}", "\u{e0001}\u{200b}", "\u{ffff}\u{301}", "😀\u{200d}", "\u{7f}\u{85}\u{61c}"]
        {
            yaml(text);
            // Keys of any length.
            yaml(&text.repeat(2000));
        }
    }

    #[test]
    fn custom_columns_are_a_list() {
        let custom = |names: &[&str]| {
            Ok(Format::Table(Layout::Custom(names.iter().map(ToString::to_string).collect())))
        };
        assert_eq!(Format::parse("custom-columns=POD"), custom(&["POD"]));
        assert_eq!(Format::parse("custom-columns=POD,,PID"), custom(&["POD", "", "PID"]));
    }
}
