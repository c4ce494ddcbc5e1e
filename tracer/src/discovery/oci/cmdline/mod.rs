//! The command line of an OCI runtime: its command, and the container that it is for.
//!
//! runc, crun and youki, and what wraps or imitates them (nvidia-container-runtime, runsc, kata-runtime), agree on
//!
//! ```text
//! RUNTIME [GLOBAL OPTION]... COMMAND [OPTION]... ID [ARGUMENT]...
//! ```
//!
//! but each uses another library to read options: runc accepts `-bundle X` for `--bundle X`, crun and youki accept `-b/path`
//! and `-dt`, runc and youki accept options after the id as well. Which runtime reads the line is not known here (a wrapper
//! has any name), so the reader accepts what any of them does. Only abbreviated long options (`--bun`), which crun completes,
//! are unknown ones.
//!
//! Whether the process is trusted to name a bundle is decided elsewhere.

mod options;
mod reader;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, path::PathBuf};

use reader::{Found, Reader, Stop, Words};

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// `--root`: the runtime's state directory, unless it is the default one.
    pub(crate) root: Option<PathBuf>,
    /// The command.
    pub(crate) command: Command,
    /// The unknown options, without values. They were treated as options without a value unless that left too many words: if
    /// there are any, the id is less certain.
    pub(crate) unknown: Vec<OsString>,
}

/// A runtime's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `create`: prepare a container that a later `start` starts.
    Create(Creation),
    /// `run`: `create` and `start` in one.
    Run(Creation),
    /// `restore`: bring a checkpointed container back, without any exec of its entrypoint.
    Restore(Creation),
    /// `exec`: one more process in a container.
    Exec(Exec),
    /// `start`: start the program of the container with this id. Some runtimes run poststart hooks here, which may enter the
    /// container.
    Start(OsString),
    /// `init`: a runtime executes itself with it, before it executes the container's program.
    Init,
    /// Anything that brings no process into a container: `state`, `delete`, `--version`, a lone `--help`.
    Other,
}

impl Command {
    /// The container that the command creates, if it does.
    #[must_use]
    pub(crate) fn creation(&self) -> Option<&Creation> {
        match self {
            Self::Create(creation) | Self::Run(creation) | Self::Restore(creation) => Some(creation),
            Self::Exec(_) | Self::Start(_) | Self::Init | Self::Other => None,
        }
    }
}

/// A container to create. Paths are as given: relative ones start at the runtime's working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Creation {
    /// The container's id. Not empty, otherwise any bytes.
    pub(crate) id: OsString,
    /// The bundle; `None` means the runtime's working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// A file to read instead of the bundle's `config.json`. crun starts a relative one at its working directory, not
    /// at the bundle, unless it is just `config.json`.
    pub(crate) config: Option<PathBuf>,
    /// The file for the pid of the container's first process.
    pub(crate) pid_file: Option<PathBuf>,
}

/// A process to start in an existing container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exec {
    /// The container's id. Not empty, otherwise any bytes.
    pub(crate) id: OsString,
    /// The file for the pid of the process.
    pub(crate) pid_file: Option<PathBuf>,
}

/// Why a command line could not be parsed. Arguments are counted as in `argv`: the runtime's own name is number 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandLineError {
    /// Not even the runtime's own name.
    #[error("the command line is empty")]
    Empty,
    /// The line ends or has an empty word in place of the id.
    #[error("`{command}` without a container id")]
    NoId {
        /// The command.
        command: &'static str,
    },
    /// The line ends in place of an option's value.
    #[error("`--{option}` (argument {at}) without its value, at the end of the command line")]
    NoValue {
        /// The option's long name, however it was spelled.
        option: &'static str,
        /// The option's number.
        at: usize,
    },
    /// The line is cut off too early. A creation has to be complete, since an option that was cut off might have named another
    /// bundle; an `exec` has to be complete up to the id.
    #[error("the command line is cut off after {whole} whole arguments, too early to be understood")]
    Truncated {
        /// How many arguments are complete.
        whole: usize,
    },
}

/// Parses a command line.
///
/// `block` is a raw copy of the process's arguments as the kernel keeps them, each followed by a NUL byte.
/// `truncated` says that the copy ends before they do.
pub(crate) fn parse(block: &[u8], truncated: bool) -> Result<CommandLine, CommandLineError> {
    if block.is_empty() {
        return Err(CommandLineError::Empty);
    }
    let mut reader = Reader { words: Words { rest: block, truncated, taken: 0 }, found: Found::default() };
    let command = match reader.command() {
        Ok(command) => command,
        Err(Stop::Leave) => Command::Other,
        Err(Stop::Error(error)) => return Err(error),
    };
    Ok(CommandLine { root: reader.found.root, command, unknown: reader.found.unknown })
}
