//! The command `tracer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracer::cli::main()
}
