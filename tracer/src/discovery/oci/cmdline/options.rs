//! The options of OCI runtimes.

use std::path::PathBuf;

use super::reader::Found;

/// The value of an option, and what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// No value, or one after `=` only (`--debug=true`).
    Nothing,
    /// No value: the runtime prints something and does nothing else.
    Leave,
    /// A value that is not needed here.
    Value,
    /// A path, and the field that it is stored in.
    Path(fn(&mut Found) -> &mut Option<PathBuf>),
}

/// An option.
#[derive(Debug)]
pub(super) struct Opt {
    pub(super) long: &'static str,
    /// One-letter names.
    pub(super) short: &'static [u8],
    pub(super) takes: Takes,
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
/// These tables have to have every option with a value: otherwise the value would be mistaken for the command or the id.
pub(super) static GLOBAL: &[Opt] = &[
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

/// Options of `create`, `run` and `restore`: each means the same to all of them.
/// `console` is that of runc before 1.0, `user-log` runsc's; `-c` and `-p` are youki's.
pub(super) static CREATION: &[Opt] = &[
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
pub(super) static EXEC: &[Opt] = &[
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

/// The known commands that are [`Command::Other`](super::Command::Other). An unknown one is that too, except after an unknown
/// option: then it is treated as the option's value.
pub(super) const OTHER_COMMANDS: &[&[u8]] = &[
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

/// The options that are valid in a part of the line.
pub(super) struct Scope {
    own: &'static [Opt],
    /// urfave/cli v3, which runc is moving to, accepts global options after the command too.
    inherited: &'static [Opt],
}

pub(super) static GLOBAL_SCOPE: Scope = Scope { own: GLOBAL, inherited: &[] };
pub(super) static CREATION_SCOPE: Scope = Scope { own: CREATION, inherited: GLOBAL };
pub(super) static EXEC_SCOPE: Scope = Scope { own: EXEC, inherited: GLOBAL };
pub(super) static START_SCOPE: Scope = Scope { own: START, inherited: GLOBAL };

impl Scope {
    fn long(&self, name: &[u8]) -> Option<&'static Opt> {
        self.own.iter().chain(self.inherited).find(|option| option.long.as_bytes() == name)
    }

    fn short(&self, letter: u8) -> Option<&'static Opt> {
        self.own.iter().find(|option| option.short.contains(&letter))
    }

    /// An option by its name: runc accepts any name after one dash or two.
    pub(super) fn named(&self, name: &[u8]) -> Option<&'static Opt> {
        if let [letter] = name { self.short(*letter) } else { self.long(name) }
    }

    /// Several letters after one dash, of which only the last may have a value: `-dt`, `-b/path`. The letters before it have no
    /// meaning here, so the last represents all.
    ///
    /// Go has long options after one dash, and they may be unknown (runsc has `-background` and `-host-uds`): so a group never
    /// means help or version, and a path in it has to look like one.
    pub(super) fn group<'w>(&self, mut letters: &'w [u8]) -> Option<(&'static Opt, Option<&'w [u8]>)> {
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
