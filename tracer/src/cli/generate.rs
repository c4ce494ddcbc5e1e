//! Commands that write what is generated from definitions: shell completions, manual pages, the description of the kinds.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use crate::cli::kinds::KindsArgs;

/// These commands, the same in each program.
#[derive(Debug, Subcommand)]
pub(crate) enum Generate {
    /// Describe the kinds of events: kernels, hooks, fields, columns
    Kinds(KindsArgs),
    /// Write shell completions to stdout
    Completions {
        /// Shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages, one per command, to a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        directory: PathBuf,
    },
}

impl Generate {
    /// Runs the command. `program` is the definition of this program's command line.
    pub(crate) fn run(&self, program: Command) -> anyhow::Result<ExitCode> {
        match self {
            Self::Kinds(args) => write_text(args.text()?.as_bytes(), &mut io::stdout().lock())?,
            Self::Completions { shell } => completions(program, *shell, &mut io::stdout().lock())?,
            Self::Man { directory } => man(&program, directory)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The section of the manual.
const SECTION: &str = "1";

/// Writes the completions of `command` for that shell.
fn completions(mut command: Command, shell: Shell, out: &mut impl Write) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    write_text(&script, out)
}

/// Writes all of `text`. A reader that exits before the end is no error.
pub(super) fn write_text(text: &[u8], out: &mut impl Write) -> anyhow::Result<()> {
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Writes the manual pages of `command` and of each command below it that is not hidden into an existing directory:
/// `NAME.1`, `NAME-COMMAND.1`.
fn man(command: &Command, directory: &Path) -> anyhow::Result<()> {
    let command = for_pages(command);
    let version = command.get_version().unwrap_or_default();
    let source = format!("{} {version}", command.get_name());
    pages(&command, &source, &mut |name, page| {
        let file = directory.join(name);
        fs::write(&file, page).with_context(|| format!("writing {}", file.display()))
    })
}

/// A command line as its manual pages describe it.
fn for_pages(command: &Command) -> Command {
    // clap_mangen leaves out the help of an option that `-h` does not show.
    fn show_all(command: Command) -> Command {
        command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(show_all)
    }
    // `tracer help trace` needs no page beside that of `tracer trace`.
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    show_all(command)
}

/// Calls `write` with the file name and the text of each page. `source` is shown at the bottom of the pages.
fn pages(
    command: &Command,
    source: &str,
    write: &mut impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let page = Man::new(command.clone()).section(SECTION).source(source).manual("User Commands");
    let mut text = Vec::new();
    render(&page, command, &mut text).with_context(|| format!("writing {}", page.get_filename()))?;
    write(&page.get_filename(), &text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, source, write)?;
    }
    Ok(())
}

/// Writes a page. The examples of the help text come before the options.
fn render(page: &Man, command: &Command, out: &mut dyn Write) -> io::Result<()> {
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    if let Some(examples) = command.get_before_help() {
        let examples = examples.to_string();
        let mut roff = Roff::default();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines().skip(1) {
            roff.text([roman(line)]);
        }
        roff.control("fi", []).to_writer(out)?;
    }
    page.render_options_section(out)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        page.render_subcommands_section(out)?;
    }
    page.render_version_section(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        collections::BTreeMap,
        process::{self, Stdio},
    };

    use clap::ValueEnum as _;

    use super::*;
    use crate::cli::{args::Args, help::definition};

    /// Fails unless each shell completes these words, and each of these commands has a page with all its options.
    pub(crate) fn check(command: &Command, words: &[&str], names: &[&str]) {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            completions(command.clone(), *shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in words {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }

        let command = for_pages(command);
        let mut all = BTreeMap::new();
        pages(&command, "tracer 1.2.3", &mut |name, text| {
            all.insert(name.to_owned(), String::from_utf8(text.to_vec())?);
            Ok(())
        })
        .unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), names);
        every_option_is_told(&command, &all);
        for (name, page) in &all {
            typesets_without_warning(name, page);
        }
    }

    fn every_option_is_told(command: &Command, pages: &BTreeMap<String, String>) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        // As a reader sees it.
        let page =
            pages[&format!("{name}.{SECTION}")].replace("\\-", "-").replace("\\*(Aq", "'").replace('\n', " ");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let long = argument.get_long().map(|long| format!("\\fB--{long}\\fR"));
            let short = argument.get_short().map(|short| format!("\\fB-{short}\\fR"));
            let help = argument.get_long_help().or(argument.get_help());
            let help = help.map(|help| help.to_string().replace('\n', " "));
            for text in [long, short, help].into_iter().flatten() {
                assert!(page.contains(&text), "{name}: no {text:?} in {page}");
            }
        }
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            every_option_is_told(below, pages);
        }
    }

    /// Where there is groff.
    fn typesets_without_warning(name: &str, page: &str) {
        let mut groff = process::Command::new("groff");
        groff.args(["-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"]);
        let Ok(mut groff) = groff.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn() else { return };
        groff.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = groff.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }

    #[test]
    fn everything_is_completed_and_has_a_page() {
        check(
            &definition::<Args>(),
            // fish writes options without their dashes.
            &["trace", "list-containers", "doctor", "all-namespaces", "no-headers"],
            &[
                "tracer-agent.1",
                "tracer-completions.1",
                "tracer-doctor.1",
                "tracer-kinds.1",
                "tracer-list-containers.1",
                "tracer-trace.1",
                "tracer.1",
            ],
        );
    }

    #[test]
    fn closed_pipe_is_no_error_and_full_disk_is() {
        struct Fails(io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = |kind| completions(definition::<Args>(), Shell::Bash, &mut Fails(kind));
        assert!(written(io::ErrorKind::BrokenPipe).is_ok());
        assert!(written(io::ErrorKind::StorageFull).is_err());
    }

    #[test]
    fn pages_are_written_to_the_directory() {
        let directory = std::env::temp_dir().join(format!("tracer-man-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        let made = man(&definition::<Args>(), &directory);
        let files = fs::read_dir(&directory).unwrap().count();
        let page = fs::read_to_string(directory.join("tracer-trace.1")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        made.unwrap();
        assert_eq!(files, 7);
        assert!(page.contains(concat!("tracer ", env!("CARGO_PKG_VERSION"))), "{page}");
        assert!(man(&definition::<Args>(), &directory).unwrap_err().to_string().contains("tracer.1"));
    }
}
