//! Reads a command line word by word.

use std::{
    ffi::{OsStr, OsString},
    mem,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use super::{
    Command, CommandLineError, Creation, Exec,
    options::{CREATION_SCOPE, EXEC_SCOPE, GLOBAL_SCOPE, OTHER_COMMANDS, Opt, START_SCOPE, Scope, Takes},
};

/// The arguments, one by one.
pub(super) struct Words<'a> {
    pub(super) rest: &'a [u8],
    pub(super) truncated: bool,
    pub(super) taken: usize,
}

impl<'a> Words<'a> {
    /// The next argument, `None` after the last. A line that was cut off has no last argument, so that an option that was cut
    /// off is not mistaken for one that was not given.
    fn next(&mut self) -> Result<Option<&'a [u8]>, CommandLineError> {
        let word = if let Some(end) = self.rest.iter().position(|byte| *byte == 0) {
            let (word, rest) = self.rest.split_at(end);
            self.rest = &rest[1..];
            word
        } else if self.truncated {
            return Err(CommandLineError::Truncated { whole: self.taken });
        } else if self.rest.is_empty() {
            return Ok(None);
        } else {
            // A process may overwrite its own arguments, including the last NUL.
            mem::take(&mut self.rest)
        };
        self.taken += 1;
        Ok(Some(word))
    }
}

/// The values of the options so far. Of a repeated one the last counts.
#[derive(Default)]
pub(super) struct Found {
    pub(super) root: Option<PathBuf>,
    pub(super) bundle: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) unknown: Vec<OsString>,
}

/// Why the rest of the line does not matter.
pub(super) enum Stop {
    /// The runtime will print its help or version, and do nothing else.
    Leave,
    Error(CommandLineError),
}

impl From<CommandLineError> for Stop {
    fn from(error: CommandLineError) -> Self {
        Self::Error(error)
    }
}

/// A word that is neither an option nor the value of one.
#[derive(Clone, Copy)]
struct Positional<'a> {
    word: &'a [u8],
    /// It follows an unknown option, so it may be that one's value.
    doubtful: bool,
}

/// What the word after an option may be.
#[derive(PartialEq, Eq)]
enum NextWord {
    /// An option or a positional.
    Positional,
    /// One of these, or the value of an unknown option.
    Doubtful,
}

/// Reads a command line from left to right.
pub(super) struct Reader<'a> {
    pub(super) words: Words<'a>,
    pub(super) found: Found,
}

impl<'a> Reader<'a> {
    pub(super) fn command(&mut self) -> Result<Command, Stop> {
        self.words.next()?; // The runtime's own name.
        let name = loop {
            match self.positional(&GLOBAL_SCOPE, &mut false)? {
                Some(Positional { word, doubtful: true }) if !is_command(word) => {}
                Some(Positional { word, .. }) => break word,
                None => return Ok(Command::Other),
            }
        };
        Ok(match name {
            b"create" => Command::Create(self.creation("create")?),
            b"run" => Command::Run(self.creation("run")?),
            b"restore" => Command::Restore(self.creation("restore")?),
            b"exec" => Command::Exec(self.exec()?),
            b"start" => self.start()?,
            b"init" => Command::Init,
            _ => Command::Other,
        })
    }

    fn creation(&mut self, command: &'static str) -> Result<Creation, Stop> {
        let mut options_end = false;
        let mut id: Option<Positional<'_>> = None;
        // There is only one positional: of several the others are values of unknown options.
        while let Some(found) = self.positional(&CREATION_SCOPE, &mut options_end)? {
            if id.is_none_or(|id| id.doubtful && !found.doubtful) {
                id = Some(found);
            }
        }
        let id = container_id(id, command)?;
        let Found { bundle, config, pid_file, .. } = &mut self.found;
        Ok(Creation { id, bundle: bundle.take(), config: config.take(), pid_file: pid_file.take() })
    }

    fn exec(&mut self) -> Result<Exec, Stop> {
        // The command to run follows the id: its options are not the runtime's.
        let id = self.positional(&EXEC_SCOPE, &mut false)?;
        Ok(Exec { id: container_id(id, "exec")?, pid_file: self.found.pid_file.take() })
    }

    fn start(&mut self) -> Result<Command, Stop> {
        // Without an id it starts nothing.
        let id = self.positional(&START_SCOPE, &mut false)?.filter(|id| !id.word.is_empty());
        Ok(id.map_or(Command::Other, |id| Command::Start(OsStr::from_bytes(id.word).to_owned())))
    }

    /// Reads up to the next positional. `options_end` is whether `--` was read, now or before.
    fn positional(&mut self, scope: &Scope, options_end: &mut bool) -> Result<Option<Positional<'a>>, Stop> {
        let mut doubtful = false;
        while let Some(word) = self.words.next()? {
            match word {
                b"--" if !*options_end => (*options_end, doubtful) = (true, false),
                [b'-', _, ..] if !*options_end => {
                    doubtful = self.option(scope, word)? == NextWord::Doubtful;
                }
                _ => return Ok(Some(Positional { word, doubtful })),
            }
        }
        Ok(None)
    }

    /// Reads one option, with its value if that is the next word.
    fn option(&mut self, scope: &Scope, word: &'a [u8]) -> Result<NextWord, Stop> {
        let (dashes, body) = if word.starts_with(b"--") { (2, &word[2..]) } else { (1, &word[1..]) };
        let (name, attached) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(&body[at + 1..])),
            None => (body, None),
        };
        if let Some(option) = scope.named(name) {
            self.apply(option, attached)?;
            return Ok(NextWord::Positional);
        }
        if dashes == 1
            && let Some((option, attached)) = scope.group(body)
        {
            self.apply(option, attached)?;
            return Ok(NextWord::Positional);
        }
        self.found.unknown.push(OsStr::from_bytes(&word[..dashes + name.len()]).to_owned());
        Ok(if attached.is_none() { NextWord::Doubtful } else { NextWord::Positional })
    }

    fn apply(&mut self, option: &Opt, attached: Option<&'a [u8]>) -> Result<(), Stop> {
        let at = self.words.taken - 1;
        let mut value = || match attached {
            Some(value) => Ok(value),
            None => self.words.next()?.ok_or(CommandLineError::NoValue { option: option.long, at }),
        };
        match option.takes {
            Takes::Nothing => {}
            Takes::Leave => return Err(Stop::Leave),
            Takes::Value => {
                value()?;
            }
            Takes::Path(field) => {
                // To runc an empty path is no path.
                let value = value()?;
                *field(&mut self.found) = (!value.is_empty()).then(|| OsStr::from_bytes(value).into());
            }
        }
        Ok(())
    }
}

fn container_id(found: Option<Positional<'_>>, command: &'static str) -> Result<OsString, CommandLineError> {
    match found {
        Some(Positional { word: id @ [_, ..], .. }) => Ok(OsStr::from_bytes(id).to_owned()),
        _ => Err(CommandLineError::NoId { command }),
    }
}

fn is_command(word: &[u8]) -> bool {
    matches!(word, b"create" | b"run" | b"restore" | b"exec" | b"start" | b"init")
        || OTHER_COMMANDS.contains(&word)
}
