//! `cargo xtask bench`: what tracer costs, beside what the hook costs and what others cost.
//!
//! Each figure is a ratio of things measured in one run, in turn, round for round: times differ from machine to
//! machine and from minute to minute. `docs/performance.md` has the method.
//!
//! | module | figures |
//! |---|---|
//! | [`rounds`] | 1 to 4 and 6: the same loops under every [`subject`] |
//! | [`saturation`] | 5: nothing lost |
//! | [`population`] | 7, 10, 11: with a thousand containers |
//! | [`churn`] | 8: a thousand short ones |
//! | [`latency`] | 12: from the kernel to the terminal |

mod attach;
mod chart;
mod churn;
mod cpu;
mod figures;
mod interrupt;
mod latency;
mod load;
mod machine;
mod population;
mod report;
mod rounds;
mod saturation;
mod stats;
mod subject;

use std::{fs, ops::ControlFlow, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use harness::{Runtime, runtime::KnownRoot, scratch};

use crate::{
    figures::Figure, load::Load, machine::Machine, population::Plan, report::Report, rounds::Loads,
    subject::Setting,
};

/// Measure tracer: what it costs and what it loses, against bare hooks and other tracers
///
/// Prints a table of figures with their targets, and writes results.json with every single value, and a chart.
/// Slowness is no error; takes about ten minutes, and an idle machine.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach programs for comparison
    #[command(hide = true)]
    Attach(attach::Options),
}

#[derive(Debug, Args)]
struct Run {
    /// Only figures 1 to 4, in three rounds: less than a minute
    #[arg(long)]
    quick: bool,

    /// Everything, but so little of it that the values mean nothing: shows in seconds that it works
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,

    /// Only these figures
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',')]
    figure: Vec<u8>,

    /// How often each is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// How long each loop runs
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(20..))]
    milliseconds: Option<u64>,

    /// Calls for figure 5
    #[arg(long, value_name = "N")]
    opens: Option<u64>,

    /// Containers for figures 7 and 11
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..))]
    containers: Option<u16>,

    /// Runs for figure 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,

    /// A further argument for tracer, e.g. --tracer-arg=--buffer-size=1MiB
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    tracer_arg: Vec<String>,

    /// Write the table to docs/performance.md
    #[arg(long)]
    write_docs: bool,

    /// The binary to measure
    #[arg(long, env = "TRACER_BIN", hide = true)]
    tracer: Option<PathBuf>,

    /// The static program for containers
    #[arg(long, env = "TRACER_BENCH_LOAD", hide = true)]
    load: Option<PathBuf>,

    /// Where results go
    #[arg(long, env = "TRACER_BENCH_OUTPUT", hide = true)]
    output: Option<PathBuf>,
}

/// How much of each is done.
#[derive(Debug, Clone, Copy)]
struct Amount {
    rounds: usize,
    milliseconds: u64,
    opens: u64,
    few: usize,
    many: usize,
    starts: usize,
    runs: usize,
    calls: usize,
}

const FULL: Amount = Amount {
    rounds: 7,
    milliseconds: 400,
    opens: 10_000_000,
    few: 100,
    many: 1000,
    starts: 7,
    runs: 1000,
    calls: 200,
};
const QUICK: Amount = Amount { rounds: 3, milliseconds: 100, ..FULL };
const SMOKE: Amount =
    Amount { rounds: 1, milliseconds: 20, opens: 20_000, few: 2, many: 4, starts: 1, runs: 4, calls: 3 };

impl Run {
    fn amount(&self) -> Amount {
        let usual = match (self.quick, self.smoke) {
            (true, _) => QUICK,
            (_, true) => SMOKE,
            _ => FULL,
        };
        let many = self.containers.map_or(usual.many, usize::from);
        Amount {
            rounds: self.rounds.map_or(usual.rounds, usize::from),
            milliseconds: self.milliseconds.unwrap_or(usual.milliseconds),
            opens: self.opens.unwrap_or(usual.opens),
            few: usual.few.min(many - 1),
            many,
            runs: self.runs.map_or(usual.runs, usize::from),
            ..usual
        }
    }

    fn wants(&self, number: u8) -> bool {
        if self.figure.is_empty() { !self.quick || number <= 4 } else { self.figure.contains(&number) }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Attach(options)) => attach::run(&options),
        None => measure(&cli.run).map(ControlFlow::Continue),
    };
    match result {
        Ok(ControlFlow::Continue(())) => ExitCode::SUCCESS,
        Ok(ControlFlow::Break(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(run: &Run) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("measuring needs root: `cargo xtask bench` uses sudo");
    }
    let needed = |path: &Option<PathBuf>, what: &str| {
        path.clone().with_context(|| format!("{what} is not named: `cargo xtask bench` builds and names it"))
    };
    let directory = needed(&run.output, "the directory for results")?;
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let setting = Setting {
        tracer: needed(&run.tracer, "the tracer to measure")?,
        tracer_arguments: run.tracer_arg.clone(),
        directory: directory.clone(),
    };
    let program = needed(&run.load, "the load")?;
    interrupt::catch()?;
    cpu::take_precedence();
    cpu::leave_to_load()?;

    let mut machine = Machine::look(&setting.tracer);
    let result = figures(run, &setting, &program);
    scratch::remove(scratch::root());
    let mut report = result?;
    machine.finish();
    report.machine = Some(machine);
    report.write_json(&directory)?;
    println!("{}", report.table());
    eprintln!("bench: every value is in {}", directory.join("results.json").display());
    if let Some(rounds) = &report.rounds {
        chart::draw(rounds, &directory.join("chart.svg"))?;
    }
    if run.write_docs {
        report.write_docs(&PathBuf::from("docs/performance.md"))?;
    }
    Ok(())
}

/// Measures what is wanted, one figure's needs after the other's.
fn figures(run: &Run, setting: &Setting, program: &std::path::Path) -> Result<Report> {
    let amount = run.amount();
    let wants = |number| run.wants(number);
    let mut report = Report::new(std::env::args().skip(1).collect());
    // Its containers go first when this ends.
    let runtime = Runtime::runc();
    let _known = KnownRoot::new(&runtime);
    let mut selected = Load::start(&runtime, program)?;

    let subjects = figures::subjects(wants);
    if !subjects.is_empty() {
        let mut loads = Loads { selected, elsewhere: Load::start(&runtime, program)? };
        let rounds = rounds::run(setting, &mut loads, &subjects, amount.rounds, amount.milliseconds)?;
        report.figures.extend(figures::of_rounds(&rounds, wants));
        report.rounds = Some(rounds);
        selected = loads.selected;
    }
    if wants(5) {
        let saturation = saturation::run(setting, &mut selected, amount.opens)?;
        report.figures.push(saturation.figure());
        report.saturation = Some(saturation);
    }
    if wants(12) {
        let latency = latency::run(setting, &mut selected, amount.calls)?;
        report.figures.push(latency.figure());
        report.latency = Some(latency);
    }
    if wants(7) || wants(10) || wants(11) {
        let plan = Plan {
            few: amount.few,
            many: amount.many,
            rounds: amount.rounds,
            milliseconds: amount.milliseconds,
            starts: amount.starts,
        };
        let population = population::run(setting, &mut selected, program, plan, wants)?;
        report.figures.extend(population.figures());
        report.population = Some(population);
    }
    if wants(8) {
        let churn = churn::run(setting, program, amount.runs)?;
        report.figures.push(churn.figure());
        report.churn = Some(churn);
    }
    if wants(9) {
        report.figures.push(Figure::elsewhere(
            9,
            "slow-down of `runc run`, by instructions",
            "≤ 1.02",
            "`cargo xtask vm icount` measures it",
        ));
    }
    // Numbers in order, what belongs to one behind it.
    report.sort();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn run(arguments: &[&str]) -> Run {
        let arguments = ["bench"].iter().chain(arguments);
        Cli::try_parse_from(arguments).unwrap().run
    }

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn quick_is_the_first_four_figures() {
        let quick = run(&["--quick"]);
        assert_eq!((1..=12).filter(|number| quick.wants(*number)).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(quick.amount().rounds, 3);
        assert!((1..=12).all(|number| run(&[]).wants(number) && run(&["--smoke"]).wants(number)));
    }

    #[test]
    fn numbers_given_win() {
        let run =
            run(&["--quick", "--figure", "5", "8", "--rounds", "9", "--opens", "7", "--containers", "50"]);
        assert_eq!((1..=12).filter(|number| run.wants(*number)).collect::<Vec<_>>(), [5, 8]);
        let amount = run.amount();
        assert_eq!((amount.rounds, amount.opens, amount.few, amount.many), (9, 7, 49, 50));
    }

    #[test]
    fn arguments_for_tracer_may_start_with_dashes() {
        let run = run(&["--tracer-arg", "--buffer-size=1MiB", "--tracer-arg=--host"]);
        assert_eq!(run.tracer_arg, ["--buffer-size=1MiB", "--host"]);
    }

    #[test]
    fn own_programs_are_attached_by_the_same_binary() {
        let cli =
            Cli::try_parse_from(["bench", "attach", "floor", "--load", "7", "--record-size", "101"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Attach(_))));
    }
}
