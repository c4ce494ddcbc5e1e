//! The command `kubectl tracer`: `kubectl` finds it on the `PATH` by its name.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracer::kubectl::main()
}
