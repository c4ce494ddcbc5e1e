//! `-o help`: formats, columns and JSON fields of what a command prints.

use std::{fmt::Write as _, io};

use crate::{
    cli::{
        args::{ListArgs, OutputArgs, TraceArgs},
        config,
        generate::write_text,
    },
    error::Usage,
    kinds::Kind,
    output::{ColumnNames, FORMATS, HELP, ListOf, container_columns, event_columns, shared_fields},
};

/// A command with output in any format.
pub(crate) trait HasOutput {
    /// Its options for that.
    fn output(&self) -> &OutputArgs;
    /// What `-o help` prints.
    fn describe(&self, of: ListOf) -> Result<String, Usage>;
}

impl HasOutput for TraceArgs {
    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn describe(&self, _: ListOf) -> Result<String, Usage> {
        let kinds = config::kinds(self)?;
        let names: Vec<&str> = kinds.iter().map(Kind::name).collect();
        let mut text = formats(&event_columns(&kinds));
        text.push_str(&fields(&["timestamp", "event", "node"], &["k8s", "container", "process"]));
        line(&mut text, "of the event", &names);
        for description in kinds.describe() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{description}");
        }
        Ok(text)
    }
}

impl HasOutput for ListArgs {
    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn describe(&self, of: ListOf) -> Result<String, Usage> {
        let watched: &[&str] = if self.watch { &["event", "changed"] } else { &[] };
        let names = [&["node"][..], watched, &["pid", "startedAt"]].concat();
        Ok(formats(&container_columns(of, self.watch)) + &fields(&names, &["k8s", "container"]))
    }
}

/// Prints what `-o help` requests. Returns whether it was requested.
pub(crate) fn print_if_requested(args: &impl HasOutput, of: ListOf) -> anyhow::Result<bool> {
    let is_requested = args.output().output == HELP;
    if is_requested {
        write_text(args.describe(of)?.as_bytes(), &mut io::stdout().lock())?;
    }
    Ok(is_requested)
}

fn formats(columns: &ColumnNames) -> String {
    let ColumnNames { narrow, wide, further } = columns;
    let mut text = "FORMATS:\n".to_owned();
    for (format, meaning) in FORMATS {
        line(&mut text, format, &[meaning]);
    }
    text.push_str("\nCOLUMNS:\n");
    line(&mut text, "columns", narrow);
    for (format, others) in [("wide", wide), ("custom-columns", further)] {
        if !others.is_empty() {
            line(&mut text, &format!("{format} also"), others);
        }
    }
    text
}

/// Fields of JSON and YAML: of a record, and of objects in it.
fn fields(own: &[&str], objects: &[&str]) -> String {
    let mut text = "\nJSON FIELDS:\n".to_owned();
    line(&mut text, "of each record", own);
    for object in objects {
        line(&mut text, object, &shared_fields(object));
    }
    text
}

/// Appends a label, and words beside it, in lines of 80 characters.
fn line(text: &mut String, label: &str, words: &[impl AsRef<str>]) {
    const INDENT: usize = 22;
    const WIDTH: usize = 80;
    let start = text.len();
    let _ = write!(text, "  {label:<width$}", width = INDENT - 2);
    let mut line_start = start;
    for (index, word) in words.iter().enumerate() {
        let word = word.as_ref();
        let comma = if index + 1 < words.len() { "," } else { "" };
        if index > 0 && text.len() - line_start + 1 + word.len() + comma.len() > WIDTH {
            line_start = text.len() + 1;
            let _ = write!(text, "\n{:INDENT$}", "");
        } else if index > 0 {
            text.push(' ');
        }
        let _ = write!(text, "{word}{comma}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Args, Command};

    fn described(words: &[&str]) -> String {
        let args = Args::try_parse_from([&["tracer"], words].concat()).unwrap();
        match args.command {
            Command::Trace(trace) => trace.args.describe(ListOf::Node).unwrap(),
            Command::ListContainers(list) => list.args.describe(ListOf::Node).unwrap(),
            _ => panic!(),
        }
    }

    #[test]
    fn columns_and_fields_are_those_of_the_command() {
        let open = described(&["trace", "open", "-o", "help"]);
        for part in [
            "  wide also ",
            " FLAGS",
            " HANDLE",
            "  process ",
            "containerPid",
            "errnoName <string",
            "KIND:     open",
        ] {
            assert!(open.contains(part), "{part:?} in\n{open}");
        }
        assert!(!open.contains("KIND:     exec"));
        let list = described(&["list-containers", "-o", "help"]);
        assert!(list.contains("IMAGE") && list.contains("startedAt") && !list.contains("CHANGED"), "{list}");
        assert!(described(&["list-containers", "-w", "-o", "help"]).contains("CHANGED"));
        for text in [open, list] {
            let is_short = |line: &str| line.len() <= 80 || line.starts_with("  tracer ");
            assert!(text.lines().all(is_short), "{text}");
        }
    }
}
