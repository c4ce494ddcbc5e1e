//! C programs for what no shell can do: exact system calls, 32-bit calls, odd arguments.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use crate::{scratch, wait};

/// Statically linked, as a container without libraries needs it.
pub const STATIC: &[&str] = &["-static", "-pthread"];
/// Linked as most programs are.
pub const DYNAMIC: &[&str] = &[];
/// A library that is preloaded.
pub const LIBRARY: &[&str] = &["-shared", "-fPIC"];
/// Without libc: its own `_start`, all data below 4 GiB so that 32-bit calls can name it.
pub const FREESTANDING: &[&str] =
    &["-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-pic", "-fno-stack-protector"];
/// [`FREESTANDING`], as an i386 program.
pub const FREESTANDING_I386: &[&str] =
    &["-m32", "-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-pic", "-fno-stack-protector"];

/// What there is, as source, name and flags: for [`compile_all`].
const ALL: &[(&str, &str, &[&str])] = &[
    ("calls.c", "calls", STATIC),
    ("candidate.c", "candidate.so", LIBRARY),
    ("chain.c", "chain", STATIC),
    ("compat.c", "compat32", FREESTANDING_I386),
    ("compat.c", "compat64", FREESTANDING),
    ("dyn.c", "dyn", DYNAMIC),
    ("dying.c", "dying", STATIC),
    ("execs.c", "execs", STATIC),
    ("exits.c", "exits", STATIC),
    ("fexits.c", "fexits", STATIC),
    ("headless.c", "headless", STATIC),
    ("in_process.c", "in_process", STATIC),
    ("hanging.c", "hanging", STATIC),
    ("impostor.c", "impostor", STATIC),
    ("landlocked.c", "landlocked", STATIC),
    ("namespaces.c", "namespaces", STATIC),
    ("opens.c", "opens", STATIC),
    ("ring.c", "ring", STATIC),
    ("tree.c", "tree", STATIC),
    ("uring.c", "uring", STATIC),
    ("wrapper.c", "wrapper", STATIC),
];

/// The directory that `TRACER_TEST_PROGRAMS` names. `cargo xtask test` compiles the programs once for all test processes;
/// a guest of `cargo xtask vm` has no compiler.
pub(crate) fn compiled_before() -> Option<PathBuf> {
    std::env::var_os("TRACER_TEST_PROGRAMS").map(PathBuf::from)
}

/// Compiles every program into `dir`, for a `TRACER_TEST_PROGRAMS` elsewhere; for another architecture, too, with the
/// compiler that `TRACER_TEST_CC` names.
///
/// # Panics
/// With what the compiler said.
pub fn compile_all(dir: &Path) {
    for file in fs::read_dir(sources()).expect("the sources of the programs").flatten() {
        let source = file.file_name();
        assert!(ALL.iter().any(|(name, ..)| source == *name), "{} is not listed", source.display());
    }
    let target = wait::output(compiler().arg("-dumpmachine"), wait::LIMIT).success();
    // What makes system calls in two ways does so by the instructions of x86.
    let is_for_target = |source: &str| source != "compat.c" || target.stdout.starts_with("x86_64");
    for (source, name, flags) in ALL.iter().filter(|(source, ..)| is_for_target(source)) {
        build(source, &dir.join(name), flags);
    }
}

/// Compiles `programs/<source>` once per process, statically linked.
#[track_caller]
pub fn compile(source: &str) -> PathBuf {
    compile_flags(source, source.trim_end_matches(".c"), STATIC)
}

/// Compiles `programs/<source>` to a file called `name`, once per process.
///
/// # Panics
/// With what the compiler said.
#[track_caller]
pub fn compile_flags(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    if let Some(dir) = compiled_before() {
        return dir.join(name);
    }
    // Held while compiling, so that a second test waits for the first one's result.
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let dir = scratch::root().join("programs");
    fs::create_dir_all(&dir).expect("our own directory");
    let target = dir.join(name);
    build(source, &target, flags);
    built.insert(name.to_owned(), target.clone());
    target
}

/// gcc, or what goes by its options.
fn compiler() -> Command {
    Command::new(std::env::var_os("TRACER_TEST_CC").unwrap_or_else(|| "gcc".into()))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

#[track_caller]
fn build(source: &str, target: &Path, flags: &[&str]) {
    let source = sources().join(source);
    let mut gcc = compiler();
    gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(target).arg(source).args(flags);
    wait::output(&mut gcc, wait::LIMIT).success();
}

/// The shared libraries that a dynamically linked program needs, its loader among them, as absolute
/// paths.
#[track_caller]
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    // What ldd does, which is not everywhere: the loader lists them and runs nothing.
    let listed =
        wait::output(Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1"), wait::LIMIT).success();
    listed
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}
