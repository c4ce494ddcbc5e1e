//! The command line of a runtime. Input: whether it is cut off, where it is cut off besides (of 256 parts), and the
//! arguments.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use crate::discovery::oci::cmdline::{Command, CommandLine, CommandLineError, parse};

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target { name: "command_line", check, seeds };

fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "runc --root=/r create -b /b --pid-file=/p c1",
        "crun -sr /r run -db/b -f other.json c1",
        "youki create c1 -p /p -b=/b",
        "runsc --platform kvm -strict restore --bundle /b --new x c1 -- -y",
        "runc exec -dtu0 -eA=b --pid-file /p c1 sh -c x --pid-file /no",
        "runc init",
        "runc create --help",
    ];
    let blocks = fixtures::command_lines().into_iter().chain(lines.map(fixtures::block));
    blocks.zip(0..).map(|(block, number)| [&[number & 1, number], &block[..]].concat()).collect()
}

fn check(input: &[u8]) {
    let Some(([truncated, part], block)) = input.split_first_chunk() else { return };
    let truncated = truncated & 1 == 1;
    let read = parse(block, truncated);
    match &read {
        Ok(line) => {
            check_line(line, block);
            check_printed(line);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(char::is_control) && text.len() < 200, "{text:?}");
        }
    }

    // What is said of the beginning holds whatever follows, unless it is that more is needed.
    let start = parse(&block[..block.len() * usize::from(*part) / 256], true);
    if !matches!(start, Err(CommandLineError::Truncated { .. } | CommandLineError::Empty)) {
        assert_eq!(start, read);
    }
}

/// Nothing is said that is not there: every name is one of the words, or the end of one.
fn check_line(line: &CommandLine, block: &[u8]) {
    let ends_a_word =
        |text: &OsStr| block.split(|byte| *byte == 0).any(|word| word.ends_with(text.as_bytes()));
    let (id, paths) = names(&line.command);
    for path in paths.into_iter().chain([&line.root]).flatten() {
        assert!(!path.as_os_str().is_empty() && ends_a_word(path.as_os_str()), "{line:?}");
    }
    assert!(id.is_none_or(|id| !id.is_empty() && ends_a_word(id)), "{line:?}");
}

fn names(command: &Command) -> (Option<&OsString>, Vec<&Option<PathBuf>>) {
    match command {
        Command::Create(creation) | Command::Run(creation) | Command::Restore(creation) => {
            (Some(&creation.id), vec![&creation.bundle, &creation.config, &creation.pid_file])
        }
        Command::Exec(exec) => (Some(&exec.id), vec![&exec.pid_file]),
        Command::Start(id) => (Some(id), vec![]),
        Command::Init | Command::Other => (None, vec![]),
    }
}

/// A line that is written with what was understood says the same.
fn check_printed(line: &CommandLine) {
    let command = match line.command {
        Command::Create(_) => "create",
        Command::Run(_) => "run",
        Command::Restore(_) => "restore",
        Command::Exec(_) => "exec",
        Command::Start(_) => "start",
        Command::Init => "init",
        Command::Other => "state",
    };
    let options: &[&str] = match line.command {
        Command::Exec(_) => &["--pid-file"],
        Command::Start(_) => &[],
        _ => &["--bundle", "--config", "--pid-file"],
    };
    let (id, paths) = names(&line.command);
    let given = |option: &str, path: &Option<PathBuf>| {
        let word = |path: &PathBuf| [option.as_bytes(), b"=", path.as_os_str().as_bytes()].concat();
        path.as_ref().map(word)
    };
    let mut words = vec![b"runc".to_vec()];
    words.extend(given("--root", &line.root));
    words.push(command.into());
    words.extend(options.iter().zip(paths).filter_map(|(option, path)| given(option, path)));
    words.extend(id.into_iter().flat_map(|id| [b"--".to_vec(), id.as_bytes().to_vec()]));
    let block: Vec<u8> = words.into_iter().flat_map(|word| [word, vec![0]].concat()).collect();
    assert_eq!(parse(&block, false), Ok(CommandLine { unknown: vec![], ..line.clone() }));
}
