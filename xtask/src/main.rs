//! Builds, runs, tests and demonstrates `tracer`: `cargo xtask help`.
//!
//! Each command first installs what it lacks (see [`setup`]), so that a fresh clone on a fresh machine
//! needs nothing but cargo and rustup. This crate builds with any stable Rust from 1.85 on, because it is
//! what installs the pinned one ([`pins`]).

mod archive;
mod artifact;
mod bench;
mod build;
mod cache;
mod check;
mod cli;
mod deb;
mod demo;
mod dist;
mod elf;
mod fuzz;
mod image;
mod kind;
mod krew;
mod layer;
mod long;
mod man;
mod pins;
mod process;
mod setup;
mod tally;
mod vm;
#[cfg(test)]
mod workflow;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    cli::{Cli, Task},
    setup::Scope,
};

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup => {
            setup::ensure(Scope::Test)?;
            setup::criu();
        }
        Task::Build { release, cargo } => {
            setup::ensure(Scope::Build)?;
            if let Some(binary) = build::tracer(release, &cargo)? {
                println!("{}", binary.display());
            }
        }
        Task::Run { debug, tracer } => {
            setup::ensure(Scope::Build)?;
            return build::run(!debug, &tracer);
        }
        Task::Bench { bench } => return bench::run(&bench),
        Task::Test { quick } => return check::run(quick),
        Task::Dist { arch } => {
            setup::ensure(Scope::Dist)?;
            print!("{}", dist::run(&arch)?);
        }
        Task::Image { options } => print!("{}", image::run(&options)?),
        Task::Deb => {
            setup::ensure(Scope::Deb)?;
            println!("{}", deb::run()?.display());
        }
        Task::Krew => print!("{}", krew::manifest()?),
        Task::Man => {
            setup::ensure(Scope::Man)?;
            println!("{}", man::run()?.display());
        }
        Task::Kind => return kind::run(),
        Task::Faults => return long::faults(),
        Task::Soak { minutes } => return long::soak(minutes),
        Task::Fuzz { options } => return fuzz::run(&options),
        Task::Vm { options } => return vm::run(&options),
        Task::Demo { tracer } => return demo::run(tracer),
        Task::Pins => println!("{}", pins_as_variables()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The pins as `NAME=value` lines, which a shell or a CI service can read.
fn pins_as_variables() -> String {
    [
        ("STABLE", pins::STABLE),
        ("NIGHTLY", pins::NIGHTLY),
        ("BPF_LINKER", pins::BPF_LINKER),
        ("LLVM", pins::LLVM),
        ("CARGO_DENY", pins::CARGO_DENY),
        ("CARGO_DEB", pins::CARGO_DEB),
        ("CARGO_FUZZ", pins::CARGO_FUZZ),
        ("YOUKI", pins::YOUKI),
        ("CRIU", pins::CRIU),
        ("CRIU_SUITE", pins::CRIU_SUITE),
        ("KIND", pins::KIND),
        ("KIND_NODE", pins::KIND_NODE),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn pins_are_one_variable_a_line() {
        for line in super::pins_as_variables().lines() {
            let (name, value) = line.split_once('=').unwrap();
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{line}");
            assert!(!value.is_empty() && !value.contains(char::is_whitespace), "{line}");
        }
    }
}
