//! `-o help`: formats, columns and JSON fields of what a command prints.

use std::{fmt::Write as _, io};

use crate::{
    cli::{
        args::{ListArgs, OutputArgs, TraceArgs},
        config,
        generate::write_text,
    },
    error::Usage,
    kinds::{Kind, labelled},
    output::{
        COLUMNS, ColumnNames, FORMATS, HELP, ListOf, container_columns, container_fields, event_columns,
        shared_fields,
    },
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
        let own = container_fields(self.watch);
        Ok(formats(&container_columns(of, self.watch)) + &fields(&own, &["k8s", "container"]))
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
    line(&mut text, COLUMNS, narrow);
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

/// Appends a label, and words beside it.
fn line(text: &mut String, label: &str, words: &[impl AsRef<str>]) {
    const INDENT: usize = 22;
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    // Writing to a string cannot fail.
    let _ = labelled(&format!("  {label}"), &words.join(", "), INDENT, text);
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
        assert!(described(&["list-containers", "-w", "-o", "help"]).contains("exitSignal"));
        assert!(list.contains("IMAGE") && list.contains("startedAt") && !list.contains("CHANGED"), "{list}");
        assert!(described(&["list-containers", "-w", "-o", "help"]).contains("CHANGED"));
        for text in [open, list] {
            let is_short = |line: &str| line.len() <= 80 || line.starts_with("  tracer ");
            assert!(text.lines().all(is_short), "{text}");
        }
    }
}
