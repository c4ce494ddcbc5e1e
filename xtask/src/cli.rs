//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{dist, fuzz, image, vm};

/// Builds, runs, tests and demonstrates tracer.
///
/// Every command first installs what it needs and what is missing: Rust toolchains through rustup,
/// bpf-linker and cargo-deny through cargo, runc and the like through apt. Where it may not do that, it
/// prints what to install and stops.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = false, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                       See it work: a small container, traced
  cargo xtask run -- trace open          Show every file that any container opens
  cargo xtask run -- doctor              Say what this kernel allows
  cargo xtask test                       Check what CI checks
  cargo xtask bench --quick              Measure what tracing costs
  cargo xtask build --release            Build target/release/tracer
  cargo xtask vm 6.1 --tests open        Run tests/open.rs on Debian's Linux 6.1
  cargo xtask soak --minutes 5           Look for what grows in five minutes of everything
  cargo xtask fuzz --seconds 60          Try hostile input on all that reads some
  cargo xtask dist                       Build binaries that run on any Linux
  cargo xtask deb                        Build a Debian package of them
  cargo xtask image                      Build the container image that runs on nodes
  cargo xtask kind                       Try all of it on a cluster of two nodes, made of containers";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Build tracer, its BPF programs included, and print where it is
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

    /// Start a small container and show which files it opens; it ends by itself and leaves nothing behind
    Demo {
        /// Use this tracer: build and install nothing
        #[arg(long, hide = true)]
        tracer: Option<PathBuf>,
    },

    /// Build static, stripped release binaries for other machines into `target/dist`, and archives of them
    Dist {
        /// Only for these architectures
        #[arg(long, value_delimiter = ',', default_values = dist::ARCHITECTURES)]
        arch: Vec<String>,
    },

    /// Build the container image of the agent, with docker or podman
    Image {
        #[command(flatten)]
        options: image::Options,
    },

    /// Build a Debian package for this architecture into `target/dist`
    Deb,

    /// Print the manifest for krew, of the archives in `target/dist`
    Krew,

    /// Write the manual pages into `target/man`
    Man,

    /// Check everything CI checks: format, lints, dependencies, docs, unit and integration tests
    Test {
        /// Only format, lints and unit tests: no root and no container runtime needed
        #[arg(long)]
        quick: bool,
    },

    /// Measure what tracer costs and loses, against bare hooks and other tracers; `bench --help` says how
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments for the benchmark, e.g. `--quick`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCH ARGS")]
        bench: Vec<String>,
    },

    /// Run tests/faults.rs with what takes long, or takes a CPU away meanwhile
    Faults,

    /// Trace everything at once for so long, and show that what tracer holds on to does not grow
    Soak {
        /// For how long
        #[arg(long, default_value_t = 60.0, value_parser = minutes)]
        minutes: f64,
    },

    /// Feed made-up input to all that reads what others have written (cargo-fuzz), and tell what it found
    Fuzz {
        #[command(flatten)]
        options: fuzz::Options,
    },

    /// Run the integration tests on other kernels, in QEMU
    Vm {
        #[command(flatten)]
        options: vm::Options,
    },

    /// Try deploying and tracing on a cluster of two nodes, made by kind; exit code 3 where that cannot be made
    Kind,

    /// Install what all the other commands need, and nothing else
    Setup,

    /// Print the pinned versions as NAME=value lines
    Pins,
}

fn minutes(word: &str) -> Result<f64, String> {
    let minutes: f64 = word.parse().map_err(|error| format!("{error}"))?;
    if minutes.is_finite() && minutes > 0.0 { Ok(minutes) } else { Err("not a length of time".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, error::ErrorKind};

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_goes_to_tracer() {
        let cli = Cli::try_parse_from(["xtask", "run", "--", "trace", "open", "-n", "a", "--debug"]).unwrap();
        let Task::Run { debug, tracer } = cli.task else { panic!("{cli:?}") };
        assert!(!debug);
        assert_eq!(tracer, ["trace", "open", "-n", "a", "--debug"]);
    }

    #[test]
    fn what_follows_bench_goes_to_the_benchmark() {
        let cli = Cli::try_parse_from(["xtask", "bench", "--quick", "--figure", "1", "--help"]).unwrap();
        let Task::Bench { bench } = cli.task else { panic!("{cli:?}") };
        assert_eq!(bench, ["--quick", "--figure", "1", "--help"]);
    }

    #[test]
    fn unknown_usage_exits_2() {
        for args in [
            &["xtask", "fly"][..],
            &["xtask", "build", "--fast"],
            &["xtask", "run", "trace"],
            &["xtask", "soak", "--minutes", "-1"],
        ] {
            let error = Cli::try_parse_from(args).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}");
        }
        let error = Cli::try_parse_from(["xtask", "--help"]).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
    }
}
