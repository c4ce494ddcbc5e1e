//! `kinds`, and options of `trace` that depend on the kinds.

use std::{ffi::OsString, sync::Arc};

use clap::{Args as ClapArgs, Command, ValueEnum};

use crate::{
    cli::{args::kinds, help},
    kinds::{Kinds, markdown, table},
    output::json_schema,
};

/// Arguments of `kinds`.
#[derive(Debug, ClapArgs)]
pub(crate) struct KindsArgs {
    /// Kinds to describe, separated by commas [default: a table of all]
    #[arg(value_name = "KIND", value_delimiter = ',', num_args = 0..=1, value_parser = kinds())]
    kind: Vec<String>,
    /// Output format; json-schema describes the events of -o json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
    Yaml,
    JsonSchema,
    Markdown,
}

impl KindsArgs {
    /// What the command prints.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let chosen = Kinds::by_name(&self.kind).filter(|_| !self.kind.is_empty());
        let kinds = chosen.unwrap_or_else(Kinds::all);
        let described = kinds.describe();
        Ok(match self.output {
            Format::Text if self.kind.is_empty() => table(&described),
            Format::Text => {
                let texts: Vec<String> = described.iter().map(ToString::to_string).collect();
                texts.join("\n")
            }
            Format::Json => serde_json::to_string_pretty(&described)? + "\n",
            Format::Yaml => serde_yaml_ng::to_string(&described)?,
            Format::JsonSchema => serde_json::to_string_pretty(&json_schema(&kinds))? + "\n",
            Format::Markdown => markdown(&described),
        })
    }
}

/// The definition of a command line, with the options of `trace` that the kinds in `words` have, and their help. Options of
/// other kinds are hidden, and rejected later.
pub(crate) fn with_options_of_kinds(command: Command, words: impl Iterator<Item = OsString>) -> Command {
    let mut after_trace = words.skip_while(|word| word != "trace").skip(1);
    let Some(kinds) = after_trace.find_map(|word| named(word.to_str()?)) else { return command };
    let declared = kinds.declared();
    let has_hooks = declared.iter().any(|kind| !kind.fexit.is_empty());
    let failures: Vec<(&str, &str)> =
        declared.iter().filter_map(|kind| Some((kind.name, kind.failure?))).collect();
    let failed = match &failures[..] {
        [(_, failure)] => format!("Trace failures only: {failure}"),
        failures => {
            let each: Vec<String> =
                failures.iter().map(|(kind, failure)| format!("{kind}: {failure}")).collect();
            format!("Trace failures only ({})", each.join("; "))
        }
    };
    let names = kinds.names();
    let about = declared.iter().map(|kind| kind.help).collect::<Vec<_>>().join("\n");
    let examples = help::examples_of(&kinds, &command);
    command.mut_subcommand("trace", |trace| {
        trace
            .about(about)
            .before_help(examples)
            .after_help(format!("-o help lists columns and JSON fields, as `tracer kinds {names}` does."))
            .mut_arg("hook", |hook| hook.hide(!has_hooks))
            .mut_arg("failed", |arg| arg.help(failed).hide(failures.is_empty()))
    })
}

/// The kinds with these names, separated by commas; `None` if `word` is anything else.
fn named(word: &str) -> Option<Arc<Kinds>> {
    Kinds::by_name(&word.split(',').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Args;

    fn help(words: &[&str]) -> String {
        let mut command = with_options_of_kinds(help::definition::<Args>(), words.iter().map(OsString::from));
        command.build();
        command.find_subcommand_mut("trace").unwrap().render_long_help().to_string()
    }

    #[test]
    fn help_has_the_options_of_the_kinds_that_are_named() {
        let open = help(&["tracer", "-v", "trace", "-n", "x", "open", "--help"]);
        assert!(
            open.contains("--hook") && open.contains("failures only: calls that returned an error"),
            "{open}"
        );
        assert!(open.starts_with("Files opened: "), "{open}");
        let exec = help(&["tracer", "trace", "exec", "--help"]);
        assert!(!exec.contains("--hook"), "{exec}");
        let both = help(&["tracer", "trace", "exit,open"]);
        assert!(both.contains("--hook") && both.contains("(open: ") && both.contains("; exit: "), "{both}");
        for words in [&["tracer", "trace", "--help"][..], &["tracer", "trace", "opened"], &["tracer"]] {
            assert!(help(words).contains("--hook"), "{words:?}");
        }
    }

    #[test]
    fn text_is_a_table_or_a_description() {
        let text = |kind: &[&str], output| {
            let kind = kind.iter().map(|kind| (*kind).to_owned()).collect();
            KindsArgs { kind, output }.text().unwrap()
        };
        let table = text(&[], Format::Text);
        assert_eq!(table.lines().count(), Kinds::all().len() + 1, "{table}");
        assert!(text(&["exit"], Format::Text).contains("\n  lifetimeNs <integer>\n"));
        let json: serde_json::Value = serde_json::from_str(&text(&["exec"], Format::Json)).unwrap();
        assert_eq!((json.as_array().unwrap().len(), &json[0]["minimumKernel"]), (1, &"5.8".into()));
        assert!(text(&["exec"], Format::Yaml).starts_with("- name: exec\n"));
    }
}
