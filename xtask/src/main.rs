//! Builds, runs, tests and demonstrates `tracer`: `cargo xtask help`.
//!
//! Each command first installs what it lacks (see [`setup`]), so that a fresh clone on a fresh machine needs nothing
//! but cargo and rustup. This crate builds with any stable Rust from 1.85 on, because it is what installs the pinned
//! one ([`pins`]).

mod archive;
mod bench;
mod cache;
mod cargo;
mod check;
mod criu;
mod deb;
mod debian;
mod demo;
mod dist;
mod elf;
mod fuzz;
mod image;
mod integration;
mod kind;
mod layers;
mod notes;
mod pins;
mod process;
mod setup;
mod svg;
mod tally;
mod vm;
#[cfg(test)]
mod workflow;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use setup::Scope;

/// Builds, runs, tests and demonstrates tracer.
///
/// Every command first installs what it needs and what is missing: Rust toolchains through rustup, bpf-linker,
/// cargo-nextest and the like through cargo, runc and the like through apt. Where it may not do that, it prints what
/// to install and stops.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", after_help = "Examples of each: docs/project/development.md")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build tracer, its BPF programs included, and print its path
    Build {
        /// Optimise, and strip the binary
        #[arg(long)]
        release: bool,
        /// Further arguments for `cargo build`
        #[arg(last = true, value_name = "CARGO ARGS")]
        cargo: Vec<String>,
    },
    /// Build tracer and run it as root (through sudo where needed)
    Run {
        /// Run the unoptimised build
        #[arg(long)]
        debug: bool,
        /// Arguments for tracer, e.g. `-- trace open -n kube-system`
        #[arg(last = true, value_name = "TRACER ARGS")]
        tracer: Vec<String>,
    },
    /// Start a small container and show which files it opens; leaves nothing behind
    Demo,
    /// Record the demo in a terminal as an animated image, docs/demo.svg
    Svg,
    /// Build static, stripped release binaries and archives into `target/dist`
    Dist {
        /// Build for these architectures only
        #[arg(long, value_delimiter = ',', default_values = dist::ARCHITECTURES)]
        arch: Vec<String>,
    },
    /// Build the container image of the agent, with docker or podman
    Image(image::Options),
    /// Build a Debian package into `target/dist`
    Deb {
        /// Build for this architecture
        #[arg(long, value_parser = dist::ARCHITECTURES, default_value = std::env::consts::ARCH)]
        arch: String,
    },
    /// Check that a tag names this version, and print its release notes from CHANGELOG.md
    Notes {
        tag: String,
        /// Image of the release, to name in the notes
        #[arg(long)]
        image: Option<String>,
    },
    /// Print the manifest for krew, for the archives in `target/dist`
    Krew,
    /// Write the manual pages into `target/man`
    Man,
    /// Check everything CI checks: format, lints, dependencies, docs, unit and integration tests
    Test {
        /// Only format, lints and unit tests: no root and no container runtime needed
        #[arg(long)]
        quick: bool,
    },
    /// Measure what tracer costs and loses, against bare hooks and other tracers; see `bench --help`
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments for the benchmark, e.g. `--quick`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCH ARGS")]
        bench: Vec<String>,
    },
    /// Run tests/faults.rs with the tests that take long, or take a CPU away meanwhile
    Faults,
    /// Measure what kubectl tracer spends on an event, and how many bytes one takes between node and client
    ClientCost,
    /// Trace everything at once for a while, and check that tracer's memory does not grow
    Soak {
        /// Duration
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Fuzz all parsers of untrusted input (cargo-fuzz), and list the findings
    Fuzz(fuzz::Options),
    /// Run the integration tests on other kernels, in QEMU
    Vm(vm::Options),
    /// Deploy and trace on a cluster of two nodes, made by kind; exit code 3 where that is not possible
    Kind,
    /// Install what `test` needs, and nothing else
    Setup,
    /// Print the pinned versions as NAME=value lines
    Pins,
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    process::clean_environment();
    run(task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    let sh = &process::shell()?;
    match task {
        Task::Build { release, cargo } => {
            setup::ensure(sh, Scope::Build)?;
            for executable in cargo::build(sh, release, &cargo)? {
                println!("{}", executable.path.display());
            }
        }
        Task::Run { debug, tracer } => {
            setup::ensure(sh, Scope::Build)?;
            return cargo::run(sh, !debug, &tracer);
        }
        Task::Demo => return demo::run(sh),
        Task::Svg => svg::run(sh)?,
        Task::Dist { arch } => dist::run(sh, &arch)?,
        Task::Image(options) => image::run(sh, &options)?,
        Task::Deb { arch } => deb::run(sh, &arch)?,
        Task::Notes { tag, image } => print!("{}", notes::release(&tag, image.as_deref())?),
        Task::Krew => print!("{}", dist::krew_manifest()?),
        Task::Man => deb::man(sh)?,
        Task::Test { quick } => return check::run(sh, quick),
        Task::Bench { bench } => return bench::run(sh, &bench),
        Task::Faults => return integration::faults(sh),
        Task::ClientCost => return integration::client_cost(sh),
        Task::Soak { minutes } => return integration::soak(sh, minutes),
        Task::Fuzz(options) => return fuzz::run(sh, &options),
        Task::Vm(options) => return vm::run(sh, &options),
        Task::Kind => return kind::run(sh),
        Task::Setup => {
            setup::ensure(sh, Scope::Test)?;
            criu::prepare(sh);
        }
        Task::Pins => {
            for (name, value) in pins::ALL {
                println!("{name}={value}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["xtask", "bench", "--quick", "--help"]).unwrap();
        assert!(matches!(cli.task, Task::Bench { bench } if bench == ["--quick", "--help"]));
    }
}
