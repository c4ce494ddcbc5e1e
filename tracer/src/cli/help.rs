//! Help texts: examples first, then the usage, then the options in the order in which they are used.

use std::fmt::Write as _;

use clap::{Command, CommandFactory, builder::Styles};
use tracer_common::kinds::Kind as Declaration;

use crate::kinds::{Kinds, command_line};

/// Headings of options.
pub(crate) const SELECTION: &str = "Selection";
pub(crate) const OUTPUT: &str = "Output";
pub(crate) const LIMITS: &str = "Limits";
pub(crate) const ADVANCED: &str = "Advanced";
pub(crate) const GLOBAL: &str = "Global options";

/// The order of each help text.
const TEMPLATE: &str = "\
{about-with-newline}
{before-help}{usage-heading} {usage}

{all-args}{after-help}";

/// The command line of a program, each command of which prints examples first.
pub(crate) fn definition<A: CommandFactory>() -> Command {
    let command = A::command();
    let program = name(&command).to_owned();
    // Both programs have these commands.
    let kinds = [
        ("The kinds of events", format!("{program} kinds")),
        ("Columns and JSON fields of a kind", format!("{program} kinds open")),
        ("A JSON schema of all events", format!("{program} kinds -o json-schema")),
    ];
    let completions = [("Completions for this bash", format!("source <({program} completions bash)"))];
    examples_first(command)
        .mut_subcommand("kinds", |command| command.before_help(examples(&kinds)))
        .mut_subcommand("completions", |command| command.before_help(examples(&completions)))
}

fn examples_first(command: Command) -> Command {
    command.help_template(TEMPLATE).mut_subcommands(examples_first)
}

/// The program as users type it.
fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// Examples: what each one shows, and its command line.
pub(crate) fn examples(examples: &[(&str, impl AsRef<str>)]) -> String {
    let styles = Styles::styled();
    let header = styles.get_header();
    let mut text = format!("{header}Examples:{header:#}");
    for (index, (shows, line)) in examples.iter().enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{gap}\n  # {shows}\n  {}", line.as_ref());
    }
    text
}

/// The examples of these kinds, for the program that `command` is.
pub(super) fn examples_of(kinds: &Kinds, command: &Command) -> String {
    let program = match name(command) {
        "tracer" => "sudo tracer",
        program => program,
    };
    let of_kind = |kind: &'static Declaration| kind.examples.iter().map(|example| (kind.name, example));
    let lines: Vec<(&str, String)> = kinds
        .declared()
        .into_iter()
        .flat_map(of_kind)
        .map(|(kind, example)| (example.shows, command_line(program, kind, example)))
        .collect();
    examples(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Args;

    /// Fails unless the help text of `command` and of all below it begins with examples.
    fn check(command: &Command) {
        let mut shown = command.clone();
        for help in [shown.render_help().to_string(), shown.render_long_help().to_string()] {
            let (examples, usage) = (help.find("Examples:\n  # "), help.find("\nUsage: "));
            let name = command.get_name();
            assert!(examples.is_some() && examples < usage, "{name}: {help}");
            assert!(!help.contains("\n\n\n"), "{name}: {help}");
        }
        command
            .get_subcommands()
            .filter(|below| below.get_name() != "help" && !below.is_hide_set())
            .for_each(check);
    }

    #[test]
    fn every_help_text_begins_with_examples() {
        let mut command = definition::<Args>();
        command.build();
        check(&command);
        #[cfg(feature = "kubectl")]
        {
            let mut command = crate::kubectl::definition();
            command.build();
            check(&command);
        }
    }

    #[test]
    fn short_help_leaves_out_advanced_options() {
        let mut command = definition::<Args>();
        command.build();
        let trace = command.find_subcommand_mut("trace").unwrap();
        let (short, long) = (trace.render_help().to_string(), trace.render_long_help().to_string());
        for option in ["--buffer-size", "--trust-rootless", "--lease", "Advanced"] {
            assert!(!short.contains(option) && long.contains(option), "{option}");
        }
        let headings = [SELECTION, OUTPUT, LIMITS, ADVANCED, GLOBAL];
        let places: Vec<_> = headings.iter().map(|heading| long.find(heading).unwrap()).collect();
        assert!(places.is_sorted(), "{long}");
    }

    #[test]
    fn examples_of_a_kind_are_command_lines_of_this_program() {
        let kinds = Kinds::all();
        let text = examples_of(&kinds, &definition::<Args>());
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("sudo ")) {
            let command = line.split(" | ").next().unwrap_or_default().replace('\'', "");
            definition::<Args>().try_get_matches_from(command.split(' ')).unwrap();
        }
        assert_eq!(
            text.matches("\n  # ").count(),
            kinds.declared().iter().map(|kind| kind.examples.len()).sum::<usize>()
        );
    }
}
