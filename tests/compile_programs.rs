//! Compiles the tests' C programs into a directory, for tests that run where no compiler is: `cargo xtask vm` does so.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: compile-programs DIRECTORY");
        return ExitCode::from(2);
    };
    harness::program::compile_all(&dir);
    harness::scratch::remove(harness::scratch::root());
    ExitCode::SUCCESS
}
