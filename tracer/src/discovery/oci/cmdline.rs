//! The command line of an OCI runtime: what it was asked to do, and to which container.
//!
//! runc, crun and youki, and what wraps or imitates them (nvidia-container-runtime, runsc, kata-runtime), agree on
//!
//! ```text
//! RUNTIME [GLOBAL OPTION]... COMMAND [OPTION]... ID [ARGUMENT]...
//! ```
//!
//! but each reads options with a library of its own: runc takes `-bundle X` for `--bundle X`, crun and youki take
//! `-b/path` and `-dt`, runc and youki look for options behind the id as well. The line was meant for one of them, and
//! which one is not known here (a wrapper has any name), so the reader accepts what any of them does. Only long
//! options cut short (`--bun`), which crun completes, are unknown ones.
//!
//! What a line says is only as good as the process that has it: whether that may name a bundle is decided elsewhere.

use std::{
    ffi::{OsStr, OsString},
    mem,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

/// A command line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// `--root`: where this runtime keeps the state of its containers, if not where it always does.
    pub(crate) root: Option<PathBuf>,
    /// What it was asked to do.
    pub(crate) command: Command,
    /// The options (without values) that no table here knows. They were taken for ones without a value of their
    /// own unless that left too many words over: where there are any, the id deserves a second look.
    pub(crate) unknown: Vec<OsString>,
}

/// What a runtime was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `create`: prepare a container that a later `start` lets go.
    Create(Creation),
    /// `run`: `create` and `start` in one.
    Run(Creation),
    /// `restore`: bring a checkpointed container back, without any exec of its entrypoint.
    Restore(Creation),
    /// `exec`: one more process in a container.
    Exec(Exec),
    /// `start`: lets the program of the container with this id go. Some runtimes run poststart hooks here, which may enter the
    /// container.
    Start(OsString),
    /// `init`: what a runtime executes itself as, on the way from its own command to the container's program.
    Init,
    /// Anything that brings no process into a container: `state`, `delete`, `--version`, a lone `--help`.
    Other,
}

impl Command {
    /// The container that comes into being, if one does.
    #[must_use]
    pub(crate) fn creation(&self) -> Option<&Creation> {
        match self {
            Self::Create(creation) | Self::Run(creation) | Self::Restore(creation) => Some(creation),
            Self::Exec(_) | Self::Start(_) | Self::Init | Self::Other => None,
        }
    }
}

/// A container that is to come into being. Paths are as given: relative ones start at the runtime's working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Creation {
    /// The container's id. Not empty, otherwise any bytes.
    pub(crate) id: OsString,
    /// The bundle; `None` means the runtime's working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// What is read instead of the bundle's `config.json`. crun starts a relative one at its working directory, not
    /// at the bundle, unless it is just `config.json`.
    pub(crate) config: Option<PathBuf>,
    /// Where the runtime will write the pid of the container's first process.
    pub(crate) pid_file: Option<PathBuf>,
}

/// One more process for a container that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exec {
    /// The container's id. Not empty, otherwise any bytes.
    pub(crate) id: OsString,
    /// Where the runtime will write the pid of the process.
    pub(crate) pid_file: Option<PathBuf>,
}

/// Why a command line was not understood. Arguments are counted as in `argv`: the runtime's own name is number 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandLineError {
    /// Not even the runtime's own name.
    #[error("the command line is empty")]
    Empty,
    /// The line ends, or an empty word stands, where the id should.
    #[error("`{command}` without a container id")]
    NoId {
        /// The command.
        command: &'static str,
    },
    /// The line ends where an option's value should stand.
    #[error("`--{option}` (argument {at}) without its value, at the end of the command line")]
    NoValue {
        /// The option's long name, however it was spelled.
        option: &'static str,
        /// The option's number.
        at: usize,
    },
    /// What is there of the line does not tell. A creation has to be there in full, since an option that was cut off
    /// might have named another bundle; of an `exec` all up to the id.
    #[error("the command line is cut off after {whole} whole arguments, too early to be understood")]
    Truncated {
        /// How many arguments are there in full.
        whole: usize,
    },
}

/// Reads a command line.
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

/// What an option is followed by, and what that is for.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// No value, or one behind `=` only (`--debug=true`).
    Nothing,
    /// No value: the runtime prints something and does nothing else.
    Leave,
    /// A value that nobody here asks for.
    Value,
    /// A path, and where it belongs.
    Path(fn(&mut Found) -> &mut Option<PathBuf>),
}

#[derive(Debug)]
struct Opt {
    long: &'static str,
    /// One-letter names.
    short: &'static [u8],
    takes: Takes,
}

const fn flag(long: &'static str, short: &'static [u8]) -> Opt {
    Opt { long, short, takes: Takes::Nothing }
}

const fn leave(long: &'static str, short: &'static [u8]) -> Opt {
    Opt { long, short, takes: Takes::Leave }
}

const fn value(long: &'static str, short: &'static [u8]) -> Opt {
    Opt { long, short, takes: Takes::Value }
}

const fn path(
    long: &'static str,
    short: &'static [u8],
    field: fn(&mut Found) -> &mut Option<PathBuf>,
) -> Opt {
    Opt { long, short, takes: Takes::Path(field) }
}

/// Options before the command, of runc 1.0 to 1.3, crun and youki; `config` and `kata-config` are kata-runtime's.
///
/// These tables have to know what takes a value, or a value would be taken for the command or the id.
static GLOBAL: &[Opt] = &[
    path("root", b"r", |found| &mut found.root),
    value("cgroup-manager", b""),
    value("config", b""),
    value("criu", b""),
    value("kata-config", b""),
    value("log", b"l"),
    value("log-format", b""),
    value("log-level", b""),
    value("rootless", b""),
    flag("debug", b""),
    flag("systemd-cgroup", b"s"),
    flag("systemd-log", b""),
    leave("help", b"h?"),
    leave("usage", b""),
    leave("version", b"vV"),
];

/// Options of `create`, `run` and `restore`: none means one thing to one of them and something else to another.
/// `console` is that of runc before 1.0, `user-log` runsc's; `-c` and `-p` are youki's.
static CREATION: &[Opt] = &[
    path("bundle", b"b", |found| &mut found.bundle),
    path("config", b"f", |found| &mut found.config),
    path("pid-file", b"p", |found| &mut found.pid_file),
    value("console", b""),
    value("console-socket", b"c"),
    value("empty-ns", b""),
    value("image-path", b""),
    value("lsm-mount-context", b""),
    value("lsm-profile", b""),
    value("manage-cgroups-mode", b""),
    value("pidfd-socket", b""),
    value("preserve-fds", b""),
    value("user-log", b""),
    value("work-path", b""),
    flag("auto-dedup", b""),
    flag("detach", b"d"),
    flag("ext-unix-sk", b""),
    flag("file-locks", b""),
    flag("keep", b""),
    flag("lazy-pages", b""),
    flag("no-new-keyring", b""),
    flag("no-pivot", b""),
    flag("no-subreaper", b""),
    flag("shell-job", b""),
    flag("tcp-established", b""),
    leave("help", b"h?"),
    leave("usage", b""),
];

/// Options of `exec`. `-p` is the process here, not the pid file. `exec-fd`, `internal-pid-file` and `pass-fd` are
/// runsc's.
static EXEC: &[Opt] = &[
    path("pid-file", b"", |found| &mut found.pid_file),
    value("additional-gids", b"g"),
    value("apparmor", b""),
    value("cap", b"c"),
    value("cgroup", b""),
    value("console", b""),
    value("console-socket", b""),
    value("cwd", b""),
    value("env", b"e"),
    value("exec-fd", b""),
    value("internal-pid-file", b""),
    value("pass-fd", b""),
    value("pidfd-socket", b""),
    value("preserve-fds", b""),
    value("process", b"p"),
    value("process-label", b""),
    value("user", b"u"),
    flag("detach", b"d"),
    flag("ignore-paused", b""),
    flag("no-new-privs", b""),
    flag("no-subreaper", b""),
    flag("tty", b"t"),
    leave("help", b"h?"),
    leave("usage", b""),
];

/// Options of `start`.
static START: &[Opt] = &[leave("help", b"h?"), leave("usage", b"")];

/// The commands that are [`Command::Other`], as far as they are known. An unknown one is that too, except behind an
/// unknown option, whose value it is then taken for.
const OTHER_COMMANDS: &[&[u8]] = &[
    b"checkpoint",
    b"completion",
    b"delete",
    b"events",
    b"features",
    b"h",
    b"help",
    b"info",
    b"kill",
    b"list",
    b"mounts",
    b"pause",
    b"ps",
    b"resume",
    b"spec",
    b"state",
    b"update",
];

/// The options that hold somewhere on the line.
struct Scope {
    own: &'static [Opt],
    /// urfave/cli v3, which runc is moving to, lets global options stand behind the command too.
    inherited: &'static [Opt],
}

static GLOBAL_SCOPE: Scope = Scope { own: GLOBAL, inherited: &[] };
static CREATION_SCOPE: Scope = Scope { own: CREATION, inherited: GLOBAL };
static EXEC_SCOPE: Scope = Scope { own: EXEC, inherited: GLOBAL };
static START_SCOPE: Scope = Scope { own: START, inherited: GLOBAL };

impl Scope {
    fn long(&self, name: &[u8]) -> Option<&'static Opt> {
        self.own.iter().chain(self.inherited).find(|option| option.long.as_bytes() == name)
    }

    fn short(&self, letter: u8) -> Option<&'static Opt> {
        self.own.iter().find(|option| option.short.contains(&letter))
    }

    /// runc takes any name behind one dash or two.
    fn named(&self, name: &[u8]) -> Option<&'static Opt> {
        if let [letter] = name { self.short(*letter) } else { self.long(name) }
    }

    /// Several letters behind one dash, of which only the last may have a value: `-dt`, `-b/path`. What is before the
    /// last then has no meaning here, so that one stands for all.
    ///
    /// Go has long options behind one dash, and they may be unknown ones (runsc has `-background` and `-host-uds`):
    /// a group ends nothing, and names no path that does not look like one.
    fn group<'w>(&self, mut letters: &'w [u8]) -> Option<(&'static Opt, Option<&'w [u8]>)> {
        while let [letter, rest @ ..] = letters {
            let option = self.short(*letter)?;
            match (option.takes, rest) {
                (Takes::Leave, _) => return None,
                (_, []) => return Some((option, None)),
                (Takes::Nothing, _) => letters = rest,
                (Takes::Value, value) | (Takes::Path(_), value @ [b'/' | b'.' | b'=', ..]) => {
                    return Some((option, Some(value.strip_prefix(b"=").unwrap_or(value))));
                }
                (Takes::Path(_), _) => return None,
            }
        }
        None
    }
}

/// The arguments, one by one.
struct Words<'a> {
    rest: &'a [u8],
    truncated: bool,
    taken: usize,
}

impl<'a> Words<'a> {
    /// The next argument, `None` behind the last. Where the last one is not known, there is no end to come to: so no
    /// reader takes what was cut off for what was not given.
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
            // A process may overwrite its own arguments, the last NUL too.
            mem::take(&mut self.rest)
        };
        self.taken += 1;
        Ok(Some(word))
    }
}

/// What the options said so far. Of one that is repeated the last holds.
#[derive(Default)]
struct Found {
    root: Option<PathBuf>,
    bundle: Option<PathBuf>,
    config: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    unknown: Vec<OsString>,
}

/// Why nothing behind a word matters any more.
enum Stop {
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
    /// It stands behind an unknown option, so it may be the value of one after all.
    doubtful: bool,
}

struct Reader<'a> {
    words: Words<'a>,
    found: Found,
}

impl<'a> Reader<'a> {
    fn command(&mut self) -> Result<Command, Stop> {
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
        // There is but one positional, so of several the others are values of unknown options.
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
        // Behind the id stands the command to run, whose options are no business of the runtime's.
        let id = self.positional(&EXEC_SCOPE, &mut false)?;
        Ok(Exec { id: container_id(id, "exec")?, pid_file: self.found.pid_file.take() })
    }

    fn start(&mut self) -> Result<Command, Stop> {
        // Without an id it starts nothing.
        let id = self.positional(&START_SCOPE, &mut false)?.filter(|id| !id.word.is_empty());
        Ok(id.map_or(Command::Other, |id| Command::Start(OsStr::from_bytes(id.word).to_owned())))
    }

    /// The next positional, and the options before it. `options_end` tells whether `--` was among them, now or before.
    fn positional(&mut self, scope: &Scope, options_end: &mut bool) -> Result<Option<Positional<'a>>, Stop> {
        let mut doubtful = false;
        while let Some(word) = self.words.next()? {
            match word {
                b"--" if !*options_end => (*options_end, doubtful) = (true, false),
                [b'-', _, ..] if !*options_end => doubtful = self.option(scope, word)?,
                _ => return Ok(Some(Positional { word, doubtful })),
            }
        }
        Ok(None)
    }

    /// Reads one option, with its value if that is the next word. Returns whether the next word may be its value
    /// without it being known.
    fn option(&mut self, scope: &Scope, word: &'a [u8]) -> Result<bool, Stop> {
        let (dashes, body) = if word.starts_with(b"--") { (2, &word[2..]) } else { (1, &word[1..]) };
        let (name, attached) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(&body[at + 1..])),
            None => (body, None),
        };
        if let Some(option) = scope.named(name) {
            self.apply(option, attached)?;
            return Ok(false);
        }
        if dashes == 1
            && let Some((option, attached)) = scope.group(body)
        {
            self.apply(option, attached)?;
            return Ok(false);
        }
        self.found.unknown.push(OsStr::from_bytes(&word[..dashes + name.len()]).to_owned());
        Ok(attached.is_none())
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
                // To runc an empty path is none.
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

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// The arguments as the kernel keeps them.
    fn block<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Vec<u8> {
        words.into_iter().flat_map(|word| [word.as_ref(), b"\0"].concat()).collect()
    }

    /// Reads a line whose arguments have no blanks in them.
    fn read(line: &str) -> Result<CommandLine, CommandLineError> {
        parse(&block(line.split(' ')), false)
    }

    fn command(line: &str) -> Command {
        let read = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(read.unknown.is_empty(), "{line}: {:?}", read.unknown);
        read.command
    }

    fn some_path(path: &str) -> Option<PathBuf> {
        (!path.is_empty()).then(|| path.into())
    }

    /// A creation of a container `c1`; an empty path is none.
    fn c1(bundle: &str, config: &str, pid_file: &str) -> Creation {
        Creation {
            id: "c1".into(),
            bundle: some_path(bundle),
            config: some_path(config),
            pid_file: some_path(pid_file),
        }
    }

    fn exec_c1(pid_file: &str) -> Command {
        Command::Exec(Exec { id: "c1".into(), pid_file: some_path(pid_file) })
    }

    #[test]
    fn lines_that_engines_executed() {
        let files = [
            (
                include_str!("../../testing/fixtures/argv/containerd-crun128.txt"),
                "/run/containerd/runc/k8s.io",
                8,
                6,
            ),
            (
                include_str!("../../testing/fixtures/argv/containerd-runc13.txt"),
                "/run/containerd/runc/k8s.io",
                8,
                6,
            ),
            (include_str!("../../testing/fixtures/argv/crio-crun128.txt"), "/run/crio/crun", 8, 5),
            (include_str!("../../testing/fixtures/argv/crio-runc13.txt"), "/run/crio/runc", 8, 5),
        ];
        for (file, root, creates, execs) in files {
            let mut counts = (0, 0);
            for line in file.lines().filter(|line| !line.starts_with('#')) {
                let (_, line) = line.split_once(" | ").unwrap();
                let words: Vec<&str> = line.split(' ').collect();
                let value_of = |option| {
                    let at = words.iter().position(|word| *word == option)?;
                    Some(PathBuf::from(words[at + 1]))
                };
                let id: OsString = words[words.len() - 1].into();
                let pid_file = value_of("--pid-file");
                let is_runtime = words[0].ends_with("/runc") || words[0].ends_with("/crun");
                let expected = if is_runtime && words.contains(&"create") {
                    counts.0 += 1;
                    let bundle = value_of("--bundle");
                    assert!(bundle.is_some() && pid_file.is_some(), "{line}");
                    Command::Create(Creation { id, bundle, config: None, pid_file })
                } else if is_runtime && words.contains(&"exec") {
                    counts.1 += 1;
                    Command::Exec(Exec { id, pid_file })
                } else if is_runtime && words.contains(&"start") {
                    Command::Start(id)
                } else {
                    Command::Other
                };
                let read = read(line).unwrap();
                assert_eq!(read.command, expected, "{line}");
                if is_runtime {
                    assert_eq!(read.root, Some(root.into()), "{line}");
                    assert!(read.unknown.is_empty(), "{line}");
                }
            }
            assert_eq!(counts, (creates, execs));
        }
    }

    #[test]
    fn every_spelling_of_an_option() {
        for line in [
            "runc create --bundle /b --pid-file /p c1",
            "runc create --bundle=/b --pid-file=/p c1",
            "runc create -bundle /b -pid-file /p c1",
            "runc create -bundle=/b -pid-file=/p c1",
            "runc create -b /b --pid-file /p c1",
            "runc create --b /b --pid-file /p c1",
            "runc create -b=/b --pid-file /p c1",
            "runc create --b=/b --pid-file /p -- c1",
            "crun create -b/b --pid-file=/p c1",
            "crun run -db/b --pid-file=/p -- c1",
            "crun create --bundle=/no --bundle /b --pid-file=/p c1",
            "youki create -b /b -p /p c1",
            "youki create -p/p -b=/b -c /console c1",
            "youki create -b /b c1 -p /p",
            "youki create c1 --bundle /b --pid-file /p",
            "runc create --root /r --log=/l --bundle /b --pid-file /p c1",
        ] {
            let expected = c1("/b", "", "/p");
            assert_eq!(command(line).creation(), Some(&expected), "{line}");
        }
    }

    #[test]
    fn every_option_before_the_command() {
        for options in [
            "--root /r",
            "--root=/r",
            "-root /r",
            "-root=/r",
            "-r /r",
            "-r/r",
            "-r=/r",
            "-sr /r",
            "--root /no --root /r",
            "--debug --root /r --systemd-cgroup",
            "--debug=true --root /r --systemd-cgroup=false",
            "--log /run --log-format json --root /r",
            "--log create --log-format=exec -log-format run --root /r",
            "-l /log --root /r --log-level debug --systemd-log -s",
            "--criu create --rootless auto --rootless=true --root /r",
            "--cgroup-manager systemd --root /r --log=journald:create",
            "--kata-config /c.toml --config /c.toml --root /r",
            "--root /r --",
        ] {
            let line = format!("runc {options} create -b /b c1");
            assert_eq!(read(&line).unwrap().root, Some("/r".into()), "{line}");
            assert_eq!(command(&line), Command::Create(c1("/b", "", "")), "{line}");
        }
        assert_eq!(read("runc create c1").unwrap().root, None);
        assert_eq!(read("runc --root= create c1").unwrap().root, None);
        assert_eq!(read("runc --root /r state c1").unwrap().root, Some("/r".into()));
    }

    #[test]
    fn every_kind_of_creation() {
        for (line, expected) in [
            ("runc create c1", Command::Create(c1("", "", ""))),
            ("runc create --bundle= c1", Command::Create(c1("", "", ""))),
            ("runc create -b . c1", Command::Create(c1(".", "", ""))),
            (
                "runc create --console-socket /s --preserve-fds 3 --no-pivot --no-new-keyring -b b c1",
                Command::Create(c1("b", "", "")),
            ),
            ("runc create --pidfd-socket /s --config /c.json c1", Command::Create(c1("", "/c.json", ""))),
            ("crun create --bundle /b -f other.json c1", Command::Create(c1("/b", "other.json", ""))),
            ("crun --config /no run --config=/c.json c1", Command::Run(c1("", "/c.json", ""))),
            ("runc run -d --keep --no-subreaper --bundle /b c1", Command::Run(c1("/b", "", ""))),
            ("runc run --detach=false -b /run c1", Command::Run(c1("/run", "", ""))),
            ("runsc run -detach -bundle /b -user-log /u c1", Command::Run(c1("/b", "", ""))),
            ("nvidia-container-runtime --root /r create --bundle /b c1", Command::Create(c1("/b", "", ""))),
            (
                "runc restore --image-path /i --work-path /w --tcp-established --ext-unix-sk --shell-job --file-locks \
                 --manage-cgroups-mode soft --bundle /b --detach --pid-file /p --no-subreaper --no-pivot \
                 --empty-ns network --auto-dedup --lazy-pages --lsm-profile selinux:x --lsm-mount-context y c1",
                Command::Restore(c1("/b", "", "/p")),
            ),
        ] {
            assert_eq!(command(line), expected, "{line}");
        }
    }

    #[test]
    fn ids_are_not_judged() {
        for id in ["create", "-", "--", "-c1", "a/../b", "c 1", "ü"] {
            let line = parse(&block(["runc", "create", "--", id]), false).unwrap();
            assert_eq!(line.command.creation().unwrap().id, id);
        }
        let line = parse(b"runc\0--root=/\xff\0create\0-b\0/\xfe\0\xfd\0", false).unwrap();
        assert_eq!(line.root.unwrap().as_os_str().as_bytes(), b"/\xff");
        let creation = line.command.creation().unwrap();
        assert_eq!(creation.bundle.as_ref().unwrap().as_os_str().as_bytes(), b"/\xfe");
        assert_eq!(creation.id.as_bytes(), b"\xfd");
    }

    #[test]
    fn every_option_of_exec() {
        for line in [
            "runc exec --pid-file /p c1",
            "runc exec -p /process.json --pid-file=/p --detach c1",
            "runc exec --pid-file /p --process /process.json c1 --pid-file /no",
            "runc exec --pid-file /p c1 runc create -b /b c2",
            "runc exec -d -t -u 0:0 -e A=b -e C --cwd / -g 5 -c CAP_X --pid-file /p c1 sh -c x",
            "runc exec --tty --user 0 --env A=b --additional-gids 5 --cap CAP_X --pid-file /p c1 sh",
            "runc exec --process-label l --apparmor a --no-new-privs --cgroup c --ignore-paused --pid-file /p c1 sh",
            "runc exec --console-socket /s --preserve-fds 1 --pidfd-socket /s -pid-file /p -- c1 sh",
            "crun exec -dtu0 -eA=b -cCAP_X --tty=true --pid-file=/p c1 sh",
            "runsc exec --pass-fd 3:3 --exec-fd 4 --internal-pid-file /i --pid-file /p c1 sh",
        ] {
            assert_eq!(command(line), exec_c1("/p"), "{line}");
        }
        assert_eq!(command("runc exec c1 --help"), exec_c1(""));
    }

    #[test]
    fn start_names_a_container() {
        for line in ["runc start c1", "crun --root /r start c1", "youki start c1", "runc start -- c1"] {
            assert_eq!(command(line), Command::Start("c1".into()), "{line}");
        }
    }

    #[test]
    fn all_else_is_other() {
        for name in OTHER_COMMANDS {
            let name = std::str::from_utf8(name).unwrap();
            assert_eq!(command(&format!("runc --root /r {name} create run exec")), Command::Other);
        }
        for line in [
            "runc",
            "runc --debug",
            "runc --version",
            "runc -v create c1",
            "youki create c1 --help",
            "runc --help",
            "runc -h",
            "crun -? run c1",
            "runc create --help",
            "runc run -h",
            "runc exec -h",
            "crun restore --usage",
            "runc start",
            "runc kill --all c1 9",
            "runc delete --force c1",
            "runc a-command-of-tomorrow create c1",
            "runc creat c1",
            "runc CREATE c1",
        ] {
            assert_eq!(command(line), Command::Other, "{line}");
        }
        assert_eq!(parse(b"\0", false).unwrap().command, Command::Other);
        assert_eq!(parse(b"runc init", false).unwrap().command, Command::Other);
    }

    #[test]
    fn what_a_runtime_executes_itself_as_is_init() {
        assert_eq!(command("runc init"), Command::Init);
        assert_eq!(command("runc --root /r init create run exec"), Command::Init);
    }

    #[test]
    fn an_unknown_option_costs_neither_the_command_nor_the_id() {
        for (line, unknown) in [
            // As if it had no value,
            ("runsc --strict create -b /b c1", vec!["--strict"]),
            ("runsc -strict run -b /b c1", vec!["-strict"]),
            ("runc create --new -b /b c1", vec!["--new"]),
            ("runc create -b /b --new c1", vec!["--new"]),
            ("runc create -b /b c1 --new", vec!["--new"]),
            ("runc create -b /b -xy -- c1", vec!["-xy"]),
            ("runc create -b /b ---new c1", vec!["---new"]),
            // with one of its own,
            ("runsc --platform=kvm -network=none create -b /b c1", vec!["--platform", "-network"]),
            ("runc create --new=x -b /b c1", vec!["--new"]),
            ("runc create --= -b /b c1", vec!["--"]),
            // or with one in the next word, where that word has no other place.
            ("runsc --platform kvm -network none create -b /b c1", vec!["--platform", "-network"]),
            ("runc create --new x -b /b c1", vec!["--new"]),
            ("runc create -b /b --new x c1", vec!["--new"]),
            ("runc create -b /b c1 --new x", vec!["--new"]),
            ("runc create -b /b --new --newer x c1", vec!["--new", "--newer"]),
            // Go's long names behind one dash are no groups of letters.
            ("runsc -host-uds=all -ref-leak-mode=x run -b /b c1", vec!["-host-uds", "-ref-leak-mode"]),
            ("runsc restore -b /b -background -fs-new -direct c1", vec!["-background", "-fs-new", "-direct"]),
        ] {
            let read = read(line).unwrap();
            assert_eq!(read.command.creation(), Some(&c1("/b", "", "")), "{line}");
            assert_eq!(read.root, None, "{line}");
            assert_eq!(read.unknown, unknown, "{line}");
        }
        assert_eq!(read("runsc --new state run").unwrap().command, Command::Other);
        assert_eq!(read("runc exec --new c1 sh").unwrap().command, exec_c1(""));
    }

    #[test]
    fn errors_say_what_and_where() {
        for (line, expected) in [
            ("runc create", "`create` without a container id"),
            ("runc run --bundle /b", "`run` without a container id"),
            ("runc restore -- ", "`restore` without a container id"),
            ("runc exec --tty", "`exec` without a container id"),
            ("runc create -b", "`--bundle` (argument 2) without its value, at the end of the command line"),
            (
                "runc create c1 -dp",
                "`--pid-file` (argument 3) without its value, at the end of the command line",
            ),
            ("runc --log", "`--log` (argument 1) without its value, at the end of the command line"),
            ("runc exec -e", "`--env` (argument 2) without its value, at the end of the command line"),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), expected, "{line}");
        }
        assert_eq!(parse(b"", false), Err(CommandLineError::Empty));
        assert_eq!(parse(b"", true), Err(CommandLineError::Empty));
    }

    #[test]
    fn what_is_cut_off_is_not_guessed() {
        let whole = |whole| Err(CommandLineError::Truncated { whole });
        assert_eq!(parse(b"run", true), whole(0));
        assert_eq!(parse(b"runc\0", true), whole(1));
        assert_eq!(parse(b"runc\0--root\0/r", true), whole(2));
        assert_eq!(parse(b"runc\0creat", true), whole(1));
        assert_eq!(parse(b"runc\0exec\0--env\0A=b\0c", true), whole(4));
        // Another bundle may follow.
        assert_eq!(parse(b"runc\0create\0-b\0/b\0c1\0", true), whole(5));

        let exec = CommandLine { root: None, command: exec_c1(""), unknown: vec![] };
        assert_eq!(parse(b"runc\0exec\0c1\0sh\0-c\0echo ", true), Ok(exec));
        assert_eq!(parse(b"runc\0start\0c", true), whole(2));
        assert_eq!(parse(b"runc\0state\0c", true).unwrap().command, Command::Other);
    }

    /// An option with its words, from one of the tables.
    #[derive(Clone, Debug)]
    struct Spelled {
        takes: Takes,
        value: Vec<u8>,
        words: Vec<Vec<u8>>,
    }

    /// Words that mean something somewhere on a line.
    const VOCABULARY: &[&str] =
        &["", "-", "--", "-b", "--bundle", "--new", "-new", "=", "create", "exec", "/b", "--root=/r"];

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            1 => select(VOCABULARY).prop_map(|word| word.as_bytes().to_vec()),
            2 => prop::collection::vec(1..=u8::MAX, 0..12),
        ]
    }

    fn spelled(table: &'static [Opt]) -> impl Strategy<Value = Spelled> {
        let lasting: Vec<&Opt> =
            table.iter().filter(|option| !matches!(option.takes, Takes::Leave)).collect();
        (select(lasting), bytes(), any::<prop::sample::Index>()).prop_map(|(option, value, spelling)| {
            let glue = |parts: &[&[u8]]| parts.concat();
            let long = option.long.as_bytes();
            let mut names = vec![glue(&[b"--", long]), glue(&[b"-", long])];
            names.extend(option.short.iter().map(|letter| vec![b'-', *letter]));
            let mut spellings = vec![];
            for name in names {
                spellings.push(vec![glue(&[&name, b"=", &value])]);
                if matches!(option.takes, Takes::Nothing) {
                    spellings.push(vec![name]);
                } else {
                    if name.len() == 2 && value.starts_with(b"/") {
                        spellings.push(vec![glue(&[&name, &value])]);
                    }
                    spellings.push(vec![name, value.clone()]);
                }
            }
            Spelled { takes: option.takes, value, words: spelling.get(&spellings).clone() }
        })
    }

    fn some_spelled(table: &'static [Opt]) -> impl Strategy<Value = Vec<Spelled>> {
        prop::collection::vec(spelled(table), 0..6)
    }

    fn meant(options: &[Spelled]) -> Found {
        let mut found = Found::default();
        for option in options {
            if let Takes::Path(field) = option.takes {
                *field(&mut found) =
                    (!option.value.is_empty()).then(|| OsStr::from_bytes(&option.value).into());
            }
        }
        found
    }

    fn line(global: &[Spelled], command: &str, own: &[Spelled], positionals: &[Vec<u8>]) -> Vec<u8> {
        let mut words = vec![b"runc".to_vec()];
        words.extend(global.iter().flat_map(|option| option.words.clone()));
        words.push(command.into());
        words.extend(own.iter().flat_map(|option| option.words.clone()));
        if positionals[0].starts_with(b"-") {
            words.push(b"--".to_vec());
        }
        words.extend_from_slice(positionals);
        block(words)
    }

    fn id() -> impl Strategy<Value = Vec<u8>> {
        bytes().prop_filter("an id is not empty", |id| !id.is_empty())
    }

    proptest! {
        #[test]
        fn a_creation_is_read_as_it_was_meant(
            global in some_spelled(GLOBAL),
            name in select(&["create", "run", "restore"][..]),
            own in some_spelled(CREATION),
            id in id(),
            cut in any::<prop::sample::Index>(),
        ) {
            let block = line(&global, name, &own, std::slice::from_ref(&id));
            let Found { bundle, config, pid_file, .. } = meant(&own);
            let creation = Creation { id: OsStr::from_bytes(&id).into(), bundle, config, pid_file };
            let command = match name {
                "create" => Command::Create(creation),
                "run" => Command::Run(creation),
                _ => Command::Restore(creation),
            };
            let expected = CommandLine { root: meant(&global).root, command, unknown: vec![] };
            prop_assert_eq!(parse(&block, false), Ok(expected));

            let short = &block[..=cut.index(block.len())];
            let is_truncated = matches!(parse(short, true), Err(CommandLineError::Truncated { .. }));
            prop_assert!(is_truncated);
        }

        #[test]
        fn an_exec_is_read_as_it_was_meant(
            global in some_spelled(GLOBAL),
            own in some_spelled(EXEC),
            id in id(),
            arguments in prop::collection::vec(bytes(), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let to_id = line(&global, "exec", &own, std::slice::from_ref(&id));
            let block = [to_id.clone(), block(arguments)].concat();
            let exec = Exec { id: OsStr::from_bytes(&id).into(), pid_file: meant(&own).pid_file };
            let command = Command::Exec(exec);
            let expected = CommandLine { root: meant(&global).root, command, unknown: vec![] };
            prop_assert_eq!(parse(&block, false), Ok(expected.clone()));

            let end = 1 + cut.index(block.len());
            let read = parse(&block[..end], true);
            if end < to_id.len() {
                let is_truncated = matches!(read, Err(CommandLineError::Truncated { .. }));
                prop_assert!(is_truncated);
            } else {
                prop_assert_eq!(read, Ok(expected));
            }
        }

        #[test]
        fn any_bytes_give_an_answer(block in prop::collection::vec(any::<u8>(), 0..256), truncated: bool) {
            let _ = parse(&block, truncated);
        }

        #[test]
        fn any_words_give_an_answer_with_an_id(
            name in select(&["create", "run", "restore", "exec"][..]),
            words in prop::collection::vec(bytes(), 0..12),
            unfinished in bytes(),
            truncated: bool,
        ) {
            let words = [&b"runc"[..], name.as_bytes()].into_iter().chain(words.iter().map(Vec::as_slice));
            if let Ok(read) = parse(&[block(words), unfinished].concat(), truncated) {
                match read.command {
                    Command::Exec(exec) => prop_assert!(!exec.id.is_empty()),
                    command => prop_assert!(command.creation().is_none_or(|creation| !creation.id.is_empty())),
                }
            }
        }
    }
}
