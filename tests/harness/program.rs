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
/// Without libc: its own `_start`, all data below 4 GiB so that 32-bit calls can name it.
pub const FREESTANDING: &[&str] =
    &["-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-pic", "-fno-stack-protector"];
/// [`FREESTANDING`], as an i386 program.
pub const FREESTANDING_I386: &[&str] =
    &["-m32", "-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-pic", "-fno-stack-protector"];

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
    // Held while compiling, so that a second test waits for the first one's result.
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let dir = scratch::root().join("programs");
    fs::create_dir_all(&dir).expect("our own directory");
    let target = dir.join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&target).arg(sources.join(source)).args(flags);
    wait::output(&mut gcc, wait::LIMIT).success();
    built.insert(name.to_owned(), target.clone());
    target
}

/// The shared libraries that a dynamically linked program needs, its loader among them, as absolute
/// paths.
#[track_caller]
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = wait::output(Command::new("ldd").arg(program), wait::LIMIT).success();
    listed
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}
