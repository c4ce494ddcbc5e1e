use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use proptest::{prelude::*, sample::select};

use super::{
    options::{CREATION, EXEC, GLOBAL, OTHER_COMMANDS, Opt, Takes},
    *,
};

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
fn command_lines_of_engines_are_parsed() {
    let files = [
        (
            include_str!("../../../testing/fixtures/argv/containerd-crun128.txt"),
            "/run/containerd/runc/k8s.io",
            8,
            6,
        ),
        (
            include_str!("../../../testing/fixtures/argv/containerd-runc13.txt"),
            "/run/containerd/runc/k8s.io",
            8,
            6,
        ),
        (include_str!("../../../testing/fixtures/argv/crio-crun128.txt"), "/run/crio/crun", 8, 5),
        (include_str!("../../../testing/fixtures/argv/crio-runc13.txt"), "/run/crio/runc", 8, 5),
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
fn every_spelling_of_option_is_accepted() {
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
fn every_option_before_command_is_accepted() {
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
fn every_kind_of_creation_is_parsed() {
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
fn any_nonempty_id_is_accepted() {
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
fn every_option_of_exec_is_accepted() {
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
fn start_names_container() {
    for line in ["runc start c1", "crun --root /r start c1", "youki start c1", "runc start -- c1"] {
        assert_eq!(command(line), Command::Start("c1".into()), "{line}");
    }
}

#[test]
fn all_other_commands_are_other() {
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
fn runtime_executing_itself_is_init() {
    assert_eq!(command("runc init"), Command::Init);
    assert_eq!(command("runc --root /r init create run exec"), Command::Init);
}

#[test]
fn unknown_option_leaves_command_and_id_intact() {
    for (line, unknown) in [
        // Treated as having no value,
        ("runsc --strict create -b /b c1", vec!["--strict"]),
        ("runsc -strict run -b /b c1", vec!["-strict"]),
        ("runc create --new -b /b c1", vec!["--new"]),
        ("runc create -b /b --new c1", vec!["--new"]),
        ("runc create -b /b c1 --new", vec!["--new"]),
        ("runc create -b /b -xy -- c1", vec!["-xy"]),
        ("runc create -b /b ---new c1", vec!["---new"]),
        // with an attached value,
        ("runsc --platform=kvm -network=none create -b /b c1", vec!["--platform", "-network"]),
        ("runc create --new=x -b /b c1", vec!["--new"]),
        ("runc create --= -b /b c1", vec!["--"]),
        // or with a value in the next word, if that cannot be anything else.
        ("runsc --platform kvm -network none create -b /b c1", vec!["--platform", "-network"]),
        ("runc create --new x -b /b c1", vec!["--new"]),
        ("runc create -b /b --new x c1", vec!["--new"]),
        ("runc create -b /b c1 --new x", vec!["--new"]),
        ("runc create -b /b --new --newer x c1", vec!["--new", "--newer"]),
        // Go's long names after one dash are not groups of letters.
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
fn errors_name_argument_and_position() {
    for (line, expected) in [
        ("runc create", "`create` without a container id"),
        ("runc run --bundle /b", "`run` without a container id"),
        ("runc restore -- ", "`restore` without a container id"),
        ("runc exec --tty", "`exec` without a container id"),
        ("runc create -b", "`--bundle` (argument 2) without its value, at the end of the command line"),
        ("runc create c1 -dp", "`--pid-file` (argument 3) without its value, at the end of the command line"),
        ("runc --log", "`--log` (argument 1) without its value, at the end of the command line"),
        ("runc exec -e", "`--env` (argument 2) without its value, at the end of the command line"),
    ] {
        assert_eq!(read(line).unwrap_err().to_string(), expected, "{line}");
    }
    assert_eq!(parse(b"", false), Err(CommandLineError::Empty));
    assert_eq!(parse(b"", true), Err(CommandLineError::Empty));
}

#[test]
fn truncated_line_is_not_guessed() {
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
    let lasting: Vec<&Opt> = table.iter().filter(|option| !matches!(option.takes, Takes::Leave)).collect();
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
            *field(&mut found) = (!option.value.is_empty()).then(|| OsStr::from_bytes(&option.value).into());
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
    fn creation_is_parsed_as_written(
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
    fn exec_is_parsed_as_written(
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
    fn parsing_arbitrary_bytes_does_not_panic(block in prop::collection::vec(any::<u8>(), 0..256), truncated: bool) {
        let _ = parse(&block, truncated);
    }

    #[test]
    fn parsing_arbitrary_words_never_gives_empty_id(
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
