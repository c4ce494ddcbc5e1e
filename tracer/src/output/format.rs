//! Forms of output, as `-o` names them.

use std::io;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::{
    output::{Layout, kyaml, yaml},
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

/// The usual form.
pub(crate) const COLUMNS: &str = "columns";
/// The form that lists what [`Format`] and its columns can be.
pub(crate) const HELP: &str = "help";

/// What `-o` takes, and what that is.
pub(crate) const FORMATS: [(&str, &str); 8] = [
    (COLUMNS, "a table, as wide as the terminal"),
    ("wide", "a table with more columns"),
    ("json", "one JSON object on each line"),
    ("jsonpretty", "indented JSON objects"),
    ("yaml", "YAML documents"),
    ("kyaml", "KYAML documents (YAML with braces and quotes)"),
    ("custom-columns=A,B", "a table of these columns"),
    (HELP, "this list"),
];

impl Format {
    /// From what `-o` was given.
    pub(crate) fn parse(output: &str) -> Result<Self, String> {
        Ok(match output {
            COLUMNS => Self::Table(Layout::Narrow),
            "wide" => Self::Table(Layout::Wide),
            "json" => Self::Document(Document::Json),
            "jsonpretty" => Self::Document(Document::JsonPretty),
            "yaml" => Self::Document(Document::Yaml),
            "kyaml" => Self::Document(Document::Kyaml),
            _ => {
                let Some(names) = output.strip_prefix("custom-columns=") else {
                    let formats = FORMATS.map(|(format, _)| format).join(", ");
                    return Err(format!("unknown output format {output:?}; expected one of: {formats}"));
                };
                Self::Table(Layout::Custom(names.split(',').map(str::to_owned).collect()))
            }
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
            // One document for each, so that a stream that was cut off can be read up to there.
            Self::Yaml => yaml::write(record, out)?,
        }
        out.push(b'\n');
        Ok(())
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
    use super::*;

    #[test]
    fn an_unknown_output_is_an_error_that_lists_all() {
        let error = Format::parse("xml").unwrap_err();
        assert!(error.contains("\"xml\"") && error.contains("custom-columns"), "{error}");
        for (format, _) in FORMATS {
            assert_eq!(Format::parse(format).is_ok(), format != HELP, "{format}");
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
